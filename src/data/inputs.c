/* SPDX-License-Identifier: Apache-2.0 */
/* Which files a dataset is made of. */
#include <string.h>

#include "base/status.h"
#include "data/ingest.h"

emo_status emo__reading_check(const emo_dataset_options *opt, emo_error *err) {
    if (opt->skip_broken != 0 && opt->skip_broken != 1)
        return emo__fail(err, EMO_E_RANGE, "skip_broken is %d; it must be 0 or 1", (int)opt->skip_broken);
    if (opt->max_documents < 0)
        return emo__fail(err, EMO_E_RANGE, "max_documents is %lld; it must be positive, or 0 for all",
                         (long long)opt->max_documents);
    return EMO_OK;
}

bool emo__ends_with(const char *text, size_t length, const char *end) {
    size_t n = strlen(end);
    return length >= n && memcmp(text + length - n, end, n) == 0;
}

static emo__file_kind kind_of(const char *path) {
    static const char *const json[] = {".jsonl", ".json", ".ndjson", ".jsonl.gz", ".json.gz", ".ndjson.gz"};
    size_t length = strlen(path);
    for (size_t i = 0; i < sizeof json / sizeof json[0]; i++) {
        if (emo__ends_with(path, length, json[i]))
            return EMO__FILE_JSON;
    }
    return emo__ends_with(path, length, ".npy") || emo__ends_with(path, length, ".bin") ? EMO__FILE_TOKENS
                                                                                        : EMO__FILE_TEXT;
}

emo_status emo__data_files_add(const emo__mem *mem, const char *path, const char *domain, size_t domain_length,
                               emo__data_files *out, emo_error *err) {
    emo_status status = emo__grow(mem, (void **)&out->items, &out->capacity, out->count + 1, sizeof out->items[0], err);
    if (status != EMO_OK)
        return status;
    emo__data_file *file = &out->items[out->count];
    memset(file, 0, sizeof *file);
    status = emo__file_stat(path, &file->size, &file->mtime_ns, err);
    if (status != EMO_OK)
        return status;
    file->kind = kind_of(path);
    file->path = emo__strdup(mem, path);
    file->domain = emo__strndup(mem, domain, domain_length);
    out->count++; /* a half-made file is freed with the rest */
    return file->path != NULL && file->domain != NULL ? EMO_OK : emo__fail_memory(err, strlen(path) + 1);
}

static emo_status add_folder(const emo__mem *mem, const char *folder, emo__data_files *out, emo_error *err) {
    emo__names names;
    emo__buf path;
    emo__buf_init(&path, mem);
    emo_status status = emo__list_files(mem, folder, true, &names, err);
    if (status == EMO_OK && names.count == 0)
        status = emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: the folder holds no files", folder);
    for (size_t i = 0; i < names.count && status == EMO_OK; i++) {
        const char *slash = strchr(names.items[i], '/');
        status = emo__path_join(&path, folder, names.items[i], err);
        if (status == EMO_OK)
            status = emo__data_files_add(mem, path.data, names.items[i],
                                         slash != NULL ? (size_t)(slash - names.items[i]) : 0, out, err);
    }
    emo__names_free(&names);
    emo__buf_free(&path);
    return status;
}

static emo_status add_path(const emo__mem *mem, const char *path, const emo_dataset_options *opt, emo__data_files *out,
                           emo_error *err) {
    bool mix = false;
    if (emo__path_is_dir(path))
        return add_folder(mem, path, out, err);
    emo_status status = emo__mix_is(mem, path, &mix, err);
    if (status != EMO_OK)
        return status;
    return mix ? emo__mix_add(mem, path, opt, out, err) : emo__data_files_add(mem, path, "", 0, out, err);
}

emo_status emo__data_files_find(const emo__mem *mem, const char *const *paths, size_t n_paths,
                                const emo_dataset_options *opt, emo__data_files *out, emo_error *err) {
    memset(out, 0, sizeof *out);
    emo_status status = EMO_OK;
    for (size_t i = 0; i < n_paths && status == EMO_OK; i++)
        status = add_path(mem, paths[i], opt, out, err);
    if (status != EMO_OK)
        emo__data_files_free(mem, out);
    return status;
}

void emo__data_files_free(const emo__mem *mem, emo__data_files *files) {
    for (size_t i = 0; i < files->count; i++) {
        emo__free(mem, files->items[i].path);
        emo__free(mem, files->items[i].domain);
    }
    emo__free(mem, files->items);
    memset(files, 0, sizeof *files);
}
