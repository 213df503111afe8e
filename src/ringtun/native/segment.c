#include "segment.h"

#include <arpa/inet.h>
#include <string.h>

#include "checksum.h"
#include "ringtun.h"

/* Offsets of fields in their headers. */
enum {
    IPV4_LENGTH = 2,
    IPV4_ID = 4,
    IPV4_FRAGMENT = 6,
    IPV4_PROTOCOL = 9,
    IPV4_CHECKSUM = 10,
    IPV4_SIZE = 20, /* without options */
    IPV6_LENGTH = 4,
    IPV6_NEXT = 6,
    IPV6_SIZE = 40,
    TCP_SEQUENCE = 4,
    TCP_DATA_OFFSET = 12,
    TCP_FLAGS = 13,
    TCP_CHECKSUM = 16,
    TCP_SIZE = 20, /* without options */
    UDP_LENGTH = 4,
    UDP_CHECKSUM = 6,
    UDP_SIZE = 8,
};

enum { HOP_BY_HOP = 0, TCP = 6, UDP = 17, ROUTING = 43, DESTINATION_OPTIONS = 60 };

enum { FIN = 0x01, PSH = 0x08, CWR = 0x80 };

static inline uint16_t get16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return ntohs(value);
}

static inline uint32_t get32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return ntohl(value);
}

/* Store a field, and add it to the sum of its header. */
static inline void put16(uint8_t *at, uint16_t value, uint64_t *sum)
{
    value = htons(value);
    memcpy(at, &value, sizeof value);
    *sum += value;
}

static inline void put32(uint8_t *at, uint32_t value, uint64_t *sum)
{
    value = htonl(value);
    memcpy(at, &value, sizeof value);
    *sum += value;
}

static inline void put_checksum(uint8_t *at, uint64_t sum, bool zero_means_none)
{
    uint16_t value = (uint16_t)~checksum_fold(sum);
    if (!value && zero_means_none)
        value = 0xFFFF;
    memcpy(at, &value, sizeof value);
}

/* What is added to a sum to take a field out of it. */
static inline uint64_t without16(const uint8_t *at)
{
    return (uint16_t)~htons(get16(at));
}

static inline uint64_t without32(const uint8_t *at)
{
    return (uint32_t)~htonl(get32(at));
}

/* ---- taking a packet up ------------------------------------------------------------------------- */

static uint32_t ip_headers(const struct segmenter *s)
{
    return s->version == 4 ? (s->packet[0] & 0x0Fu) * 4 : IPV6_SIZE;
}

/* A checksum to be done may be of any protocol, and of a packet within a tunnel's: so it is only
 * looked at whether it lies behind the outer IP header and within the packet. */
static bool begin_whole(struct segmenter *s, const struct vnet_header *vnet)
{
    s->segment = s->size;
    if (!(vnet->flags & VNET_NEEDS_CSUM))
        return true;
    s->transport = vnet->csum_start;
    s->csum_offset = vnet->csum_offset;
    uint32_t headers = ip_headers(s);
    return headers >= IPV4_SIZE && s->transport >= headers &&
           s->transport + s->csum_offset + 2u <= s->size;
}

/* Where the transport header starts, perhaps beyond the packet's end, and its protocol; 0: the IP
 * headers do not fit the packet, or it is a fragment. */
static uint32_t find_transport(struct segmenter *s)
{
    const uint8_t *packet = s->packet;
    uint32_t at = ip_headers(s);
    if (s->version == 4) {
        bool fits = at >= IPV4_SIZE && get16(packet + IPV4_LENGTH) == s->size;
        s->protocol = packet[IPV4_PROTOCOL];
        return fits && !(get16(packet + IPV4_FRAGMENT) & 0x3FFF) ? at : 0;
    }
    if (get16(packet + IPV6_LENGTH) != s->size - IPV6_SIZE)
        return 0;
    s->protocol = packet[IPV6_NEXT];
    while (s->protocol == HOP_BY_HOP || s->protocol == ROUTING || s->protocol == DESTINATION_OPTIONS) {
        if (at + 8 > s->readable)
            return 0;
        s->protocol = packet[at];
        at += (packet[at + 1] + 1u) * 8;
    }
    return at;
}

/* Whether there is a whole TCP header; sums what of it is the same in all segments. */
static bool begin_tcp(struct segmenter *s)
{
    const uint8_t *header = s->packet + s->transport;
    if (s->csum_offset != TCP_CHECKSUM || s->transport + TCP_SIZE > s->readable)
        return false;
    uint32_t size = (header[TCP_DATA_OFFSET] >> 4) * 4u;
    s->headers = s->transport + size;
    if (size < TCP_SIZE || s->headers > s->readable)
        return false;
    s->transport_sum = checksum_add(header, size) + without32(header + TCP_SEQUENCE) +
                       (uint16_t)~htons(header[TCP_FLAGS]);
    return true;
}

static bool begin_udp(struct segmenter *s)
{
    const uint8_t *header = s->packet + s->transport;
    s->headers = s->transport + UDP_SIZE;
    if (s->csum_offset != UDP_CHECKSUM || s->headers > s->readable ||
        get16(header + UDP_LENGTH) != s->size - s->transport)
        return false;
    s->transport_sum = checksum_add(header, UDP_SIZE) + without16(header + UDP_LENGTH);
    return true;
}

/* What the type says that the packet is: version << 8 | protocol; 0: no type that we know. */
static uint32_t type_of(const struct segmenter *s, uint8_t gso_type)
{
    switch (gso_type) {
    case VNET_GSO_TCPV4:
    case VNET_GSO_TCPV4 | VNET_GSO_ECN:
        return 4u << 8 | TCP;
    case VNET_GSO_TCPV6:
    case VNET_GSO_TCPV6 | VNET_GSO_ECN:
        return 6u << 8 | TCP;
    case VNET_GSO_UDP_L4:
        return (uint32_t)s->version << 8 | UDP;
    default:
        return 0;
    }
}

static bool begin_cut(struct segmenter *s, const struct vnet_header *vnet)
{
    s->transport = find_transport(s);
    s->csum_offset = vnet->csum_offset;
    s->segment = vnet->gso_size;
    if (!s->transport || s->transport != vnet->csum_start || !(vnet->flags & VNET_NEEDS_CSUM) ||
        type_of(s, vnet->gso_type) != ((uint32_t)s->version << 8 | s->protocol))
        return false;
    if (!(s->protocol == TCP ? begin_tcp(s) : begin_udp(s)))
        return false;
    if (!s->segment || s->segment > s->size - s->headers)
        return false;
    /* The field holds the pseudo-header's sum, with the length of the whole. */
    s->transport_sum += (uint16_t)~htons((uint16_t)(s->size - s->transport));
    if (s->version == 4)
        s->ip_sum = checksum_add(s->packet, s->transport) + without16(s->packet + IPV4_LENGTH) +
                    without16(s->packet + IPV4_ID) + without16(s->packet + IPV4_CHECKSUM);
    return true;
}

static bool begin(struct segmenter *s, const struct vnet_header *vnet)
{
    s->version = s->packet[0] >> 4;
    s->whole = vnet->gso_type == VNET_GSO_NONE;
    return s->size <= TUN_PACKET_MAX_SIZE && (s->whole ? begin_whole(s, vnet) : begin_cut(s, vnet));
}

bool segment_begin(struct segmenter *s, const struct vnet_header *vnet, const uint8_t *packet,
                   uint32_t size)
{
    *s = (struct segmenter){.packet = packet, .size = size, .readable = size};
    if (begin(s, vnet))
        return true;
    *s = (struct segmenter){0};
    return false;
}

bool segment_fits(const struct vnet_header *vnet, const uint8_t *headers, uint32_t readable,
                  uint32_t size)
{
    struct segmenter s = {.packet = headers, .size = size, .readable = readable};
    return begin(&s, vnet);
}

/* ---- handing its segments out ------------------------------------------------------------------- */

static inline uint32_t next_payload(const struct segmenter *s)
{
    uint32_t left = s->size - s->headers - s->done;
    return left < s->segment ? left : s->segment;
}

uint32_t segment_size(const struct segmenter *s)
{
    uint32_t payload = next_payload(s);
    return payload ? s->headers + payload : 0;
}

static void write_whole(struct segmenter *s, uint8_t *to)
{
    if (!s->transport) {
        memcpy(to, s->packet, s->size);
        return;
    }
    memcpy(to, s->packet, s->transport);
    uint64_t sum = checksum_copy(to + s->transport, s->packet + s->transport, s->size - s->transport);
    /* At this offset it is UDP's, or of one of its kin, for whom 0xFFFF is as good as 0. */
    put_checksum(to + s->transport + s->csum_offset, sum, s->csum_offset == UDP_CHECKSUM);
}

static void write_ip(const struct segmenter *s, uint8_t *to, uint32_t size)
{
    uint64_t sum = s->ip_sum;
    if (s->version == 6) {
        put16(to + IPV6_LENGTH, (uint16_t)(size - IPV6_SIZE), &sum);
        return;
    }
    put16(to + IPV4_LENGTH, (uint16_t)size, &sum);
    put16(to + IPV4_ID, (uint16_t)(get16(s->packet + IPV4_ID) + s->index), &sum);
    put_checksum(to + IPV4_CHECKSUM, sum, false);
}

static void write_segment(struct segmenter *s, uint8_t *to, uint32_t payload)
{
    const uint8_t *header = s->packet + s->transport;
    uint32_t size = s->headers + payload;
    uint16_t length = (uint16_t)(size - s->transport);
    uint8_t *to_header = to + s->transport;

    memcpy(to, s->packet, s->headers);
    write_ip(s, to, size);
    uint64_t sum = s->transport_sum + htons(length); /* of the pseudo-header */
    sum += checksum_copy(to + s->headers, s->packet + s->headers + s->done, payload);
    if (s->protocol == TCP) {
        uint8_t flags = header[TCP_FLAGS];
        if (size + s->done != s->size)
            flags &= (uint8_t)~(FIN | PSH);
        if (s->index)
            flags &= (uint8_t)~CWR;
        put32(to_header + TCP_SEQUENCE, get32(header + TCP_SEQUENCE) + s->done, &sum);
        to_header[TCP_FLAGS] = flags;
        sum += htons(flags);
    } else {
        put16(to_header + UDP_LENGTH, length, &sum);
    }
    put_checksum(to_header + s->csum_offset, sum, s->protocol == UDP);
}

void segment_write(struct segmenter *s, uint8_t *to)
{
    uint32_t payload = next_payload(s);
    if (s->whole)
        write_whole(s, to);
    else
        write_segment(s, to, payload);
    s->done += payload;
    s->index++;
}
