/* How a producer waits for room in a full ring.
 *
 * The contract has no event by which a producer learns of room, so this belongs to no ring in
 * memory: two sides that both know of it share it beside the ring. It mirrors Alertable. What the other
 * side writes there costs at most a signal too many, or one that does not come.
 */
#ifndef RINGTUN_SPACE_H
#define RINGTUN_SPACE_H

#include "ring.h"

struct ring_space {
    uint32_t *producer_waits; /* where both sides see it */
    int event;
};

/* Ask to be woken when the consumer releases. True: wait for the event now. */
static inline bool ring_arm_space(struct ring_producer *p, struct ring_space *space)
{
    uint32_t head = p->head;
    __atomic_store_n(space->producer_waits, 1, __ATOMIC_RELAXED);
    ring_full_fence();
    return ring_refresh_head(p) == RING_OK && p->head == head;
}

static inline void ring_disarm_space(struct ring_space *space)
{
    __atomic_store_n(space->producer_waits, 0, __ATOMIC_RELAXED);
}

/* After ring_release: whether the producer waits for room and is to be woken. */
static inline bool ring_producer_waits(const struct ring_space *space)
{
    ring_full_fence();
    return __atomic_load_n(space->producer_waits, __ATOMIC_RELAXED) != 0;
}

#endif
