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
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define LARGEST (10 + 65535) /* a virtio header and a packet */

struct direction {
    int from, to;
    uint64_t packets;
};

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "forward: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* From here on, this thread opens devices in that namespace. */
static void enter_namespace(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "/run/netns/%s", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET))
        fail(path);
    close(fd);
}

static int open_tun(const char *namespace, int offload)
{
    struct ifreq request = {.ifr_name = "bench0", .ifr_flags = IFF_TUN | IFF_NO_PI};

    enter_namespace(namespace);
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        fail("/dev/net/tun");
    if (offload)
        request.ifr_flags |= IFF_VNET_HDR;
    if (ioctl(fd, TUNSETIFF, &request))
        fail("TUNSETIFF");
    if (offload && ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6))
        fail("TUNSETOFFLOAD");
    return fd;
}

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

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv)
{
    if (argc != 4 || (strcmp(argv[1], "plain") && strcmp(argv[1], "offload"))) {
        fprintf(stderr, "usage: forward plain|offload NETNS_A NETNS_B\n");
        return 2;
    }
    const int offload = strcmp(argv[1], "offload") == 0;
    const int a = open_tun(argv[2], offload);
    const int b = open_tun(argv[3], offload);
    static struct direction directions[2]; /* static: the threads outlive main */
    directions[0] = (struct direction){.from = a, .to = b};
    directions[1] = (struct direction){.from = b, .to = a};

    sigset_t end;
    sigemptyset(&end);
    sigaddset(&end, SIGTERM);
    sigaddset(&end, SIGINT);
    pthread_sigmask(SIG_BLOCK, &end, NULL); /* before the threads: they inherit it */
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        if ((errno = pthread_create(&thread, NULL, carry, &directions[i])))
            fail("pthread_create");
    }
    printf("ready\n");
    fflush(stdout);

    int received;
    sigwait(&end, &received);
    printf("{\"packets\": [%llu, %llu], \"cpu\": %.6f}\n",
           (unsigned long long)__atomic_load_n(&directions[0].packets, __ATOMIC_RELAXED),
           (unsigned long long)__atomic_load_n(&directions[1].packets, __ATOMIC_RELAXED),
           cpu_seconds());
    return 0;
}
