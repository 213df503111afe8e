/* The coalescer under the sanitizers: full batches, the fuzzer's seeds (the arguments) cut short and
 * changed, and memory that changes meanwhile. Prints a line a test, and "ok all".
 */
#include <pthread.h>

#include "coalesce_check.h"

#ifdef __SANITIZE_THREAD__
#define RACES_ARE_ERRORS true
#else
#define RACES_ARE_ERRORS false
#endif

enum {
    ALL = COALESCE_TCP4 | COALESCE_TCP6 | COALESCE_UDP4 | COALESCE_UDP6,
    INPUT_MAX = 4096,
    CHANGED = 2000,
    SHARED = 64,       /* packets in memory that changes */
    SHARED_SIZE = 256, /* bytes of each */
    WRONG = 4,         /* bytes at a time */
    BATCHES = 20000,
};

static uint32_t random_number(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* Number `number` of a flow, of `size` bytes. */
static void make_packet(uint8_t *packet, uint32_t kind, uint32_t number, uint32_t size)
{
    bool four = kind & (COALESCE_TCP4 | COALESCE_UDP4), tcp = kind & (COALESCE_TCP4 | COALESCE_TCP6);
    uint32_t start = four ? 20 : 40, headers = start + (tcp ? 20 : 8);
    memset(packet, 0, headers);
    memset(packet + headers, (int)number, size - headers);
    packet[0] = four ? 0x45 : 0x60;
    packet[four ? 8 : 7] = 64;
    packet[four ? 9 : 6] = tcp ? 6 : 17;
    check_put(packet + 4, four ? number : 0, 2);
    packet[start + 1] = 7;
    if (tcp) {
        check_put(packet + start + 4, number * (size - headers), 4);
        packet[start + 12] = 0x50;
        packet[start + 13] = 0x10;
    }
    complete(packet, size);
}

static void test_a_full_batch(uint32_t kind)
{
    struct checked *k = malloc(sizeof *k);
    CHECK(k);
    check_begin(k, kind, true, COALESCE_PACKETS);
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < COALESCE_PACKETS; i++) {
            uint8_t *packet = allocate(80);
            make_packet(packet, kind, i, 80);
            check_add(k, packet, 80);
        }
        CHECK(k->coalescer.item_count == 1);
        CHECK(!coalesce_add(&k->coalescer, k->packets[0], 80));
        check_end(k);
    }
    free(k);
    printf("ok     a full batch of kind %u\n", kind);
}

static void test_seed(const char *path)
{
    uint8_t seed[INPUT_MAX], input[INPUT_MAX];
    uint32_t state = 1, merged = 0;
    FILE *file = fopen(path, "rb");
    CHECK(file);
    size_t size = fread(seed, 1, sizeof seed, file);
    CHECK(!fclose(file) && size && size < sizeof seed);
    uint32_t before = check_input(seed, size);
    CHECK(before);
    for (size_t shorter = 0; shorter < size; shorter++)
        check_input(seed, shorter);
    for (int i = 0; i < CHANGED; i++) {
        memcpy(input, seed, size);
        for (uint32_t changes = random_number(&state) % 4 + 1; changes; changes--)
            input[random_number(&state) % size] = (uint8_t)random_number(&state);
        merged += check_input(input, size) > 0;
    }
    printf("ok     %u went together, and in %u of %d changed: %s\n", before, merged, CHANGED, path);
}

/* ---- memory that changes ---------------------------------------------------------------------- */

struct shared {
    uint8_t *memory;
    uint32_t end;
};

/* The client: a few bytes, of headers most of them, are wrong at any time, and right again soon. */
static void *scribble(void *argument)
{
    struct shared *shared = argument;
    volatile uint8_t *places[WRONG] = {NULL};
    uint8_t before[WRONG] = {0};
    uint32_t state = 7;
    for (uint32_t i = 0; !__atomic_load_n(&shared->end, __ATOMIC_RELAXED); i = (i + 1) % WRONG) {
        if (places[i])
            *places[i] = before[i];
        /* Each place is in packets of its own: what is put right is what was right. */
        uint32_t packet = random_number(&state) % (SHARED / WRONG) * WRONG + i;
        uint32_t at = random_number(&state) % 64;
        places[i] = shared->memory + packet * SHARED_SIZE + at;
        before[i] = *places[i];
        *places[i] = (uint8_t)random_number(&state);
    }
    return NULL;
}

/* What would be written is in bounds, and such as the host takes. */
static void check_scribbled(struct coalescer *c, const struct shared *shared, uint32_t *together)
{
    static struct iovec pieces[COALESCE_PACKETS + 1];
    static uint8_t large[0x10000];
    for (uint32_t i = 0; i < c->item_count; i++) {
        const struct coalesce_item *item = &c->items[i];
        int count = coalesce_pieces(c, i, pieces);
        struct vnet_header vnet;
        size_t size = pieces[0].iov_len - sizeof vnet;
        CHECK(pieces[0].iov_len >= sizeof vnet && size <= sizeof item->header - sizeof vnet);
        CHECK(pieces[0].iov_base == item->header);
        memcpy(&vnet, pieces[0].iov_base, sizeof vnet);
        memcpy(large, item->header + sizeof vnet, size);
        for (int j = 1; j < count; j++) {
            const uint8_t *base = pieces[j].iov_base;
            CHECK(base >= shared->memory && pieces[j].iov_len <= SHARED_SIZE);
            CHECK(base + pieces[j].iov_len <= shared->memory + SHARED * SHARED_SIZE);
            memcpy(large + size, base, pieces[j].iov_len);
            size += pieces[j].iov_len;
        }
        CHECK(size == item->size);
        if (item->packets > 1) {
            struct segmenter segmenter;
            CHECK(segment_begin(&segmenter, &vnet, large, item->size));
            *together += item->packets;
        }
    }
}

static void test_memory_that_changes(bool verify)
{
    struct shared shared = {.memory = malloc(SHARED * SHARED_SIZE)};
    struct coalescer *c = malloc(sizeof *c);
    pthread_t thread;
    uint32_t together = 0;
    CHECK(shared.memory && c);
    for (uint32_t i = 0; i < SHARED; i++)
        make_packet(shared.memory + i * SHARED_SIZE, 1u << i % 4, i / 4, SHARED_SIZE);
    coalesce_init(c, ALL, verify, 64);
    CHECK(!pthread_create(&thread, NULL, scribble, &shared));
    for (int batch = 0; batch < BATCHES; batch++) {
        for (uint32_t i = 0; i < SHARED; i++)
            CHECK(coalesce_add(c, shared.memory + i * SHARED_SIZE, SHARED_SIZE));
        check_scribbled(c, &shared, &together);
        coalesce_reset(c);
    }
    __atomic_store_n(&shared.end, 1, __ATOMIC_RELAXED);
    CHECK(!pthread_join(thread, NULL));
    CHECK(together > BATCHES);
    printf("ok     memory that changes, %u of %u together\n", together, BATCHES * SHARED);
    free(shared.memory);
    free(c);
}

int main(int count, char **paths)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (uint32_t kind = 1; kind <= COALESCE_UDP6; kind *= 2)
        test_a_full_batch(kind);
    CHECK(count > 1);
    for (int i = 1; i < count; i++)
        test_seed(paths[i]);
    if (RACES_ARE_ERRORS) {
        printf("NOT TRIED: memory that changes, a race on purpose\n");
    } else {
        test_memory_that_changes(true);
        test_memory_that_changes(false);
    }
    printf("ok     all\n");
    return 0;
}
