#include "engine.h"

#include <errno.h>
#include <string.h>

#include "event.h"
#include "packet.h"

int engine_init(struct engine *e, struct host *host, const struct engine_offer *offer)
{
    memset(e, 0, sizeof *e);
    e->host = host;
    e->send_event = offer->send_event;
    e->receive_event = offer->receive_event;
    e->to_client_space = offer->to_client_space;
    e->to_host_space = offer->to_host_space;
    e->stop_event = -1;
    if (ring_producer_init(&e->to_client, offer->to_client, offer->to_client_capacity) != RING_OK ||
        ring_consumer_init(&e->to_host, offer->to_host, offer->to_host_capacity) != RING_OK)
        return EINVAL;
    int error = pthread_mutex_init(&e->to_client_lock, NULL);
    return error ? error : pthread_mutex_init(&e->to_host_lock, NULL);
}

/* What a step says, by how its last packet fared; no lock is held. */
static enum engine_result step_ended(struct engine *e, enum ring_status status)
{
    switch (status) {
    case RING_OK:
        return ENGINE_MORE;
    case RING_EMPTY:
        return ENGINE_IDLE;
    case RING_FULL:
        return ENGINE_BLOCKED;
    case RING_ENDED:
        engine_end(e, ENGINE_REMOVED);
        return ENGINE_OVER;
    case RING_CORRUPT:
        break;
    }
    engine_end(e, ENGINE_CORRUPT);
    return ENGINE_OVER;
}

/* ---- host to client ------------------------------------------------------------------------- */

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
        e->to_client_counters.packets++;
        e->to_client_counters.bytes += e->pending_size;
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
    size_t room = TUN_PACKET_MAX_SIZE + 1;
    enum ring_status status = ring_reserve(&e->to_client, TUN_PACKET_MAX_SIZE, &slot);
    *count = 0;
    if (status != RING_OK) {
        room = status == RING_FULL ? ring_room(&e->to_client) : 0;
        room = room > TUN_PACKET_HEADER_SIZE ? room - TUN_PACKET_HEADER_SIZE : 0;
        slot = ring_packet_at(e->to_client.ring, e->to_client.reserved)->data;
    }
    if (room)
        pieces[(*count)++] = (struct iovec){slot, room};
    if (room <= TUN_PACKET_MAX_SIZE)
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

/* Move one packet. RING_OK also for one that was discarded; RING_EMPTY: the host has none;
 * RING_FULL: it waits in the private buffer; RING_ENDED: the host is gone. */
static enum ring_status read_packet(struct engine *e)
{
    struct engine_counters *counters = &e->to_client_counters;
    struct iovec pieces[2];
    int count;

    if (e->pending_size && put_pending(e) == RING_FULL)
        return RING_FULL;
    size_t in_ring = place(e, pieces, &count);
    ssize_t size = e->host->read(e->host, pieces, count);
    if (size == -EAGAIN)
        return RING_EMPTY;
    if (size < 0)
        return RING_ENDED;
    if (size > TUN_PACKET_MAX_SIZE) {
        counters->too_big++;
    } else if (!packet_is_ip(pieces[0].iov_base, (size_t)size)) {
        counters->not_ip++;
    } else if ((size_t)size <= in_ring) {
        ring_commit(&e->to_client, (uint32_t)size);
        counters->packets++;
        counters->bytes += (uint64_t)size;
    } else {
        gather_pending(e, pieces, in_ring, (size_t)size);
        return put_pending(e) == RING_FULL ? RING_FULL : RING_OK;
    }
    return RING_OK;
}

enum engine_result engine_step_to_client(struct engine *e, unsigned budget, unsigned *moved)
{
    enum ring_status status = RING_OK;
    pthread_mutex_lock(&e->to_client_lock);
    if (e->end != ENGINE_RUNNING) {
        pthread_mutex_unlock(&e->to_client_lock);
        *moved = 0;
        return ENGINE_OVER;
    }
    uint64_t before = e->to_client_counters.packets;
    while (budget-- && status == RING_OK)
        status = read_packet(e);
    ring_submit(&e->to_client);
    *moved = (unsigned)(e->to_client_counters.packets - before);
    pthread_mutex_unlock(&e->to_client_lock);
    return step_ended(e, status);
}

/* ---- client to host ------------------------------------------------------------------------- */

/* Count what the host did not take; what it may still take, or will never, is not for here. */
static void count_refusal(struct engine_counters *counters, int error)
{
    if (error == -EIO)
        counters->host_down++;
    else if (error == -ENOMEM || error == -ENOBUFS)
        counters->no_memory++;
    else
        counters->refused++;
}

/* Move one packet. RING_OK also for one that was discarded; RING_FULL: the host cannot take it now;
 * RING_ENDED: the host is gone. */
static enum ring_status write_packet(struct engine *e)
{
    struct engine_counters *counters = &e->to_host_counters;
    struct ring_view view;
    uint32_t before = e->to_host.next;

    enum ring_status status = ring_peek(&e->to_host, &view);
    if (status != RING_OK)
        return status == RING_EMPTY ? RING_EMPTY : RING_CORRUPT;
    if (!packet_is_ip(view.data, view.size)) {
        counters->not_ip++;
        return RING_OK;
    }
    int error = e->host->write(e->host, view.data, view.size);
    if (error == -EAGAIN) {
        ring_unpeek(&e->to_host, before);
        return RING_FULL;
    }
    if (error == -EBADFD)
        return RING_ENDED;
    if (error) {
        count_refusal(counters, error);
    } else {
        counters->packets++;
        counters->bytes += view.size;
    }
    return RING_OK;
}

enum engine_result engine_step_to_host(struct engine *e, unsigned budget, unsigned *moved)
{
    enum ring_status status = RING_OK;
    pthread_mutex_lock(&e->to_host_lock);
    if (e->end != ENGINE_RUNNING) {
        pthread_mutex_unlock(&e->to_host_lock);
        *moved = 0;
        return ENGINE_OVER;
    }
    uint64_t before = e->to_host_counters.packets;
    while (budget-- && status == RING_OK)
        status = write_packet(e);
    ring_release(&e->to_host, e->to_host.next);
    *moved = (unsigned)(e->to_host_counters.packets - before);
    if (e->to_host_space && ring_producer_waits(e->to_host_space))
        event_signal(e->to_host_space->event);
    pthread_mutex_unlock(&e->to_host_lock);
    return step_ended(e, status);
}

/* ---- the end, and what is asked from outside ---------------------------------------------------- */

void engine_end(struct engine *e, enum engine_end reason)
{
    pthread_mutex_lock(&e->to_client_lock);
    pthread_mutex_lock(&e->to_host_lock);
    if (e->end == ENGINE_RUNNING) {
        e->end = reason;
        ring_producer_end(&e->to_client);
        ring_consumer_end(&e->to_host);
        event_signal(e->send_event);
        if (e->to_host_space)
            event_signal(e->to_host_space->event);
        if (e->stop_event >= 0)
            event_signal(e->stop_event);
    }
    pthread_mutex_unlock(&e->to_host_lock);
    pthread_mutex_unlock(&e->to_client_lock);
}

enum engine_end engine_end_reason(struct engine *e)
{
    pthread_mutex_lock(&e->to_host_lock);
    enum engine_end reason = e->end;
    pthread_mutex_unlock(&e->to_host_lock);
    return reason;
}

void engine_read_counters(struct engine *e, struct engine_counters *to_client,
                          struct engine_counters *to_host)
{
    pthread_mutex_lock(&e->to_client_lock);
    *to_client = e->to_client_counters;
    pthread_mutex_unlock(&e->to_client_lock);
    pthread_mutex_lock(&e->to_host_lock);
    *to_host = e->to_host_counters;
    pthread_mutex_unlock(&e->to_host_lock);
}

uint64_t engine_wakeups(const struct engine *e)
{
    return __atomic_load_n(&e->wakeups, __ATOMIC_RELAXED);
}

void engine_destroy(struct engine *e)
{
    pthread_mutex_destroy(&e->to_client_lock);
    pthread_mutex_destroy(&e->to_host_lock);
}
