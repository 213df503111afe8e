/* Baseline for workload F: carries packets between two network namespaces, and nothing else.
 *
 *     forward plain|offload NETNS_A NETNS_B
 *
 * plain: one read and one write a packet. offload: the same with IFF_VNET_HDR, so that whole
 * segments of up to 64 KiB pass through with their checksums left out: nothing looks at a packet.
 *
 * Makes a TUN device `bench0` in each namespace and prints `ready`; addresses, MTU, queue and "up"
 * are the caller's. On SIGTERM or SIGINT it prints {"packets": [a to b, b to a], "cpu": seconds}.
 */
#include <pthread.h>
#include <stdint.h>

#include "tun.h"

#define LARGEST (10 + 65535) /* a virtio header and a packet */

struct direction {
    int from, to;
    uint64_t packets;
};

static void *carry(void *argument)
{
    struct direction *d = argument;
    char *packet = malloc(LARGEST);
    if (!packet)
        fail("malloc");
    for (;;) {
        ssize_t size = read(d->from, packet, LARGEST);
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0)
            fail("read");
        /* A device that is down, or a packet that the kernel refuses: dropped. */
        if (write(d->to, packet, (size_t)size) == size)
            __atomic_fetch_add(&d->packets, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 4 || (strcmp(argv[1], "plain") && strcmp(argv[1], "offload"))) {
        fprintf(stderr, "usage: forward plain|offload NETNS_A NETNS_B\n");
        return 2;
    }
    const bool offload = strcmp(argv[1], "offload") == 0;
    const int a = open_tun(argv[2], offload);
    const int b = open_tun(argv[3], offload);
    static struct direction directions[2]; /* static: the threads outlive main */
    directions[0] = (struct direction){.from = a, .to = b};
    directions[1] = (struct direction){.from = b, .to = a};

    sigset_t end;
    block_end(&end);
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        if ((errno = pthread_create(&thread, NULL, carry, &directions[i])))
            fail("pthread_create");
    }
    wait_for_end(&end);
    printf("{\"packets\": [%llu, %llu], \"cpu\": %.6f}\n",
           (unsigned long long)__atomic_load_n(&directions[0].packets, __ATOMIC_RELAXED),
           (unsigned long long)__atomic_load_n(&directions[1].packets, __ATOMIC_RELAXED),
           cpu_seconds());
    return 0;
}
