/* The litmus loop of the wake-up handshake.
 *
 *     litmus [--rounds N] [--seconds S] [--until-lost]
 *
 * Two threads on two CPUs meet at one fresh ring after another. In each round one submits a packet
 * and asks whether the consumer waits; the other asks to be woken and looks for a packet. If the
 * producer saw no waiting consumer and the consumer saw an empty ring, then both would go on, and
 * the consumer would sleep beside a packet: a lost wake-up.
 *
 * It stops after the batch in which N rounds or S seconds are over or, with --until-lost, a wake-up
 * was lost; prints one line of JSON; exits 0 if it ran and 2 if it could not. Compiled with
 * -DRINGTUN_WITHOUT_FENCE it shows that the loop finds what it looks for.
 */
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ring.h"

#define CACHE_LINE 64
#define CAPACITY 16u

/* Meeting costs more than a round does. So the threads meet at every eighth ring only and drift in
 * between: without the fence that loses more wake-ups a second than meeting at each ring, and with
 * it more interleavings are tried. */
#define ROUNDS_A_MEETING 8
#define BATCH 4096u

enum side { PRODUCER, CONSUMER };

/* A ring on a cache line of its own. It carries one packet of no bytes, so nothing lies behind the
 * capacity. */
struct slot {
    _Alignas(CACHE_LINE) uint8_t ring[TUN_RING_HEADER_SIZE + CAPACITY];
};

struct litmus {
    struct slot slots[BATCH];
    bool producer_saw_waiting[BATCH];
    bool consumer_saw_empty[BATCH];
    struct {
        _Alignas(CACHE_LINE) uint32_t step;
    } arrived[2];
    bool stop; /* the producer's, told at a meeting */
    int cpus[2];
};

struct limits {
    uint64_t rounds;
    double seconds;
    bool until_lost;
};

struct result {
    uint64_t rounds, lost;
    double seconds;
};

static struct litmus litmus;

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "litmus: %s\n", what);
    exit(2);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void choose_cpus(void)
{
    cpu_set_t allowed;
    int found = 0;
    if (sched_getaffinity(0, sizeof allowed, &allowed))
        fail("sched_getaffinity");
    for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++) {
        if (CPU_ISSET(cpu, &allowed))
            litmus.cpus[found++] = cpu;
    }
    if (found < 2)
        fail("needs two CPUs");
}

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set))
        fail("sched_setaffinity");
}

static void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Wait until the other side has come to this step, or one further. */
static void meet(enum side side, uint32_t step)
{
    const uint32_t *other = &litmus.arrived[!side].step;
    __atomic_store_n(&litmus.arrived[side].step, step, __ATOMIC_RELEASE);
    for (uint32_t spins = 1; (int32_t)(__atomic_load_n(other, __ATOMIC_ACQUIRE) - step) < 0;
         spins++) {
        if (spins % 65536) {
            pause_cpu();
        } else {
            sched_yield(); /* somebody else has the other's CPU */
        }
    }
}

static void produce(uint32_t i)
{
    struct ring_producer p;
    uint8_t *data;
    ring_producer_init(&p, (struct tun_ring *)litmus.slots[i].ring, CAPACITY);
    if (ring_reserve(&p, 0, &data) != RING_OK)
        fail("a fresh ring is full");
    ring_commit(&p, 0);
    ring_submit(&p);
    litmus.producer_saw_waiting[i] = ring_consumer_waits(&p);
}

static void consume(uint32_t i)
{
    struct ring_consumer c;
    ring_consumer_init(&c, (struct tun_ring *)litmus.slots[i].ring, CAPACITY);
    litmus.consumer_saw_empty[i] = ring_arm(&c) == RING_EMPTY;
}

static void run_batch(enum side side, uint32_t *step)
{
    for (uint32_t i = 0; i < BATCH; i++) {
        if (i % ROUNDS_A_MEETING == 0)
            meet(side, ++*step);
        if (side == PRODUCER)
            produce(i);
        else
            consume(i);
    }
    meet(side, ++*step);
}

static void *consumer(void *argument)
{
    uint32_t step = 0;
    pin(litmus.cpus[CONSUMER]);
    while (!litmus.stop) {
        run_batch(CONSUMER, &step);
        meet(CONSUMER, ++step); /* meanwhile the producer counts, clears and decides */
    }
    return argument;
}

static uint64_t count_lost(void)
{
    uint64_t lost = 0;
    for (uint32_t i = 0; i < BATCH; i++)
        lost += !litmus.producer_saw_waiting[i] && litmus.consumer_saw_empty[i];
    return lost;
}

static struct result produce_until(const struct limits *limits)
{
    struct result result = {0};
    const double start = now();
    uint32_t step = 0;

    pin(litmus.cpus[PRODUCER]);
    while (!litmus.stop) {
        run_batch(PRODUCER, &step);
        result.rounds += BATCH;
        result.lost += count_lost();
        result.seconds = now() - start;
        litmus.stop = result.rounds >= limits->rounds || result.seconds >= limits->seconds ||
                      (limits->until_lost && result.lost);
        memset(litmus.slots, 0, sizeof litmus.slots);
        meet(PRODUCER, ++step);
    }
    return result;
}

static struct limits parse(int argc, char **argv)
{
    static const struct option options[] = {
        {"rounds", required_argument, NULL, 'r'},
        {"seconds", required_argument, NULL, 's'},
        {"until-lost", no_argument, NULL, 'u'},
        {0},
    };
    struct limits limits = {.rounds = 1000000, .seconds = 60};

    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'r':
            limits.rounds = strtoull(optarg, NULL, 0);
            break;
        case 's':
            limits.seconds = strtod(optarg, NULL);
            break;
        case 'u':
            limits.until_lost = true;
            break;
        default:
            exit(2);
        }
    }
    return limits;
}

int main(int argc, char **argv)
{
    const struct limits limits = parse(argc, argv);
    pthread_t thread;

    choose_cpus();
    if (pthread_create(&thread, NULL, consumer, NULL))
        fail("pthread_create");
    const struct result result = produce_until(&limits);
    pthread_join(thread, NULL);
    printf("{\"rounds\": %llu, \"lost\": %llu, \"seconds\": %.3f}\n",
           (unsigned long long)result.rounds, (unsigned long long)result.lost, result.seconds);
    return 0;
}
