/* What the baselines on a TUN device share; each of them is a program of one file. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
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

/* A new device `bench0` in the namespace; with offload, whole segments pass through it. */
static int open_tun(const char *namespace, bool offload)
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

/* CPU time of the whole process so far. */
static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* Comes before the threads, which inherit it: then only wait_for_end() sees these signals. */
static void block_end(sigset_t *end)
{
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* the parent's end is ours */
    sigemptyset(end);
    sigaddset(end, SIGTERM);
    sigaddset(end, SIGINT);
    pthread_sigmask(SIG_BLOCK, end, NULL);
}

static void wait_for_end(const sigset_t *end)
{
    int received;
    printf("ready\n");
    fflush(stdout);
    sigwait(end, &received);
}
