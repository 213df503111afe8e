#include "host.h"

#include <errno.h>
#include <unistd.h>

static ssize_t tun_read(struct host *host, const struct iovec *pieces, int count)
{
    ssize_t size;
    do
        size = count == 1 ? read(host->fd, pieces->iov_base, pieces->iov_len)
                          : readv(host->fd, pieces, count);
    while (size < 0 && errno == EINTR);
    return size < 0 ? -errno : size;
}

static int tun_write(struct host *host, const struct iovec *pieces, int count)
{
    ssize_t written;
    do
        written = count == 1 ? write(host->fd, pieces->iov_base, pieces->iov_len)
                             : writev(host->fd, pieces, count);
    while (written < 0 && errno == EINTR);
    return written < 0 ? -errno : 0;
}

void host_init_tun(struct host *host, int fd, bool vnet, uint32_t coalesces)
{
    *host = (struct host){
        .read = tun_read, .write = tun_write, .fd = fd, .vnet = vnet, .coalesces = coalesces};
}
