/* Workload E's other end: sends a UDP datagram, waits for the answer, and takes the time.
 *
 *     ask ADDRESS PORT COUNT
 *
 * 64 bytes each, one after the other. An answer that takes a second is lost, and one that comes
 * later is not counted. The first tenth is a warm-up. Prints {"lost": n, "us": [each round trip]}.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 64 };

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "ask: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int connect_to(const char *address, const char *port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    struct timeval second = {.tv_sec = 1};

    if (inet_pton(AF_INET, address, &to.sin_addr) != 1)
        fail(address);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second))
        fail("socket");
    if (connect(fd, (struct sockaddr *)&to, sizeof to))
        fail("connect");
    return fd;
}

/* Microseconds until the answer; negative: there was none. */
static double ask(int fd, uint32_t number)
{
    char question[SIZE] = {0}, answer[SIZE];
    memcpy(question, &number, sizeof number);

    double start = now_us();
    if (send(fd, question, SIZE, 0) != SIZE)
        fail("send");
    for (;;) {
        ssize_t size = recv(fd, answer, SIZE, 0);
        double end = now_us();
        if (size < 0 && errno == EAGAIN)
            return -1;
        if (size < 0)
            fail("recv");
        if (size == SIZE && memcmp(question, answer, SIZE) == 0)
            return end - start;
    }
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: ask ADDRESS PORT COUNT\n");
        return 2;
    }
    int fd = connect_to(argv[1], argv[2]);
    uint32_t count = (uint32_t)atoi(argv[3]), warm_up = count / 10, lost = 0;
    double *times = calloc(count + 1, sizeof *times);
    if (!times)
        fail("calloc");

    for (uint32_t i = 0; i < warm_up + count; i++) {
        double time = ask(fd, i);
        if (i < warm_up)
            continue;
        lost += time < 0;
        times[i - warm_up] = time;
    }
    printf("{\"lost\": %u, \"us\": [", lost);
    const char *comma = "";
    for (uint32_t i = 0; i < count; i++) {
        if (times[i] >= 0) {
            printf("%s%.2f", comma, times[i]);
            comma = ", ";
        }
    }
    printf("]}\n");
    return 0;
}
