#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "event.h"
#include "host.h"
#include "ring.h"

struct link {
    struct ring_producer producer;
    struct ring_consumer consumer;
    int event;
    uint32_t signalled; /* the event is set, or about to be: it is while packets are queued */
    uint32_t connected;
    uint64_t dropped;
    struct tun_ring *ring;
};

struct link *link_create(uint32_t capacity, int event)
{
    struct link *link = malloc(sizeof *link);
    struct tun_ring *ring = calloc(1, tun_ring_size(capacity));
    if (!link || !ring) {
        free(link);
        free(ring);
        return NULL;
    }
    *link = (struct link){.event = event, .ring = ring};
    ring_producer_init(&link->producer, ring, capacity);
    ring_consumer_init(&link->consumer, ring, capacity);
    return link;
}

void link_destroy(struct link *link)
{
    if (link)
        free(link->ring);
    free(link);
}

uint64_t link_connect(struct link *link)
{
    struct ring_view view;
    uint64_t drained = 0;
    while (ring_peek(&link->consumer, &view) == RING_OK) {
        ring_release(&link->consumer, view.end);
        drained++;
    }
    __atomic_store_n(&link->connected, 1, __ATOMIC_RELEASE);
    return drained;
}

void link_disconnect(struct link *link)
{
    __atomic_store_n(&link->connected, 0, __ATOMIC_RELEASE);
}

uint64_t link_dropped(const struct link *link)
{
    return __atomic_load_n(&link->dropped, __ATOMIC_RELAXED);
}

static void copy_to_pieces(const struct ring_view *view, const struct iovec *pieces, int count)
{
    size_t done = 0;
    for (int i = 0; i < count && done < view->size; i++) {
        size_t part = view->size - done < pieces[i].iov_len ? view->size - done : pieces[i].iov_len;
        memcpy(pieces[i].iov_base, view->data + done, part);
        done += part;
    }
}

static void signal_once(struct link *link)
{
    if (!__atomic_exchange_n(&link->signalled, 1, __ATOMIC_SEQ_CST))
        event_signal(link->event);
}

static ssize_t link_read(struct host *host, const struct iovec *pieces, int count)
{
    struct link *link = ((struct link_host *)host)->in;
    struct ring_view view;
    if (ring_peek(&link->consumer, &view) != RING_OK) {
        /* Clear the event before the last look: it is set again for all that comes after. */
        event_clear(link->event);
        __atomic_store_n(&link->signalled, 0, __ATOMIC_SEQ_CST);
        ring_full_fence();
        if (ring_peek(&link->consumer, &view) != RING_OK)
            return -EAGAIN;
        signal_once(link);
    }
    copy_to_pieces(&view, pieces, count);
    ring_release(&link->consumer, view.end);
    return view.size;
}

static int link_write(struct host *host, const void *packet, size_t size)
{
    struct link *link = ((struct link_host *)host)->out;
    uint8_t *slot;
    if (!__atomic_load_n(&link->connected, __ATOMIC_ACQUIRE) ||
        ring_reserve(&link->producer, size, &slot) != RING_OK) {
        __atomic_fetch_add(&link->dropped, 1, __ATOMIC_RELAXED);
        return 0;
    }
    memcpy(slot, packet, size);
    ring_commit(&link->producer, size);
    ring_submit(&link->producer);
    ring_full_fence();
    signal_once(link);
    return 0;
}

void host_init_link(struct link_host *host, struct link *in, struct link *out)
{
    *host = (struct link_host){
        .host = {.read = link_read, .write = link_write, .fd = in->event},
        .in = in,
        .out = out,
    };
}
