/* Workload R: a C loop at one end of a ring, or at both.
 *
 *     ring_peer produce|consume --capacity C --size S --packets N --batch B
 *               --memfd FD [--event FD]
 *     ring_peer both            --capacity C --size S --packets N --batch B
 *
 * produce, consume: the peer of the process that started it, over a ring in a memfd inherited from
 * there. Each byte on stdin starts a run of N packets, timed from that byte; the end of stdin ends
 * the program. both: two threads on two CPUs over a ring of its own, one run: the baseline.
 *
 * A producer copies S bytes into each packet, submits every B packets, and sets the event if the
 * consumer waits. A consumer peeks at up to B packets, reads each one's size and first byte, and
 * releases them together. Both spin where they would wait. After each run, one line:
 * {"packets": N, "seconds": s, "bytes": of packets}.
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "event.h"
#include "ring.h"

enum mode { PRODUCE, CONSUME, BOTH };

static struct options {
    enum mode mode;
    uint32_t capacity, size, batch;
    uint64_t packets;
    int memfd, event;
} options = {.capacity = 0x400000, .size = 1400, .packets = 1000000, .batch = 64, .memfd = -1,
             .event = -1};

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "ring_peer: %s\n", what);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* A memfd always: the same pages as any ring has. */
static struct tun_ring *map_ring(void)
{
    const size_t size = tun_ring_size(options.capacity);
    const bool inherited = options.memfd >= 0;
    int memfd = inherited ? options.memfd : memfd_create("ring_peer", MFD_CLOEXEC);
    if (memfd < 0 || (!inherited && ftruncate(memfd, (off_t)size)))
        fail("cannot make the ring");
    void *ring = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, memfd, 0);
    if (ring == MAP_FAILED)
        fail("cannot map the ring");
    return ring;
}

static void publish(struct ring_producer *p)
{
    if (ring_submit(p) && ring_consumer_waits(p) && options.event >= 0)
        event_signal(options.event);
}

static uint64_t produce(struct ring_producer *p)
{
    static uint8_t packet[TUN_PACKET_MAX_SIZE] = {0x45};
    uint32_t pending = 0;

    for (uint64_t i = 0; i < options.packets; i++) {
        uint8_t *data;
        enum ring_status status;
        while ((status = ring_reserve(p, options.size, &data)) == RING_FULL) {
            publish(p);
            pending = 0;
            pause_cpu();
        }
        if (status != RING_OK)
            fail("the consumer has ended the ring");
        memcpy(data, packet, options.size);
        ring_commit(p, options.size);
        if (++pending == options.batch) {
            publish(p);
            pending = 0;
        }
    }
    publish(p);
    return options.packets * options.size;
}

/* One batch, of at least one packet. Returns how many. */
static uint64_t consume_batch(struct ring_consumer *c, uint64_t limit, uint64_t *bytes)
{
    static volatile uint8_t sink;
    struct ring_view view;
    enum ring_status status;
    uint64_t count = 0;

    while ((status = ring_peek(c, &view)) == RING_EMPTY)
        pause_cpu();
    while (status == RING_OK) {
        sink = view.data[0];
        *bytes += view.size;
        if (++count == limit)
            break;
        status = ring_peek(c, &view);
    }
    (void)sink;
    if (status != RING_OK && status != RING_EMPTY)
        fail("the producer has ended the ring");
    ring_release(c, c->next);
    return count;
}

static uint64_t consume(struct ring_consumer *c)
{
    uint64_t bytes = 0;
    for (uint64_t left = options.packets; left;)
        left -= consume_batch(c, left < options.batch ? left : options.batch, &bytes);
    return bytes;
}

static void report(double seconds, uint64_t bytes)
{
    printf("{\"packets\": %llu, \"seconds\": %.6f, \"bytes\": %llu}\n",
           (unsigned long long)options.packets, seconds, (unsigned long long)bytes);
    fflush(stdout);
}

static void run_as_peer(struct tun_ring *ring)
{
    struct ring_producer p;
    struct ring_consumer c;
    char byte;

    prctl(PR_SET_PDEATHSIG, SIGKILL); /* it would spin for ever over a ring without another end */
    if ((options.mode == PRODUCE ? ring_producer_init(&p, ring, options.capacity)
                                 : ring_consumer_init(&c, ring, options.capacity)) != RING_OK)
        fail("the ring's index is no offset");
    while (read(STDIN_FILENO, &byte, 1) == 1) {
        double start = now();
        uint64_t bytes = options.mode == PRODUCE ? produce(&p) : consume(&c);
        report(now() - start, bytes);
    }
}

/* On the n-th CPU that is allowed, if there is one: two threads that spin must not share one. */
static void pin(int n)
{
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof allowed, &allowed))
        fail("sched_getaffinity");
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || n-- > 0)
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        sched_setaffinity(0, sizeof one, &one);
        return;
    }
}

static void *produce_thread(void *ring)
{
    struct ring_producer p;
    pin(1);
    if (ring_producer_init(&p, ring, options.capacity) != RING_OK)
        fail("a fresh ring is corrupt");
    produce(&p);
    return NULL;
}

static void run_both(struct tun_ring *ring)
{
    struct ring_consumer c;
    pthread_t thread;

    if (ring_consumer_init(&c, ring, options.capacity) != RING_OK)
        fail("a fresh ring is corrupt");
    double start = now();
    if (pthread_create(&thread, NULL, produce_thread, ring))
        fail("pthread_create");
    pin(0);
    uint64_t bytes = consume(&c);
    report(now() - start, bytes);
    pthread_join(thread, NULL);
}

static void parse_mode(const char *word)
{
    static const char *const names[] = {"produce", "consume", "both"};
    for (int mode = PRODUCE; mode <= BOTH; mode++) {
        if (word && strcmp(word, names[mode]) == 0) {
            options.mode = mode;
            return;
        }
    }
    fail("the first argument is produce, consume or both");
}

static void parse_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"capacity", required_argument, NULL, 'c'}, {"size", required_argument, NULL, 's'},
        {"packets", required_argument, NULL, 'p'},  {"batch", required_argument, NULL, 'b'},
        {"memfd", required_argument, NULL, 'm'},    {"event", required_argument, NULL, 'e'},
        {0},
    };
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        uint64_t value = optarg ? strtoull(optarg, NULL, 0) : 0;
        switch (option) {
        case 'c':
            options.capacity = (uint32_t)value;
            break;
        case 's':
            options.size = (uint32_t)value;
            break;
        case 'p':
            options.packets = value;
            break;
        case 'b':
            options.batch = (uint32_t)value;
            break;
        case 'm':
            options.memfd = (int)value;
            break;
        case 'e':
            options.event = (int)value;
            break;
        default:
            exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    parse_options(argc, argv);
    parse_mode(argv[optind]); /* getopt has moved it behind the options */
    if (!ring_is_capacity(options.capacity))
        fail("--capacity: a power of two");
    if (options.size > TUN_PACKET_MAX_SIZE || ring_span(options.size) > options.capacity - 4)
        fail("--size: larger than a packet can be");
    if (!options.batch || (options.mode != BOTH) != (options.memfd >= 0))
        fail("--batch is at least 1; --memfd is for produce and consume, and they need it");

    struct tun_ring *ring = map_ring();
    if (options.mode == BOTH)
        run_both(ring);
    else
        run_as_peer(ring);
    return 0;
}
