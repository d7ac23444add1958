/* sink: an upstream that takes every message, counts it and forgets it, faster than any relay can send.

       sink COUNTERS_FILE [-e TEXT] [-c] [-t PEM -a LOGIN]

   Listens on a free port of 127.0.0.1 and prints it. Says 250 to everything that is in order; offers PIPELINING.
   -e TEXT   count in `expected` the messages that have TEXT in the header
   -c        offer CHUNKING (RFC 3030) as well
   -t PEM    offer STARTTLS with this certificate and key, and take no mail without it
   -a LOGIN  ask for AUTH PLAIN with this (base64) inside TLS, and take no mail without it

   One thread, epoll. Every reply to what one read brought goes out in one write, with TCP_NODELAY; TCP_QUICKACK, so
   that a client which writes in small pieces does not wait 40 ms for the kernel. Built with OpenSSL where its headers
   are (-DTLS); without, -t is refused. */
#define _GNU_SOURCE
#include "counters.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#ifdef TLS
#include <openssl/ssl.h>
#endif

#define HEADER 8192 /* octets of a message in which TEXT is looked for */
#define READS 16    /* of one connection in a row: TLS gives 16 KiB at a time */

enum state { COMMAND, DATA, CHUNK };

struct connection {
    int fd;
    enum state state;
    int secured, known; /* STARTTLS was asked for; AUTH succeeded */
    int recipients;     /* of the transaction */
    int chunking;       /* a part of the content came by BDAT */
    int last, refused;  /* of the BDAT that is under way */
    int matched;        /* octets of CRLF.CRLF that the content ends with so far */
    size_t left;        /* octets that the BDAT under way still brings */
    size_t line, out, header;
    char command[4096], replies[16384], start[HEADER];
#ifdef TLS
    SSL *tls;
#endif
};

static struct counters *seen;
static const char *expect, *login;
static int chunking, on_offer_tls;
static uint64_t open_now;
#ifdef TLS
static SSL_CTX *context;
#endif

/* The wire */

static ssize_t read_some(struct connection *c, char *into, size_t size) {
#ifdef TLS
    if (c->tls) {
        int got = SSL_read(c->tls, into, (int)size);
        if (got > 0) return got;
        return SSL_get_error(c->tls, got) == SSL_ERROR_WANT_READ ? -1 : 0;
    }
#endif
    ssize_t got = recv(c->fd, into, size, 0);
    return got < 0 && errno != EAGAIN && errno != EINTR ? 0 : got;
}

/* Replies are short and wait for the other end: a full socket is waited for here. */
static int send_replies(struct connection *c) {
    for (size_t sent = 0; sent < c->out;) {
        ssize_t done;
#ifdef TLS
        if (c->tls) {
            int wrote = SSL_write(c->tls, c->replies + sent, (int)(c->out - sent));
            done = wrote > 0 ? wrote : SSL_get_error(c->tls, wrote) == SSL_ERROR_WANT_WRITE ? -1 : 0;
        } else
#endif
        {
            done = send(c->fd, c->replies + sent, c->out - sent, MSG_NOSIGNAL);
            if (done < 0 && errno != EAGAIN && errno != EINTR) done = 0;
        }
        if (!done) return -1;
        if (done < 0) usleep(100);
        else sent += (size_t)done;
    }
    c->out = 0;
    return 0;
}

/* The conversation */

static void reply(struct connection *c, const char *text) {
    size_t size = strlen(text);
    if (c->out + size > sizeof c->replies) send_replies(c);
    memcpy(c->replies + c->out, text, size);
    c->out += size;
}

static void greet(struct connection *c) {
    reply(c, "250-sink\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n");
    if (chunking) reply(c, "250-CHUNKING\r\n");
    if (on_offer_tls && !c->secured) reply(c, "250-STARTTLS\r\n");
    if (login && c->secured) reply(c, "250-AUTH PLAIN\r\n");
    reply(c, "250 SMTPUTF8\r\n");
}

static void begin(struct connection *c) {
    c->recipients = c->chunking = 0;
    c->header = 0;
    c->matched = 2; /* the CRLF of the command before counts as the first of the five */
}

static void end_message(struct connection *c) {
    if (expect) {
        char *end = memmem(c->start, c->header, "\r\n\r\n", 4);
        if (memmem(c->start, end ? (size_t)(end - c->start) : c->header, expect, strlen(expect))) seen->expected++;
    }
    seen->chunked += (uint64_t)c->chunking;
    seen->last = seen->times[seen->messages % TIMES] = nanoseconds();
    __atomic_store_n(&seen->messages, seen->messages + 1, __ATOMIC_RELEASE);
    begin(c);
    c->state = COMMAND;
    reply(c, "250 2.0.0 Ok: queued\r\n");
}

static void end_chunk(struct connection *c) {
    c->state = COMMAND;
    if (c->refused) reply(c, "503 5.5.1 No valid recipients\r\n");
    else if (c->last) end_message(c);
    else reply(c, "250 2.0.0 Ok: chunk\r\n");
}

/* "BDAT octets [LAST]": what follows is content whatever is said to it (RFC 3030, section 2). */
static void begin_chunk(struct connection *c) {
    char *end;
    c->left = strtoull(c->command + 5, &end, 10);
    c->last = strncasecmp(end, " LAST", 5) == 0;
    c->refused = !c->recipients;
    c->chunking = 1;
    c->state = CHUNK;
    if (!c->left) end_chunk(c);
}

static int is(struct connection *c, const char *verb) { return !strncasecmp(c->command, verb, strlen(verb)); }

/* One command; 0 where the conversation goes on. */
static int obey(struct connection *c) {
    int allowed = (!on_offer_tls || c->secured) && (!login || c->known);
    if (is(c, "EHLO")) greet(c);
    else if (is(c, "HELO")) reply(c, "250 sink\r\n");
    else if (is(c, "RSET")) begin(c), reply(c, "250 2.0.0 Ok\r\n");
    else if (is(c, "NOOP")) reply(c, "250 2.0.0 Ok\r\n");
    else if (is(c, "QUIT")) return reply(c, "221 2.0.0 Bye\r\n"), -1;
    else if (is(c, "STARTTLS") && on_offer_tls && !c->secured) {
        c->secured = 1;
        reply(c, "220 2.0.0 Go ahead\r\n");
    } else if (is(c, "AUTH PLAIN ") && login && c->secured) {
        c->known = !strncmp(c->command + 11, login, strlen(login)) && strlen(c->command) == strlen(login) + 13;
        seen->logins += (uint64_t)c->known;
        reply(c, c->known ? "235 2.7.0 Ok\r\n" : "535 5.7.8 Wrong\r\n");
    } else if (!allowed) reply(c, "530 5.7.0 STARTTLS and AUTH first\r\n");
    else if (is(c, "MAIL")) begin(c), reply(c, "250 2.1.0 Ok\r\n");
    else if (is(c, "RCPT")) c->recipients++, reply(c, "250 2.1.5 Ok\r\n");
    else if (is(c, "DATA") && c->recipients && !c->chunking) {
        c->state = DATA;
        reply(c, "354 End data with <CR><LF>.<CR><LF>\r\n");
    } else if (is(c, "DATA")) reply(c, "503 5.5.1 No valid recipients\r\n");
    else if (is(c, "BDAT ") && chunking) begin_chunk(c);
    else reply(c, "500 5.5.2 What?\r\n");
    return 0;
}

/* Content */

static void keep_start(struct connection *c, const char *octets, size_t size) {
    if (!expect || c->header == HEADER) return;
    if (size > HEADER - c->header) size = HEADER - c->header;
    memcpy(c->start + c->header, octets, size);
    c->header += size;
}

/* How many octets belong to the content; `matched` is 5 when it ends with them. */
static size_t content_of(struct connection *c, const char *octets, size_t size) {
    static const char end[] = "\r\n.\r\n";
    size_t i = 0;
    while (i < size && c->matched < 5) {
        if (!c->matched) {
            const char *next = memchr(octets + i, '\r', size - i);
            if (!next) return size;
            i = (size_t)(next - octets);
        }
        char octet = octets[i++];
        c->matched = octet == end[c->matched] ? c->matched + 1 : octet == '\r';
    }
    return i;
}

/* What one read brought; 0 where the conversation goes on. */
static int feed(struct connection *c, const char *octets, size_t size) {
    while (size) {
        size_t used;
        if (c->state == COMMAND) {
            const char *end = memchr(octets, '\n', size);
            used = end ? (size_t)(end - octets) + 1 : size;
            if (c->line + used >= sizeof c->command) return -1;
            memcpy(c->command + c->line, octets, used);
            c->line += used;
            if (end) {
                c->command[c->line] = 0;
                c->line = 0;
                int was_secured = c->secured;
                if (obey(c)) return -1;
                if (c->secured != was_secured) return used == size ? 0 : -1; /* nothing may come before TLS does */
            }
        } else {
            used = c->state == DATA ? content_of(c, octets, size) : c->left < size ? c->left : size;
            keep_start(c, octets, used);
            seen->octets += used;
            if (c->state == DATA) {
                if (c->matched == 5) end_message(c);
            } else if (!(c->left -= used)) end_chunk(c);
        }
        octets += used;
        size -= used;
    }
    return 0;
}

/* 0 where the connection stays. */
static int serve(struct connection *c) {
    static char buffer[262144];
    int one = 1, ended = 0;
    for (int i = 0; i < READS && !ended; i++) {
        ssize_t got = read_some(c, buffer, sizeof buffer);
        setsockopt(c->fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof one);
        if (got < 0) break;
        ended = !got || feed(c, buffer, (size_t)got);
#ifdef TLS
        if (c->secured && !c->tls) {
            if (send_replies(c)) return -1; /* the 220, in clear */
            c->tls = SSL_new(context);
            SSL_set_fd(c->tls, c->fd);
            SSL_set_accept_state(c->tls);
            break;
        }
        if (!c->tls) break;
#else
        break;
#endif
    }
    return send_replies(c) || ended ? -1 : 0;
}

static void meet(int epoll, int fd) {
    struct connection *c = calloc(1, sizeof *c);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    c->fd = fd;
    begin(c);
    seen->connections++;
    if (++open_now > seen->most_open) seen->most_open = open_now;
    reply(c, "220 sink ESMTP\r\n");
    send_replies(c);
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static void part(struct connection *c) {
    open_now--;
#ifdef TLS
    SSL_free(c->tls);
#endif
    close(c->fd);
    free(c);
}

static int start_tls_with(const char *pem) {
#ifdef TLS
    context = SSL_CTX_new(TLS_server_method());
    on_offer_tls = 1;
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return SSL_CTX_use_certificate_chain_file(context, pem) == 1 &&
           SSL_CTX_use_PrivateKey_file(context, pem, SSL_FILETYPE_PEM) == 1;
#else
    (void)pem;
    fputs("sink was built without OpenSSL\n", stderr);
    return 0;
#endif
}

int main(int argc, char **argv) {
    int option;
    while ((option = getopt(argc, argv, "e:ct:a:")) != -1) {
        if (option == 'e') expect = optarg;
        else if (option == 'c') chunking = 1;
        else if (option == 'a') login = optarg;
        else if (option != 't' || !start_tls_with(optarg)) return 2;
    }
    if (optind + 1 != argc) return 2;
    signal(SIGPIPE, SIG_IGN);

    int file = open(argv[optind], O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (file < 0 || ftruncate(file, sizeof *seen)) return perror("sink"), 1;
    seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);

    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), epoll = epoll_create1(0);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* what is accepted inherits it */
    if (bind(listener, (void *)&address, size) || listen(listener, 1024)) return perror("sink"), 1;
    getsockname(listener, (void *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);

    struct epoll_event event = {.events = EPOLLIN}, events[256];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            int fd;
            if (c && serve(c)) part(c);
            while (!c && (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) meet(epoll, fd);
        }
    }
}
