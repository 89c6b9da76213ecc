/* SPDX-License-Identifier: Apache-2.0 */
/* What is well-formed and still wrong: options out of range, each by name; masks and pools that do not fit; broken
 * documents; weights that are not finite; and what is odd but right. */
#include <math.h>

#include "base/runtime.h"
#include "model/model.h"
#include "support/folder.h"
#include "support/stages.h"

static emo_runtime *rt;
static emo_model *model;
static emo_dataset *data;

/* `call` uses `o`, set to `init` and then changed in one field. */
#define REFUSED(type, init, field, value, call)                                                                        \
    do {                                                                                                               \
        type o = init;                                                                                                 \
        o.field = (value);                                                                                             \
        EXPECT_STATUS(call, EMO_E_RANGE, #field);                                                                      \
    } while (0)

static void options_out_of_range_are_named(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *other = NULL;
    emo_model *made = NULL;
    emo_mask *mask = NULL;
    emo_stats *stats = NULL;
    emo_session *session = NULL;
    emo_dataset *opened = NULL;
    emo_tokenizer *tok = NULL;
    emo_router *router = NULL;
    emo_decoder *decoder = NULL;
    int32_t ids[4];
    size_t n_ids = 0;
    emo_eval_result total;
    const char *paths[] = {stages_model()};
    const emo_tokenizer *own = emo_model_tokenizer(model);
    emo_text_reader reader = {NULL, NULL};
    reader.next = (int32_t(*)(void *, const char **, size_t *))(uintptr_t)1; /* never called: the options are wrong */
#define RUNTIME(field, value)                                                                                          \
    REFUSED(emo_runtime_options, EMO_RUNTIME_OPTIONS_INIT, field, value, emo_runtime_create(&o, &other, &err))
    RUNTIME(threads, -1);
    RUNTIME(threads, 1025);
    RUNTIME(isa, 7);
    RUNTIME(reserved, 1);
    RUNTIME(log.level, 9);
#define CREATE(field, value)                                                                                           \
    REFUSED(emo_model_create_options, EMO_MODEL_CREATE_OPTIONS_INIT, field, value,                                     \
            emo_model_create_json(rt, STAGES_CONFIG, strlen(STAGES_CONFIG), &o, &made, &err))
    CREATE(compute, 1);
    CREATE(compute, -1);
#define LOAD(field, value)                                                                                             \
    REFUSED(emo_model_load_options, EMO_MODEL_LOAD_OPTIONS_INIT, field, value,                                         \
            emo_model_load_path(rt, stages_model(), &o, &made, &err))
    LOAD(dtype, 17);
    LOAD(dtype, -2);
    LOAD(no_map, 2);
    LOAD(compute, EMO_DTYPE_F16);
    LOAD(compute, -2);
#define SAVE(field, value)                                                                                             \
    REFUSED(emo_model_save_options, EMO_MODEL_SAVE_OPTIONS_INIT, field, value,                                         \
            emo_model_save(model, stages_run(), &o, &err))
    SAVE(dtype, EMO_DTYPE_I64);
    SAVE(dtype, EMO_DTYPE_Q8_0);
    SAVE(extended, 2);
    SAVE(reserved, 1);
#define MERGE(field, value)                                                                                            \
    REFUSED(emo_merge_options, EMO_MERGE_OPTIONS_INIT, field, value, emo_model_merge(model, model, &o, &made, &err))
    MERGE(average, 1.5f);
    MERGE(average, -0.5f);
    MERGE(average, NAN);
    MERGE(router, 2);
    MERGE(shared, -1);
    MERGE(rest, 2);
    MERGE(reserved, 1);
#define STATS(field, value)                                                                                            \
    REFUSED(emo_stats_options, EMO_STATS_OPTIONS_INIT, field, value, emo_stats_collect(model, data, &o, &stats, &err))
    STATS(easy_ep, 2);
    STATS(prepend_eos, -1);
    STATS(seq_len, -1);
    STATS(seq_len, 65);
#define SELECT(field, value)                                                                                           \
    do {                                                                                                               \
        emo_select_options o = EMO_SELECT_OPTIONS_INIT;                                                                \
        o.keep = 4;                                                                                                    \
        o.field = (value);                                                                                             \
        EXPECT_STATUS(emo_select(model, data, &o, &mask, &err), EMO_E_RANGE, #field);                                  \
    } while (0)
    SELECT(method, 4);
    SELECT(keep, 0);
    SELECT(keep, 10);
    SELECT(keep_shared, -2);
    SELECT(seq_len, -1);
    SELECT(seq_len, 65);
    SELECT(prepend_eos, 2);
#define EVAL(field, value)                                                                                             \
    REFUSED(emo_eval_options, EMO_EVAL_OPTIONS_INIT, field, value,                                                     \
            emo_eval_documents(model, data, &o, &total, NULL, NULL, &err))
    EVAL(seq_len, -1);
    EVAL(seq_len, 65);
    EVAL(batch_tokens, -1);
    EVAL(reserved, 1);
#define SESSION(field, value)                                                                                          \
    REFUSED(emo_session_options, EMO_SESSION_OPTIONS_INIT, field, value, emo_session_create(model, &o, &session, &err))
    SESSION(sequences, 0);
    SESSION(sequences, 1025);
    SESSION(capacity, -1);
    SESSION(capacity, 65);
    SESSION(temperature, -0.1f);
    SESSION(temperature, NAN);
    SESSION(top_k, -1);
    SESSION(top_p, 0.0f);
    SESSION(top_p, 1.1f);
    SESSION(min_p, -0.1f);
    SESSION(min_p, 1.5f);
    SESSION(repetition_penalty, 0.0f);
    SESSION(repetition_penalty, INFINITY);
    SESSION(repetition_window, -1);
    SESSION(ignore_eos, 2);
    SESSION(prepend_eos, 2);
#define DATA(field, value)                                                                                             \
    REFUSED(emo_dataset_options, EMO_DATASET_OPTIONS_INIT, field, value,                                               \
            emo_dataset_open(rt, paths, 1, own, &o, &opened, &err))
    DATA(skip_broken, 2);
    DATA(max_documents, -1);
    DATA(token_type, 3);
    DATA(eos, -2);
    DATA(eos, STAGES_VOCAB);
#define TOKENIZER(field, value)                                                                                        \
    REFUSED(emo_tokenizer_train_options, EMO_TOKENIZER_TRAIN_OPTIONS_INIT, field, value,                               \
            emo_tokenizer_train(rt, &o, &reader, &tok, &err))
    TOKENIZER(vocab_size, 256);
    TOKENIZER(vocab_size, 4194305);
    TOKENIZER(min_frequency, 0);
    TOKENIZER(eos, "");
#define ROUTER(field, value)                                                                                           \
    do {                                                                                                               \
        emo_router_options o = EMO_ROUTER_OPTIONS_INIT;                                                                \
        o.hidden = 4;                                                                                                  \
        o.experts = 8;                                                                                                 \
        o.top_k = 2;                                                                                                   \
        o.field = (value);                                                                                             \
        EXPECT_STATUS(emo_router_create(rt, &o, &router, &err), EMO_E_RANGE, #field);                                  \
    } while (0)
    ROUTER(hidden, 0);
    ROUTER(experts, 0);
    ROUTER(experts, 65537);
    ROUTER(shared, 8);
    ROUTER(shared, -1);
    ROUTER(top_k, 0);
    ROUTER(top_k, 9);
    ROUTER(gating, 2);
    ROUTER(shared_mode, 2);
    ROUTER(norm_p, -1.0f);
    ROUTER(jitter, 1.0f);
    ROUTER(balance_weight, -1.0f);
    ROUTER(z_weight, NAN);
    ROUTER(balance_scope, 4);
    ROUTER(balance_window, 0);
    ROUTER(layer, -1);
    ROUTER(n_always, 8);
#define DECODER(field, value)                                                                                          \
    REFUSED(emo_decoder_options, EMO_DECODER_OPTIONS_INIT, field, value, emo_decoder_create(own, &o, &decoder, &err))
    DECODER(skip_special, 2);
    DECODER(skip_special, -1);
#define ENCODE(field, value)                                                                                           \
    REFUSED(emo_tokenizer_encode_options, EMO_TOKENIZER_ENCODE_OPTIONS_INIT, field, value,                             \
            emo_tokenizer_encode_with(own, &o, "a", 1, ids, 4, &n_ids, &err))
    ENCODE(parse_special, 2);
#define PRUNE(field, value)                                                                                            \
    REFUSED(emo_prune_options, EMO_PRUNE_OPTIONS_INIT, field, value, emo_model_prune(model, NULL, &o, &made, &err))
    PRUNE(reserved, 1);
#define MASK(field, value)                                                                                             \
    do {                                                                                                               \
        static const int32_t experts[] = {8, 0};                                                                       \
        emo_mask_options o = EMO_MASK_OPTIONS_INIT;                                                                    \
        o.layers = 2;                                                                                                  \
        o.experts = experts;                                                                                           \
        o.field = (value);                                                                                             \
        EXPECT_STATUS(emo_mask_create_with(rt, &o, &mask, &err), EMO_E_RANGE, #field);                                 \
    } while (0)
    static const int32_t below[] = {8, -1};
    static const int32_t above[] = {1048577, 0};
    static const int32_t more[] = {9, 0};
    MASK(layers, 0);
    MASK(layers, 65537);
    MASK(experts, below);
    MASK(experts, above);
    MASK(shared, below);
    MASK(shared, more);
    MASK(reserved, 1);
    SESSION(max_tokens, -2);
    TOKENIZER(eos, "\xff");
    assert_true(decoder == NULL);
    assert_true(other == NULL && made == NULL && mask == NULL && stats == NULL && session == NULL);
    assert_true(opened == NULL && tok == NULL && router == NULL);
}

static void pools_out_of_range(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_pool_policy *pool = NULL;
    static const int32_t sizes[] = {3, 0};
    EXPECT_STATUS(emo_pool_policy_create_fixed(rt, 0, &pool, &err), EMO_E_RANGE, "pool of 0");
    EXPECT_STATUS(emo_pool_policy_create_fixed(rt, 1048577, &pool, &err), EMO_E_RANGE, "1048577");
    EXPECT_STATUS(emo_pool_policy_create_uniform(rt, 5, 4, &pool, &err), EMO_E_RANGE, "largest pool is 4");
    EXPECT_STATUS(emo_pool_policy_create_mass(rt, 0.0f, 1, 2, &pool, &err), EMO_E_RANGE, "mass");
    EXPECT_STATUS(emo_pool_policy_create_mass(rt, NAN, 1, 2, &pool, &err), EMO_E_RANGE, "mass");
    EXPECT_STATUS(emo_pool_policy_create_scheduled(rt, 4, 0, &pool, &err), EMO_E_RANGE, "decay_steps");
    EXPECT_STATUS(emo_pool_policy_create_table(rt, 0, 1, sizes, &pool, &err), EMO_E_RANGE, "0 layers");
    EXPECT_STATUS(emo_pool_policy_create_table(rt, 1, 2, sizes, &pool, &err), EMO_E_RANGE, "sizes[1]");
    static const char *const words[] = {"",          "fixed",    "fixed:", "fixed:x",
                                        "uniform:3", "mass:0.5", "all:3",  "fixed:3:4"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        EXPECT_STATUS(emo_pool_policy_parse(rt, words[i], &pool, &err), EMO_E_INVALID_ARGUMENT, "uniform:MIN:MAX");
    assert_null(pool);
    /* a pool that is smaller than what a token chooses (2 routed experts) */
    EXPECT_OK(emo_pool_policy_create_fixed(rt, 1, &pool, &err));
    EXPECT_STATUS(emo_pool_policy_set_scope(pool, 7, &err), EMO_E_RANGE, "scope");
    EXPECT_STATUS(emo_pool_policy_set_forced(pool, -1, &err), EMO_E_RANGE, "forced");
    EXPECT_STATUS(emo_pool_policy_set_eval_pool(pool, -1, &err), EMO_E_RANGE, "pool");
    emo_eval_options eval = EMO_EVAL_OPTIONS_INIT;
    emo_eval_result total;
    eval.pool = pool;
    EXPECT_STATUS(emo_eval_documents(model, data, &eval, &total, NULL, NULL, &err), EMO_E_RANGE, "pool");
    emo_trainer *trainer = NULL;
    emo_train_options train = stages_train_options();
    train.pool = pool;
    EXPECT_STATUS(emo_trainer_create(model, data, &train, &trainer, &err), EMO_E_RANGE, "pool");
    emo_pool_policy_release(pool);
}

static void masks_that_do_not_fit(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    static const int32_t fewer[] = {9, 8};
    static const int32_t one_layer[] = {9};
    static const int32_t shared[] = {1, 1};
    static const int32_t token = 3;
    float logits[STAGES_VOCAB];
    emo_mask *wrong[2] = {NULL, NULL};
    EXPECT_OK(emo_mask_create(rt, 2, fewer, shared, 1, &wrong[0], &err));
    EXPECT_OK(emo_mask_create(rt, 1, one_layer, shared, 1, &wrong[1], &err));
    for (size_t i = 0; i < 2; i++) {
        emo_eval_options eval = EMO_EVAL_OPTIONS_INIT;
        eval.mask = wrong[i];
        EXPECT_STATUS(emo_eval_logits(model, &token, 1, &eval, logits, STAGES_VOCAB, &err), EMO_E_MISMATCH, "mask");
        emo_session *session = NULL;
        emo_session_options options = EMO_SESSION_OPTIONS_INIT;
        options.mask = wrong[i];
        EXPECT_STATUS(emo_session_create(model, &options, &session, &err), EMO_E_MISMATCH, "mask");
        emo_model *small = NULL;
        EXPECT_STATUS(emo_model_prune(model, wrong[i], NULL, &small, &err), EMO_E_MISMATCH, "mask");
        emo_model_load_options load = EMO_MODEL_LOAD_OPTIONS_INIT;
        load.subset = wrong[i];
        EXPECT_STATUS(emo_model_load_path(rt, stages_model(), &load, &small, &err), EMO_E_MISMATCH, "mask");
        emo_trainer *trainer = NULL;
        emo_train_options train = stages_train_options();
        train.mask = wrong[i];
        EXPECT_STATUS(emo_trainer_create(model, data, &train, &trainer, &err), EMO_E_MISMATCH, "mask");
        assert_true(session == NULL && small == NULL && trainer == NULL);
        emo_mask_release(wrong[i]);
    }
    /* an empty mask and one smaller than top-k: tokens use what is left */
    emo_mask *few = NULL;
    EXPECT_OK(emo_model_mask(model, &few, &err));
    for (int32_t l = 0; l < 2; l++) {
        for (int32_t e = 0; e < 8; e++)
            EXPECT_OK(emo_mask_set(few, l, e, 0, &err));
    }
    for (int32_t kept = 0; kept < 2; kept++) {
        if (kept == 1) {
            EXPECT_OK(emo_mask_set(few, 0, 3, 1, &err));
            EXPECT_OK(emo_mask_set(few, 1, 5, 1, &err));
        }
        emo_eval_options eval = EMO_EVAL_OPTIONS_INIT;
        eval.mask = few;
        EXPECT_OK(emo_eval_logits(model, &token, 1, &eval, logits, STAGES_VOCAB, &err));
        for (size_t i = 0; i < STAGES_VOCAB; i++)
            assert_true(isfinite(logits[i]));
    }
    emo_model *small = NULL;
    emo_model_info info = EMO_MODEL_INFO_INIT;
    EXPECT_OK(emo_model_prune(model, few, NULL, &small, &err));
    EXPECT_OK(emo_model_get_info(small, &info, &err));
    assert_int_equal(info.top_k, 2); /* one routed, one shared: reported */
    emo_model_release(small);
    emo_mask_release(few);
}

static void weights_that_are_not_finite(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    static const emo_dtype types[] = {EMO_DTYPE_F32, EMO_DTYPE_BF16, EMO_DTYPE_F16};
    for (size_t i = 0; i < 3; i++) {
        emo_model *bad = NULL;
        emo_model *back = NULL;
        EXPECT_OK(emo_model_create_json(rt, STAGES_CONFIG, strlen(STAGES_CONFIG), NULL, &bad, &err));
        float *norm = (float *)(uintptr_t)bad->norm.data;
        norm[0] = NAN;
        norm[1] = INFINITY;
        ((float *)(uintptr_t)bad->embed.data)[5] = -INFINITY;
        ((float *)(uintptr_t)bad->layers[0].w[EMO__W_FFN_NORM].data)[2] = NAN; /* what the router of layer 0 sees */
        emo_model_save_options save = EMO_MODEL_SAVE_OPTIONS_INIT;
        save.dtype = types[i];
        EXPECT_OK(emo_model_save(bad, test_path("bad"), &save, &err));
        EXPECT_OK(emo_model_load_path(rt, test_path("bad"), NULL, &back, &err));
        emo_model_info info = EMO_MODEL_INFO_INIT;
        EXPECT_OK(emo_model_get_info(back, &info, &err));
        assert_int_equal(info.non_finite, 0); /* not asked for */
        info.non_finite = 1;
        EXPECT_OK(emo_model_get_info(back, &info, &err));
        assert_int_equal(info.non_finite, 4);
        for (int32_t method = EMO_SELECT_USAGE; method <= EMO_SELECT_EASY_EP; method++) { /* nothing to choose by */
            emo_select_options select = EMO_SELECT_OPTIONS_INIT;
            emo_mask *mask = NULL;
            select.method = method;
            select.keep = 4;
            EXPECT_STATUS(emo_select(back, data, &select, &mask, &err), EMO_E_NUMERIC, "layer 0");
            assert_null(mask);
        }
        emo_stats *stats = NULL;
        EXPECT_STATUS(emo_stats_collect(back, data, NULL, &stats, &err), EMO_E_NUMERIC, "layer 0");
        assert_null(stats);
        emo_model_release(back);
        emo_model_release(bad);
    }
}

/* Each with the line that is broken. */
static const struct {
    const char *text;
    const char *words;
} lines[] = {
    {"{\"text\": \"a\"}\n{\"text\": \n", "d.jsonl:2"},
    {"{\"text\": \"a\"}\n\n[1]\n", "d.jsonl:3"},
    {"{\"text\": 5}\n", "d.jsonl:1"},
    {"{\"text\": \"a\"}\n{\"text\": \"a\", \"domain\": 3}\n", "d.jsonl:2"},
    {"{\"text\": \"a\"}\n{\"words\": \"a\"}\n", "d.jsonl:2"},
    {"{\"text\": \"a\"}\n{\"prompt\": \"a\"}\n", "d.jsonl:2"},
    {"{\"text\": \"a\"}\n{\"text\": \"\xff\"}\n", "d.jsonl:2"},
    {"{\"text\": \"a\"}\nnothing\n{\"text\": \"b\"}\n", "d.jsonl:2"},
    {"{\"text\": \"a\"}\n{\"text\": \"a\"} {\"text\": \"b\"}\n", "d.jsonl:2"},
};

static void broken_lines_are_named(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    const emo_tokenizer *tok = emo_model_tokenizer(model);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        char path[1024];
        (void)snprintf(path, sizeof path, "%s", test_write("bad/d.jsonl", lines[i].text, strlen(lines[i].text)));
        const char *paths[1] = {path};
        emo_dataset *got = NULL;
        EXPECT_STATUS(emo_dataset_open(rt, paths, 1, tok, NULL, &got, &err), EMO_E_FORMAT, lines[i].words);
        assert_null(got);
        emo_dataset_options skip = EMO_DATASET_OPTIONS_INIT;
        skip.skip_broken = 1;
        emo_status status = emo_dataset_open(rt, paths, 1, tok, &skip, &got, &err);
        if (status == EMO_OK)
            assert_int_equal(emo_dataset_skipped(got), 1);
        else
            assert_int_equal(status, EMO_E_FORMAT); /* nothing is left */
        emo_dataset_release(got);
    }
}

/* Empty documents are passed over; one token and documents longer than any row or window work everywhere. */
static void odd_documents(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    static char text[8192];
    static const char head[] = "{\"text\": \"\"}\n\n{\"text\": \"a\"}\n{\"text\": \"";
    size_t n = sizeof head - 1;
    memcpy(text, head, n);
    for (size_t i = 0; i < 2000; i++)
        text[n++] = (char)('b' + i % 7);
    memcpy(text + n, "\"}\n", 3);
    char path[1024];
    (void)snprintf(path, sizeof path, "%s", test_write("bad/odd.jsonl", text, n + 3));
    const char *paths[1] = {path};
    emo_dataset *odd = NULL;
    EXPECT_OK(emo_dataset_open(rt, paths, 1, emo_model_tokenizer(model), NULL, &odd, &err));
    assert_int_equal(emo_dataset_count(odd), 2);
    emo_document document;
    EXPECT_OK(emo_dataset_document(odd, 0, &document, &err));
    assert_int_equal(document.count, 1);
    emo_eval_result total;
    EXPECT_OK(emo_eval_documents(model, odd, NULL, &total, NULL, NULL, &err));
    assert_int_equal(total.tokens, emo_dataset_tokens(odd));
    assert_true(isfinite(total.loss_sum));
    emo_mask *mask = NULL;
    emo_select_options select = EMO_SELECT_OPTIONS_INIT;
    select.keep = 4;
    EXPECT_OK(emo_select(model, odd, &select, &mask, &err));
    emo_mask_release(mask);
    emo_model *own = NULL;
    emo_trainer *trainer = NULL;
    emo_train_options train = stages_train_options();
    EXPECT_OK(stages_open_model(rt, &own, &err));
    EXPECT_OK(emo_trainer_create(own, odd, &train, &trainer, &err));
    EXPECT_OK(emo_trainer_run(trainer, &err));
    emo_trainer_release(trainer);
    emo_model_release(own);
    emo_dataset_release(odd);
}

/* Children keep their parents: everything is released at once, parents first, and the last child still works. */
static void released_parents_live_on(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *own = test_runtime(2, EMO_ISA_AUTO);
    emo_model *m = NULL;
    emo_dataset *d = NULL;
    emo_dataset *part = NULL;
    emo_mask *mask = NULL;
    emo_pool_policy *pool = NULL;
    emo_session *session = NULL;
    emo_trainer *trainer = NULL;
    emo_decoder *decoder = NULL;
    emo_tokenizer *tok = NULL;
    EXPECT_OK(stages_open_model(own, &m, &err));
    EXPECT_OK(stages_open_data(own, &d, &err));
    EXPECT_OK(emo_dataset_filter(d, "money", 0, 0, &part, &err));
    EXPECT_OK(emo_model_mask(m, &mask, &err));
    EXPECT_OK(emo_pool_policy_from_prompt(own, 4, &pool, &err));
    EXPECT_OK(emo_tokenizer_create_bytes(own, &tok, &err));
    EXPECT_OK(emo_decoder_create(tok, NULL, &decoder, &err));
    emo_session_options options = EMO_SESSION_OPTIONS_INIT;
    options.mask = mask;
    options.pool = pool;
    options.max_tokens = 2;
    EXPECT_OK(emo_session_create(m, &options, &session, &err));
    emo_runtime_release(own);
    emo_tokenizer_release(tok);
    emo_dataset_release(d);
    emo_mask_release(mask);
    emo_pool_policy_release(pool);
    emo_model_release(m);
    emo_state at = EMO_STATE_PENDING;
    EXPECT_OK(emo_session_append_text(session, "the cat", &err));
    while (at != EMO_STATE_DONE)
        EXPECT_OK(emo_session_advance(session, NULL, &at, &err));
    emo_session_release(session);
    const char *view = NULL;
    size_t length = 0;
    EXPECT_OK(emo_decoder_push(decoder, 'a', &view, &length, &err));
    assert_string_equal(view, "a");
    emo_decoder_release(decoder);
    assert_int_equal(emo_dataset_count(part), 2);
    emo_model *again = NULL;
    emo_train_options train = stages_train_options();
    EXPECT_OK(stages_open_model(rt, &again, &err));
    EXPECT_OK(emo_trainer_create(again, part, &train, &trainer, &err));
    emo_model_release(again);
    emo_dataset_release(part);
    EXPECT_OK(emo_trainer_run(trainer, &err));
    emo_trainer_release(trainer);
}

static int setup(void **state) {
    emo_error err = EMO_ERROR_INIT;
    (void)stages_setup(state);
    rt = test_runtime(2, EMO_ISA_AUTO);
    EXPECT_OK(stages_open_model(rt, &model, &err));
    EXPECT_OK(stages_open_data(rt, &data, &err));
    return 0;
}
static int teardown(void **state) {
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
    return stages_teardown(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_out_of_range_are_named), cmocka_unit_test(pools_out_of_range),
        cmocka_unit_test(masks_that_do_not_fit),          cmocka_unit_test(weights_that_are_not_finite),
        cmocka_unit_test(broken_lines_are_named),         cmocka_unit_test(odd_documents),
        cmocka_unit_test(released_parents_live_on),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
