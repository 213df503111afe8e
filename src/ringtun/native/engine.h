/* The driver's engine: moves packets between an adapter's host and the rings of one registration.
 *
 * It knows the client by the memory and events of its offer alone. There is one step a direction; it
 * moves a batch and never waits. The step is run either by the client's own calls (inline), or by
 * the engine's two threads. Each direction has a lock, so that a step, the end of the session and a
 * look at the counters may come from any thread.
 */
#ifndef RINGTUN_ENGINE_H
#define RINGTUN_ENGINE_H

#include <pthread.h>

#include "host.h"
#include "space.h"

enum engine_result {
    ENGINE_MORE,    /* the budget is spent: there may be more */
    ENGINE_IDLE,    /* nothing more where the packets come from */
    ENGINE_BLOCKED, /* no room where they go: nothing is lost, the packet waits */
    ENGINE_OVER,    /* the session has ended: see engine_end_reason */
};

enum engine_end {
    ENGINE_RUNNING,
    ENGINE_CLOSED,   /* engine_end was called: the handle closed, or the driver stops */
    ENGINE_REMOVED,  /* the adapter is gone, or its descriptor failed */
    ENGINE_CORRUPT,  /* the client broke the contract in its to_host ring */
};

struct engine_counters {
    uint64_t packets;
    uint64_t bytes;
    uint64_t invalid_head; /* to_client: the client's Head was no offset; the packet was dropped */
    uint64_t too_big;      /* to_client: over TUN_PACKET_MAX_SIZE */
    uint64_t not_ip;       /* either way: neither IPv4 nor IPv6 */
    uint64_t host_down;    /* to_host: the interface was down */
    uint64_t refused;      /* to_host: the host would not have it */
    uint64_t no_memory;    /* to_host: the host was short of memory */
};

struct engine {
    struct host *host;

    pthread_mutex_t to_client_lock;
    struct ring_producer to_client;
    struct ring_space *to_client_space; /* NULL: the client tells nobody when it releases */
    int send_event;
    uint32_t pending_size; /* a packet that was read and has not found room yet; 0: none */
    uint8_t pending[TUN_PACKET_MAX_SIZE + 1];
    struct engine_counters to_client_counters;

    pthread_mutex_t to_host_lock;
    struct ring_consumer to_host;
    struct ring_space *to_host_space; /* NULL: nobody waits for room */
    int receive_event;
    struct engine_counters to_host_counters;

    enum engine_end end; /* written with both locks held */

    int stop_event; /* -1: no threads */
    pthread_t threads[2];
    uint64_t wakeups; /* of both threads, from any wait */
};

/* Everything is borrowed: host, memory and events outlive the engine. */
struct engine_offer {
    struct tun_ring *to_client, *to_host;
    uint32_t to_client_capacity, to_host_capacity;
    int send_event, receive_event;
    struct ring_space *to_client_space, *to_host_space;
};
/* Returns 0 or an errno: EINVAL where an index that is the driver's own is no offset. */
int engine_init(struct engine *engine, struct host *host, const struct engine_offer *offer);

/* One step: at most `budget` packets, published together. *moved: how many. */
enum engine_result engine_step_to_client(struct engine *engine, unsigned budget, unsigned *moved);
enum engine_result engine_step_to_host(struct engine *engine, unsigned budget, unsigned *moved);

/* Ends the session for both sides: both rings are poisoned, and whoever waits is woken. The first
 * reason stays. */
void engine_end(struct engine *engine, enum engine_end reason);
enum engine_end engine_end_reason(struct engine *engine);

void engine_read_counters(struct engine *engine, struct engine_counters *to_client,
                          struct engine_counters *to_host);
uint64_t engine_wakeups(const struct engine *engine);

/* Runs both steps by threads of the engine's own until the session ends. Returns 0 or an errno. */
int engine_start_threads(struct engine *engine, int stop_event);
/* Ends the session, if need be, and waits for the threads. The host, the memory and the events are
 * not touched any more; a late step only learns that the session is over. */
void engine_stop(struct engine *engine);
/* After engine_stop, once nobody can call a step any more. */
void engine_destroy(struct engine *engine);

#endif
