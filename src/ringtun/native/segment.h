/* Host to client: cuts a large packet into those that the host would have sent without offload, and
 * completes checksums that were left to the device. */
#ifndef RINGTUN_SEGMENT_H
#define RINGTUN_SEGMENT_H

#include <stdbool.h>

#include "vnet.h"

/* A packet being cut. All its fields are this file's own business. */
struct segmenter {
    const uint8_t *packet;
    uint32_t size;
    uint32_t readable;  /* bytes that are at `packet`: all, but for segment_fits */
    uint32_t headers;   /* bytes of all headers, which each segment has; 0 of a packet that is whole */
    uint32_t transport; /* where the transport header starts; 0: no checksum is to be done */
    uint32_t done;      /* bytes of payload in the segments written so far */
    uint32_t segment;   /* bytes of payload in each but perhaps the last */
    uint32_t index;     /* of the next segment */
    uint64_t ip_sum, transport_sum; /* of the headers, without what differs between segments */
    uint16_t csum_offset;
    uint8_t version;  /* of IP */
    uint8_t protocol; /* 6 or 17 */
    bool whole;       /* one segment: the packet itself */
};

/* Takes up a packet that came from the host behind `vnet`: `size` bytes that packet_is_ip. False: the
 * two do not fit together, or it is larger than 65,535; nothing of it may be handed on. `packet` is
 * borrowed, private memory that nobody changes, until the last segment was written. hdr_len is not
 * looked at.
 *
 * A packet without GSO is one segment: itself, with its checksum done where VNET_NEEDS_CSUM says so;
 * nothing else of it is looked at.
 */
bool segment_begin(struct segmenter *s, const struct vnet_header *vnet, const uint8_t *packet,
                   uint32_t size);

/* The same look at a packet of `size` bytes of which the first `readable` are at `headers`: whether
 * segment_begin would take it up. False also where its headers go on behind those bytes. */
bool segment_fits(const struct vnet_header *vnet, const uint8_t *headers, uint32_t readable,
                  uint32_t size);

/* Bytes of the next segment, headers included; 0: all were written, or the packet was refused. */
uint32_t segment_size(const struct segmenter *s);

/* Writes the next segment to `to`, of segment_size() bytes: memory that a peer may read and change at
 * any time, so nothing is read back from there. */
void segment_write(struct segmenter *s, uint8_t *to);

#endif
