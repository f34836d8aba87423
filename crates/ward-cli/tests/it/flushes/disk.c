/*
 * A disk that can refuse to flush, for one process: loaded with LD_PRELOAD.
 *
  * WARD_TEST_FOLDER holds the database. WARD_TEST_DISK holds the content of the disk after a power cut:
  *   image/NAME   the content that was flushed
  *   dirty/NAME   the content that was written and not flushed: records of an offset and a length; a length of -1 is a
  *                truncation
  *   flushes      one line per flush: the name, and the outcome
  *   fail         names the file whose next flush fails; removed by that flush
  *   always       names the file whose flushes fail for as long as this exists
  *
  * A failed flush discards the written data, as on Linux: the system marks the pages as clean, so no later flush writes them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct record {
    long long offset;
    long long length;
};

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_unlink)(const char *);

__attribute__((constructor)) static void find(void) {
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
}

/* The name of a tracked file, or NULL. */
static const char *tracked_path(const char *path) {
    const char *folder = getenv("WARD_TEST_FOLDER");
    if (!folder || !getenv("WARD_TEST_DISK")) return NULL;
    size_t length = strlen(folder);
    if (strncmp(path, folder, length) || path[length] != '/') return NULL;
    const char *name = path + length + 1;
    return strcmp(name, "ward.db") && strcmp(name, "ward.db-wal") ? NULL : name;
}

static const char *tracked(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return NULL;
    path[length] = 0;
    return tracked_path(path);
}

static void place(char *out, const char *folder, const char *name) {
    snprintf(out, PATH_MAX, "%s/%s/%s", getenv("WARD_TEST_DISK"), folder, name);
}

static void note(const char *name, long long offset, long long length) {
    char path[PATH_MAX];
    struct record record = {offset, length};
    place(path, "dirty", name);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || real_write(fd, &record, sizeof record) != sizeof record) abort();
    close(fd);
}

static int names(const char *control, const char *name, char *path);

ssize_t write(int fd, const void *data, size_t length) {
    char path[PATH_MAX];
    if (!real_write) find();
    const char *name = tracked(fd, path);
    if (!name) return real_write(fd, data, length);
    pthread_mutex_lock(&one_at_a_time);
    off_t offset = lseek(fd, 0, SEEK_CUR);
    ssize_t written = real_write(fd, data, length);
    int why = errno;
    if (written > 0) note(name, offset, written);
    pthread_mutex_unlock(&one_at_a_time);
    errno = why;
    return written;
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    char path[PATH_MAX];
    if (!real_pwrite) find();
    const char *name = tracked(fd, path);
    if (!name) return real_pwrite(fd, data, length, offset);
    char control[PATH_MAX];
    if (names("unwritable", name, control)) {
        errno = EIO;
        return -1;
    }
    pthread_mutex_lock(&one_at_a_time);
    ssize_t written = real_pwrite(fd, data, length, offset);
    int why = errno;
    if (written > 0) note(name, offset, written);
    pthread_mutex_unlock(&one_at_a_time);
    errno = why;
    return written;
}

ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset) {
    return pwrite(fd, data, length, offset);
}

int ftruncate(int fd, off_t length) {
    char path[PATH_MAX];
    if (!real_ftruncate) find();
    const char *name = tracked(fd, path);
    pthread_mutex_lock(&one_at_a_time);
    int done = real_ftruncate(fd, length);
    int why = errno;
    if (name && done == 0) note(name, length, -1);
    pthread_mutex_unlock(&one_at_a_time);
    errno = why;
    return done;
}

int ftruncate64(int fd, off_t length) {
    return ftruncate(fd, length);
}

/* A removed name is as durable as the next flush: until then the old content may come back. */
int unlink(const char *path) {
    if (!real_unlink) find();
    const char *name = tracked_path(path);
    pthread_mutex_lock(&one_at_a_time);
    int done = real_unlink(path);
    int why = errno;
    if (name && done == 0) note(name, 0, -1);
    pthread_mutex_unlock(&one_at_a_time);
    errno = why;
    return done;
}

static int names(const char *control, const char *name, char *path) {
    char said[PATH_MAX] = "";
    snprintf(path, PATH_MAX, "%s/%s", getenv("WARD_TEST_DISK"), control);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t length = read(fd, said, sizeof said - 1);
    close(fd);
    return length > 0 && !strcmp(said, name);
}

static int fails(const char *name) {
    char path[PATH_MAX];
    if (names("always", name, path)) return 1;
    return names("fail", name, path) && real_unlink(path) == 0;
}

static void copy(int from, int to, long long offset, long long length) {
    static char chunk[1 << 16];
    while (length > 0) {
        size_t most = length < (long long)sizeof chunk ? (size_t)length : sizeof chunk;
        ssize_t got = pread(from, chunk, most, offset);
        if (got <= 0) return; /* Cut off since. */
        if (real_pwrite(to, chunk, got, offset) != got) abort();
        offset += got;
        length -= got;
    }
}

/* Moves written data into the image. A failed flush moves only the truncations, which belong to the folder. */
static void settle(const char *file, const char *name, int failed) {
    char path[PATH_MAX];
    struct record record;
    place(path, "dirty", name);
    int dirty = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    place(path, "image", name);
    int image = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    /* Closing a descriptor of the database would end SQLite's locks on it, so that file is opened once. */
    static int database = -1;
    int is_database = !strcmp(name, "ward.db");
    int from = is_database && database >= 0 ? database : open(file, O_RDONLY | O_CLOEXEC);
    if (is_database) database = from;
    if (dirty < 0 || image < 0 || from < 0) abort();
    while (read(dirty, &record, sizeof record) == sizeof record) {
        if (record.length < 0) {
            if (real_ftruncate(image, record.offset)) abort();
        } else if (!failed) {
            copy(from, image, record.offset, record.length);
        }
    }
    if (real_ftruncate(dirty, 0)) abort();
    close(dirty);
    close(image);
    if (!is_database) close(from);
}

static int flush(int fd) {
    char path[PATH_MAX], line[PATH_MAX], log[PATH_MAX];
    if (!real_write) find();
    const char *name = tracked(fd, path);
    if (!name) return 0;
    pthread_mutex_lock(&one_at_a_time);
    int failed = fails(name);
    settle(path, name, failed);
    snprintf(log, sizeof log, "%s/flushes", getenv("WARD_TEST_DISK"));
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int length = snprintf(line, sizeof line, "%s %s\n", name, failed ? "failed" : "done");
    if (out < 0 || real_write(out, line, length) != length) abort();
    close(out);
    pthread_mutex_unlock(&one_at_a_time);
    errno = EIO;
    return failed ? -1 : 0;
}

int fsync(int fd) {
    return flush(fd);
}

int fdatasync(int fd) {
    return flush(fd);
}
