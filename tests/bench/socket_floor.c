/* What the kernel takes for a message on a socket, whatever the server is written in.

   socket_floor events CONNECTIONS ROUNDS PAUSE: sends 1,150 bytes to each connection, and reads an answer of each.
   socket_floor calls IN_FLIGHT CALLS PAUSE: reads calls of three messages on one connection, and answers each.

   The client is another process, which takes as long for a message as npm's does, and sends each by itself.
   Before it waits, the server pauses for PAUSE microseconds, if that is not 0. Prints microseconds of the server's
   CPU for an event or a call, and how many waits there were for each. Loopback alone; ends by itself. */

#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <signal.h>

enum { EVENT = 1150, ANSWER = 40, MESSAGE = 60, AT_ONCE = 512 };

static char buffer[1 << 16];

static void
must(int holds, const char *what)
{
    if (!holds) {
        perror(what);
        exit(1);
    }
}

static void
be_busy(long nanoseconds)
{
    struct timespec began, now;
    clock_gettime(CLOCK_MONOTONIC, &began);
    do
        clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - began.tv_sec) * 1000000000L + now.tv_nsec - began.tv_nsec < nanoseconds);
}

static void
watch(int epoll, int socket)
{
    int on = 1;
    must(setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0, "TCP_NODELAY");
    struct epoll_event event = {.events = EPOLLIN, .data.fd = socket};
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, socket, &event) == 0, "epoll_ctl");
}

static void
send_all(int socket, int size)
{
    must(send(socket, buffer, (size_t)size, MSG_NOSIGNAL) == size, "send");
}

/* Reads whole messages of one size; returns how many, or -1 at the end. */
static int
take(int socket, int size)
{
    static int held;
    ssize_t got = recv(socket, buffer, sizeof(buffer), 0);
    if (got <= 0)
        return -1;
    held += (int)got;
    int whole = held / size;
    held %= size;
    return whole;
}

static void
hear_events(struct sockaddr_in *address, int connections)
{
    int epoll = epoll_create1(0);
    for (int i = 0; i < connections; i++) {
        int each = socket(AF_INET, SOCK_STREAM, 0);
        must(connect(each, (struct sockaddr *)address, sizeof(*address)) == 0, "connect");
        watch(epoll, each);
    }
    struct epoll_event ready[AT_ONCE];
    for (;;) {
        int count = epoll_wait(epoll, ready, AT_ONCE, -1);
        for (int i = 0; i < count; i++) {
            if (recv(ready[i].data.fd, buffer, sizeof(buffer), 0) <= 0)
                _exit(0);
            be_busy(20000);
            send_all(ready[i].data.fd, ANSWER);
        }
    }
}

static void
make_calls(struct sockaddr_in *address, int in_flight)
{
    int server = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    must(connect(server, (struct sockaddr *)address, sizeof(*address)) == 0, "connect");
    must(setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0, "TCP_NODELAY");
    int answers = in_flight;
    do {
        for (int i = 0; i < 3 * answers; i++) { /* the release of one call, and two messages of the next */
            be_busy(7000);
            if (send(server, buffer, MESSAGE, MSG_NOSIGNAL) != MESSAGE)
                _exit(0);
        }
        answers = take(server, ANSWER);
    } while (answers >= 0);
    _exit(0);
}

int
main(int count, char **arguments)
{
    must(count == 5, "usage: socket_floor events|calls CONNECTIONS|IN_FLIGHT ROUNDS|CALLS PAUSE");
    int is_calls = strcmp(arguments[1], "calls") == 0;
    int width = atoi(arguments[2]), rounds = atoi(arguments[3]), pause = atoi(arguments[4]);
    int connections = is_calls ? 1 : width;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    must(bind(listener, (struct sockaddr *)&address, length) == 0, "bind");
    must(getsockname(listener, (struct sockaddr *)&address, &length) == 0, "getsockname");
    must(listen(listener, AT_ONCE) == 0, "listen");
    if (fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        (is_calls ? make_calls : hear_events)(&address, width);
    }

    int epoll = epoll_create1(0), *sockets = calloc((size_t)connections, sizeof(int));
    must(sockets != NULL, "calloc");
    for (int i = 0; i < connections; i++) {
        sockets[i] = accept(listener, NULL, NULL);
        must(sockets[i] >= 0, "accept");
        watch(epoll, sockets[i]);
    }
    struct epoll_event ready[AT_ONCE];
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    long waits = 0, wanted = is_calls ? 3L * rounds : (long)rounds * connections, got = 0;
    while (got < wanted) {
        if (!is_calls && got % connections == 0)
            for (int i = 0; i < connections; i++)
                send_all(sockets[i], EVENT);
        if (pause > 0)
            usleep((useconds_t)pause);
        int those = epoll_wait(epoll, ready, AT_ONCE, -1);
        waits++;
        for (int i = 0; i < those; i++) {
            int messages = is_calls ? take(ready[i].data.fd, MESSAGE) : recv(ready[i].data.fd, buffer, sizeof(buffer), 0) > 0;
            must(messages >= 0, "recv");
            long calls = is_calls ? (got + messages) / 3 - got / 3 : 0;
            got += messages;
            if (calls > 0)
                send_all(ready[i].data.fd, (int)calls * ANSWER);
        }
    }
    getrusage(RUSAGE_SELF, &after);
    double seconds = (double)(after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec - before.ru_stime.tv_sec);
    double micros = (double)(after.ru_utime.tv_usec - before.ru_utime.tv_usec + after.ru_stime.tv_usec - before.ru_stime.tv_usec);
    double all = is_calls ? rounds : (double)rounds * connections;
    printf("%.2f %.3f\n", (seconds * 1e6 + micros) / all, (double)waits / all);
    return 0;
}
