/* To be preloaded: a kernel that does not take one type of large packet, though it took it when it was
 * probed. REFUSED_GSO_TYPE is that of <linux/virtio_net.h>. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/uio.h>

ssize_t writev(int fd, const struct iovec *pieces, int count)
{
    ssize_t (*next)(int, const struct iovec *, int) =
        (ssize_t (*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev");
    const uint8_t *header = pieces->iov_base;
    /* Header and packet are two pieces when they are probed; what is merged has one for each packet. */
    if (count > 2 && header[1] == atoi(getenv("REFUSED_GSO_TYPE"))) {
        errno = EINVAL;
        return -1;
    }
    return next(fd, pieces, count);
}
