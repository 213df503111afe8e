/* A packet, copied into the pieces that a host's read was given. */
#ifndef RINGTUN_PIECES_H
#define RINGTUN_PIECES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

static inline void copy_to_pieces(const uint8_t *packet, size_t size, const struct iovec *pieces,
                                  int count)
{
    size_t done = 0;
    for (int i = 0; i < count && done < size; i++) {
        size_t part = size - done < pieces[i].iov_len ? size - done : pieces[i].iov_len;
        memcpy(pieces[i].iov_base, packet + done, part);
        done += part;
    }
}

#endif
