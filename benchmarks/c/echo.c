/* Baseline for workload E: answers ICMP and ICMPv6 echo requests and UDP datagrams, each packet by
 * one read and one write.
 *
 *     echo NETNS
 *
 * Makes a TUN device `bench0` in the namespace and prints `ready`; addresses, MTU and "up" are the
 * caller's. Whatever is sent to any address behind the device is answered from there. On SIGTERM or
 * SIGINT it prints {"packets": answered, "cpu": seconds}.
 */
#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>

#include "tun.h"

enum {
    ICMP_REQUEST = 8,
    ICMP_REPLY = 0,
    ICMPV6_REQUEST = 128,
    ICMPV6_REPLY = 129,
    TRANSPORT_HEADER = 8, /* of UDP and of an echo request alike */
};

static int tun;
static uint64_t answered;

static void swap(uint8_t *a, uint8_t *b, size_t size)
{
    uint8_t kept[16];
    memcpy(kept, a, size);
    memcpy(a, b, size);
    memcpy(b, kept, size);
}

/* Change the type of an ICMP message, and its checksum by what that changes (RFC 1624). */
static void set_type(uint8_t *message, uint8_t type)
{
    uint32_t sum = (uint16_t)~(message[2] << 8 | message[3]);
    sum += (uint16_t)~(message[0] << 8) + (uint32_t)(type << 8);
    sum = (sum & 0xFFFF) + (sum >> 16);
    sum = ~(sum + (sum >> 16));
    message[0] = type;
    message[2] = (uint8_t)(sum >> 8);
    message[3] = (uint8_t)sum;
}

/* Exchanging what a checksum covers leaves it as it is: so ports and addresses are only swapped. */
static bool answer_transport(uint8_t *message, size_t size, int protocol)
{
    if (size < TRANSPORT_HEADER)
        return false;
    if (protocol == IPPROTO_UDP)
        swap(message, message + 2, 2);
    else if (protocol == IPPROTO_ICMP && message[0] == ICMP_REQUEST)
        set_type(message, ICMP_REPLY);
    else if (protocol == IPPROTO_ICMPV6 && message[0] == ICMPV6_REQUEST)
        set_type(message, ICMPV6_REPLY);
    else
        return false;
    return true;
}

static bool answer_ipv4(uint8_t *packet, size_t size)
{
    if (size < 20)
        return false;
    size_t header = (packet[0] & 15) * 4u;
    bool fragment = (packet[6] & 0x3F) || packet[7];
    if (header < 20 || header > size || fragment || packet[9] == IPPROTO_ICMPV6)
        return false;
    if (!answer_transport(packet + header, size - header, packet[9]))
        return false;
    swap(packet + 12, packet + 16, 4);
    return true;
}

static bool answer_ipv6(uint8_t *packet, size_t size)
{
    if (size < 40 || packet[6] == IPPROTO_ICMP)
        return false;
    if (!answer_transport(packet + 40, size - 40, packet[6]))
        return false;
    swap(packet + 8, packet + 24, 16);
    return true;
}

/* Turn a request into its answer, in place. False: it is none. */
static bool answer(uint8_t *packet, size_t size)
{
    switch (size ? packet[0] >> 4 : 0) {
    case 4:
        return answer_ipv4(packet, size);
    case 6:
        return answer_ipv6(packet, size);
    default:
        return false;
    }
}

static void *serve(void *argument)
{
    static uint8_t packet[65536];
    for (;;) {
        ssize_t size = read(tun, packet, sizeof packet);
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0)
            fail("read");
        if (answer(packet, (size_t)size) && write(tun, packet, (size_t)size) == size)
            __atomic_fetch_add(&answered, 1, __ATOMIC_RELAXED);
    }
    return argument;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: echo NETNS\n");
        return 2;
    }
    tun = open_tun(argv[1], false);

    sigset_t end;
    block_end(&end);
    pthread_t thread;
    if ((errno = pthread_create(&thread, NULL, serve, NULL)))
        fail("pthread_create");
    wait_for_end(&end);
    printf("{\"packets\": %llu, \"cpu\": %.6f}\n",
           (unsigned long long)__atomic_load_n(&answered, __ATOMIC_RELAXED), cpu_seconds());
    return 0;
}
