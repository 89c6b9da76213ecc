/* SPDX-License-Identifier: Apache-2.0 */
/* emo quantize: a model in fewer bits, and what that did to its weights. */
#include "cli.h"
#include "weight_errors.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const command_text text = {"emo quantize", "--model PATH [--mask FILE] --type TYPE [--head TYPE] ... --out FILE",
                                  "Writes a model, or only a mask's experts, as a GGUF file of quantised weights, says "
                                  "how much smaller it is and how\n"
                                  "far its weights are from the model's.",
                                  "A type for a kind of tensors goes before --type: '--type q4_k --head bf16 "
                                  "--attention q8_0'. Without one, the head\n"
                                  "is q8_0 where --type has four bits, and so is a matrix whose rows the blocks of "
                                  "q4_k (256) do not divide; norms and\n"
                                  "routers are f32 always. What the file cannot say is refused with the reason.",
                                  0};

#define TYPES "q8_0|q4_0|q4_k|bf16|f16|f32"

/* Bytes of the weight files at a path: of a folder, its .safetensors; 0 when it cannot be seen. */
static uint64_t stored_bytes(const char *path) {
    struct stat info;
    if (!path_is_folder(path))
        return stat(path, &info) == 0 ? (uint64_t)info.st_size : 0;
    DIR *folder = opendir(path);
    uint64_t bytes = 0;
    for (struct dirent *entry = folder != NULL ? readdir(folder) : NULL; entry != NULL; entry = readdir(folder)) {
        size_t length = strlen(entry->d_name);
        char *file = length > 12 && strcmp(entry->d_name + length - 12, ".safetensors") == 0
                         ? path_join(path, entry->d_name)
                         : NULL;
        if (file != NULL && stat(file, &info) == 0)
            bytes += (uint64_t)info.st_size;
        free(file);
    }
    if (folder != NULL)
        closedir(folder);
    return bytes;
}

static void json_error(json_writer *json, const char *key, const weight_error *error) {
    json_open(json, key);
    if (error->name[0] != '\0')
        json_string(json, "tensor", error->name);
    json_integer(json, "elements", error->elements);
    json_number(json, "rmse", weight_error_rms(error));
    json_number(json, "relative", weight_error_relative(error));
    json_number(json, "largest", error->largest);
    json_close(json);
}

static void print_result(cli *c, const char *out, const char *type, uint64_t before, const emo_export_info *info,
                         const weight_errors *errors) {
    progress_clear(&c->line);
    if (c->common.json) {
        json_writer json = {stdout, 0, {0}};
        json_open(&json, NULL);
        json_string(&json, "file", out);
        json_string(&json, "type", type);
        json_integer(&json, "tensors", info->tensors);
        json_integer(&json, "fallbacks", info->fallbacks);
        json_unsigned(&json, "bytes_before", before);
        json_unsigned(&json, "bytes", info->bytes);
        if (errors->items != NULL) {
            json_error(&json, "error", &errors->all);
            json_open_array(&json, "errors");
            for (size_t i = 0; i < errors->count; i++)
                json_error(&json, NULL, &errors->items[i]);
            json_close_array(&json);
        }
        json_close(&json);
        return;
    }
    if (c->common.quiet)
        return;
    char size[2][32];
    printf("%s: %d tensors, %s; before: %s (%.3g times as much)\n", out, (int)info->tensors,
           human_bytes((double)info->bytes, size[0]), human_bytes((double)before, size[1]),
           (double)before / (double)info->bytes);
    if (info->fallbacks > 0)
        printf("  %d of them are q8_0, because %s needs rows that 256 divides\n", (int)info->fallbacks, type);
    if (errors->items == NULL)
        return;
    const weight_error *worst = &errors->all;
    for (size_t i = 0; i < errors->count; i++) {
        if (weight_error_relative(&errors->items[i]) > weight_error_relative(worst))
            worst = &errors->items[i];
    }
    printf("  error of the weights: %.2e in the root mean square, %.3f %% of theirs", weight_error_rms(&errors->all),
           100.0 * weight_error_relative(&errors->all));
    if (worst != &errors->all)
        printf("; most in %s, %.3f %%", worst->name, 100.0 * weight_error_relative(worst));
    printf("\n");
}

int cmd_quantize(int argc, char **argv) {
    const char *path = NULL, *mask_path = NULL, *type = NULL, *out = NULL;
    const char *head = NULL, *embedding = NULL, *attention = NULL, *shared = NULL;
    int32_t blind = 0;
    emo_export_options options = EMO_EXPORT_OPTIONS_INIT;
    option table[] = {
        {"model", OPTION_STRING, &path, "PATH", "the model folder, or a GGUF file", NULL, 0, 0, 1, 0},
        {"mask", OPTION_STRING, &mask_path, "FILE", "only the experts of this mask", NULL, 0, 0, 0, 0},
        {"type", OPTION_CHOICE, &type, TYPES, "how weights are stored", NULL, 0, 0, 1, 0},
        {"head", OPTION_CHOICE, &head, TYPES, "how the head is", "see below", 0, 0, 0, 0},
        {"embedding", OPTION_CHOICE, &embedding, TYPES, "how the token embedding is", "as --type", 0, 0, 0, 0},
        {"attention", OPTION_CHOICE, &attention, TYPES, "how the projections around attention are", "as --type", 0, 0,
         0, 0},
        {"shared", OPTION_CHOICE, &shared, TYPES, "how the shared expert is", "as --type", 0, 0, 0, 0},
        {"no-tokenizer", OPTION_FLAG, &options.no_tokenizer, NULL, "leave the tokenizer out", NULL, 0, 0, 0, 0},
        {"no-errors", OPTION_FLAG, &blind, NULL, "do not compare the weights afterwards", NULL, 0, 0, 0, 0},
        {"name", OPTION_STRING, &options.name, "TEXT", "the model's name in the file", "emo", 0, 0, 0, 0},
        {"out", OPTION_STRING, &out, "FILE", "the file to write", NULL, 0, 0, 1, 0},
        OPTION_END};
    cli c;
    if (!cli_begin(&c, &text, table, argc, argv))
        return c.code;
    emo_model *model = NULL, *made = NULL;
    emo_export_info info = EMO_EXPORT_INFO_INIT;
    weight_errors errors = {0};
    uint64_t before = stored_bytes(path);
    options.dtype = dtype_by_name(type);
    options.head = head != NULL ? dtype_by_name(head) : -1;
    options.embedding = embedding != NULL ? dtype_by_name(embedding) : -1;
    options.attention = attention != NULL ? dtype_by_name(attention) : -1;
    options.shared = shared != NULL ? dtype_by_name(shared) : -1;
    EMO_TRY(cli_export(&c, path, mask_path, out, &options, &info, &model));
    if (!blind) {
        EMO_TRY(cli_load_model(&c, out, NULL, &made));
        EMO_TRY(weight_errors_collect(&c, model, made, &errors));
    }
    print_result(&c, out, type, before, &info, &errors);
done:
    weight_errors_free(&errors);
    emo_model_release(made);
    emo_model_release(model);
    return cli_end(&c);
}
