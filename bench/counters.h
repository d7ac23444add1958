/* What the sink has seen, in memory that others look at while it works (`sink.py`, `latency.c`).
   Only the sink writes. `messages` is raised last, after the time of that message was put down. */
#include "clock.h"

#define TIMES 65536 /* of the last so many messages */

struct counters {
    uint64_t messages, octets, connections, expected, last, most_open, chunked, logins;
    uint64_t times[TIMES]; /* when message number i had ended, at i % TIMES; `last` is the time of the newest */
};
