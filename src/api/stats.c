/* SPDX-License-Identifier: Apache-2.0 */
#include <emo/stats.h>
#include <string.h>

#include "base/options.h"
#include "base/status.h"
#include "io/files.h"
#include "io/json.h"
#include "model/files.h"
#include "subset/stats.h"

#define MAX_JSON ((size_t)256 << 20)
#define MAX_TOKENS (INT64_MAX / 2)

static emo_status missing(emo_error *err, const char *what) {
    return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", what);
}

static emo_status collect(emo_model *model, const emo_dataset *documents, const emo_stats_options *o, emo_stats **out,
                          emo_error *err) {
    emo__windows w;
    emo__allowed allowed = {0};
    emo_stats *stats = NULL;
    emo__calibration how = {o->seq_len, o->prepend_eos, &o->progress};
    for (int32_t l = 0; o->easy_ep != 0 && l < model->config.layers; l++) {
        if (model->config.layer[l].n_always > 0)
            return emo__fail(err, EMO_E_UNSUPPORTED, "EASY-EP is not defined with always-active experts (layer %d)",
                             (int)l);
    }
    emo_status status = emo__calibration_windows(model, documents, &how, &w, err);
    if (status == EMO_OK)
        status = emo__allowed_create(model, o->mask, w.max_windows, false, &allowed, err);
    if (status == EMO_OK)
        status = emo__stats_for(model, o->easy_ep != 0, &stats, err);
    if (status == EMO_OK)
        status = emo__stats_collect(model, &w, &allowed, -1, stats, &o->progress, err);
    emo__allowed_free(&allowed);
    emo__windows_free(&w);
    if (status == EMO_OK)
        *out = stats;
    else
        emo_stats_release(stats);
    return status;
}

emo_status emo_stats_collect(emo_model *model, const emo_dataset *documents, const emo_stats_options *options,
                             emo_stats **out, emo_error *err) {
    emo__error_clear(err);
    if (out == NULL)
        return missing(err, "out");
    *out = NULL;
    if (model == NULL || documents == NULL)
        return missing(err, model == NULL ? "model" : "documents");
    emo_stats_options o = EMO_STATS_OPTIONS_INIT;
    emo_status status = emo__options_copy(&o, sizeof o, options, "emo_stats_options", err);
    if (status == EMO_OK)
        status = emo__option_flag(o.easy_ep, "emo_stats_options.easy_ep", err);
    if (status == EMO_OK)
        status = emo__option_flag(o.prepend_eos, "emo_stats_options.prepend_eos", err);
    if (status == EMO_OK)
        status = emo__model_begin_read(model, err);
    if (status != EMO_OK)
        return status;
    status = collect(model, documents, &o, out, err);
    emo__model_end_read(model);
    return status;
}

int64_t emo_stats_tokens(const emo_stats *stats) { return stats == NULL ? 0 : stats->tokens; }
int32_t emo_stats_layers(const emo_stats *stats) { return stats == NULL ? 0 : stats->layers; }

static emo_status copy_layer(const emo_stats *stats, const double *sums, double divisor, int32_t layer, double *out,
                             size_t capacity, size_t *count, emo_error *err) {
    if (layer < 0 || layer >= stats->layers)
        return emo__fail(err, EMO_E_RANGE, "layer %d; the statistics have %d", (int)layer, (int)stats->layers);
    size_t n = (size_t)stats->experts[layer];
    if (count != NULL)
        *count = n;
    if (capacity == 0)
        return EMO_OK;
    if (capacity < n)
        return emo__fail(err, EMO_E_LIMIT, "layer %d has %zu experts; the buffer has %zu", (int)layer, n, capacity);
    for (size_t e = 0; e < n; e++)
        out[e] = sums[stats->offset[layer] + e] / divisor;
    return EMO_OK;
}

emo_status emo_stats_probs(const emo_stats *stats, int32_t layer, double *out, size_t capacity, size_t *count,
                           emo_error *err) {
    emo__error_clear(err);
    if (stats == NULL || (out == NULL && capacity > 0))
        return missing(err, stats == NULL ? "stats" : "out");
    double tokens = stats->tokens > 0 ? (double)stats->tokens : 1.0;
    return copy_layer(stats, stats->probs, tokens, layer, out, capacity, count, err);
}

emo_status emo_stats_easy_ep(const emo_stats *stats, int32_t layer, double *out, size_t capacity, size_t *count,
                             emo_error *err) {
    emo__error_clear(err);
    if (stats == NULL || (out == NULL && capacity > 0))
        return missing(err, stats == NULL ? "stats" : "out");
    if (stats->easy == NULL)
        return emo__fail(err, EMO_E_NOT_FOUND, "the statistics have no EASY-EP scores; collect them with easy_ep");
    return copy_layer(stats, stats->easy, 1.0, layer, out, capacity, count, err);
}

emo_status emo_stats_merge(const emo_stats *a, const emo_stats *b, emo_stats **out, emo_error *err) {
    emo__error_clear(err);
    if (out == NULL)
        return missing(err, "out");
    *out = NULL;
    if (a == NULL || b == NULL)
        return missing(err, a == NULL ? "a" : "b");
    if (a->layers != b->layers || memcmp(a->experts, b->experts, (size_t)a->layers * sizeof *a->experts) != 0)
        return emo__fail(err, EMO_E_MISMATCH, "the statistics are of models of different shapes");
    if ((a->easy == NULL) != (b->easy == NULL))
        return emo__fail(err, EMO_E_MISMATCH, "only one of the statistics has EASY-EP scores");
    if (a->tokens > MAX_TOKENS - b->tokens)
        return emo__fail(err, EMO_E_RANGE, "%lld and %lld tokens are more than statistics can count",
                         (long long)a->tokens, (long long)b->tokens);
    emo_stats *sum = NULL;
    emo_status status = emo__stats_new(a->rt, a->layers, a->experts, a->easy != NULL, &sum, err);
    if (status != EMO_OK)
        return status;
    sum->tokens = a->tokens + b->tokens;
    for (size_t i = 0; i < a->offset[a->layers]; i++) {
        sum->probs[i] = a->probs[i] + b->probs[i];
        if (a->easy != NULL)
            sum->easy[i] = a->easy[i] + b->easy[i];
    }
    *out = sum;
    return EMO_OK;
}

static void write_sums(emo__jw *w, const char *key, const emo_stats *s, const double *sums) {
    emo__jw_array(w, key);
    for (int32_t l = 0; l < s->layers; l++) {
        emo__jw_row(w, NULL);
        for (size_t i = s->offset[l]; i < s->offset[l + 1]; i++)
            emo__jw_f64(w, NULL, sums[i]);
        emo__jw_array_end(w);
    }
    emo__jw_array_end(w);
}

emo_status emo_stats_save(const emo_stats *stats, const char *path, emo_error *err) {
    emo__error_clear(err);
    if (stats == NULL || path == NULL)
        return missing(err, stats == NULL ? "stats" : "path");
    emo__buf text;
    emo__jw w;
    emo__buf_init(&text, &stats->rt->mem);
    emo__jw_begin(&w, &text, 2, err);
    emo__jw_object(&w, NULL);
    emo__jw_string(&w, "format", "emo-stats");
    emo__jw_i64(&w, "version", 1);
    emo__jw_i64(&w, "tokens", stats->tokens);
    write_sums(&w, "probability_sums", stats, stats->probs);
    if (stats->easy != NULL)
        write_sums(&w, "easy_ep_scores", stats, stats->easy);
    emo__jw_object_end(&w);
    emo_status status = emo__jw_end(&w);
    if (status == EMO_OK)
        status = emo__file_write(&stats->rt->mem, path, text.data, text.size, err);
    emo__buf_free(&text);
    return status;
}

static emo_status read_sums(const emo__json *list, const emo_stats *s, double *sums, const char *key, const char *path,
                            emo_error *err) {
    if (emo__json_size(list) != (size_t)s->layers)
        return emo__fail(err, EMO_E_FORMAT, "%s: %s lists %zu layers, not %d", path, key, emo__json_size(list),
                         (int)s->layers);
    for (int32_t l = 0; l < s->layers; l++) {
        const emo__json *row = emo__json_at(list, (size_t)l);
        if (emo__json_size(row) != (size_t)s->experts[l])
            return emo__fail(err, EMO_E_FORMAT, "%s: %s of layer %d has %zu experts, not %d", path, key, (int)l,
                             emo__json_size(row), (int)s->experts[l]);
        for (size_t e = 0; e < (size_t)s->experts[l]; e++) {
            double *to = &sums[s->offset[l] + e];
            if (!emo__json_f64(emo__json_at(row, e), to) || !(*to >= 0.0))
                return emo__fail(err, EMO_E_FORMAT, "%s: %s of layer %d: entry %zu is no sum", path, key, (int)l, e);
        }
    }
    return EMO_OK;
}

static emo_status read_stats(emo_runtime *rt, const emo__json *root, const char *path, emo_stats **out,
                             emo_error *err) {
    const char *format = NULL;
    int64_t version = 0;
    int64_t tokens = 0;
    emo_stats *stats = NULL;
    int32_t *experts = NULL;
    const emo__json *probs = emo__json_get(root, "probability_sums");
    const emo__json *easy = emo__json_get(root, "easy_ep_scores");
    size_t layers = emo__json_size(probs);
    emo_status status;
    EMO_TRY(status = emo__json_need_string(root, "format", path, &format, err));
    EMO_TRY(status = emo__json_need_i64(root, "version", path, 1, INT64_MAX, &version, err));
    EMO_TRY(status = emo__json_need_i64(root, "tokens", path, 0, MAX_TOKENS, &tokens, err));
    if (strcmp(format, "emo-stats") != 0)
        EMO_TRY(status = emo__fail(err, EMO_E_FORMAT, "%s: the format is '%s', not 'emo-stats'", path, format));
    if (version != 1)
        EMO_TRY(status = emo__fail(err, EMO_E_UNSUPPORTED, "%s: version %lld; this library reads 1", path,
                                   (long long)version));
    if (emo__json_typeof(probs) != EMO__JSON_ARRAY || layers < 1 || layers > INT32_MAX)
        EMO_TRY(status = emo__fail(err, EMO_E_FORMAT, "%s: probability_sums lists no layers", path));
    experts = emo__malloc_array(&rt->mem, layers, sizeof *experts);
    if (experts == NULL)
        EMO_TRY(status = emo__fail_memory(err, layers * sizeof *experts));
    for (size_t l = 0; l < layers; l++)
        experts[l] = (int32_t)emo__json_size(emo__json_at(probs, l));
    EMO_TRY(status = emo__stats_new(rt, (int32_t)layers, experts, easy != NULL, &stats, err));
    stats->tokens = tokens;
    EMO_TRY(status = read_sums(probs, stats, stats->probs, "probability_sums", path, err));
    if (easy != NULL)
        status = read_sums(easy, stats, stats->easy, "easy_ep_scores", path, err);
done:
    emo__free(&rt->mem, experts);
    if (status == EMO_OK)
        *out = stats;
    else
        emo_stats_release(stats);
    return status;
}

emo_status emo_stats_load(emo_runtime *rt, const char *path, emo_stats **out, emo_error *err) {
    emo__error_clear(err);
    if (out == NULL)
        return missing(err, "out");
    *out = NULL;
    if (rt == NULL || path == NULL)
        return missing(err, rt == NULL ? "rt" : "path");
    emo__json *root = NULL;
    emo_status status = emo__json_load(&rt->mem, path, MAX_JSON, &root, err);
    if (status == EMO_OK)
        status = read_stats(rt, root, path, out, err);
    emo__json_free(root);
    return status;
}
