#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>

#include "event.h"
#include "host.h"
#include "pieces.h"
#include "ring.h"

struct link {
    struct ring_producer producer;
    struct ring_consumer consumer;
    int event;
    int ready;          /* an epoll of the event, and of the impaired queue's timer */
    uint32_t signalled; /* the event is set, or about to be: it is while packets are queued */
    uint32_t connected;
    uint32_t down; /* the interface of the reading end is */
    struct link_counters counters; /* of the link itself; each is written by one side alone */
    struct tun_ring *ring;
    struct impaired *impaired; /* NULL: a perfect link. Once it is there, it stays. */
};

/* What a link has instead of its ring once it is impaired. */
struct impaired {
    pthread_mutex_t lock; /* over the queue and the timer */
    struct impaired_queue *queue;
    int timer;
    uint64_t armed; /* for when */
};

static void impaired_free(struct impaired *impaired)
{
    if (!impaired)
        return;
    impaired_destroy(impaired->queue);
    if (impaired->timer >= 0)
        close(impaired->timer);
    pthread_mutex_destroy(&impaired->lock);
    free(impaired);
}

static int watch(struct link *link, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    return epoll_ctl(link->ready, EPOLL_CTL_ADD, fd, &event);
}

struct link *link_create(uint32_t capacity)
{
    struct link *link = malloc(sizeof *link);
    if (!link)
        return NULL;
    *link = (struct link){
        .event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
        .ready = epoll_create1(EPOLL_CLOEXEC),
        .ring = calloc(1, tun_ring_size(capacity)),
    };
    if (link->event < 0 || link->ready < 0 || !link->ring || watch(link, link->event) < 0) {
        int error = errno;
        link_destroy(link);
        errno = error;
        return NULL;
    }
    ring_producer_init(&link->producer, link->ring, capacity);
    ring_consumer_init(&link->consumer, link->ring, capacity);
    return link;
}

void link_destroy(struct link *link)
{
    if (!link)
        return;
    impaired_free(link->impaired);
    if (link->ready >= 0)
        close(link->ready);
    if (link->event >= 0)
        close(link->event);
    free(link->ring);
    free(link);
}

/* Ensure that a reader which does not see the impairment after it cleared the event is woken by the
 * writer that does. */
static struct impaired *impaired_of(const struct link *link)
{
    return __atomic_load_n(&link->impaired, __ATOMIC_SEQ_CST);
}

static void count_up(uint64_t *counter, uint64_t more)
{
    __atomic_store_n(counter, *counter + more, __ATOMIC_RELAXED);
}

/* ---- signals --------------------------------------------------------------------------------- */

static void signal_once(struct link *link)
{
    if (!__atomic_exchange_n(&link->signalled, 1, __ATOMIC_SEQ_CST))
        event_signal(link->event);
}

/* Before the last look: it is set again for all that comes after. */
static void clear_signal(struct link *link)
{
    event_clear(link->event);
    __atomic_store_n(&link->signalled, 0, __ATOMIC_SEQ_CST);
    ring_full_fence();
}

static uint64_t time_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Also makes a timer that has run out unreadable. */
static void arm(struct impaired *impaired, uint64_t due)
{
    struct itimerspec when = {0};
    if (due == impaired->armed)
        return;
    impaired->armed = due;
    if (due != IMPAIRMENT_NEVER) {
        when.it_value.tv_sec = (time_t)(due / 1000000000u);
        when.it_value.tv_nsec = (long)(due % 1000000000u);
    }
    timerfd_settime(impaired->timer, TFD_TIMER_ABSTIME, &when, NULL);
}

/* ---- reading --------------------------------------------------------------------------------- */

static ssize_t read_ring(struct link *link, const struct iovec *pieces, int pieces_count)
{
    struct ring_view view;
    if (ring_peek(&link->consumer, &view) != RING_OK)
        return -EAGAIN;
    copy_to_pieces(view.data, view.size, pieces, pieces_count);
    ring_release(&link->consumer, view.end);
    count_up(&link->counters.passed, 1);
    return view.size;
}

static ssize_t read_perfect(struct link *link, const struct iovec *pieces, int pieces_count)
{
    ssize_t size = read_ring(link, pieces, pieces_count);
    if (size != -EAGAIN)
        return size;
    clear_signal(link);
    size = read_ring(link, pieces, pieces_count);
    if (size != -EAGAIN)
        signal_once(link);
    return size;
}

/* What the ring still holds was written before the impairment, and is read before it. */
static ssize_t read_either(struct link *link, struct impaired *impaired,
                           const struct iovec *pieces, int pieces_count)
{
    ssize_t size = read_ring(link, pieces, pieces_count);
    if (size != -EAGAIN)
        return size;
    size = impaired_take(impaired->queue, time_now(), pieces, pieces_count);
    if (size != -EAGAIN)
        count_up(&link->counters.passed, 1);
    return size;
}

static ssize_t read_impaired(struct link *link, struct impaired *impaired,
                             const struct iovec *pieces, int pieces_count)
{
    pthread_mutex_lock(&impaired->lock);
    ssize_t size = read_either(link, impaired, pieces, pieces_count);
    if (size == -EAGAIN) {
        clear_signal(link);
        /* A writer that does not know of the impairment yet does not wait for the lock. */
        size = read_either(link, impaired, pieces, pieces_count);
        if (size != -EAGAIN)
            signal_once(link);
        arm(impaired, impaired_due(impaired->queue));
    }
    pthread_mutex_unlock(&impaired->lock);
    return size;
}

static ssize_t link_read(struct host *host, const struct iovec *pieces, int pieces_count)
{
    struct link *link = ((struct link_host *)host)->in;
    struct impaired *impaired = impaired_of(link);
    if (!impaired) {
        ssize_t size = read_perfect(link, pieces, pieces_count);
        if (size != -EAGAIN)
            return size;
        impaired = impaired_of(link); /* its writer's signal may be the one that was cleared */
        if (!impaired)
            return -EAGAIN;
    }
    return read_impaired(link, impaired, pieces, pieces_count);
}

/* ---- writing --------------------------------------------------------------------------------- */

static void write_impaired(struct link *link, struct impaired *impaired, const void *packet,
                           uint32_t size)
{
    pthread_mutex_lock(&impaired->lock);
    uint64_t now = time_now();
    impaired_put(impaired->queue, packet, size, now);
    uint64_t due = impaired_due(impaired->queue);
    if (due <= now)
        signal_once(link);
    else if (due < impaired->armed)
        arm(impaired, due);
    pthread_mutex_unlock(&impaired->lock);
}

static int link_write(struct host *host, const struct iovec *pieces, int count)
{
    struct link *link = ((struct link_host *)host)->out;
    const uint8_t *packet = pieces->iov_base; /* without vnet headers it is one piece */
    uint32_t size = (uint32_t)pieces->iov_len;
    uint8_t *slot;
    (void)count;
    if (__atomic_load_n(&((struct link_host *)host)->down, __ATOMIC_RELAXED))
        return -EIO;
    if (!__atomic_load_n(&link->connected, __ATOMIC_ACQUIRE) ||
        __atomic_load_n(&link->down, __ATOMIC_RELAXED)) {
        count_up(&link->counters.unplugged, 1);
        return 0;
    }
    struct impaired *impaired = impaired_of(link);
    if (impaired) {
        write_impaired(link, impaired, packet, size);
        return 0;
    }
    if (ring_reserve(&link->producer, size, &slot) != RING_OK) {
        count_up(&link->counters.overflowed, 1);
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
        .host = {.read = link_read, .write = link_write, .fd = in->ready},
        .in = in,
        .out = out,
    };
}

void link_host_set_up(struct link_host *host, bool up)
{
    __atomic_store_n(&host->down, !up, __ATOMIC_RELAXED);
    __atomic_store_n(&host->in->down, !up, __ATOMIC_RELAXED);
}

/* ---- control --------------------------------------------------------------------------------- */

uint64_t link_connect(struct link *link)
{
    struct ring_view view;
    struct impaired *impaired = impaired_of(link);
    uint64_t drained = 0;
    while (ring_peek(&link->consumer, &view) == RING_OK) {
        ring_release(&link->consumer, view.end);
        drained++;
    }
    if (impaired) {
        pthread_mutex_lock(&impaired->lock);
        drained += impaired_drain(impaired->queue);
        arm(impaired, IMPAIRMENT_NEVER);
        pthread_mutex_unlock(&impaired->lock);
    }
    count_up(&link->counters.drained, drained);
    __atomic_store_n(&link->connected, 1, __ATOMIC_RELEASE);
    return drained;
}

void link_disconnect(struct link *link)
{
    __atomic_store_n(&link->connected, 0, __ATOMIC_RELEASE);
}

static struct impaired *impaired_new(struct link *link)
{
    struct impaired *impaired = malloc(sizeof *impaired);
    if (!impaired)
        return NULL;
    *impaired = (struct impaired){
        .queue = impaired_create(),
        .timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK),
        .armed = IMPAIRMENT_NEVER,
    };
    pthread_mutex_init(&impaired->lock, NULL);
    if (!impaired->queue || impaired->timer < 0 || watch(link, impaired->timer) < 0) {
        int error = errno;
        impaired_free(impaired);
        errno = error;
        return NULL;
    }
    return impaired;
}

int link_impair(struct link *link, const struct impairment *impairment)
{
    struct impaired *impaired = impaired_of(link);
    if (!impaired) {
        impaired = impaired_new(link);
        if (!impaired)
            return errno;
        impaired_set(impaired->queue, impairment);
        __atomic_store_n(&link->impaired, impaired, __ATOMIC_SEQ_CST);
        return 0;
    }
    pthread_mutex_lock(&impaired->lock);
    impaired_set(impaired->queue, impairment);
    pthread_mutex_unlock(&impaired->lock);
    return 0;
}

void link_read_counters(const struct link *link, struct link_counters *counters)
{
    struct impaired *impaired = impaired_of(link);
    *counters = (struct link_counters){
        .passed = __atomic_load_n(&link->counters.passed, __ATOMIC_RELAXED),
        .overflowed = __atomic_load_n(&link->counters.overflowed, __ATOMIC_RELAXED),
        .unplugged = __atomic_load_n(&link->counters.unplugged, __ATOMIC_RELAXED),
        .drained = __atomic_load_n(&link->counters.drained, __ATOMIC_RELAXED),
    };
    if (!impaired)
        return;
    pthread_mutex_lock(&impaired->lock);
    counters->impaired = *impaired_counters(impaired->queue);
    pthread_mutex_unlock(&impaired->lock);
}

uint64_t link_dropped(const struct link *link)
{
    struct link_counters counters;
    link_read_counters(link, &counters);
    return counters.unplugged + counters.overflowed + counters.impaired.overflowed;
}
