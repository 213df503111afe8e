/* What ring.h promises, tried on rings between guard pages: against a queue model, against a
 * hostile peer, and between two threads that sleep and wake each other.
 *
 *     ring_test [SEED]
 *
 * One line a test; the first failure ends the program with status 1.
 */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>

#include "event.h"
#include "ring.h"

#define LENGTH(array) (sizeof(array) / sizeof(array)[0])

static const uint32_t SMALL[] = {16, 32, 64};
static const uint32_t LARGE = 0x20000;

/* ---- checks ---------------------------------------------------------------------------------- */

static const char *current_test = "?";
static uint64_t seed = 20240229;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            check_failed(__LINE__, #condition);                                                    \
    } while (0)

static _Noreturn void check_failed(int line, const char *condition)
{
    printf("FAILED %s, line %d: %s (seed %llu)\n", current_test, line, condition,
           (unsigned long long)seed);
    fflush(stdout);
    _exit(1); /* from whichever thread: the others may never come to an end */
}

/* ---- random numbers: splitmix64 -------------------------------------------------------------- */

static uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static uint32_t random_below(uint64_t *state, uint32_t limit)
{
    return (uint32_t)((random_next(state) >> 32) * limit >> 32);
}

static bool one_in(uint64_t *state, uint32_t n)
{
    return random_below(state, n) == 0;
}

/* Every size that a ring of this capacity may be asked for; some never fit a small one. */
static uint32_t random_size(uint64_t *state, uint32_t capacity)
{
    if (capacity < TUN_PACKET_MAX_SIZE)
        return random_below(state, capacity + 8);
    switch (random_below(state, 16)) {
    case 0:
        return TUN_PACKET_MAX_SIZE - random_below(state, 8);
    case 1:
        return random_below(state, TUN_PACKET_MAX_SIZE + 1);
    case 2:
    case 3:
        return random_below(state, 8);
    default:
        return random_below(state, 1501);
    }
}

/* ---- packet contents: a window on one random table, by the packet's number ------------------- */

#define WINDOWS 8192
static uint8_t table[WINDOWS + TUN_PACKET_MAX_SIZE];

static void table_init(void)
{
    uint64_t state = seed;
    for (size_t i = 0; i < sizeof table; i++)
        table[i] = (uint8_t)random_next(&state);
}

static const uint8_t *content_of(uint32_t number)
{
    return table + number * 2654435761u % WINDOWS;
}

/* The number itself comes first, where there is room for it. */
static void packet_fill(uint8_t *data, uint32_t size, uint32_t number)
{
    memcpy(data, content_of(number), size);
    if (size >= sizeof number)
        memcpy(data, &number, sizeof number);
}

static bool packet_is(const uint8_t *data, uint32_t size, uint32_t number)
{
    if (size < sizeof number)
        return memcmp(data, content_of(number), size) == 0;
    return memcmp(data, &number, sizeof number) == 0 &&
           memcmp(data + sizeof number, content_of(number) + sizeof number,
                  size - sizeof number) == 0;
}

/* ---- a ring between guard pages -------------------------------------------------------------- */

/* A ring is no multiple of the page size, so only one of its ends can touch a guard page: each test
 * runs both ways. The slack at the other end holds canaries. */
enum placement { TIGHT_BEFORE, TIGHT_AFTER };

struct guarded {
    struct tun_ring *ring;
    uint32_t capacity;
    uint8_t *slack;
    size_t slack_size;
    uint8_t *map;
    size_t map_size;
};

static const uint8_t CANARY = 0xC5;

static struct guarded guarded_open(uint32_t capacity, enum placement placement)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t size = tun_ring_size(capacity);
    const size_t usable = (size + page - 1) / page * page;
    struct guarded g = {.capacity = capacity, .map_size = usable + 2 * page};

    g.map = mmap(NULL, g.map_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(g.map != MAP_FAILED);
    CHECK(mprotect(g.map + page, usable, PROT_READ | PROT_WRITE) == 0);
    uint8_t *start = g.map + page + (placement == TIGHT_AFTER ? usable - size : 0);
    g.slack = placement == TIGHT_AFTER ? g.map + page : start + size;
    g.slack_size = usable - size;
    memset(g.slack, CANARY, g.slack_size);
    g.ring = (struct tun_ring *)start;
    return g;
}

static void guarded_close(struct guarded *g)
{
    for (size_t i = 0; i < g->slack_size; i++)
        CHECK(g->slack[i] == CANARY);
    CHECK(munmap(g->map, g->map_size) == 0);
}

/* ---- both sides of one ring ------------------------------------------------------------------ */

struct pair {
    struct guarded g;
    struct ring_producer p;
    struct ring_consumer c;
};

/* An empty ring whose indices stand at `offset`. */
static void pair_start_at(struct pair *pair, uint32_t offset)
{
    struct tun_ring *ring = pair->g.ring;
    ring->head = ring->tail = offset;
    ring->alertable = 0;
    CHECK(ring_producer_init(&pair->p, ring, pair->g.capacity) == RING_OK);
    CHECK(ring_consumer_init(&pair->c, ring, pair->g.capacity) == RING_OK);
    CHECK(pair->p.tail == offset && pair->p.reserved == offset);
    CHECK(pair->c.head == offset && pair->c.next == offset);
}

static struct pair pair_open(uint32_t capacity, enum placement placement)
{
    struct pair pair = {.g = guarded_open(capacity, placement)};
    pair_start_at(&pair, 0);
    return pair;
}

static void pair_close(struct pair *pair)
{
    guarded_close(&pair->g);
}

/* Bytes that a packet takes, said in another way than ring.h does and without overflow. */
static uint64_t expected_span(uint64_t size)
{
    return 4 + (size + 3) / 4 * 4;
}

/* ---- random histories against a queue -------------------------------------------------------- */

#define QUEUE_LENGTH 0x10000u /* more than the packets of 4 bytes that LARGE holds */

struct entry {
    uint32_t offset, size;
    uint8_t *data;
};

/* All packets ever committed, by number. released <= peeked <= submitted <= committed. */
struct model {
    struct entry queue[QUEUE_LENGTH];
    uint32_t committed, submitted, peeked, released;
    uint32_t position; /* offset of the next packet */
    uint64_t used;     /* bytes not released */
    uint32_t wraps, fulls, empties;
};

static struct entry *model_entry(struct model *m, uint32_t number)
{
    return &m->queue[number % QUEUE_LENGTH];
}

static uint64_t model_room(const struct model *m, uint32_t capacity)
{
    return capacity - 4 - m->used;
}

static uint64_t model_bytes(struct model *m, uint32_t from, uint32_t to)
{
    uint64_t bytes = 0;
    for (uint32_t number = from; number != to; number++)
        bytes += expected_span(model_entry(m, number)->size);
    return bytes;
}

static void history_produce(struct pair *pair, struct model *m, uint64_t *state)
{
    const uint32_t capacity = pair->g.capacity;
    uint32_t size = random_size(state, capacity);
    uint8_t *data = NULL;
    bool fits = expected_span(size) <= model_room(m, capacity);
    CHECK(ring_reserve(&pair->p, size, &data) == (fits ? RING_OK : RING_FULL));
    if (!fits) {
        m->fulls++;
        return;
    }
    CHECK(data == pair->g.ring->data + m->position + TUN_PACKET_HEADER_SIZE);
    if (one_in(state, 8)) /* reserved and left alone: nothing has happened */
        return;
    if (one_in(state, 4)) /* less than was reserved */
        size = random_below(state, size + 1);
    packet_fill(data, size, m->committed);
    ring_commit(&pair->p, size);
    *model_entry(m, m->committed++) = (struct entry){m->position, size, data};
    m->used += expected_span(size);
    m->position += (uint32_t)expected_span(size);
    m->wraps += m->position >= capacity;
    m->position %= capacity;
}

static void history_submit(struct pair *pair, struct model *m)
{
    uint32_t before = pair->g.ring->tail;
    bool something = m->submitted != m->committed;
    CHECK(ring_submit(&pair->p) == something);
    CHECK(pair->g.ring->tail == (something ? m->position : before));
    m->submitted = m->committed;
}

static void history_peek(struct pair *pair, struct model *m)
{
    struct ring_view view;
    if (m->peeked == m->submitted) {
        CHECK(ring_peek(&pair->c, &view) == RING_EMPTY);
        m->empties++;
        return;
    }
    CHECK(ring_peek(&pair->c, &view) == RING_OK);
    const struct entry *entry = model_entry(m, m->peeked);
    CHECK(view.data == entry->data);
    CHECK(view.size == entry->size);
    CHECK(view.end == (entry->offset + expected_span(entry->size)) % pair->g.capacity);
    CHECK(packet_is(view.data, view.size, m->peeked));
    m->peeked++;
}

/* Some of what was peeked at, or none. It must have stayed as it was until now. */
static void history_release(struct pair *pair, struct model *m, uint64_t *state)
{
    uint32_t count = random_below(state, m->peeked - m->released + 1);
    uint32_t end = pair->g.ring->head;
    for (; count; count--) {
        const struct entry *entry = model_entry(m, m->released);
        CHECK(packet_is(entry->data, entry->size, m->released));
        end = (entry->offset + (uint32_t)expected_span(entry->size)) % pair->g.capacity;
        m->used -= expected_span(entry->size);
        m->released++;
    }
    ring_release(&pair->c, end);
    CHECK(pair->g.ring->head == end);
}

static void history_refresh(struct pair *pair, struct model *m)
{
    bool waiting = m->submitted != m->peeked;
    CHECK(ring_refresh_head(&pair->p) == RING_OK);
    CHECK(ring_room(&pair->p) == model_room(m, pair->g.capacity));
    CHECK(ring_refresh_tail(&pair->c) == (waiting ? RING_OK : RING_EMPTY));
    CHECK(ring_content(&pair->c) == model_bytes(m, m->peeked, m->submitted));
    CHECK(ring_arm(&pair->c) == (waiting ? RING_OK : RING_EMPTY));
    CHECK(ring_consumer_waits(&pair->p));
    ring_disarm(&pair->c);
    CHECK(!ring_consumer_waits(&pair->p));
}

static void history_step(struct pair *pair, struct model *m, uint64_t *state, bool filling)
{
    /* Filling, the producer has twice the turns; draining, the consumer. */
    switch (random_below(state, 8)) {
    case 0:
    case 1:
        history_produce(pair, m, state);
        break;
    case 2:
    case 3:
        history_peek(pair, m);
        break;
    case 4:
        history_submit(pair, m);
        break;
    case 5:
        history_release(pair, m, state);
        break;
    default:
        if (filling)
            history_produce(pair, m, state);
        else
            history_peek(pair, m);
        break;
    }
    CHECK(ring_room(&pair->p) <= model_room(m, pair->g.capacity));
    if (one_in(state, 16))
        history_refresh(pair, m);
}

static void histories(uint32_t capacity, enum placement placement, uint32_t steps)
{
    static struct model model; /* too large for the stack */
    struct pair pair = pair_open(capacity, placement);
    uint64_t state = seed + capacity + placement;
    bool filling = true;

    memset(&model, 0, sizeof model);
    for (uint32_t i = 0; i < steps; i++) {
        if (one_in(&state, 256))
            filling = !filling;
        history_step(&pair, &model, &state, filling);
    }
    history_submit(&pair, &model);
    while (model.peeked != model.submitted)
        history_peek(&pair, &model);
    while (model.released != model.peeked)
        history_release(&pair, &model, &state);
    history_refresh(&pair, &model);
    CHECK(model.used == 0);
    CHECK(model.wraps > 100 && model.fulls > 100 && model.empties > 100);
    printf("ok     histories, %u bytes, %s: %u packets, %u wraps, %u times full, %u empty\n",
           capacity, placement == TIGHT_AFTER ? "guard behind" : "guard before", model.committed,
           model.wraps, model.fulls, model.empties);
    pair_close(&pair);
}

static void test_histories(void)
{
    current_test = "histories";
    for (int placement = TIGHT_BEFORE; placement <= TIGHT_AFTER; placement++) {
        for (size_t i = 0; i < LENGTH(SMALL); i++)
            histories(SMALL[i], placement, 300000);
        histories(LARGE, placement, 300000);
    }
}

/* ---- full and empty -------------------------------------------------------------------------- */

static void send_one(struct pair *pair, uint32_t size, uint32_t number)
{
    uint8_t *data;
    CHECK(ring_reserve(&pair->p, size, &data) == RING_OK);
    packet_fill(data, size, number);
    ring_commit(&pair->p, size);
    CHECK(ring_submit(&pair->p));
}

static void receive_one(struct pair *pair, uint32_t size, uint32_t number)
{
    struct ring_view view;
    CHECK(ring_peek(&pair->c, &view) == RING_OK);
    CHECK(view.size == size);
    CHECK(packet_is(view.data, size, number));
    ring_release(&pair->c, view.end);
}

/* From this start: the largest packet fits alone, no larger one does, and empty packets fill the
 * ring but for one slot. */
static void fill_and_drain(struct pair *pair, uint32_t start)
{
    const uint32_t capacity = pair->g.capacity;
    const uint32_t packets = capacity / 4 - 1;
    struct ring_view view;
    uint8_t *data;

    pair_start_at(pair, start);
    CHECK(ring_peek(&pair->c, &view) == RING_EMPTY);
    CHECK(!ring_submit(&pair->p));
    if (capacity - 8 <= TUN_PACKET_MAX_SIZE) {
        CHECK(ring_reserve(&pair->p, capacity - 7, &data) == RING_FULL);
        send_one(pair, capacity - 8, start);
        CHECK(ring_room(&pair->p) == 0);
        receive_one(pair, capacity - 8, start);
    }
    for (uint32_t i = 0; i < packets; i++)
        send_one(pair, 0, i);
    CHECK(ring_room(&pair->p) == 0);
    CHECK(ring_reserve(&pair->p, 0, &data) == RING_FULL);
    for (uint32_t i = 0; i < packets; i++)
        receive_one(pair, 0, i);
    CHECK(ring_peek(&pair->c, &view) == RING_EMPTY);
}

static void test_full_and_empty(void)
{
    current_test = "full and empty";
    for (int placement = TIGHT_BEFORE; placement <= TIGHT_AFTER; placement++) {
        for (size_t i = 0; i < LENGTH(SMALL); i++) {
            struct pair pair = pair_open(SMALL[i], placement);
            for (uint32_t start = 0; start < SMALL[i]; start += 4)
                fill_and_drain(&pair, start);
            pair_close(&pair);
        }
        struct pair pair = pair_open(LARGE, placement);
        for (uint32_t start = 0; start < LARGE; start += LARGE / 8 - 4)
            fill_and_drain(&pair, start);
        pair_close(&pair);
    }
    printf("ok     full and empty, from every start\n");
}

/* ---- the end of the ring: packets that run into the trailing bytes --------------------------- */

static void test_trailing_bytes(void)
{
    current_test = "trailing bytes";
    const uint32_t largest = TUN_PACKET_MAX_SIZE;
    const uint32_t starts[] = {
        0, 4, LARGE - 65540, LARGE - 65536, LARGE - 32768, LARGE - 8, LARGE - 4,
    };
    struct pair pair = pair_open(LARGE, TIGHT_AFTER);
    uint8_t *data;

    for (size_t i = 0; i < LENGTH(starts); i++) {
        pair_start_at(&pair, starts[i]);
        send_one(&pair, largest, 1);
        CHECK(ring_reserve(&pair.p, largest, &data) == RING_FULL); /* 65,528 bytes are left */
        send_one(&pair, 65524, 2);
        CHECK(ring_room(&pair.p) == 0);
        receive_one(&pair, largest, 1);
        send_one(&pair, largest, 3);
        receive_one(&pair, 65524, 2);
        receive_one(&pair, largest, 3);
    }
    /* The last start put the packet's last byte one before the guard page. */
    CHECK(ring_packet_at(pair.g.ring, LARGE - 4)->data + largest + 1 ==
          pair.g.map + pair.g.map_size - sysconf(_SC_PAGESIZE));
    pair_start_at(&pair, 0);
    for (uint32_t number = 0; number < 40000; number++) { /* 65,540 bytes a step: all starts */
        send_one(&pair, largest, number);
        receive_one(&pair, largest, number);
    }
    pair_close(&pair);
    printf("ok     trailing bytes: packets of 65,535 bytes from every start\n");
}

/* ---- a hostile peer, one value at a time ----------------------------------------------------- */

/* Values that an index can be attacked with; small rings get every value around them as well. */
static size_t hostile_indices(uint32_t capacity, uint32_t *values)
{
    const uint32_t special[] = {
        capacity - 5,    capacity - 4,     capacity - 3, capacity - 2, capacity - 1, capacity,
        capacity + 1,    capacity + 4,     capacity * 2, 0xFFFF,       0x10000,      0x10004,
        0x7FFFFFFC,      0x7FFFFFFF,       0x80000000,   0x80000004,   0xFFFF0000,   0xFFFFFFF4,
        0u - capacity,   4u - capacity,    0xFFFFFFF8,   0xFFFFFFFC,   0xFFFFFFFD,   0xFFFFFFFE,
        TUN_RING_CLOSED, capacity / 2 + 4, capacity / 2, 0,            1,            2,
        3,               4,                5,            8,            12,
    };
    memcpy(values, special, sizeof special);
    size_t count = LENGTH(special);
    if (capacity <= 64) {
        for (uint32_t value = 0; value < 2 * capacity; value++)
            values[count++] = value;
    }
    return count;
}

static size_t hostile_sizes(uint32_t capacity, uint32_t *values)
{
    const uint32_t special[] = {
        0,          1,          4,          1500,       0xFFFA,     0xFFFB,     0xFFFC,
        0xFFFD,     0xFFFE,     0xFFFF,     0x10000,    0x10001,    0x10004,    0x7FFFFFFF,
        0x80000000, 0xFFFF0000, 0xFFFFFFF8, 0xFFFFFFF9, 0xFFFFFFFA, 0xFFFFFFFB, 0xFFFFFFFC,
        0xFFFFFFFD, 0xFFFFFFFE, 0xFFFFFFFF,
    };
    memcpy(values, special, sizeof special);
    size_t count = LENGTH(special);
    if (capacity <= 64) {
        for (uint32_t value = 0; value < capacity + 8; value++)
            values[count++] = value;
    }
    return count;
}

enum { HOSTILE_VALUES = 256 };

static size_t hostile_starts(uint32_t capacity, uint32_t *values)
{
    size_t count = 0;
    if (capacity <= 64) {
        for (uint32_t value = 0; value < capacity; value += 4)
            values[count++] = value;
        return count;
    }
    const uint32_t special[] = {
        0, 4, 0xFFFC, 0x10000, capacity - 65540, capacity - 8, capacity - 4,
    };
    memcpy(values, special, sizeof special);
    return LENGTH(special);
}

/* The verdict on an index, said in another way than ring.h does. RING_OK: a well-formed one. */
static enum ring_status expected_index_status(uint32_t index, uint32_t capacity)
{
    if (index == 0xFFFFFFFF)
        return RING_ENDED;
    return (index & 3) || index / capacity ? RING_CORRUPT : RING_OK;
}

static uint32_t distance(uint32_t from, uint32_t to, uint32_t capacity)
{
    return to >= from ? to - from : capacity - from + to;
}

static void touch(const uint8_t *data, uint32_t size)
{
    static volatile uint8_t sink;
    for (uint32_t i = 0; i < size; i++)
        sink = data[i];
    (void)sink;
}

static enum ring_status expected_peek(uint32_t start, uint32_t tail, uint32_t size,
                                      uint32_t capacity)
{
    enum ring_status status = expected_index_status(tail, capacity);
    if (status != RING_OK)
        return status;
    if (tail == start)
        return RING_EMPTY;
    if (size > 0xFFFF || expected_span(size) > distance(start, tail, capacity))
        return RING_CORRUPT;
    return RING_OK;
}

static void consume_hostile(struct pair *pair, uint32_t start, uint32_t tail, uint32_t size)
{
    const uint32_t capacity = pair->g.capacity;
    const enum ring_status expected = expected_peek(start, tail, size, capacity);
    struct ring_view view;

    pair_start_at(pair, start);
    pair->g.ring->tail = tail;
    ring_packet_at(pair->g.ring, start)->size = size;
    CHECK(ring_peek(&pair->c, &view) == expected);
    if (expected == RING_OK) {
        CHECK(view.size == size);
        CHECK(view.data + size <= pair->g.ring->data + capacity + TUN_RING_TRAILING_BYTES);
        touch(view.data, size);
        ring_release(&pair->c, view.end);
        CHECK(pair->g.ring->head == (start + expected_span(size)) % capacity);
        return;
    }
    CHECK(pair->c.next == start && pair->c.head == start && pair->g.ring->head == start);
    if (expected != RING_CORRUPT || expected_index_status(tail, capacity) != RING_OK) {
        pair_start_at(pair, start);
        pair->g.ring->tail = tail;
        CHECK(ring_arm(&pair->c) == expected); /* it never says "wait" for what is no index */
    }
}

static enum ring_status expected_reserve(uint32_t start, uint32_t head, uint32_t size,
                                         uint32_t capacity)
{
    enum ring_status status = expected_index_status(head, capacity);
    if (status != RING_OK)
        return status;
    uint32_t used = distance(head, start, capacity);
    return expected_span(size) + used + 4 <= capacity ? RING_OK : RING_FULL;
}

static void produce_hostile(struct pair *pair, uint32_t start, uint32_t head, uint32_t size)
{
    const uint32_t capacity = pair->g.capacity;
    const enum ring_status expected = expected_reserve(start, head, size, capacity);
    uint8_t *data = NULL;

    pair_start_at(pair, start);
    pair->p.head = (start + 4) % capacity; /* full as far as it knows: it has to read Head */
    pair->g.ring->head = head;
    CHECK(ring_reserve(&pair->p, size, &data) == expected);
    if (expected != RING_OK) {
        CHECK(data == NULL);
        CHECK(pair->p.reserved == start && pair->g.ring->tail == start);
        return;
    }
    CHECK(data + size <= pair->g.ring->data + capacity + TUN_RING_TRAILING_BYTES);
    memset(data, 0xAB, size);
    ring_commit(&pair->p, size);
    CHECK(ring_submit(&pair->p));
    CHECK(pair->g.ring->tail == (start + expected_span(size)) % capacity);
}

static unsigned long hostile_values(struct pair *pair)
{
    uint32_t starts[HOSTILE_VALUES], indices[HOSTILE_VALUES], sizes[HOSTILE_VALUES];
    const size_t start_count = hostile_starts(pair->g.capacity, starts);
    const size_t index_count = hostile_indices(pair->g.capacity, indices);
    const size_t size_count = hostile_sizes(pair->g.capacity, sizes);
    unsigned long tried = 0;

    for (size_t i = 0; i < start_count; i++) {
        for (size_t j = 0; j < index_count; j++) {
            for (size_t k = 0; k < size_count; k++, tried++) {
                consume_hostile(pair, starts[i], indices[j], sizes[k]);
                if (sizes[k] <= TUN_PACKET_MAX_SIZE) /* the producer's own: never larger */
                    produce_hostile(pair, starts[i], indices[j], sizes[k]);
            }
        }
    }
    return tried;
}

/* Each side starts where its own index stands, and at no place outside the ring. */
static void start_hostile(uint32_t capacity)
{
    struct pair pair = pair_open(capacity, TIGHT_AFTER);
    uint32_t indices[HOSTILE_VALUES];
    const size_t count = hostile_indices(capacity, indices);

    for (size_t i = 0; i < count; i++) {
        bool valid = expected_index_status(indices[i], capacity) == RING_OK;
        uint32_t start = valid ? indices[i] : 0;
        pair.g.ring->head = pair.g.ring->tail = indices[i];
        CHECK((ring_producer_init(&pair.p, pair.g.ring, capacity) == RING_OK) == valid);
        CHECK((ring_consumer_init(&pair.c, pair.g.ring, capacity) == RING_OK) == valid);
        CHECK(pair.p.tail == start && pair.p.reserved == start);
        CHECK(pair.c.head == start && pair.c.next == start);
    }
    pair_close(&pair);
}

/* What was checked once is what is used: nothing in the ring can change it. */
static void checked_copy_is_used(uint32_t capacity)
{
    struct pair pair = pair_open(capacity, TIGHT_AFTER);
    struct ring_view view;
    uint8_t *data;

    CHECK(ring_refresh_head(&pair.p) == RING_OK);
    pair.g.ring->head = 0xFFFFFFF3;
    CHECK(ring_reserve(&pair.p, 0, &data) == RING_OK);
    ring_commit(&pair.p, 0);
    CHECK(ring_reserve(&pair.p, 0, &data) == RING_OK);
    ring_commit(&pair.p, 0);
    ring_submit(&pair.p);
    CHECK(ring_peek(&pair.c, &view) == RING_OK);
    pair.g.ring->tail = 0xFFFFFFF3;
    CHECK(ring_peek(&pair.c, &view) == RING_OK);
    CHECK(ring_peek(&pair.c, &view) == RING_CORRUPT);

    pair_start_at(&pair, 0);
    ring_producer_end(&pair.p);
    CHECK(ring_peek(&pair.c, &view) == RING_ENDED);
    CHECK(ring_arm(&pair.c) == RING_ENDED);
    ring_consumer_end(&pair.c);
    CHECK(ring_refresh_head(&pair.p) == RING_ENDED);
    pair_close(&pair);
}

static void test_hostile_values(void)
{
    current_test = "hostile values";
    unsigned long tried = 0;
    for (int placement = TIGHT_BEFORE; placement <= TIGHT_AFTER; placement++) {
        for (size_t i = 0; i <= LENGTH(SMALL); i++) {
            struct pair pair = pair_open(i < LENGTH(SMALL) ? SMALL[i] : LARGE, placement);
            tried += hostile_values(&pair);
            pair_close(&pair);
        }
    }
    start_hostile(LARGE);
    for (size_t i = 0; i < LENGTH(SMALL); i++) {
        start_hostile(SMALL[i]);
        checked_copy_is_used(SMALL[i]);
    }
    printf("ok     hostile values: %lu combinations of position, index and Size\n", tried);
}

static void test_capacities(void)
{
    current_test = "capacities";
    for (uint64_t bit = 1; bit; bit <<= 1) {
        bool power = bit >= 16 && bit <= TUN_RING_MAX_CAPACITY;
        CHECK(ring_is_capacity(bit) == power);
        CHECK(!ring_is_capacity(bit + 1) || bit + 1 == 16);
        CHECK(!ring_is_capacity(bit - 1) || bit - 1 == 16);
        CHECK(!ring_is_capacity(bit * 3));
    }
    CHECK(!ring_is_capacity(0));
    CHECK(!ring_is_capacity(0x100000000u + 0x20000));
    printf("ok     capacities\n");
}

/* ---- a hostile thread at full speed ---------------------------------------------------------- */

/* Every access of this test to the ring is atomic, also to the packets' bytes: so a sanitizer sees
 * no data race in what the scribbler does, and a report is one about ring.h. */

struct scribble {
    struct pair pair;
    bool stop;
    uint64_t written, produced[RING_CORRUPT + 1], consumed[RING_CORRUPT + 1];
};

static uint32_t scribbled_index(uint64_t *state, uint32_t capacity)
{
    switch (random_below(state, 8)) {
    case 0:
        return TUN_RING_CLOSED;
    case 1:
        return capacity;
    case 2:
        return (uint32_t)random_next(state);
    case 3:
        return random_below(state, capacity);
    default:
        return random_below(state, capacity / 4) * 4;
    }
}

static uint32_t scribbled_size(uint64_t *state, uint32_t capacity)
{
    switch (random_below(state, 8)) {
    case 0:
        return 0x10000;
    case 1:
        return 0xFFFFFFFF;
    case 2:
        return (uint32_t)random_next(state);
    case 3:
        return TUN_PACKET_MAX_SIZE;
    default:
        return random_below(state, capacity);
    }
}

static void *scribbler(void *argument)
{
    struct scribble *s = argument;
    struct tun_ring *ring = s->pair.g.ring;
    const uint32_t capacity = s->pair.g.capacity;
    uint64_t state = seed ^ 1;

    for (; !__atomic_load_n(&s->stop, __ATOMIC_RELAXED); s->written++) {
        struct tun_packet *packet = ring_packet_at(ring, random_below(&state, capacity / 4) * 4);
        __atomic_store_n(&ring->head, scribbled_index(&state, capacity), __ATOMIC_RELAXED);
        __atomic_store_n(&packet->size, scribbled_size(&state, capacity), __ATOMIC_RELAXED);
        __atomic_store_n(&ring->tail, scribbled_index(&state, capacity), __ATOMIC_RELAXED);
        __atomic_store_n(&ring->alertable, (int32_t)random_next(&state), __ATOMIC_RELAXED);
    }
    return NULL;
}

static void write_atomically(uint8_t *data, uint32_t size)
{
    for (uint32_t i = 0; i < size; i += 251)
        __atomic_store_n(data + i, 0xAB, __ATOMIC_RELAXED);
    if (size)
        __atomic_store_n(data + size - 1, 0xAB, __ATOMIC_RELAXED);
}

static void read_atomically(const uint8_t *data, uint32_t size)
{
    for (uint32_t i = 0; i < size; i += 251)
        (void)__atomic_load_n(data + i, __ATOMIC_RELAXED);
    if (size)
        (void)__atomic_load_n(data + size - 1, __ATOMIC_RELAXED);
}

static void *scribbled_producer(void *argument)
{
    struct scribble *s = argument;
    struct ring_producer *p = &s->pair.p;
    uint64_t state = seed ^ 2;

    while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
        uint32_t size = random_size(&state, p->capacity);
        uint8_t *data;
        enum ring_status status = ring_reserve(p, size, &data);
        CHECK(status == RING_OK || status == RING_FULL || status == RING_ENDED ||
              status == RING_CORRUPT);
        s->produced[status]++;
        if (status != RING_OK)
            continue;
        write_atomically(data, size);
        ring_commit(p, size);
        ring_submit(p);
        (void)ring_consumer_waits(p);
    }
    return NULL;
}

static void *scribbled_consumer(void *argument)
{
    struct scribble *s = argument;
    struct ring_consumer *c = &s->pair.c;

    while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
        struct ring_view view;
        enum ring_status status = ring_peek(c, &view);
        CHECK(status == RING_OK || status == RING_EMPTY || status == RING_ENDED ||
              status == RING_CORRUPT);
        s->consumed[status]++;
        if (status == RING_OK) {
            CHECK(view.size <= TUN_PACKET_MAX_SIZE);
            read_atomically(view.data, view.size);
            ring_release(c, view.end);
        } else {
            (void)ring_arm(c);
            ring_disarm(c);
            c->tail = c->next; /* a real consumer stops at a corrupt ring: here it starts anew */
        }
    }
    return NULL;
}

static void scribble(uint32_t capacity, enum placement placement)
{
    void *(*const bodies[])(void *) = {scribbler, scribbled_producer, scribbled_consumer};
    struct scribble s = {.pair = pair_open(capacity, placement)};
    pthread_t threads[LENGTH(bodies)];

    for (size_t i = 0; i < LENGTH(bodies); i++)
        CHECK(pthread_create(&threads[i], NULL, bodies[i], &s) == 0);
    nanosleep(&(struct timespec){.tv_nsec = 500 * 1000 * 1000}, NULL);
    __atomic_store_n(&s.stop, true, __ATOMIC_RELAXED);
    for (size_t i = 0; i < LENGTH(bodies); i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(s.written > 0);
    printf("ok     hostile thread, %u bytes: %llu scribbles; producer ok %llu full %llu ended %llu "
           "corrupt %llu; consumer ok %llu empty %llu ended %llu corrupt %llu\n",
           capacity, (unsigned long long)s.written, (unsigned long long)s.produced[RING_OK],
           (unsigned long long)s.produced[RING_FULL], (unsigned long long)s.produced[RING_ENDED],
           (unsigned long long)s.produced[RING_CORRUPT], (unsigned long long)s.consumed[RING_OK],
           (unsigned long long)s.consumed[RING_EMPTY], (unsigned long long)s.consumed[RING_ENDED],
           (unsigned long long)s.consumed[RING_CORRUPT]);
    pair_close(&s.pair);
}

static void test_hostile_thread(void)
{
    current_test = "hostile thread";
    for (int placement = TIGHT_BEFORE; placement <= TIGHT_AFTER; placement++) {
        scribble(64, placement);
        scribble(LARGE, placement);
    }
}

/* ---- two threads that sleep and wake --------------------------------------------------------- */

/* The producer often waits until all is read before it goes on: it then writes just when the
 * consumer arms, and nothing that comes later would hide a wake-up that was lost. */

#define LOST_AFTER_MS 5000

struct handshake {
    struct pair pair;
    int event;
    uint32_t packets;
    uint32_t largest;
    uint64_t signals, waits;
};

static void relax(uint32_t *spins)
{
    if (++*spins % 64 == 0)
        sched_yield();
}

static uint32_t handshake_size(uint64_t *state, uint32_t largest)
{
    if (largest > 1500 && !one_in(state, 1000))
        return random_below(state, 1501);
    return random_below(state, largest + 1);
}

static void publish(struct handshake *h)
{
    if (ring_submit(&h->pair.p) && ring_consumer_waits(&h->pair.p)) {
        event_signal(h->event);
        h->signals++;
    }
}

static void wait_until_all_is_read(struct ring_producer *p)
{
    for (uint32_t spins = 0; p->head != p->tail; relax(&spins))
        CHECK(ring_refresh_head(p) == RING_OK);
}

static uint8_t *reserve_patiently(struct handshake *h, uint32_t size)
{
    uint8_t *data = NULL;
    enum ring_status status;
    for (uint32_t spins = 0; (status = ring_reserve(&h->pair.p, size, &data)) == RING_FULL;
         relax(&spins))
        publish(h);
    CHECK(status == RING_OK);
    return data;
}

static void *handshake_producer(void *argument)
{
    struct handshake *h = argument;
    uint64_t sizes = seed, state = seed ^ 3;
    uint32_t batch = 0;

    for (uint32_t number = 0; number < h->packets; number++) {
        uint32_t size = handshake_size(&sizes, h->largest);
        packet_fill(reserve_patiently(h, size), size, number);
        ring_commit(&h->pair.p, size);
        if (batch--)
            continue;
        publish(h);
        batch = random_below(&state, 16);
        if (one_in(&state, 4))
            wait_until_all_is_read(&h->pair.p);
    }
    publish(h);
    return NULL;
}

static void handshake_wait(struct handshake *h)
{
    struct ring_consumer *c = &h->pair.c;
    struct pollfd waited = {.fd = h->event, .events = POLLIN};

    ring_release(c, c->next);
    if (ring_arm(c) == RING_EMPTY) {
        CHECK(poll(&waited, 1, LOST_AFTER_MS) == 1); /* a lost wake-up, or a stopped machine */
        h->waits++;
    }
    ring_disarm(c);
    event_clear(h->event);
}

static void handshake_consume(struct handshake *h)
{
    uint64_t sizes = seed, state = seed ^ 4;

    for (uint32_t number = 0; number < h->packets;) {
        struct ring_view view;
        enum ring_status status = ring_peek(&h->pair.c, &view);
        if (status == RING_EMPTY) {
            handshake_wait(h);
            continue;
        }
        CHECK(status == RING_OK);
        CHECK(view.size == handshake_size(&sizes, h->largest));
        CHECK(packet_is(view.data, view.size, number));
        number++;
        if (one_in(&state, 4))
            ring_release(&h->pair.c, view.end);
    }
    ring_release(&h->pair.c, h->pair.c.next); /* the producer may be waiting for just that */
}

static void handshake(uint32_t capacity, uint32_t packets)
{
    struct handshake h = {
        .pair = pair_open(capacity, TIGHT_AFTER),
        .event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
        .packets = packets,
        .largest = capacity - 8 < TUN_PACKET_MAX_SIZE ? capacity - 8 : TUN_PACKET_MAX_SIZE,
    };
    pthread_t producer;

    CHECK(h.event >= 0);
    CHECK(pthread_create(&producer, NULL, handshake_producer, &h) == 0);
    handshake_consume(&h);
    CHECK(pthread_join(producer, NULL) == 0);
    CHECK(h.waits > 0 && h.signals > 0);
    printf("ok     handshake, %u bytes: %u packets, %llu waits, %llu signals\n", capacity, packets,
           (unsigned long long)h.waits, (unsigned long long)h.signals);
    close(h.event);
    pair_close(&h.pair);
}

static void test_handshake(void)
{
    current_test = "handshake";
    handshake(LARGE, 1000000);
    handshake(64, 100000);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        seed = strtoull(argv[1], NULL, 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    table_init();
    test_capacities();
    test_histories();
    test_full_and_empty();
    test_trailing_bytes();
    test_hostile_values();
    test_hostile_thread();
    test_handshake();
    printf("ok     all, seed %llu\n", (unsigned long long)seed);
    return 0;
}
