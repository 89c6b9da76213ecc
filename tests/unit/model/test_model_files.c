/* SPDX-License-Identifier: Apache-2.0 */
/* Models in files: round trips, load subsets, masks, pruning and merging, and what must be refused. */
#include <emo/model.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/files.h"
#include "model/files.h"
#include "support/meter.h"
#include "tensor/dtype.h"

static const char config[] =
    "{\"model_type\":\"emo\",\"vocab_size\":64,\"hidden_size\":16,\"intermediate_size\":8,\"num_hidden_layers\":3,"
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"max_position_embeddings\":64,\"num_experts_per_tok\":3,"
    "\"num_experts_per_layer\":[6,0,5],\"num_shared_experts_per_layer\":[1,0,1],\"dense_intermediate_size\":12,"
    "\"eos_token_id\":1,\"pad_token_id\":0,\"emo_train_seq_len\":32}";

static emo_runtime *rt;
static char root[64];

static int setup(void **state) {
    (void)state;
    rt = test_runtime(2, EMO_ISA_AUTO);
    strcpy(root, "/tmp/emo_test_model_XXXXXX");
    return mkdtemp(root) == NULL ? -1 : 0;
}

static int teardown(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    EXPECT_OK(emo__remove_tree(&rt->mem, root, &err));
    emo_runtime_release(rt);
    return 0;
}

static const char *at(const char *name) {
    static char path[4][128];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", root, name);
    return path[turn];
}

static emo_model *make(uint64_t seed) {
    emo_error err = EMO_ERROR_INIT;
    emo_model_create_options options = EMO_MODEL_CREATE_OPTIONS_INIT;
    options.seed = seed;
    emo_model *model = NULL;
    EXPECT_OK(emo_model_create_json(rt, config, strlen(config), &options, &model, &err));
    return model;
}

static emo_model *load(const char *folder, emo_dtype dtype, const emo_mask *subset) {
    emo_error err = EMO_ERROR_INIT;
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    options.dtype = dtype;
    options.subset = subset;
    emo_model *model = NULL;
    EXPECT_OK(emo_model_load_path(rt, folder, &options, &model, &err));
    return model;
}

static void save(const emo_model *model, const char *folder, emo_dtype dtype, uint64_t shard) {
    emo_error err = EMO_ERROR_INIT;
    emo_model_save_options options = EMO_MODEL_SAVE_OPTIONS_INIT;
    options.dtype = dtype;
    options.shard_bytes = shard;
    EXPECT_OK(emo_model_save(model, folder, &options, &err));
}

/* Every tensor of `a` as type `dtype` has the very bytes of `b`'s. */
static void expect_same_bytes(const emo_model *a, const emo_model *b, emo_dtype dtype) {
    assert_int_equal(a->n_params, b->n_params);
    for (size_t i = 0; i < a->n_params; i++) {
        const emo__param *p = &a->params[i];
        const emo__param *q = &b->params[i];
        size_t n = (size_t)emo__param_count(p);
        size_t item = emo__dtype_size(dtype);
        assert_int_equal(q->view->dtype, dtype);
        assert_int_equal(q->view->stride, q->cols);
        assert_int_equal((uintptr_t)q->view->data % item, 0);
        void *want = malloc(n * item);
        assert_non_null(want);
        assert_true(emo__convert(want, dtype, p->view->data, p->view->dtype, n));
        assert_memory_equal(want, q->view->data, n * item);
        free(want);
    }
}

static void round_trips_keep_every_byte(void **state) {
    (void)state;
    static const emo_dtype dtypes[] = {EMO_DTYPE_F32, EMO_DTYPE_BF16, EMO_DTYPE_F16};
    emo_model *model = make(7);
    for (size_t i = 0; i < 3; i++) {
        save(model, at("a"), dtypes[i], 0);
        emo_model *back = load(at("a"), -1, NULL);
        expect_same_bytes(model, back, dtypes[i]);
        assert_int_equal(back->config.train_seq_len, 32);
        save(back, at("b"), -1, 4096); /* shards, as held */
        assert_true(access(at("b/model.safetensors.index.json"), F_OK) == 0);
        emo_model *again = load(at("b"), -1, NULL);
        expect_same_bytes(model, again, dtypes[i]);
        emo_model *wide = load(at("b"), EMO_DTYPE_F32, NULL);
        expect_same_bytes(back, wide, EMO_DTYPE_F32);
        emo_model_release(wide);
        emo_model_release(again);
        emo_model_release(back);
    }
    emo_model_release(model);
}

static void weights_are_a_function_of_the_seed(void **state) {
    (void)state;
    emo_model *a = make(1);
    emo_model *b = make(1);
    emo_model *c = make(2);
    expect_same_bytes(a, b, EMO_DTYPE_F32);
    assert_memory_not_equal(a->embed.data, c->embed.data, 64 * 16 * sizeof(float));
    const float *w = a->embed.data;
    for (size_t i = 0; i < 64 * 16; i++)
        assert_true(w[i] >= -0.06f && w[i] <= 0.06f);
    assert_true(((const float *)a->norm.data)[3] == 1.0f);
    emo_model_release(a);
    emo_model_release(b);
    emo_model_release(c);
}

/* A host source that remembers which bytes were asked for. */
typedef struct counting {
    char *data;
    size_t size;
    uint8_t *touched;
} counting;

static emo_status counting_size(void *ctx, uint64_t *size) {
    *size = ((counting *)ctx)->size;
    return EMO_OK;
}

static emo_status counting_read(void *ctx, uint64_t offset, void *buffer, size_t size) {
    counting *c = ctx;
    if (offset > c->size || size > c->size - offset)
        return EMO_E_IO;
    memcpy(buffer, c->data + offset, size);
    memset(c->touched + offset, 1, size);
    return EMO_OK;
}

static emo_mask *some_experts(const emo_model *model) {
    emo_error err = EMO_ERROR_INIT;
    emo_mask *mask = NULL;
    EXPECT_OK(emo_model_mask(model, &mask, &err));
    EXPECT_OK(emo_mask_set(mask, 0, 0, 0, &err));
    EXPECT_OK(emo_mask_set(mask, 0, 3, 0, &err));
    EXPECT_OK(emo_mask_set(mask, 2, 1, 0, &err));
    return mask;
}

static void a_load_subset_reads_nothing_else(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(3);
    save(model, at("c"), -1, 0);
    emo_mask *mask = some_experts(model);
    counting c = {0};
    EXPECT_OK(emo__file_read(&rt->mem, at("c/model.safetensors"), (size_t)1 << 24, &c.data, &c.size, &err));
    c.touched = calloc(c.size, 1);
    assert_non_null(c.touched);
    emo_source_vtable vtable = EMO_SOURCE_VTABLE_INIT;
    vtable.size = counting_size;
    vtable.read_at = counting_read;
    emo_source *source = NULL;
    EXPECT_OK(emo_source_create(rt, &vtable, &c, &source, &err));
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    options.subset = mask;
    emo_model *part = NULL;
    EXPECT_OK(emo_model_load_sources(rt, config, strlen(config), &source, 1, &options, &part, &err));

    uint64_t header;
    memcpy(&header, c.data, 8);
    size_t untouched = 0;
    for (size_t i = 8 + (size_t)header; i < c.size; i++)
        untouched += c.touched[i] == 0;
    assert_int_equal(untouched, 3 * 3 * 16 * 8 * sizeof(float)); /* three experts of three matrices, nothing more */
    for (int32_t l = 0; l < 3; l += 2) {
        for (int32_t e = 0; e < emo_model_experts(part, l); e++) {
            const emo_expert_slot *slot = &part->layers[l].experts[e];
            assert_int_equal(slot->gate.data != NULL, emo_mask_get(mask, l, e));
            if (slot->gate.data != NULL)
                assert_memory_equal(slot->down.data, model->layers[l].experts[e].down.data, 16 * 8 * sizeof(float));
        }
    }
    emo_mask *own = NULL;
    EXPECT_OK(emo_model_mask(part, &own, &err));
    assert_true(emo_mask_equal(own, mask));
    emo_model_info info = EMO_MODEL_INFO_INIT;
    EXPECT_OK(emo_model_get_info(part, &info, &err));
    assert_int_equal(info.parameters - info.loaded, 3 * 3 * 16 * 8);
    float value[128];
    EXPECT_STATUS(emo_model_tensor_f32(part, "model.layers.0.mlp.experts.3.up_proj.weight", value, 128, NULL, &err),
                  EMO_E_NOT_FOUND, "left out");
    EXPECT_STATUS(emo_model_save(part, at("never"), NULL, &err), EMO_E_INVALID_ARGUMENT, "prune");
    emo_mask_release(own);
    emo_model_release(part);
    emo_source_release(source);
    emo_mask_release(mask);
    emo__free(&rt->mem, c.data);
    free(c.touched);
    emo_model_release(model);
}

static void pruning_renumbers_and_remembers(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(4);
    emo_mask *mask = some_experts(model);
    emo_model *small = NULL;
    EXPECT_OK(emo_model_prune(model, mask, NULL, &small, &err));
    static const int32_t kept0[] = {1, 2, 4, 5};
    static const int32_t kept2[] = {0, 2, 3, 4};
    assert_int_equal(emo_model_experts(small, 0), 4);
    assert_int_equal(emo_model_experts(small, 1), 0);
    assert_int_equal(emo_model_shared(small, 0), 1);
    for (int32_t e = 0; e < 4; e++) {
        assert_int_equal(emo_model_original_expert(small, 0, e), kept0[e]);
        assert_int_equal(emo_model_original_expert(small, 2, e), kept2[e]);
        const float *row = (const float *)small->layers[2].w[EMO__W_ROUTER].data + 16 * e;
        assert_memory_equal(row, (const float *)model->layers[2].w[EMO__W_ROUTER].data + 16 * kept2[e],
                            16 * sizeof(float));
        assert_memory_equal(small->layers[0].experts[e].up.data, model->layers[0].experts[kept0[e]].up.data,
                            128 * sizeof(float));
    }
    /* once more, through a file: ids compose */
    save(small, at("p"), -1, 0);
    emo_model *back = load(at("p"), -1, NULL);
    expect_same_bytes(small, back, EMO_DTYPE_F32);
    assert_int_equal(back->config.layer[0].original_experts, 6);
    assert_int_equal(back->config.output_router_logits, true);
    assert_string_equal(back->prune_method, "mask");
    emo_mask *own = NULL;
    EXPECT_OK(emo_model_mask(back, &own, &err));
    EXPECT_OK(emo_mask_set(own, 0, 0, 0, &err));
    emo_model *smaller = NULL;
    EXPECT_OK(emo_model_prune(back, own, NULL, &smaller, &err));
    assert_int_equal(emo_model_original_expert(smaller, 0, 0), 2);
    assert_int_equal(emo_model_original_expert(smaller, 0, 2), 5);
    /* the parent's ids serve the pruned model too */
    EXPECT_OK(emo_mask_set(mask, 0, 1, 0, &err));
    uint8_t keep[4];
    EXPECT_OK(emo__model_keep(back, mask, 0, keep, &err));
    assert_int_equal(keep[0], 0);
    assert_int_equal(keep[1] + keep[2] + keep[3], 3);
    EXPECT_OK(emo_mask_set(mask, 0, 3, 1, &err));
    EXPECT_STATUS(emo__model_keep(back, mask, 0, keep, &err), EMO_E_MISMATCH, "expert 3 of layer 0");
    emo_mask_release(own);
    emo_mask_release(mask);
    emo_model_release(smaller);
    emo_model_release(back);
    emo_model_release(small);
    emo_model_release(model);
}

static void explicit_lists_may_leave_shared_experts_out(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(4);
    static const int32_t ids[] = {4, 0, 2, 4, 1, 0};
    static const int32_t offsets[] = {0, 3, 3, 6};
    emo_prune_options options = EMO_PRUNE_OPTIONS_INIT;
    options.keep = ids;
    options.keep_offsets = offsets;
    emo_model *small = NULL;
    EXPECT_OK(emo_model_prune(model, NULL, &options, &small, &err));
    assert_int_equal(emo_model_shared(small, 0), 0);
    assert_int_equal(emo_model_shared(small, 2), 1);
    assert_int_equal(emo_model_original_expert(small, 0, 1), 2);
    emo_model_release(small);
    static const int32_t twice[] = {4, 0, 4, 4, 1, 0};
    options.keep = twice;
    EXPECT_STATUS(emo_model_prune(model, NULL, &options, &small, &err), EMO_E_RANGE, "twice");
    assert_null(small);
    static const int32_t outside[] = {4, 0, 6, 4, 1, 0};
    options.keep = outside;
    EXPECT_STATUS(emo_model_prune(model, NULL, &options, &small, &err), EMO_E_RANGE, "expert 6");
    EXPECT_STATUS(emo_model_prune(model, NULL, NULL, &small, &err), EMO_E_INVALID_ARGUMENT, "mask");
    emo_mask *mask = NULL;
    EXPECT_OK(emo_model_mask(model, &mask, &err));
    for (int32_t e = 0; e < 5; e++)
        EXPECT_OK(emo_mask_set(mask, 0, e, 0, &err));
    EXPECT_STATUS(emo_model_prune(model, mask, NULL, &small, &err), EMO_E_INVALID_ARGUMENT, "no routed expert");
    emo_mask_release(mask);
    emo_model_release(model);
}

static void merging_touches_what_was_asked_for(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *parent = make(4);
    emo_model *other = make(5);
    emo_mask *mask = some_experts(parent);
    emo_model *child = NULL;
    EXPECT_OK(emo_model_prune(other, mask, NULL, &child, &err));
    emo_merge_options options = EMO_MERGE_OPTIONS_INIT;
    emo_model *merged = NULL;
    EXPECT_OK(emo_model_merge(parent, child, &options, &merged, &err));
    for (int32_t e = 0; e < 6; e++) {
        const emo_model *from = emo_mask_get(mask, 0, e) && e < 5 ? other : parent;
        assert_memory_equal(merged->layers[0].experts[e].gate.data, from->layers[0].experts[e].gate.data,
                            128 * sizeof(float));
    }
    assert_memory_equal(merged->embed.data, parent->embed.data, 64 * 16 * sizeof(float));
    assert_memory_equal(merged->layers[0].w[EMO__W_ROUTER].data, parent->layers[0].w[EMO__W_ROUTER].data,
                        6 * 16 * sizeof(float));
    emo_model_release(merged);
    options.average = 0.25f;
    options.rest = 1;
    options.router = 1;
    EXPECT_OK(emo_model_merge(parent, child, &options, &merged, &err));
    const float *a = parent->embed.data;
    const float *b = other->embed.data;
    const float *m = merged->embed.data;
    for (size_t i = 0; i < 64 * 16; i++)
        assert_true(m[i] == 0.75f * a[i] + 0.25f * b[i]);
    assert_memory_equal((const float *)merged->layers[0].w[EMO__W_ROUTER].data + 3 * 16,
                        (const float *)parent->layers[0].w[EMO__W_ROUTER].data + 3 * 16, 16 * sizeof(float));
    emo_model_release(merged);
    options.average = 1.5f;
    EXPECT_STATUS(emo_model_merge(parent, child, &options, &merged, &err), EMO_E_RANGE, "average");
    EXPECT_STATUS(emo_model_merge(child, parent, NULL, &merged, &err), EMO_E_MISMATCH, "layer 0");
    assert_null(merged);
    emo_mask_release(mask);
    emo_model_release(child);
    emo_model_release(other);
    emo_model_release(parent);
}

static void tensors_must_be_there_and_fit(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(3);
    save(model, at("d"), -1, 0);
    emo_source *source = NULL;
    EXPECT_OK(emo_source_open_path(rt, at("d/model.safetensors"), &source, &err));
    char other[sizeof config];
    strcpy(other, config);
    emo_model *bad = NULL;
    char *p = strstr(other, "\"vocab_size\":64");
    memcpy(p, "\"vocab_size\":63", 15);
    EXPECT_STATUS(emo_model_load_sources(rt, other, strlen(other), &source, 1, NULL, &bad, &err), EMO_E_MISMATCH,
                  "model.embed_tokens.weight");
    assert_non_null(strstr(err.message, "[64, 16]"));
    assert_non_null(strstr(err.message, "[63, 16]"));
    strcpy(other, config);
    memcpy(strstr(other, "[6,0,5]"), "[7,0,5]", 7);
    EXPECT_STATUS(emo_model_load_sources(rt, other, strlen(other), &source, 1, NULL, &bad, &err), EMO_E_MISMATCH,
                  "gate.weight");
    strcpy(other, config);
    memcpy(strstr(other, "[6,0,5]"), "[0,0,5]", 7);
    EXPECT_STATUS(emo_model_load_sources(rt, other, strlen(other), &source, 1, NULL, &bad, &err), EMO_E_NOT_FOUND,
                  "model.layers.0.mlp.gate_proj.weight");
    assert_null(bad);
    emo_source_release(source);

    emo_mask *mask = NULL;
    static const int32_t experts[] = {6, 0, 4};
    EXPECT_OK(emo_mask_create(rt, 3, experts, NULL, 1, &mask, &err));
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    options.subset = mask;
    EXPECT_STATUS(emo_model_load_path(rt, at("d"), &options, &bad, &err), EMO_E_MISMATCH, "layer 0");
    options.subset = NULL;
    options.dtype = EMO_DTYPE_I32;
    EXPECT_STATUS(emo_model_load_path(rt, at("d"), &options, &bad, &err), EMO_E_RANGE, "dtype");
    EXPECT_STATUS(emo_model_load_path(rt, at("nothing"), NULL, &bad, &err), EMO_E_NOT_FOUND, "config.json");
    emo_mask_release(mask);
    emo_model_release(model);
}

static void queries_and_busy(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(3);
    emo_model_info info = EMO_MODEL_INFO_INIT;
    EXPECT_OK(emo_model_get_info(model, &info, &err));
    assert_int_equal(info.layers, 3);
    assert_int_equal(info.eos, 1);
    assert_int_equal(info.loaded, info.parameters);
    /* two MoE layers of 11 experts in all, of which 2 * 3 work on a token */
    assert_int_equal(info.parameters - info.active, (11 - 6) * 3 * 16 * 8);
    size_t size = 0;
    EXPECT_OK(emo_model_config_json(model, NULL, 0, &size, &err));
    char *text = malloc(size + 1);
    assert_non_null(text);
    EXPECT_STATUS(emo_model_config_json(model, text, size, &size, &err), EMO_E_LIMIT, "needs");
    EXPECT_OK(emo_model_config_json(model, text, size + 1, &size, &err));
    assert_int_equal(strlen(text), size);
    emo_model *again = NULL;
    EXPECT_OK(emo_model_create_json(rt, text, size, NULL, &again, &err));
    assert_int_equal(emo_model_experts(again, 2), 5);
    emo_model_release(again);
    free(text);
    float norm[16];
    size_t count = 0;
    EXPECT_OK(emo_model_tensor_f32(model, "model.norm.weight", norm, 16, &count, &err));
    assert_int_equal(count, 16);
    assert_true(norm[15] == 1.0f);
    EXPECT_STATUS(emo_model_tensor_f32(model, "model.norm.bias", norm, 16, &count, &err), EMO_E_NOT_FOUND, "norm.bias");
    emo_tokenizer *bytes = NULL;
    EXPECT_OK(emo_tokenizer_create_bytes(rt, &bytes, &err));
    EXPECT_STATUS(emo_model_set_tokenizer(model, bytes, &err), EMO_E_MISMATCH, "vocab_size is 64");
    emo_tokenizer_release(bytes);
    EXPECT_OK(emo__model_begin_read(model, &err));
    EXPECT_OK(emo_model_get_info(model, &info, &err));
    EXPECT_STATUS(emo_model_set_tokenizer(model, NULL, &err), EMO_E_BUSY, "in use");
    emo__model_end_read(model);
    emo_model_release(model);
}

static emo_status whole_life(emo_runtime *own) {
    emo_model *model = NULL;
    emo_model *small = NULL;
    emo_model *back = NULL;
    emo_mask *mask = NULL;
    emo_status status = emo_model_create_json(own, config, strlen(config), NULL, &model, NULL);
    if (status == EMO_OK)
        status = emo_model_mask(model, &mask, NULL);
    if (status == EMO_OK)
        status = emo_mask_set(mask, 0, 2, 0, NULL);
    if (status == EMO_OK)
        status = emo_model_prune(model, mask, NULL, &small, NULL);
    if (status == EMO_OK)
        status = emo_model_save(small, at("oom"), NULL, NULL);
    if (status == EMO_OK)
        status = emo_model_load_path(own, at("oom"), NULL, &back, NULL);
    emo_model_release(small);
    small = NULL;
    if (status == EMO_OK)
        status = emo_model_merge(model, back, NULL, &small, NULL);
    emo_model_release(small);
    emo_model_release(back);
    emo_model_release(model);
    emo_mask_release(mask);
    return status;
}

/* No leak, a status, no object. */
static void every_allocation_may_fail(void **state) {
    (void)state;
    meter m = METER_INIT;
    emo_runtime *own = meter_runtime(&m, 1);
    long before = atomic_load(&m.live);
    emo_status status = EMO_E_OUT_OF_MEMORY;
    long n = 0;
    for (; status != EMO_OK; n++) {
        assert_true(n < 5000);
        meter_arm(&m, n, 1);
        status = whole_life(own);
        if (status != EMO_OK)
            assert_int_equal(status, EMO_E_OUT_OF_MEMORY);
        assert_int_equal(atomic_load(&m.live), before);
    }
    assert_true(n > 50);
    meter_disarm(&m);
    emo_runtime_release(own);
    meter_check(&m, "failing allocations");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trips_keep_every_byte),
        cmocka_unit_test(weights_are_a_function_of_the_seed),
        cmocka_unit_test(a_load_subset_reads_nothing_else),
        cmocka_unit_test(pruning_renumbers_and_remembers),
        cmocka_unit_test(explicit_lists_may_leave_shared_experts_out),
        cmocka_unit_test(merging_touches_what_was_asked_for),
        cmocka_unit_test(tensors_must_be_there_and_fit),
        cmocka_unit_test(queries_and_busy),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
