#include "impairment.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "pieces.h"

/* ---- decisions ------------------------------------------------------------------------------- */

/* Each packet has so many random numbers of its own, whether it needs them or not. */
enum draw { LOSS, DUPLICATE, DAMAGE, DAMAGED_BIT, REORDER, JITTER, DRAWS = 8 };

/* One output of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators,
 * 2014); its state is a multiple of a constant, so that any one can be had without those before. */
static uint64_t draw(const struct impairment *impairment, uint64_t number, enum draw which)
{
    uint64_t z = impairment->seed + (number * DRAWS + which + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static bool happens(uint64_t number, uint64_t probability)
{
    return number >> 11 < probability;
}

/* ---- the queue ------------------------------------------------------------------------------- */

struct waiting {
    struct waiting *next;
    uint64_t due;
    uint32_t size;
    uint8_t packet[];
};

/* Packets in the order in which they leave: none is due before the one in front of it. */
struct line {
    struct waiting *first, *last;
};

struct impaired_queue {
    struct impairment impairment;
    uint64_t number;   /* of the next packet */
    uint64_t free_at;  /* when the rate lets the next packet begin to leave */
    uint64_t last_due; /* no packet is due before one that came before it */
    uint64_t used;     /* bytes that wait */
    struct line passing, held;
    struct impaired_counters counters;
};

static void append(struct line *line, struct waiting *waiting)
{
    waiting->next = NULL;
    *(line->first ? &line->last->next : &line->first) = waiting;
    line->last = waiting;
}

static struct waiting *remove_first(struct line *line)
{
    struct waiting *waiting = line->first;
    line->first = waiting->next;
    return waiting;
}

struct impaired_queue *impaired_create(void)
{
    struct impaired_queue *queue = calloc(1, sizeof *queue);
    if (queue)
        queue->impairment.limit = UINT64_MAX;
    return queue;
}

void impaired_destroy(struct impaired_queue *queue)
{
    if (queue)
        impaired_drain(queue);
    free(queue);
}

void impaired_set(struct impaired_queue *queue, const struct impairment *impairment)
{
    queue->impairment = *impairment;
    queue->number = 0;
}

/* When a packet that was sent now is due, if nothing holds it back. */
static uint64_t due_time(struct impaired_queue *q, uint32_t size, uint64_t jitter, uint64_t now)
{
    const struct impairment *terms = &q->impairment;
    uint64_t due = now;
    if (terms->rate) {
        due = q->free_at > now ? q->free_at : now;
        due += size * UINT64_C(8000000000) / terms->rate;
        q->free_at = due;
    }
    due += terms->delay + jitter % (terms->jitter + 1);
    q->last_due = due > q->last_due ? due : q->last_due;
    return q->last_due;
}

static bool enqueue(struct impaired_queue *q, struct line *line, const void *packet, uint32_t size,
                    uint64_t due)
{
    struct waiting *waiting = NULL;
    if (q->used + size <= q->impairment.limit)
        waiting = malloc(sizeof *waiting + size);
    if (!waiting) {
        q->counters.overflowed++;
        return false;
    }
    waiting->due = due;
    waiting->size = size;
    memcpy(waiting->packet, packet, size);
    append(line, waiting);
    q->used += size;
    return true;
}

/* Those that are held back follow the packet that has just come. */
static void let_held_follow(struct impaired_queue *q)
{
    uint64_t due = q->passing.last->due;
    while (q->held.first) {
        struct waiting *waiting = remove_first(&q->held);
        waiting->due = due;
        append(&q->passing, waiting);
    }
}

void impaired_put(struct impaired_queue *q, const void *packet, uint32_t size, uint64_t now)
{
    const struct impairment *terms = &q->impairment;
    uint64_t number = q->number++;
    if (happens(draw(terms, number, LOSS), terms->loss)) {
        q->counters.lost++;
        return;
    }
    bool twice = happens(draw(terms, number, DUPLICATE), terms->duplicate);
    bool damaged = happens(draw(terms, number, DAMAGE), terms->damage);
    bool held = happens(draw(terms, number, REORDER), terms->reorder);
    q->counters.duplicated += twice;
    q->counters.damaged += damaged;
    q->counters.held += held;
    if (q->used + size > terms->limit) {
        q->counters.overflowed += 1 + twice;
        return;
    }
    struct line *line = held ? &q->held : &q->passing;
    uint64_t due = due_time(q, size, draw(terms, number, JITTER), now) + (held ? terms->hold : 0);
    if (!enqueue(q, line, packet, size, due)) {
        q->counters.overflowed += twice;
        return;
    }
    if (damaged) {
        uint64_t bit = 4 + draw(terms, number, DAMAGED_BIT) % (size * UINT64_C(8) - 4);
        line->last->packet[bit / 8] ^= 0x80 >> bit % 8;
    }
    if (twice)
        enqueue(q, line, line->last->packet, size, due);
    if (!held)
        let_held_follow(q);
}

/* The line whose first packet leaves next. */
static struct line *next_line(struct impaired_queue *q)
{
    const struct waiting *passing = q->passing.first, *held = q->held.first;
    return !passing || (held && held->due < passing->due) ? &q->held : &q->passing;
}

uint64_t impaired_due(const struct impaired_queue *queue)
{
    const struct waiting *first = next_line((struct impaired_queue *)queue)->first;
    return first ? first->due : IMPAIRMENT_NEVER;
}

ssize_t impaired_take(struct impaired_queue *q, uint64_t now, const struct iovec *pieces, int count)
{
    struct line *line = next_line(q);
    if (!line->first || line->first->due > now)
        return -EAGAIN;
    struct waiting *waiting = remove_first(line);
    ssize_t size = waiting->size;
    copy_to_pieces(waiting->packet, waiting->size, pieces, count);
    q->used -= waiting->size;
    free(waiting);
    return size;
}

uint64_t impaired_drain(struct impaired_queue *q)
{
    uint64_t drained = 0;
    for (struct line *line; (line = next_line(q))->first; drained++)
        free(remove_first(line));
    q->used = q->free_at = q->last_due = 0;
    return drained;
}

const struct impaired_counters *impaired_counters(const struct impaired_queue *queue)
{
    return &queue->counters;
}
