/* SPDX-License-Identifier: Apache-2.0 */
/* The system between the library and the kernel: a program that includes this has its own open(), read(), write() and
 * so on, which count, fail, are interrupted, or end the process at the N-th call. Only for programs of one file. */
#ifndef EMO_TESTS_SYSTEM_CALLS_H
#define EMO_TESTS_SYSTEM_CALLS_H

#ifndef _GNU_SOURCE
#error "_GNU_SOURCE is needed for RTLD_NEXT"
#endif
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "support/support.h"

enum {
    CALL_OPEN = 1,
    CALL_READ = 2,
    CALL_WRITE = 4,
    CALL_SYNC = 8,
    CALL_RENAME = 16,
    CALL_MKDIR = 32,
    CALL_THREAD = 64,
    CALL_REMOVE = 128,
    CALL_STAT = 256,
    CALL_LIST = 512,
    CALL_LOCK = 1024,
    CALL_CLOSE = 2048,
    CALL_MAP = 4096,
    CALL_CHANGES = CALL_OPEN | CALL_WRITE | CALL_SYNC | CALL_RENAME | CALL_MKDIR | CALL_REMOVE | CALL_CLOSE
};

static struct {
    int armed;       /* kinds that count */
    long seen;       /* calls so far */
    long fail_at;    /* -1: none */
    int code;        /* errno of the failure */
    int die;         /* SIGKILL in place of the failure; a write is half done then */
    int interrupted; /* calls that may be interrupted are, every other time */
} calls = {0, 0, -1, 0, 0, 0};

static void calls_arm(int kinds, long fail_at, int code) {
    calls.seen = 0;
    calls.fail_at = fail_at;
    calls.code = code;
    calls.armed = kinds;
}

static int fails(int kind) {
    if ((calls.armed & kind) == 0)
        return 0;
    if (calls.interrupted) {
        errno = EINTR;
        return calls.seen++ % 2 == 0;
    }
    if (calls.seen++ != calls.fail_at)
        return 0;
    if (calls.die)
        (void)raise(SIGKILL);
    errno = calls.code;
    return 1;
}

/* libc's own function behind ours. */
#define REAL(type, name, variable)                                                                                     \
    __typeof__(type) variable;                                                                                         \
    void *symbol = dlsym(RTLD_NEXT, name);                                                                             \
    memcpy(&variable, &symbol, sizeof variable)

int open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
    va_end(args);
    return fails(CALL_OPEN) ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}
ssize_t read(int fd, void *data, size_t size) {
    if (size > 64 && (calls.armed & CALL_READ) != 0)
        size = size / 2; /* short reads and writes are no errors */
    return fails(CALL_READ) ? -1 : syscall(SYS_read, fd, data, size);
}
ssize_t pread(int fd, void *data, size_t size, off_t at) {
    if (size > 64 && (calls.armed & CALL_READ) != 0)
        size = size / 2;
    return fails(CALL_READ) ? -1 : syscall(SYS_pread64, fd, data, size, at);
}
ssize_t write(int fd, const void *data, size_t size) {
    if (size > 4096 && (calls.armed & CALL_WRITE) != 0)
        size = size / 2;
    if (calls.die && (calls.armed & CALL_WRITE) != 0 && calls.seen == calls.fail_at)
        (void)syscall(SYS_write, fd, data, size / 2);
    return fails(CALL_WRITE) ? -1 : syscall(SYS_write, fd, data, size);
}
int fsync(int fd) { return fails(CALL_SYNC) || fd < 0 ? -1 : 0; } /* a disk would take minutes */
int rename(const char *from, const char *to) {
    return fails(CALL_RENAME) ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}
int mkdir(const char *path, mode_t mode) {
    return fails(CALL_MKDIR) ? -1 : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}
int unlink(const char *path) { return fails(CALL_REMOVE) ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0); }
int rmdir(const char *path) {
    return fails(CALL_REMOVE) ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
}
int ftruncate(int fd, off_t size) { return fails(CALL_WRITE) ? -1 : (int)syscall(SYS_ftruncate, fd, size); }
int flock(int fd, int how) { return fails(CALL_LOCK) ? -1 : (int)syscall(SYS_flock, fd, how); }
int close(int fd) {
    int got = (int)syscall(SYS_close, fd);
    return fails(CALL_CLOSE) ? -1 : got;
}
int stat(const char *path, struct stat *st) {
    REAL(int (*)(const char *, struct stat *), "stat", real);
    return fails(CALL_STAT) ? -1 : real(path, st);
}
int lstat(const char *path, struct stat *st) {
    REAL(int (*)(const char *, struct stat *), "lstat", real);
    return fails(CALL_STAT) ? -1 : real(path, st);
}
int fstat(int fd, struct stat *st) {
    REAL(int (*)(int, struct stat *), "fstat", real);
    return fails(CALL_STAT) ? -1 : real(fd, st);
}
DIR *opendir(const char *path) {
    REAL(DIR * (*)(const char *), "opendir", real);
    return fails(CALL_LIST) ? NULL : real(path);
}
struct dirent *readdir(DIR *dir) {
    REAL(struct dirent * (*)(DIR *), "readdir", real);
    return fails(CALL_LIST) ? NULL : real(dir);
}
void *mmap(void *where, size_t size, int how, int flags, int fd, off_t at) {
    return fails(CALL_MAP) ? MAP_FAILED : (void *)syscall(SYS_mmap, where, size, how, flags, fd, at);
}
int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg) {
    REAL(int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *), "pthread_create", real);
    return fails(CALL_THREAD) ? EAGAIN : real(thread, attr, fn, arg);
}

#endif
