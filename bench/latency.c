/* latency: messages one by one, each in a connection of its own; how long until the 250, and until it is at the sink.

       latency PORT COUNTERS_FILE MESSAGES SIZE

   Prints a line for each message: microseconds from before connect until the sink had the whole message, and until
   the 250 was read. The clock of both is the monotonic one of this machine. The next message starts 2 ms after the
   last one has arrived, so that the relay is idle again. */
#define _GNU_SOURCE
#include "counters.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATIENCE 10000000000ull

static void give_up(const char *why) {
    fprintf(stderr, "latency: %s\n", why);
    exit(1);
}

static void say(int fd, const char *octets, size_t size) {
    while (size) {
        ssize_t sent = send(fd, octets, size, MSG_NOSIGNAL);
        if (sent <= 0) give_up("the relay closed the connection");
        octets += sent;
        size -= (size_t)sent;
    }
}

/* The whole reply to one command, multi-line ones as well; its code has to begin with `digit`. */
static void hear(int fd, char digit) {
    char text[4096];
    size_t size = 0;
    for (;;) {
        ssize_t got = recv(fd, text + size, sizeof text - 1 - size, 0);
        if (got <= 0) give_up("the relay closed the connection");
        size += (size_t)got;
        text[size] = 0;
        if (text[size - 1] != '\n') continue;
        char *line = text, *next;
        while ((next = strstr(line, "\r\n")) && next[2]) line = next + 2;
        if (line[3] != ' ') continue;
        if (line[0] != digit) give_up(text);
        return;
    }
}

static void ask(int fd, const char *command, char digit) {
    say(fd, command, strlen(command));
    hear(fd, digit);
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    size_t messages = strtoul(argv[3], NULL, 10), size = strtoul(argv[4], NULL, 10);
    int file = open(argv[2], O_RDONLY), one = 1;
    const struct counters *seen = mmap(NULL, sizeof *seen, PROT_READ, MAP_SHARED, file, 0);
    if (file < 0 || seen == MAP_FAILED) give_up("no counters");
    struct sockaddr_in relay = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    char *content = malloc(size + 1024);
    static const char header[] = "From: Jan <jan@example.com>\r\nTo: <piet@example.org>\r\nSubject: Factuur\r\n"
                                 "Date: Mon, 01 Jan 2024 00:00:00 +0000\r\n\r\n";
    size_t length = (size_t)sprintf(content, "%s", header);
    for (; length < size; length += 78) sprintf(content + length, "%076d\r\n", 0);
    length += (size_t)sprintf(content + length, ".\r\n");

    for (size_t i = 0; i < messages; i++) {
        uint64_t number = __atomic_load_n(&seen->messages, __ATOMIC_ACQUIRE), start = nanoseconds();
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (connect(fd, (void *)&relay, sizeof relay)) give_up("cannot connect");
        hear(fd, '2');
        ask(fd, "EHLO client.example.com\r\n", '2');
        ask(fd, "MAIL FROM:<jan@example.com>\r\n", '2');
        ask(fd, "RCPT TO:<piet@example.org>\r\n", '2');
        ask(fd, "DATA\r\n", '3');
        say(fd, content, length);
        hear(fd, '2');
        uint64_t accepted = nanoseconds();
        ask(fd, "QUIT\r\n", '2');
        close(fd);
        while (__atomic_load_n(&seen->messages, __ATOMIC_ACQUIRE) == number) {
            if (nanoseconds() > accepted + PATIENCE) give_up("a message did not arrive");
            usleep(50);
        }
        printf("%.1f %.1f\n", (double)(seen->times[number % TIMES] - start) / 1e3, (double)(accepted - start) / 1e3);
        usleep(2000);
    }
    return 0;
}
