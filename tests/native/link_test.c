/* A link in memory that is impaired while one thread writes and one reads, under the sanitizers.
 *
 * Prints a line a test, and "ok all".
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "host.h"

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            printf("FAILED %s:%d: %s\n", __FILE__, __LINE__, #condition);                         \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

enum { PACKETS = 10000 /* at least, of each kind */, DEADLINE_MS = 20000 };

static const uint64_t ALWAYS = UINT64_C(1) << 53;

struct bed {
    struct link *link, *back;
    struct link_host near, far; /* from near to far */
    unsigned written, stop, stopped;
};

static void set_up(struct bed *bed)
{
    *bed = (struct bed){.link = link_create(1u << 20), .back = link_create(1u << 10)};
    CHECK(bed->link && bed->back);
    host_init_link(&bed->near, bed->back, bed->link);
    host_init_link(&bed->far, bed->link, bed->back);
    link_connect(bed->link);
}

static void tear_down(struct bed *bed)
{
    link_destroy(bed->link);
    link_destroy(bed->back);
}

static struct link_counters counters(const struct bed *bed)
{
    struct link_counters counters;
    link_read_counters(bed->link, &counters);
    return counters;
}

static void write_packet(struct bed *bed, unsigned number)
{
    uint8_t packet[64];
    memset(packet, 0x45, sizeof packet);
    memcpy(packet + 20, &number, sizeof number);
    const struct iovec piece = {packet, 24 + number % 40};
    CHECK(bed->near.host.write(&bed->near.host, &piece, 1) == 0);
}

/* The number of the next packet; -1: there is none now. */
static long read_packet(struct bed *bed)
{
    uint8_t packet[64];
    unsigned number;
    struct iovec pieces[] = {{packet, 22}, {packet + 22, sizeof packet - 22}};
    ssize_t size = bed->far.host.read(&bed->far.host, pieces, 2);
    if (size == -EAGAIN)
        return -1;
    memcpy(&number, packet + 20, sizeof number);
    CHECK(size == 24 + number % 40);
    return number;
}

static bool readable(struct bed *bed, int timeout_ms)
{
    struct pollfd fd = {.fd = bed->far.host.fd, .events = POLLIN};
    return poll(&fd, 1, timeout_ms) == 1;
}

static unsigned load(const unsigned *number)
{
    return __atomic_load_n(number, __ATOMIC_ACQUIRE);
}

static void store(unsigned *number, unsigned value)
{
    __atomic_store_n(number, value, __ATOMIC_RELEASE);
}

static void *write_all(void *argument)
{
    struct bed *bed = argument;
    while (!load(&bed->stop)) {
        write_packet(bed, bed->written);
        store(&bed->written, bed->written + 1);
    }
    store(&bed->stopped, 1);
    return NULL;
}

static bool all_accounted_for(const struct bed *bed)
{
    struct link_counters c = counters(bed);
    return c.passed + c.overflowed + c.impaired.lost + c.impaired.overflowed ==
           load(&bed->written) + c.impaired.duplicated;
}

static void *read_all(void *argument)
{
    struct bed *bed = argument;
    long last = -1;
    for (;;) {
        bool stopped = load(&bed->stopped);
        if (stopped && all_accounted_for(bed))
            return NULL;
        long number = read_packet(bed);
        if (number >= 0) {
            CHECK(number >= last);
            last = number;
        } else if (stopped && !all_accounted_for(bed)) {
            CHECK(readable(bed, DEADLINE_MS));
        } else {
            readable(bed, 10); /* what was written last may have been dropped */
        }
    }
}

/* Written and read without a pause, while every kind of impairment that keeps the order comes. */
static void impaired_in_full_flight(void)
{
    struct bed bed;
    pthread_t writer, reader;
    const struct impairment kinds[] = {
        {.limit = 1 << 20},
        {.loss = ALWAYS / 10, .duplicate = ALWAYS / 10, .limit = 1 << 16},
        {.delay = 1000000, .jitter = 1000000, .limit = 1 << 20},
        {.rate = 100000000, .limit = 1 << 16, .duplicate = ALWAYS / 2},
        {.limit = 1 << 20},
    };
    set_up(&bed);
    CHECK(!pthread_create(&reader, NULL, read_all, &bed));
    CHECK(!pthread_create(&writer, NULL, write_all, &bed));
    for (unsigned i = 0; i <= sizeof kinds / sizeof *kinds; i++) {
        for (unsigned before = load(&bed.written); load(&bed.written) - before < PACKETS;)
            sched_yield();
        if (i < sizeof kinds / sizeof *kinds)
            CHECK(!link_impair(bed.link, &kinds[i]));
    }
    store(&bed.stop, 1);
    CHECK(!pthread_join(writer, NULL) && !pthread_join(reader, NULL));
    CHECK(counters(&bed).impaired.lost && counters(&bed).impaired.duplicated);
    tear_down(&bed);
    puts("ok     impaired in full flight");
}

enum { ROUNDS = 1000 };

struct race {
    struct bed bed;
    unsigned started, ended; /* rounds */
};

static void *impair_and_write(void *argument)
{
    struct race *race = argument;
    const struct impairment perfect = {.limit = 1 << 20};
    for (unsigned round = 1; round <= ROUNDS; round++) {
        while (load(&race->started) != round)
            ;
        CHECK(!link_impair(race->bed.link, &perfect));
        write_packet(&race->bed, round);
        store(&race->ended, round);
    }
    return NULL;
}

/* The reader finds nothing and goes to wait, while the link is impaired and written to. Without the
 * second look at the impairment one wake-up in some thousands is lost: a run may miss that. */
static void no_wake_up_is_lost(void)
{
    struct race race = {.started = 0};
    pthread_t writer;
    CHECK(!pthread_create(&writer, NULL, impair_and_write, &race));
    for (unsigned round = 1; round <= ROUNDS; round++) {
        long number;
        set_up(&race.bed);
        store(&race.started, round);
        for (unsigned wait = round % 64 * 16; wait; wait--) /* the other is to come at any time */
            load(&race.ended);
        while ((number = read_packet(&race.bed)) < 0)
            CHECK(readable(&race.bed, DEADLINE_MS));
        CHECK(number == round);
        while (load(&race.ended) != round)
            sched_yield();
        tear_down(&race.bed);
    }
    CHECK(!pthread_join(writer, NULL));
    puts("ok     no wake-up is lost");
}

/* Readable when there is something to read, and not before. */
static void readable_when_due(void)
{
    struct bed bed;
    const struct impairment late = {.delay = 20000000, .limit = 1 << 20};
    const struct impairment held = {.reorder = ALWAYS, .hold = 20000000, .limit = 1 << 20};
    const struct impairment perfect = {.limit = 1 << 20};
    set_up(&bed);
    CHECK(!link_impair(bed.link, &late));
    for (unsigned number = 0; number < 3; number++) {
        if (number == 1)
            CHECK(!link_impair(bed.link, &held));
        if (number == 2)
            CHECK(!link_impair(bed.link, &perfect));
        write_packet(&bed, number);
        CHECK(number == 2 || read_packet(&bed) == -1);
        CHECK(readable(&bed, DEADLINE_MS));
        CHECK(read_packet(&bed) == number);
        CHECK(read_packet(&bed) == -1);
        CHECK(!readable(&bed, 0));
    }
    tear_down(&bed);
    puts("ok     readable when due");
}

/* What waits is thrown away by a new reader, and freed with the link. */
static void nothing_stays_behind(void)
{
    struct bed bed;
    const struct impairment late = {.delay = UINT64_C(3600000000000), .limit = 100};
    set_up(&bed);
    write_packet(&bed, 0);
    CHECK(!link_impair(bed.link, &late));
    write_packet(&bed, 1);
    CHECK(link_connect(bed.link) == 2 && counters(&bed).drained == 2);
    CHECK(read_packet(&bed) == -1 && !readable(&bed, 0));
    for (unsigned number = 0; number < 9; number++)
        write_packet(&bed, number);
    CHECK(counters(&bed).impaired.overflowed == 6 && link_dropped(bed.link) == 6);
    link_disconnect(bed.link);
    write_packet(&bed, 9);
    CHECK(counters(&bed).unplugged == 1 && link_dropped(bed.link) == 7);
    tear_down(&bed);
    puts("ok     nothing stays behind");
}

int main(void)
{
    impaired_in_full_flight();
    no_wake_up_is_lost();
    readable_when_due();
    nothing_stays_behind();
    puts("ok     all");
    return 0;
}
