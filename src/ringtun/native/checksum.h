/* The Internet checksum (RFC 1071), and a copy that sums as it goes.
 *
 * A sum is that of 16-bit words in memory order, in a wide integer that is not folded yet: add as
 * many as you like (each call adds less than 2^52), fold at the end. Ranges that are added have to
 * start at an even offset of what is summed; an odd last byte counts as if a zero followed.
 * The routines use what the CPU has, chosen at run time (AVX2 where there is), and give the same sum
 * modulo 65,535 everywhere. */
#ifndef RINGTUN_CHECKSUM_H
#define RINGTUN_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* The sum of `size` bytes at `data`, at any alignment. */
uint64_t checksum_add(const void *data, size_t size);

/* The same, copying the bytes to `to` in the same pass: no byte of `from` is read twice, so what was
 * copied is what was summed, though the memory may change meanwhile. They do not overlap. */
uint64_t checksum_copy(void *to, const void *from, size_t size);

/* Folded to 16 bits, not complemented; as it is to be stored, in memory order. */
static inline uint16_t checksum_fold(uint64_t sum)
{
    sum = (sum & 0xFFFFFFFF) + (sum >> 32);
    sum = (sum & 0xFFFFFFFF) + (sum >> 32);
    sum = (sum & 0xFFFF) + (sum >> 16);
    sum = (sum & 0xFFFF) + (sum >> 16);
    return (uint16_t)sum;
}

/* Which routines were chosen: "avx2" or "generic"; for reports. */
const char *checksum_routines(void);
/* For tests: use the routines of that name from now on. NULL: the best. 0, or -ENOENT where there are
 * none of that name, or not for this CPU. */
int checksum_use(const char *name);

#endif
