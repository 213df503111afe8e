#include "coalesce.h"

#include <netinet/in.h>
#include <string.h>

#include "checksum.h"

enum {
    IP4 = 20, /* bytes of each header, without options */
    IP6 = 40,
    TCP = 20,
    UDP = 8,
    HEADERS_MAX = IP6 + 60,
    PACKET_MAX = 0xFFFF,

    TCP_PSH = 0x08,
    TCP_ACK = 0x10,
    DONT_FRAGMENT = 0x4000,
    FRAGMENT = 0x3FFF, /* More Fragments, or an offset */

    TABLE_BITS = 10,
    PROBES = 8, /* most slots looked at for a packet */
    SLOT_NONE = 0xFFFF,
    BLOCK = 16, /* items looked at together */
};

static_assert(VNET_HEADER_SIZE + HEADERS_MAX <= COALESCE_HEADERS_MAX, "an item holds all headers");
static_assert(sizeof((struct coalescer *)0)->table == sizeof(uint16_t) << TABLE_BITS, "all slots");
static_assert(COALESCE_PACKETS % (int)BLOCK == 0, "the last block is whole");
static_assert((int)COALESCE_PACKETS < (int)SLOT_NONE, "an item's number fits the table");

/* ---- words in memory ------------------------------------------------------------------------- */

static inline uint32_t word16(const uint8_t *at)
{
    return (uint32_t)at[0] << 8 | at[1];
}

static inline uint32_t word32(const uint8_t *at)
{
    return word16(at) << 16 | word16(at + 2);
}

static inline void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* As they lie in memory, whatever the machine's byte order. */
static inline uint32_t raw32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static inline uint64_t raw64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* ---- what a packet is ------------------------------------------------------------------------ */

enum standing {
    UNRELATED, /* of no flow that is brought together: it may pass, and be passed by, all */
    PORTLESS,  /* may belong to any flow between its addresses */
    IN_FLOW,   /* belongs to a flow, and goes alone */
    CANDIDATE,
};

struct parsed {
    uint32_t pair;      /* hash of the addresses; not 0 */
    uint32_t kind;      /* enum coalesce_kinds */
    uint32_t hash;      /* of the flow: the kind, the addresses, the ports */
    uint32_t transport; /* where the transport header starts */
    uint32_t headers;   /* bytes of both headers */
    uint32_t payload;   /* bytes behind them */
};

static inline bool is_tcp(const struct parsed *p)
{
    return p->kind & (COALESCE_TCP4 | COALESCE_TCP6);
}

static inline uint64_t mix(uint64_t value)
{
    value = (value ^ value >> 32) * 0x9E3779B97F4A7C15;
    return value ^ value >> 32;
}

static inline uint32_t hash_pair4(const uint8_t *ip)
{
    return (uint32_t)mix(raw64(ip + 12)) | 1;
}

static inline uint32_t hash_pair6(const uint8_t *ip)
{
    uint64_t source = mix(mix(raw64(ip + 8)) ^ raw64(ip + 16));
    return (uint32_t)mix(mix(source ^ raw64(ip + 24)) ^ raw64(ip + 32)) | 1;
}

static inline uint32_t hash_flow(uint32_t pair, uint32_t kind, const uint8_t *ports)
{
    return (uint32_t)mix(((uint64_t)pair << 32 | raw32(ports)) + kind);
}

/* Headers behind which TCP or UDP may follow (RFC 7045); what ESP holds nobody can order. */
static bool is_extension(unsigned protocol)
{
    switch (protocol) {
    case 0:   /* hop by hop */
    case 43:  /* routing */
    case 44:  /* fragment */
    case 51:  /* authentication */
    case 60:  /* destination */
    case 135: /* mobility */
    case 139: /* HIP */
    case 140: /* shim6 */
    case 253: /* experiments */
    case 254:
        return true;
    }
    return false;
}

/* `length` is what the IP header says. */
static enum standing parse_transport(struct parsed *p, const uint8_t *ip, uint32_t size,
                                     uint32_t length)
{
    const uint8_t *transport = ip + p->transport;
    if (size < p->transport + 4)
        return PORTLESS;
    p->hash = hash_flow(p->pair, p->kind, transport);
    if (length != size || size <= p->transport + (is_tcp(p) ? TCP : UDP))
        return IN_FLOW;
    if (is_tcp(p)) {
        uint32_t header = (uint32_t)(transport[12] >> 4) * 4;
        if (header < TCP || transport[12] & 0x0F || (transport[13] & ~TCP_PSH) != TCP_ACK)
            return IN_FLOW;
        p->headers = p->transport + header;
        if (p->headers >= size)
            return IN_FLOW;
    } else {
        /* A UDP checksum of 0 says that there is none; one is made for each segment of an item. */
        if (word16(transport + 4) != size - p->transport || word16(transport + 6) == 0)
            return IN_FLOW;
        p->headers = p->transport + UDP;
    }
    p->payload = size - p->headers;
    return CANDIDATE;
}

/* `ip` is the private copy of the first bytes of a packet of `size` bytes. */
static enum standing parse(struct parsed *p, const uint8_t *ip, uint32_t size)
{
    unsigned version = ip[0] >> 4;
    if (version == 4) {
        unsigned protocol = ip[9];
        if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
            return UNRELATED;
        p->pair = hash_pair4(ip);
        if ((ip[0] & 0x0F) * 4 != IP4 || word16(ip + 6) & FRAGMENT)
            return PORTLESS;
        p->kind = protocol == IPPROTO_TCP ? COALESCE_TCP4 : COALESCE_UDP4;
        p->transport = IP4;
        return parse_transport(p, ip, size, word16(ip + 2));
    }
    if (version == 6 && size >= IP6) { /* it may have been another version when it was looked at */
        unsigned protocol = ip[6];
        bool transport = protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
        if (!transport && !is_extension(protocol))
            return UNRELATED;
        p->pair = hash_pair6(ip);
        if (!transport)
            return PORTLESS;
        p->kind = protocol == IPPROTO_TCP ? COALESCE_TCP6 : COALESCE_UDP6;
        p->transport = IP6;
        return parse_transport(p, ip, size, IP6 + word16(ip + 4));
    }
    return UNRELATED;
}

/* The headers, read once: whoever owns the memory may change it at any time. */
static void copy_headers(uint8_t *ip, const uint8_t *data, uint32_t size)
{
    if (size >= HEADERS_MAX)
        memcpy(ip, data, HEADERS_MAX);
    else
        memcpy(ip, data, size);
    /* Ensure that the compiler reads the copy from here on, and not `data` again. */
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* ---- what goes together ---------------------------------------------------------------------- */

/* The bits that are the same in all packets of an item, up to TCP's options. Not: lengths, the IPv4
 * ID, checksums, the sequence number, PSH. Padded to 8 bytes. The window and the urgent pointer are
 * among them: each segment that the host makes carries the first one's. */
#define ALIKE_IP4 0xFF, 0xFF, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, ALIKE_8
#define ALIKE_IP6 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0xFF, 0xFF, ALIKE_8, ALIKE_8, ALIKE_8, ALIKE_8
#define ALIKE_TCP                                                                                  \
    0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF & ~TCP_PSH, 0xFF, 0xFF, \
        0, 0, 0xFF, 0xFF
#define ALIKE_UDP 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0
#define ALIKE_8 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF

static const uint8_t ALIKE_TCP4[IP4 + TCP] = {ALIKE_IP4, ALIKE_TCP};
static const uint8_t ALIKE_TCP6[IP6 + TCP + 4] = {ALIKE_IP6, ALIKE_TCP};
static const uint8_t ALIKE_UDP4[IP4 + UDP + 4] = {ALIKE_IP4, ALIKE_UDP};
static const uint8_t ALIKE_UDP6[IP6 + UDP] = {ALIKE_IP6, ALIKE_UDP};

static inline uint64_t difference(const uint8_t *a, const uint8_t *b, const uint8_t *mask,
                                  uint32_t size)
{
    uint64_t found = 0;
    for (uint32_t i = 0; i < size; i += 8)
        found |= (raw64(a + i) ^ raw64(b + i)) & raw64(mask + i);
    return found;
}

/* What an item holds behind its own headers may be another's: never beyond its memory, and where
 * that is looked at, the bytes before differ already. */
static bool alike(const uint8_t *a, const uint8_t *b, const struct parsed *p)
{
    switch (p->kind) {
    case COALESCE_UDP4:
        return !difference(a, b, ALIKE_UDP4, sizeof ALIKE_UDP4);
    case COALESCE_UDP6:
        return !difference(a, b, ALIKE_UDP6, sizeof ALIKE_UDP6);
    }
    uint64_t found = p->kind == COALESCE_TCP4 ? difference(a, b, ALIKE_TCP4, sizeof ALIKE_TCP4)
                                              : difference(a, b, ALIKE_TCP6, sizeof ALIKE_TCP6);
    for (uint32_t i = p->transport + TCP; i < p->headers; i += 4)
        found |= raw32(a + i) ^ raw32(b + i);
    return !found;
}

/* Whether a packet continues an open item of its flow, its checksums aside. */
static bool continues(const struct coalescer *c, const struct coalesce_item *item, const uint8_t *ip,
                      const struct parsed *p)
{
    const uint8_t *first = item->header + VNET_HEADER_SIZE;
    if (p->payload > item->payload || item->size + p->payload > PACKET_MAX || !alike(first, ip, p))
        return false;
    /* The segments' IDs will count up from the first one's. Where fragments are forbidden nothing
     * depends on them (RFC 6864). */
    if (p->transport == IP4 && !(word16(ip + 6) & DONT_FRAGMENT) &&
        word16(ip + 4) != ((word16(first + 4) + item->packets) & 0xFFFF))
        return false;
    if (is_tcp(p))
        return word32(ip + p->transport + 4) == item->next_seq;
    return item->packets < c->udp_segments;
}

/* The sum over the pseudo-header, in memory order. */
static inline uint64_t sum_pseudo_header(const struct parsed *p, uint32_t size)
{
    uint16_t protocol = is_tcp(p) ? IPPROTO_TCP : IPPROTO_UDP;
    return (uint64_t)htons((uint16_t)(size - p->transport)) + htons(protocol);
}

static inline uint32_t addresses_at(const struct parsed *p)
{
    return p->transport == IP4 ? 12 : 8; /* they end where the transport header starts */
}

static bool is_right(uint64_t sum)
{
    return checksum_fold(sum) == 0xFFFF;
}

/* Whether both checksums of a packet are right: of the headers in the private copy, and the payload
 * as it is now. */
static bool sums_are_right(const uint8_t *ip, const struct coalesce_packet *packet,
                           const struct parsed *p)
{
    if (p->transport == IP4 && !is_right(checksum_add(ip, IP4)))
        return false;
    uint32_t from = addresses_at(p);
    return is_right(sum_pseudo_header(p, packet->size) + checksum_add(ip + from, p->headers - from) +
                    checksum_add(packet->data + p->headers, packet->size - p->headers));
}

/* ---- flows ------------------------------------------------------------------------------------ */

/* The slot of a flow's last item, or the free one where it may go; SLOT_NONE: neither is near, so the
 * flow has no open item, and gets none. A slot that is taken stays so until coalesce_reset: what is
 * not found was never there.
 *
 * Flows with the same hash count as one: then they close each other's items, and never mix, since an
 * item takes only what has the same headers. */
static uint32_t find_slot(const struct coalescer *c, uint32_t hash)
{
    for (uint32_t probe = 0; probe < PROBES; probe++) {
        uint32_t slot = ((hash >> (32 - TABLE_BITS)) + probe) & ((1 << TABLE_BITS) - 1);
        if (!c->table[slot] || c->items[c->table[slot] - 1].hash == hash)
            return slot;
    }
    return SLOT_NONE;
}

/* Whatever may belong to any flow between two addresses came between. A block has mostly none of them,
 * which the compiler finds out at once; what it holds behind the last item is of items that were. */
static void close_pair(struct coalescer *c, uint32_t pair)
{
    for (uint32_t block = 0; block < c->item_count; block += BLOCK) {
        uint32_t *pairs = c->pairs + block;
        unsigned found = 0;
        for (uint32_t i = 0; i < BLOCK; i++)
            found |= pairs[i] == pair;
        for (uint32_t i = 0; found && i < BLOCK; i++) {
            if (pairs[i] == pair) {
                c->items[block + i].closed = true;
                pairs[i] = 0;
            }
        }
    }
}

/* Make the item of a packet whose headers lie in it already, so far of this packet alone. */
static struct coalesce_item *start_item(struct coalescer *c, uint32_t packet)
{
    struct coalesce_item *item = &c->items[c->item_count];
    c->pairs[c->item_count++] = 0;
    item->first = item->last = packet;
    item->packets = 1;
    item->size = c->packets[packet].size;
    item->headers = 0;
    item->kind = 0;
    item->slot = SLOT_NONE;
    item->closed = true;
    item->push = false;
    return item;
}

static void append(struct coalescer *c, struct coalesce_item *item, uint32_t packet,
                   const struct parsed *p, bool push)
{
    c->packets[item->last].next = packet;
    item->last = packet;
    item->packets++;
    item->size += p->payload;
    item->headers = p->headers;
    item->kind = p->kind;
    item->next_seq += p->payload;
    item->push = push;
    item->closed = push || p->payload < item->payload;
}

/* ---- the interface ---------------------------------------------------------------------------- */

void coalesce_init(struct coalescer *c, uint32_t kinds, bool verify, uint32_t udp_segments)
{
    memset(c, 0, sizeof *c);
    c->kinds = kinds;
    c->verify = verify;
    c->udp_segments = udp_segments;
}

bool coalesce_add(struct coalescer *c, const uint8_t *data, uint32_t size)
{
    if (c->packet_count == COALESCE_PACKETS)
        return false;
    uint32_t number = c->packet_count++;
    struct coalesce_packet *packet = &c->packets[number];
    *packet = (struct coalesce_packet){data, size, COALESCE_NONE};
    uint8_t *ip = c->items[c->item_count].header + VNET_HEADER_SIZE; /* those of an item to be */
    copy_headers(ip, data, size);

    struct parsed p;
    enum standing standing = parse(&p, ip, size);
    if (standing == PORTLESS)
        close_pair(c, p.pair);
    if (standing == PORTLESS || standing == UNRELATED) {
        start_item(c, number);
        return true;
    }

    bool candidate = standing == CANDIDATE && c->kinds & p.kind;
    bool push = candidate && is_tcp(&p) && ip[p.transport + 13] & TCP_PSH;
    uint32_t slot = find_slot(c, p.hash);
    if (slot != SLOT_NONE && c->table[slot]) {
        struct coalesce_item *open = &c->items[c->table[slot] - 1];
        if (candidate && !open->closed && continues(c, open, ip, &p)) {
            /* The first one's sums are looked at now: most packets that stay alone never need it. */
            if (c->verify && open->packets == 1 &&
                !sums_are_right(open->header + VNET_HEADER_SIZE, &c->packets[open->first], &p)) {
                /* It is closed below, and this one starts anew. */
            } else if (c->verify && !sums_are_right(ip, packet, &p)) {
                candidate = false;
            } else {
                append(c, open, number, &p, push);
                return true;
            }
        }
        open->closed = true;
        c->pairs[c->table[slot] - 1] = 0;
    }

    struct coalesce_item *item = start_item(c, number);
    if (candidate && slot != SLOT_NONE) {
        item->hash = p.hash;
        item->slot = (uint16_t)slot;
        item->payload = (uint16_t)p.payload;
        item->next_seq = is_tcp(&p) ? word32(ip + p.transport + 4) + p.payload : 0;
        item->closed = push;
        c->pairs[c->item_count - 1] = p.pair;
        c->table[slot] = (uint16_t)c->item_count;
    }
    return true;
}

/* Make the headers of an item of several packets. */
static void finish_headers(struct coalesce_item *item, const struct parsed *p)
{
    uint8_t *ip = item->header + VNET_HEADER_SIZE, *transport = ip + p->transport;
    bool tcp = is_tcp(p);
    uint32_t from = addresses_at(p), offset = tcp ? 16 : 6;
    uint16_t sum = checksum_fold(sum_pseudo_header(p, item->size) +
                                 checksum_add(ip + from, p->transport - from));
    memcpy(transport + offset, &sum, sizeof sum);
    if (tcp && item->push)
        transport[13] |= TCP_PSH;
    if (!tcp)
        put16(transport + 4, item->size - p->transport);
    if (p->transport == IP4) {
        put16(ip + 2, item->size);
        put16(ip + 10, 0);
        sum = (uint16_t)~checksum_fold(checksum_add(ip, IP4));
        memcpy(ip + 10, &sum, sizeof sum);
    } else {
        put16(ip + 4, item->size - IP6);
    }
    struct vnet_header vnet = {
        .flags = VNET_NEEDS_CSUM,
        .gso_type = p->kind == COALESCE_TCP4   ? VNET_GSO_TCPV4
                    : p->kind == COALESCE_TCP6 ? VNET_GSO_TCPV6
                                               : VNET_GSO_UDP_L4,
        .hdr_len = (uint16_t)p->headers,
        .gso_size = item->payload,
        .csum_start = (uint16_t)p->transport,
        .csum_offset = (uint16_t)offset,
    };
    memcpy(item->header, &vnet, sizeof vnet);
}

int coalesce_pieces(struct coalescer *c, uint32_t index, struct iovec *pieces)
{
    struct coalesce_item *item = &c->items[index];
    const struct coalesce_packet *packet = &c->packets[item->first];
    if (item->packets == 1) {
        memset(item->header, 0, VNET_HEADER_SIZE);
        pieces[0] = (struct iovec){item->header, VNET_HEADER_SIZE};
        pieces[1] = (struct iovec){(void *)packet->data, packet->size};
        return 2;
    }
    struct parsed p = {
        .kind = item->kind,
        .transport = item->kind & (COALESCE_TCP4 | COALESCE_UDP4) ? IP4 : IP6,
        .headers = item->headers,
    };
    finish_headers(item, &p);
    pieces[0] = (struct iovec){item->header, VNET_HEADER_SIZE + item->headers};
    int count = 1;
    for (;;) {
        pieces[count++] =
            (struct iovec){(void *)(packet->data + item->headers), packet->size - item->headers};
        if (packet->next == COALESCE_NONE)
            return count;
        packet = &c->packets[packet->next];
    }
}

void coalesce_reset(struct coalescer *c)
{
    for (uint32_t i = 0; i < c->item_count; i++)
        if (c->items[i].slot != SLOT_NONE)
            c->table[c->items[i].slot] = 0;
    c->packet_count = c->item_count = 0;
}
