/* Every packet goes back with its addresses turned round, as examples/echo.py does: a client of the driver
 * service in C, by the ring protocol alone.
 *
 *     cc -I../../src/ringtun/native -o echo echo.c && ./echo /run/ringtun/devices/echo0
 *
 * It takes the adapter echo0 as somebody made it. docs/protocol.md says what happens here.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <ringtun.h>

enum { CAPACITY = 1 << 20 };

struct ring {
    struct tun_ring *memory;
    int fd, event;
    uint32_t at; /* where we read or write next: our own index */
};

static struct ring make_ring(void)
{
    struct ring ring = {.fd = memfd_create("ring", MFD_CLOEXEC | MFD_ALLOW_SEALING)};
    const uint64_t size = tun_ring_size(CAPACITY);
    if (ring.fd < 0 || posix_fallocate(ring.fd, 0, (off_t)size) ||
        fcntl(ring.fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW))
        err(1, "memory for a ring");
    ring.memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, 0);
    ring.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (ring.memory == MAP_FAILED || ring.event < 0)
        err(1, "a ring");
    return ring;
}

static int open_device(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int device = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    if (device < 0 || connect(device, (struct sockaddr *)&address, sizeof address))
        err(1, "%s", path);
    return device;
}

static void register_rings(int device, const struct ring *send, const struct ring *receive)
{
    const int descriptors[] = {send->fd, send->event, receive->fd, receive->event};
    struct {
        struct tun_request request;
        struct tun_register_rings rings;
    } message = {
        .request = {TUN_IOCTL_REGISTER_RINGS, sizeof message.rings},
        .rings = {
            .send = {(uint32_t)tun_ring_size(CAPACITY), 0, 1, 2},
            .receive = {(uint32_t)tun_ring_size(CAPACITY), 0, 3, 4},
        },
    };
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof descriptors)];
    } rights = {.header = {CMSG_LEN(sizeof descriptors), SOL_SOCKET, SCM_RIGHTS}};
    memcpy(CMSG_DATA(&rights.header), descriptors, sizeof descriptors);
    struct iovec piece = {&message, sizeof message};
    struct msghdr with_rights = {.msg_iov = &piece, .msg_iovlen = 1,
                                 .msg_control = &rights, .msg_controllen = sizeof rights};
    struct tun_answer answer;
    if (sendmsg(device, &with_rights, 0) < 0 || recv(device, &answer, sizeof answer, 0) < 0)
        err(1, "the driver");
    if (answer.status != TUN_STATUS_SUCCESS)
        errx(1, "the driver refuses the rings: 0x%08X", answer.status);
}

/* Returns false at the end. */
static bool wait_for_packet(int device, struct ring *ring)
{
    struct pollfd fds[] = {{ring->event, POLLIN, 0}, {device, POLLRDHUP, 0}};
    uint64_t count;
    __atomic_store_n(&ring->memory->alertable, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&ring->memory->tail, __ATOMIC_SEQ_CST) == ring->at)
        poll(fds, 2, -1);
    __atomic_store_n(&ring->memory->alertable, 0, __ATOMIC_RELAXED);
    if (read(ring->event, &count, sizeof count) < 0) {
        /* it was not set: the packet came before we waited */
    }
    return !fds[1].revents && __atomic_load_n(&ring->memory->tail, __ATOMIC_ACQUIRE) != TUN_RING_CLOSED;
}

static void turn_round(uint8_t *packet)
{
    const int at = packet[0] >> 4 == 4 ? 12 : 8, size = packet[0] >> 4 == 4 ? 4 : 16;
    uint8_t source[16];
    memcpy(source, packet + at, size);
    memcpy(packet + at, packet + at + size, size);
    memcpy(packet + at + size, source, size);
}

/* Returns false, and has sent nothing, where the ring is full. */
static bool send_packet(struct ring *ring, const struct tun_packet *packet)
{
    const uint32_t span = (TUN_PACKET_HEADER_SIZE + packet->size + 3) & ~3u;
    const uint32_t head = __atomic_load_n(&ring->memory->head, __ATOMIC_ACQUIRE);
    if (head == TUN_RING_CLOSED || ((head - ring->at - 4) & (CAPACITY - 1)) < span)
        return false;
    struct tun_packet *slot = (struct tun_packet *)(ring->memory->data + ring->at);
    memcpy(slot, packet, TUN_PACKET_HEADER_SIZE + packet->size);
    turn_round(slot->data);
    ring->at = (ring->at + span) & (CAPACITY - 1);
    __atomic_store_n(&ring->memory->tail, ring->at, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&ring->memory->alertable, __ATOMIC_SEQ_CST))
        eventfd_write(ring->event, 1);
    return true;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        errx(2, "usage: echo /run/ringtun/devices/ADAPTER");
    struct ring to_client = make_ring(), to_host = make_ring();
    int device = open_device(argv[1]);
    register_rings(device, &to_client, &to_host);
    puts("ready");
    fflush(stdout);
    for (;;) {
        uint32_t tail = __atomic_load_n(&to_client.memory->tail, __ATOMIC_ACQUIRE);
        if (tail == TUN_RING_CLOSED || (tail == to_client.at && !wait_for_packet(device, &to_client)))
            return 0;
        if (tail == to_client.at)
            continue;
        struct tun_packet *packet = (struct tun_packet *)(to_client.memory->data + to_client.at);
        send_packet(&to_host, packet); /* the ring is full: the packet is lost, as on a wire */
        to_client.at = (to_client.at + ((TUN_PACKET_HEADER_SIZE + packet->size + 3) & ~3u)) & (CAPACITY - 1);
        __atomic_store_n(&to_client.memory->head, to_client.at, __ATOMIC_RELEASE);
    }
}
