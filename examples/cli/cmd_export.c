/* SPDX-License-Identifier: Apache-2.0 */
/* emo export: a model in the format of another program. */
#include "cli.h"

static const command_text text = {
    "emo export", "--model PATH [--mask FILE] --type TYPE --out FILE",
    "Writes a model, or only a mask's experts, as one GGUF file that llama.cpp and what is built on it can run.",
    "With q4_0 and q4_k the head is q8_0, and so is a matrix whose rows the blocks of q4_k (256) do not divide; norms\n"
    "and routers are f32 always. What GGUF cannot say is refused with the reason.",
    0};

static void print_result(cli *c, const char *path, const char *type, const emo_export_info *info) {
    progress_clear(&c->line);
    if (c->common.json) {
        json_writer json = {stdout, 0, {0}};
        json_open(&json, NULL);
        json_string(&json, "file", path);
        json_string(&json, "format", "gguf");
        json_string(&json, "type", type);
        json_integer(&json, "tensors", info->tensors);
        json_integer(&json, "fallbacks", info->fallbacks);
        json_integer(&json, "bytes", (int64_t)info->bytes);
        json_close(&json);
    } else if (!c->common.quiet) {
        char size[32];
        printf("%s: %d tensors, %s\n", path, (int)info->tensors, human_bytes((double)info->bytes, size));
        if (info->fallbacks > 0)
            printf("  %d of them are q8_0, because %s needs rows that 256 divides\n", (int)info->fallbacks, type);
    }
}

int cmd_export(int argc, char **argv) {
    const char *path = NULL, *mask_path = NULL, *format = "gguf", *type = "f16", *out = NULL;
    emo_export_options options = EMO_EXPORT_OPTIONS_INIT;
    option table[] = {
        {"model", OPTION_STRING, &path, "PATH", "the model folder, or a GGUF file", NULL, 0, 0, 1, 0},
        {"mask", OPTION_STRING, &mask_path, "FILE", "only the experts of this mask", NULL, 0, 0, 0, 0},
        {"format", OPTION_CHOICE, &format, "gguf", "the file format", "gguf", 0, 0, 0, 0},
        {"type", OPTION_CHOICE, &type, "f32|bf16|f16|q8_0|q4_0|q4_k", "how weights are stored", "f16", 0, 0, 0, 0},
        {"no-tokenizer", OPTION_FLAG, &options.no_tokenizer, NULL, "leave the tokenizer out", NULL, 0, 0, 0, 0},
        {"name", OPTION_STRING, &options.name, "TEXT", "the model's name in the file", "emo", 0, 0, 0, 0},
        {"out", OPTION_STRING, &out, "FILE", "the file to write", NULL, 0, 0, 1, 0},
        OPTION_END};
    cli c;
    if (!cli_begin(&c, &text, table, argc, argv))
        return c.code;
    emo_model *model = NULL;
    emo_export_info info = EMO_EXPORT_INFO_INIT;
    options.dtype = dtype_by_name(type);
    if (cli_export(&c, path, mask_path, out, &options, &info, &model) == EMO_OK)
        print_result(&c, out, type, &info);
    emo_model_release(model);
    return cli_end(&c);
}
