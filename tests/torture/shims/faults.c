/* A machine that fails as it is told to: an LD_PRELOAD shim over the calls by which a process meets its disk and its clock.
 *
 * RELAY_FAULTS names a file that `tests/torture/faults.py` writes, and that is mapped here, so that a rule holds from
 * the moment at which it is written. A rule says: at this call, on a path that matches, wait so long, then fail with
 * this errno; `skip` so many first, then so often. Where RELAY_FAULTS_LOG is set, every change of a file and every
 * sync is written there: from it the test knows what a disk holds whose sync failed.
 *
 * The wall clock is shifted by `shift`; the monotonic clock never is. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define RULES 16

struct rule {
    char call[16];      /* sync, write, read, open, rename, truncate */
    char path[208];     /* a pattern for the whole path */
    int32_t error;      /* errno, or 0: only the delay */
    int32_t skip;       /* so many pass first */
    int32_t times;      /* how often, -1: until the rule is taken away */
    uint32_t delay;     /* milliseconds */
    int32_t hits;       /* how often it has spoken */
    int32_t on;
};

struct control {
    int64_t shift; /* nanoseconds */
    struct rule rules[RULES];
};

static struct control *control;
static int log_fd = -1;
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(type, name, ...) \
    static type (*real_##name)(__VA_ARGS__); \
    if (!real_##name) real_##name = dlsym(RTLD_NEXT, #name)

static int open_really(const char *path, int flags, mode_t mode) { return syscall(SYS_openat, AT_FDCWD, path, flags, mode); }

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("RELAY_FAULTS"), *log = getenv("RELAY_FAULTS_LOG");
    if (log) log_fd = open_really(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int fd = path ? open_really(path, O_RDWR | O_CLOEXEC, 0) : -1;
    if (fd < 0) return;
    void *there = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (there != MAP_FAILED) control = there;
    close(fd);
}

static const char *path_of(int fd, char *room, size_t size) {
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, room, size - 1);
    room[length < 0 ? 0 : length] = 0;
    return room;
}

/* The path of a name that is looked up in an open folder. */
static const char *path_at(int at, const char *path, char *room, size_t size) {
    if (at == AT_FDCWD || path[0] == '/') return path;
    size_t length = strlen(path_of(at, room, size));
    snprintf(room + length, size - length, "/%s", path);
    return room;
}

static int any(const char *call) {
    if (!control) return 0;
    for (int n = 0; n < RULES; n++)
        if (__atomic_load_n(&control->rules[n].on, __ATOMIC_ACQUIRE) && !strcmp(control->rules[n].call, call)) return 1;
    return 0;
}

/* What the rules say of this call: 0, or an errno. */
static int judged(const char *call, const char *path) {
    if (!control) return 0;
    for (int n = 0; n < RULES; n++) {
        struct rule *rule = &control->rules[n];
        if (!__atomic_load_n(&rule->on, __ATOMIC_ACQUIRE) || strcmp(rule->call, call) || fnmatch(rule->path, path, 0)) continue;
        if (__atomic_load_n(&rule->skip, __ATOMIC_RELAXED) > 0 && __atomic_fetch_sub(&rule->skip, 1, __ATOMIC_RELAXED) > 0)
            continue;
        if (rule->times >= 0 && __atomic_fetch_sub(&rule->times, 1, __ATOMIC_RELAXED) <= 0) {
            rule->times = 0;
            continue;
        }
        if (rule->delay) {
            struct timespec pause = {rule->delay / 1000, (rule->delay % 1000) * 1000000L};
            nanosleep(&pause, NULL);
        }
        __atomic_fetch_add(&rule->hits, 1, __ATOMIC_RELEASE);
        return rule->error;
    }
    return 0;
}

static int judged_fd(const char *call, int fd) {
    char room[4096];
    return any(call) ? judged(call, path_of(fd, room, sizeof room)) : 0;
}

static void note(const char *what, int fd, long long at, long long size) {
    if (log_fd < 0) return;
    char room[4096], line[4200];
    int kept = errno;
    int length = snprintf(line, sizeof line, "%s\t%lld\t%lld\t%s\n", what, at, size, path_of(fd, room, sizeof room));
    pthread_mutex_lock(&log_lock);
    if (syscall(SYS_write, log_fd, line, length) < 0) abort();
    pthread_mutex_unlock(&log_lock);
    errno = kept;
}

#define FAIL_AS(error) if (error) { errno = error; return -1; }

static int synced(int fd, int error, int (*really)(int)) {
    if (error) note("unsynced", fd, 0, 0);
    FAIL_AS(error)
    int result = really(fd);
    note(result ? "unsynced" : "synced", fd, 0, 0);
    return result;
}

int fsync(int fd) {
    REAL(int, fsync, int);
    return synced(fd, judged_fd("sync", fd), real_fsync);
}

int fdatasync(int fd) {
    REAL(int, fdatasync, int);
    return synced(fd, judged_fd("sync", fd), real_fdatasync);
}

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t);
    int error = judged_fd("write", fd);
    FAIL_AS(error)
    off_t at = log_fd < 0 ? 0 : lseek(fd, 0, SEEK_CUR);
    ssize_t result = real_write(fd, data, size);
    if (result > 0 && at >= 0) note("write", fd, at, result);
    return result;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    int error = judged_fd("write", fd);
    FAIL_AS(error)
    ssize_t result = real_pwrite64(fd, data, size, at);
    if (result > 0) note("write", fd, at, result);
    return result;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }

ssize_t read(int fd, void *data, size_t size) {
    REAL(ssize_t, read, int, void *, size_t);
    int error = judged_fd("read", fd);
    FAIL_AS(error)
    return real_read(fd, data, size);
}

ssize_t pread64(int fd, void *data, size_t size, off64_t at) {
    REAL(ssize_t, pread64, int, void *, size_t, off64_t);
    int error = judged_fd("read", fd);
    FAIL_AS(error)
    return real_pread64(fd, data, size, at);
}

ssize_t pread(int fd, void *data, size_t size, off_t at) { return pread64(fd, data, size, at); }

int ftruncate64(int fd, off64_t size) {
    REAL(int, ftruncate64, int, off64_t);
    int error = judged_fd("truncate", fd);
    FAIL_AS(error)
    int result = real_ftruncate64(fd, size);
    if (!result) note("truncate", fd, size, 0);
    return result;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int renameat(int a, const char *from, int b, const char *to) {
    REAL(int, renameat, int, const char *, int, const char *);
    char room[4096];
    int error = judged("rename", path_at(b, to, room, sizeof room));
    FAIL_AS(error)
    return real_renameat(a, from, b, to);
}

int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

static int opened(int at, const char *path, int flags, mode_t mode) {
    char room[4096];
    int error = any("open") ? judged("open", path_at(at, path, room, sizeof room)) : 0;
    FAIL_AS(error)
    return syscall(SYS_openat, at, path, flags, mode);
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }

int open(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }

int open64(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode); }

int openat(int at, const char *path, int flags, ...) { MODE(flags) return opened(at, path, flags, mode); }

int openat64(int at, const char *path, int flags, ...) { MODE(flags) return opened(at, path, flags | O_LARGEFILE, mode); }

/* The wall clock */

static int64_t shift(void) { return control ? __atomic_load_n(&control->shift, __ATOMIC_RELAXED) : 0; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(int, clock_gettime, clockid_t, struct timespec *);
    int result = real_clock_gettime(clock, now);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t all = now->tv_sec * 1000000000LL + now->tv_nsec + shift();
        now->tv_sec = all / 1000000000LL;
        now->tv_nsec = all % 1000000000LL;
    }
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    REAL(int, gettimeofday, struct timeval *restrict, void *restrict);
    int result = real_gettimeofday(now, zone);
    if (!result) now->tv_sec += shift() / 1000000000LL;
    return result;
}

time_t time(time_t *there) {
    REAL(time_t, time, time_t *);
    time_t now = real_time(NULL) + shift() / 1000000000LL;
    if (there) *there = now;
    return now;
}
