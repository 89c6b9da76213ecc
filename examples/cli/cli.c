/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"
#include "device.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int exit_code_of(emo_status status) {
    switch (status) {
    case EMO_OK:
        return EXIT_CODE_OK;
    case EMO_E_INVALID_ARGUMENT:
    case EMO_E_RANGE:
        return EXIT_CODE_USAGE;
    case EMO_E_FORMAT:
        return EXIT_CODE_FORMAT;
    case EMO_E_NOT_FOUND:
    case EMO_E_EXISTS:
        return EXIT_CODE_PLACE;
    case EMO_E_UNSUPPORTED:
    case EMO_E_MISMATCH:
        return EXIT_CODE_UNFIT;
    case EMO_E_CANCELLED:
        return EXIT_CODE_CANCELLED;
    default:
        return EXIT_CODE_FAILURE;
    }
}

/* A file with a thousand broken lines need not fill the screen. */
enum { MOST_WARNINGS = 10 };

static void log_to_stderr(void *ctx, emo_log_level level, const char *message) {
    cli *c = ctx;
    int before = atomic_fetch_add(&c->warnings, 1);
    if (before > MOST_WARNINGS)
        return;
    progress_clear(&c->line);
    if (before == MOST_WARNINGS)
        fprintf(stderr, "emo: there are more warnings, which are not shown\n");
    else
        fprintf(stderr, "emo: %s: %s\n", level == EMO_LOG_ERROR ? "error" : "warning", message);
}

static emo_isa isa_by_name(const char *name) {
    for (emo_isa isa = EMO_ISA_SCALAR; name != NULL && isa <= EMO_ISA_AMX; isa++) {
        const char *known = emo_isa_name(isa); /* NULL between levels */
        if (known != NULL && strcmp(known, name) == 0)
            return isa;
    }
    return EMO_ISA_AUTO;
}

int cli_begin(cli *c, const command_text *text, option *table, int argc, char **argv) {
    memset(c, 0, sizeof(*c));
    atomic_init(&c->warnings, 0);
    c->text = text;
    c->table = table;
    switch (options_parse(text, table, &c->common, &c->operands, argc, argv)) {
    case PARSE_HELP:
        options_free(table, &c->operands);
        return 0;
    case PARSE_ERROR:
        options_free(table, &c->operands);
        c->code = EXIT_CODE_USAGE;
        return 0;
    case PARSE_RUN:
        break;
    }
    progress_begin(&c->line, c->common.quiet);
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    options.threads = c->common.threads;
    options.isa = isa_by_name(c->common.isa);
    if (!c->common.quiet) {
        options.log.ctx = c;
        options.log.log = log_to_stderr;
        options.log.level = EMO_LOG_WARNING;
    }
    char *libraries = NULL;
    emo_status status = cli_find_libraries(c, &libraries);
    options.libraries = libraries;
    if (status == EMO_OK)
        status = emo_runtime_create(&options, &c->rt, &c->err);
    free(libraries);
    if (status != EMO_OK || cli_load_backend(c) != EMO_OK) {
        c->code = cli_end(c);
        return 0;
    }
    return 1;
}

int cli_end(cli *c) {
    progress_clear(&c->line);
    fflush(stdout);
    int code = c->code;
    if (code == 0 && c->err.code != EMO_OK) {
        code = exit_code_of(c->err.code);
        const char *message = c->err.message[0] != '\0' ? c->err.message : emo_status_text(c->err.code);
        fprintf(stderr, "%s: %s\n", c->text->name, message);
        if (code == EXIT_CODE_USAGE)
            fprintf(stderr, "Try '%s --help'.\n", c->text->name);
    } else if (code == 0 && ferror(stdout)) {
        fprintf(stderr, "%s: writing to standard output failed\n", c->text->name);
        code = EXIT_CODE_FAILURE;
    }
    emo_runtime_release(c->rt);
    free(c->plugin);
    c->rt = NULL;
    options_free(c->table, &c->operands);
    return code;
}

emo_status cli_fail(cli *c, emo_status status, const char *format, ...) {
    memset(&c->err, 0, sizeof(c->err));
    c->err.code = status;
    c->err.domain = EMO_DOMAIN_ARGUMENT;
    va_list args;
    va_start(args, format);
    vsnprintf(c->err.message, sizeof(c->err.message), format, args);
    va_end(args);
    return status;
}

void cli_usage(cli *c, const char *format, ...) {
    char sentence[512];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    c->code = usage_error(c->text, "%s", sentence);
}

int cli_given(const cli *c, const char *name) {
    const option *o = options_find(c->table, name);
    return o != NULL && o->given > 0;
}

emo_progress cli_progress(cli *c) { return progress_hook(&c->line); }

/* ---- Files ---- */

emo_status cli_read_file(cli *c, const char *path, char **text, size_t *length) {
    *text = NULL;
    *length = 0;
    int from_stdin = strcmp(path, "-") == 0;
    FILE *file = from_stdin ? stdin : fopen(path, "rb");
    if (file == NULL)
        return cli_fail(c, errno == ENOENT ? EMO_E_NOT_FOUND : EMO_E_IO, "cannot open %s: %s", path, strerror(errno));
    char *data = NULL;
    size_t used = 0, capacity = 0;
    emo_status status = EMO_OK;
    for (;;) {
        if (capacity - used < 2) {
            size_t larger = capacity == 0 ? 65536 : capacity * 2;
            char *grown = larger > capacity ? realloc(data, larger) : NULL;
            if (grown == NULL) {
                status = cli_fail(c, EMO_E_OUT_OF_MEMORY, "%s is too large for the memory", path);
                break;
            }
            data = grown;
            capacity = larger;
        }
        size_t got = fread(data + used, 1, capacity - used - 1, file);
        used += got;
        if (got == 0)
            break;
    }
    if (status == EMO_OK && ferror(file))
        status = cli_fail(c, EMO_E_IO, "reading %s failed: %s", path, strerror(errno));
    if (!from_stdin)
        fclose(file);
    if (status != EMO_OK || data == NULL) {
        free(data);
        return status;
    }
    data[used] = '\0';
    *text = data;
    *length = used;
    return EMO_OK;
}

int path_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0;
}

int path_is_folder(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

int same_folder(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

char *path_join(const char *folder, const char *name) {
    size_t n = strlen(folder), m = strlen(name);
    char *path = malloc(n + m + 2);
    if (path == NULL)
        return NULL;
    memcpy(path, folder, n);
    if (n > 0 && path[n - 1] != '/')
        path[n++] = '/';
    memcpy(path + n, name, m + 1);
    return path;
}

/* ---- Models and masks ---- */

emo_dtype cli_compute(const cli *c) {
    return c->common.compute != NULL && strcmp(c->common.compute, "bf16") == 0 ? EMO_DTYPE_BF16 : EMO_DTYPE_F32;
}

emo_dtype dtype_by_name(const char *name) {
    static const emo_dtype dtypes[] = {EMO_DTYPE_F32,  EMO_DTYPE_BF16, EMO_DTYPE_F16,
                                       EMO_DTYPE_Q8_0, EMO_DTYPE_Q4_0, EMO_DTYPE_Q4_K};
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++) {
        if (strcmp(emo_dtype_name(dtypes[i]), name) == 0)
            return dtypes[i];
    }
    return -1;
}

emo_status cli_load_model(cli *c, const char *folder, const emo_mask *subset, emo_model **out) {
    return cli_load_within(c, folder, subset, NULL, out);
}

emo_status cli_load_within(cli *c, const char *folder, const emo_mask *subset, const cache_arguments *cache,
                           emo_model **out) {
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    if (cache != NULL && cache->budget > 0) {
        options.memory_budget = cache->budget;
        options.no_prefetch = cache->no_prefetch;
        options.drop_source = cache->drop_source;
        options.cache_policy = cache->policy == NULL || strcmp(cache->policy, "pool") == 0 ? EMO_CACHE_POOL
                               : strcmp(cache->policy, "lru") == 0                         ? EMO_CACHE_LRU
                                                                                           : EMO_CACHE_LFU;
    }
    options.subset = subset;
    options.progress = cli_progress(c);
    options.no_map = c->common.no_map;
    if (c->common.compute != NULL)
        options.compute = cli_compute(c);
    emo_status status = emo_model_load_path(c->rt, folder, &options, out, &c->err);
    return status == EMO_OK ? cli_place_model(c, *out) : status;
}

emo_status cli_export(cli *c, const char *path, const char *mask_path, const char *out, emo_export_options *options,
                      emo_export_info *info, emo_model **model) {
    emo_mask *mask = NULL;
    emo_status status;
    if (same_folder(path, out)) {
        cli_usage(c, "--out is the model itself: name another file.");
        return EMO_E_INVALID_ARGUMENT;
    }
    if (mask_path != NULL)
        EMO_TRY(status = emo_mask_load(c->rt, mask_path, &mask, &c->err));
    EMO_TRY(status = cli_load_model(c, path, mask, model)); /* only what is written is read */
    options->progress = cli_progress(c);
    status = emo_model_export(*model, out, options, info, &c->err);
done:
    emo_mask_release(mask);
    return status;
}

void describe_mask(const emo_mask *mask, char *buffer, size_t capacity) {
    int32_t layers = emo_mask_layers(mask), moe = 0, experts = 0, least = 0, most = 0, mixed = 0;
    for (int32_t l = 0; l < layers; l++) {
        int32_t e = emo_mask_experts(mask, l), kept = emo_mask_count(mask, l);
        if (e == 0)
            continue;
        if (moe++ == 0) {
            experts = e;
            least = most = kept;
        }
        mixed |= e != experts;
        least = kept < least ? kept : least;
        most = kept > most ? kept : most;
    }
    if (moe == 0)
        snprintf(buffer, capacity, "%d layers, none with experts", (int)layers);
    else if (least == most && !mixed)
        snprintf(buffer, capacity, "%d of %d experts in each of %d MoE layers", (int)least, (int)experts, (int)moe);
    else if (!mixed)
        snprintf(buffer, capacity, "%d to %d of %d experts in %d MoE layers", (int)least, (int)most, (int)experts,
                 (int)moe);
    else
        snprintf(buffer, capacity, "%d to %d experts in %d MoE layers of several sizes", (int)least, (int)most,
                 (int)moe);
}

void json_mask_layers(json_writer *json, const emo_mask *mask) {
    json_open_array(json, "layers");
    for (int32_t l = 0; l < emo_mask_layers(mask); l++) {
        json_open(json, NULL);
        json_integer(json, "experts", emo_mask_experts(mask, l));
        json_integer(json, "shared", emo_mask_shared(mask, l));
        json_integer(json, "kept", emo_mask_count(mask, l));
        json_open_array(json, "keep");
        for (int32_t e = 0; e < emo_mask_experts(mask, l); e++) {
            if (emo_mask_get(mask, l, e))
                json_integer(json, NULL, e);
        }
        json_close_array(json);
        json_close(json);
    }
    json_close_array(json);
}
