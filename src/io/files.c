/* SPDX-License-Identifier: Apache-2.0 */
#define _DEFAULT_SOURCE 1 /* flock */
#include "io/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"

#define LARGEST_TRANSFER ((size_t)1 << 30)

/* In words, without strerror(): that one depends on the locale, and its buffer on the thread. */
static const char *reason(int code) {
    static const struct {
        int code;
        const char *words;
    } reasons[] = {
        {ENOENT, "no such file or folder"},
        {ENOTDIR, "no such file or folder"},
        {EACCES, "permission denied"},
        {EPERM, "permission denied"},
        {ENOSPC, "no space left"},
        {EDQUOT, "no space left"},
        {EFBIG, "the file would be longer than is allowed here"},
        {EROFS, "the file system is read-only"},
        {EISDIR, "it is a folder"},
        {EMFILE, "too many open files"},
        {ENFILE, "too many open files"},
        {ENAMETOOLONG, "the name is too long"},
        {ENOTEMPTY, "the folder is not empty"},
        {EIO, "the device failed"},
        {ESTALE, "the file system is gone"},
        {ENOMEM, "the system has no memory left"},
    };
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        if (reasons[i].code == code)
            return reasons[i].words;
    }
    return "the system refused";
}

emo_status emo__fail_errno(emo_error *err, const char *path, const char *what) {
    int code = errno;
    return emo__fail_at(err, code == ENOENT || code == ENOTDIR ? EMO_E_NOT_FOUND : EMO_E_IO, EMO_DOMAIN_SYSTEM, code,
                        "%s: %s: %s (errno %d)", path, what, reason(code), code);
}

static int open_retry(const char *path, int flags, mode_t mode) {
    int fd;
    do {
        fd = open(path, flags | O_CLOEXEC, mode);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

static emo_status write_all(int fd, const char *path, const void *data, size_t size, emo_error *err) {
    const char *bytes = data;
    while (size > 0) {
        ssize_t n = write(fd, bytes, size < LARGEST_TRANSFER ? size : LARGEST_TRANSFER);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return emo__fail_errno(err, path, "cannot write");
        bytes += n;
        size -= (size_t)n;
    }
    return EMO_OK;
}

static int lock_now(int fd) {
    int got;
    do {
        got = flock(fd, LOCK_EX | LOCK_NB);
    } while (got != 0 && errno == EINTR);
    return got;
}

/* A writer holds the lock of its temporary file until it is renamed: one that can be locked has no writer any more. */
static bool take_temporary(int fd) {
    struct stat st;
    if (lock_now(fd) != 0)
        return errno != EWOULDBLOCK;               /* a file system without locks: nobody sweeps there either */
    return fstat(fd, &st) != 0 || st.st_nlink > 0; /* another writer may have swept it away before it was locked */
}

/* Removes what writers of this path left that were killed. What cannot be removed does no harm; nothing is allocated,
 * so that writing cannot fail on it. */
static void sweep(const char *path) {
    const char *base = emo__path_base(path);
    size_t length = strlen(base);
    char folder[4096];
    if (base == path)
        (void)snprintf(folder, sizeof folder, ".");
    else if ((size_t)snprintf(folder, sizeof folder, "%.*s", (int)(base - path), path) >= sizeof folder)
        return;
    DIR *dir = opendir(folder);
    if (dir == NULL)
        return;
    for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        if (strncmp(entry->d_name, base, length) != 0 ||
            strncmp(entry->d_name + length, EMO__TEMPORARY, strlen(EMO__TEMPORARY)) != 0)
            continue;
        int fd = openat(dirfd(dir), entry->d_name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0)
            continue;
        if (lock_now(fd) == 0)
            (void)unlinkat(dirfd(dir), entry->d_name, 0);
        (void)close(fd);
    }
    (void)closedir(dir);
}

emo_status emo__atomic_open(emo__atomic_file *file, const emo__mem *mem, const char *path, emo_error *err) {
    memset(file, 0, sizeof *file);
    file->mem = mem;
    file->fd = -1;
    emo__buf name;
    emo__buf_init(&name, mem);
    emo_status status = EMO_OK;
    file->path = emo__strdup(mem, path);
    if (file->path == NULL)
        status = emo__fail_memory(err, strlen(path) + 1);
    else
        sweep(path);
    /* Two writers of one path, in one process or two, must not share the temporary file. */
    for (unsigned attempt = 0; status == EMO_OK && file->fd < 0; attempt++) {
        name.size = 0;
        status = emo__buf_printf(&name, err, "%s" EMO__TEMPORARY "%ld-%u", path, (long)getpid(), attempt);
        if (status != EMO_OK)
            break;
        file->fd = open_retry(name.data, O_WRONLY | O_CREAT | O_EXCL, 0666);
        if (file->fd < 0 && (errno != EEXIST || attempt >= 1000)) {
            status = emo__fail_errno(err, path, "cannot create");
        } else if (file->fd >= 0 && !take_temporary(file->fd)) {
            (void)close(file->fd);
            file->fd = -1;
        }
    }
    if (status == EMO_OK) {
        file->temporary = name.data;
        return EMO_OK;
    }
    emo__buf_free(&name);
    emo__atomic_abort(file);
    return status;
}

emo_status emo__atomic_write(emo__atomic_file *file, const void *data, size_t size, emo_error *err) {
    emo_status status = write_all(file->fd, file->path, data, size, err);
    if (status == EMO_OK)
        file->written += size;
    return status;
}

emo_status emo__file_append(const char *path, const void *data, size_t size, emo_error *err) {
    struct stat st;
    int fd = open_retry(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (fd < 0)
        return emo__fail_errno(err, path, "cannot open");
    emo_status status = fstat(fd, &st) == 0 ? EMO_OK : emo__fail_errno(err, path, "cannot open");
    if (status == EMO_OK) {
        status = write_all(fd, path, data, size, err);
        if (status != EMO_OK && ftruncate(fd, st.st_size) != 0) /* half of it, on a full disk, is worse than nothing */
            status = emo__fail_prefix(err, status, "a part may have been appended");
    }
    if (close(fd) != 0 && errno != EINTR && status == EMO_OK)
        status = emo__fail_errno(err, path, "cannot write");
    return status;
}

static emo_status sync_parent(const emo__mem *mem, const char *path, emo_error *err) {
    const char *base = emo__path_base(path);
    if (base == path)
        return emo__sync_dir(".", err);
    char *folder = emo__strndup(mem, path, base == path + 1 ? 1 : (size_t)(base - path) - 1);
    if (folder == NULL)
        return emo__fail_memory(err, strlen(path));
    emo_status status = emo__sync_dir(folder, err);
    emo__free(mem, folder);
    return status;
}

static int sync_retry(int fd) {
    int got;
    do {
        got = fsync(fd);
    } while (got != 0 && errno == EINTR);
    return got;
}

emo_status emo__atomic_commit(emo__atomic_file *file, emo_error *err) {
    emo_status status = EMO_OK;
    if (sync_retry(file->fd) != 0)
        status = emo__fail_errno(err, file->path, "cannot sync");
    /* The lock on the temporary name is held until that name is gone. Closing has nothing left to write. */
    if (status == EMO_OK)
        status = emo__rename(file->temporary, file->path, err);
    if (status == EMO_OK) {
        emo__free(file->mem, file->temporary);
        file->temporary = NULL;
        status = sync_parent(file->mem, file->path, err);
    }
    emo__atomic_abort(file);
    return status;
}

void emo__atomic_abort(emo__atomic_file *file) {
    if (file->fd >= 0)
        (void)close(file->fd);
    file->fd = -1;
    if (file->mem == NULL)
        return;
    if (file->temporary != NULL)
        (void)unlink(file->temporary);
    emo__free(file->mem, file->temporary);
    emo__free(file->mem, file->path);
    file->temporary = NULL;
    file->path = NULL;
}

emo_status emo__file_write(const emo__mem *mem, const char *path, const void *data, size_t size, emo_error *err) {
    emo__atomic_file file;
    emo_status status = emo__atomic_open(&file, mem, path, err);
    if (status != EMO_OK)
        return status;
    status = emo__atomic_write(&file, data, size, err);
    if (status == EMO_OK)
        return emo__atomic_commit(&file, err);
    emo__atomic_abort(&file);
    return status;
}

static emo_status read_all(int fd, const char *path, size_t max_bytes, emo__buf *buf, emo_error *err) {
    for (;;) {
        emo_status status = emo__buf_reserve(buf, 65536, err);
        if (status != EMO_OK)
            return status;
        ssize_t n = read(fd, buf->data + buf->size, buf->capacity - buf->size - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return emo__fail_errno(err, path, "cannot read");
        if (n == 0)
            break;
        buf->size += (size_t)n;
        if (buf->size > max_bytes)
            return emo__fail_at(err, EMO_E_LIMIT, EMO_DOMAIN_FILE, 0, "%s: longer than the %zu bytes allowed here",
                                path, max_bytes);
    }
    buf->data[buf->size] = '\0';
    return EMO_OK;
}

emo_status emo__file_read(const emo__mem *mem, const char *path, size_t max_bytes, char **data, size_t *size,
                          emo_error *err) {
    *data = NULL;
    *size = 0;
    int fd = open_retry(path, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0)
        return emo__fail_errno(err, path, "cannot open");
    struct stat st;
    emo_status status = EMO_OK;
    if (fstat(fd, &st) != 0)
        status = emo__fail_errno(err, path, "cannot open");
    else if (!S_ISREG(st.st_mode))
        status = emo__fail_at(err, EMO_E_IO, EMO_DOMAIN_FILE, 0, "%s: not a regular file", path);
    else if ((uint64_t)st.st_size > max_bytes)
        status =
            emo__fail_at(err, EMO_E_LIMIT, EMO_DOMAIN_FILE, st.st_size,
                         "%s: has %lld bytes; at most %zu are allowed here", path, (long long)st.st_size, max_bytes);
    emo__buf buf;
    emo__buf_init(&buf, mem);
    if (status == EMO_OK)
        status = read_all(fd, path, max_bytes, &buf, err);
    (void)close(fd);
    if (status != EMO_OK) {
        emo__buf_free(&buf);
        return status;
    }
    *data = buf.data;
    *size = buf.size;
    return EMO_OK;
}

emo_status emo__file_read_if_there(const emo__mem *mem, const char *path, size_t max_bytes, char **data, size_t *size,
                                   emo_error *err) {
    bool there = false;
    *data = NULL;
    *size = 0;
    emo_status status = emo__path_probe(path, &there, err);
    return there ? emo__file_read(mem, path, max_bytes, data, size, err) : status;
}

emo_status emo__file_head(const char *path, size_t bytes, emo__buf *out, emo_error *err) {
    int fd = open_retry(path, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0)
        return emo__fail_errno(err, path, "cannot open");
    struct stat st;
    emo_status status = emo__buf_reserve(out, bytes, err);
    bool more = status == EMO_OK && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    for (size_t left = bytes; more && left > 0;) {
        ssize_t n = read(fd, out->data + out->size, left);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            status = emo__fail_errno(err, path, "cannot read");
        more = n > 0;
        left -= more ? (size_t)n : 0;
        out->size += more ? (size_t)n : 0;
    }
    (void)close(fd);
    return status;
}

emo_status emo__path_probe(const char *path, bool *exists, emo_error *err) {
    struct stat st;
    *exists = stat(path, &st) == 0;
    return *exists || errno == ENOENT || errno == ENOTDIR ? EMO_OK : emo__fail_errno(err, path, "cannot look it up");
}

bool emo__path_is_dir(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

emo_status emo__file_stat(const char *path, uint64_t *size, int64_t *mtime_ns, emo_error *err) {
    struct stat st;
    if (stat(path, &st) != 0)
        return emo__fail_errno(err, path, "cannot open");
    if (!S_ISREG(st.st_mode))
        return emo__fail_at(err, EMO_E_IO, EMO_DOMAIN_FILE, 0, "%s: not a regular file", path);
    *size = (uint64_t)st.st_size;
    *mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    return EMO_OK;
}

emo_status emo__mkdir(const char *path, emo_error *err) {
    return mkdir(path, 0777) == 0 ? EMO_OK : emo__fail_errno(err, path, "cannot make the folder");
}

emo_status emo__mkdirs(const emo__mem *mem, const char *path, emo_error *err) {
    char *copy = emo__strdup(mem, path);
    if (copy == NULL)
        return emo__fail_memory(err, strlen(path) + 1);
    emo_status status = EMO_OK;
    size_t length = strlen(copy);
    for (size_t i = 1; i <= length && status == EMO_OK; i++) {
        if (i < length && copy[i] != '/')
            continue;
        char kept = copy[i];
        copy[i] = '\0';
        if (mkdir(copy, 0777) != 0) {
            int code = errno;
            struct stat st;
            if (code == EEXIST && stat(copy, &st) != 0) {
                status = emo__fail_errno(err, copy, "cannot make the folder");
            } else if (code != EEXIST ? !emo__path_is_dir(copy) : !S_ISDIR(st.st_mode)) {
                errno = code;
                status = code == EEXIST ? emo__fail_at(err, EMO_E_EXISTS, EMO_DOMAIN_SYSTEM, code,
                                                       "%s: exists and is not a folder", copy)
                                        : emo__fail_errno(err, copy, "cannot make the folder");
            }
        }
        copy[i] = kept;
    }
    emo__free(mem, copy);
    return status;
}

emo_status emo__path_join(emo__buf *buf, const char *a, const char *b, emo_error *err) {
    buf->size = 0;
    if (a[0] == '\0' || b[0] == '/')
        return emo__buf_append(buf, b, strlen(b), err);
    return emo__buf_printf(buf, err, "%s%s%s", a, a[strlen(a) - 1] == '/' ? "" : "/", b);
}

const char *emo__path_base(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

emo_status emo__sync_dir(const char *path, emo_error *err) {
    int fd = open_retry(path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return emo__fail_errno(err, path, "cannot open the folder");
    emo_status status = EMO_OK;
    /* Some file systems cannot sync a folder and say so with EINVAL; the rename itself has happened. */
    if (sync_retry(fd) != 0 && errno != EINVAL)
        status = emo__fail_errno(err, path, "cannot sync the folder");
    (void)close(fd);
    return status;
}

emo_status emo__rename(const char *from, const char *to, emo_error *err) {
    if (rename(from, to) != 0)
        return emo__fail_errno(err, to, "cannot rename into place");
    return EMO_OK;
}

emo_status emo__lock_acquire(const char *path, emo__lock *lock, emo_error *err) {
    lock->fd = open_retry(path, O_RDWR | O_CREAT, 0666);
    if (lock->fd < 0)
        return emo__fail_errno(err, path, "cannot open the lock");
    if (lock_now(lock->fd) == 0)
        return EMO_OK;
    emo_status status = errno == EWOULDBLOCK
                            ? emo__fail_at(err, EMO_E_BUSY, EMO_DOMAIN_SYSTEM, errno,
                                           "%s: another run holds this lock; wait for it or use another folder", path)
                            : emo__fail_errno(err, path, "cannot lock");
    (void)close(lock->fd);
    lock->fd = -1;
    return status;
}

emo_status emo__lock_check(const char *path, const emo__lock *lock, emo_error *err) {
    struct stat mine;
    struct stat there;
    bool found = stat(path, &there) == 0;
    if (!found && errno != ENOENT && errno != ENOTDIR)
        return emo__fail_errno(err, path, "cannot look at the lock");
    if (fstat(lock->fd, &mine) != 0)
        return emo__fail_errno(err, path, "cannot look at the lock");
    if (found && mine.st_dev == there.st_dev && mine.st_ino == there.st_ino)
        return EMO_OK;
    return emo__fail_at(err, EMO_E_NOT_FOUND, EMO_DOMAIN_SYSTEM, ENOENT,
                        "%s: the folder was removed, moved or replaced while it was in use; put it back, or begin anew",
                        path);
}

void emo__lock_release(emo__lock *lock) {
    if (lock->fd >= 0)
        (void)close(lock->fd);
    lock->fd = -1;
}
