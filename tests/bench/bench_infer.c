/* SPDX-License-Identifier: Apache-2.0 */
/* Prompts and generation at the size of the released models, with as many layers as the memory holds.
 *   bench_infer make DIR [LAYERS]          writes a model of random bf16 weights: hidden 2048, 16 heads, 127 routed
 * experts of 1024 and a shared one, 8 a token, vocabulary 100352; 1.6 GB a layer and 0.8 GB bench_infer run MODEL
 * [threads] [f32|bf16] [prompt tokens] [generated tokens] [isa] MODEL: a folder or a .gguf file. Prints tokens per
 * second, and what generation reads of the weights a second. */
#include <emo/emo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

enum { HIDDEN = 2048, INNER = 1024, EXPERTS = 128, VOCAB = 100352, CHOSEN = 8, BLOCK = 1 << 20 };

/* ---- make ---- */

typedef struct maker {
    FILE *file;
    char *header; /* grows as tensors are named; the data follow in the same order */
    size_t length;
    size_t room;
    uint64_t offset;
    uint16_t *block; /* BLOCK random bf16, twice */
    uint32_t state;
} maker;

static int name_tensor(maker *m, const char *name, int64_t rows, int64_t cols) {
    if (m->length + 256 > m->room) {
        m->room = m->room * 2 + 4096;
        char *more = realloc(m->header, m->room);
        if (more == NULL)
            return 0;
        m->header = more;
    }
    uint64_t end = m->offset + (uint64_t)(rows * cols) * 2;
    int n = rows == 1 ? snprintf(m->header + m->length, 256,
                                 "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[%lld],\"data_offsets\":[%llu,%llu]}",
                                 m->offset > 0 ? "," : "{", name, (long long)cols, (unsigned long long)m->offset,
                                 (unsigned long long)end)
                      : snprintf(m->header + m->length, 256,
                                 "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[%lld,%lld],\"data_offsets\":[%llu,%llu]}",
                                 m->offset > 0 ? "," : "{", name, (long long)rows, (long long)cols,
                                 (unsigned long long)m->offset, (unsigned long long)end);
    m->length += (size_t)n;
    m->offset = end;
    return 1;
}

static int write_tensor(maker *m, const char *name, int64_t rows, int64_t cols) {
    (void)name;
    static const uint16_t one = 0x3F80;
    for (int64_t left = rows * cols; left > 0;) {
        m->state = m->state * 1664525u + 1013904223u;
        int64_t n = left < BLOCK ? left : BLOCK;
        const uint16_t *from = m->block + (m->state >> 13) % BLOCK;
        if (rows == 1) { /* a norm */
            for (int64_t i = 0; i < n; i++)
                if (fwrite(&one, 2, 1, m->file) != 1)
                    return 0;
        } else if (fwrite(from, 2, (size_t)n, m->file) != (size_t)n) {
            return 0;
        }
        left -= n;
    }
    return 1;
}

static int each_tensor(maker *m, int layers, int (*visit)(maker *, const char *, int64_t, int64_t)) {
    static const char *const attention[] = {"q_proj", "k_proj", "v_proj", "o_proj"};
    static const char *const parts[] = {"gate_proj", "up_proj", "down_proj"};
    char name[128];
    int ok = visit(m, "model.embed_tokens.weight", VOCAB, HIDDEN) && visit(m, "lm_head.weight", VOCAB, HIDDEN) &&
             visit(m, "model.norm.weight", 1, HIDDEN);
    for (int l = 0; ok && l < layers; l++) {
        for (int i = 0; ok && i < 4; i++) {
            (void)snprintf(name, sizeof name, "model.layers.%d.self_attn.%s.weight", l, attention[i]);
            ok = visit(m, name, HIDDEN, HIDDEN);
        }
        (void)snprintf(name, sizeof name, "model.layers.%d.pre_attention_layernorm.weight", l);
        ok = ok && visit(m, name, 1, HIDDEN);
        (void)snprintf(name, sizeof name, "model.layers.%d.pre_feedforward_layernorm.weight", l);
        ok = ok && visit(m, name, 1, HIDDEN);
        (void)snprintf(name, sizeof name, "model.layers.%d.mlp.gate.weight", l);
        ok = ok && visit(m, name, EXPERTS, HIDDEN);
        for (int e = 0; ok && e < EXPERTS; e++)
            for (int i = 0; ok && i < 3; i++) {
                (void)snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.%s.weight", l, e, parts[i]);
                ok = i < 2 ? visit(m, name, INNER, HIDDEN) : visit(m, name, HIDDEN, INNER);
            }
    }
    return ok;
}

static int make(const char *folder, int layers) {
    char path[4096];
    maker m = {.state = 12345};
    (void)snprintf(path, sizeof path, "%s/config.json", folder);
    FILE *config = fopen(path, "w");
    if (config == NULL) {
        perror(path);
        return 1;
    }
    (void)fprintf(config,
                  "{\"model_type\":\"emo\",\"vocab_size\":%d,\"hidden_size\":%d,\"intermediate_size\":%d,"
                  "\"num_hidden_layers\":%d,\"num_attention_heads\":16,\"num_key_value_heads\":16,"
                  "\"max_position_embeddings\":4096,\"num_experts_per_tok\":%d,\"num_experts\":%d,"
                  "\"num_shared_experts\":1,\"norm_topk_prob\":false,\"rms_norm_eps\":1e-6,\"rope_theta\":500000.0,"
                  "\"eos_token_id\":100257,\"pad_token_id\":100277}\n",
                  VOCAB, HIDDEN, INNER, layers, CHOSEN, EXPERTS);
    int ok = fclose(config) == 0;
    (void)snprintf(path, sizeof path, "%s/model.safetensors", folder);
    m.file = fopen(path, "wb");
    m.block = malloc(sizeof *m.block * 2 * BLOCK);
    ok = ok && m.file != NULL && m.block != NULL;
    for (int i = 0; ok && i < BLOCK; i++) { /* about normal, std 0.02 */
        float sum = 0.0f;
        for (int k = 0; k < 4; k++) {
            m.state = m.state * 1664525u + 1013904223u;
            sum += (float)(m.state >> 8) / 16777216.0f - 0.5f;
        }
        sum *= 0.02f * 1.7320508f;
        uint32_t bits;
        memcpy(&bits, &sum, sizeof bits);
        m.block[i] = m.block[i + BLOCK] = (uint16_t)(bits >> 16);
    }
    ok = ok && each_tensor(&m, layers, name_tensor);
    if (ok) {
        uint64_t size = (m.length + 1 + 7) / 8 * 8;
        memset(m.header + m.length, ' ', (size_t)(size - m.length));
        m.header[m.length] = '}';
        ok = fwrite(&size, 8, 1, m.file) == 1 && fwrite(m.header, 1, (size_t)size, m.file) == size &&
             each_tensor(&m, layers, write_tensor);
    }
    if (m.file != NULL && fclose(m.file) != 0)
        ok = 0;
    if (!ok)
        perror(path);
    free(m.block);
    free(m.header);
    return !ok;
}

/* ---- run ---- */

static double seconds(void) { return (double)emo__now_ns() * 1e-9; }

static emo_status run(emo_runtime *rt, const char *path, emo_dtype compute, int prompt, int generated, emo_error *err) {
    emo_model *model = NULL;
    emo_session *session = NULL;
    emo_model_load_options load = EMO_MODEL_LOAD_OPTIONS_INIT;
    load.compute = compute;
    emo_session_options options = EMO_SESSION_OPTIONS_INIT;
    options.max_tokens = generated;
    options.ignore_eos = 1;
    int32_t *ids = malloc(sizeof *ids * (size_t)prompt);
    emo_status status = ids != NULL ? EMO_OK : EMO_E_OUT_OF_MEMORY;
    double best_prompt = 1e30, best_token = 1e30, prompts = 0.0, tokens = 0.0; /* the last two but for the first turn */
    if (status != EMO_OK)
        return status;
    EMO_TRY(status = emo_model_load_path(rt, path, &load, &model, err));
    emo_model_info info = EMO_MODEL_INFO_INIT;
    EMO_TRY(status = emo_model_get_info(model, &info, err));
    for (int i = 0; i < prompt; i++)
        ids[i] = (i * 7919 + i * i % 97) % (info.vocab - 1);
    for (int turn = 0; turn < 3; turn++) { /* the first reads the file */
        emo_state state = EMO_STATE_PENDING;
        EMO_TRY(status = emo_session_create(model, &options, &session, err));
        EMO_TRY(status = emo_session_append_tokens(session, 0, ids, (size_t)prompt, err));
        double began = seconds();
        EMO_TRY(status = emo_session_advance(session, NULL, &state, err));
        double took = seconds() - began;
        best_prompt = took < best_prompt ? took : best_prompt;
        prompts += turn > 0 ? took : 0.0;
        for (int i = 1; i < generated; i++) {
            began = seconds();
            EMO_TRY(status = emo_session_advance(session, NULL, &state, err));
            took = seconds() - began;
            best_token = took < best_token ? took : best_token;
            tokens += turn > 0 ? took : 0.0;
        }
        emo_session_release(session);
        session = NULL;
    }
    /* all but the embedding's table is read for a token */
    double parameters = (double)info.active - (double)info.vocab * info.hidden;
    (void)printf(
        "prompt of %d: %.1f tokens/s; after it %.2f tokens/s (best), %.0f M weights a token; on average %.1f, %.2f\n",
        prompt, prompt / best_prompt, 1.0 / best_token, parameters * 1e-6, 2 * prompt / prompts,
        2 * (generated - 1) / tokens);
done:
    emo_session_release(session);
    emo_model_release(model);
    free(ids);
    return status;
}

int main(int argc, char **argv) {
    if (argc > 2 && strcmp(argv[1], "make") == 0)
        return make(argv[2], argc > 3 ? (int)strtol(argv[3], NULL, 10) : 4);
    if (argc < 3 || strcmp(argv[1], "run") != 0) {
        (void)fprintf(stderr,
                      "usage: %s make DIR [LAYERS] | run MODEL [threads] [f32|bf16] [prompt] [generated] [isa]\n",
                      argv[0]);
        return 2;
    }
    emo_error err = EMO_ERROR_INIT;
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    emo_runtime *rt = NULL;
    options.threads = argc > 3 ? (int32_t)strtol(argv[3], NULL, 10) : 1;
    for (emo_isa isa = 1; argc > 7 && isa <= EMO_ISA_AMX; isa++)
        if (emo_isa_name(isa) != NULL && strcmp(emo_isa_name(isa), argv[7]) == 0)
            options.isa = isa;
    emo_dtype compute = argc > 4 && strcmp(argv[4], "bf16") == 0 ? EMO_DTYPE_BF16 : EMO_DTYPE_F32;
    emo_status status = emo_runtime_create(&options, &rt, &err);
    if (status == EMO_OK)
        status = run(rt, argv[2], compute, argc > 5 ? (int)strtol(argv[5], NULL, 10) : 512,
                     argc > 6 ? (int)strtol(argv[6], NULL, 10) : 16, &err);
    if (status != EMO_OK)
        (void)fprintf(stderr, "%s\n", err.message);
    emo_runtime_release(rt);
    return status != EMO_OK;
}
