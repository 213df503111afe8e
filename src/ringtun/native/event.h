/* An auto-reset event: one side sets it, waiting for it resets it. On Linux, an eventfd. */
#ifndef RINGTUN_EVENT_H
#define RINGTUN_EVENT_H

#include <errno.h>
#include <stdint.h>
#include <sys/uio.h>
#include <unistd.h>

static inline void event_signal(int event)
{
    const uint64_t one = 1;
    /* EAGAIN: the counter is full, so the event is set already. */
    while (write(event, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

/* Never waits, even where the other side made its eventfd a blocking one. */
static inline void event_clear(int event)
{
    uint64_t count;
    struct iovec piece = {&count, sizeof count};
    while (preadv2(event, &piece, 1, -1, RWF_NOWAIT) < 0 && errno == EINTR)
        ;
}

#endif
