/* SPDX-License-Identifier: Apache-2.0 */
/* Targets that read one file each. What opens must be usable, and must read back the same after it was written. */
#include "fuzz/fuzz.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "model/config.h"

/* ---- JSON ---- */

static void rewrite(const emo__json *root, emo__buf *out) {
    emo_error err = EMO_ERROR_INIT;
    emo__jw w;
    emo__buf_init(out, &fuzz_runtime()->mem);
    emo__jw_begin(&w, out, 2, &err);
    emo__jw_node(&w, NULL, root);
    FUZZ_OK(emo__jw_end(&w));
}

/* After one rewriting (which turns -0 into -0.0's text, 1e2 into 100 ...) the text stays as it is. */
void fuzz_json(const uint8_t *data, size_t size) {
    const emo__mem *mem = &fuzz_runtime()->mem;
    emo_error err = EMO_ERROR_INIT;
    emo__json *root = NULL;
    emo__buf text[3];
    if (!FUZZ_CALL(emo__json_parse(mem, (const char *)data, size, "fuzz", &root, &err)))
        return;
    for (int i = 0; i < 3; i++) {
        rewrite(root, &text[i]);
        emo__json_free(root);
        root = NULL;
        if (i < 2)
            FUZZ_OK(emo__json_parse(mem, text[i].data, text[i].size, "own", &root, &err));
    }
    FUZZ_CHECK(text[1].size == text[2].size && memcmp(text[1].data, text[2].data, text[1].size) == 0);
    for (int i = 0; i < 3; i++)
        emo__buf_free(&text[i]);
}

/* ---- safetensors ---- */

void fuzz_safetensors(const uint8_t *data, size_t size) {
    emo_runtime *rt = fuzz_runtime();
    emo_error err = EMO_ERROR_INIT;
    emo_source *source = NULL;
    emo__st *st = NULL;
    FUZZ_OK(emo_source_from_memory(rt, size > 0 ? data : (const uint8_t *)"", size, &source, &err));
    emo_status status = emo__st_open(rt, source, &st, &err);
    emo_source_release(source);
    if (!FUZZ_CALL(status))
        return;
    for (size_t i = 0; i < emo__st_count(st); i++) {
        const emo__st_entry *e = emo__st_at(st, i);
        float values[64];
        FUZZ_CHECK(e->offset <= size && e->bytes <= size - e->offset);
        FUZZ_CHECK(emo__st_find(st, e->name) == e);
        if (e->count > 0)
            (void)FUZZ_CALL(emo__st_read_as(st, e, e->count / 2,
                                            e->count - e->count / 2 < 64 ? e->count - e->count / 2 : 64, EMO_DTYPE_F32,
                                            values, &err));
        (void)FUZZ_CALL(emo__st_check_shape(e, (const int64_t[]){2, 3}, 2, &err));
    }
    emo__st_close(st);
}

/* ---- config.json, and behind a NUL pruning_metadata.json ---- */

static bool small(const emo__config *c) {
    int64_t experts = 0;
    for (int32_t l = 0; l < c->layers; l++)
        experts += c->layer[l].experts;
    return c->layers <= 4 && c->hidden <= 64 && c->vocab <= 512 && c->inner <= 64 && c->dense_inner <= 64 &&
           (int64_t)c->heads * c->head_dim <= 256 && experts <= 64;
}

void fuzz_config(const uint8_t *data, size_t size) {
    emo_runtime *rt = fuzz_runtime();
    emo_error err = EMO_ERROR_INIT;
    emo__config config;
    const uint8_t *cut = size > 0 ? memchr(data, 0, size) : NULL;
    size_t length = cut != NULL ? (size_t)(cut - data) : size;
    bool good = FUZZ_CALL(emo__config_parse(&rt->mem, (const char *)data, length, &config, &err));
    bool make = good && small(&config);
    if (good) {
        emo__buf text;
        emo__config again;
        emo__buf_init(&text, &rt->mem);
        if (cut != NULL)
            (void)FUZZ_CALL(emo__config_read_pruning(&config, (const char *)cut + 1, size - length - 1, &err));
        FUZZ_OK(emo__config_write(&config, EMO_DTYPE_F32, &text, &err));
        FUZZ_OK(emo__config_parse(&rt->mem, text.data, text.size, &again, &err));
        FUZZ_CHECK(again.hidden == config.hidden && again.layers == config.layers && again.top_k == config.top_k);
        emo__config_free(&again);
        emo__buf_free(&text);
    }
    emo__config_free(&config);
    emo_model *model = NULL;
    if (make && FUZZ_CALL(emo_model_create_json(rt, (const char *)data, length, NULL, &model, &err))) {
        static float logits[512];
        const int32_t token = 0;
        FUZZ_OK(emo_eval_logits(model, &token, 1, NULL, logits, 512, &err));
        emo_model_release(model);
    }
}

/* ---- masks, statistics, pools ---- */

void fuzz_mask(const uint8_t *data, size_t size) {
    emo_runtime *rt = fuzz_runtime();
    emo_error err = EMO_ERROR_INIT;
    emo_mask *mask = NULL;
    emo_mask *back = NULL;
    emo_mask *other = NULL;
    size_t n = 0;
    if (!FUZZ_CALL(emo_mask_from_json(rt, size > 0 ? (const char *)data : "", size, &mask, &err)))
        return;
    FUZZ_OK(emo_mask_to_json(mask, NULL, 0, &n, &err));
    char *text = n < (size_t)1 << 22 ? malloc(n) : NULL;
    if (text != NULL) {
        FUZZ_OK(emo_mask_to_json(mask, text, n, &n, &err));
        FUZZ_OK(emo_mask_from_json(rt, text, n - 1, &back, &err));
        FUZZ_CHECK(emo_mask_equal(mask, back));
        FUZZ_OK(emo_mask_complement(mask, &other, &err));
        emo_mask_release(back);
        FUZZ_OK(emo_mask_union(mask, other, &back, &err));
        for (int32_t l = 0; l < emo_mask_layers(mask); l++)
            FUZZ_CHECK(emo_mask_count(back, l) == emo_mask_experts(mask, l));
    }
    free(text);
    emo_mask_release(back);
    emo_mask_release(other);
    emo_mask_release(mask);
}

void fuzz_stats(const uint8_t *data, size_t size) {
    emo_runtime *rt = fuzz_runtime();
    emo_error err = EMO_ERROR_INIT;
    emo_stats *stats = NULL;
    emo_stats *again = NULL;
    if (!FUZZ_CALL(emo_stats_load(rt, fuzz_file("stats.json", data, size), &stats, &err)))
        return;
    FUZZ_CHECK(emo_stats_layers(stats) > 0 && emo_stats_tokens(stats) >= 0);
    FUZZ_OK(emo_stats_save(stats, fuzz_file("stats-2.json", NULL, 0), &err));
    FUZZ_OK(emo_stats_load(rt, fuzz_file("stats-2.json", NULL, 0), &again, &err));
    FUZZ_CHECK(emo_stats_tokens(stats) == emo_stats_tokens(again));
    emo_stats *sum = NULL;
    if (FUZZ_CALL(emo_stats_merge(stats, again, &sum, &err)))
        emo_stats_release(sum);
    emo_stats_release(again);
    emo_stats_release(stats);
}

void fuzz_pool(const uint8_t *data, size_t size) {
    emo_runtime *rt = fuzz_runtime();
    emo_error err = EMO_ERROR_INIT;
    emo_pool_policy *pool = NULL;
    emo_pool_policy *again = NULL;
    char words[256];
    char text[2][1024]; /* more than what 255 bytes can say */
    size_t n = size < sizeof words ? size : sizeof words - 1;
    if (n > 0)
        memcpy(words, data, n);
    words[n] = '\0';
    if (!FUZZ_CALL(emo_pool_policy_parse(rt, words, &pool, &err)))
        return;
    FUZZ_OK(emo_pool_policy_describe(pool, text[0], sizeof text[0], &n, &err));
    FUZZ_OK(emo_pool_policy_parse(rt, text[0], &again, &err));
    FUZZ_OK(emo_pool_policy_describe(again, text[1], sizeof text[1], &n, &err));
    FUZZ_CHECK(strcmp(text[0], text[1]) == 0);
    FUZZ_CHECK(emo_pool_policy_kind(pool) == emo_pool_policy_kind(again));
    emo_pool_policy_release(again);
    emo_pool_policy_release(pool);
}
