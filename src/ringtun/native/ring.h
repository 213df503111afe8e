/* One ring, from either side: the producer's reserve, commit and submit, the consumer's peek and
 * release.
 *
 * The memory is shared with a peer that may be hostile. So each side keeps its own cursors in
 * private memory and never reads them back; it reads the other side's index once, checks it, and
 * uses only the checked copy until it is used up. Nothing here allocates, waits or fails but by its
 * result. RING_ENDED and RING_CORRUPT are for the caller to remember: the peer could take them back. Every order of memory accesses has one name, and they stand in this file alone.
 */
#ifndef RINGTUN_RING_H
#define RINGTUN_RING_H

#include <stdbool.h>

#include "ringtun.h"

enum ring_status {
    RING_OK,
    RING_EMPTY,   /* consumer: no packet there */
    RING_FULL,    /* producer: no room for this packet now */
    RING_ENDED,   /* the other side wrote TUN_RING_CLOSED into its index */
    RING_CORRUPT, /* the other side wrote what no correct peer writes */
};

/* ---- memory orders -------------------------------------------------------------------------- */

/* Ensure that what the peer wrote before it moved this index is seen after the load. */
static inline uint32_t ring_load_index(const uint32_t *index)
{
    return __atomic_load_n(index, __ATOMIC_ACQUIRE);
}

/* Ensure that the peer, once it sees the index, sees all that was written or read before it. */
static inline void ring_store_index(uint32_t *index, uint32_t value)
{
    __atomic_store_n(index, value, __ATOMIC_RELEASE);
}

/* Ensure that of "I stored Tail, then loaded Alertable" and "I stored Alertable, then loaded Tail"
 * at least one sees the other's store. Release and acquire do not, not even on x86: each store may
 * wait in its CPU's buffer while both loads are done, and the wake-up is lost. */
static inline void ring_full_fence(void)
{
#ifndef RINGTUN_WITHOUT_FENCE /* the litmus test removes it, to see a wake-up lost */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

/* ---- arithmetic ----------------------------------------------------------------------------- */

/* The core takes any power of two from 16 bytes, so that tests wrap soon; the contract's own range
 * is checked where rings are registered. */
static inline bool ring_is_capacity(uint64_t capacity)
{
    return capacity >= 16 && capacity <= TUN_RING_MAX_CAPACITY && !(capacity & (capacity - 1));
}

static inline bool ring_is_offset(uint32_t offset, uint32_t capacity)
{
    return offset < capacity && offset % TUN_PACKET_ALIGNMENT == 0;
}

/* Bytes that a packet takes in the ring; size is at most TUN_PACKET_MAX_SIZE. */
static inline uint32_t ring_span(uint32_t size)
{
    return (TUN_PACKET_HEADER_SIZE + size + TUN_PACKET_ALIGNMENT - 1) & ~(TUN_PACKET_ALIGNMENT - 1);
}

/* The packet at an offset below the capacity: the trailing bytes keep it in one piece. */
static inline struct tun_packet *ring_packet_at(struct tun_ring *ring, uint32_t offset)
{
    return (struct tun_packet *)(ring->data + offset);
}

/* ---- producer ------------------------------------------------------------------------------- */

struct ring_producer {
    struct tun_ring *ring;
    uint32_t capacity;
    uint32_t tail;     /* as published */
    uint32_t reserved; /* where the next packet goes: what lies between is committed */
    uint32_t head;     /* the consumer's, as last read and checked */
};

/* Starts where the ring stands: at zero, where nothing has been written yet. RING_CORRUPT: Tail is no
 * offset. */
static inline enum ring_status ring_producer_init(struct ring_producer *p, struct tun_ring *ring,
                                                  uint32_t capacity)
{
    uint32_t tail = ring_load_index(&ring->tail);
    bool valid = ring_is_offset(tail, capacity);
    tail = valid ? tail : 0;
    /* As if full, until Head has been read: the ring may hold packets. */
    uint32_t head = (tail + TUN_PACKET_ALIGNMENT) & (capacity - 1);
    *p = (struct ring_producer){
        .ring = ring, .capacity = capacity, .tail = tail, .reserved = tail, .head = head};
    return valid ? RING_OK : RING_CORRUPT;
}

/* Bytes that packets may still take. One slot of 4 stays free: Head == Tail means empty. */
static inline uint32_t ring_room(const struct ring_producer *p)
{
    return (p->head - p->reserved - TUN_PACKET_ALIGNMENT) & (p->capacity - 1);
}

/* Read the consumer's Head anew. */
static inline enum ring_status ring_refresh_head(struct ring_producer *p)
{
    uint32_t head = ring_load_index(&p->ring->head);
    if (!ring_is_offset(head, p->capacity))
        return head == TUN_RING_CLOSED ? RING_ENDED : RING_CORRUPT;
    p->head = head;
    return RING_OK;
}

/* Find room for a packet of up to `size` bytes (at most TUN_PACKET_MAX_SIZE). RING_OK: write it to
 * *data, then commit. Nothing is taken before the commit. */
static inline enum ring_status ring_reserve(struct ring_producer *p, uint32_t size, uint8_t **data)
{
    if (ring_room(p) < ring_span(size)) {
        enum ring_status status = ring_refresh_head(p);
        if (status != RING_OK)
            return status;
        if (ring_room(p) < ring_span(size))
            return RING_FULL;
    }
    *data = ring_packet_at(p->ring, p->reserved)->data;
    return RING_OK;
}

/* Take the packet that was written after ring_reserve, of at most the size reserved. */
static inline void ring_commit(struct ring_producer *p, uint32_t size)
{
    __atomic_store_n(&ring_packet_at(p->ring, p->reserved)->size, size, __ATOMIC_RELAXED);
    p->reserved = (p->reserved + ring_span(size)) & (p->capacity - 1);
}

/* Show the consumer everything committed so far. Returns whether there was anything. */
static inline bool ring_submit(struct ring_producer *p)
{
    if (p->tail == p->reserved)
        return false;
    p->tail = p->reserved;
    ring_store_index(&p->ring->tail, p->tail);
    return true;
}

/* After ring_submit: whether the consumer waits and is to be woken. */
static inline bool ring_consumer_waits(struct ring_producer *p)
{
    ring_full_fence();
    return __atomic_load_n(&p->ring->alertable, __ATOMIC_RELAXED) != 0;
}

/* Tell the consumer that this is the end; wake it afterwards. What it has not read yet is lost. */
static inline void ring_producer_end(struct ring_producer *p)
{
    ring_store_index(&p->ring->tail, TUN_RING_CLOSED);
}

/* ---- consumer ------------------------------------------------------------------------------- */

struct ring_consumer {
    struct tun_ring *ring;
    uint32_t capacity;
    uint32_t head; /* as published */
    uint32_t next; /* the next packet to peek at: what lies between is in use */
    uint32_t tail; /* the producer's, as last read and checked */
};

struct ring_view {
    uint8_t *data; /* in the ring: the producer could change it at any time */
    uint32_t size;
    uint32_t end; /* the offset behind the packet, for ring_release */
};

/* As ring_producer_init, for Head. */
static inline enum ring_status ring_consumer_init(struct ring_consumer *c, struct tun_ring *ring,
                                                  uint32_t capacity)
{
    uint32_t head = ring_load_index(&ring->head);
    bool valid = ring_is_offset(head, capacity);
    head = valid ? head : 0;
    *c = (struct ring_consumer){
        .ring = ring, .capacity = capacity, .head = head, .next = head, .tail = head};
    return valid ? RING_OK : RING_CORRUPT;
}

/* Bytes between the next packet and the producer's Tail as last read. */
static inline uint32_t ring_content(const struct ring_consumer *c)
{
    return (c->tail - c->next) & (c->capacity - 1);
}

/* Read the producer's Tail anew. RING_OK: there is something to peek at. */
static inline enum ring_status ring_refresh_tail(struct ring_consumer *c)
{
    uint32_t tail = ring_load_index(&c->ring->tail);
    if (!ring_is_offset(tail, c->capacity))
        return tail == TUN_RING_CLOSED ? RING_ENDED : RING_CORRUPT;
    c->tail = tail;
    return ring_content(c) ? RING_OK : RING_EMPTY;
}

/* Where a packet ends is known from its size alone, so a reader would wait for memory at each one.
 * Small packets come in runs of a size: ask early for the header of the eighth to come, were they so.
 * With large ones the wait is nothing beside the copy, and the memory has better to do. */
static inline void ring_prefetch(const struct ring_consumer *c, uint32_t size)
{
    if (size > 256)
        return;
    uint32_t ahead = (c->next + 8 * ring_span(size)) & (c->capacity - 1);
    __builtin_prefetch(ring_packet_at(c->ring, ahead));
}

/* Look at the next packet and step over it. It stays the consumer's until ring_release. */
static inline enum ring_status ring_peek(struct ring_consumer *c, struct ring_view *view)
{
    if (!ring_content(c)) {
        enum ring_status status = ring_refresh_tail(c);
        if (status != RING_OK)
            return status;
    }
    /* Both indices are multiples of 4, so the content holds a packet header at least. */
    struct tun_packet *packet = ring_packet_at(c->ring, c->next);
    uint32_t size = __atomic_load_n(&packet->size, __ATOMIC_RELAXED);
    if (size > TUN_PACKET_MAX_SIZE || ring_span(size) > ring_content(c))
        return RING_CORRUPT;
    c->next = (c->next + ring_span(size)) & (c->capacity - 1);
    ring_prefetch(c, size);
    *view = (struct ring_view){.data = packet->data, .size = size, .end = c->next};
    return RING_OK;
}

/* Step back to an offset where `next` stood since the last release. */
static inline void ring_unpeek(struct ring_consumer *c, uint32_t offset)
{
    c->next = offset;
}

/* Give back to the producer all that lies before `end`, an offset from a peek. */
static inline void ring_release(struct ring_consumer *c, uint32_t end)
{
    if (c->head == end)
        return;
    c->head = end;
    ring_store_index(&c->ring->head, end);
}

/* Ask to be woken. RING_EMPTY: wait for the event now. Anything else: there is no need to. */
static inline enum ring_status ring_arm(struct ring_consumer *c)
{
    __atomic_store_n(&c->ring->alertable, 1, __ATOMIC_RELAXED);
    ring_full_fence();
    return ring_content(c) ? RING_OK : ring_refresh_tail(c);
}

static inline void ring_disarm(struct ring_consumer *c)
{
    __atomic_store_n(&c->ring->alertable, 0, __ATOMIC_RELAXED);
}

/* Tell the producer that nothing will be read any more. */
static inline void ring_consumer_end(struct ring_consumer *c)
{
    ring_store_index(&c->ring->head, TUN_RING_CLOSED);
}

#endif
