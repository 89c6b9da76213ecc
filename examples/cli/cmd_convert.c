/* SPDX-License-Identifier: Apache-2.0 */
/* emo convert: a model folder in another element type or in shards of another size. */
#include "cli.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const command_text text = {
    "emo convert", "--model DIR --out DIR [--dtype TYPE] [--max-shard-size SIZE]",
    "Writes a model folder anew, as transformers reads it: weights of one type, in shards, with config.json and the\n"
    "tokenizer's files. Settings and tensors that are not this library's are passed on.",
    "Files that lie beside the weights (tokenizer files, Python code, licences) are copied as they are.", 0};

/* "5GB", "500MB", "2GiB" or bytes; 0 for anything else. */
static uint64_t parse_size(const char *word) {
    static const struct {
        const char *unit;
        uint64_t bytes;
    } units[] = {{"", 1},           {"KB", 1000},      {"MB", 1000000},  {"GB", 1000000000},
                 {"KiB", 1u << 10}, {"MiB", 1u << 20}, {"GiB", 1u << 30}};
    char *end = NULL;
    if (word[0] < '0' || word[0] > '9')
        return 0;
    errno = 0;
    unsigned long long number = strtoull(word, &end, 10);
    for (size_t i = 0; errno == 0 && i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(end, units[i].unit) == 0 && number <= UINT64_MAX / 2 / units[i].bytes)
            return number * units[i].bytes;
    }
    return 0;
}

static int ends_with(const char *name, const char *end) {
    size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

/* What emo_model_save() does not write, or writes in words of its own where there is an original. */
static int is_companion(const char *name) {
    static const char *const names[] = {
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
        "merges.txt",     "chat_template.jinja",   "tokenizer.model",         "README.md"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(name, names[i]) == 0)
            return 1;
    }
    return ends_with(name, ".py") || strncmp(name, "LICENSE", 7) == 0;
}

static emo_status copy_file(cli *c, const char *from, const char *to) {
    char *data = NULL;
    size_t length = 0;
    emo_status status = cli_read_file(c, from, &data, &length);
    if (status != EMO_OK)
        return status;
    FILE *file = fopen(to, "wb");
    int failed = file == NULL || fwrite(data, 1, length, file) != length;
    if (file != NULL)
        failed |= fclose(file) != 0;
    free(data);
    return failed ? cli_fail(c, EMO_E_IO, "cannot write %s: %s", to, strerror(errno)) : EMO_OK;
}

static emo_status copy_companions(cli *c, const char *from, const char *to) {
    DIR *folder = opendir(from);
    if (folder == NULL)
        return cli_fail(c, EMO_E_IO, "cannot list %s: %s", from, strerror(errno));
    emo_status status = EMO_OK;
    for (struct dirent *entry = readdir(folder); status == EMO_OK && entry != NULL; entry = readdir(folder)) {
        if (!is_companion(entry->d_name))
            continue;
        char *source = path_join(from, entry->d_name), *target = path_join(to, entry->d_name);
        if (source == NULL || target == NULL)
            status = cli_fail(c, EMO_E_OUT_OF_MEMORY, "out of memory");
        else if (!path_is_folder(source))
            status = copy_file(c, source, target);
        free(source);
        free(target);
    }
    closedir(folder);
    return status;
}

static emo_status print_result(cli *c, const char *out, const emo_model *model, emo_dtype dtype) {
    emo_model_info info = EMO_MODEL_INFO_INIT;
    emo_status status = emo_model_get_info(model, &info, &c->err);
    if (status != EMO_OK)
        return status;
    const char *name = emo_dtype_name(dtype < 0 ? info.dtype : dtype);
    progress_clear(&c->line);
    if (c->common.json) {
        json_writer json = {stdout, 0, {0}};
        json_open(&json, NULL);
        json_string(&json, "model", out);
        json_integer(&json, "parameters", info.parameters);
        json_string(&json, "dtype", name);
        json_close(&json);
    } else if (!c->common.quiet) {
        char all[32];
        printf("%s: %s parameters, %s\n", out, human_count((double)info.parameters, all), name == NULL ? "?" : name);
    }
    return EMO_OK;
}

int cmd_convert(int argc, char **argv) {
    const char *folder = NULL, *out = NULL, *dtype = "keep", *shard = "5GB";
    option table[] = {{"model", OPTION_STRING, &folder, "DIR", "the model folder", NULL, 0, 0, 1, 0},
                      {"out", OPTION_STRING, &out, "DIR", "the folder to write", NULL, 0, 0, 1, 0},
                      {"dtype", OPTION_CHOICE, &dtype, "keep|f32|bf16|f16", "element type of the weights",
                       "keep, as they are", 0, 0, 0, 0},
                      {"max-shard-size", OPTION_STRING, &shard, "SIZE",
                       "largest weight file: bytes, or with KB, MB, GB, KiB, MiB, "
                       "GiB",
                       "5GB", 0, 0, 0, 0},
                      OPTION_END};
    cli c;
    if (!cli_begin(&c, &text, table, argc, argv))
        return c.code;
    emo_model *model = NULL;
    emo_model_save_options options = EMO_MODEL_SAVE_OPTIONS_INIT;
    options.progress = cli_progress(&c);
    options.shard_bytes = parse_size(shard);
    options.dtype = dtype_by_name(dtype);
    if (options.shard_bytes == 0) {
        cli_usage(&c, "--max-shard-size takes a size such as 5GB, 500MB or 2GiB, not '%s'.", shard);
        goto done;
    }
    if (same_folder(folder, out)) {
        cli_usage(&c, "--out is the model itself: name another folder.");
        goto done;
    }
    EMO_TRY(cli_load_model(&c, folder, NULL, &model));
    EMO_TRY(emo_model_save(model, out, &options, &c.err));
    EMO_TRY(copy_companions(&c, folder, out));
    EMO_TRY(print_result(&c, out, model, options.dtype));
done:
    emo_model_release(model);
    return cli_end(&c);
}
