/* SPDX-License-Identifier: Apache-2.0 */
/* What the targets share; and libFuzzer's entries. */
#define _XOPEN_SOURCE 700 /* nftw */
#include "fuzz/fuzz.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

static const fuzz_target targets[] = {
    {"json", fuzz_json},       {"safetensors", fuzz_safetensors},
    {"config", fuzz_config},   {"tokenizer", fuzz_tokenizer},
    {"text", fuzz_text},       {"jsonl", fuzz_jsonl},
    {"gzip", fuzz_gzip},       {"npy", fuzz_npy},
    {"mask", fuzz_mask},       {"stats", fuzz_stats},
    {"pool", fuzz_pool},       {"checkpoint", fuzz_checkpoint},
    {"index", fuzz_index},     {"folder", fuzz_model_folder},
    {"mix", fuzz_mix},         {"recipe", fuzz_recipe},
    {"options", fuzz_options}, {"api", fuzz_api},
    {"gguf", fuzz_gguf},       {"tasks", fuzz_tasks},
};

const fuzz_target *fuzz_find(const char *name) {
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        if (strcmp(targets[i].name, name) == 0)
            return &targets[i];
    }
    return NULL;
}

void fuzz_list(FILE *to) {
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++)
        (void)fprintf(to, "%s%s", i > 0 ? " " : "", targets[i].name);
    (void)fprintf(to, "\n");
}

/* ---- memory ---- */

#define LARGEST ((size_t)64 << 20)
#define IN_ALL ((size_t)512 << 20)
static size_t held;

static void *take(void *ctx, size_t size, size_t alignment) {
    void *block = NULL;
    (void)ctx;
    if (size > LARGEST || held + size > IN_ALL || posix_memalign(&block, alignment, size) != 0)
        return NULL;
    held += size;
    return block;
}

static void give(void *ctx, void *block, size_t size, size_t alignment) {
    (void)ctx;
    (void)alignment;
    held -= size;
    free(block);
}

/* ---- the runtime and the folder ---- */

static emo_runtime *runtime;
static char folder[512];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where) {
    (void)st;
    (void)type;
    (void)where;
    return remove(path);
}

static void clean(void) {
    if (folder[0] != '\0')
        (void)nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    emo_runtime_release(runtime);
    runtime = NULL;
}

emo_runtime *fuzz_runtime(void) {
    if (runtime == NULL) {
        emo_error err = EMO_ERROR_INIT;
        emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
        options.threads = 1;
        options.isa = EMO_ISA_SCALAR;
        options.allocator.alloc = take;
        options.allocator.free = give;
        FUZZ_OK(emo_runtime_create(&options, &runtime, &err));
        (void)atexit(clean);
    }
    return runtime;
}

const char *fuzz_file(const char *name, const uint8_t *data, size_t size) {
    static char ring[4][1024];
    static unsigned next;
    char *path = ring[next++ % 4];
    (void)fuzz_runtime();
    if (folder[0] == '\0') {
        const char *base = getenv("TMPDIR");
        (void)snprintf(folder, sizeof folder, "%s/emo-fuzz-XXXXXX", base != NULL && base[0] != '\0' ? base : "/tmp");
        FUZZ_CHECK(mkdtemp(folder) != NULL);
    }
    (void)snprintf(path, sizeof ring[0], "%s/%s", folder, name);
    if (data != NULL) {
        FILE *file = fopen(path, "wb");
        FUZZ_CHECK(file != NULL);
        FUZZ_CHECK(fwrite(data, 1, size, file) == size);
        FUZZ_CHECK(fclose(file) == 0);
    }
    return path;
}

/* ---- tiny objects ---- */

emo_model *fuzz_model(uint64_t seed) {
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = NULL;
    emo_model_create_options options = EMO_MODEL_CREATE_OPTIONS_INIT;
    options.seed = seed;
    FUZZ_OK(emo_model_create_json(fuzz_runtime(), FUZZ_CONFIG, strlen(FUZZ_CONFIG), &options, &model, &err));
    return model;
}

emo_dataset *fuzz_data(void) {
    static const int32_t tokens[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    static const size_t lengths[] = {7, 1, 4};
    static const char *const domains[] = {"a", "b", "a"};
    emo_error err = EMO_ERROR_INIT;
    emo_dataset *data = NULL;
    FUZZ_OK(emo_dataset_from_tokens(fuzz_runtime(), tokens, lengths, domains, 3, 15, &data, &err));
    return data;
}

emo_train_options fuzz_train_options(void) {
    emo_train_options o = EMO_TRAIN_OPTIONS_INIT;
    o.max_steps = 2;
    o.batch_rows = 2;
    o.seq_len = 8;
    o.warmup = 0;
    return o;
}

/* ---- verdicts ---- */

void fuzz_stop(const char *file, int line, const char *what, const char *message) {
    (void)fprintf(stderr, "%s:%d: not as promised: %s %s\n", file, line, what, message);
    abort();
}

bool fuzz_sane(const char *file, int line, const char *call, emo_status status, const emo_error *err) {
    if (status == EMO_OK)
        return true;
    if (status == EMO_E_INTERNAL || status > 0)
        fuzz_stop(file, line, call, err->message);
    if (err->code != status || err->message[0] == '\0' || memchr(err->message, 0, sizeof err->message) == NULL)
        fuzz_stop(file, line, call, "did not say what is wrong");
    return false;
}

/* ---- libFuzzer: emo_fuzz TARGET [its options and corpus folders] ---- */

#ifdef EMO_FUZZ
static const fuzz_target *chosen;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) {
    chosen = *argc > 1 ? fuzz_find((*argv)[1]) : NULL;
    if (chosen == NULL) {
        (void)fprintf(stderr, "usage: emo_fuzz TARGET [libFuzzer's options] [FOLDER...]; targets: ");
        fuzz_list(stderr);
        exit(2);
    }
    for (int i = 1; i + 1 < *argc; i++)
        (*argv)[i] = (*argv)[i + 1];
    (*argc)--;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    chosen->run(data, size);
    return 0;
}
#endif
