/* Client to host: brings packets of one flow together into large ones, which the host takes by one
 * call each.
 *
 * The packets lie in a ring that the client may change at any time. So headers are copied once to
 * private memory, checked and used there; payload is only ever pointed at. Sizes are those that were
 * read once from the ring.
 */
#ifndef RINGTUN_COALESCE_H
#define RINGTUN_COALESCE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

#include "vnet.h"

enum {
    COALESCE_PACKETS = 512,     /* most packets between two resets */
    COALESCE_HEADERS_MAX = 128, /* IPv6 40, TCP 60, and the header of vnet.h before them */
};

/* What the host takes, and nobody has switched off. */
enum coalesce_kinds {
    COALESCE_TCP4 = 1,
    COALESCE_TCP6 = 2,
    COALESCE_UDP4 = 4,
    COALESCE_UDP6 = 8,
};

enum { COALESCE_NONE = COALESCE_PACKETS }; /* an index that no packet has */

struct coalesce_packet {
    const uint8_t *data; /* in the ring */
    uint32_t size;
    uint32_t next; /* the next packet of the same item, by index; COALESCE_NONE at the end */
};

/* One packet for the host: a single one as it came, or several brought together. It is written at the
 * place of its first packet: the others move forward, past items of other flows only. */
struct coalesce_item {
    uint32_t first, last; /* packets, by index */
    uint32_t packets;
    uint32_t size;        /* bytes of the large packet: one set of headers, all payload */
    uint32_t headers;     /* bytes of IP and transport header; 0: it came as it is, and stays so */
    uint32_t kind;        /* enum coalesce_kinds; 0: as it is */
    /* … and what the coalescer needs to find the flow, to append and to close: its own business. */
    uint32_t hash;        /* of the flow */
    uint32_t next_seq;
    uint16_t payload;     /* bytes of the first packet's payload: the segment size */
    uint16_t slot;        /* in the table; SLOT_NONE: not there */
    bool closed;          /* takes no more: short tail, PSH, or something came between */
    bool push;            /* the last packet carried PSH */
    uint8_t header[COALESCE_HEADERS_MAX]; /* vnet_header, private copy of the first one's headers */
};

struct coalescer {
    uint32_t kinds;
    bool verify;           /* check both checksums of a packet before it is brought together */
    uint32_t udp_segments; /* most datagrams in one large packet */
    uint32_t packet_count, item_count;
    struct coalesce_packet packets[COALESCE_PACKETS];
    struct coalesce_item items[COALESCE_PACKETS];
    /* Where to look for a flow's open item; the file's own business. */
    uint32_t pairs[COALESCE_PACKETS]; /* of each item: the hash of its addresses; 0: not open */
    uint16_t table[1024];             /* the flow's last item, from 1; 0: free */
};

/* Once. `kinds` and `verify` may be changed later, between coalesce_reset and the next packet. */
void coalesce_init(struct coalescer *c, uint32_t kinds, bool verify, uint32_t udp_segments);

/* Takes a packet of `size` bytes that packet_is_ip said yes to. Its memory stays the caller's, and
 * has to stay where it is until coalesce_reset. False, and nothing taken: COALESCE_PACKETS are there.
 */
bool coalesce_add(struct coalescer *c, const uint8_t *data, uint32_t size);

/* The pieces of item number `index`, from 0 to item_count - 1, in the order in which they are to be
 * written: a vnet_header first, then the packet. `pieces` has room for COALESCE_PACKETS + 1; returns
 * how many are used (at most 1,024, which is the most that writev takes). An item of one packet goes
 * as it came, with a header of zeros, in two pieces. The headers of one that was brought together are
 * made here, in the item's private memory: the first piece is the vnet_header and they. May be
 * called again, with the same result. */
int coalesce_pieces(struct coalescer *c, uint32_t index, struct iovec *pieces);

/* Forgets all packets and items; nothing of their memory is touched any more. */
void coalesce_reset(struct coalescer *c);

#endif
