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

#include "coalesce.h"
#include "host.h"
#include "segment.h"
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

/* What a client asked for before it registered. */
enum engine_options {
    /* Its packets have a struct vnet_header before them in the ring, both ways, and may be large. */
    ENGINE_WHOLE = 1,
    /* Its packets are authenticated: their checksums are not looked at before they are merged. */
    ENGINE_TRUSTED = 2,
};

struct engine_counters {
    uint64_t packets;
    uint64_t bytes;
    uint64_t large;        /* reads or writes of the host's that moved several of these packets */
    uint64_t invalid_head; /* to_client: the client's Head was no offset; the packet was dropped */
    uint64_t too_big;      /* to_client: over TUN_PACKET_MAX_SIZE */
    uint64_t not_ip;       /* either way: neither IPv4 nor IPv6 */
    uint64_t malformed;    /* either way: a vnet_header that does not fit its packet */
    uint64_t host_down;    /* to_host: the interface was down */
    uint64_t refused;      /* to_host: the host would not have it */
    uint64_t no_memory;    /* to_host: the host was short of memory */
};

struct engine {
    struct host *host;
    uint32_t options; /* enum engine_options */

    pthread_mutex_t to_client_lock;
    struct ring_producer to_client;
    struct ring_space *to_client_space; /* NULL: the client tells nobody when it releases */
    int send_event;
    struct engine_counters to_client_counters;
    /* What was read and has not found room yet: a packet of so many bytes (0: none), or, where large
     * packets are split, what the segmenter has not written yet. */
    uint32_t pending_size;
    struct segmenter segmenter;
    uint8_t pending[VNET_HEADER_SIZE + TUN_PACKET_MAX_SIZE + 1];

    pthread_mutex_t to_host_lock;
    struct ring_consumer to_host;
    struct ring_space *to_host_space; /* NULL: nobody waits for room */
    int receive_event;
    struct engine_counters to_host_counters;
    /* Where packets are merged: the item to be written next, and, of one that the host refused as a
     * whole, the packet to be written next by itself. */
    uint32_t item, single;
    bool singly, single_failed;
    struct coalescer coalescer;

    enum engine_end end; /* written with both locks held */

    uint64_t spin_ns;
    bool foreign;   /* the client is another process, and may do anything: see guard.h */
    bool torn;      /* memory of its rings was not there */
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
    uint32_t options; /* ENGINE_WHOLE only with a host that has vnet headers */
    /* How long a thread that has just moved packets looks for more before it waits; 0: not at all. */
    uint64_t spin_ns;
    /* The client is another process: its events may block who signals them, and its memory may go. They
     * are touched by the engine's own threads alone, which have to be started; guard_install first. */
    bool foreign;
};
/* `engine` is zeroed memory. Returns 0 or an errno: EINVAL where an index that is the driver's own is
 * no offset. */
int engine_init(struct engine *engine, struct host *host, const struct engine_offer *offer);

/* One step: at most `budget` packets, published together. *moved: how many. A large packet comes whole,
 * so that a step to the client stops before one that may not fit, and takes one at least. */
enum engine_result engine_step_to_client(struct engine *engine, unsigned budget, unsigned *moved);
enum engine_result engine_step_to_host(struct engine *engine, unsigned budget, unsigned *moved);

/* For a client that runs the steps itself: waits until the host has something, the session ends or
 * `stop` is readable, at most timeout_ns (negative: without limit), then does a step to the client.
 * Returns 0, with the step's result, or an errno: ETIMEDOUT, EINTR for a signal. */
int engine_wait_to_client(struct engine *engine, int stop, int64_t timeout_ns, unsigned budget,
                          enum engine_result *result);

/* To the host without a way through the to_host ring: `count` packets, as they would lie in it, whose
 * memory stays as long as this takes. False, and nothing done: what is in the ring has to go first.
 * True: *left packets were not taken, because the host is busy or gone; their numbers stand in
 * `numbers`, which has room for `count`, in the order in which they are to go into the ring. */
bool engine_forward(struct engine *engine, const struct iovec *packets, uint32_t count,
                    uint32_t *numbers, uint32_t *left);

/* Whether the client waits for room in the to_host ring, and is to be told after a step. */
bool engine_client_waits_for_room(struct engine *engine);

/* What a step says, by how its last packet fared; without a lock, for the two files of the steps. */
enum engine_result engine_step_ended(struct engine *engine, enum ring_status status);

/* Ends the session for both sides: both rings are poisoned, and whoever waits is woken; by the threads,
 * where there are some. The first reason stays. */
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
