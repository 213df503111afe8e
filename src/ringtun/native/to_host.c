/* The engine's step from the client to the host.
 *
 * A packet is written straight from the ring; where the host takes large packets, those of one flow
 * are merged first, their payload gathered from the ring without a copy. The ring moves on only when
 * the host has taken them.
 */
#include <errno.h>
#include <string.h>

#include "engine.h"
#include "guard.h"
#include "packet.h"

static const struct vnet_header NO_OFFLOAD;

/* Count packets by what the host said to them: nothing, or that it does not take them. */
static void count(struct engine_counters *counters, int error, uint32_t packets, uint64_t bytes)
{
    if (!error) {
        counters->packets += packets;
        counters->bytes += bytes;
    } else if (error == -EIO) {
        counters->host_down += packets;
    } else if (error == -ENOMEM || error == -ENOBUFS) {
        counters->no_memory += packets;
    } else {
        counters->refused += packets;
    }
}

/* What a write says of the step: RING_OK, the packet was taken or counted; RING_FULL, the host cannot
 * take it now; RING_ENDED, the host is gone. */
static enum ring_status outcome(int error)
{
    return error == -EAGAIN ? RING_FULL : error == -EBADFD ? RING_ENDED : RING_OK;
}

/* A client does not end its ring: it closes its handle. */
static enum ring_status next_packet(struct engine *e, struct ring_view *view)
{
    enum ring_status status = ring_peek(&e->to_host, view);
    return status == RING_OK || status == RING_EMPTY ? status : RING_CORRUPT;
}

/* ---- one by one ----------------------------------------------------------------------------- */

/* As it comes. */
static int write_packet(struct engine *e, const uint8_t *data, uint32_t size)
{
    if (!packet_is_ip(data, size)) {
        e->to_host_counters.not_ip++;
        return 0;
    }
    const struct iovec piece = {(void *)data, size};
    int error = e->host->write(e->host, &piece, 1);
    if (outcome(error) == RING_OK)
        count(&e->to_host_counters, error, 1, size);
    return error;
}

/* A whole packet, its vnet_header before it: both are looked at as those from the host are, in private
 * memory, and go on as they are. */
static int write_whole_packet(struct engine *e, const uint8_t *data, uint32_t size)
{
    uint8_t head[VNET_HEADER_SIZE + 256]; /* and the headers of IP and transport */
    uint32_t readable = size < sizeof head ? size : sizeof head;
    struct vnet_header vnet;

    memcpy(head, data, readable);
    __atomic_signal_fence(__ATOMIC_SEQ_CST); /* it is the copy that is looked at */
    if (readable < VNET_HEADER_SIZE ||
        !packet_is_ip(head + VNET_HEADER_SIZE, readable - VNET_HEADER_SIZE)) {
        e->to_host_counters.not_ip++;
        return 0;
    }
    memcpy(&vnet, head, sizeof vnet);
    if (vnet.hdr_len > size - VNET_HEADER_SIZE ||
        !segment_fits(&vnet, head + VNET_HEADER_SIZE, readable - VNET_HEADER_SIZE,
                      size - VNET_HEADER_SIZE)) {
        e->to_host_counters.malformed++;
        return 0;
    }
    const struct iovec pieces[] = {{head, readable}, {(void *)(data + readable), size - readable}};
    int error = e->host->write(e->host, pieces, size > readable ? 2 : 1);
    if (outcome(error) == RING_OK)
        count(&e->to_host_counters, error, 1, size);
    return error;
}

static int write_one(struct engine *e, const uint8_t *data, uint32_t size)
{
    return e->options & ENGINE_WHOLE ? write_whole_packet(e, data, size) : write_packet(e, data, size);
}

static enum ring_status write_packets(struct engine *e, unsigned budget)
{
    struct ring_view view;
    enum ring_status status = RING_OK;

    while (status == RING_OK && budget--) {
        uint32_t before = e->to_host.next;
        status = next_packet(e, &view);
        if (status == RING_OK)
            status = outcome(write_one(e, view.data, view.size));
        if (status == RING_FULL)
            ring_unpeek(&e->to_host, before);
    }
    ring_release(&e->to_host, e->to_host.next);
    return status;
}

/* ---- merged --------------------------------------------------------------------------------- */

static bool merges(const struct engine *e)
{
    return e->host->vnet && !(e->options & ENGINE_WHOLE);
}

static enum ring_status take_packets(struct engine *e, unsigned *budget)
{
    struct ring_view view;
    enum ring_status status = RING_OK;

    while (*budget && e->coalescer.packet_count < COALESCE_PACKETS) {
        status = next_packet(e, &view);
        if (status != RING_OK)
            break;
        --*budget;
        if (packet_is_ip(view.data, view.size))
            coalesce_add(&e->coalescer, view.data, view.size);
        else
            e->to_host_counters.not_ip++;
    }
    return status;
}

/* The packets of an item that the host refused as a whole, one by one. Where it takes them all so,
 * it does not take their kind merged, and is not asked again; where it refuses one, the packets are to
 * blame. */
static enum ring_status write_singly(struct engine *e, const struct coalesce_item *item)
{
    while (e->single != COALESCE_NONE) {
        const struct coalesce_packet *packet = &e->coalescer.packets[e->single];
        const struct iovec pieces[] = {
            {(void *)&NO_OFFLOAD, VNET_HEADER_SIZE},
            {(void *)packet->data, packet->size},
        };
        int error = e->host->write(e->host, pieces, 2);
        if (outcome(error) != RING_OK)
            return outcome(error);
        count(&e->to_host_counters, error, 1, packet->size);
        e->single_failed |= error != 0;
        e->single = packet->next;
    }
    if (!e->single_failed) {
        __atomic_and_fetch(&e->host->coalesces, ~item->kind, __ATOMIC_RELAXED);
        if (e->host->coalesces_less)
            e->host->coalesces_less(e->host);
    }
    e->singly = false;
    return RING_OK;
}

static enum ring_status write_item(struct engine *e, uint32_t index)
{
    struct iovec pieces[COALESCE_PACKETS + 1];
    const struct coalesce_item *item = &e->coalescer.items[index];

    if (!e->singly) {
        int error = e->host->write(e->host, pieces, coalesce_pieces(&e->coalescer, index, pieces));
        if (outcome(error) != RING_OK)
            return outcome(error);
        if (error != -EINVAL || item->packets == 1) {
            uint64_t bytes = item->size + (uint64_t)(item->packets - 1) * item->headers;
            count(&e->to_host_counters, error, item->packets, bytes);
            e->to_host_counters.large += item->packets > 1 && !error;
            return RING_OK;
        }
        e->singly = true;
        e->single_failed = false;
        e->single = item->first;
    }
    return write_singly(e, item);
}

/* Write the items from where it stopped. RING_OK: all of them, and they are forgotten; else what is left
 * waits, in the coalescer's order. */
static enum ring_status write_items(struct engine *e)
{
    for (; e->item < e->coalescer.item_count; e->item++) {
        enum ring_status status = write_item(e, e->item);
        if (status != RING_OK)
            return status;
    }
    coalesce_reset(&e->coalescer);
    e->coalescer.kinds = __atomic_load_n(&e->host->coalesces, __ATOMIC_RELAXED);
    e->item = 0;
    return RING_OK;
}

static enum ring_status write_merged(struct engine *e, unsigned budget)
{
    enum ring_status status = RING_OK;
    do {
        if (!e->coalescer.packet_count)
            status = take_packets(e, &budget);
        enum ring_status written = write_items(e);
        if (written != RING_OK)
            return written;
        ring_release(&e->to_host, e->to_host.next);
    } while (status == RING_OK && budget);
    return status;
}

/* ---- the step ------------------------------------------------------------------------------- */

enum engine_result engine_step_to_host(struct engine *e, unsigned budget, unsigned *moved)
{
    struct engine *outside = guard_enter(e);
    pthread_mutex_lock(&e->to_host_lock);
    if (e->end != ENGINE_RUNNING) {
        pthread_mutex_unlock(&e->to_host_lock);
        guard_leave(outside);
        *moved = 0;
        return ENGINE_OVER;
    }
    uint64_t before = e->to_host_counters.packets;
    enum ring_status status = merges(e) ? write_merged(e, budget) : write_packets(e, budget);
    *moved = (unsigned)(e->to_host_counters.packets - before);
    pthread_mutex_unlock(&e->to_host_lock);
    guard_leave(outside);
    return engine_step_ended(e, status);
}

bool engine_client_waits_for_room(struct engine *e)
{
    return e->to_host_space && ring_producer_waits(e->to_host_space);
}

/* ---- past the ring -------------------------------------------------------------------------- */

/* The packets of items that were not written, in their order, from 0 for the first that was added. */
static uint32_t list_unwritten(struct engine *e, uint32_t *numbers)
{
    uint32_t left = 0;
    for (uint32_t i = e->item; i < e->coalescer.item_count; i++) {
        bool begun = i == e->item && e->singly;
        uint32_t packet = begun ? e->single : e->coalescer.items[i].first;
        for (; packet != COALESCE_NONE; packet = e->coalescer.packets[packet].next)
            numbers[left++] = packet;
    }
    coalesce_reset(&e->coalescer);
    e->item = 0;
    e->singly = false;
    return left;
}

/* As many as the coalescer holds; returns how many of them are left. */
static uint32_t forward_merged(struct engine *e, const struct iovec *packets, uint32_t count,
                               uint32_t *numbers)
{
    uint32_t taken[COALESCE_PACKETS]; /* packets that are IP: their numbers */
    for (uint32_t i = 0; i < count; i++) {
        if (packet_is_ip(packets[i].iov_base, packets[i].iov_len)) {
            taken[e->coalescer.packet_count] = i;
            coalesce_add(&e->coalescer, packets[i].iov_base, (uint32_t)packets[i].iov_len);
        } else {
            e->to_host_counters.not_ip++;
        }
    }
    if (write_items(e) == RING_OK)
        return 0;
    uint32_t left = list_unwritten(e, numbers);
    for (uint32_t i = 0; i < left; i++)
        numbers[i] = taken[numbers[i]];
    return left;
}

static uint32_t forward(struct engine *e, const struct iovec *packets, uint32_t count,
                        uint32_t *numbers)
{
    uint32_t left = 0, done = 0;
    while (done < count && !left) {
        uint32_t part = 1;
        if (merges(e)) {
            part = count - done < COALESCE_PACKETS ? count - done : COALESCE_PACKETS;
            left = forward_merged(e, packets + done, part, numbers);
        } else if (outcome(write_one(e, packets[done].iov_base, (uint32_t)packets[done].iov_len)) !=
                   RING_OK) {
            numbers[0] = 0;
            left = 1;
        }
        for (uint32_t i = 0; i < left; i++)
            numbers[i] += done;
        done += part;
    }
    while (done < count)
        numbers[left++] = done++;
    return left;
}

bool engine_forward(struct engine *e, const struct iovec *packets, uint32_t count, uint32_t *numbers,
                    uint32_t *left)
{
    pthread_mutex_lock(&e->to_host_lock);
    bool first = e->end == ENGINE_RUNNING && !e->coalescer.packet_count && !ring_content(&e->to_host) &&
                 ring_refresh_tail(&e->to_host) == RING_EMPTY;
    if (first)
        *left = forward(e, packets, count, numbers);
    pthread_mutex_unlock(&e->to_host_lock);
    return first;
}
