/* SPDX-License-Identifier: Apache-2.0 */
#define _DEFAULT_SOURCE /* mkdtemp(3) */
#include "bench_shape.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const bench_shape shapes[] = {
    {"tiny", 64, 2, 4, 9, 32, 3, 512, 1024, 4, 128},
    {"small", 256, 6, 8, 33, 128, 4, 8192, 4096, 8, 512},
    {"released-2-layers", 2048, 2, 16, 128, 1024, 8, 100352, 4096, 0, 0},
};

const bench_shape *bench_shape_named(const char *name) {
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        if (strcmp(shapes[i].name, name) == 0)
            return &shapes[i];
    }
    return NULL;
}

static int write_config(const bench_shape *s, char *text, size_t capacity) {
    return snprintf(text, capacity,
                    "{\"model_type\":\"emo\",\"vocab_size\":%d,\"hidden_size\":%d,\"intermediate_size\":%d,"
                    "\"num_hidden_layers\":%d,\"num_attention_heads\":%d,\"num_key_value_heads\":%d,"
                    "\"max_position_embeddings\":%d,\"num_experts_per_tok\":%d,\"num_experts\":%d,"
                    "\"num_shared_experts\":1,\"norm_topk_prob\":false,\"rms_norm_eps\":1e-6,\"rope_theta\":500000.0,"
                    "\"eos_token_id\":1,\"pad_token_id\":0}",
                    (int)s->vocab, (int)s->hidden, (int)s->inner, (int)s->layers, (int)s->heads, (int)s->heads,
                    (int)s->positions, (int)s->top_k, (int)s->experts);
}

/* ---- a safetensors file of random bf16 numbers that is nowhere ---- */

enum { BLOCK = 1 << 20, NAME_ROOM = 256 };

typedef struct random_file {
    char *header; /* with its length in front; the data follow: norms, then everything else */
    size_t length, room;
    uint64_t data;     /* bytes so far */
    uint64_t norms;    /* bytes of the norms, which are ones */
    uint16_t *numbers; /* BLOCK random ones, over and over */
} random_file;

static int declare(random_file *f, const char *name, int64_t rows, int64_t cols) {
    if (f->length + NAME_ROOM > f->room) {
        size_t larger = f->room * 2 + 4096;
        char *grown = realloc(f->header, larger);
        if (grown == NULL)
            return 0;
        f->header = grown;
        f->room = larger;
    }
    uint64_t end = f->data + (uint64_t)(rows * cols) * 2;
    char shape[48];
    if (rows == 1)
        (void)snprintf(shape, sizeof(shape), "%lld", (long long)cols);
    else
        (void)snprintf(shape, sizeof(shape), "%lld,%lld", (long long)rows, (long long)cols);
    f->length += (size_t)snprintf(
        f->header + f->length, NAME_ROOM, "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[%s],\"data_offsets\":[%llu,%llu]}",
        f->data > 0 ? "," : "{", name, shape, (unsigned long long)f->data, (unsigned long long)end);
    f->data = end;
    return 1;
}

static int declare_norms(random_file *f, const bench_shape *s) {
    static const char *const names[] = {"pre_attention_layernorm", "pre_feedforward_layernorm"};
    char name[96];
    int ok = declare(f, "model.norm.weight", 1, s->hidden);
    for (int l = 0; l < s->layers; l++)
        for (int i = 0; ok && i < 2; i++) {
            (void)snprintf(name, sizeof(name), "model.layers.%d.%s.weight", l, names[i]);
            ok = declare(f, name, 1, s->hidden);
        }
    f->norms = f->data;
    return ok;
}

static int declare_matrices(random_file *f, const bench_shape *s) {
    static const char *const attention[] = {"q_proj", "k_proj", "v_proj", "o_proj"};
    static const char *const parts[] = {"gate_proj", "up_proj", "down_proj"};
    char name[96];
    int ok = declare(f, "model.embed_tokens.weight", s->vocab, s->hidden) &&
             declare(f, "lm_head.weight", s->vocab, s->hidden);
    for (int l = 0; ok && l < s->layers; l++) {
        for (int i = 0; ok && i < 4; i++) {
            (void)snprintf(name, sizeof(name), "model.layers.%d.self_attn.%s.weight", l, attention[i]);
            ok = declare(f, name, s->hidden, s->hidden);
        }
        (void)snprintf(name, sizeof(name), "model.layers.%d.mlp.gate.weight", l);
        ok = ok && declare(f, name, s->experts, s->hidden);
        for (int e = 0; ok && e < s->experts; e++)
            for (int i = 0; ok && i < 3; i++) {
                (void)snprintf(name, sizeof(name), "model.layers.%d.mlp.experts.%d.%s.weight", l, e, parts[i]);
                ok = i < 2 ? declare(f, name, s->inner, s->hidden) : declare(f, name, s->hidden, s->inner);
            }
    }
    return ok;
}

static emo_status file_size(void *ctx, uint64_t *size) {
    const random_file *f = ctx;
    *size = f->length + f->data;
    return EMO_OK;
}

static emo_status file_read(void *ctx, uint64_t offset, void *data, size_t size) {
    static const uint16_t one = 0x3F80;
    const random_file *f = ctx;
    char *to = data;
    while (size > 0) {
        size_t n = 2;
        uint64_t at = offset - f->length;
        if (offset < f->length) {
            n = f->length - (size_t)offset < size ? f->length - (size_t)offset : size;
            memcpy(to, f->header + offset, n);
        } else if (at < f->norms || size < 2 || at % 2 != 0) {
            uint16_t number = at < f->norms ? one : f->numbers[at / 2 % BLOCK];
            n = at % 2 != 0 || size < 2 ? 1 : 2;
            memcpy(to, (const char *)&number + at % 2, n);
        } else {
            /* another beginning for every run of the block, so that experts differ */
            uint64_t block = at / (2 * BLOCK), within = at % (2 * BLOCK), shift = block * 7919 % BLOCK;
            n = 2 * BLOCK - (size_t)within;
            n = n < size ? n / 2 * 2 : size / 2 * 2;
            memcpy(to, f->numbers + shift + within / 2, n);
        }
        to += n;
        offset += n;
        size -= n;
    }
    return EMO_OK;
}

static void file_release(void *ctx) {
    random_file *f = ctx;
    free(f->header);
    free(f->numbers);
    free(f);
}

/* About normal, standard deviation 0.02; twice the block, so that any beginning has one behind it. */
static void fill(uint16_t *numbers) {
    uint32_t x = 12345;
    for (int i = 0; i < BLOCK; i++) {
        float sum = 0.0f;
        uint32_t bits;
        for (int k = 0; k < 4; k++) {
            x = x * 1664525u + 1013904223u;
            sum += (float)(x >> 8) / 16777216.0f - 0.5f;
        }
        sum *= 0.02f * 1.7320508f;
        memcpy(&bits, &sum, sizeof(bits));
        numbers[i] = numbers[i + BLOCK] = (uint16_t)(bits >> 16);
    }
}

/* The header closed, and its length in front of it; declare() leaves room. */
static void close_header(random_file *f) {
    uint64_t length = (f->length - 8 + 1 + 7) / 8 * 8;
    memset(f->header + f->length, ' ', (size_t)length + 8 - f->length);
    f->header[f->length] = '}';
    memcpy(f->header, &length, 8);
    f->length = (size_t)length + 8;
}

static emo_status random_source(cli *c, const bench_shape *shape, emo_source **out) {
    emo_source_vtable table = EMO_SOURCE_VTABLE_INIT;
    random_file *f = calloc(1, sizeof(*f));
    if (f == NULL)
        return cli_fail(c, EMO_E_OUT_OF_MEMORY, "out of memory");
    f->length = 8;
    f->numbers = malloc(2 * (size_t)BLOCK * sizeof(*f->numbers));
    if (f->numbers == NULL || !declare_norms(f, shape) || !declare_matrices(f, shape)) {
        file_release(f);
        return cli_fail(c, EMO_E_OUT_OF_MEMORY, "out of memory");
    }
    close_header(f);
    fill(f->numbers);
    table.size = file_size;
    table.read_at = file_read;
    table.release = file_release;
    emo_status status = emo_source_create(c->rt, &table, f, out, &c->err);
    if (status != EMO_OK)
        file_release(f);
    return status;
}

/* ---- models ---- */

/* Puts a GGUF file of the model in another type in the place of *model; the file has no name left afterwards. */
static emo_status through_file(cli *c, emo_dtype dtype, emo_model **model) {
    const char *parent = getenv("TMPDIR");
    char folder[1024];
    (void)snprintf(folder, sizeof(folder), "%s/emo-bench-XXXXXX", parent != NULL ? parent : "/tmp");
    char *path = mkdtemp(folder) != NULL ? path_join(folder, "model.gguf") : NULL;
    if (path == NULL)
        return cli_fail(c, EMO_E_IO, "cannot make a folder like %s", folder);
    emo_export_options options = EMO_EXPORT_OPTIONS_INIT;
    options.dtype = dtype;
    options.progress = cli_progress(c);
    emo_status status = emo_model_export(*model, path, &options, NULL, &c->err);
    emo_model_release(*model);
    *model = NULL;
    if (status == EMO_OK)
        status = cli_load_model(c, path, NULL, model);
    (void)unlink(path);
    (void)rmdir(folder);
    free(path);
    return status;
}

emo_status bench_model_of_config(cli *c, const char *config, size_t length, emo_dtype dtype, emo_model **out) {
    emo_model_create_options options = EMO_MODEL_CREATE_OPTIONS_INIT;
    options.compute = cli_compute(c);
    options.progress = cli_progress(c);
    emo_status status = emo_model_create_json(c->rt, config, length, &options, out, &c->err);
    return status == EMO_OK && dtype != EMO_DTYPE_F32 ? through_file(c, dtype, out) : status;
}

emo_status bench_model_of_shape(cli *c, const bench_shape *shape, emo_dtype dtype, emo_model **out) {
    char config[1024];
    int length = write_config(shape, config, sizeof(config));
    if (dtype == EMO_DTYPE_F32)
        return bench_model_of_config(c, config, (size_t)length, dtype, out);
    emo_source *source = NULL;
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    options.compute = cli_compute(c);
    options.progress = cli_progress(c);
    emo_status status = random_source(c, shape, &source);
    if (status == EMO_OK)
        status = emo_model_load_sources(c->rt, config, (size_t)length, &source, 1, &options, out, &c->err);
    emo_source_release(source);
    return status == EMO_OK && dtype != EMO_DTYPE_BF16 ? through_file(c, dtype, out) : status;
}
