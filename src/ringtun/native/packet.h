/* What counts as a packet. */
#ifndef RINGTUN_PACKET_H
#define RINGTUN_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Version 4 and at least 20 bytes, or version 6 and at least 40; nothing behind that is looked at. */
static inline bool packet_is_ip(const uint8_t *packet, size_t size)
{
    if (size < 20)
        return false;
    unsigned version = packet[0] >> 4;
    return version == 4 || (version == 6 && size >= 40);
}

#endif
