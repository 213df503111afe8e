#include "checksum.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

struct routines {
    const char *name;
    bool (*here)(void); /* on this CPU */
    uint64_t (*add)(const void *data, size_t size);
    uint64_t (*copy)(void *to, const void *from, size_t size);
};

/* One register with AVX2, and one with SSE2 or NEON; plain words elsewhere. */
typedef uint64_t lanes4 __attribute__((vector_size(32)));
typedef uint64_t lanes2 __attribute__((vector_size(16)));

/* Take the next word from `from` and, where it copies, store it.
 *
 * Ensure that what is stored and what is summed come from one load: the compiler might load again. */
#define TAKE(word)                                                                                \
    do {                                                                                          \
        memcpy(&(word), from, sizeof(word));                                                      \
        if (copies) {                                                                             \
            __asm__ __volatile__("" ::: "memory");                                                \
            memcpy(to, &(word), sizeof(word));                                                    \
            to += sizeof(word);                                                                   \
        }                                                                                         \
        from += sizeof(word);                                                                     \
        size -= sizeof(word);                                                                     \
    } while (0)

/* All routines from one text: with `copies` false `to` is not looked at; `wide` is for CPUs whose
 * registers hold lanes4.
 *
 * 32-bit halves are added up in 64 bits: no carry is lost, and modulo 65,535 it is the sum of their
 * 16-bit words. */
static inline __attribute__((always_inline)) uint64_t walk(bool wide, bool copies, uint8_t *to,
                                                          const uint8_t *from, size_t size)
{
    uint64_t sum = 0;

    if (wide) {
        lanes4 block, low = {0}, high = {0};
#pragma GCC unroll 4
        while (size >= sizeof block) {
            TAKE(block);
            low += block & 0xFFFFFFFF;
            high += block >> 32;
        }
        low += high;
        sum += low[0] + low[1] + low[2] + low[3];
    }
    lanes2 block, low = {0}, high = {0};
#pragma GCC unroll 4
    while (size >= sizeof block) {
        TAKE(block);
        low += block & 0xFFFFFFFF;
        high += block >> 32;
    }
    low += high;
    sum += low[0] + low[1];

    if (size >= 8) {
        uint64_t word;
        TAKE(word);
        sum += (word & 0xFFFFFFFF) + (word >> 32);
    }
    if (size >= 4) {
        uint32_t word;
        TAKE(word);
        sum += word;
    }
    if (size >= 2) {
        uint16_t word;
        TAKE(word);
        sum += word;
    }
    if (size) {
        uint8_t last[2] = {0};
        uint16_t word;
        TAKE(last[0]);
        memcpy(&word, last, sizeof word);
        sum += word;
    }
    return sum;
}

static bool anywhere(void)
{
    return true;
}

static uint64_t add_generic(const void *data, size_t size)
{
    return walk(false, false, NULL, data, size);
}

static uint64_t copy_generic(void *to, const void *from, size_t size)
{
    return walk(false, true, to, from, size);
}

static const struct routines generic = {"generic", anywhere, add_generic, copy_generic};

#if defined __x86_64__ || defined __i386__
static bool where_avx2(void)
{
    return __builtin_cpu_supports("avx2");
}

__attribute__((target("avx2"))) static uint64_t add_avx2(const void *data, size_t size)
{
    return walk(true, false, NULL, data, size);
}

__attribute__((target("avx2"))) static uint64_t copy_avx2(void *to, const void *from, size_t size)
{
    return walk(true, true, to, from, size);
}

static const struct routines avx2 = {"avx2", where_avx2, add_avx2, copy_avx2};
#endif

/* The best first. */
static const struct routines *const all[] = {
#if defined __x86_64__ || defined __i386__
    &avx2,
#endif
    &generic,
};

/* NULL until first used. Threads may choose at the same time: they choose the same. */
static const struct routines *chosen;

int checksum_use(const char *name)
{
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if ((!name || !strcmp(name, all[i]->name)) && all[i]->here()) {
            __atomic_store_n(&chosen, all[i], __ATOMIC_RELAXED);
            return 0;
        }
    return -ENOENT;
}

static inline const struct routines *routines(void)
{
    const struct routines *found = __atomic_load_n(&chosen, __ATOMIC_RELAXED);
    if (!found) {
        checksum_use(NULL);
        found = __atomic_load_n(&chosen, __ATOMIC_RELAXED);
    }
    return found;
}

uint64_t checksum_add(const void *data, size_t size)
{
    return routines()->add(data, size);
}

uint64_t checksum_copy(void *to, const void *from, size_t size)
{
    return routines()->copy(to, from, size);
}

const char *checksum_routines(void)
{
    return routines()->name;
}
