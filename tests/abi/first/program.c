/* SPDX-License-Identifier: Apache-2.0 */
/* A program of the first release: every options struct and every struct that the library fills in, with bytes behind
 * each of the latter that must stay as they are. It never changes; see README.md. */
#include <emo/emo.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "program.c:%d: %s (%s)\n", __LINE__, #condition, err.message);                             \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)
#define OK(call) CHECK((call) == EMO_OK)

/* A struct of the library's to fill in, and what must survive behind it. */
#define GUARDED(type)                                                                                                  \
    struct {                                                                                                           \
        type it;                                                                                                       \
        unsigned char behind[64];                                                                                      \
    }
#define GUARD(g) memset((g).behind, 0x5a, sizeof(g).behind)
static int intact(const unsigned char *behind) {
    for (int i = 0; i < 64; i++) {
        if (behind[i] != 0x5a)
            return 0;
    }
    return 1;
}

static const char config[] = "{\"model_type\":\"emo\",\"vocab_size\":257,\"hidden_size\":16,\"intermediate_size\":8,"
                             "\"num_hidden_layers\":2,\"num_attention_heads\":2,\"max_position_embeddings\":64,"
                             "\"num_experts\":9,\"num_shared_experts\":1,\"num_experts_per_tok\":3,"
                             "\"eos_token_id\":256,\"pad_token_id\":256}";
static emo_error err = EMO_ERROR_INIT;

static int32_t count(void *ctx, const emo_progress_info *info) {
    CHECK(info->phase != NULL);
    *(int *)ctx += 1;
    return 0;
}
static int32_t on_step(void *ctx, const emo_step_metrics *m) {
    CHECK(m->step >= 1 && isfinite(m->loss));
    *(int *)ctx += 1;
    return 0;
}
static void on_log(void *ctx, emo_log_level level, const char *message) {
    (void)ctx;
    (void)message;
    CHECK(level >= EMO_LOG_ERROR && level <= EMO_LOG_DEBUG);
}

static void train(emo_runtime *rt, emo_model *model, const emo_dataset *data) {
    emo_pool_policy *pool = NULL;
    emo_trainer *trainer = NULL;
    int steps = 0;
    OK(emo_pool_policy_create_uniform(rt, 3, 8, &pool, &err));
    emo_train_options o = EMO_TRAIN_OPTIONS_INIT;
    o.pool = pool;
    o.max_steps = 3;
    o.batch_rows = 2;
    o.seq_len = 16;
    o.on_step = on_step;
    o.on_step_ctx = &steps;
    o.profile = 1;
    OK(emo_trainer_create(model, data, &o, &trainer, &err));
    GUARDED(emo_step_metrics) m;
    memset(&m.it, 0, sizeof m.it);
    GUARD(m);
    m.it.struct_size = sizeof m.it;
    OK(emo_trainer_step(trainer, &m.it, &err));
    CHECK(intact(m.behind) && m.it.struct_size == sizeof m.it && m.it.step == 1);
    OK(emo_trainer_run(trainer, &err));
    CHECK(steps == 3 && emo_trainer_at(trainer) == 3);
    GUARDED(emo_train_profile_entry) p = {EMO_TRAIN_PROFILE_ENTRY_INIT, {0}};
    GUARD(p);
    OK(emo_trainer_profile(trainer, 0, &p.it, &err));
    CHECK(intact(p.behind) && p.it.struct_size == sizeof p.it);
    emo_trainer_release(trainer);
    emo_pool_policy_release(pool);
}

static void subset(emo_model *model, const emo_dataset *data, const char *folder, emo_mask **mask) {
    char path[1024];
    int reports = 0;
    emo_select_options o = EMO_SELECT_OPTIONS_INIT;
    o.keep = 4;
    o.method = EMO_SELECT_LAYERWISE;
    OK(emo_select(model, data, &o, mask, &err));
    CHECK(emo_mask_count(*mask, 0) == 4);

    emo_model *small = NULL;
    emo_model *merged = NULL;
    emo_prune_options prune = EMO_PRUNE_OPTIONS_INIT;
    emo_merge_options merge = EMO_MERGE_OPTIONS_INIT;
    emo_model_save_options save = EMO_MODEL_SAVE_OPTIONS_INIT;
    save.progress.ctx = &reports;
    save.progress.report = count;
    OK(emo_model_prune(model, *mask, &prune, &small, &err));
    OK(emo_model_merge(model, small, &merge, &merged, &err));
    OK(emo_model_save(model, folder, &save, &err));
    CHECK(reports > 0);
    snprintf(path, sizeof path, "%s/model.gguf", folder);
    GUARDED(emo_export_info) x = {EMO_EXPORT_INFO_INIT, {0}};
    emo_export_options export = EMO_EXPORT_OPTIONS_INIT;
    GUARD(x);
    OK(emo_model_export(merged, path, &export, &x.it, &err));
    CHECK(intact(x.behind) && x.it.tensors > 0 && x.it.struct_size == sizeof x.it);
    emo_model_release(merged);
    emo_model_release(small);

    GUARDED(emo_eval_result) e;
    emo_eval_options eval = EMO_EVAL_OPTIONS_INIT;
    GUARD(e);
    eval.mask = *mask;
    OK(emo_eval_documents(model, data, &eval, &e.it, NULL, NULL, &err));
    CHECK(intact(e.behind) && e.it.documents == 2);

    emo_stats *stats = NULL;
    emo_stats_options so = EMO_STATS_OPTIONS_INIT;
    OK(emo_stats_collect(model, data, &so, &stats, &err));
    CHECK(emo_stats_tokens(stats) > 10);
    emo_stats_release(stats);
}

static void talk(emo_runtime *rt, const char *folder, const emo_mask *mask) {
    emo_model *model = NULL;
    emo_session *session = NULL;
    emo_model_load_options load = EMO_MODEL_LOAD_OPTIONS_INIT;
    load.subset = mask;
    OK(emo_model_load_path(rt, folder, &load, &model, &err));
    GUARDED(emo_model_info) i = {EMO_MODEL_INFO_INIT, {0}};
    GUARD(i);
    OK(emo_model_get_info(model, &i.it, &err));
    CHECK(intact(i.behind) && i.it.struct_size == sizeof i.it && i.it.loaded < i.it.parameters);
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.max_tokens = 8;
    o.ignore_eos = 1;
    OK(emo_session_create(model, &o, &session, &err));
    OK(emo_session_append_text(session, "the fox", &err));
    const emo_budget budget = emo_budget_ms(50);
    emo_state state = EMO_STATE_PENDING;
    while (state != EMO_STATE_DONE)
        OK(emo_session_advance(session, &budget, &state, &err));
    CHECK(emo_session_generated(session, 0, NULL, NULL) == 8);
    emo_session_release(session);
    emo_model_release(model);
}

static void route(emo_runtime *rt) {
    float w[36], x[8] = {1.0f, -1.0f, 0.5f, 0.25f, -0.5f, 1.0f, 0.0f, 2.0f}, dx[8] = {0}, dw[36] = {0};
    emo_router *router = NULL;
    emo_router_options o = EMO_ROUTER_OPTIONS_INIT;
    o.hidden = 4;
    o.experts = 9;
    o.shared = 1;
    o.top_k = 3;
    for (int i = 0; i < 36; i++)
        w[i] = (float)(i % 7) * 0.1f - 0.3f;
    OK(emo_router_create(rt, &o, &router, &err));
    OK(emo_router_set_weights(router, w, 36, &err));
    emo_router_batch batch = EMO_ROUTER_BATCH_INIT;
    batch.rows = 1;
    batch.seq_len = 2;
    batch.x = x;
    GUARDED(emo_routing) r = {EMO_ROUTING_INIT, {0}};
    GUARD(r);
    OK(emo_router_forward(router, &batch, NULL, NULL, &r.it, &err));
    CHECK(intact(r.behind) && r.it.struct_size == sizeof r.it && r.it.tokens == 2 && r.it.indices[2] == 8);
    OK(emo_router_backward(router, &r.it, NULL, dx, dw, &err));
    emo_router_release(router);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    emo_runtime *rt = NULL;
    emo_tokenizer *bytes = NULL;
    emo_model *model = NULL;
    emo_dataset *data = NULL;
    emo_mask *mask = NULL;
    const char *const texts[] = {"the quick brown fox jumps over the lazy dog", "sphinx of black quartz, judge my vow"};
    emo_runtime_options o = EMO_RUNTIME_OPTIONS_INIT;
    o.threads = 2;
    o.log.log = on_log;
    o.log.level = EMO_LOG_DEBUG;
    OK(emo_runtime_create(&o, &rt, &err));
    GUARDED(emo_device_info) d = {EMO_DEVICE_INFO_INIT, {0}};
    GUARD(d);
    OK(emo_device_get_info(rt, 0, &d.it, &err));
    CHECK(intact(d.behind) && strcmp(d.it.backend, "cpu") == 0);
    emo_model_create_options create = EMO_MODEL_CREATE_OPTIONS_INIT;
    OK(emo_tokenizer_create_bytes(rt, &bytes, &err));
    OK(emo_dataset_from_text(rt, bytes, texts, NULL, 2, &data, &err));
    GUARDED(emo_document) one;
    GUARD(one);
    OK(emo_dataset_document(data, 0, &one.it, &err));
    CHECK(intact(one.behind) && one.it.count == 43);
    OK(emo_model_create_json(rt, config, sizeof config - 1, &create, &model, &err));
    OK(emo_model_set_tokenizer(model, bytes, &err));
    train(rt, model, data);
    subset(model, data, argv[1], &mask);
    talk(rt, argv[1], mask);
    route(rt);
    emo_runtime *none = NULL;
    o.threads = -5;
    CHECK(emo_runtime_create(&o, &none, &err) == EMO_E_RANGE);

    CHECK(err.code == EMO_E_RANGE && strstr(err.message, "threads") != NULL && none == NULL);
    emo_runtime_release(rt);
    emo_mask_release(mask);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_tokenizer_release(bytes);
    printf("ok: headers %s, library %s\n", EMO_VERSION_STRING, emo_version_string());
    return 0;
}
