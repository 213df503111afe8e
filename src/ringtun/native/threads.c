/* The engine's own threads, one a direction: they run the step, and wait when it has nothing to do.
 * Every wait ends with the session too: stop_event is never cleared. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <time.h>

#include "engine.h"
#include "event.h"
#include "guard.h"

enum {
    BATCH = 256, /* packets a step: one publish and one signal */
    /* Without space events, how often a full ring is looked at again; doubled up to the limit. */
    FIRST_LOOK_NS = 100 * 1000,
    LAST_LOOK_NS = 16 * 1000 * 1000,
    /* A client without the fence may store Tail, miss Alertable, and not signal. Its store is seen
     * within microseconds, so one more look is enough. Who knows of space has the fence. */
    ONE_MORE_LOOK_NS = 2 * 1000 * 1000,
    FOREVER = -1,
};

/* Raised by what the thread itself does: they cannot wait. */
static const int FAULTS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

/* Waits for one descriptor or the session's end, at most timeout_ns. Returns whether time ran out. */
static bool wait_for(struct engine *e, int fd, short events, long timeout_ns)
{
    struct pollfd fds[] = {
        {.fd = fd, .events = events},
        {.fd = e->stop_event, .events = POLLIN},
        {.fd = e->host->fd}, /* an adapter that is gone is in error, whatever else is awaited */
    };
    struct timespec timeout = {.tv_nsec = timeout_ns};
    int ready = ppoll(fds, 3, timeout_ns < 0 ? NULL : &timeout, NULL);
    __atomic_fetch_add(&e->wakeups, 1, __ATOMIC_RELAXED);
    if (ready > 0 && fds[2].revents & (POLLERR | POLLHUP | POLLNVAL))
        engine_end(e, ENGINE_REMOVED);
    return ready == 0;
}

/* A foreign event may block: then engine_stop's signal ends the call, and the session is over anyway. */
static void signal_client(const struct engine *e, int event)
{
    const uint64_t one = 1;
    while (write(event, &one, sizeof one) < 0 && errno == EINTR &&
           __atomic_load_n(&e->end, __ATOMIC_RELAXED) == ENGINE_RUNNING)
        ;
}

static void wait_for_client_room(struct engine *e, long *look_ns)
{
    struct ring_space *space = e->to_client_space;
    if (!space) {
        wait_for(e, -1, 0, *look_ns);
        *look_ns = *look_ns * 2 < LAST_LOOK_NS ? *look_ns * 2 : LAST_LOOK_NS;
        return;
    }
    pthread_mutex_lock(&e->to_client_lock);
    bool wait = ring_arm_space(&e->to_client, space);
    pthread_mutex_unlock(&e->to_client_lock);
    if (wait)
        wait_for(e, space->event, POLLIN, FOREVER);
    ring_disarm_space(space);
    event_clear(space->event);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

typedef enum engine_result step_function(struct engine *e, unsigned budget, unsigned *moved);

/* After a step that left nothing to do: look again for as long as the engine may spin. */
static enum engine_result spin(struct engine *e, step_function *step, unsigned budget, unsigned *moved)
{
    const uint64_t until = now_ns() + e->spin_ns;
    enum engine_result result;
    do
        result = step(e, budget, moved);
    while (result == ENGINE_IDLE && !*moved && now_ns() < until);
    return result;
}

static void check_torn(struct engine *e)
{
    if (__atomic_load_n(&e->torn, __ATOMIC_RELAXED))
        engine_end(e, ENGINE_CORRUPT);
}

static void *run_to_client(void *argument)
{
    struct engine *e = argument;
    long look_ns = FIRST_LOOK_NS;
    unsigned moved, budget = BATCH;
    bool waited = true, active = false; /* active: packets moved, and it may spin */
    guard_enter(e);
    for (;;) {
        enum engine_result result = active ? spin(e, engine_step_to_client, budget, &moved)
                                           : engine_step_to_client(e, budget, &moved);
        active = moved && e->spin_ns;
        if (moved || result == ENGINE_OVER)
            signal_client(e, e->send_event);
        if (result == ENGINE_OVER)
            return NULL;
        if (moved) {
            look_ns = FIRST_LOOK_NS;
            /* Where packets come one at a time, the next is shown before the look for more. */
            budget = moved == 1 && waited ? 1 : BATCH;
        }
        waited = result != ENGINE_MORE;
        check_torn(e);
        if (result == ENGINE_IDLE && !active)
            wait_for(e, e->host->fd, POLLIN, FOREVER);
        else if (result == ENGINE_BLOCKED)
            wait_for_client_room(e, &look_ns);
    }
}

/* The ring was empty: wait until the client has put something in. */
static void wait_for_client(struct engine *e)
{
    pthread_mutex_lock(&e->to_host_lock);
    bool empty = ring_arm(&e->to_host) == RING_EMPTY;
    pthread_mutex_unlock(&e->to_host_lock);
    if (empty && e->to_host_space) {
        wait_for(e, e->receive_event, POLLIN, FOREVER);
    } else if (empty && wait_for(e, e->receive_event, POLLIN, ONE_MORE_LOOK_NS)) {
        pthread_mutex_lock(&e->to_host_lock);
        empty = ring_refresh_tail(&e->to_host) == RING_EMPTY;
        pthread_mutex_unlock(&e->to_host_lock);
        if (empty)
            wait_for(e, e->receive_event, POLLIN, FOREVER);
    }
    ring_disarm(&e->to_host);
    event_clear(e->receive_event);
}

static void *run_to_host(void *argument)
{
    struct engine *e = argument;
    bool active = false;
    guard_enter(e);
    for (;;) {
        unsigned moved;
        enum engine_result result = active ? spin(e, engine_step_to_host, BATCH, &moved)
                                           : engine_step_to_host(e, BATCH, &moved);
        active = moved && e->spin_ns;
        if (e->to_host_space && (result == ENGINE_OVER || engine_client_waits_for_room(e)))
            signal_client(e, e->to_host_space->event);
        if (result == ENGINE_OVER)
            return NULL;
        check_torn(e);
        if (result == ENGINE_IDLE && !active)
            wait_for_client(e);
        else if (result == ENGINE_BLOCKED)
            wait_for(e, e->host->fd, POLLOUT, FOREVER);
    }
}

int engine_start_threads(struct engine *e, int stop_event)
{
    sigset_t all, before;
    e->stop_event = stop_event;
    sigfillset(&all);
    for (size_t i = 0; i < sizeof FAULTS / sizeof *FAULTS; i++)
        sigdelset(&all, FAULTS[i]);
    if (e->foreign)
        sigdelset(&all, guard_signal());
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the program's own threads */
    int error = pthread_create(&e->threads[0], NULL, run_to_client, e);
    if (!error) {
        error = pthread_create(&e->threads[1], NULL, run_to_host, e);
        if (error) {
            engine_end(e, ENGINE_CLOSED);
            pthread_join(e->threads[0], NULL);
        }
    }
    if (error)
        e->stop_event = -1;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

/* A thread may be stuck in a foreign event, or be about to: it is freed until it has ended. */
static void join(const struct engine *e, pthread_t thread)
{
    const struct timespec patience = {.tv_nsec = 1000 * 1000};
    while (e->foreign && pthread_tryjoin_np(thread, NULL) == EBUSY) {
        pthread_kill(thread, guard_signal());
        nanosleep(&patience, NULL);
    }
    if (!e->foreign)
        pthread_join(thread, NULL);
}

void engine_stop(struct engine *e)
{
    engine_end(e, ENGINE_CLOSED);
    if (e->stop_event < 0)
        return;
    for (int i = 0; i < 2; i++)
        join(e, e->threads[i]);
    e->stop_event = -1;
}
