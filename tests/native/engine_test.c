/* The engine with its own threads between two rings and a link in memory, under the sanitizers.
 *
 * The client is this program's own threads, which know the rings and events alone; the far end of the
 * link is written and read directly. Prints a line a test, and "ok all".
 */
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine.h"
#include "event.h"
#include "guard.h"

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            printf("FAILED %s:%d: %s\n", __FILE__, __LINE__, #condition);                         \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

enum { CAPACITY = 0x20000, PACKETS = 60000, WINDOW = 200, DEADLINE_MS = 10000 };

struct bed {
    struct link *in, *out;
    struct link_host near, far;
    struct tun_ring *to_client, *to_host;
    int send_event, receive_event, stop_event;
    struct ring_space to_client_space, to_host_space;
    uint32_t waits[2];
    struct engine engine;
    struct ring_consumer client_in;
    struct ring_producer client_out;
    unsigned echoed; /* by the client, for the window of the far end */
};

static int new_event(void)
{
    int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK(event >= 0);
    return event;
}

static void set_up_rings(struct bed *bed, bool spaces, bool foreign, uint64_t spin_ns,
                         struct tun_ring *to_client, struct tun_ring *to_host)
{
    memset(bed, 0, sizeof *bed);
    bed->in = link_create(1u << 20);
    bed->out = link_create(1u << 20);
    CHECK(bed->in && bed->out);
    host_init_link(&bed->near, bed->in, bed->out);
    host_init_link(&bed->far, bed->out, bed->in);
    link_connect(bed->in);
    link_connect(bed->out);
    bed->to_client = to_client;
    bed->to_host = to_host;
    bed->send_event = new_event();
    bed->receive_event = new_event();
    bed->stop_event = new_event();
    bed->to_client_space = (struct ring_space){&bed->waits[0], new_event()};
    bed->to_host_space = (struct ring_space){&bed->waits[1], new_event()};
    struct engine_offer offer = {
        .to_client = bed->to_client,
        .to_host = bed->to_host,
        .to_client_capacity = CAPACITY,
        .to_host_capacity = CAPACITY,
        .send_event = bed->send_event,
        .receive_event = bed->receive_event,
        .to_client_space = spaces ? &bed->to_client_space : NULL,
        .to_host_space = spaces ? &bed->to_host_space : NULL,
        .foreign = foreign,
        .spin_ns = spin_ns,
    };
    CHECK(!engine_init(&bed->engine, &bed->near.host, &offer));
    ring_consumer_init(&bed->client_in, bed->to_client, CAPACITY);
    ring_producer_init(&bed->client_out, bed->to_host, CAPACITY);
    CHECK(!engine_start_threads(&bed->engine, bed->stop_event));
}

static void set_up_with(struct bed *bed, bool spaces, uint64_t spin_ns)
{
    set_up_rings(bed, spaces, false, spin_ns, calloc(1, tun_ring_size(CAPACITY)),
                 calloc(1, tun_ring_size(CAPACITY)));
}

static void set_up(struct bed *bed, bool spaces)
{
    set_up_with(bed, spaces, 0);
}

static void tear_down(struct bed *bed)
{
    engine_stop(&bed->engine);
    engine_destroy(&bed->engine);
    link_destroy(bed->in);
    link_destroy(bed->out);
    if (bed->engine.foreign) {
        munmap(bed->to_client, tun_ring_size(CAPACITY));
        munmap(bed->to_host, tun_ring_size(CAPACITY));
    } else {
        free(bed->to_client);
        free(bed->to_host);
    }
    int events[] = {
        bed->send_event, bed->receive_event, bed->stop_event,
        bed->to_client_space.event, bed->to_host_space.event,
    };
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        close(events[i]);
}

static size_t make_packet(uint8_t *packet, unsigned number)
{
    size_t size = 24 + number % 1400;
    memset(packet, number & 0xFF, size);
    packet[0] = 0x45;
    memcpy(packet + 20, &number, 4);
    return size;
}

static void wait_event(int event)
{
    struct pollfd fd = {.fd = event, .events = POLLIN};
    CHECK(poll(&fd, 1, DEADLINE_MS) == 1);
    event_clear(event);
}

/* The client: echoes until the driver says that it is over. */
static void *echo(void *argument)
{
    struct bed *bed = argument;
    for (;;) {
        struct ring_view view;
        enum ring_status status = ring_peek(&bed->client_in, &view);
        if (status == RING_ENDED)
            return NULL;
        if (status == RING_EMPTY) {
            if (ring_arm(&bed->client_in) == RING_EMPTY)
                wait_event(bed->send_event);
            ring_disarm(&bed->client_in);
            continue;
        }
        CHECK(status == RING_OK);
        uint8_t *slot = NULL;
        while ((status = ring_reserve(&bed->client_out, view.size, &slot)) == RING_FULL) {
            if (bed->engine.to_host_space && ring_arm_space(&bed->client_out, &bed->to_host_space))
                wait_event(bed->to_host_space.event);
        }
        if (status == RING_ENDED)
            return NULL;
        memcpy(slot, view.data, view.size);
        ring_commit(&bed->client_out, view.size);
        ring_submit(&bed->client_out);
        if (ring_consumer_waits(&bed->client_out))
            event_signal(bed->receive_event);
        ring_release(&bed->client_in, view.end);
        if (bed->engine.to_client_space && ring_producer_waits(&bed->to_client_space))
            event_signal(bed->to_client_space.event);
    }
}

static int write_far(struct bed *bed, uint8_t *packet, size_t size)
{
    const struct iovec piece = {packet, size};
    return bed->far.host.write(&bed->far.host, &piece, 1);
}

static void far_end(struct bed *bed, unsigned packets)
{
    uint8_t packet[2048], expected[2048];
    unsigned sent = 0, received = 0;
    while (received < packets) {
        while (sent < packets && sent - received < WINDOW) {
            CHECK(!write_far(bed, packet, make_packet(packet, sent++)));
        }
        struct iovec piece = {packet, sizeof packet};
        ssize_t size = bed->far.host.read(&bed->far.host, &piece, 1);
        if (size == -EAGAIN) {
            struct pollfd fd = {.fd = bed->far.host.fd, .events = POLLIN};
            CHECK(poll(&fd, 1, DEADLINE_MS) == 1);
            continue;
        }
        CHECK(size == (ssize_t)make_packet(expected, received));
        CHECK(!memcmp(packet, expected, (size_t)size));
        received++;
    }
    CHECK(link_dropped(bed->in) == 0 && link_dropped(bed->out) == 0);
}

static void test_echo(bool spaces, unsigned packets)
{
    struct bed bed;
    pthread_t client;
    set_up(&bed, spaces);
    CHECK(!pthread_create(&client, NULL, echo, &bed));
    far_end(&bed, packets);
    struct engine_counters to_client, to_host;
    engine_read_counters(&bed.engine, &to_client, &to_host);
    CHECK(to_client.packets == packets && to_host.packets == packets);
    engine_end(&bed.engine, ENGINE_CLOSED);
    CHECK(!pthread_join(client, NULL));
    tear_down(&bed);
    printf("ok     echo of %u packets, %s space events\n", packets, spaces ? "with" : "without");
}

/* The end comes from another thread in the middle of traffic: both sides see it, nobody hangs. */
static void test_end_in_the_middle(void)
{
    for (int round = 0; round < 30; round++) {
        struct bed bed;
        pthread_t client;
        uint8_t packet[2048];
        set_up(&bed, true);
        CHECK(!pthread_create(&client, NULL, echo, &bed));
        for (unsigned number = 0; number < 300; number++)
            write_far(&bed, packet, make_packet(packet, number));
        engine_end(&bed.engine, round % 2 ? ENGINE_CLOSED : ENGINE_REMOVED);
        CHECK(!pthread_join(client, NULL));
        CHECK(ring_load_index(&bed.to_client->tail) == TUN_RING_CLOSED);
        CHECK(ring_load_index(&bed.to_host->head) == TUN_RING_CLOSED);
        tear_down(&bed);
    }
    printf("ok     the end in the middle of traffic\n");
}

/* A client that does not signal, as one without a fence may not: the engine's one more look finds the
 * packet, if it is there in time. Should this thread be kept from its CPU meanwhile, it is not; so
 * one success in many tries is asked for. Without the look there is none. */
static void test_one_more_look(void)
{
    struct bed bed;
    bool found = false;
    set_up(&bed, false);
    for (int try = 0; try < 100 && !found; try++) {
        uint8_t packet[64], *slot;
        size_t size = make_packet(packet, 0);
        while (!__atomic_load_n(&bed.to_host->alertable, __ATOMIC_ACQUIRE))
            sched_yield(); /* until it waits, or is about to */
        CHECK(ring_reserve(&bed.client_out, (uint32_t)size, &slot) == RING_OK);
        memcpy(slot, packet, size);
        ring_commit(&bed.client_out, (uint32_t)size);
        ring_submit(&bed.client_out);
        struct pollfd fd = {.fd = bed.far.host.fd, .events = POLLIN};
        found = poll(&fd, 1, 500) == 1;
        if (!found)
            event_signal(bed.receive_event);
        CHECK(poll(&fd, 1, DEADLINE_MS) == 1);
        struct iovec piece = {packet, sizeof packet};
        CHECK(bed.far.host.read(&bed.far.host, &piece, 1) == (ssize_t)size);
        CHECK(bed.far.host.read(&bed.far.host, &piece, 1) == -EAGAIN);
    }
    CHECK(found);
    tear_down(&bed);
    printf("ok     one more look\n");
}

static void test_a_bogus_ring(void)
{
    struct bed bed;
    set_up(&bed, true);
    ring_store_index(&bed.to_host->tail, 2);
    event_signal(bed.receive_event);
    wait_event(bed.send_event);
    CHECK(engine_end_reason(&bed.engine) == ENGINE_CORRUPT);
    CHECK(ring_load_index(&bed.to_host->head) == TUN_RING_CLOSED);
    tear_down(&bed);
    printf("ok     a bogus ring\n");
}

/* An engine that may spin finds the next packet without a wait. */
static void test_spinning(void)
{
    struct bed bed;
    uint8_t packet[2048];
    set_up_with(&bed, true, 200 * 1000 * 1000);
    write_far(&bed, packet, make_packet(packet, 0));
    wait_event(bed.send_event);
    const uint64_t woken = engine_wakeups(&bed.engine);
    for (unsigned number = 1; number < 50; number++) {
        write_far(&bed, packet, make_packet(packet, number));
        wait_event(bed.send_event);
    }
    CHECK(engine_wakeups(&bed.engine) == woken);
    tear_down(&bed);
    printf("ok     spinning\n");
}

/* ---- foreign clients ------------------------------------------------------------------------- */

static struct tun_ring *share(int *memory)
{
    *memory = memfd_create("ring", MFD_CLOEXEC);
    CHECK(*memory >= 0 && !ftruncate(*memory, (off_t)tun_ring_size(CAPACITY)));
    void *ring = mmap(NULL, tun_ring_size(CAPACITY), PROT_READ | PROT_WRITE, MAP_SHARED, *memory, 0);
    CHECK(ring != MAP_FAILED);
    return ring;
}

static void set_up_foreign(struct bed *bed, bool spaces, int memories[2])
{
    struct tun_ring *to_client = share(&memories[0]), *to_host = share(&memories[1]);
    set_up_rings(bed, spaces, true, 0, to_client, to_host);
}

static void test_a_foreign_echo(void)
{
    int memories[2];
    struct bed bed;
    pthread_t client;
    set_up_foreign(&bed, true, memories);
    CHECK(!pthread_create(&client, NULL, echo, &bed));
    far_end(&bed, 2000);
    engine_stop(&bed.engine);
    CHECK(!pthread_join(client, NULL));
    CHECK(ring_load_index(&bed.to_client->tail) == TUN_RING_CLOSED);
    tear_down(&bed);
    close(memories[0]);
    close(memories[1]);
    printf("ok     a foreign client\n");
}

/* The memory of one ring is not there any more: the session ends, and another goes on. */
static void test_memory_that_goes(bool to_client)
{
    int memories[2], others[2];
    struct bed bed, other;
    uint8_t packet[2048];
    set_up_foreign(&bed, true, memories);
    set_up_foreign(&other, true, others);
    pthread_t client;
    CHECK(!pthread_create(&client, NULL, echo, &other));
    CHECK(!ftruncate(memories[to_client ? 0 : 1], 4096));
    if (to_client) {
        for (unsigned number = 0; number < 20; number++)
            write_far(&bed, packet, make_packet(packet, 1000));
    } else { /* by what the index says, there are packets where no memory is */
        ring_store_index(&bed.to_host->tail, 0x8000);
        ring_packet_at(bed.to_host, 0)->size = 0x4000;
        ring_packet_at(bed.to_host, 0)->data[0] = 0x45;
        event_signal(bed.receive_event);
    }
    struct pollfd never = {.fd = -1};
    for (int waited = 0; engine_end_reason(&bed.engine) == ENGINE_RUNNING; waited++) {
        CHECK(waited < DEADLINE_MS);
        poll(&never, 1, 1);
    }
    CHECK(engine_end_reason(&bed.engine) == ENGINE_CORRUPT);
    far_end(&other, 500);
    engine_stop(&other.engine);
    CHECK(!pthread_join(client, NULL));
    tear_down(&bed);
    tear_down(&other);
    for (int i = 0; i < 2; i++) {
        close(memories[i]);
        close(others[i]);
    }
    printf("ok     memory that goes, %s\n", to_client ? "to the client" : "to the host");
}

/* Whoever signals an event that is full, and not non-blocking, is stuck: engine_stop frees it. */
static void test_an_event_that_blocks(void)
{
    const uint64_t full = UINT64_MAX - 1;
    int memories[2];
    struct bed bed;
    uint8_t packet[2048];
    set_up_foreign(&bed, true, memories);
    CHECK(write(bed.send_event, &full, sizeof full) == sizeof full);
    CHECK(write(bed.to_host_space.event, &full, sizeof full) == sizeof full);
    CHECK(fcntl(bed.send_event, F_SETFL, 0) == 0 && fcntl(bed.to_host_space.event, F_SETFL, 0) == 0);
    __atomic_store_n(&bed.waits[1], 1, __ATOMIC_RELAXED);
    write_far(&bed, packet, make_packet(packet, 0));
    struct engine_counters both[2];
    struct pollfd never = {.fd = -1};
    do { /* until the packet lies there, and the thread is about to tell */
        poll(&never, 1, 1);
        engine_read_counters(&bed.engine, &both[0], &both[1]);
    } while (!both[0].packets);
    engine_end(&bed.engine, ENGINE_REMOVED); /* never waits for the threads */
    engine_stop(&bed.engine);
    tear_down(&bed);
    close(memories[0]);
    close(memories[1]);
    printf("ok     an event that blocks\n");
}

int main(void)
{
    CHECK(!guard_install());
    setvbuf(stdout, NULL, _IOLBF, 0);
    test_echo(true, PACKETS);
    test_echo(false, PACKETS / 4);
    test_end_in_the_middle();
    test_one_more_look();
    test_a_bogus_ring();
    test_spinning();
    test_a_foreign_echo();
    test_memory_that_goes(true);
    test_memory_that_goes(false);
    test_an_event_that_blocks();
    printf("ok     all\n");
    return 0;
}
