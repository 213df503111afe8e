/* Where an adapter's packets come from and go to: a queue of the Linux TUN device, or a link in
 * memory. Neither call ever waits. */
#ifndef RINGTUN_HOST_H
#define RINGTUN_HOST_H

#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct host {
    /* Takes the host's next packet into the pieces, which hold any packet together. Returns its
     * size or -errno: -EAGAIN when there is none, -EBADFD when the adapter is gone. */
    ssize_t (*read)(struct host *host, const struct iovec *pieces, int count);
    /* Gives the host one packet. Returns 0 or -errno: -EAGAIN when it cannot take it now, -EIO
     * while the interface is down, -EINVAL for what it refuses, -EBADFD when the adapter is gone. */
    int (*write)(struct host *host, const void *packet, size_t size);
    /* Readable when a read has something to give; in error when the adapter is gone. */
    int fd;
};

/* A queue of the Linux TUN device, without a packet-information header, non-blocking. The caller
 * keeps the descriptor open while the host is in use. */
void host_init_tun(struct host *host, int fd);

/* The end of a link in memory that reads from one direction and writes to the other. */
struct link;
struct link_host {
    struct host host;
    struct link *in;
    struct link *out;
};
void host_init_link(struct link_host *host, struct link *in, struct link *out);

/* One direction of a link: a ring whose producer and consumer are the hosts of two adapters. As in
 * the kernel, what finds the queue full, or nobody connected at the other end, is dropped and
 * counted, and the sender is never slowed. One thread writes and one reads at a time. */
struct link *link_create(uint32_t capacity, int event);
void link_destroy(struct link *link);
/* The reading end comes or goes. On coming, what is queued is thrown away; returns how many. */
uint64_t link_connect(struct link *link);
void link_disconnect(struct link *link);
uint64_t link_dropped(const struct link *link);

#endif
