#include "guard.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine.h"

static _Thread_local struct engine *touched;
static long page_size;
static struct sigaction bus_before;

struct engine *guard_enter(struct engine *engine)
{
    struct engine *before = touched;
    touched = engine;
    return before;
}

void guard_leave(struct engine *before)
{
    touched = before;
}

static bool lies_in(const uint8_t *address, const struct tun_ring *ring, uint32_t capacity)
{
    const uint8_t *start = (const uint8_t *)ring;
    return address >= start && address < start + tun_ring_size(capacity);
}

/* Lay a page of our own over the one that is not there, and go on. */
static void on_bus_error(int number, siginfo_t *info, void *context)
{
    struct engine *e = touched;
    uint8_t *address = info->si_addr;
    (void)context;
    if (e && (lies_in(address, e->to_client.ring, e->to_client.capacity) ||
              lies_in(address, e->to_host.ring, e->to_host.capacity))) {
        void *page = address - (uintptr_t)address % (uintptr_t)page_size;
        if (mmap(page, (size_t)page_size, PROT_READ | PROT_WRITE,
                 MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == page) {
            __atomic_store_n(&e->torn, true, __ATOMIC_RELAXED);
            return;
        }
    }
    sigaction(number, &bus_before, NULL); /* nothing of ours: as if we were not there */
}

static void on_interrupt(int number)
{
    (void)number; /* that it came is all */
}

int guard_signal(void)
{
    return SIGRTMIN;
}

int guard_install(void)
{
    struct sigaction bus = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    struct sigaction interrupt = {.sa_handler = on_interrupt}; /* no SA_RESTART: calls end with EINTR */
    page_size = sysconf(_SC_PAGESIZE);
    sigemptyset(&bus.sa_mask);
    sigemptyset(&interrupt.sa_mask);
    if (sigaction(guard_signal(), &interrupt, NULL) || sigaction(SIGBUS, &bus, &bus_before))
        return errno;
    return 0;
}
