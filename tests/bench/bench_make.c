/* SPDX-License-Identifier: Apache-2.0 */
/* Writes a model of the released shape with random weights as a GGUF file, without ever holding it:
 *   bench_make FILE.gguf [TYPE] [LAYERS]
 * hidden 2048, 16 heads, 127 routed experts of 1024 and a shared one, 8 a token, vocabulary 100352; TYPE q4_0 (7.6 GB
 * at 16 layers), q8_0, q4_k or bf16. Every tensor is a stretch of one run of random numbers, each from another place in
 * it; the token embedding is so large that each token has a way of its own through the routers, as if nothing had been
 * learnt. The tokenizer has a token for each byte. */
#include <emo/emo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/gguf.h"
#include "tensor/dtype.h"
#include "tensor/quant.h"

enum { VOCAB = 100352, HIDDEN = 2048, PIECE = 1 << 26 };

static emo_dtype type_of(const char *name) {
    static const emo_dtype types[] = {EMO_DTYPE_Q4_0, EMO_DTYPE_Q8_0, EMO_DTYPE_Q4_K, EMO_DTYPE_BF16};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(name, emo_dtype_name(types[i])) == 0)
            return types[i];
    return -1;
}

/* splitmix64: a plain congruential sequence has rows that depend on each other. */
static uint64_t scramble(uint64_t i) {
    uint64_t z = (i + 1) * UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* Elements about normal, in blocks of `type`: PIECE of them again and again. */
static char *random_block(emo_dtype type, int64_t n, float std) {
    float *floats = malloc(PIECE * sizeof *floats);
    size_t bytes = emo__dtype_run(type, PIECE);
    int64_t pieces = (n + PIECE - 1) / PIECE;
    char *block = malloc((size_t)pieces * bytes);
    for (size_t i = 0; floats != NULL && i < PIECE; i++) {
        uint64_t bits = scramble(i);
        float sum = 0.0f;
        for (int k = 0; k < 4; k++)
            sum += (float)(bits >> (16 * k) & 0xFFFF) / 65536.0f - 0.5f;
        floats[i] = sum * std * 1.7320508f;
    }
    if (floats != NULL && block != NULL) {
        if (emo__dtype_quantised(type))
            (void)emo__quantise(block, type, floats, PIECE);
        else
            (void)emo__convert(block, type, floats, EMO_DTYPE_F32, PIECE);
        for (int64_t i = 1; i < pieces; i++)
            memcpy(block + (size_t)i * bytes, block, bytes);
    }
    free(floats);
    return block;
}

static void bind_all(emo_model *m, emo_dtype type, const char *block, const char *embedding, const char *routers,
                     const float *ones) {
    for (size_t i = 0; i < m->n_params; i++) {
        emo__param *p = &m->params[i];
        int64_t shift = (int64_t)(scramble(i) % (PIECE / EMO__QUANT_MAX_BLOCK)) * EMO__QUANT_MAX_BLOCK;
        if (p->vector != 0)
            emo__param_bind(p, ones, EMO_DTYPE_F32);
        else if (p->group == EMO__P_EMBED)
            emo__param_bind(p, embedding, type);
        else if (p->group == EMO__P_ROUTER)
            emo__param_bind(p, routers + emo__dtype_run(EMO_DTYPE_F32, shift), EMO_DTYPE_F32);
        else
            emo__param_bind(p, block + emo__dtype_run(type, shift), type);
    }
}

static emo_status make(emo_runtime *rt, const char *path, emo_dtype type, int layers, emo_error *err) {
    char text[768];
    emo__config c;
    emo_model *model = NULL;
    emo_tokenizer *tokenizer = NULL;
    emo_export_options options = EMO_EXPORT_OPTIONS_INIT;
    emo_export_info info = EMO_EXPORT_INFO_INIT;
    char *block = random_block(type, (int64_t)VOCAB * HIDDEN + PIECE, 0.02f);
    char *embedding = random_block(type, (int64_t)VOCAB * HIDDEN, 1.0f);
    char *routers = random_block(EMO_DTYPE_F32, 2 * PIECE, 0.02f);
    float ones[HIDDEN];
    for (int i = 0; i < HIDDEN; i++)
        ones[i] = 1.0f;
    int n = snprintf(text, sizeof text,
                     "{\"model_type\":\"emo\",\"vocab_size\":%d,\"hidden_size\":%d,\"intermediate_size\":1024,"
                     "\"num_hidden_layers\":%d,\"num_attention_heads\":16,\"num_key_value_heads\":16,"
                     "\"max_position_embeddings\":4096,\"num_experts_per_tok\":8,\"num_experts\":128,"
                     "\"num_shared_experts\":1,\"norm_topk_prob\":false,\"rms_norm_eps\":1e-6,\"rope_theta\":500000.0,"
                     "\"eos_token_id\":256,\"pad_token_id\":256}",
                     VOCAB, HIDDEN, layers);
    emo_status status = block != NULL && embedding != NULL && routers != NULL ? EMO_OK : EMO_E_OUT_OF_MEMORY;
    if (status == EMO_OK)
        status = emo__config_parse(&rt->mem, text, (size_t)n, &c, err);
    if (status == EMO_OK)
        status = emo__model_new(rt, &c, &model, err);
    if (status == EMO_OK)
        status = emo_tokenizer_create_bytes(rt, &tokenizer, err);
    if (status == EMO_OK)
        status = emo_model_set_tokenizer(model, tokenizer, err);
    if (status == EMO_OK) {
        bind_all(model, type, block, embedding, routers, ones); /* the types are held ones: bytes are copied */
        status = emo__model_export_gguf(model, path, &options, &info, err);
    }
    if (status == EMO_OK)
        printf("%s: %d tensors, %.2f GB\n", path, (int)info.tensors, (double)info.bytes * 1e-9);
    emo_tokenizer_release(tokenizer);
    emo_model_release(model);
    free(block);
    free(embedding);
    free(routers);
    return status;
}

int main(int argc, char **argv) {
    emo_dtype type = type_of(argc > 2 ? argv[2] : "q4_0");
    if (argc < 2 || type < 0) {
        (void)fprintf(stderr, "usage: %s FILE.gguf [q4_0|q8_0|q4_k|bf16] [LAYERS]\n", argv[0]);
        return 2;
    }
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = NULL;
    emo_status status = emo_runtime_create(NULL, &rt, &err);
    if (status == EMO_OK)
        status = make(rt, argv[1], type, argc > 3 ? atoi(argv[3]) : 16, &err);
    if (status != EMO_OK)
        (void)fprintf(stderr, "%s: %s\n", emo_status_name(status), err.message);
    emo_runtime_release(rt);
    return status != EMO_OK;
}
