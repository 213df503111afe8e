/* The engine's step from the host to the client.
 *
 * A packet is read straight into the ring. Where the host has vnet headers and the client has not
 * asked for them, it is read into private memory, and goes into the ring in segments of the MTU; and
 * so it goes where it fits no slot together with its header.
 * What finds no room waits in private memory, and nothing more is read until it has gone.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "engine.h"
#include "guard.h"
#include "packet.h"

/* Bytes before each IP packet in the ring. */
static uint32_t prefix_of(const struct engine *e)
{
    return e->options & ENGINE_WHOLE ? VNET_HEADER_SIZE : 0;
}

static void count_packet(struct engine *e, size_t size)
{
    e->to_client_counters.packets++;
    e->to_client_counters.bytes += size;
}

/* ---- split ---------------------------------------------------------------------------------- */

static enum ring_status drop_segments(struct engine *e, uint64_t *counter)
{
    ++*counter;
    e->segmenter = (struct segmenter){0};
    return RING_OK;
}

/* Put into the ring what is left of the packet that is being cut, as far as there is room. */
static enum ring_status put_segments(struct engine *e)
{
    struct engine_counters *counters = &e->to_client_counters;
    uint32_t prefix = prefix_of(e), size;
    while ((size = segment_size(&e->segmenter))) {
        uint8_t *slot;
        if (prefix + size > TUN_PACKET_MAX_SIZE)
            return drop_segments(e, &counters->too_big);
        enum ring_status status = ring_reserve(&e->to_client, prefix + size, &slot);
        if (status == RING_FULL)
            return status;
        if (status != RING_OK) /* the client's Head is no offset: there is no room anywhere */
            return drop_segments(e, &counters->invalid_head);
        memset(slot, 0, prefix);
        segment_write(&e->segmenter, slot + prefix);
        ring_commit(&e->to_client, prefix + size);
        count_packet(e, prefix + size);
    }
    return RING_OK;
}

static enum ring_status read_and_split(struct engine *e)
{
    struct engine_counters *counters = &e->to_client_counters;
    struct vnet_header vnet;
    const struct iovec pieces[] = {{&vnet, sizeof vnet}, {e->pending, TUN_PACKET_MAX_SIZE + 1}};

    if (put_segments(e) == RING_FULL)
        return RING_FULL;
    ssize_t got = e->host->read(e->host, pieces, 2);
    if (got == -EAGAIN)
        return RING_EMPTY;
    if (got < 0)
        return RING_ENDED;
    size_t size = got < VNET_HEADER_SIZE ? 0 : (size_t)got - VNET_HEADER_SIZE;
    if (size > TUN_PACKET_MAX_SIZE) {
        counters->too_big++;
    } else if (!packet_is_ip(e->pending, size)) {
        counters->not_ip++;
    } else if (!segment_begin(&e->segmenter, &vnet, e->pending, (uint32_t)size)) {
        counters->malformed++;
    } else {
        counters->large += segment_size(&e->segmenter) < size;
        return put_segments(e);
    }
    return RING_OK;
}

/* ---- as it comes ---------------------------------------------------------------------------- */

/* Put the pending packet into the ring. */
static enum ring_status put_pending(struct engine *e)
{
    uint8_t *slot;
    enum ring_status status = ring_reserve(&e->to_client, e->pending_size, &slot);
    if (status == RING_FULL)
        return status;
    if (status == RING_OK) {
        memcpy(slot, e->pending, e->pending_size);
        ring_commit(&e->to_client, e->pending_size);
        count_packet(e, e->pending_size);
    } else {
        e->to_client_counters.invalid_head++;
    }
    e->pending_size = 0;
    return status;
}

/* Where the next packet is read to: the ring as far as there is room, then the private buffer.
 * Returns the bytes in the ring. */
static size_t place(struct engine *e, struct iovec pieces[2], int *count)
{
    uint8_t *slot;
    size_t room = TUN_PACKET_MAX_SIZE + 1; /* which the trailing bytes hold */
    enum ring_status status = ring_reserve(&e->to_client, TUN_PACKET_MAX_SIZE, &slot);
    *count = 0;
    if (status != RING_OK) {
        room = status == RING_FULL ? ring_room(&e->to_client) : 0;
        room = room > TUN_PACKET_HEADER_SIZE ? room - TUN_PACKET_HEADER_SIZE : 0;
        slot = ring_packet_at(e->to_client.ring, e->to_client.reserved)->data;
    }
    if (room)
        pieces[(*count)++] = (struct iovec){slot, room};
    if (room <= TUN_PACKET_MAX_SIZE + prefix_of(e))
        pieces[(*count)++] = (struct iovec){e->pending, sizeof e->pending};
    return room;
}

/* Bring together in the private buffer a packet that was read in two pieces. */
static void gather_pending(struct engine *e, const struct iovec *ring_piece, size_t in_ring, size_t size)
{
    if (in_ring) {
        memmove(e->pending + in_ring, e->pending, size - in_ring);
        memcpy(e->pending, ring_piece->iov_base, in_ring);
    }
    e->pending_size = (uint32_t)size;
}

/* What is too large for a slot: a packet of 64 KiB with its header before it. */
static enum ring_status split_pending(struct engine *e)
{
    uint32_t prefix = prefix_of(e), size = e->pending_size - prefix;
    struct vnet_header vnet;

    e->pending_size = 0;
    memcpy(&vnet, e->pending, sizeof vnet);
    if (prefix && size <= TUN_PACKET_MAX_SIZE && packet_is_ip(e->pending + prefix, size) &&
        segment_begin(&e->segmenter, &vnet, e->pending + prefix, size)) {
        e->to_client_counters.large += segment_size(&e->segmenter) < size;
        return put_segments(e);
    }
    e->to_client_counters.too_big++;
    return RING_OK;
}

static enum ring_status read_packet(struct engine *e)
{
    struct engine_counters *counters = &e->to_client_counters;
    size_t prefix = prefix_of(e);
    struct iovec pieces[2];
    int count;

    if ((e->pending_size && put_pending(e) == RING_FULL) || put_segments(e) == RING_FULL)
        return RING_FULL;
    size_t in_ring = place(e, pieces, &count);
    ssize_t got = e->host->read(e->host, pieces, count);
    if (got == -EAGAIN)
        return RING_EMPTY;
    if (got < 0)
        return got == -EFAULT ? RING_CORRUPT : RING_ENDED;
    size_t size = (size_t)got;
    const uint8_t *packet = pieces[0].iov_base;
    if (size > TUN_PACKET_MAX_SIZE || size > in_ring) {
        gather_pending(e, pieces, size < in_ring ? size : in_ring, size);
        packet = e->pending;
    }
    if (size > TUN_PACKET_MAX_SIZE)
        return split_pending(e);
    if (size < prefix || !packet_is_ip(packet + prefix, size - prefix)) {
        counters->not_ip++;
        e->pending_size = 0;
    } else if (size > in_ring) {
        return put_pending(e) == RING_FULL ? RING_FULL : RING_OK;
    } else {
        ring_commit(&e->to_client, (uint32_t)size);
        count_packet(e, size);
    }
    return RING_OK;
}

/* ---- the step ------------------------------------------------------------------------------- */

enum engine_result engine_step_to_client(struct engine *e, unsigned budget, unsigned *moved)
{
    bool split = e->host->vnet && !(e->options & ENGINE_WHOLE);
    enum ring_status status = RING_OK;
    struct engine *outside = guard_enter(e);
    pthread_mutex_lock(&e->to_client_lock);
    if (e->end != ENGINE_RUNNING) {
        pthread_mutex_unlock(&e->to_client_lock);
        guard_leave(outside);
        *moved = 0;
        return ENGINE_OVER;
    }
    /* RING_OK also for a packet that was discarded; RING_EMPTY: the host has none; RING_FULL: it
     * waits in private memory; RING_ENDED: the host is gone. */
    const uint64_t before = e->to_client_counters.packets;
    uint64_t packets = 0, last = 0; /* of all reads, of the last one: the next is likely as large */
    for (unsigned reads = 0; status == RING_OK && reads < budget && packets + last <= budget; reads++) {
        status = split ? read_and_split(e) : read_packet(e);
        last = e->to_client_counters.packets - before - packets;
        packets += last;
    }
    ring_submit(&e->to_client);
    *moved = (unsigned)(e->to_client_counters.packets - before);
    pthread_mutex_unlock(&e->to_client_lock);
    guard_leave(outside);
    return engine_step_ended(e, status);
}

int engine_wait_to_client(struct engine *e, int stop, int64_t timeout_ns, unsigned budget,
                          enum engine_result *result)
{
    struct pollfd fds[] = {
        {.fd = e->host->fd, .events = POLLIN},
        {.fd = stop, .events = POLLIN},
        {.fd = e->send_event, .events = POLLIN}, /* signalled at the end alone */
    };
    struct timespec timeout = {
        .tv_sec = timeout_ns / 1000000000,
        .tv_nsec = timeout_ns % 1000000000,
    };
    unsigned moved;
    int ready = ppoll(fds, 3, timeout_ns < 0 ? NULL : &timeout, NULL);
    if (ready < 0)
        return errno;
    if (!ready)
        return ETIMEDOUT;
    *result = engine_step_to_client(e, budget, &moved);
    return 0;
}
