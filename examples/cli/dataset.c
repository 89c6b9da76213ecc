/* SPDX-License-Identifier: Apache-2.0 */
#include "dataset.h"

#include <inttypes.h>

emo_status dataset_open(cli *c, const dataset_request *request, emo_dataset **out) {
    emo_dataset_options options = EMO_DATASET_OPTIONS_INIT;
    options.skip_broken = request->skip_broken;
    options.domain = request->domain;
    options.cache_dir = request->cache;
    options.mix_root = request->mix_root;
    options.mix_tokenizer = request->mix_tokenizer;
    options.progress = cli_progress(c);
    emo_status status = emo_dataset_open(c->rt, request->paths->items, request->paths->count, request->tokenizer,
                                         &options, out, &c->err);
    progress_clear(&c->line);
    if (status == EMO_OK && emo_dataset_skipped(*out) > 0 && !c->common.quiet)
        fprintf(stderr, "emo: warning: %" PRId64 " broken documents were left out\n", emo_dataset_skipped(*out));
    return status;
}

emo_status dataset_open_bytes(cli *c, const string_list *paths, int32_t skip_broken, emo_dataset **out) {
    emo_tokenizer *bytes = NULL;
    emo_status status = emo_tokenizer_create_bytes(c->rt, &bytes, &c->err);
    if (status == EMO_OK) {
        dataset_request request = {paths, bytes, NULL, NULL, skip_broken, NULL, NULL};
        status = dataset_open(c, &request, out);
    }
    emo_tokenizer_release(bytes);
    return status;
}

emo_status model_tokenizer(cli *c, const emo_model *model, const char *folder, const emo_tokenizer **out) {
    *out = emo_model_tokenizer(model);
    if (*out == NULL)
        return cli_fail(c, EMO_E_NOT_FOUND, "%s has no tokenizer.json: put the model's tokenizer there", folder);
    return EMO_OK;
}
