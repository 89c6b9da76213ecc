/* SPDX-License-Identifier: Apache-2.0 */
/* emo prune and emo merge: a smaller model out of a model, and back. */
#include "cli.h"

static emo_status save_model(cli *c, const emo_model *model, const char *folder) {
    emo_model_save_options options = EMO_MODEL_SAVE_OPTIONS_INIT;
    options.progress = cli_progress(c);
    options.extended = 1;
    return emo_model_save(model, folder, &options, &c->err);
}

static emo_status print_model(cli *c, const emo_model *model, const char *folder) {
    emo_model_info info = EMO_MODEL_INFO_INIT;
    emo_status status = emo_model_get_info(model, &info, &c->err);
    if (status != EMO_OK)
        return status;
    progress_clear(&c->line);
    if (c->common.json) {
        json_writer json = {stdout, 0, {0}};
        json_open(&json, NULL);
        json_string(&json, "model", folder);
        json_integer(&json, "parameters", info.parameters);
        json_integer(&json, "active", info.active);
        json_open_array(&json, "experts");
        for (int32_t l = 0; l < info.layers; l++)
            json_integer(&json, NULL, emo_model_experts(model, l));
        json_close_array(&json);
        json_integer(&json, "top_k", info.top_k);
        json_close(&json);
    } else if (!c->common.quiet) {
        char all[32], active[32];
        printf("%s: %s parameters, %s used per token\n", folder, human_count((double)info.parameters, all),
               human_count((double)info.active, active));
    }
    return EMO_OK;
}

static const command_text prune_text = {
    "emo prune", "--model DIR --mask FILE --out DIR",
    "Writes a smaller model that has only the mask's experts, with their original ids in pruning_metadata.json.", NULL,
    0};

int cmd_prune(int argc, char **argv) {
    const char *folder = NULL, *mask_path = NULL, *out = NULL, *method = NULL;
    option table[] = {
        {"model", OPTION_STRING, &folder, "DIR", "the model folder", NULL, 0, 0, 1, 0},
        {"mask", OPTION_STRING, &mask_path, "FILE", "the experts to keep", NULL, 0, 0, 1, 0},
        {"out", OPTION_STRING, &out, "DIR", "the folder to write", NULL, 0, 0, 1, 0},
        {"method", OPTION_STRING, &method, "TEXT", "how the experts were chosen, for the record", "mask", 0, 0, 0, 0},
        OPTION_END};
    cli c;
    if (!cli_begin(&c, &prune_text, table, argc, argv))
        return c.code;
    emo_mask *mask = NULL;
    emo_model *model = NULL, *small = NULL;
    if (same_folder(folder, out)) {
        cli_usage(&c, "--out is the model itself: name another folder.");
        goto done;
    }
    emo_prune_options options = EMO_PRUNE_OPTIONS_INIT;
    options.method = method;
    EMO_TRY(emo_mask_load(c.rt, mask_path, &mask, &c.err));
    EMO_TRY(cli_load_model(&c, folder, NULL, &model));
    EMO_TRY(emo_model_prune(model, mask, &options, &small, &c.err));
    EMO_TRY(save_model(&c, small, out));
    EMO_TRY(print_model(&c, small, out));
done:
    emo_mask_release(mask);
    emo_model_release(model);
    emo_model_release(small);
    return cli_end(&c);
}

static const command_text merge_text = {
    "emo merge", "--parent DIR --child DIR [--average A] [--router] [--shared] [--rest] --out DIR",
    "Puts the routed experts of a pruned (and tuned) child back into a copy of its parent.", NULL, 0};

int cmd_merge(int argc, char **argv) {
    const char *parent_path = NULL, *child_path = NULL, *out = NULL;
    emo_merge_options options = EMO_MERGE_OPTIONS_INIT;
    option table[] = {
        {"parent", OPTION_STRING, &parent_path, "DIR", "the model the child was pruned from", NULL, 0, 0, 1, 0},
        {"child", OPTION_STRING, &child_path, "DIR", "the pruned model", NULL, 0, 0, 1, 0},
        {"out", OPTION_STRING, &out, "DIR", "the folder to write", NULL, 0, 0, 1, 0},
        {"average", OPTION_FLOAT, &options.average, "A", "weight of the child: (1 - A) parent + A child",
         "1, which replaces", 0, 1, 0, 0},
        {"router", OPTION_FLAG, &options.router, NULL, "also the router rows of all kept experts", NULL, 0, 0, 0, 0},
        {"shared", OPTION_FLAG, &options.shared, NULL, "also the shared experts", NULL, 0, 0, 0, 0},
        {"rest", OPTION_FLAG, &options.rest, NULL, "also everything outside the MoE blocks", NULL, 0, 0, 0, 0},
        OPTION_END};
    cli c;
    if (!cli_begin(&c, &merge_text, table, argc, argv))
        return c.code;
    emo_model *parent = NULL, *child = NULL, *merged = NULL;
    if (same_folder(parent_path, out) || same_folder(child_path, out)) {
        cli_usage(&c, "--out is one of the two models: name another folder.");
        goto done;
    }
    EMO_TRY(cli_load_model(&c, parent_path, NULL, &parent));
    EMO_TRY(cli_load_model(&c, child_path, NULL, &child));
    EMO_TRY(emo_model_merge(parent, child, &options, &merged, &c.err));
    EMO_TRY(save_model(&c, merged, out));
    EMO_TRY(print_model(&c, merged, out));
done:
    emo_model_release(parent);
    emo_model_release(child);
    emo_model_release(merged);
    return cli_end(&c);
}
