/* The ring interface between a TUN driver and its client: numbers and structs, nothing else.
 *
 * For C11 and C++11. It says the same as ringtun/abi.py and docs/protocol.md; a test holds the three
 * equal. All integers are in the machine's byte order; all offsets count bytes.
 */
#ifndef RINGTUN_H
#define RINGTUN_H

#include <stddef.h>
#include <stdint.h>

#define TUN_RING_HEADER_SIZE 12u         /* Head, Tail, Alertable */
#define TUN_RING_TRAILING_BYTES 0x10000u /* behind the capacity: no packet wraps */
#define TUN_RING_MIN_CAPACITY 0x20000u   /* 128 KiB */
#define TUN_RING_MAX_CAPACITY 0x4000000u /* 64 MiB; every capacity is a power of two */
#define TUN_RING_CLOSED 0xFFFFFFFFu      /* a Head or Tail that says: this is the end */
#define TUN_PACKET_HEADER_SIZE 4u
#define TUN_PACKET_ALIGNMENT 4u
#define TUN_PACKET_MAX_SIZE 0xFFFFu

/* CTL_CODE(51820, 0x970, METHOD_BUFFERED, FILE_READ_DATA | FILE_WRITE_DATA) */
#define TUN_IOCTL_REGISTER_RINGS 0xCA6CE5C0u

/* Extensions: CTL_CODE(51820, 0x971, …), with a uint32_t of TUN_OPTION bits, before the rings. A driver
 * that does not know it says TUN_STATUS_INVALID_DEVICE_REQUEST. */
#define TUN_IOCTL_SET_OPTIONS 0xCA6CE5C4u
#define TUN_OPTION_WHOLE_PACKETS 1u   /* a struct virtio_net_hdr_v1 before each packet, both ways */
#define TUN_OPTION_TRUSTED_PACKETS 2u /* the client's checksums need not be verified */

/* … 0x972: struct tun_set_space, before the rings, by which both sides wait for room in a full ring. */
#define TUN_IOCTL_SET_SPACE 0xCA6CE5C8u
#define TUN_SPACE_SIZE 4096u    /* of the memory that it offers */
#define TUN_SPACE_TO_CLIENT 0u  /* where a uint32_t says that the driver waits for room */
#define TUN_SPACE_TO_HOST 64u   /* … that the client does */
/* … 0x973: what came of the session, in uint64_t; docs/protocol.md has their order. */
#define TUN_IOCTL_GET_STATISTICS 0xCA6CE5CCu

#define TUN_STATUS_SUCCESS 0x00000000u
#define TUN_STATUS_INVALID_PARAMETER 0xC000000Du
#define TUN_STATUS_INVALID_DEVICE_REQUEST 0xC0000010u
#define TUN_STATUS_ACCESS_DENIED 0xC0000022u
#define TUN_STATUS_INSUFFICIENT_RESOURCES 0xC000009Au
#define TUN_STATUS_NOT_SUPPORTED 0xC00000BBu
#define TUN_STATUS_INVALID_USER_BUFFER 0xC00000E8u
#define TUN_STATUS_DEVICE_REMOVED 0xC00002B6u
#define TUN_STATUS_ALREADY_INITIALIZED 0xC0000510u

struct tun_ring {
    uint32_t head;      /* offset of the first packet; the consumer's */
    uint32_t tail;      /* offset of the first free byte; the producer's */
    int32_t alertable;  /* non-zero: the consumer waits for TailMoved; the consumer's */
    uint8_t data[1];    /* capacity + TUN_RING_TRAILING_BYTES */
};

struct tun_packet {
    uint32_t size;   /* of data, at most TUN_PACKET_MAX_SIZE */
    uint8_t data[1]; /* one IP packet */
};

/* Send: what the host sends, driver to client. Receive: what the host receives, client to driver.
 * Ring and TailMoved are a pointer and a handle on Windows; on Linux each holds the index, from 1,
 * of a descriptor that travels with the message. */
struct tun_register_rings {
    struct {
        uint32_t ring_size;
        uint32_t reserved; /* padding; not read */
        uint64_t ring;
        uint64_t tail_moved;
    } send, receive;
};

/* The same from a 32-bit process. */
struct tun_register_rings_32 {
    struct {
        uint32_t ring_size;
        uint32_t ring;
        uint32_t tail_moved;
    } send, receive;
};

/* Indices, from 1, of descriptors that travel with the message: a memfd, and two eventfds. */
struct tun_set_space {
    uint32_t memory;
    uint32_t to_client_event;
    uint32_t to_host_event;
};

/* A message to the Unix socket of an adapter's device, which `length` bytes follow, and its answer, which
 * `information` bytes follow. */
struct tun_request {
    uint32_t code;
    uint32_t length;
};
struct tun_answer {
    uint32_t status;
    uint32_t information;
};

#ifdef __cplusplus
#define RINGTUN_ASSERT(condition) static_assert(condition, #condition)
#else
#define RINGTUN_ASSERT(condition) _Static_assert(condition, #condition)
#endif

RINGTUN_ASSERT(offsetof(struct tun_ring, tail) == 4);
RINGTUN_ASSERT(offsetof(struct tun_ring, alertable) == 8);
RINGTUN_ASSERT(offsetof(struct tun_ring, data) == TUN_RING_HEADER_SIZE);
RINGTUN_ASSERT(offsetof(struct tun_packet, data) == TUN_PACKET_HEADER_SIZE);
RINGTUN_ASSERT(sizeof(struct tun_register_rings) == 48);
RINGTUN_ASSERT(offsetof(struct tun_register_rings, send.ring) == 8);
RINGTUN_ASSERT(offsetof(struct tun_register_rings, send.tail_moved) == 16);
RINGTUN_ASSERT(offsetof(struct tun_register_rings, receive) == 24);
RINGTUN_ASSERT(sizeof(struct tun_register_rings_32) == 24);
RINGTUN_ASSERT(offsetof(struct tun_register_rings_32, receive) == 12);

#undef RINGTUN_ASSERT

/* Bytes of memory for a ring of this capacity. */
static inline uint64_t tun_ring_size(uint32_t capacity)
{
    return (uint64_t)TUN_RING_HEADER_SIZE + capacity + TUN_RING_TRAILING_BYTES;
}

#endif
