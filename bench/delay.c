/* delay: a proxy that puts distance between a relay and its upstream.

       delay TARGET_PORT MICROSECONDS

   Listens on a free port of 127.0.0.1 and prints it. What comes in on one side leaves on the other that many
   microseconds later, both ways: half of a round trip each. A new connection reaches the target after three of them,
   as SYN, SYN-ACK and ACK would have to travel before the server could say its first word. Only the time of travel is
   modelled: no loss, no limit of bandwidth, no slow start.

   One thread, epoll and one timer. In flight is kept per direction, at most WINDOW octets of it, so that a sender
   is held back as a TCP window would hold it back. Looking through all connections on each event is cheap: there are
   some dozens. */
#define _GNU_SOURCE
#include "clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define WINDOW (8 << 20)
#define PIECE 65536
#define MOST 1024 /* connections at once */

/* What was read at one moment; no octets: the sender closed its side. */
struct piece {
    struct piece *next;
    uint64_t due;
    size_t size, sent;
    char octets[];
};

/* What comes in on one socket of a connection and leaves on the other. */
struct way {
    struct piece *first, *last;
    size_t held;  /* octets in flight */
    int ended;    /* nothing more comes in */
    int finished; /* and the other side was told */
    int full;     /* the other side takes no more for now */
};

struct connection {
    uint64_t opens;      /* when the target hears of it; 0: it has */
    int sockets[2];      /* the client's and the target's, -1 before it is open */
    uint32_t watched[2]; /* what epoll looks for */
    struct way ways[2];  /* ways[i] comes from sockets[i] */
};

static struct connection *connections[MOST];
static int count, epoll, target;
static uint64_t travel;

/* A socket of 127.0.0.1: listening on a free port, or connected to `port`; -1 where that failed. */
static int open_socket(int port) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* what is accepted inherits it */
    if (port ? !connect(fd, (void *)&address, sizeof address)
             : !bind(fd, (void *)&address, sizeof address) && !listen(fd, MOST))
        return fd;
    close(fd);
    return -1;
}

/* Have epoll look for what matters at a socket, and for nothing when nothing does: it would tell of a hang-up forever. */
static void watch(struct connection *c, int i) {
    struct way *in = &c->ways[i], *out = &c->ways[1 - i];
    uint32_t events = (!in->ended && in->held < WINDOW ? EPOLLIN : 0) | (out->full ? EPOLLOUT : 0);
    if (c->sockets[i] < 0 || events == c->watched[i]) return;
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(epoll, !events ? EPOLL_CTL_DEL : c->watched[i] ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->sockets[i], &event);
    c->watched[i] = events;
}

static void accept_one(int fd) {
    struct connection *c = calloc(1, sizeof *c);
    c->opens = nanoseconds() + 3 * travel;
    c->sockets[0] = fd;
    c->sockets[1] = -1;
    connections[count++] = c;
}

/* Read what is there: it leaves when its time has come. */
static void take_in(struct connection *c, int i) {
    static char buffer[PIECE];
    struct way *w = &c->ways[i];
    while (!w->ended && c->sockets[i] >= 0 && w->held < WINDOW) {
        ssize_t size = recv(c->sockets[i], buffer, sizeof buffer, MSG_DONTWAIT);
        if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (size <= 0) w->ended = 1, size = 0;
        struct piece *p = malloc(sizeof *p + (size_t)size);
        *p = (struct piece){.due = nanoseconds() + travel, .size = (size_t)size};
        memcpy(p->octets, buffer, (size_t)size);
        if (w->last) w->last->next = p;
        else w->first = p;
        w->last = p;
        w->held += (size_t)size;
        if ((size_t)size < sizeof buffer) return;
    }
}

/* Hand on what is due. A receiver that has gone gets nothing more, and nobody minds. */
static void hand_on(struct connection *c, int i, uint64_t moment) {
    struct way *w = &c->ways[i];
    int to = c->sockets[1 - i];
    w->full = 0;
    while (to >= 0 && w->first && w->first->due <= moment) {
        struct piece *p = w->first;
        if (p->size) {
            ssize_t sent = send(to, p->octets + p->sent, p->size - p->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (sent > 0) p->sent += (size_t)sent;
            w->full = sent < 0 ? errno == EAGAIN : p->sent < p->size;
            if (w->full) return;
        } else {
            shutdown(to, SHUT_WR);
            w->finished = 1;
        }
        w->held -= p->size;
        if (!(w->first = p->next)) w->last = NULL;
        free(p);
    }
}

static void forget(int number) {
    struct connection *c = connections[number];
    for (int i = 0; i < 2; i++) {
        while (c->ways[i].first) {
            struct piece *p = c->ways[i].first;
            c->ways[i].first = p->next;
            free(p);
        }
        if (c->sockets[i] >= 0) close(c->sockets[i]);
    }
    free(c);
    connections[number] = connections[--count];
}

/* Everything that is due, and the moment at which something is due next (0: nothing is). */
static uint64_t turn(void) {
    uint64_t next = 0, moment = nanoseconds();
    for (int number = count - 1; number >= 0; number--) {
        struct connection *c = connections[number];
        if (c->opens && c->opens <= moment) {
            c->opens = 0;
            if ((c->sockets[1] = open_socket(target)) < 0) {
                forget(number);
                continue;
            }
        }
        for (int i = 0; i < 2; i++) hand_on(c, i, moment);
        if (c->ways[0].finished && c->ways[1].finished) {
            forget(number);
            continue;
        }
        if (c->opens && (!next || c->opens < next)) next = c->opens;
        for (int i = 0; i < 2; i++) {
            struct piece *p = c->ways[i].first;
            if (p && p->due > moment && (!next || p->due < next)) next = p->due;
            watch(c, i);
        }
    }
    return next;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    target = atoi(argv[1]);
    travel = strtoull(argv[2], NULL, 10) * 1000;
    signal(SIGPIPE, SIG_IGN);

    struct sockaddr_in address;
    socklen_t size = sizeof address;
    int listener = open_socket(0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    if (listener < 0 || getsockname(listener, (void *)&address, &size)) return perror("delay"), 1;
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);

    epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listener}, events[64];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    event.data.ptr = &timer;
    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event);
    for (;;) {
        uint64_t next = turn();
        struct itimerspec at = {.it_value = {(time_t)(next / 1000000000ull), (long)(next % 1000000000ull)}};
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL); /* takes back what it had to tell, as well */
        int ready = epoll_wait(epoll, events, 64, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr == &timer) continue; /* `turn` sees what is due */
            if (events[i].data.ptr == &listener) {
                int fd = accept4(listener, NULL, NULL, 0);
                if (fd >= 0 && count < MOST) accept_one(fd);
                else if (fd >= 0) close(fd);
                continue;
            }
            for (int k = 0; k < 2; k++) take_in(events[i].data.ptr, k);
        }
    }
}
