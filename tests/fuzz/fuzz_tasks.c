/* SPDX-License-Identifier: Apache-2.0 */
/* Task files, and behind a NUL the data file d.jsonl that they may name. What opens can be looked at and, when it is
 * small, run. */
#include "fuzz/fuzz.h"

#define CONFIG                                                                                                         \
    "{\"vocab_size\":257,\"hidden_size\":8,\"intermediate_size\":4,\"num_hidden_layers\":1,\"num_attention_heads\":2," \
    "\"max_position_embeddings\":48,\"num_experts\":5,\"num_shared_experts\":1,\"num_experts_per_tok\":3,"             \
    "\"eos_token_id\":256}"
static const char usual[] =
    "{\"q\": \"what is it\", \"choices\": [\"a cat\", \"rats\"], \"answer\": 1, \"text\": \"x\"}\n"
    "{\"q\": \"or_this\", \"choices\": [\"y\", \"z\"], \"answer\": 0, \"text\": \"u v\"}\n";

static emo_model *the_model(void) {
    static emo_model *model;
    emo_error err = EMO_ERROR_INIT;
    emo_tokenizer *bytes = NULL;
    if (model == NULL) {
        FUZZ_OK(emo_model_create_json(fuzz_runtime(), CONFIG, strlen(CONFIG), NULL, &model, &err));
        FUZZ_OK(emo_tokenizer_create_bytes(fuzz_runtime(), &bytes, &err));
        FUZZ_OK(emo_model_set_tokenizer(model, bytes, &err));
        emo_tokenizer_release(bytes);
    }
    return model;
}

/* Texts and their sizes agree. *bytes: of everything that a run would encode. */
static void look_at(const emo_task_set *set, int32_t task, int64_t item, uint64_t *bytes) {
    emo_error err = EMO_ERROR_INIT;
    char text[256];
    size_t size = 0;
    size_t again = 0;
    if (FUZZ_CALL(emo_task_set_prompt(set, task, item, 0, NULL, 0, &size, &err)) && size <= sizeof text) {
        FUZZ_OK(emo_task_set_prompt(set, task, item, 0, text, sizeof text, &again, &err));
        FUZZ_CHECK(again == size && strlen(text) + 1 == size);
    }
    *bytes += size;
    FUZZ_OK(emo_task_set_continuation(set, task, item, 0, NULL, 0, &size, &err));
    *bytes += size;
}

static void run(const emo_task_set *set) {
    emo_error err = EMO_ERROR_INIT;
    emo_task_results *results = NULL;
    static const int32_t keep[] = {0, 3};
    emo_task_run_options options = EMO_TASK_RUN_OPTIONS_INIT;
    options.keep = keep;
    options.n_keep = 2;
    options.method = EMO_SELECT_RANDOM;
    if (!FUZZ_CALL(emo_task_run(the_model(), set, &options, &results, &err)))
        return;
    for (int32_t t = 0; t < emo_task_set_tasks(set); t++) {
        emo_task_score score;
        FUZZ_OK(emo_task_results_score(results, t, 1, 0, &score, &err));
        FUZZ_CHECK(score.value >= 0.0);
    }
    for (int32_t g = 0; g < emo_task_set_groups(set); g++) {
        emo_task_score score;
        FUZZ_OK(emo_task_results_group(results, g, 0, &score, &err));
        FUZZ_CHECK(score.value >= 0.0);
    }
    emo_task_results_release(results);
}

void fuzz_tasks(const uint8_t *data, size_t size) {
    emo_error err = EMO_ERROR_INIT;
    emo_task_set *set = NULL;
    emo_task_set_options options = EMO_TASK_SET_OPTIONS_INIT;
    const uint8_t *cut = size > 0 ? memchr(data, 0, size) : NULL;
    size_t length = cut != NULL ? (size_t)(cut - data) : size;
    char folder[1024];
    uint64_t bytes = 0;
    if (size > 0 && memchr(data, '/', length) != NULL) /* other files are not this target's matter */
        return;
    const char *file = cut != NULL ? fuzz_file("d.jsonl", cut + 1, size - length - 1)
                                   : fuzz_file("d.jsonl", (const uint8_t *)usual, sizeof usual - 1);
    (void)snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(file, '/') - file), file);
    options.root = folder;
    options.limit = 4;
    if (!FUZZ_CALL(
            emo_task_set_from_json(fuzz_runtime(), size > 0 ? (const char *)data : "", length, &options, &set, &err)))
        return;
    for (int32_t t = 0; t < emo_task_set_tasks(set) && t < 64; t++) {
        emo_task_info info;
        FUZZ_OK(emo_task_set_task(set, t, &info, &err));
        FUZZ_CHECK(info.items >= 1 && info.items <= 4 && info.metrics >= 1 && info.most_choices <= 26);
        FUZZ_CHECK(emo_task_set_metric(set, t, info.metrics - 1) != NULL);
        for (int64_t i = 0; i < info.items; i++)
            look_at(set, t, i, &bytes);
        bytes += (uint64_t)info.most_choices;
    }
    for (int32_t g = 0; g < emo_task_set_groups(set); g++) {
        emo_task_group group;
        FUZZ_OK(emo_task_set_group(set, g, &group, &err));
        FUZZ_CHECK(group.count >= 1 && group.members[0] < emo_task_set_tasks(set) && group.members[0] >= -1 - g);
    }
    if (emo_task_set_tasks(set) <= 4 && bytes <= 2048)
        run(set);
    emo_task_set_release(set);
}
