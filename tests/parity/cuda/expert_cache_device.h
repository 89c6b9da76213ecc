/* SPDX-License-Identifier: Apache-2.0 */
/* Models under a memory budget on the CUDA back end: how tests come by them, and by sessions on them. */
#ifndef EMO_TESTS_EXPERT_CACHE_DEVICE_H
#define EMO_TESTS_EXPERT_CACHE_DEVICE_H

#include <time.h>
#include <unistd.h>

#include "../../unit/model/expert_cache_support.h"
#include "backend/registry.h"
#include "cudasim/control.h"
#include "support/folder.h"
#include "support/mirror.h"

/* q4_k: gate and up have rows of whole blocks, down falls back to q8_0. Layer 0 is dense. */
#define CONFIG(HIDDEN)                                                                                                 \
    "{\"model_type\":\"emo\",\"vocab_size\":60,\"hidden_size\":" HIDDEN                                                \
    ",\"intermediate_size\":32,\"num_hidden_layers\":3,\"num_attention_heads\":4,\"num_key_value_heads\":2,"           \
    "\"max_position_embeddings\":64,\"num_experts_per_tok\":3,\"num_experts_per_layer\":[0,7,7],"                      \
    "\"num_shared_experts_per_layer\":[0,1,1],\"dense_intermediate_size\":32,\"initializer_range\":0.2,"               \
    "\"eos_token_id\":1,\"pad_token_id\":0}"
static const char narrow[] = CONFIG("24"), wide[] = CONFIG("256");
enum { PROMPT = 7, EXPERTS = 12, CHOSEN = 2, LAYERS = 2 /* with experts */ };

static emo_runtime *rt;
static const cudasim_control_table *simulator; /* NULL: a real device */
static int checked; /* the build gives back what it has at once, which waits, and checks every access: slowly */

static inline emo_runtime *device_runtime(void) {
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *on = test_runtime(2, EMO_ISA_AUTO);
    EXPECT_OK(emo_runtime_load_backend(on, mirror_plugin(), &err));
    return on;
}

static inline int setup(void **state) {
    (void)state;
    rt = device_runtime();
    simulator = mirror_simulator(mirror_plugin());
    checked = strstr(mirror_plugin(), "_hooked") != NULL;
    return test_folder() == NULL;
}

static inline int teardown(void **state) {
    (void)state;
    mirror_expect_clean(mirror_plugin());
    emo_runtime_release(rt);
    test_folder_remove();
    return 0;
}

/* ---- models ---- */

/* As a folder, or a GGUF file where the type is quantised; written when first asked for. */
static inline const char *model_file(emo_dtype dtype) {
    emo_error err = EMO_ERROR_INIT;
    const char *path = test_path(emo_dtype_name(dtype));
    if (access(path, F_OK) == 0)
        return path;
    emo_model_create_options options = EMO_MODEL_CREATE_OPTIONS_INIT;
    emo_model *model = NULL;
    const char *config = dtype == EMO_DTYPE_Q4_K ? wide : narrow;
    if (dtype == EMO_DTYPE_Q8_0 || dtype == EMO_DTYPE_Q4_0)
        config = CONFIG("32");
    options.seed = 5;
    EXPECT_OK(emo_model_create_json(rt, config, strlen(config), &options, &model, &err));
    if (dtype == EMO_DTYPE_F32 || dtype == EMO_DTYPE_BF16) {
        emo_model_save_options how = EMO_MODEL_SAVE_OPTIONS_INIT;
        how.dtype = dtype;
        EXPECT_OK(emo_model_save(model, path, &how, &err));
    } else {
        emo_export_options how = EMO_EXPORT_OPTIONS_INIT;
        how.dtype = dtype;
        EXPECT_OK(emo_model_export(model, path, &how, NULL, &err));
    }
    emo_model_release(model);
    return path;
}

/* On the CPU, with so many places; 0: no budget. */
static inline emo_model *load(emo_runtime *on, emo_dtype dtype, size_t places, emo_model_load_options options) {
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = NULL;
    if (places > 0) {
        options.memory_budget = UINT64_MAX;
        EXPECT_OK(emo_model_load_path(on, model_file(dtype), &options, &model, &err));
        emo_cache_stats stats = stats_of(model);
        assert_int_equal(stats.capacity, EXPERTS);
        emo_model_release(model);
        options.memory_budget = stats.bytes / stats.capacity * places;
    }
    EXPECT_OK(emo_model_load_path(on, model_file(dtype), &options, &model, &err));
    return model;
}

static inline emo_model *on_device(emo_dtype dtype, size_t places, emo_model_load_options options) {
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = load(rt, dtype, places, options);
    EXPECT_OK(emo_model_to_device(model, "cuda", &err));
    return model;
}

static inline emo_session_options talk_options(void) {
    emo_session_options options = EMO_SESSION_OPTIONS_INIT;
    options.max_tokens = TOKENS;
    options.ignore_eos = 1;
    return options;
}

static inline emo_session *begin(emo_model *model, const emo_session_options *options) {
    static const int32_t prompt[PROMPT] = {3, 50, 7, 7, 22, 41, 9};
    emo_error err = EMO_ERROR_INIT;
    emo_session *session = NULL;
    EXPECT_OK(emo_session_create(model, options, &session, &err));
    EXPECT_OK(emo_session_append_tokens(session, 0, prompt, PROMPT, &err));
    return session;
}

static inline outcome say(emo_model *model, const emo_session_options *options) {
    return finish(begin(model, options));
}

static inline emo_pool_policy *prompt_pool(int32_t size) {
    emo_error err = EMO_ERROR_INIT;
    emo_pool_policy *pool = NULL;
    EXPECT_OK(emo_pool_policy_from_prompt(rt, size, &pool, &err));
    return pool;
}

#endif
