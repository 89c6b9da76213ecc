/* SPDX-License-Identifier: Apache-2.0 */
#include "data/texts.h"

#include <string.h>

#include "base/options.h"
#include "base/status.h"

emo_status emo_texts_open(emo_runtime *rt, const char *const *paths, size_t n_paths, const emo_dataset_options *options,
                          emo_texts **out, emo_error *err) {
    emo__error_clear(err);
    if (out != NULL)
        *out = NULL;
    if (rt == NULL || out == NULL || paths == NULL || n_paths == 0)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s",
                         rt == NULL    ? "rt is NULL"
                         : out == NULL ? "out is NULL"
                                       : "no paths");
    for (size_t i = 0; i < n_paths; i++) {
        if (paths[i] == NULL)
            return emo__fail(err, EMO_E_INVALID_ARGUMENT, "paths[%zu] is NULL", i);
    }
    emo_dataset_options opt = EMO_DATASET_OPTIONS_INIT;
    emo_status status = emo__options_copy(&opt, sizeof opt, options, "emo_dataset_options", err);
    if (status == EMO_OK)
        status = emo__reading_check(&opt, err);
    if (status != EMO_OK)
        return status;
    emo_texts *texts = emo__calloc(&rt->mem, 1, sizeof *texts);
    if (texts == NULL)
        return emo__fail_memory(err, sizeof *texts);
    emo__guard_init(&texts->guard);
    emo__buf_init(&texts->joined, &rt->mem);
    texts->rt = emo__runtime_retain(rt);
    texts->skip_broken = opt.skip_broken != 0;
    texts->max_documents = opt.max_documents;
    if (opt.domain != NULL && (texts->domain = emo__strdup(&rt->mem, opt.domain)) == NULL)
        status = emo__fail_memory(err, strlen(opt.domain) + 1);
    if (status == EMO_OK)
        status = emo__data_files_find(&rt->mem, paths, n_paths, &opt, &texts->files, err);
    if (status != EMO_OK) {
        emo__texts_free(texts);
        return status;
    }
    *out = texts;
    return EMO_OK;
}

emo_status emo_texts_next(emo_texts *texts, emo_text_document *out, emo_error *err) {
    emo__error_clear(err);
    if (texts == NULL || out == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", texts == NULL ? "texts" : "out");
    return emo__texts_next(texts, out, err);
}

emo_status emo_texts_reader(emo_texts *texts, emo_text_reader *out, emo_error *err) {
    emo__error_clear(err);
    if (texts == NULL || out == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", texts == NULL ? "texts" : "out");
    out->ctx = texts;
    out->next = emo__texts_read;
    return EMO_OK;
}

int64_t emo_texts_count(const emo_texts *texts) { return texts != NULL ? texts->count : 0; }
int64_t emo_texts_bytes(const emo_texts *texts) { return texts != NULL ? texts->bytes : 0; }
int64_t emo_texts_skipped(const emo_texts *texts) { return texts != NULL ? texts->skipped : 0; }

void emo_texts_release(emo_texts *texts) {
    if (texts != NULL)
        emo__texts_free(texts);
}
