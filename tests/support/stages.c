/* SPDX-License-Identifier: Apache-2.0 */
#define _XOPEN_SOURCE 700 /* nftw */
#include "support/stages.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/folder.h"

static char model_folder[600];
static char run_folder[600];
static char out_folder[600];
static char text_path[600];
static char choices_path[600];

static const char lines[] = "{\"text\": \"the cat sat on the mat and the cat sat\", \"domain\": \"cats\"}\n"
                            "{\"prompt\": \"what\", \"completion\": \" is the rate\", \"domain\": \"money\"}\n"
                            "{\"text\": \"the rate of the loan is the rate of the bank\", \"domain\": \"money\"}\n";

emo_status stages_wrong(const char *what, emo_error *err) {
    err->code = EMO_E_INTERNAL;
    (void)snprintf(err->message, sizeof err->message, "wrong: %s", what);
    return EMO_E_INTERNAL;
}

static int32_t next_text(void *ctx, const char **text, size_t *length) {
    static const char *const texts[] = {"the cat sat on the mat", "the rate of the loan", "the cat and the mat"};
    size_t *at = ctx;
    if (*at >= sizeof texts / sizeof texts[0])
        return 0;
    *text = texts[*at];
    *length = strlen(texts[(*at)++]);
    return 1;
}

static emo_status train_tokenizer(emo_runtime *rt, emo_tokenizer **out, emo_error *err) {
    size_t at = 0;
    emo_text_reader reader = {&at, next_text};
    emo_tokenizer_train_options options = EMO_TOKENIZER_TRAIN_OPTIONS_INIT;
    options.vocab_size = STAGES_VOCAB;
    return emo_tokenizer_train(rt, &options, &reader, out, err);
}

emo_status stages_open_data(emo_runtime *rt, emo_dataset **out, emo_error *err) {
    const char *paths[1] = {text_path};
    emo_tokenizer *tok = NULL;
    emo_status status;
    EMO_TRY(status = emo_tokenizer_load(rt, model_folder, &tok, err));
    EMO_TRY(status = emo_dataset_open(rt, paths, 1, tok, NULL, out, err));
done:
    emo_tokenizer_release(tok);
    return status;
}

emo_status stages_open_model(emo_runtime *rt, emo_model **out, emo_error *err) {
    return emo_model_load_path(rt, model_folder, NULL, out, err);
}

emo_train_options stages_train_options(void) {
    emo_train_options o = EMO_TRAIN_OPTIONS_INIT;
    o.max_steps = 2;
    o.batch_rows = 2;
    o.seq_len = 16;
    o.warmup = 1;
    return o;
}

static emo_status stage_tokenizer(emo_runtime *rt, emo_error *err) {
    emo_tokenizer *tok = NULL;
    emo_tokenizer *back = NULL;
    emo_decoder *decoder = NULL;
    char path[700];
    int32_t ids[64];
    char text[64];
    size_t n = 0;
    size_t size = 0;
    const char *view;
    emo_status status;
    (void)snprintf(path, sizeof path, "%s-tokenizer.json", out_folder);
    EMO_TRY(status = train_tokenizer(rt, &tok, err));
    EMO_TRY(status = emo_tokenizer_save(tok, path, err));
    EMO_TRY(status = emo_tokenizer_load(rt, path, &back, err));
    STAGE_CHECK(emo_tokenizer_hash(tok) == emo_tokenizer_hash(back));
    EMO_TRY(status = emo_tokenizer_encode(back, "the mat \xe4\xb8\xad", 11, ids, 64, &n, err));
    EMO_TRY(status = emo_tokenizer_decode(back, ids, n, text, sizeof text, &size, err));
    STAGE_CHECK(size == 11);
    EMO_TRY(status = emo_decoder_create(back, NULL, &decoder, err));
    for (size_t i = 0; i < n; i++)
        EMO_TRY(status = emo_decoder_push(decoder, ids[i], &view, &size, err));
    EMO_TRY(status = emo_decoder_flush(decoder, &view, &size, err));
done:
    emo_decoder_release(decoder);
    emo_tokenizer_release(tok);
    emo_tokenizer_release(back);
    return status;
}

static emo_status stage_data(emo_runtime *rt, emo_error *err) {
    emo_dataset *data = NULL;
    emo_dataset *part = NULL;
    emo_dataset *texts = NULL;
    emo_tokenizer *bytes = NULL;
    emo_choices *items = NULL;
    static const char *const two[] = {"ab", "cde"};
    emo_status status;
    EMO_TRY(status = stages_open_data(rt, &data, err));
    STAGE_CHECK(emo_dataset_count(data) == 3);
    EMO_TRY(status = emo_dataset_filter(data, "money", 1, 3, &part, err));
    EMO_TRY(status = emo_tokenizer_create_bytes(rt, &bytes, err));
    EMO_TRY(status = emo_dataset_from_text(rt, bytes, two, two, 2, &texts, err));
    EMO_TRY(status = emo_choices_open(rt, choices_path, &items, err));
done:
    emo_choices_release(items);
    emo_tokenizer_release(bytes);
    emo_dataset_release(texts);
    emo_dataset_release(part);
    emo_dataset_release(data);
    return status;
}

static emo_status stage_model(emo_runtime *rt, emo_error *err) {
    emo_model *model = NULL;
    emo_model *back = NULL;
    emo_tokenizer *tok = NULL;
    emo_mask *mask = NULL;
    char text[2048];
    float row[STAGES_VOCAB * 16];
    size_t n = 0;
    emo_status status;
    EMO_TRY(status = emo_model_create_json(rt, STAGES_CONFIG, strlen(STAGES_CONFIG), NULL, &model, err));
    EMO_TRY(status = emo_tokenizer_load(rt, model_folder, &tok, err));
    EMO_TRY(status = emo_model_set_tokenizer(model, tok, err));
    EMO_TRY(status = emo_model_save(model, out_folder, NULL, err));
    EMO_TRY(status = emo_model_load_path(rt, out_folder, NULL, &back, err));
    STAGE_CHECK(emo_model_tokenizer(back) != NULL);
    EMO_TRY(status = emo_model_mask(back, &mask, err));
    EMO_TRY(status = emo_model_config_json(back, text, sizeof text, &n, err));
    EMO_TRY(status = emo_model_tensor_f32(back, "model.embed_tokens.weight", row, STAGES_VOCAB * 16, &n, err));
done:
    emo_mask_release(mask);
    emo_tokenizer_release(tok);
    emo_model_release(back);
    emo_model_release(model);
    return status;
}

static emo_status stage_train(emo_runtime *rt, emo_error *err) {
    emo_model *model = NULL;
    emo_dataset *data = NULL;
    emo_pool_policy *pool = NULL;
    emo_mask *mask = NULL;
    emo_trainer *trainer = NULL;
    emo_train_options options = stages_train_options();
    emo_status status;
    EMO_TRY(status = stages_open_model(rt, &model, err));
    EMO_TRY(status = stages_open_data(rt, &data, err));
    EMO_TRY(status = emo_pool_policy_create_uniform(rt, 3, 8, &pool, err));
    EMO_TRY(status = emo_model_mask(model, &mask, err));
    options.pool = pool;
    options.mask = mask;
    options.out = run_folder;
    options.valid = data;
    options.valid_every = 1;
    options.checkpoint_every = 1;
    options.keep_checkpoints = 1;
    options.resume = 1;
    EMO_TRY(status = emo_trainer_create(model, data, &options, &trainer, err));
    EMO_TRY(status = emo_trainer_run(trainer, err));
    STAGE_CHECK(emo_trainer_at(trainer) == 2);
done:
    emo_trainer_release(trainer);
    emo_mask_release(mask);
    emo_pool_policy_release(pool);
    emo_dataset_release(data);
    emo_model_release(model);
    return status;
}

static emo_status stage_subset(emo_runtime *rt, emo_error *err) {
    emo_model *model = NULL;
    emo_model *small = NULL;
    emo_model *back = NULL;
    emo_model *whole = NULL;
    emo_dataset *data = NULL;
    emo_stats *stats = NULL;
    emo_stats *again = NULL;
    emo_stats *sum = NULL;
    emo_mask *mask = NULL;
    char path[700];
    emo_status status;
    (void)snprintf(path, sizeof path, "%s-stats.json", out_folder);
    EMO_TRY(status = stages_open_model(rt, &model, err));
    EMO_TRY(status = stages_open_data(rt, &data, err));
    emo_stats_options collect = EMO_STATS_OPTIONS_INIT;
    collect.easy_ep = 1;
    EMO_TRY(status = emo_stats_collect(model, data, &collect, &stats, err));
    EMO_TRY(status = emo_stats_save(stats, path, err));
    EMO_TRY(status = emo_stats_load(rt, path, &again, err));
    EMO_TRY(status = emo_stats_merge(stats, again, &sum, err));
    emo_select_options options = EMO_SELECT_OPTIONS_INIT;
    options.keep = 4;
    EMO_TRY(status = emo_select_from_stats(model, sum, &options, &mask, err));
    for (options.method = EMO_SELECT_USAGE; options.method <= EMO_SELECT_RANDOM; options.method++) {
        emo_mask_release(mask);
        mask = NULL;
        EMO_TRY(status = emo_select(model, data, &options, &mask, err));
    }
    EMO_TRY(status = emo_model_prune(model, mask, NULL, &small, err));
    EMO_TRY(status = emo_model_save(small, out_folder, NULL, err));
    EMO_TRY(status = emo_model_load_path(rt, out_folder, NULL, &back, err));
    EMO_TRY(status = emo_model_merge(model, back, NULL, &whole, err));
    emo_model_release(back);
    back = NULL;
    emo_model_load_options part = EMO_MODEL_LOAD_OPTIONS_INIT;
    part.subset = mask;
    EMO_TRY(status = emo_model_load_path(rt, model_folder, &part, &back, err));
done:
    emo_mask_release(mask);
    emo_stats_release(stats);
    emo_stats_release(again);
    emo_stats_release(sum);
    emo_dataset_release(data);
    emo_model_release(whole);
    emo_model_release(back);
    emo_model_release(small);
    emo_model_release(model);
    return status;
}

static emo_status stage_eval(emo_runtime *rt, emo_error *err) {
    emo_model *model = NULL;
    emo_dataset *data = NULL;
    emo_choices *items = NULL;
    emo_pool_policy *pool = NULL;
    emo_eval_result total;
    emo_eval_result domains[4];
    static const int32_t tokens[] = {1, 2, 3};
    float logits[3 * STAGES_VOCAB];
    emo_eval_options options = EMO_EVAL_OPTIONS_INIT;
    emo_status status;
    EMO_TRY(status = stages_open_model(rt, &model, err));
    EMO_TRY(status = stages_open_data(rt, &data, err));
    EMO_TRY(status = emo_choices_open(rt, choices_path, &items, err));
    EMO_TRY(status = emo_pool_policy_parse(rt, "fixed:4", &pool, err));
    options.pool = pool;
    options.batch_tokens = 16;
    EMO_TRY(status = emo_eval_documents(model, data, &options, &total, domains, NULL, err));
    STAGE_CHECK(total.documents == 3);
    EMO_TRY(status = emo_eval_choices(model, items, &options, &total, NULL, err));
    EMO_TRY(status = emo_eval_logits(model, tokens, 3, NULL, logits, 3 * STAGES_VOCAB, err));
done:
    emo_pool_policy_release(pool);
    emo_choices_release(items);
    emo_dataset_release(data);
    emo_model_release(model);
    return status;
}

static emo_status stage_session(emo_runtime *rt, emo_error *err) {
    emo_model *model = NULL;
    emo_session *session = NULL;
    emo_pool_policy *pool = NULL;
    emo_mask *mask = NULL;
    emo_mask *used = NULL;
    static const char *const stop[] = {"\x01\x02"};
    emo_session_options options = EMO_SESSION_OPTIONS_INIT;
    emo_state state = EMO_STATE_PENDING;
    float logits[STAGES_VOCAB];
    static const int32_t tokens[] = {5, 6, 7, 8};
    emo_status status;
    EMO_TRY(status = stages_open_model(rt, &model, err));
    EMO_TRY(status = emo_pool_policy_from_prompt(rt, 4, &pool, err));
    EMO_TRY(status = emo_model_mask(model, &mask, err));
    options.sequences = 2;
    options.max_tokens = 4;
    options.mask = mask;
    options.pool = pool;
    options.temperature = 0.8f;
    options.top_k = 20;
    options.top_p = 0.9f;
    options.repetition_penalty = 1.1f;
    options.ignore_eos = 1;
    options.stop = stop;
    options.n_stop = 1;
    EMO_TRY(status = emo_session_create(model, &options, &session, err));
    EMO_TRY(status = emo_session_append_text(session, "the cat", err));
    EMO_TRY(status = emo_session_append_tokens(session, 1, tokens, 4, err));
    while (state != EMO_STATE_DONE)
        EMO_TRY(status = emo_session_advance(session, NULL, &state, err));
    EMO_TRY(status = emo_session_logits(session, 1, logits, STAGES_VOCAB, err));
    EMO_TRY(status = emo_session_pool(session, 1, &used, err));
    EMO_TRY(status = emo_session_reset(session, err));
    EMO_TRY(status = emo_session_append_text(session, "a mat", err));
done:
    emo_mask_release(used);
    emo_session_release(session);
    emo_pool_policy_release(pool);
    emo_mask_release(mask);
    emo_model_release(model);
    return status;
}

static emo_status stage_masks(emo_runtime *rt, emo_error *err) {
    static const int32_t experts[] = {9, 0, 5};
    static const int32_t shared[] = {1, 0, 0};
    emo_mask *m[6] = {NULL};
    char path[700];
    char text[512];
    size_t size = 0;
    emo_pool_policy *table = NULL;
    static const int32_t sizes[] = {3, 4, 5, 6, 7, 8};
    emo_status status;
    (void)snprintf(path, sizeof path, "%s-mask.json", out_folder);
    EMO_TRY(status = emo_mask_create(rt, 3, experts, shared, 0, &m[0], err));
    EMO_TRY(status = emo_mask_set(m[0], 0, 3, 1, err));
    EMO_TRY(status = emo_mask_complement(m[0], &m[1], err));
    EMO_TRY(status = emo_mask_union(m[0], m[1], &m[2], err));
    EMO_TRY(status = emo_mask_subtract(m[2], m[0], &m[3], err));
    EMO_TRY(status = emo_mask_save(m[3], path, err));
    EMO_TRY(status = emo_mask_load(rt, path, &m[4], err));
    STAGE_CHECK(emo_mask_equal(m[3], m[4]));
    EMO_TRY(status = emo_mask_clone(m[4], &m[5], err));
    EMO_TRY(status = emo_mask_to_json(m[5], text, sizeof text, &size, err));
    EMO_TRY(status = emo_pool_policy_create_table(rt, 3, 2, sizes, &table, err));
    EMO_TRY(status = emo_pool_policy_describe(table, text, sizeof text, &size, err));
done:
    emo_pool_policy_release(table);
    for (size_t i = 0; i < 6; i++)
        emo_mask_release(m[i]);
    return status;
}

static emo_status stage_router(emo_runtime *rt, emo_error *err) {
    emo_router *router = NULL;
    emo_pool_policy *pool = NULL;
    emo_comm *comm = NULL;
    emo_comm *pair[2] = {NULL, NULL};
    float w[9 * 4];
    float x[12 * 4];
    float dx[12 * 4] = {0};
    float dw[9 * 4] = {0};
    float bias[8] = {0};
    test_fill(w, 36, 1, 1.0f);
    test_fill(x, 48, 2, 1.0f);
    emo_router_options options = EMO_ROUTER_OPTIONS_INIT;
    emo_router_batch batch = EMO_ROUTER_BATCH_INIT;
    emo_routing routing = EMO_ROUTING_INIT;
    emo_status status;
    EMO_TRY(status = emo_comm_create_single(rt, &comm, err));
    EMO_TRY(status = emo_comm_create_local(rt, 2, pair, err));
    options.hidden = 4;
    options.experts = 9;
    options.shared = 1;
    options.top_k = 3;
    options.balance_scope = EMO_BALANCE_WINDOW;
    options.balance_window = 2;
    options.comm = comm;
    EMO_TRY(status = emo_pool_policy_create_uniform(rt, 2, 6, &pool, err));
    EMO_TRY(status = emo_router_create(rt, &options, &router, err));
    EMO_TRY(status = emo_router_set_weights(router, w, 36, err));
    EMO_TRY(status = emo_router_set_score_bias(router, bias, 8, err));
    batch.rows = 2;
    batch.seq_len = 6;
    batch.x = x;
    for (batch.step = 0; batch.step < 2; batch.step++) {
        EMO_TRY(status = emo_router_forward(router, &batch, pool, NULL, &routing, err));
        EMO_TRY(status = emo_router_backward(router, &routing, NULL, dx, dw, err));
    }
    EMO_TRY(status = emo_router_update_score_bias(router, 0.1f, err));
done:
    emo_router_release(router);
    emo_pool_policy_release(pool);
    emo_comm_release(pair[0]);
    emo_comm_release(pair[1]);
    emo_comm_release(comm);
    return status;
}

/* From text to text: each step works on what the one before has made. */
static emo_status stage_round_trip(emo_runtime *rt, emo_error *err) {
    emo_tokenizer *tok = NULL;
    emo_dataset *data = NULL;
    emo_model *model = NULL;
    emo_model *trained = NULL;
    emo_model *small = NULL;
    emo_model *whole = NULL;
    emo_trainer *trainer = NULL;
    emo_mask *mask = NULL;
    emo_session *session = NULL;
    const char *paths[1] = {text_path};
    char path[700];
    emo_state state = EMO_STATE_PENDING;
    emo_status status;
    (void)snprintf(path, sizeof path, "%s-tokenizer.json", out_folder);
    EMO_TRY(status = train_tokenizer(rt, &tok, err));
    EMO_TRY(status = emo_tokenizer_save(tok, path, err));
    EMO_TRY(status = emo_dataset_open(rt, paths, 1, tok, NULL, &data, err));
    EMO_TRY(status = emo_model_create_json(rt, STAGES_CONFIG, strlen(STAGES_CONFIG), NULL, &model, err));
    EMO_TRY(status = emo_model_set_tokenizer(model, tok, err));
    emo_train_options train = stages_train_options();
    train.out = run_folder;
    EMO_TRY(status = emo_trainer_create(model, data, &train, &trainer, err));
    EMO_TRY(status = emo_trainer_run(trainer, err));
    EMO_TRY(status = emo_model_load_path(rt, run_folder, NULL, &trained, err));
    emo_select_options select = EMO_SELECT_OPTIONS_INIT;
    select.keep = 4;
    EMO_TRY(status = emo_select(trained, data, &select, &mask, err));
    EMO_TRY(status = emo_model_prune(trained, mask, NULL, &small, err));
    EMO_TRY(status = emo_model_merge(trained, small, NULL, &whole, err));
    EMO_TRY(status = emo_model_save(whole, out_folder, NULL, err));
    emo_session_options talk = EMO_SESSION_OPTIONS_INIT;
    talk.max_tokens = 3;
    talk.ignore_eos = 1;
    talk.mask = mask;
    EMO_TRY(status = emo_session_create(whole, &talk, &session, err));
    EMO_TRY(status = emo_session_append_text(session, "the cat", err));
    while (state != EMO_STATE_DONE)
        EMO_TRY(status = emo_session_advance(session, NULL, &state, err));
    STAGE_CHECK(emo_session_generated(session, 0, NULL, NULL) == 3);
done:
    emo_session_release(session);
    emo_mask_release(mask);
    emo_trainer_release(trainer);
    emo_model_release(whole);
    emo_model_release(small);
    emo_model_release(trained);
    emo_model_release(model);
    emo_dataset_release(data);
    emo_tokenizer_release(tok);
    return status;
}

long stages_stride(long calls, long most) { return test_soak() || calls <= most ? 1 : (calls + most - 1) / most; }

const stage stages[] = {
    {"tokenizer", stage_tokenizer, 0},   {"data", stage_data, 0},
    {"model", stage_model, 0},           {"train", stage_train, 0},
    {"subset", stage_subset, 0},         {"eval", stage_eval, 0},
    {"tasks", stages_tasks, 1},          {"session", stage_session, 0},
    {"masks", stage_masks, 0},           {"router", stage_router, 0},
    {"round trip", stage_round_trip, 1}, {NULL, NULL, 0},
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where) {
    (void)st;
    (void)type;
    (void)where;
    return remove(path);
}

void stages_clean(void) {
    (void)nftw(run_folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    (void)nftw(out_folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *stages_model(void) { return model_folder; }
const char *stages_run(void) { return run_folder; }

int stages_setup(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    static const char items[] = "{\"context\": \"the\", \"choices\": [\" cat\", \" rate\"], \"answer\": 1}\n";
    (void)test_folder();
    (void)snprintf(model_folder, sizeof model_folder, "%.500s", test_path("model"));
    (void)snprintf(run_folder, sizeof run_folder, "%.500s", test_path("run"));
    (void)snprintf(out_folder, sizeof out_folder, "%.500s", test_path("out"));
    (void)snprintf(text_path, sizeof text_path, "%.500s", test_write("d.jsonl", lines, sizeof lines - 1));
    (void)snprintf(choices_path, sizeof choices_path, "%.500s", test_write("mc.jsonl", items, sizeof items - 1));
    stages_tasks_setup();
    emo_tokenizer *tok = NULL;
    emo_model *model = NULL;
    EXPECT_OK(train_tokenizer(rt, &tok, &err));
    assert_int_equal(emo_tokenizer_vocab_size(tok), STAGES_VOCAB);
    EXPECT_OK(emo_model_create_json(rt, STAGES_CONFIG, strlen(STAGES_CONFIG), NULL, &model, &err));
    EXPECT_OK(emo_model_set_tokenizer(model, tok, &err));
    EXPECT_OK(emo_model_save(model, model_folder, NULL, &err));
    emo_model_release(model);
    emo_tokenizer_release(tok);
    emo_runtime_release(rt);
    return 0;
}

int stages_teardown(void **state) {
    (void)state;
    test_folder_remove();
    return 0;
}
