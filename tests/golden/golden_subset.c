/* SPDX-License-Identifier: Apache-2.0 */
/* Subset cases: router statistics, the three ways to choose a subset, pruning, and merging a tuned subset back. */
#include <stdlib.h>
#include <string.h>

#include "golden/golden.h"
#include "io/files.h"
#include "model/files.h"

/* Several times the float32 error of the reference, far below the effect of a wrong formula. */
#define TOL_LOGITS 1e-4
#define TOL_PROBS 2e-6
#define TOL_EASY 1e-5 /* relative to the largest */
#define TOL_WEIGHTS 1e-6

typedef struct job {
    const golden_case *c;
    golden_result *r;
    emo_model *model;
    emo_dataset *calibration;
    int32_t layers;
    int32_t experts;
    int32_t keep;
    int32_t keep_shared;
} job;

static emo_dataset *calibration_of(const golden_case *c, golden_result *r) {
    const golden_tensor *ids = golden_find(&c->file, "calib.input_ids");
    const int64_t *lengths =
        ids != NULL ? golden_need(c, r, "I64", ids->shape[0], "calib.lengths") : (const int64_t *)NULL;
    if (lengths == NULL) {
        golden_fail(r, "no calibration");
        return NULL;
    }
    const int64_t *data = ids->data;
    size_t n = (size_t)ids->shape[0];
    int32_t *tokens = calloc((size_t)ids->count, sizeof *tokens);
    size_t *counts = calloc(n, sizeof *counts);
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        counts[i] = (size_t)lengths[i];
        for (size_t t = 0; t < counts[i]; t++)
            tokens[at++] = (int32_t)data[(int64_t)i * ids->shape[1] + (int64_t)t];
    }
    emo_error err = EMO_ERROR_INIT;
    emo_dataset *set = NULL;
    (void)golden_call(r, emo_dataset_from_tokens(c->rt, tokens, counts, NULL, n, -1, &set, &err), &err,
                      "emo_dataset_from_tokens");
    free(tokens);
    free(counts);
    return set;
}

static emo_stats *collect(const job *j, emo_model *model, int32_t easy) {
    emo_error err = EMO_ERROR_INIT;
    emo_stats_options options = EMO_STATS_OPTIONS_INIT;
    emo_stats *stats = NULL;
    options.prepend_eos = 0;
    options.easy_ep = easy;
    (void)golden_call(j->r, emo_stats_collect(model, j->calibration, &options, &stats, &err), &err,
                      "emo_stats_collect");
    return stats;
}

/* One layer of statistics; probabilities against a row of the tensor. */
static void check_layer(const job *j, const emo_stats *stats, int easy, int32_t layer, const float *want,
                        const char *name, float *got) {
    emo_error err = EMO_ERROR_INIT;
    double values[1024];
    size_t n = 0;
    emo_status status = easy ? emo_stats_easy_ep(stats, layer, values, 1024, &n, &err)
                             : emo_stats_probs(stats, layer, values, 1024, &n, &err);
    if (golden_call(j->r, status, &err, name) != 0)
        return;
    if (n != (size_t)j->experts)
        golden_fail(j->r, "%s: layer %d has %zu experts, not %d", name, (int)layer, n, (int)j->experts);
    for (size_t e = 0; e < n; e++)
        got[e] = (float)values[e];
    if (!easy && !j->r->failed)
        golden_close(j->r, name, got, want, j->experts, TOL_PROBS);
}

static void check_stats(const job *j) {
    int64_t count = (int64_t)j->layers * j->experts;
    const float *probs = golden_need(j->c, j->r, "F32", count, "oneshot.avg_probs");
    const float *easy = golden_need(j->c, j->r, "F32", count, "easyep.scores");
    float *got = calloc((size_t)count, sizeof *got);
    emo_stats *stats = collect(j, j->model, 1);
    for (int32_t l = 0; !j->r->failed && l < j->layers; l++)
        check_layer(j, stats, 0, l, probs + l * j->experts, "oneshot.avg_probs", got);
    for (int32_t l = 0; !j->r->failed && l < j->layers; l++)
        check_layer(j, stats, 1, l, NULL, "easyep.scores", got + l * j->experts);
    if (!j->r->failed)
        golden_relative(j->r, "easyep.scores", got, easy, count, TOL_EASY);
    emo_stats_release(stats);
    free(got);
}

static void check_logits(const job *j, emo_model *model, const char *name) {
    const golden_tensor *ids = golden_find(&j->c->file, "eval.input_ids");
    if (ids == NULL || j->r->failed) {
        golden_fail(j->r, "no eval.input_ids");
        return;
    }
    size_t rows = (size_t)ids->shape[0];
    size_t n = (size_t)ids->shape[1];
    size_t vocab = (size_t)model->config.vocab;
    const int64_t *data = ids->data;
    const float *want = golden_need(j->c, j->r, "F32", (int64_t)(rows * n * vocab), "%s", name);
    int32_t *tokens = calloc(n, sizeof *tokens);
    float *logits = calloc(n * vocab, sizeof *logits);
    emo_error err = EMO_ERROR_INIT;
    for (size_t row = 0; want != NULL && row < rows && !j->r->failed; row++) {
        for (size_t t = 0; t < n; t++)
            tokens[t] = (int32_t)data[row * n + t];
        emo_status status = emo_eval_logits(model, tokens, n, NULL, logits, n * vocab, &err);
        if (golden_call(j->r, status, &err, name) == 0)
            golden_close(j->r, name, logits, want + row * n * vocab, (int64_t)(n * vocab), TOL_LOGITS);
    }
    free(tokens);
    free(logits);
}

static emo_model *prune(const job *j, const int32_t *ids, const int32_t *offsets) {
    emo_error err = EMO_ERROR_INIT;
    emo_prune_options options = EMO_PRUNE_OPTIONS_INIT;
    emo_model *small = NULL;
    options.keep = ids;
    options.keep_offsets = offsets;
    options.method = "greedy_layerwise";
    (void)golden_call(j->r, emo_model_prune(j->model, NULL, &options, &small, &err), &err, "emo_model_prune");
    return small;
}

/* Average probabilities of each layer in the model whose layers before it are pruned. */
static void check_layerwise_probs(const job *j, const int32_t *chosen) {
    const float *want =
        golden_need(j->c, j->r, "F32", (int64_t)j->layers * j->experts, "layerwise.k%d.avg_probs", (int)j->keep);
    size_t total = (size_t)j->layers * (size_t)j->experts;
    int32_t *ids = calloc(total, sizeof *ids);
    int32_t *offsets = calloc((size_t)j->layers + 1, sizeof *offsets);
    float *got = calloc(total, sizeof *got);
    for (int32_t l = 0; want != NULL && l < j->layers && !j->r->failed; l++) {
        int32_t n = 0;
        for (int32_t i = 0; i < j->layers; i++) {
            int32_t count = i < l ? j->keep : j->experts;
            for (int32_t e = 0; e < count; e++)
                ids[n++] = i < l ? chosen[i * j->keep + e] : e;
            offsets[i + 1] = n;
        }
        emo_model *step = prune(j, ids, offsets);
        emo_stats *stats = j->r->failed ? NULL : collect(j, step, 0);
        if (stats != NULL)
            check_layer(j, stats, 0, l, want + l * j->experts, "layerwise.avg_probs", got);
        emo_stats_release(stats);
        emo_model_release(step);
    }
    free(ids);
    free(offsets);
    free(got);
}

static void check_pruned_files(const job *j, const emo_model *small) {
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/pruned_layerwise_k%d", j->c->dir, (int)j->keep);
    if (!emo__path_is_dir(path))
        return;
    emo_error err = EMO_ERROR_INIT;
    emo_model *want = NULL;
    if (golden_call(j->r, emo_model_load_path(j->c->rt, path, NULL, &want, &err), &err, path) != 0)
        return;
    if (want->n_params != small->n_params || want->config.top_k != small->config.top_k ||
        want->config.layer[0].shared != small->config.layer[0].shared)
        golden_fail(j->r, "the pruned model has another shape than %s", path);
    for (size_t i = 0; !j->r->failed && i < want->n_params; i++)
        golden_close(j->r, "pruned weights", small->params[i].view->data, want->params[i].view->data,
                     emo__param_count(&want->params[i]), 0.0);
    for (int32_t l = 0; !j->r->failed && l < j->layers; l++) {
        for (int32_t e = 0; e < j->keep; e++) {
            if (emo_model_original_expert(want, l, e) != emo_model_original_expert(small, l, e))
                golden_fail(j->r, "layer %d, expert %d: pruning_metadata.json says another id", (int)l, (int)e);
        }
    }
    emo_model_release(want);
}

static void check_method(const job *j, const char *name, emo_select_method method) {
    emo_error err = EMO_ERROR_INIT;
    emo_select_options options = EMO_SELECT_OPTIONS_INIT;
    options.method = method;
    options.keep = j->keep;
    options.keep_shared = j->keep_shared;
    options.prepend_eos = 0;
    size_t total = (size_t)j->layers * (size_t)j->keep;
    int32_t *ids = calloc(total, sizeof *ids);
    int32_t *offsets = calloc((size_t)j->layers + 1, sizeof *offsets);
    char tensor[64];
    size_t count = 0;
    emo_status status = emo_select_experts(j->model, j->calibration, &options, ids, total, &count, offsets, &err);
    const int64_t *want = golden_need(j->c, j->r, "I64", (int64_t)total, "%s.k%d.keep", name, (int)j->keep);
    if (golden_call(j->r, status, &err, "emo_select_experts") == 0 && want != NULL) {
        golden_same_i32(j->r, "keep set", ids, want, (int64_t)total);
        emo_model *small = j->r->failed ? NULL : prune(j, ids, offsets);
        (void)snprintf(tensor, sizeof tensor, "%s.k%d.logits", name, (int)j->keep);
        if (small != NULL)
            check_logits(j, small, tensor);
        if (small != NULL && !j->r->failed && method == EMO_SELECT_LAYERWISE) {
            check_layerwise_probs(j, ids);
            check_pruned_files(j, small);
        }
        emo_model_release(small);
    }
    free(ids);
    free(offsets);
}

/* The tuned folder has no pruning_metadata.json; the pruned one beside it has. */
static emo_model *load_tuned(const job *j, const char *source) {
    char path[4096];
    emo_error err = EMO_ERROR_INIT;
    emo_model *tuned = NULL;
    char *text = NULL;
    size_t length = 0;
    (void)snprintf(path, sizeof path, "%s/%s", j->c->dir, source);
    if (golden_call(j->r, emo_model_load_path(j->c->rt, path, NULL, &tuned, &err), &err, path) != 0)
        return NULL;
    const char *k = strrchr(source, 'k');
    (void)snprintf(path, sizeof path, "%s/pruned_layerwise_%s/pruning_metadata.json", j->c->dir, k != NULL ? k : "");
    emo_status status = emo__file_read(tuned->config.mem, path, (size_t)1 << 20, &text, &length, &err);
    if (status == EMO_OK)
        status = emo__config_read_pruning(&tuned->config, text, length, &err);
    (void)golden_call(j->r, status, &err, "pruning_metadata.json");
    emo__free(tuned->config.mem, text);
    return tuned;
}

static void check_merged(const job *j, emo_model *merged, const char *variant) {
    char name[EMO__NAME_MAX];
    int64_t changed = 0;
    for (size_t i = 0; !j->r->failed && i < merged->n_params; i++) {
        emo__param_name(&merged->params[i], name);
        const golden_tensor *want = golden_find(&j->c->file, "merge.%s.%s", variant, name);
        int64_t count = emo__param_count(&merged->params[i]);
        if (want != NULL && want->count != count) {
            golden_fail(j->r, "merge.%s.%s has another size", variant, name);
        } else if (want != NULL) {
            golden_close(j->r, "merged weights", merged->params[i].view->data, want->data, count, TOL_WEIGHTS);
            changed++;
        } else {
            golden_close(j->r, "untouched weights", merged->params[i].view->data, j->model->params[i].view->data, count,
                         0.0);
        }
    }
    const emo__json *entry = emo__json_get(emo__json_get(j->c->json, "merge"), variant);
    if (!j->r->failed && changed != golden_whole(emo__json_get(entry, "num_changed_tensors")))
        golden_fail(j->r, "merge.%s: %lld changed tensors were compared, case.json has another number", variant,
                    (long long)changed);
    (void)snprintf(name, sizeof name, "merge.%s.logits", variant);
    if (!j->r->failed)
        check_logits(j, merged, name);
}

static void check_merges(const job *j) {
    const char *source = golden_text(emo__json_get(j->c->json, "merge_source"));
    emo_model *tuned = source != NULL ? load_tuned(j, source) : NULL;
    if (tuned == NULL) {
        golden_fail(j->r, "no merge_source");
        return;
    }
    for (emo__json_iter it = emo__json_members(emo__json_get(j->c->json, "merge")); emo__json_next(&it);) {
        const emo__json *given = emo__json_get(it.value, "options");
        const emo__json *weight = emo__json_get(given, "average_weight");
        emo_merge_options options = EMO_MERGE_OPTIONS_INIT;
        options.router = golden_is_true(emo__json_get(given, "also_copy_router_rows"));
        options.shared = golden_is_true(emo__json_get(given, "also_copy_shared"));
        options.rest = golden_is_true(emo__json_get(given, "also_copy_non_moe"));
        if (golden_is_true(emo__json_get(given, "average")))
            options.average = weight != NULL ? (float)golden_real(weight) : 0.5f;
        emo_error err = EMO_ERROR_INIT;
        emo_model *merged = NULL;
        emo_status status = emo_model_merge(j->model, tuned, &options, &merged, &err);
        if (!j->r->failed && golden_call(j->r, status, &err, "emo_model_merge") == 0)
            check_merged(j, merged, it.key);
        emo_model_release(merged);
    }
    emo_model_release(tuned);
}

void golden_subset(const golden_case *c, golden_result *r) {
    job j = {0};
    emo_error err = EMO_ERROR_INIT;
    j.c = c;
    j.r = r;
    if (golden_call(r, emo_model_load_path(c->rt, c->dir, NULL, &j.model, &err), &err, "emo_model_load_path") != 0)
        return;
    j.calibration = calibration_of(c, r);
    j.layers = j.model->config.layers;
    j.experts = emo_model_experts(j.model, 0);
    j.keep_shared = (int32_t)golden_int(c, r, "num_shared_experts_to_keep");
    if (!r->failed)
        check_logits(&j, j.model, "eval.logits_full");
    if (!r->failed)
        check_stats(&j);
    const emo__json *keeps = emo__json_get(c->json, "keep_k");
    if (emo__json_typeof(keeps) != EMO__JSON_ARRAY || emo__json_size(keeps) == 0)
        golden_fail(r, "case.json has no keep_k");
    for (size_t i = 0; !r->failed && i < emo__json_size(keeps); i++) {
        j.keep = (int32_t)golden_whole(emo__json_at(keeps, i));
        check_method(&j, "oneshot", EMO_SELECT_USAGE);
        if (!r->failed)
            check_method(&j, "easyep", EMO_SELECT_EASY_EP);
        if (!r->failed)
            check_method(&j, "layerwise", EMO_SELECT_LAYERWISE);
    }
    if (!r->failed)
        check_merges(&j);
    emo_dataset_release(j.calibration);
    emo_model_release(j.model);
}
