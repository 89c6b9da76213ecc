/* SPDX-License-Identifier: Apache-2.0 */
/* Files and folders: atomic writing, listing, locking. Paths are byte strings with '/'. */
#ifndef EMO_SRC_IO_FILES_H
#define EMO_SRC_IO_FILES_H

#include <stdbool.h>

#include "base/memory.h"

/* Fails with what errno says about a path: EMO_E_NOT_FOUND when there is nothing, EMO_E_IO otherwise. */
emo_status emo__fail_errno(emo_error *err, const char *path, const char *what);

/* A file that appears under its name only when it is complete: written beside it, synced, then renamed. What a killed
 * writer left is removed by the next writer of the same path. */
#define EMO__TEMPORARY ".tmp-"
typedef struct emo__atomic_file {
    const emo__mem *mem;
    int fd; /* -1: none */
    char *path;
    char *temporary;
    uint64_t written;
} emo__atomic_file;
EMO_MUST_CHECK emo_status emo__atomic_open(emo__atomic_file *file, const emo__mem *mem, const char *path,
                                           emo_error *err);
EMO_MUST_CHECK emo_status emo__atomic_write(emo__atomic_file *file, const void *data, size_t size, emo_error *err);
/* Syncs and renames; the file is closed whatever happens. */
EMO_MUST_CHECK emo_status emo__atomic_commit(emo__atomic_file *file, emo_error *err);
/* Drops the unfinished file; a no-op after commit and on a zeroed struct whose fd is -1. */
void emo__atomic_abort(emo__atomic_file *file);
/* All of it in one call. */
EMO_MUST_CHECK emo_status emo__file_write(const emo__mem *mem, const char *path, const void *data, size_t size,
                                          emo_error *err);
/* Appends in one write, so that a reader never sees half a line; creates the file. On failure it is as it was. */
EMO_MUST_CHECK emo_status emo__file_append(const char *path, const void *data, size_t size, emo_error *err);
/* The whole file, NUL-terminated (not counted in *size). EMO_E_LIMIT above max_bytes, EMO_E_NOT_FOUND. */
EMO_MUST_CHECK emo_status emo__file_read(const emo__mem *mem, const char *path, size_t max_bytes, char **data,
                                         size_t *size, emo_error *err);
/* The same; *data is NULL when there is no such file. */
EMO_MUST_CHECK emo_status emo__file_read_if_there(const emo__mem *mem, const char *path, size_t max_bytes, char **data,
                                                  size_t *size, emo_error *err);

/* Appends the first `bytes` bytes of a regular file, or all it has; nothing for what is no regular file. */
EMO_MUST_CHECK emo_status emo__file_head(const char *path, size_t bytes, emo__buf *out, emo_error *err);

/* Whether there is something at a path; a status when that cannot be known (no permission, a failing device). */
EMO_MUST_CHECK emo_status emo__path_probe(const char *path, bool *exists, emo_error *err);
bool emo__path_is_dir(const char *path);
/* Size and modification time in ns of a regular file. */
EMO_MUST_CHECK emo_status emo__file_stat(const char *path, uint64_t *size, int64_t *mtime_ns, emo_error *err);
EMO_MUST_CHECK emo_status emo__mkdir(const char *path, emo_error *err); /* a new one, in a folder that is there */
/* Makes a folder and its parents; an existing folder is fine. */
EMO_MUST_CHECK emo_status emo__mkdirs(const emo__mem *mem, const char *path, emo_error *err);
/* Replaces buf's contents by a + '/' + b (b alone when it is absolute or a is empty). */
EMO_MUST_CHECK emo_status emo__path_join(emo__buf *buf, const char *a, const char *b, emo_error *err);
const char *emo__path_base(const char *path); /* after the last '/' */
/* Makes a rename or a new file in this folder durable. */
EMO_MUST_CHECK emo_status emo__sync_dir(const char *path, emo_error *err);
EMO_MUST_CHECK emo_status emo__rename(const char *from, const char *to, emo_error *err); /* replaces a file */
/* Removes a file or a folder with all that is in it (links are not followed); a missing path is fine. */
EMO_MUST_CHECK emo_status emo__remove_tree(const emo__mem *mem, const char *path, emo_error *err);

/* Names in byte order. */
typedef struct emo__names {
    const emo__mem *mem;
    char **items;
    size_t count;
    size_t capacity;
} emo__names;
/* Regular files below a folder, relative to it, sorted; hidden ones (leading '.') are left out, links to files are
 * followed, links to folders are not. recursive false: only the folder itself. */
EMO_MUST_CHECK emo_status emo__list_files(const emo__mem *mem, const char *folder, bool recursive, emo__names *out,
                                          emo_error *err);
/* Names of the folders directly in a folder, sorted, hidden ones left out. */
EMO_MUST_CHECK emo_status emo__list_dirs(const emo__mem *mem, const char *folder, emo__names *out, emo_error *err);
void emo__names_free(emo__names *names);

/* An exclusive lock that dies with the process. EMO_E_BUSY when another holder (also in this process) has it. */
typedef struct emo__lock {
    int fd; /* -1: none */
} emo__lock;
EMO_MUST_CHECK emo_status emo__lock_acquire(const char *path, emo__lock *lock, emo_error *err);
/* EMO_E_NOT_FOUND when the locked file is no longer the one at its path: its folder was removed, moved or replaced. */
EMO_MUST_CHECK emo_status emo__lock_check(const char *path, const emo__lock *lock, emo_error *err);
void emo__lock_release(emo__lock *lock);

#endif
