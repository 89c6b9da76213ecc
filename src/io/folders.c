/* SPDX-License-Identifier: Apache-2.0 */
/* Listing and removing folders. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"
#include "io/files.h"

#define MAX_LEVELS 64

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void sort_names(emo__names *names) {
    if (names->count > 1)
        qsort(names->items, names->count, sizeof names->items[0], by_bytes);
}

void emo__names_free(emo__names *names) {
    if (names->mem == NULL)
        return;
    for (size_t i = 0; i < names->count; i++)
        emo__free(names->mem, names->items[i]);
    emo__free(names->mem, names->items);
    memset(names, 0, sizeof *names);
}

static emo_status add_name(emo__names *names, const char *name, emo_error *err) {
    emo_status status =
        emo__grow(names->mem, (void **)&names->items, &names->capacity, names->count + 1, sizeof names->items[0], err);
    if (status != EMO_OK)
        return status;
    names->items[names->count] = emo__strdup(names->mem, name);
    if (names->items[names->count] == NULL)
        return emo__fail_memory(err, strlen(name) + 1);
    names->count++;
    return EMO_OK;
}

/* Every name in a folder but "." and "..", sorted. */
static emo_status read_folder(const emo__mem *mem, const char *path, emo__names *out, emo_error *err) {
    memset(out, 0, sizeof *out);
    out->mem = mem;
    DIR *dir = opendir(path);
    if (dir == NULL)
        return emo__fail_errno(err, path, "cannot list the folder");
    emo_status status = EMO_OK;
    while (status == EMO_OK) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (entry == NULL) {
            if (errno != 0)
                status = emo__fail_errno(err, path, "cannot list the folder");
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            status = add_name(out, entry->d_name, err);
    }
    (void)closedir(dir);
    if (status != EMO_OK)
        emo__names_free(out);
    else
        sort_names(out);
    return status;
}

/* Adds the files of folder/prefix to out under names that begin with prefix. */
static emo_status list_level(const char *folder, const char *prefix, bool recursive, int level, emo__names *out,
                             emo_error *err) {
    const emo__mem *mem = out->mem;
    if (level > MAX_LEVELS)
        return emo__fail(err, EMO_E_LIMIT, "%s: folders nested deeper than %d levels", folder, MAX_LEVELS);
    emo__buf path;
    emo__buf name;
    emo__names here = {0};
    emo__buf_init(&path, mem);
    emo__buf_init(&name, mem);
    emo_status status = emo__path_join(&path, folder, prefix, err);
    if (status == EMO_OK)
        status = read_folder(mem, path.data, &here, err);
    for (size_t i = 0; i < here.count && status == EMO_OK; i++) {
        struct stat st;
        if (here.items[i][0] == '.')
            continue;
        status = emo__path_join(&name, prefix, here.items[i], err);
        if (status == EMO_OK)
            status = emo__path_join(&path, folder, name.data, err);
        if (status != EMO_OK)
            continue;
        bool found = lstat(path.data, &st) == 0;
        bool link = found && S_ISLNK(st.st_mode);
        if (link)
            found = stat(path.data, &st) == 0;
        if (!found) {
            /* What is gone, and a link to nothing, is passed over; what cannot be looked at must not be. */
            if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP)
                status = emo__fail_errno(err, path.data, "cannot look at it");
        } else if (S_ISDIR(st.st_mode)) {
            if (recursive && !link)
                status = list_level(folder, name.data, recursive, level + 1, out, err);
        } else if (S_ISREG(st.st_mode)) {
            status = add_name(out, name.data, err);
        }
    }
    emo__names_free(&here);
    emo__buf_free(&path);
    emo__buf_free(&name);
    return status;
}

emo_status emo__list_files(const emo__mem *mem, const char *folder, bool recursive, emo__names *out, emo_error *err) {
    memset(out, 0, sizeof *out);
    out->mem = mem;
    emo_status status = list_level(folder, "", recursive, 0, out, err);
    if (status != EMO_OK)
        emo__names_free(out);
    else
        sort_names(out);
    return status;
}

emo_status emo__list_dirs(const emo__mem *mem, const char *folder, emo__names *out, emo_error *err) {
    emo__names all;
    emo__buf path;
    memset(out, 0, sizeof *out);
    out->mem = mem;
    emo__buf_init(&path, mem);
    emo_status status = read_folder(mem, folder, &all, err);
    for (size_t i = 0; i < all.count && status == EMO_OK; i++) {
        if (all.items[i][0] == '.')
            continue;
        status = emo__path_join(&path, folder, all.items[i], err);
        if (status == EMO_OK && emo__path_is_dir(path.data))
            status = add_name(out, all.items[i], err);
    }
    emo__buf_free(&path);
    emo__names_free(&all);
    if (status != EMO_OK)
        emo__names_free(out);
    return status;
}

static emo_status remove_level(const emo__mem *mem, const char *path, int level, emo_error *err) {
    struct stat st;
    if (lstat(path, &st) != 0)
        return errno == ENOENT ? EMO_OK : emo__fail_errno(err, path, "cannot remove");
    if (!S_ISDIR(st.st_mode))
        return unlink(path) == 0 || errno == ENOENT ? EMO_OK : emo__fail_errno(err, path, "cannot remove");
    if (level > MAX_LEVELS)
        return emo__fail(err, EMO_E_LIMIT, "%s: folders nested deeper than %d levels", path, MAX_LEVELS);
    emo__names here;
    emo__buf child;
    emo__buf_init(&child, mem);
    emo_status status = read_folder(mem, path, &here, err);
    for (size_t i = 0; i < here.count && status == EMO_OK; i++) {
        status = emo__path_join(&child, path, here.items[i], err);
        if (status == EMO_OK)
            status = remove_level(mem, child.data, level + 1, err);
    }
    emo__names_free(&here);
    emo__buf_free(&child);
    if (status == EMO_OK && rmdir(path) != 0 && errno != ENOENT)
        status = emo__fail_errno(err, path, "cannot remove");
    return status;
}

emo_status emo__remove_tree(const emo__mem *mem, const char *path, emo_error *err) {
    return remove_level(mem, path, 0, err);
}
