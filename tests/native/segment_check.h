/* Cuts a packet and checks all that holds of the pieces, whatever the host sent: for the tests and the
 * fuzzer. Each byte is summed by itself, and every buffer is exactly as large as it may be, so that
 * AddressSanitizer sees the first byte beyond. */
#ifndef RINGTUN_SEGMENT_CHECK_H
#define RINGTUN_SEGMENT_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "packet.h"
#include "segment.h"

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            printf("FAILED %s:%d: %s\n", __FILE__, __LINE__, #condition);                         \
            abort();                                                                              \
        }                                                                                         \
    } while (0)

static uint32_t check_get(const uint8_t *at, int size)
{
    uint32_t value = 0;
    while (size--)
        value = value << 8 | *at++;
    return value;
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

/* A packet without GSO: itself, but for the checksum. */
static void check_whole(const struct vnet_header *vnet, const uint8_t *packet, uint32_t size,
                        const uint8_t *piece)
{
    uint32_t start = vnet->csum_start, field = start + vnet->csum_offset;
    if (!(vnet->flags & VNET_NEEDS_CSUM)) {
        CHECK(!memcmp(piece, packet, size));
        return;
    }
    CHECK(field + 2 <= size && start >= 20);
    CHECK(!memcmp(piece, packet, field));
    CHECK(!memcmp(piece + field + 2, packet + field + 2, size - field - 2));
    uint32_t done = 0xFFFF - check_sum(packet + start, size - start, 0);
    uint32_t stored = check_get(piece + field, 2);
    CHECK(stored == done || (!done && stored == 0xFFFF && vnet->csum_offset == 6));
}

/* One segment of a packet with GSO; `done` bytes of payload came before it. True: it is the last. */
static bool check_segment(const struct vnet_header *vnet, const uint8_t *packet, uint32_t size,
                          const uint8_t *piece, uint32_t piece_size, uint32_t index, uint32_t done)
{
    bool tcp = vnet->gso_type != VNET_GSO_UDP_L4;
    uint32_t start = vnet->csum_start, field = start + vnet->csum_offset;
    uint32_t headers = start + (tcp ? (packet[start + 12] >> 4) * 4u : 8);
    uint32_t payload = piece_size - headers;

    CHECK(field + 2 <= headers && headers < piece_size && headers + done + payload <= size);
    bool last = headers + done + payload == size;
    CHECK(payload == vnet->gso_size || (last && payload < vnet->gso_size));
    CHECK(!memcmp(piece + headers, packet + headers + done, payload));
    if (packet[0] >> 4 == 4) {
        CHECK(check_get(piece + 2, 2) == piece_size);
        CHECK(check_get(piece + 4, 2) == ((check_get(packet + 4, 2) + index) & 0xFFFF));
        CHECK(check_sum(piece, start, 0) == 0xFFFF);
        CHECK(!memcmp(piece, packet, 2) && !memcmp(piece + 6, packet + 6, 4));
        CHECK(!memcmp(piece + 12, packet + 12, start - 12));
    } else {
        CHECK(check_get(piece + 4, 2) == piece_size - 40);
        CHECK(!memcmp(piece, packet, 4) && !memcmp(piece + 6, packet + 6, start - 6));
    }
    if (tcp) {
        uint8_t mask = (uint8_t)~((last ? 0 : 0x09) | (index ? 0x80 : 0));
        CHECK(check_get(piece + start + 4, 4) == (uint32_t)(check_get(packet + start + 4, 4) + done));
        CHECK(piece[start + 13] == (packet[start + 13] & mask));
    } else {
        CHECK(check_get(piece + start + 4, 2) == piece_size - start);
        CHECK(check_get(piece + field, 2));
    }
    /* The field held the pseudo-header's sum for the length of the whole. */
    uint32_t pseudo = check_get(packet + field, 2) + 0xFFFF - (size - start) + (piece_size - start);
    CHECK(check_sum(piece + start, piece_size - start, pseudo) == 0xFFFF);
    return last;
}

/* How many pieces were made of it; 0: refused. */
static uint32_t check_cut(const struct vnet_header *vnet, const uint8_t *bytes, uint32_t size)
{
    struct segmenter segmenter;
    uint8_t *packet = malloc(size);
    uint32_t index = 0, piece_size;
    bool last = false;

    CHECK(packet);
    memcpy(packet, bytes, size);
    bool taken = segment_begin(&segmenter, vnet, packet, size);
    while ((piece_size = segment_size(&segmenter))) {
        CHECK(taken && !last && piece_size <= size);
        uint8_t *piece = malloc(piece_size);
        CHECK(piece);
        segment_write(&segmenter, piece);
        if (vnet->gso_type == VNET_GSO_NONE) {
            CHECK(piece_size == size);
            check_whole(vnet, packet, size, piece);
            last = true;
        } else {
            last = check_segment(vnet, packet, size, piece, piece_size, index, index * vnet->gso_size);
        }
        index++;
        free(piece);
    }
    CHECK(taken == last);
    CHECK(!memcmp(packet, bytes, size));
    free(packet);
    return index;
}

/* The same for an input of bytes: the header's 10, its fields' low bytes first, and the packet. */
static uint32_t check_input(const uint8_t *input, size_t size)
{
    if (size < 10 || !packet_is_ip(input + 10, size - 10))
        return 0;
    struct vnet_header vnet = {
        .flags = input[0],
        .gso_type = input[1],
        .hdr_len = (uint16_t)(input[2] | input[3] << 8),
        .gso_size = (uint16_t)(input[4] | input[5] << 8),
        .csum_start = (uint16_t)(input[6] | input[7] << 8),
        .csum_offset = (uint16_t)(input[8] | input[9] << 8),
    };
    return check_cut(&vnet, input + 10, (uint32_t)(size - 10));
}

#endif
