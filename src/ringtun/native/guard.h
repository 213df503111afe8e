/* What protects a driver from a client that is another process.
 *
 * Its ring memory may turn out not to be there (pages taken out of a memfd, and no memory to replace
 * them): a touch raises SIGBUS, which ends that session and nothing else. Its eventfd may block who
 * signals it: a signal, sent again and again, frees the thread.
 */
#ifndef RINGTUN_GUARD_H
#define RINGTUN_GUARD_H

struct engine;

/* Once in a process that drives foreign clients: takes SIGBUS, and the signal that frees threads. Returns
 * 0 or an errno. */
int guard_install(void);
/* The signal that interrupts a thread; it has no other meaning, and must not be blocked in those. */
int guard_signal(void);

/* What this thread touches until guard_leave is the memory of the engine's rings; returns what it was
 * before, for guard_leave. A touch of a page that is not there finds another, and sets engine->torn. */
struct engine *guard_enter(struct engine *engine);
void guard_leave(struct engine *before);

#endif
