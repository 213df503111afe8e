/* Coalesces packets and checks all that holds of the items, whatever the client sent: for the tests and
 * the fuzzer. Every packet lies in memory of just its size, so that AddressSanitizer sees the first
 * byte beyond.
 *
 * An input of bytes: kinds and, 0x80, no verification; most datagrams; then one packet behind the
 * other. Each begins with a byte: whose low bits say what follows (enum input), 0x80: reset before.
 */
#ifndef RINGTUN_COALESCE_CHECK_H
#define RINGTUN_COALESCE_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "coalesce.h"
#include "packet.h"
#include "segment.h"

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            printf("FAILED %s:%d: %s\n", __FILE__, __LINE__, #condition);                         \
            abort();                                                                              \
        }                                                                                         \
    } while (0)

enum input {
    INPUT_RAW,       /* size in 2 bytes, the low one first; the packet */
    INPUT_COMPLETED, /* the same, its lengths and checksums then made right */
    /* How many packets before is the one that this one continues; the payload's size, 0: the same;
     * how many changes follow: where and which bits, a byte each. Then completed. */
    INPUT_CONTINUED,
    INPUT_BROKEN, /* the same, but completed before the changes */
};

struct checked {
    struct coalescer coalescer;
    uint8_t *packets[COALESCE_PACKETS];
    uint32_t sizes[COALESCE_PACKETS];
    uint32_t count;
    uint32_t merged; /* packets that went together with another, since the start */
};

static uint32_t check_get(const uint8_t *at, int size)
{
    uint32_t value = 0;
    while (size--)
        value = value << 8 | *at++;
    return value;
}

static void check_put(uint8_t *at, uint32_t value, int size)
{
    while (size--) {
        at[size] = (uint8_t)value;
        value >>= 8;
    }
}

/* Big-endian words, folded. */
static uint32_t check_sum(const uint8_t *data, size_t size, uint32_t sum)
{
    for (size_t i = 0; i < size; i++)
        sum += i % 2 ? data[i] : (uint32_t)data[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xFFFF) + (sum >> 16);
    return sum;
}

static bool is4(const uint8_t *packet)
{
    return packet[0] >> 4 == 4;
}

static uint32_t protocol_of(const uint8_t *packet)
{
    return packet[is4(packet) ? 9 : 6];
}

static uint32_t start_of(const uint8_t *packet)
{
    return is4(packet) ? 20 : 40;
}

/* Where the transport's checksum is; 0: there is none. */
static uint32_t field_of(const uint8_t *packet, uint32_t size)
{
    uint32_t protocol = protocol_of(packet), at = start_of(packet) + (protocol == 6 ? 16 : 6);
    return (protocol == 6 || protocol == 17) && size >= at + 2 ? at : 0;
}

/* Make the lengths and checksums right, of what has no options. */
static void complete(uint8_t *packet, uint32_t size)
{
    uint32_t start = start_of(packet), field = field_of(packet, size);
    if (is4(packet)) {
        check_put(packet + 2, size, 2);
        check_put(packet + 10, 0, 2);
        check_put(packet + 10, 0xFFFF - check_sum(packet, 20, 0), 2);
    } else {
        check_put(packet + 4, size - 40, 2);
    }
    if (!field)
        return;
    if (protocol_of(packet) == 17)
        check_put(packet + start + 4, size - start, 2);
    check_put(packet + field, 0, 2);
    uint32_t from = is4(packet) ? 12 : 8;
    uint32_t sum = 0xFFFF - check_sum(packet + from, size - from, size - start + protocol_of(packet));
    check_put(packet + field, sum || protocol_of(packet) == 6 ? sum : 0xFFFF, 2);
}

/* A packet as the host would see it: but for the sums where they were not verified, for an IPv4 ID
 * that nothing depends on, and with one of the two zeros that a sum may have. */
static void normalize(uint8_t *packet, uint32_t size, bool verified)
{
    uint32_t field = field_of(packet, size);
    if (is4(packet)) {
        if (packet[6] & 0x40) {
            check_put(packet + 4, 0, 2);
            check_put(packet + 10, 0, 2);
        }
        if (!verified || check_get(packet + 10, 2) == 0xFFFF)
            check_put(packet + 10, 0, 2);
    }
    if (!verified || check_get(packet + field, 2) == 0xFFFF)
        check_put(packet + field, 0, 2);
}

/* ---- order ----------------------------------------------------------------------------------- */

/* Whether two packets may be of the same flow, so that their order counts. */
static bool related(const uint8_t *a, uint32_t a_size, const uint8_t *b, uint32_t b_size)
{
    static const uint8_t hiding[] = {0, 43, 44, 51, 60, 135, 139, 140, 253, 254};
    const uint8_t *packets[] = {a, b};
    uint32_t sizes[] = {a_size, b_size};
    bool hidden[2];
    if (a[0] >> 4 != b[0] >> 4)
        return false;
    if (is4(a) ? memcmp(a + 12, b + 12, 8) : memcmp(a + 8, b + 8, 32))
        return false;
    for (int i = 0; i < 2; i++) {
        uint32_t protocol = protocol_of(packets[i]);
        bool extension = !is4(a) && memchr(hiding, (int)protocol, sizeof hiding);
        if (protocol != 6 && protocol != 17 && !extension)
            return false;
        hidden[i] = extension || sizes[i] < start_of(a) + 4 ||
                    (is4(a) && (packets[i][0] != 0x45 || check_get(packets[i] + 6, 2) & 0x3FFF));
    }
    if (hidden[0] || hidden[1])
        return true;
    return protocol_of(a) == protocol_of(b) && !memcmp(a + start_of(a), b + start_of(b), 4);
}

static void check_order(const struct checked *k)
{
    const struct coalescer *c = &k->coalescer;
    uint32_t place[COALESCE_PACKETS], next = 0;
    bool seen[COALESCE_PACKETS] = {false};
    for (uint32_t i = 0; i < c->item_count; i++) {
        const struct coalesce_item *item = &c->items[i];
        uint32_t packet = item->first, last = packet;
        for (uint32_t n = 0; n < item->packets; n++, packet = c->packets[packet].next) {
            CHECK(packet < k->count && !seen[packet] && (n == 0 || packet > last));
            seen[packet] = true;
            place[packet] = next++;
            last = packet;
        }
        CHECK(packet == COALESCE_NONE && last == item->last);
        CHECK(i == 0 || item->first > c->items[i - 1].first);
    }
    CHECK(next == k->count && next == c->packet_count);
    for (uint32_t a = 0; a < k->count; a++)
        for (uint32_t b = a + 1; b < k->count; b++)
            CHECK(place[a] < place[b] ||
                  !related(k->packets[a], k->sizes[a], k->packets[b], k->sizes[b]));
}

/* ---- what is written -------------------------------------------------------------------------- */

static void check_alone(const struct checked *k, const struct coalesce_item *item,
                        const struct iovec *pieces, int count)
{
    static const uint8_t zeros[VNET_HEADER_SIZE];
    CHECK(count == 2 && !item->headers && !item->kind && item->size == k->sizes[item->first]);
    CHECK(pieces[0].iov_len == VNET_HEADER_SIZE && !memcmp(pieces[0].iov_base, zeros, sizeof zeros));
    CHECK(pieces[1].iov_base == k->packets[item->first] && pieces[1].iov_len == item->size);
}

/* The host, cutting what is written, gets the packets as they came. */
static void check_together(struct checked *k, const struct coalesce_item *item,
                           const struct iovec *pieces, int count)
{
    struct vnet_header vnet;
    struct segmenter segmenter;
    uint8_t *large = malloc(item->size);
    uint32_t done = 0, number = item->first, size;

    CHECK(large && count == 1 + (int)item->packets && item->size <= 0xFFFF);
    CHECK(item->kind & k->coalescer.kinds);
    CHECK(pieces[0].iov_len == VNET_HEADER_SIZE + item->headers);
    memcpy(&vnet, pieces[0].iov_base, sizeof vnet);
    memcpy(large, (uint8_t *)pieces[0].iov_base + VNET_HEADER_SIZE, item->headers);
    done = item->headers;
    for (int i = 1; i < count; i++) {
        CHECK(done + pieces[i].iov_len <= item->size);
        memcpy(large + done, pieces[i].iov_base, pieces[i].iov_len);
        done += (uint32_t)pieces[i].iov_len;
    }
    CHECK(done == item->size && vnet.hdr_len == item->headers && vnet.num_buffers == 0);
    CHECK(segment_begin(&segmenter, &vnet, large, item->size));
    while ((size = segment_size(&segmenter))) {
        CHECK(number < k->count && size == k->sizes[number]);
        uint8_t *segment = malloc(size), *came = malloc(size);
        CHECK(segment && came);
        segment_write(&segmenter, segment);
        memcpy(came, k->packets[number], size);
        normalize(segment, size, k->coalescer.verify);
        normalize(came, size, k->coalescer.verify);
        CHECK(!memcmp(segment, came, size));
        free(segment);
        free(came);
        number = k->coalescer.packets[number].next;
    }
    CHECK(number == COALESCE_NONE);
    if (!(item->kind & (COALESCE_TCP4 | COALESCE_TCP6)))
        CHECK(item->packets <= k->coalescer.udp_segments);
    free(large);
}

static void check_items(struct checked *k)
{
    struct iovec *pieces = malloc((COALESCE_PACKETS + 1) * sizeof *pieces);
    CHECK(pieces);
    check_order(k);
    for (uint32_t i = 0; i < k->coalescer.item_count; i++) {
        const struct coalesce_item *item = &k->coalescer.items[i];
        int count = coalesce_pieces(&k->coalescer, i, pieces);
        if (item->packets == 1) {
            check_alone(k, item, pieces, count);
        } else {
            check_together(k, item, pieces, count);
            k->merged += item->packets;
        }
    }
    free(pieces);
}

/* ---- from bytes to packets --------------------------------------------------------------------- */

static void check_begin(struct checked *k, uint32_t kinds, bool verify, uint32_t udp_segments)
{
    coalesce_init(&k->coalescer, kinds, verify, udp_segments);
    k->count = k->merged = 0;
}

static void check_end(struct checked *k)
{
    check_items(k);
    coalesce_reset(&k->coalescer);
    CHECK(!k->coalescer.item_count && !k->coalescer.packet_count);
    for (size_t i = 0; i < sizeof k->coalescer.table / sizeof *k->coalescer.table; i++)
        CHECK(!k->coalescer.table[i]);
    while (k->count)
        free(k->packets[--k->count]);
}

/* Adds the packet, which is then the coalescer's. */
static void check_add(struct checked *k, uint8_t *packet, uint32_t size)
{
    if (!packet_is_ip(packet, size)) {
        free(packet);
        return;
    }
    CHECK(k->count < COALESCE_PACKETS && coalesce_add(&k->coalescer, packet, size));
    k->packets[k->count] = packet;
    k->sizes[k->count++] = size;
}

static uint8_t *allocate(uint32_t size)
{
    uint8_t *packet = malloc(size ? size : 1);
    CHECK(packet);
    return packet;
}

static void change(uint8_t *packet, uint32_t size, const uint8_t *changes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        packet[changes[2 * i] % size] ^= changes[2 * i + 1];
}

/* One packet of the input, from `at`; returns where the next is. */
static const uint8_t *check_next(struct checked *k, const uint8_t *at, const uint8_t *end)
{
    uint8_t what = *at++;
    if (what & 0x80)
        check_end(k);
    if (k->count == COALESCE_PACKETS || end - at < 3)
        return end;
    if ((what & 3) <= INPUT_COMPLETED) {
        uint32_t size = at[0] | (uint32_t)at[1] << 8;
        at += 2;
        if (size > end - at)
            size = (uint32_t)(end - at);
        uint8_t *packet = allocate(size);
        memcpy(packet, at, size);
        if ((what & 3) == INPUT_COMPLETED && packet_is_ip(packet, size))
            complete(packet, size);
        check_add(k, packet, size);
        return at + size;
    }
    uint32_t back = at[0], wanted = at[1], changes = at[2] % 4;
    at += 3;
    if (!k->count || (uint32_t)(end - at) < 2 * changes)
        return end;
    uint32_t number = k->count - 1 - back % k->count;
    const uint8_t *before = k->packets[number];
    uint32_t before_size = k->sizes[number], start = start_of(before), headers = before_size;
    if (protocol_of(before) == 6 && before_size >= start + 20)
        headers = start + (before[start + 12] >> 4) * 4;
    else if (protocol_of(before) == 17)
        headers = start + 8;
    headers = headers < before_size ? headers : before_size;
    uint32_t size = wanted ? headers + wanted : before_size;
    uint8_t *packet = allocate(size);
    memset(packet, what, size);
    memcpy(packet, before, headers);
    if (is4(packet))
        check_put(packet + 4, check_get(packet + 4, 2) + 1, 2);
    if (protocol_of(packet) == 6 && headers >= start + 20)
        check_put(packet + start + 4, check_get(packet + start + 4, 4) + before_size - headers, 4);
    if ((what & 3) == INPUT_CONTINUED)
        change(packet, size, at, changes);
    if (packet_is_ip(packet, size))
        complete(packet, size);
    if ((what & 3) == INPUT_BROKEN)
        change(packet, size, at, changes);
    check_add(k, packet, size);
    return at + 2 * changes;
}

/* How many packets went together with others. */
static uint32_t check_input(const uint8_t *input, size_t size)
{
    if (size < 2)
        return 0;
    struct checked *k = malloc(sizeof *k);
    CHECK(k);
    const uint8_t *at = input + 2, *end = input + size;
    check_begin(k, input[0] & 15, !(input[0] & 0x80), input[1]);
    while (at < end)
        at = check_next(k, at, end);
    check_end(k);
    uint32_t merged = k->merged;
    free(k);
    return merged;
}

#endif
