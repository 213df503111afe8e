/* The header that travels before each packet of a TUN queue with IFF_VNET_HDR: struct
 * virtio_net_hdr_v1 of linux/virtio_net.h, in the machine's byte order. It says which checksum is
 * still to be done, and, of a packet larger than the MTU, into what it is to be cut. */
#ifndef RINGTUN_VNET_H
#define RINGTUN_VNET_H

#include <assert.h>
#include <stdint.h>

enum {
    VNET_NEEDS_CSUM = 1, /* flags: the field holds the pseudo-header's sum, the rest is to be added */
    VNET_DATA_VALID = 2, /* flags: the checksum was looked at, and is right */

    VNET_GSO_NONE = 0,
    VNET_GSO_TCPV4 = 1,
    VNET_GSO_TCPV6 = 4,
    VNET_GSO_UDP_L4 = 5,
    VNET_GSO_ECN = 0x80, /* a bit beside the type */
};

struct vnet_header {
    uint8_t flags;
    uint8_t gso_type;
    uint16_t hdr_len;     /* of all headers; not to be trusted when it comes from the host */
    uint16_t gso_size;    /* bytes of payload in each segment but perhaps the last */
    uint16_t csum_start;  /* where summing starts: the transport header */
    uint16_t csum_offset; /* from there, where the sum is stored */
    uint16_t num_buffers; /* not used by TUN: 0. It keeps the packet behind it aligned to 4 */
};

enum { VNET_HEADER_SIZE = 12 };
static_assert(sizeof(struct vnet_header) == VNET_HEADER_SIZE, "as in virtio_net.h");

#endif
