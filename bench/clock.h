/* The one clock of all that measures here: monotonic, and the same in every process of this machine. */
#include <stdint.h>
#include <time.h>

static inline uint64_t nanoseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}
