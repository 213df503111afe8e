/* An engine's beginning and end, and what is asked of it from outside. */
#include "engine.h"

#include <errno.h>

#include "event.h"
#include "guard.h"

enum { UDP_SEGMENTS = 64 }; /* that every kernel with UDP offload takes in a write */

int engine_init(struct engine *e, struct host *host, const struct engine_offer *offer)
{
    e->host = host;
    e->options = offer->options;
    e->send_event = offer->send_event;
    e->receive_event = offer->receive_event;
    e->to_client_space = offer->to_client_space;
    e->to_host_space = offer->to_host_space;
    e->spin_ns = offer->spin_ns;
    e->foreign = offer->foreign;
    e->stop_event = -1;
    coalesce_init(&e->coalescer, host->coalesces, !(e->options & ENGINE_TRUSTED), UDP_SEGMENTS);
    if (ring_producer_init(&e->to_client, offer->to_client, offer->to_client_capacity) != RING_OK ||
        ring_consumer_init(&e->to_host, offer->to_host, offer->to_host_capacity) != RING_OK)
        return EINVAL;
    int error = pthread_mutex_init(&e->to_client_lock, NULL);
    return error ? error : pthread_mutex_init(&e->to_host_lock, NULL);
}

enum engine_result engine_step_ended(struct engine *e, enum ring_status status)
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

void engine_end(struct engine *e, enum engine_end reason)
{
    struct engine *outside = guard_enter(e);
    pthread_mutex_lock(&e->to_client_lock);
    pthread_mutex_lock(&e->to_host_lock);
    if (e->end == ENGINE_RUNNING) {
        __atomic_store_n(&e->end, reason, __ATOMIC_RELAXED);
        ring_producer_end(&e->to_client);
        ring_consumer_end(&e->to_host);
        if (e->stop_event >= 0) {
            event_signal(e->stop_event);
        } else if (!e->foreign) { /* whose threads did not start: nobody waits, and it might block us */
            event_signal(e->send_event);
            if (e->to_host_space)
                event_signal(e->to_host_space->event);
        }
    }
    pthread_mutex_unlock(&e->to_host_lock);
    pthread_mutex_unlock(&e->to_client_lock);
    guard_leave(outside);
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
