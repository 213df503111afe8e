#include "host.h"

#include <errno.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "coalesce.h"

#ifndef TUN_F_USO4 /* Linux 6.2 */
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

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

/* A kind that is not taken large is not given large either: what the interface says of itself, to
 * whoever asks, is what is in use. */
static void tun_coalesces_less(struct host *host)
{
    const uint32_t udp = COALESCE_UDP4 | COALESCE_UDP6; /* both or neither: the kernel's rule */
    uint32_t kinds = __atomic_load_n(&host->coalesces, __ATOMIC_RELAXED);
    unsigned mask = TUN_F_CSUM | (kinds & COALESCE_TCP4 ? TUN_F_TSO4 : 0) |
        (kinds & COALESCE_TCP6 ? TUN_F_TSO6 : 0) |
        ((kinds & udp) == udp ? TUN_F_USO4 | TUN_F_USO6 : 0);
    ioctl(host->fd, TUNSETOFFLOAD, mask); /* refused: it goes on giving what it gave */
}

void host_init_tun(struct host *host, int fd, bool vnet, uint32_t coalesces)
{
    *host = (struct host){
        .read = tun_read,
        .write = tun_write,
        .fd = fd,
        .vnet = vnet,
        .coalesces = coalesces,
        .coalesces_less = tun_coalesces_less,
    };
}
