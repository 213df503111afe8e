/* What an impaired link does to packets, and the queue in which they wait for it.
 *
 * What happens to a packet is decided by the seed and the packet's number alone: the twin in plain
 * Python (host/impaired.py) decides the same, and a test holds the two equal. The queue knows no
 * clock: its caller says what time it is, in nanoseconds that never go back. It has no lock. */
#ifndef RINGTUN_IMPAIRMENT_H
#define RINGTUN_IMPAIRMENT_H

#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define IMPAIRMENT_NEVER UINT64_MAX /* the due time of nothing */

/* ringtun.host.impairment.Terms: see `Impairment` there for what each does. */
struct impairment {
    uint64_t loss, duplicate, damage, reorder; /* how often, of 2 to the power of 53 */
    uint64_t delay, jitter;                    /* nanoseconds */
    uint64_t rate;                             /* bits a second; 0: there is none */
    uint64_t limit;                            /* bytes that may wait */
    uint64_t hold;                             /* nanoseconds that a packet waits for the next one */
    uint64_t seed;
};

struct impaired_counters {
    uint64_t lost;
    uint64_t duplicated;
    uint64_t damaged;
    uint64_t held;
    uint64_t overflowed; /* each copy that found no room, by limit or for want of memory */
};

/* A perfect queue, until impaired_set. Returns NULL where there is no memory. */
struct impaired_queue *impaired_create(void);
void impaired_destroy(struct impaired_queue *queue);

/* From the next packet on, which is number 0. What waits keeps its time, and what comes stays behind
 * it. */
void impaired_set(struct impaired_queue *queue, const struct impairment *impairment);

/* Takes a packet of at least 1 byte, and queues it, or does not. */
void impaired_put(struct impaired_queue *queue, const void *packet, uint32_t size, uint64_t now);

/* Gives the next packet that is due, as a host's read does; -EAGAIN: none is. */
ssize_t impaired_take(struct impaired_queue *queue, uint64_t now, const struct iovec *pieces,
                      int count);

/* When the next packet is due. */
uint64_t impaired_due(const struct impaired_queue *queue);

/* Throws away what waits; returns how many packets. */
uint64_t impaired_drain(struct impaired_queue *queue);

const struct impaired_counters *impaired_counters(const struct impaired_queue *queue);

#endif
