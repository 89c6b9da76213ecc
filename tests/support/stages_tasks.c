/* SPDX-License-Identifier: Apache-2.0 */
/* A task file of every type, and a run of it with subsets. */
#include "support/folder.h"
#include "support/stages.h"

static char tasks_path[600];

void stages_tasks_setup(void) {
    static const char tasks[] =
        "{\"tasks\": [{\"name\": \"c\", \"type\": \"multiple_choice\", \"data\": \"task.jsonl\", \"by\": \"d\","
        "\"validation\": \"task.jsonl\", \"choices\": [\"{x}\", \"mat\"], \"prompt\": \"{choices}{q|lower}\","
        "\"normalisation\": [\"byte\", \"unconditional\"], \"description\": \"{d}:\"},"
        "{\"name\": \"g\", \"type\": \"generation\", \"data\": \"task.jsonl\", \"validation\": \"task.jsonl\","
        "\"prompt\": \"{q}\", \"answer\": \"x\", \"max_tokens\": 2, \"stop\": [\"zzz\"],"
        "\"examples\": {\"count\": 1, \"data\": \"task.jsonl\", \"draw\": \"item\"}},"
        "{\"name\": \"p\", \"type\": \"perplexity\", \"data\": \"task.jsonl\", \"validation\": \"task.jsonl\","
        "\"continuation\": \"{q} {x}\"}],"
        "\"groups\": [{\"name\": \"both\", \"tasks\": [\"c\", \"g\"]}]}";
    static const char data[] = "{\"q\": \"The\", \"x\": \"cat\", \"d\": \"a\", \"answer\": 0}\n"
                               "{\"q\": \"what\", \"x\": \"rate\", \"d\": \"b\", \"answer\": 1}\n";
    (void)test_write("task.jsonl", data, sizeof data - 1);
    (void)snprintf(tasks_path, sizeof tasks_path, "%.500s", test_write("tasks.json", tasks, sizeof tasks - 1));
}

emo_status stages_open_tasks(emo_runtime *rt, const emo_progress *progress, emo_task_set **out, emo_error *err) {
    emo_task_set_options options = EMO_TASK_SET_OPTIONS_INIT;
    if (progress != NULL)
        options.progress = *progress;
    return emo_task_set_open(rt, tasks_path, &options, out, err);
}

emo_status stages_run_tasks(emo_model *model, const emo_task_set *set, emo_select_method method,
                            const emo_progress *progress, emo_task_results **out, emo_error *err) {
    static const int32_t keep[] = {0, 4};
    emo_task_run_options options = EMO_TASK_RUN_OPTIONS_INIT;
    options.keep = keep;
    options.n_keep = 2;
    options.random = 1;
    options.method = method;
    options.sequences = 1;
    if (progress != NULL)
        options.progress = *progress;
    return emo_task_run(model, set, &options, out, err);
}

emo_status stages_tasks(emo_runtime *rt, emo_error *err) {
    emo_model *model = NULL;
    emo_task_set *set = NULL;
    emo_task_results *results = NULL;
    emo_mask *mask = NULL;
    emo_task_item item;
    emo_task_score score;
    size_t size = 0;
    emo_status status;
    EMO_TRY(status = stages_open_model(rt, &model, err));
    EMO_TRY(status = stages_open_tasks(rt, NULL, &set, err));
    STAGE_CHECK(emo_task_set_tasks(set) == 4 && emo_task_set_groups(set) == 2);
    EMO_TRY(status = emo_task_set_prompt(set, 2, 1, 0, NULL, 0, &size, err));
    STAGE_CHECK(size == strlen("The cat\n\nwhat") + 1);
    EMO_TRY(status = stages_run_tasks(model, set, EMO_SELECT_LAYERWISE, NULL, &results, err));
    EMO_TRY(status = emo_task_results_item(results, 2, 1, 1, &item, err));
    STAGE_CHECK(item.text != NULL);
    EMO_TRY(status = emo_task_results_group(results, 1, 2, &score, err));
    STAGE_CHECK(score.items == 4);
    EMO_TRY(status = emo_task_results_mask(results, 0, 1, &mask, err));
done:
    emo_mask_release(mask);
    emo_task_results_release(results);
    emo_task_set_release(set);
    emo_model_release(model);
    return status;
}
