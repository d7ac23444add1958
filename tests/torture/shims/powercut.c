/* Writes down what a process does to the files beneath a folder, so that the disk as after a power cut can be made.

   LD_PRELOAD=powercut.so POWERCUT_FOLDER=/absolute/folder POWERCUT_JOURNAL=/elsewhere/journal program

   Each call that changes a file or a name, and each that syncs, is carried out and then appended to the journal
   (tests/torture/journal.py reads it). A call is in the journal only after it was carried out, and a sync covers what was
   in the journal when it began: whatever the moment at which the process is killed, what the journal has as synced is
   synced, and what it does not have was not. Calls that would change files in other ways are written down by name, and
   the reader refuses the journal.

   Before the variables are set (they are looked at with each call that names a file) nothing is written down.
   Paths beneath the folder have to be absolute, or relative to a descriptor of a folder beneath it. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES 65536

enum { OPEN = 'O', WRITE = 'W', TRUNCATE = 'T', BEGIN = 'B', SYNCED = 'S', RENAME = 'R', UNLINK = 'U', MAKE = 'M', OTHER = '?' };
enum { CREATED = 1, EMPTIED = 2, FOLDER = 4 };

struct record {
    uint8_t what, flags;
    uint16_t path, path2; /* octets that follow */
    uint16_t none;
    uint64_t file, at, length; /* inode; offset or number of the sync; octets of data that follow last */
} __attribute__((packed));

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int journal = -1;
static const char *folder;
static size_t folder_length;
static uint64_t syncs;
static uint64_t watched[FILES]; /* the inode, by descriptor; 0: not beneath the folder */

static int ready(void) {
    if (journal < 0) {
        const char *path = getenv("POWERCUT_JOURNAL");
        folder = getenv("POWERCUT_FOLDER");
        if (path == NULL || folder == NULL) return 0;
        folder_length = strlen(folder);
        journal = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (journal < 0) abort();
    }
    return 1;
}

/* The folder itself counts: the names in it are synced by way of it. */
static int beneath(const char *path) {
    return path != NULL && ready() && strncmp(path, folder, folder_length) == 0 &&
           (path[folder_length] == '/' || path[folder_length] == '\0');
}

static uint64_t file_of(int descriptor) {
    return descriptor >= 0 && descriptor < FILES ? watched[descriptor] : 0;
}

/* The path of a name that is looked up in an open folder; `room` has PATH_MAX octets. */
static const char *path_at(int at, const char *path, char *room) {
    if (!file_of(at) || path == NULL || path[0] == '/') return path;
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    ssize_t length = readlink(link, room, PATH_MAX - 1);
    if (length < 0) abort();
    room[length] = '\0';
    if (strcmp(path, ".") == 0) return room;
    if (length + 1 + strlen(path) >= PATH_MAX) abort();
    room[length] = '/';
    strcpy(room + length + 1, path);
    return room;
}

static void note(struct record record, const char *path, const char *path2, const void *data) {
    struct iovec parts[4];
    size_t total = sizeof record;
    record.path = path == NULL ? 0 : strlen(path);
    record.path2 = path2 == NULL ? 0 : strlen(path2);
    size_t octets = record.what == WRITE ? record.length : 0;
    parts[0] = (struct iovec){&record, sizeof record};
    parts[1] = (struct iovec){(void *)path, record.path};
    parts[2] = (struct iovec){(void *)path2, record.path2};
    parts[3] = (struct iovec){(void *)data, octets};
    total += record.path + record.path2 + octets;
    int before = errno;
    if (syscall(SYS_writev, journal, parts, 4) != (long)total) abort();
    errno = before;
}

static void other(const char *name) { note((struct record){.what = OTHER}, name, NULL, NULL); }

/* Opening */

static int opened(int at, const char *name, int flags, mode_t mode) {
    char room[PATH_MAX];
    const char *path = path_at(at, name, room);
    if (!beneath(path)) {
        int plain = syscall(SYS_openat, at, name, flags, mode);
        if (plain >= 0 && plain < FILES) watched[plain] = 0;
        return plain;
    }
    struct stat there;
    pthread_mutex_lock(&lock);
    int new = stat(path, &there) != 0;
    int descriptor = syscall(SYS_openat, at, name, flags, mode);
    if (descriptor >= 0) {
        int before = errno;
        if (descriptor >= FILES || fstat(descriptor, &there) != 0) abort();
        watched[descriptor] = there.st_ino;
        struct record record = {.what = OPEN, .file = there.st_ino};
        if (new) record.flags |= CREATED;
        if (!new && (flags & O_TRUNC)) record.flags |= EMPTIED;
        if (S_ISDIR(there.st_mode)) record.flags |= FOLDER;
        note(record, path + folder_length, NULL, NULL);
        errno = before;
    }
    pthread_mutex_unlock(&lock);
    return descriptor;
}

#define MODE                                                   \
    mode_t mode = 0;                                           \
    if (flags & (O_CREAT | __O_TMPFILE)) {                     \
        va_list arguments;                                     \
        va_start(arguments, flags);                            \
        mode = va_arg(arguments, mode_t);                      \
        va_end(arguments);                                     \
    }
int open(const char *path, int flags, ...) { MODE return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return opened(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE return opened(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE return opened(at, path, flags, mode); }
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int close(int descriptor) {
    if (descriptor >= 0 && descriptor < FILES) watched[descriptor] = 0;
    return syscall(SYS_close, descriptor);
}

/* Writing */

static ssize_t written(int descriptor, const void *data, ssize_t done, off_t at) {
    uint64_t file = file_of(descriptor);
    if (file && done > 0) {
        pthread_mutex_lock(&lock);
        note((struct record){.what = WRITE, .file = file, .at = at, .length = done}, NULL, NULL, data);
        pthread_mutex_unlock(&lock);
    }
    return done;
}

ssize_t write(int descriptor, const void *data, size_t length) {
    ssize_t done = syscall(SYS_write, descriptor, data, length);
    if (!file_of(descriptor) || done <= 0) return done;
    return written(descriptor, data, done, lseek(descriptor, 0, SEEK_CUR) - done);
}

ssize_t pwrite(int descriptor, const void *data, size_t length, off_t at) {
    return written(descriptor, data, syscall(SYS_pwrite64, descriptor, data, length, at), at);
}
ssize_t pwrite64(int descriptor, const void *data, size_t length, off_t at) {
    return pwrite(descriptor, data, length, at);
}

static int truncated(int descriptor, off_t length) {
    int failed = syscall(SYS_ftruncate, descriptor, length);
    uint64_t file = file_of(descriptor);
    if (file && !failed) {
        pthread_mutex_lock(&lock);
        note((struct record){.what = TRUNCATE, .file = file, .length = length}, NULL, NULL, NULL);
        pthread_mutex_unlock(&lock);
    }
    return failed;
}
int ftruncate(int descriptor, off_t length) { return truncated(descriptor, length); }
int ftruncate64(int descriptor, off_t length) { return truncated(descriptor, length); }

/* Syncing */

static int synced(long call, int descriptor) {
    uint64_t file = file_of(descriptor);
    if (!file) return syscall(call, descriptor);
    pthread_mutex_lock(&lock);
    uint64_t number = ++syncs;
    note((struct record){.what = BEGIN, .file = file, .at = number}, NULL, NULL, NULL);
    pthread_mutex_unlock(&lock);
    int failed = syscall(call, descriptor);
    if (!failed) {
        pthread_mutex_lock(&lock);
        note((struct record){.what = SYNCED, .file = file, .at = number}, NULL, NULL, NULL);
        pthread_mutex_unlock(&lock);
    }
    return failed;
}
int fsync(int descriptor) { return synced(SYS_fsync, descriptor); }
int fdatasync(int descriptor) { return synced(SYS_fdatasync, descriptor); }

/* Names */

static int named(int failed, struct record record, const char *path, const char *path2) {
    if (!failed && beneath(path)) {
        if (path2 != NULL && !beneath(path2)) other("rename out of the folder");
        struct stat there;
        if (record.what == MAKE && stat(path, &there) == 0) record.file = there.st_ino;
        note(record, path + folder_length, path2 == NULL ? NULL : path2 + folder_length, NULL);
    } else if (!failed && beneath(path2)) {
        other("rename into the folder");
    }
    return failed;
}

#define NAMED(call, what_, at, path, at2, path2)                                 \
    char room[PATH_MAX], room2[PATH_MAX];                                        \
    const char *full = path_at(at, path, room), *full2 = path_at(at2, path2, room2); \
    pthread_mutex_lock(&lock);                                                   \
    int failed = named(call, (struct record){.what = what_}, full, full2);       \
    pthread_mutex_unlock(&lock);                                                 \
    return failed;

#define HERE AT_FDCWD
int rename(const char *from, const char *to) { NAMED(syscall(SYS_rename, from, to), RENAME, HERE, from, HERE, to) }
int renameat(int a, const char *from, int b, const char *to) { NAMED(syscall(SYS_renameat, a, from, b, to), RENAME, a, from, b, to) }
int unlink(const char *path) { NAMED(syscall(SYS_unlink, path), UNLINK, HERE, path, HERE, NULL) }
int unlinkat(int at, const char *path, int flags) { NAMED(syscall(SYS_unlinkat, at, path, flags), UNLINK, at, path, HERE, NULL) }
int rmdir(const char *path) { NAMED(syscall(SYS_rmdir, path), UNLINK, HERE, path, HERE, NULL) }
int mkdir(const char *path, mode_t mode) { NAMED(syscall(SYS_mkdir, path, mode), MAKE, HERE, path, HERE, NULL) }
int mkdirat(int at, const char *path, mode_t mode) { NAMED(syscall(SYS_mkdirat, at, path, mode), MAKE, at, path, HERE, NULL) }

/* What the reader does not know. Descriptors first, then paths. */

#define REFUSED(name, number, parameters, arguments, descriptor)                  \
    ssize_t name parameters {                                                    \
        if (file_of(descriptor)) other(#name);                                   \
        return syscall(number, arguments);                                       \
    }
#define COMMA ,
REFUSED(writev, SYS_writev, (int d, const struct iovec *v, int n), d COMMA v COMMA n, d)
REFUSED(pwritev, SYS_pwritev, (int d, const struct iovec *v, int n, off_t at), d COMMA v COMMA n COMMA at COMMA 0, d)
REFUSED(pwritev64, SYS_pwritev, (int d, const struct iovec *v, int n, off64_t at), d COMMA v COMMA n COMMA at COMMA 0, d)
REFUSED(copy_file_range, SYS_copy_file_range,
        (int a, off64_t *x, int d, off64_t *y, size_t n, unsigned f), a COMMA x COMMA d COMMA y COMMA n COMMA f, d)
REFUSED(sendfile, SYS_sendfile, (int d, int a, off_t *x, size_t n), d COMMA a COMMA x COMMA n, d)
REFUSED(sendfile64, SYS_sendfile, (int d, int a, off64_t *x, size_t n), d COMMA a COMMA x COMMA n, d)

int fallocate(int d, int mode, off_t at, off_t length) {
    if (file_of(d)) other("fallocate");
    return syscall(SYS_fallocate, d, mode, at, length);
}
int posix_fallocate(int d, off_t at, off_t length) {
    if (file_of(d)) other("posix_fallocate");
    return syscall(SYS_fallocate, d, 0, at, length) ? errno : 0;
}
int truncate(const char *path, off_t length) {
    if (beneath(path)) other("truncate");
    return syscall(SYS_truncate, path, length);
}
int link(const char *from, const char *to) {
    if (beneath(to)) other("link");
    return syscall(SYS_link, from, to);
}
int linkat(int a, const char *from, int b, const char *to, int flags) {
    if (beneath(to) || file_of(b)) other("linkat");
    return syscall(SYS_linkat, a, from, b, to, flags);
}
