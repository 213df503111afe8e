/* The engine's steps above a host with offload headers, under the sanitizers.
 *
 * The host is made up: it hands over the large packets that it is given, keeps what is written to it,
 * and answers as it is told. Prints a line a test, and "ok all".
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "checksum.h"
#include "engine.h"

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            printf("FAILED %s:%d: %s\n", __FILE__, __LINE__, #condition);                         \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

enum {
    CAPACITY = 0x20000,
    LARGEST = VNET_HEADER_SIZE + TUN_PACKET_MAX_SIZE,
    WRITES = 8192,
    TCP = 6,
    UDP = 17,
    ACK = 0x10,
    DEADLINE_MS = 10000,
    ALL_KINDS = COALESCE_TCP4 | COALESCE_TCP6 | COALESCE_UDP4 | COALESCE_UDP6,
};

/* ---- a host that is told what to say --------------------------------------------------------- */

struct bytes {
    uint8_t *data;
    size_t size;
};

struct fake {
    struct host host;
    struct bytes *to_read; /* what reads give, in their order */
    size_t reads, read_count;
    struct bytes written[WRITES]; /* what writes brought, those refused not among them */
    size_t write_count;
    unsigned calls; /* of write */
    /* Answers a write: 0 or -errno. NULL: all are taken. */
    int (*answer)(struct fake *fake, const struct vnet_header *vnet, const uint8_t *packet, size_t size);
    unsigned fail_at; /* … for the answers below: which call */
    int fail_with;
    uint32_t refuses; /* enum coalesce_kinds */
    uint8_t *spoil;   /* memory of the client's, which is changed when a write fails */
    size_t merged_refused;
    unsigned switched_off; /* times that it was told so */
};

static void fake_coalesces_less(struct host *host)
{
    ((struct fake *)host)->switched_off++;
}

static ssize_t fake_read(struct host *host, const struct iovec *pieces, int count)
{
    struct fake *fake = (struct fake *)host;
    if (fake->reads == fake->read_count)
        return -EAGAIN;
    const struct bytes *next = &fake->to_read[fake->reads++];
    size_t done = 0;
    for (int i = 0; i < count && done < next->size; i++) {
        size_t part = next->size - done < pieces[i].iov_len ? next->size - done : pieces[i].iov_len;
        memcpy(pieces[i].iov_base, next->data + done, part);
        done += part;
    }
    CHECK(done == next->size); /* the pieces hold any packet */
    return (ssize_t)done;
}

static int fake_write(struct host *host, const struct iovec *pieces, int count)
{
    struct fake *fake = (struct fake *)host;
    uint8_t packet[LARGEST];
    size_t size = 0;
    CHECK(count >= 1 && count <= 1024);
    for (int i = 0; i < count; i++) {
        CHECK(size + pieces[i].iov_len <= sizeof packet);
        memcpy(packet + size, pieces[i].iov_base, pieces[i].iov_len);
        size += pieces[i].iov_len;
    }
    CHECK(size > VNET_HEADER_SIZE);
    struct vnet_header vnet;
    memcpy(&vnet, packet, sizeof vnet);
    fake->calls++;
    int answer = fake->answer
        ? fake->answer(fake, &vnet, packet + VNET_HEADER_SIZE, size - VNET_HEADER_SIZE)
        : 0;
    if (answer)
        return answer;
    struct bytes *kept = &fake->written[fake->write_count++];
    CHECK(fake->write_count < WRITES);
    kept->size = size;
    kept->data = malloc(size);
    memcpy(kept->data, packet, size);
    return 0;
}

static int fail_once(struct fake *fake, const struct vnet_header *vnet, const uint8_t *packet, size_t size)
{
    (void)vnet, (void)packet, (void)size;
    if (fake->calls != fake->fail_at)
        return 0;
    if (fake->spoil)
        memset(fake->spoil, 0xFF, 40);
    return fake->fail_with;
}

static uint32_t kind_of(const struct vnet_header *vnet, const uint8_t *packet)
{
    if (vnet->gso_type == VNET_GSO_UDP_L4)
        return packet[0] >> 4 == 4 ? COALESCE_UDP4 : COALESCE_UDP6;
    return vnet->gso_type == VNET_GSO_TCPV4   ? COALESCE_TCP4
           : vnet->gso_type == VNET_GSO_TCPV6 ? COALESCE_TCP6
                                              : 0;
}

/* A kernel that does not take some kinds merged; `fail_at` and `fail_with` beside. */
static int refuse_kinds(struct fake *fake, const struct vnet_header *vnet, const uint8_t *packet,
                        size_t size)
{
    if (kind_of(vnet, packet) & fake->refuses) {
        fake->merged_refused++;
        return -EINVAL;
    }
    return fail_once(fake, vnet, packet, size);
}

static int refuse_ports_9(struct fake *fake, const struct vnet_header *vnet, const uint8_t *packet,
                          size_t size)
{
    (void)size;
    uint32_t transport = packet[0] >> 4 == 4 ? 20 : 40;
    if (packet[transport + 1] != 9)
        return 0;
    fake->merged_refused += vnet->gso_type != 0;
    return -EINVAL;
}

/* ---- packets --------------------------------------------------------------------------------- */

struct flow {
    int version, protocol;
    uint16_t port;
    uint32_t seq;
};

static void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value & 0xFFFF);
}

static uint64_t sum_pseudo_header(const uint8_t *packet, size_t size, uint32_t transport, int protocol)
{
    uint32_t from = transport == 20 ? 12 : 8;
    return checksum_add(packet + from, transport - from) + htons((uint16_t)(size - transport)) +
           htons((uint16_t)protocol);
}

/* Headers of a packet of `payload` bytes, whose checksum is the pseudo-header's sum; returns their size.
 * `options`: bytes of TCP options, no-operations all. */
static uint32_t make_headers(uint8_t *packet, const struct flow *flow, uint32_t payload, uint32_t options)
{
    uint32_t transport = flow->version == 4 ? 20 : 40;
    uint32_t headers = transport + (flow->protocol == TCP ? 20 + options : 8);
    uint32_t size = headers + payload;
    memset(packet, 0, headers);
    if (flow->version == 4) {
        packet[0] = 0x45;
        put16(packet + 2, size);
        packet[6] = 0x40;
        packet[8] = 64;
        packet[9] = (uint8_t)flow->protocol;
        memcpy(packet + 12, "\x0a\x63\x00\x02\x0a\x63\x00\x01", 8);
        uint16_t sum = (uint16_t)~checksum_fold(checksum_add(packet, 20));
        memcpy(packet + 10, &sum, 2);
    } else {
        packet[0] = 0x60;
        put16(packet + 4, size - 40);
        packet[6] = (uint8_t)flow->protocol;
        packet[7] = 64;
        packet[8] = packet[24] = 0xFD;
        packet[23] = 2;
        packet[39] = 1;
    }
    uint8_t *header = packet + transport;
    put16(header, flow->port);
    put16(header + 2, 2000);
    if (flow->protocol == TCP) {
        put32(header + 4, flow->seq);
        header[12] = (uint8_t)((20 + options) / 4 << 4);
        header[13] = ACK;
        put16(header + 14, 500);
        memset(header + 20, 1, options);
    } else {
        put16(header + 4, 8 + payload);
    }
    uint16_t sum = checksum_fold(sum_pseudo_header(packet, size, transport, flow->protocol));
    memcpy(header + (flow->protocol == TCP ? 16 : 6), &sum, 2);
    return headers;
}

/* An ordinary packet of a flow, which goes on; returns its size. The payload counts up. */
static uint32_t make_packet(uint8_t *packet, struct flow *flow, uint32_t payload)
{
    uint32_t transport = flow->version == 4 ? 20 : 40;
    uint32_t headers = make_headers(packet, flow, payload, 0), size = headers + payload;
    for (uint32_t i = 0; i < payload; i++)
        packet[headers + i] = (uint8_t)((flow->seq + i) * 7 + flow->port);
    uint8_t *field = packet + transport + (flow->protocol == TCP ? 16 : 6);
    uint16_t sum = (uint16_t)~checksum_fold(checksum_add(packet + transport, size - transport));
    if (!sum && flow->protocol == UDP)
        sum = 0xFFFF;
    memcpy(field, &sum, 2);
    flow->seq += payload;
    return size;
}

/* A large packet with its header before it, as a host hands it over; returns the size of both. */
static uint32_t make_large(uint8_t *data, struct flow *flow, uint32_t payload, uint32_t mss,
                           uint32_t options)
{
    uint8_t *packet = data + VNET_HEADER_SIZE;
    uint32_t headers = make_headers(packet, flow, payload, options);
    for (uint32_t i = 0; i < payload; i++)
        packet[headers + i] = (uint8_t)((flow->seq + i) * 7 + flow->port);
    struct vnet_header vnet = {
        .flags = VNET_NEEDS_CSUM,
        .gso_type = flow->protocol == UDP ? VNET_GSO_UDP_L4
                    : flow->version == 4  ? VNET_GSO_TCPV4
                                          : VNET_GSO_TCPV6,
        .hdr_len = (uint16_t)headers,
        .gso_size = (uint16_t)mss,
        .csum_start = flow->version == 4 ? 20 : 40,
        .csum_offset = flow->protocol == TCP ? 16 : 6,
    };
    memcpy(data, &vnet, sizeof vnet);
    flow->seq += payload;
    return VNET_HEADER_SIZE + headers + payload;
}

/* ---- the bed --------------------------------------------------------------------------------- */

struct bed {
    struct fake host;
    struct tun_ring *to_client, *to_host;
    int events[4];
    struct engine *engine;
    struct ring_consumer client_in;
    struct ring_producer client_out;
};

static void set_up(struct bed *bed, uint32_t options)
{
    memset(bed, 0, sizeof *bed);
    bed->host.host = (struct host){
        .read = fake_read,
        .write = fake_write,
        .vnet = true,
        .coalesces = ALL_KINDS,
        .coalesces_less = fake_coalesces_less,
    };
    for (int i = 0; i < 4; i++) {
        bed->events[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        CHECK(bed->events[i] >= 0);
    }
    bed->host.host.fd = bed->events[3];
    bed->to_client = calloc(1, tun_ring_size(CAPACITY));
    bed->to_host = calloc(1, tun_ring_size(CAPACITY));
    bed->engine = calloc(1, sizeof *bed->engine);
    struct engine_offer offer = {
        .to_client = bed->to_client,
        .to_host = bed->to_host,
        .to_client_capacity = CAPACITY,
        .to_host_capacity = CAPACITY,
        .send_event = bed->events[0],
        .receive_event = bed->events[1],
        .options = options,
    };
    CHECK(!engine_init(bed->engine, &bed->host.host, &offer));
    ring_consumer_init(&bed->client_in, bed->to_client, CAPACITY);
    ring_producer_init(&bed->client_out, bed->to_host, CAPACITY);
}

static void forget_written(struct bed *bed)
{
    for (size_t i = 0; i < bed->host.write_count; i++)
        free(bed->host.written[i].data);
    bed->host.write_count = 0;
}

static void tear_down(struct bed *bed)
{
    engine_stop(bed->engine);
    engine_destroy(bed->engine);
    free(bed->engine);
    free(bed->to_client);
    free(bed->to_host);
    forget_written(bed);
    for (int i = 0; i < 4; i++)
        close(bed->events[i]);
}

static struct engine_counters counters(struct bed *bed, bool to_client)
{
    struct engine_counters both[2];
    engine_read_counters(bed->engine, &both[0], &both[1]);
    return both[to_client ? 0 : 1];
}

static enum engine_result to_host(struct bed *bed)
{
    unsigned moved;
    return engine_step_to_host(bed->engine, 1 << 16, &moved);
}

static enum engine_result to_client(struct bed *bed)
{
    unsigned moved;
    return engine_step_to_client(bed->engine, 256, &moved);
}

static uint8_t *send_bytes(struct bed *bed, const uint8_t *data, uint32_t size)
{
    uint8_t *slot;
    CHECK(ring_reserve(&bed->client_out, size, &slot) == RING_OK);
    memcpy(slot, data, size);
    ring_commit(&bed->client_out, size);
    ring_submit(&bed->client_out);
    return slot;
}

static uint8_t *send_packet(struct bed *bed, struct flow *flow, uint32_t payload)
{
    uint8_t packet[2048];
    return send_bytes(bed, packet, make_packet(packet, flow, payload));
}

static uint32_t head_of(const struct bed *bed)
{
    return ring_load_index(&bed->to_host->head);
}

static uint32_t tail_of(const struct bed *bed)
{
    return ring_load_index(&bed->to_host->tail);
}

/* All that was written, cut up by the splitter: what the kernel would have seen. Returns how many. */
static size_t cut_written(const struct bed *bed, struct bytes *packets)
{
    size_t count = 0;
    for (size_t i = 0; i < bed->host.write_count; i++) {
        const struct bytes *each = &bed->host.written[i];
        struct vnet_header vnet;
        struct segmenter s;
        uint32_t size;
        memcpy(&vnet, each->data, sizeof vnet);
        CHECK(segment_begin(&s, &vnet, each->data + VNET_HEADER_SIZE,
                            (uint32_t)(each->size - VNET_HEADER_SIZE)));
        while ((size = segment_size(&s))) {
            packets[count] = (struct bytes){malloc(size), size};
            segment_write(&s, packets[count++].data);
        }
    }
    return count;
}

/* The packets of each flow that went out are those that were sent, in their order. */
static void check_flow(const struct bed *bed, struct flow start, uint32_t payload, unsigned expected)
{
    static struct bytes packets[WRITES];
    size_t count = cut_written(bed, packets);
    unsigned found = 0;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *packet = packets[i].data;
        uint32_t transport = packet[0] >> 4 == 4 ? 20 : 40;
        bool is_ours = packet[0] >> 4 == start.version &&
            packet[start.version == 4 ? 9 : 6] == start.protocol &&
            packet[transport] == start.port >> 8 && packet[transport + 1] == (start.port & 0xFF);
        if (is_ours) {
            uint8_t wanted[2048];
            uint32_t size = make_packet(wanted, &start, payload);
            if (start.version == 4 && found) { /* the ID counts in what was merged; DF is set */
                memcpy(wanted + 4, packet + 4, 2);
                memcpy(wanted + 10, packet + 10, 2);
            }
            CHECK(size == packets[i].size && !memcmp(wanted, packet, size));
            found++;
        }
        free(packets[i].data);
    }
    CHECK(found == expected);
}

/* ---- from the host --------------------------------------------------------------------------- */

/* Segments of 48 bytes, less 12 of options, of 65,508 bytes: more than 160 KB in the ring. They come as
 * there is room, the rest waits, and nothing is read meanwhile. */
static void test_a_packet_that_never_fits(int version)
{
    static uint8_t large[2][LARGEST];
    struct bed bed;
    struct flow flow = {version, TCP, 7, 0xFFFFFF00};
    struct bytes reads[2];
    uint32_t headers = (version == 4 ? 20 : 40) + 32, payload = 65508 - headers;
    set_up(&bed, 0);
    for (int i = 0; i < 2; i++)
        reads[i] = (struct bytes){large[i], make_large(large[i], &flow, payload, 36, 12)};
    bed.host.to_read = reads;
    bed.host.read_count = 2;

    uint64_t in_ring = 0;
    unsigned seen = 0;
    bool blocked = false;
    for (int i = 0; i < 2; i++) {
        struct vnet_header vnet;
        struct segmenter s;
        memcpy(&vnet, large[i], sizeof vnet);
        CHECK(segment_begin(&s, &vnet, large[i] + VNET_HEADER_SIZE, headers + payload));
        uint32_t size;
        while ((size = segment_size(&s))) {
            uint8_t wanted[256];
            struct ring_view view;
            enum ring_status status;
            segment_write(&s, wanted);
            while ((status = ring_peek(&bed.client_in, &view)) == RING_EMPTY) {
                enum engine_result result = to_client(&bed);
                CHECK(result == ENGINE_BLOCKED || result == ENGINE_IDLE || result == ENGINE_MORE);
                if (result == ENGINE_BLOCKED && !blocked) {
                    blocked = true;
                    CHECK(bed.host.reads == 1);
                    CHECK(to_client(&bed) == ENGINE_BLOCKED && bed.host.reads == 1);
                }
            }
            CHECK(status == RING_OK);
            CHECK(view.size == size && !memcmp(view.data, wanted, size));
            ring_release(&bed.client_in, view.end);
            in_ring += ring_span(size);
            seen++;
        }
    }
    CHECK(blocked && in_ring > 2 * 160000);
    CHECK(to_client(&bed) == ENGINE_IDLE);
    struct engine_counters moved = counters(&bed, true);
    CHECK(moved.packets == seen && moved.large == 2 && moved.malformed == 0 && moved.too_big == 0);
    tear_down(&bed);
    printf("ok     a packet that never fits, IPv%d: %u segments\n", version, seen);
}

/* A step's budget never stops in the middle of a large packet: what it was read with stays together, and
 * is merged again. */
static void test_a_budget_between_large_packets(void)
{
    enum { LARGE = 3, SEGMENTS = 40, MSS = 100 };
    static uint8_t large[LARGE][LARGEST];
    struct bed bed;
    struct flow flow = {4, TCP, 7, 0};
    struct bytes reads[LARGE];
    unsigned moved;
    set_up(&bed, 0);
    for (int i = 0; i < LARGE; i++)
        reads[i] = (struct bytes){large[i], make_large(large[i], &flow, SEGMENTS * MSS, MSS, 0)};
    bed.host.to_read = reads;
    bed.host.read_count = LARGE;

    CHECK(engine_step_to_client(bed.engine, 100, &moved) == ENGINE_MORE && moved == 2 * SEGMENTS);
    CHECK(engine_step_to_client(bed.engine, 1, &moved) == ENGINE_MORE && moved == SEGMENTS);
    CHECK(engine_step_to_client(bed.engine, 100, &moved) == ENGINE_IDLE && !moved);
    tear_down(&bed);
    printf("ok     a budget between large packets\n");
}

/* While a packet waits in part, the client's Head becomes none: the rest is counted, and the next
 * packet comes once it is right again. */
static void test_an_invalid_head_in_the_middle(void)
{
    static uint8_t large[2][LARGEST];
    struct bed bed;
    struct flow flow = {4, TCP, 7, 0};
    struct bytes reads[2];
    set_up(&bed, 0);
    reads[0] = (struct bytes){large[0], make_large(large[0], &flow, 65000, 36, 12)};
    reads[1] = (struct bytes){large[1], make_large(large[1], &flow, 2000, 1000, 0)};
    bed.host.to_read = reads;
    bed.host.read_count = 2;
    while (to_client(&bed) == ENGINE_MORE)
        ;
    CHECK(to_client(&bed) == ENGINE_BLOCKED);
    ring_store_index(&bed.to_client->head, 2);
    bed.host.read_count = 1;
    CHECK(to_client(&bed) == ENGINE_IDLE);
    CHECK(counters(&bed, true).invalid_head == 1);
    ring_store_index(&bed.to_client->head, 0);
    struct ring_view view;
    while (ring_peek(&bed.client_in, &view) == RING_OK)
        ring_release(&bed.client_in, view.end);
    bed.host.read_count = 2;
    CHECK(to_client(&bed) == ENGINE_IDLE);
    for (int i = 0; i < 2; i++) {
        CHECK(ring_peek(&bed.client_in, &view) == RING_OK && view.size == 1040);
        ring_release(&bed.client_in, view.end);
    }
    tear_down(&bed);
    printf("ok     an invalid Head while a packet waits\n");
}

/* Headers of the host's that do not fit are counted, and the good packet behind them comes. */
static void test_malformed_from_the_host(void)
{
    static uint8_t data[8][4096];
    struct bed bed;
    struct flow flow = {4, TCP, 7, 0};
    struct bytes reads[8];
    struct vnet_header vnet;
    set_up(&bed, 0);
    for (int i = 0; i < 8; i++) {
        reads[i] = (struct bytes){data[i], make_large(data[i], &flow, 2000, 1000, 0)};
        memcpy(&vnet, data[i], sizeof vnet);
        switch (i) {
        case 0:
            vnet.gso_size = 0;
            break;
        case 1:
            vnet.gso_type = VNET_GSO_TCPV6;
            break;
        case 2:
            vnet.csum_start = 60000;
            break;
        case 3:
            vnet.gso_type = 2;
            break;
        case 4:
            vnet.hdr_len = 65535; /* never looked at */
            break;
        case 5:
            reads[i].size = 5; /* not even a header */
            break;
        case 6:
            data[i][VNET_HEADER_SIZE] = 0x50;
            break;
        }
        memcpy(data[i], &vnet, sizeof vnet);
    }
    bed.host.to_read = reads;
    bed.host.read_count = 8;
    CHECK(to_client(&bed) == ENGINE_IDLE);
    struct engine_counters seen = counters(&bed, true);
    CHECK(seen.malformed == 4 && seen.not_ip == 2 && seen.packets == 4 && seen.large == 2);
    tear_down(&bed);
    printf("ok     malformed from the host\n");
}

/* ---- to the host, merged --------------------------------------------------------------------- */

enum { FLOWS = 5, EACH = 6, PAYLOAD = 1000, MERGED_WRITES = FLOWS + 1 };

static const struct flow STARTS[FLOWS] = {
    {4, TCP, 10, 0xFFFFF000}, {6, TCP, 11, 5}, {4, UDP, 12, 0}, {6, UDP, 13, 0}, {4, TCP, 14, 1},
};

/* Packets of five flows by turns, and one that is alone: six writes. */
static void send_flows(struct bed *bed)
{
    struct flow flows[FLOWS], alone = {4, TCP, 99, 0};
    memcpy(flows, STARTS, sizeof flows);
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < FLOWS; j++)
            send_packet(bed, &flows[j], PAYLOAD);
    send_packet(bed, &alone, PAYLOAD);
}

static void check_flows(const struct bed *bed)
{
    for (int j = 0; j < FLOWS; j++)
        check_flow(bed, STARTS[j], PAYLOAD, EACH);
    check_flow(bed, (struct flow){4, TCP, 99, 0}, PAYLOAD, 1);
}

static void test_merged(void)
{
    struct bed bed;
    set_up(&bed, 0);
    send_flows(&bed);
    CHECK(to_host(&bed) == ENGINE_IDLE);
    CHECK(bed.host.write_count == MERGED_WRITES && head_of(&bed) == tail_of(&bed));
    check_flows(&bed);
    struct engine_counters moved = counters(&bed, false);
    CHECK(moved.packets == FLOWS * EACH + 1 && moved.large == FLOWS);
    uint64_t bytes = 0;
    for (int j = 0; j < FLOWS; j++)
        bytes += EACH * (PAYLOAD + (STARTS[j].version == 4 ? 20 : 40) + (STARTS[j].protocol == TCP ? 20 : 8));
    CHECK(moved.bytes == bytes + PAYLOAD + 40);
    tear_down(&bed);
    printf("ok     merged\n");
}

/* The host says at each place of a batch that it takes no more, once: nothing is lost or doubled, and the
 * ring moves on only when all was written. */
static void test_a_busy_host(void)
{
    for (unsigned at = 1; at <= MERGED_WRITES; at++) {
        struct bed bed;
        set_up(&bed, 0);
        bed.host.answer = fail_once;
        bed.host.fail_at = at;
        bed.host.fail_with = -EAGAIN;
        send_flows(&bed);
        CHECK(to_host(&bed) == ENGINE_BLOCKED);
        CHECK(bed.host.write_count == at - 1 && head_of(&bed) == 0);
        CHECK(to_host(&bed) == ENGINE_IDLE);
        CHECK(bed.host.write_count == MERGED_WRITES && head_of(&bed) == tail_of(&bed));
        check_flows(&bed);
        CHECK(counters(&bed, false).packets == FLOWS * EACH + 1);
        tear_down(&bed);
    }
    printf("ok     a busy host, at each place of a batch\n");
}

/* While it waits for a busy host, the client writes over the headers in the ring: those that were
 * looked at go out. */
static void test_a_client_that_changes_headers_meanwhile(void)
{
    struct bed bed;
    struct flow flow = {4, TCP, 10, 0};
    set_up(&bed, 0);
    bed.host.answer = fail_once;
    bed.host.fail_at = 1;
    bed.host.fail_with = -EAGAIN;
    bed.host.spoil = send_packet(&bed, &flow, PAYLOAD);
    send_packet(&bed, &flow, PAYLOAD);
    CHECK(to_host(&bed) == ENGINE_BLOCKED);
    CHECK(bed.host.spoil[0] == 0xFF);
    CHECK(to_host(&bed) == ENGINE_IDLE);
    check_flow(&bed, (struct flow){4, TCP, 10, 0}, PAYLOAD, 2);
    tear_down(&bed);
    printf("ok     headers that change meanwhile\n");
}

static void test_a_host_that_goes(void)
{
    for (unsigned at = 1; at <= MERGED_WRITES; at++) {
        struct bed bed;
        set_up(&bed, 0);
        bed.host.answer = fail_once;
        bed.host.fail_at = at;
        bed.host.fail_with = -EBADFD;
        send_flows(&bed);
        CHECK(to_host(&bed) == ENGINE_OVER);
        CHECK(engine_end_reason(bed.engine) == ENGINE_REMOVED);
        CHECK(bed.host.write_count == at - 1 && bed.host.calls == at);
        CHECK(to_host(&bed) == ENGINE_OVER && bed.host.calls == at);
        CHECK(head_of(&bed) == TUN_RING_CLOSED);
        tear_down(&bed);
    }
    printf("ok     a host that goes in the middle of a batch\n");
}

static void test_errors_are_counted(void)
{
    static const int ERRORS[] = {-EIO, -ENOMEM, -ENOBUFS, -EPERM};
    for (unsigned i = 0; i < 4; i++) {
        struct bed bed;
        set_up(&bed, 0);
        bed.host.answer = fail_once;
        bed.host.fail_at = 1; /* the first flow's large packet */
        bed.host.fail_with = ERRORS[i];
        send_flows(&bed);
        CHECK(to_host(&bed) == ENGINE_IDLE);
        struct engine_counters moved = counters(&bed, false);
        uint64_t *counted[] = {&moved.host_down, &moved.no_memory, &moved.no_memory, &moved.refused};
        CHECK(*counted[i] == EACH);
        CHECK(moved.packets == (FLOWS - 1) * EACH + 1 && moved.large == FLOWS - 1);
        CHECK(bed.host.host.coalesces == ALL_KINDS);
        tear_down(&bed);
    }
    printf("ok     errors are counted by packet\n");
}

static void test_a_corrupt_ring_behind_good_packets(bool busy)
{
    struct bed bed;
    set_up(&bed, 0);
    if (busy) {
        bed.host.answer = fail_once;
        bed.host.fail_at = 3;
        bed.host.fail_with = -EAGAIN;
    }
    send_flows(&bed);
    uint8_t *slot;
    CHECK(ring_reserve(&bed.client_out, 60, &slot) == RING_OK);
    ring_commit(&bed.client_out, 60);
    uint32_t bogus = 0x10000;
    memcpy(slot - TUN_PACKET_HEADER_SIZE, &bogus, 4);
    ring_submit(&bed.client_out);
    if (busy)
        CHECK(to_host(&bed) == ENGINE_BLOCKED);
    CHECK(to_host(&bed) == ENGINE_OVER);
    CHECK(engine_end_reason(bed.engine) == ENGINE_CORRUPT);
    CHECK(bed.host.write_count == MERGED_WRITES && head_of(&bed) == TUN_RING_CLOSED);
    check_flows(&bed);
    tear_down(&bed);
    printf("ok     a corrupt ring behind good packets%s\n", busy ? ", the host busy" : "");
}

/* ---- kill switches --------------------------------------------------------------------------- */

/* A host that does not take one kind merged, and may be busy at any place of what comes singly. */
static void test_a_kind_that_is_refused(uint32_t kind, unsigned busy_at)
{
    struct bed bed;
    unsigned refused = kind == COALESCE_TCP4 ? 2 : 1; /* flows of the kind */
    set_up(&bed, 0);
    bed.host.answer = refuse_kinds;
    bed.host.refuses = kind;
    bed.host.fail_at = busy_at;
    bed.host.fail_with = -EAGAIN;
    send_flows(&bed);
    while (to_host(&bed) == ENGINE_BLOCKED)
        CHECK(head_of(&bed) == 0);
    CHECK(head_of(&bed) == tail_of(&bed));
    CHECK(bed.host.merged_refused == refused);
    CHECK(bed.host.write_count == MERGED_WRITES + refused * (EACH - 1));
    check_flows(&bed);
    CHECK(bed.host.host.coalesces == (ALL_KINDS & ~kind) && bed.host.switched_off >= 1);
    struct engine_counters moved = counters(&bed, false);
    CHECK(moved.packets == FLOWS * EACH + 1 && moved.large == FLOWS - refused && !moved.refused);

    /* It is not asked again. */
    forget_written(&bed);
    bed.host.fail_at = 0;
    send_flows(&bed);
    CHECK(to_host(&bed) == ENGINE_IDLE);
    CHECK(bed.host.merged_refused == refused);
    CHECK(bed.host.write_count == MERGED_WRITES + refused * (EACH - 1));
    check_flows(&bed);
    tear_down(&bed);
}

static void test_kinds_that_are_refused(void)
{
    for (uint32_t kind = COALESCE_TCP4; kind <= COALESCE_UDP6; kind *= 2)
        for (unsigned busy_at = 0; busy_at < MERGED_WRITES + 2 * EACH + 2; busy_at++)
            test_a_kind_that_is_refused(kind, busy_at);
    printf("ok     kinds that are refused merged go singly, for good\n");
}

/* A host that does not take the packets of a flow, however they come: they are to blame. */
static void test_packets_that_are_refused(void)
{
    struct bed bed;
    set_up(&bed, 0);
    bed.host.answer = refuse_ports_9;
    for (int round = 1; round <= 2; round++) {
        struct flow bad = {4, TCP, 9, 0}, good = {4, TCP, 10, 0};
        for (int i = 0; i < EACH; i++) {
            send_packet(&bed, &bad, PAYLOAD);
            send_packet(&bed, &good, PAYLOAD);
        }
        forget_written(&bed);
        CHECK(to_host(&bed) == ENGINE_IDLE);
        CHECK(bed.host.merged_refused == (size_t)round); /* it is tried again */
        CHECK(bed.host.write_count == 1);
        check_flow(&bed, (struct flow){4, TCP, 10, 0}, PAYLOAD, EACH);
        struct engine_counters moved = counters(&bed, false);
        CHECK(moved.refused == (uint64_t)round * EACH && moved.packets == (uint64_t)round * EACH);
    }
    CHECK(bed.host.host.coalesces == ALL_KINDS);
    tear_down(&bed);
    printf("ok     packets that are refused switch nothing off\n");
}

/* The interface goes down between the refusal and the packets by themselves: nothing was learnt. */
static void test_a_refusal_and_then_down(void)
{
    struct bed bed;
    struct flow flow = {4, UDP, 12, 0};
    set_up(&bed, 0);
    bed.host.answer = refuse_kinds;
    bed.host.refuses = COALESCE_UDP4;
    bed.host.fail_at = 3;
    bed.host.fail_with = -EIO;
    for (int i = 0; i < EACH; i++)
        send_packet(&bed, &flow, PAYLOAD);
    CHECK(to_host(&bed) == ENGINE_IDLE);
    CHECK(bed.host.host.coalesces == ALL_KINDS);
    struct engine_counters moved = counters(&bed, false);
    CHECK(moved.host_down == 1 && moved.packets == EACH - 1 && moved.refused == 0);
    tear_down(&bed);
    printf("ok     a refusal, and then down\n");
}

static void test_the_host_goes_while_packets_go_singly(void)
{
    for (unsigned at = 2; at <= 1 + EACH; at++) {
        struct bed bed;
        struct flow flow = {4, UDP, 12, 0};
        set_up(&bed, 0);
        bed.host.answer = refuse_kinds;
        bed.host.refuses = COALESCE_UDP4;
        bed.host.fail_at = at;
        bed.host.fail_with = -EBADFD;
        for (int i = 0; i < EACH; i++)
            send_packet(&bed, &flow, PAYLOAD);
        CHECK(to_host(&bed) == ENGINE_OVER);
        CHECK(engine_end_reason(bed.engine) == ENGINE_REMOVED && bed.host.write_count == at - 2);
        CHECK(bed.host.host.coalesces == ALL_KINDS);
        tear_down(&bed);
    }
    printf("ok     the host goes while packets go singly\n");
}

/* ---- checksums ------------------------------------------------------------------------------- */

static void test_a_bad_checksum(bool trusted)
{
    struct bed bed;
    struct flow flow = {4, TCP, 10, 0};
    uint8_t *bad = NULL;
    set_up(&bed, trusted ? ENGINE_TRUSTED : 0);
    for (int i = 0; i < 5; i++) {
        uint8_t *slot = send_packet(&bed, &flow, PAYLOAD);
        if (i == 2) {
            bad = slot;
            bad[500] ^= 1;
        }
    }
    CHECK(to_host(&bed) == ENGINE_IDLE);
    CHECK(counters(&bed, false).packets == 5);
    if (trusted) {
        CHECK(bed.host.write_count == 1);
    } else {
        const struct bytes *alone = &bed.host.written[1];
        static const uint8_t ZEROS[VNET_HEADER_SIZE];
        CHECK(bed.host.write_count == 3 && alone->size == VNET_HEADER_SIZE + PAYLOAD + 40);
        CHECK(!memcmp(alone->data, ZEROS, VNET_HEADER_SIZE)); /* no checksum is to be done */
        CHECK(!memcmp(alone->data + VNET_HEADER_SIZE, bad, PAYLOAD + 40));
    }
    tear_down(&bed);
    printf("ok     a bad checksum, %s\n", trusted ? "trusted" : "verified");
}

/* ---- whole packets --------------------------------------------------------------------------- */

static void test_whole_both_ways(void)
{
    static uint8_t data[4][LARGEST];
    struct bed bed;
    struct flow flows[] = {{4, TCP, 1, 0}, {6, TCP, 2, 0}, {4, UDP, 3, 0}, {6, UDP, 4, 0}};
    struct bytes reads[4];
    set_up(&bed, ENGINE_WHOLE);
    for (int i = 0; i < 4; i++)
        reads[i] = (struct bytes){data[i], make_large(data[i], &flows[i], 8000, 1400, 0)};
    bed.host.to_read = reads;
    bed.host.read_count = 4;
    CHECK(to_client(&bed) == ENGINE_IDLE);
    for (int i = 0; i < 4; i++) {
        struct ring_view view;
        CHECK(ring_peek(&bed.client_in, &view) == RING_OK);
        CHECK(view.size == reads[i].size && !memcmp(view.data, reads[i].data, view.size));
        send_bytes(&bed, view.data, view.size);
        ring_release(&bed.client_in, view.end);
    }
    CHECK(to_host(&bed) == ENGINE_IDLE && bed.host.write_count == 4);
    for (int i = 0; i < 4; i++)
        CHECK(bed.host.written[i].size == reads[i].size &&
              !memcmp(bed.host.written[i].data, reads[i].data, reads[i].size));
    CHECK(counters(&bed, true).large == 0 && counters(&bed, false).large == 0);
    tear_down(&bed);
    printf("ok     whole packets, both ways\n");
}

/* Packets about the largest that a slot holds with its header: read in one piece and in two, into an
 * empty ring and into one that is nearly full; what is larger comes in segments. */
static void test_whole_sizes(void)
{
    enum { ROUNDS = 60 };
    static uint8_t data[ROUNDS][LARGEST];
    static struct bytes reads[ROUNDS];
    struct bed bed;
    struct flow flow = {4, TCP, 7, 0};
    unsigned cut = 0, seen = 0;
    set_up(&bed, ENGINE_WHOLE);
    for (int i = 0; i < ROUNDS; i++) {
        uint32_t packet = TUN_PACKET_MAX_SIZE - VNET_HEADER_SIZE - 14 + (uint32_t)i % 27;
        reads[i] = (struct bytes){data[i], make_large(data[i], &flow, packet - 40, 30000, 0)};
    }
    bed.host.to_read = reads;
    bed.host.read_count = ROUNDS;
    for (int i = 0; i < ROUNDS; i++) {
        struct ring_view view;
        enum ring_status status;
        while ((status = ring_peek(&bed.client_in, &view)) == RING_EMPTY)
            to_client(&bed);
        CHECK(status == RING_OK);
        if (reads[i].size <= TUN_PACKET_MAX_SIZE) {
            CHECK(view.size == reads[i].size && !memcmp(view.data, data[i], view.size));
            ring_release(&bed.client_in, view.end);
            seen++;
            continue;
        }
        struct vnet_header vnet;
        struct segmenter s;
        uint32_t size;
        cut++;
        memcpy(&vnet, data[i], sizeof vnet);
        CHECK(segment_begin(&s, &vnet, data[i] + VNET_HEADER_SIZE, (uint32_t)reads[i].size - VNET_HEADER_SIZE));
        while ((size = segment_size(&s))) {
            static uint8_t wanted[LARGEST];
            memset(wanted, 0, VNET_HEADER_SIZE);
            segment_write(&s, wanted + VNET_HEADER_SIZE);
            while (s.index > 1 && (status = ring_peek(&bed.client_in, &view)) == RING_EMPTY)
                to_client(&bed);
            CHECK(view.size == VNET_HEADER_SIZE + size && !memcmp(view.data, wanted, view.size));
            ring_release(&bed.client_in, view.end);
            seen++;
        }
    }
    CHECK(cut && counters(&bed, true).packets == seen && counters(&bed, true).large == cut);
    tear_down(&bed);
    printf("ok     whole packets about the largest size: %u of %d cut\n", cut, ROUNDS);
}

/* One without segments that does not fit with its header cannot be had whole. */
static void test_whole_and_too_big(void)
{
    static uint8_t data[LARGEST];
    struct bed bed;
    struct flow flow = {4, UDP, 7, 0};
    set_up(&bed, ENGINE_WHOLE);
    struct bytes read = {data, make_large(data, &flow, TUN_PACKET_MAX_SIZE - 28, 1000, 0)};
    memset(data, 0, VNET_HEADER_SIZE);
    bed.host.to_read = &read;
    bed.host.read_count = 1;
    CHECK(to_client(&bed) == ENGINE_IDLE);
    CHECK(counters(&bed, true).too_big == 1 && counters(&bed, true).packets == 0);
    tear_down(&bed);
    printf("ok     a packet too big for a slot with its header\n");
}

struct change {
    const char *what;
    size_t at; /* of 16 bits, in the machine's order in the header, behind it in the network's */
    uint16_t value;
};

/* Of a large packet from a hostile client: what the kernel never sees. */
static void test_malformed_from_the_client(void)
{
    enum { PACKET = VNET_HEADER_SIZE };
    static const struct change CHANGES[] = {
        {"flags: no checksum to be done", 0, VNET_GSO_TCPV4 << 8},
        {"type: none such", 0, 2 << 8 | VNET_NEEDS_CSUM},
        {"type: none such, with the ECN bit", 0, 0x87 << 8 | VNET_NEEDS_CSUM},
        {"type: of the other version", 0, VNET_GSO_TCPV6 << 8 | VNET_NEEDS_CSUM},
        {"type: of another protocol", 0, VNET_GSO_UDP_L4 << 8 | VNET_NEEDS_CSUM},
        {"hdr_len: over the packet", 2, 3001 + 40},
        {"hdr_len: all bits", 2, 0xFFFF},
        {"gso_size: 0", 4, 0},
        {"gso_size: over the payload", 4, 3001},
        {"gso_size: all bits", 4, 0xFFFF},
        {"csum_start: 0", 6, 0},
        {"csum_start: within IP", 6, 19},
        {"csum_start: behind the transport", 6, 24},
        {"csum_start: all bits", 6, 0xFFFF},
        {"csum_offset: UDP's", 8, 6},
        {"csum_offset: all bits", 8, 0xFFFF},
        {"IP: a header of 60 bytes", PACKET, 0x4F00},
        {"IP: a header of 16 bytes", PACKET, 0x4400},
        {"IP: a length that is another", PACKET + 2, 3039},
        {"IP: a fragment", PACKET + 6, 0x2000},
        {"IP: not TCP", PACKET + 8, 64 << 8 | UDP},
        {"TCP: a header of 16 bytes", PACKET + 20 + 12, 0x4010},
    };
    struct bed bed;
    uint8_t data[4096];
    struct vnet_header *vnet = (struct vnet_header *)(void *)data;
    set_up(&bed, ENGINE_WHOLE);
    unsigned malformed = 0;
    for (size_t i = 0; i < sizeof CHANGES / sizeof *CHANGES; i++) {
        struct flow flow = {4, TCP, 10, 0};
        uint32_t size = make_large(data, &flow, 3000, 1000, 0);
        if (CHANGES[i].at < PACKET)
            memcpy(data + CHANGES[i].at, &CHANGES[i].value, 2);
        else
            put16(data + CHANGES[i].at, CHANGES[i].value);
        send_bytes(&bed, data, size);
        CHECK(to_host(&bed) == ENGINE_IDLE);
        if (counters(&bed, false).malformed != ++malformed) {
            printf("FAILED: %s\n", CHANGES[i].what);
            exit(1);
        }
        CHECK(bed.host.calls == 0 && head_of(&bed) == tail_of(&bed));
    }

    /* Checksums of small packets, and packets that are none. */
    struct flow flow = {6, UDP, 10, 0};
    memset(data, 0, VNET_HEADER_SIZE);
    uint32_t size = VNET_HEADER_SIZE + make_packet(data + VNET_HEADER_SIZE, &flow, 100);
    vnet->flags = VNET_NEEDS_CSUM;
    for (uint32_t start = 0; start < 40; start += 8) {
        vnet->csum_start = (uint16_t)start;
        send_bytes(&bed, data, size);
        malformed++;
    }
    vnet->csum_start = (uint16_t)(size - VNET_HEADER_SIZE - 1);
    send_bytes(&bed, data, size);
    malformed++;
    static const uint8_t NOTHING[VNET_HEADER_SIZE + 60] = {0};
    for (uint32_t length = 0; length < sizeof NOTHING; length++)
        send_bytes(&bed, NOTHING, length);
    CHECK(to_host(&bed) == ENGINE_IDLE);
    struct engine_counters seen = counters(&bed, false);
    CHECK(seen.malformed == malformed && seen.not_ip == sizeof NOTHING && bed.host.calls == 0);

    /* The session goes on. */
    vnet->csum_start = 40;
    vnet->csum_offset = 6;
    send_bytes(&bed, data, size);
    CHECK(to_host(&bed) == ENGINE_IDLE && bed.host.write_count == 1);
    tear_down(&bed);
    printf("ok     malformed from the client: %u\n", malformed);
}

/* A client that changes a header while the host is busy: it is looked at anew. */
static void test_whole_and_a_busy_host(void)
{
    struct bed bed;
    uint8_t data[4096];
    struct flow flow = {4, TCP, 10, 0};
    set_up(&bed, ENGINE_WHOLE);
    bed.host.answer = fail_once;
    bed.host.fail_with = -EAGAIN;
    for (unsigned at = 1; at <= 6; at += 2) {
        bool spoilt = at == 5;
        bed.host.fail_at = bed.host.calls + 1;
        uint8_t *slot = send_bytes(&bed, data, make_large(data, &flow, 3000, 1000, 0));
        uint32_t before = head_of(&bed);
        bed.host.spoil = spoilt ? slot : NULL;
        CHECK(to_host(&bed) == ENGINE_BLOCKED && head_of(&bed) == before);
        CHECK(to_host(&bed) == ENGINE_IDLE && head_of(&bed) == tail_of(&bed));
    }
    struct engine_counters seen = counters(&bed, false);
    CHECK(seen.packets == 2 && bed.host.write_count == 2);
    CHECK(seen.malformed + seen.not_ip == 1);
    tear_down(&bed);
    printf("ok     whole packets and a busy host\n");
}

static void test_whole_and_the_end(void)
{
    struct bed bed;
    uint8_t data[4096];
    struct flow flow = {4, TCP, 10, 0};
    set_up(&bed, ENGINE_WHOLE);
    for (int i = 0; i < 3; i++)
        send_bytes(&bed, data, make_large(data, &flow, 3000, 1000, 0));
    ring_store_index(&bed.to_host->tail, tail_of(&bed) + 2);
    CHECK(to_host(&bed) == ENGINE_OVER && engine_end_reason(bed.engine) == ENGINE_CORRUPT);
    tear_down(&bed);
    printf("ok     whole packets and a bogus ring\n");
}

/* ---- with threads ---------------------------------------------------------------------------- */

/* Both directions by the engine's threads, a host that is busy again and again, a kind that is refused
 * in the middle, and another thread that looks at counters and kinds meanwhile. */
static int busy_often(struct fake *fake, const struct vnet_header *vnet, const uint8_t *packet, size_t size)
{
    (void)size;
    if (fake->calls % 7 == 3)
        return -EAGAIN;
    return kind_of(vnet, packet) == COALESCE_TCP4 && fake->calls > 50 ? -EINVAL : 0;
}

static void test_threads(void)
{
    enum { LARGE = 40, SENT = 3000 };
    static uint8_t data[LARGE][8192];
    static struct bytes reads[LARGE];
    struct bed bed;
    struct flow in = {6, TCP, 7, 0}, out = {4, TCP, 10, 0};
    uint64_t one = 1;
    set_up(&bed, 0);
    bed.host.answer = busy_often;
    for (int i = 0; i < LARGE; i++)
        reads[i] = (struct bytes){data[i], make_large(data[i], &in, 8000, 100, 0)};
    bed.host.to_read = reads;
    bed.host.read_count = LARGE;
    CHECK(!engine_start_threads(bed.engine, bed.events[2]));
    unsigned received = 0, sent = 0;
    while (received < LARGE * 80 || sent < SENT) {
        struct ring_view view;
        if (ring_peek(&bed.client_in, &view) == RING_OK) {
            CHECK(view.size == 160);
            uint8_t seq[4];
            put32(seq, received * 100);
            CHECK(!memcmp(view.data + 44, seq, 4));
            ring_release(&bed.client_in, view.end);
            received++;
        }
        uint8_t packet[2048], *slot;
        struct flow next = out;
        if (sent < SENT) {
            uint32_t size = make_packet(packet, &next, 500);
            enum ring_status status = ring_reserve(&bed.client_out, size, &slot);
            CHECK(status == RING_OK || status == RING_FULL);
            if (status == RING_OK) {
                memcpy(slot, packet, size);
                ring_commit(&bed.client_out, size);
                ring_submit(&bed.client_out);
                CHECK(write(bed.events[1], &one, sizeof one) == sizeof one);
                out = next;
                sent++;
            } else {
                sched_yield();
            }
        }
        __atomic_load_n(&bed.host.host.coalesces, __ATOMIC_RELAXED);
        counters(&bed, false);
    }
    struct pollfd never = {.fd = -1};
    for (int waited = 0; counters(&bed, false).packets < SENT; waited++) {
        CHECK(waited < DEADLINE_MS);
        poll(&never, 1, 1);
    }
    engine_stop(bed.engine);
    CHECK(bed.host.host.coalesces == (ALL_KINDS & ~COALESCE_TCP4));
    check_flow(&bed, (struct flow){4, TCP, 10, 0}, 500, SENT);
    tear_down(&bed);
    printf("ok     threads: %u in, %u out\n", received, sent);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    test_a_packet_that_never_fits(4);
    test_a_packet_that_never_fits(6);
    test_a_budget_between_large_packets();
    test_an_invalid_head_in_the_middle();
    test_malformed_from_the_host();
    test_merged();
    test_a_busy_host();
    test_a_client_that_changes_headers_meanwhile();
    test_a_host_that_goes();
    test_errors_are_counted();
    test_a_corrupt_ring_behind_good_packets(false);
    test_a_corrupt_ring_behind_good_packets(true);
    test_kinds_that_are_refused();
    test_packets_that_are_refused();
    test_a_refusal_and_then_down();
    test_the_host_goes_while_packets_go_singly();
    test_a_bad_checksum(false);
    test_a_bad_checksum(true);
    test_whole_both_ways();
    test_whole_sizes();
    test_whole_and_too_big();
    test_malformed_from_the_client();
    test_whole_and_a_busy_host();
    test_whole_and_the_end();
    test_threads();
    printf("ok     all\n");
    return 0;
}
