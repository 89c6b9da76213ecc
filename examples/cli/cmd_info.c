/* SPDX-License-Identifier: Apache-2.0 */
/* emo info: what a file or folder is. */
#include "cli.h"
#include "dataset.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const command_text text = {"emo info", "PATH",
                                  "Says what a path is: a model folder (and its training run), a tokenizer, a mask, or "
                                  "data.",
                                  NULL, 1};

static int ends_with(const char *path, const char *end) {
    size_t n = strlen(path), m = strlen(end);
    return n >= m && strcmp(path + n - m, end) == 0;
}

static int has_file(const char *folder, const char *name) {
    char *path = path_join(folder, name);
    int there = path != NULL && path_exists(path);
    free(path);
    return there;
}

/* ---- Masks and tokenizers ---- */

static void show_mask(cli *c, const char *path, const emo_mask *mask) {
    if (c->common.json) {
        json_writer json = {stdout, 0, {0}};
        json_open(&json, NULL);
        json_string(&json, "kind", "mask");
        json_string(&json, "path", path);
        json_mask_layers(&json, mask);
        json_close(&json);
        return;
    }
    char words[128];
    describe_mask(mask, words, sizeof(words));
    printf("%s is a mask: %s\n", path, words);
    for (int32_t l = 0; l < emo_mask_layers(mask); l++) {
        int32_t experts = emo_mask_experts(mask, l);
        printf("  layer %-3d", (int)l);
        if (experts == 0)
            printf(" dense");
        for (int32_t e = 0; e < experts; e++) {
            if (emo_mask_get(mask, l, e))
                printf(" %d%s", (int)e, emo_mask_is_always(mask, l, e) ? "*" : "");
        }
        putchar('\n');
    }
    printf("  * always there\n");
}

static emo_status show_tokenizer(cli *c, const char *path) {
    emo_tokenizer *tokenizer = NULL;
    emo_status status = emo_tokenizer_load(c->rt, path, &tokenizer, &c->err);
    if (status != EMO_OK)
        return status;
    if (c->common.json) {
        char hash[32];
        snprintf(hash, sizeof(hash), "%016" PRIx64, emo_tokenizer_hash(tokenizer));
        json_writer json = {stdout, 0, {0}};
        json_open(&json, NULL);
        json_string(&json, "kind", "tokenizer");
        json_string(&json, "path", path);
        json_integer(&json, "vocab_size", emo_tokenizer_vocab_size(tokenizer));
        json_integer(&json, "eos", emo_tokenizer_eos(tokenizer));
        json_string(&json, "hash", hash);
        json_close(&json);
    } else {
        printf("%s is a tokenizer\n", path);
        printf("  vocabulary   %d\n", (int)emo_tokenizer_vocab_size(tokenizer));
        if (emo_tokenizer_eos(tokenizer) >= 0)
            printf("  end of text  %d\n", (int)emo_tokenizer_eos(tokenizer));
        else
            printf("  end of text  none\n");
        printf("  hash         %016" PRIx64 "\n", emo_tokenizer_hash(tokenizer));
    }
    emo_tokenizer_release(tokenizer);
    return EMO_OK;
}

/* ---- Models ---- */

/* The last checkpoint of a run as state/latest names it; NULL when there is none. The caller frees it. */
static char *last_checkpoint(cli *c, const char *folder) {
    char *path = path_join(folder, "state/latest"), *name = NULL;
    size_t length = 0;
    if (path != NULL && path_exists(path) && cli_read_file(c, path, &name, &length) == EMO_OK)
        name[strcspn(name, "\r\n")] = '\0';
    free(path);
    return name;
}

/* A pruned model numbers its experts anew and remembers the ids they had. */
static int is_pruned(const emo_model *model, const emo_model_info *info, const char *folder) {
    for (int32_t l = 0; l < info->layers; l++) {
        for (int32_t e = 0; e < emo_model_experts(model, l); e++) {
            if (emo_model_original_expert(model, l, e) != e)
                return 1;
        }
    }
    return has_file(folder, "pruning_metadata.json");
}

static void model_json(const char *path, const emo_model *model, const emo_model_info *info, const char *checkpoint) {
    json_writer json = {stdout, 0, {0}};
    json_open(&json, NULL);
    json_string(&json, "kind", "model");
    json_string(&json, "path", path);
    json_integer(&json, "parameters", info->parameters);
    json_integer(&json, "active", info->active);
    json_integer(&json, "non_finite", info->non_finite);
    json_string(&json, "dtype", emo_dtype_name(info->dtype));
    json_integer(&json, "layers", info->layers);
    json_integer(&json, "hidden", info->hidden);
    json_integer(&json, "heads", info->heads);
    json_integer(&json, "kv_heads", info->kv_heads);
    json_integer(&json, "head_dim", info->head_dim);
    json_integer(&json, "expert_inner", info->expert_inner);
    json_integer(&json, "top_k", info->top_k);
    json_integer(&json, "vocab", info->vocab);
    json_integer(&json, "eos", info->eos);
    json_integer(&json, "max_positions", info->max_positions);
    json_open_array(&json, "experts");
    for (int32_t l = 0; l < info->layers; l++)
        json_integer(&json, NULL, emo_model_experts(model, l));
    json_close_array(&json);
    json_open_array(&json, "shared");
    for (int32_t l = 0; l < info->layers; l++)
        json_integer(&json, NULL, emo_model_shared(model, l));
    json_close_array(&json);
    int pruned = is_pruned(model, info, path);
    json_boolean(&json, "pruned", pruned);
    if (pruned) {
        json_open_array(&json, "original_experts");
        for (int32_t l = 0; l < info->layers; l++) {
            json_open_array(&json, NULL);
            for (int32_t e = 0; e < emo_model_experts(model, l); e++)
                json_integer(&json, NULL, emo_model_original_expert(model, l, e));
            json_close_array(&json);
        }
        json_close_array(&json);
    }
    json_boolean(&json, "tokenizer", emo_model_tokenizer(model) != NULL);
    json_string(&json, "checkpoint", checkpoint);
    json_close(&json);
}

static void model_text(const char *path, const emo_model *model, const emo_model_info *info, const char *checkpoint) {
    char all[32], active[32];
    int32_t moe = 0, same = 1, experts = 0, shared = 0;
    for (int32_t l = 0; l < info->layers; l++) {
        if (emo_model_experts(model, l) <= 0)
            continue;
        same &= moe == 0 || (emo_model_experts(model, l) == experts && emo_model_shared(model, l) == shared);
        experts = emo_model_experts(model, l);
        shared = emo_model_shared(model, l);
        moe++;
    }
    const char *dtype = emo_dtype_name(info->dtype);
    printf("%s is a %s model\n", path, moe > 0 ? "mixture-of-experts" : "dense");
    printf("  parameters   %s, %s used per token, %s\n", human_count((double)info->parameters, all),
           human_count((double)info->active, active), dtype == NULL ? "?" : dtype);
    if (info->non_finite > 0)
        printf("  not finite   %lld weights are NaN or infinite: this model is damaged\n", (long long)info->non_finite);
    printf("  shape        %d layers, hidden %d, %d heads of %d (%d for keys and values)\n", (int)info->layers,
           (int)info->hidden, (int)info->heads, (int)info->head_dim, (int)info->kv_heads);
    printf("  vocabulary   %d, end of text %d, %d positions\n", (int)info->vocab, (int)info->eos,
           (int)info->max_positions);
    if (moe > 0 && same)
        printf("  experts      %d in each of %d layers (%d shared), inner size %d, %d per token\n", (int)experts,
               (int)moe, (int)shared, (int)info->expert_inner, (int)info->top_k);
    for (int32_t l = 0; moe > 0 && !same && l < info->layers; l++)
        printf("  layer %-3d    %d experts (%d shared)\n", (int)l, (int)emo_model_experts(model, l),
               (int)emo_model_shared(model, l));
    if (is_pruned(model, info, path)) {
        printf("  pruned       the experts had these ids:\n");
        for (int32_t l = 0; l < info->layers; l++) {
            printf("    layer %-3d ", (int)l);
            for (int32_t e = 0; e < emo_model_experts(model, l); e++)
                printf(" %d", (int)emo_model_original_expert(model, l, e));
            putchar('\n');
        }
    }
    printf("  tokenizer    %s\n", emo_model_tokenizer(model) != NULL ? "yes" : "none");
    if (checkpoint != NULL)
        printf("  training run last checkpoint %s\n", checkpoint);
}

static emo_status show_model(cli *c, const char *path) {
    emo_model *model = NULL;
    emo_model_info info = EMO_MODEL_INFO_INIT;
    char *checkpoint = NULL;
    info.non_finite = 1; /* count them */
    info.progress = cli_progress(c);
    EMO_TRY(cli_load_model(c, path, NULL, &model));
    EMO_TRY(emo_model_get_info(model, &info, &c->err));
    progress_clear(&c->line);
    checkpoint = last_checkpoint(c, path);
    if (c->common.json)
        model_json(path, model, &info, checkpoint);
    else
        model_text(path, model, &info, checkpoint);
done:
    free(checkpoint);
    emo_model_release(model);
    return c->err.code;
}

/* A run that has not written its model yet. */
static emo_status show_run(cli *c, const char *path) {
    char *checkpoint = last_checkpoint(c, path);
    if (c->err.code != EMO_OK)
        return c->err.code;
    if (c->common.json) {
        json_writer json = {stdout, 0, {0}};
        json_open(&json, NULL);
        json_string(&json, "kind", "run");
        json_string(&json, "path", path);
        json_string(&json, "checkpoint", checkpoint);
        json_close(&json);
    } else if (checkpoint != NULL) {
        printf("%s is a training run without a finished model; its last checkpoint is %s\n", path, checkpoint);
    } else {
        printf("%s is a training run without a checkpoint\n", path);
    }
    free(checkpoint);
    return EMO_OK;
}

/* ---- Data ---- */

static void data_counts(const emo_dataset *data, int32_t domain, int64_t *documents, int64_t *bytes) {
    emo_document document;
    *documents = *bytes = 0;
    for (int64_t i = 0; i < emo_dataset_count(data); i++) {
        if (emo_dataset_document(data, i, &document, NULL) == EMO_OK && document.domain == domain) {
            ++*documents;
            *bytes += document.bytes;
        }
    }
}

static emo_status show_data(cli *c, const char *path) {
    emo_dataset *data = NULL;
    emo_status status = dataset_open_bytes(c, &c->operands, 1, &data);
    if (status != EMO_OK)
        return status;
    int32_t domains = emo_dataset_domains(data);
    int64_t documents = 0, bytes = 0;
    int tokens_only = emo_dataset_bytes(data) == 0;
    if (c->common.json) {
        json_writer json = {stdout, 0, {0}};
        json_open(&json, NULL);
        json_string(&json, "kind", "data");
        json_string(&json, "path", path);
        if (tokens_only) {
            json_integer(&json, "tokens", emo_dataset_tokens(data));
        } else {
            json_integer(&json, "documents", emo_dataset_count(data));
            json_integer(&json, "bytes", emo_dataset_bytes(data));
            json_integer(&json, "broken", emo_dataset_skipped(data));
            json_open(&json, "domains");
            for (int32_t d = 0; d < domains; d++) {
                data_counts(data, d, &documents, &bytes);
                json_open(&json, emo_dataset_domain_name(data, d));
                json_integer(&json, "documents", documents);
                json_integer(&json, "bytes", bytes);
                json_close(&json);
            }
            json_close(&json);
        }
        json_close(&json);
    } else if (tokens_only) {
        printf("%s holds %" PRId64 " tokens\n", path, emo_dataset_tokens(data));
    } else {
        char size[32];
        printf("%s holds %" PRId64 " documents, %s\n", path, emo_dataset_count(data),
               human_bytes((double)emo_dataset_bytes(data), size));
        text_table table;
        table_begin(&table, 3);
        table_cell(&table, "  domain");
        table_cell(&table, "documents");
        table_cell(&table, "bytes");
        for (int32_t d = 0; d < domains; d++) {
            const char *name = emo_dataset_domain_name(data, d);
            data_counts(data, d, &documents, &bytes);
            table_cell(&table, "  %s", name == NULL || name[0] == '\0' ? "(none)" : name);
            table_cell(&table, "%" PRId64, documents);
            table_cell(&table, "%" PRId64, bytes);
        }
        table_print(&table, stdout);
    }
    emo_dataset_release(data);
    return EMO_OK;
}

/* ---- The command ---- */

static emo_status show_folder(cli *c, const char *path) {
    if (has_file(path, "config.json"))
        return show_model(c, path);
    if (has_file(path, "state"))
        return show_run(c, path);
    if (has_file(path, "tokenizer.json"))
        return show_tokenizer(c, path);
    return show_data(c, path);
}

/* A .json file is a mask, a tokenizer or data; the first bytes tell. */
static emo_status show_json(cli *c, const char *path) {
    char *content = NULL;
    size_t length = 0;
    emo_status status = cli_read_file(c, path, &content, &length);
    if (status != EMO_OK)
        return status;
    int is_mask = strstr(content, "\"emo-mask\"") != NULL;
    int is_tokenizer = strstr(content, "\"merges\"") != NULL && strstr(content, "\"vocab\"") != NULL;
    free(content);
    if (is_mask) {
        emo_mask *mask = NULL;
        status = emo_mask_load(c->rt, path, &mask, &c->err);
        if (status == EMO_OK)
            show_mask(c, path, mask);
        emo_mask_release(mask);
        return status;
    }
    return is_tokenizer ? show_tokenizer(c, path) : show_data(c, path);
}

int cmd_info(int argc, char **argv) {
    option table[] = {OPTION_END};
    cli c;
    if (!cli_begin(&c, &text, table, argc, argv))
        return c.code;
    const char *path = c.operands.count == 1 ? c.operands.items[0] : NULL;
    if (path == NULL)
        cli_usage(&c, "say what to look at: a model folder, a tokenizer, a mask, or data.");
    else if (!path_exists(path))
        cli_fail(&c, EMO_E_NOT_FOUND, "there is nothing at %s", path);
    else if (path_is_folder(path))
        (void)show_folder(&c, path);
    else if (ends_with(path, ".gguf"))
        (void)show_model(&c, path);
    else if (ends_with(path, ".safetensors"))
        cli_fail(&c, EMO_E_UNSUPPORTED, "%s is a file of weights: name the model folder it is in", path);
    else if (ends_with(path, ".json"))
        (void)show_json(&c, path);
    else
        (void)show_data(&c, path);
    return cli_end(&c);
}
