/* Where an adapter's packets come from and go to: a queue of the Linux TUN device, or a link in
 * memory. Neither call ever waits. */
#ifndef RINGTUN_HOST_H
#define RINGTUN_HOST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "impairment.h"

struct host {
    /* Takes the host's next packet into the pieces, which hold any packet together. Returns its
     * size or -errno: -EAGAIN when there is none, -EBADFD when the adapter is gone. */
    ssize_t (*read)(struct host *host, const struct iovec *pieces, int count);
    /* Gives the host one packet: one piece, or, with vnet, pieces that hold it together. Returns 0 or
     * -errno: -EAGAIN when it cannot take it now, -EIO while the interface is down, -EINVAL for what it refuses, -EBADFD
     * when the adapter is gone. */
    int (*write)(struct host *host, const struct iovec *pieces, int count);
    /* Readable when a read has something to give; in error when the adapter is gone. */
    int fd;
    /* Each packet has a struct vnet_header before it, both ways: it may be larger than the MTU, and
     * lack its checksum. */
    bool vnet;
    /* With vnet, what the host takes in large packets (enum coalesce_kinds). The engine takes away
     * what turns out to be refused; it never comes back. */
    uint32_t coalesces;
    /* Told once that has become less; NULL: nothing is to be done. */
    void (*coalesces_less)(struct host *host);
};

/* A queue of the Linux TUN device, without a packet-information header, non-blocking; `vnet`: made
 * with IFF_VNET_HDR and headers of VNET_HEADER_SIZE. The caller keeps the descriptor open while the
 * host is in use. */
void host_init_tun(struct host *host, int fd, bool vnet, uint32_t coalesces);

/* The end of a link in memory that reads from one direction and writes to the other. */
struct link;
struct link_host {
    struct host host;
    struct link *in;
    struct link *out;
    uint32_t down;
};
void host_init_link(struct link_host *host, struct link *in, struct link *out);
/* Down, it takes no packet (-EIO), and what is sent to it is dropped as if nobody were connected. From
 * any thread. */
void link_host_set_up(struct link_host *host, bool up);

/* One direction of a link, whose writer and reader are the hosts of two adapters: a ring; once it is
 * impaired, a queue. As in the kernel, what finds it full, or nobody connected at the other end, is
 * dropped and counted, and the sender is never slowed. One thread writes and one reads at a time; the
 * other calls may come from any thread. Returns NULL and sets errno where it cannot be made. */
struct link *link_create(uint32_t capacity);
void link_destroy(struct link *link);
/* The reading end comes or goes. On coming, what is queued is thrown away; returns how many. */
uint64_t link_connect(struct link *link);
void link_disconnect(struct link *link);

/* Impairs what is written from now on; one call at a time. Returns 0 or an errno. */
int link_impair(struct link *link, const struct impairment *impairment);

struct link_counters {
    uint64_t passed;     /* the reader took them */
    uint64_t overflowed; /* by the ring; by the impaired queue's limit: see there */
    uint64_t unplugged;  /* nobody was connected */
    uint64_t drained;    /* thrown away when the reader came */
    struct impaired_counters impaired;
};
void link_read_counters(const struct link *link, struct link_counters *counters);
/* What the reader's host dropped: all that overflowed or found nobody. */
uint64_t link_dropped(const struct link *link);

#endif
