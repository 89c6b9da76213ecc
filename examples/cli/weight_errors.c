/* SPDX-License-Identifier: Apache-2.0 */
#include "weight_errors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A tensor as a GGUF file calls it, and as the library does. */
typedef struct tensor_word {
    const char *file;
    const char *model;
} tensor_word;

static const tensor_word layer_words[] = {
    {"attn_q", "self_attn.q_proj"},      {"attn_k", "self_attn.k_proj"}, {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"}, {"ffn_gate_inp", "mlp.gate"},   {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},           {"ffn_down", "mlp.down_proj"},
};
static const tensor_word expert_words[] = {{"ffn_gate", "gate_proj"}, {"ffn_up", "up_proj"}, {"ffn_down", "down_proj"}};
enum {
    ROUTER_WORD = 4,
    LAYER_WORDS = sizeof(layer_words) / sizeof(layer_words[0]),
    EXPERT_WORDS = sizeof(expert_words) / sizeof(expert_words[0])
};

typedef struct comparison {
    cli *c;
    const emo_model *original, *made;
    weight_errors *out;
    float *a, *b; /* room for the largest tensor so far */
    size_t room;
} comparison;

double weight_error_rms(const weight_error *e) {
    return e->elements > 0 ? sqrt(e->squares / (double)e->elements) : 0.0;
}
double weight_error_relative(const weight_error *e) { return e->norm > 0.0 ? sqrt(e->squares / e->norm) : 0.0; }

void weight_errors_free(weight_errors *errors) {
    free(errors->items);
    memset(errors, 0, sizeof(*errors));
}

static emo_status make_room(comparison *x, size_t count) {
    if (x->a != NULL && x->b != NULL && count <= x->room)
        return EMO_OK;
    count = count > 0 ? count : 1;
    free(x->a);
    free(x->b);
    x->a = malloc(count * sizeof(*x->a));
    x->b = malloc(count * sizeof(*x->b));
    x->room = x->a != NULL && x->b != NULL ? count : 0;
    return x->room > 0 ? EMO_OK : cli_fail(x->c, EMO_E_OUT_OF_MEMORY, "a tensor is too large for the memory");
}

static void add(weight_error *to, const float *a, const float *b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        double difference = (double)b[i] - (double)a[i];
        to->squares += difference * difference;
        to->norm += (double)a[i] * (double)a[i];
        to->largest = fabs(difference) > to->largest ? fabs(difference) : to->largest;
    }
    to->elements += (int64_t)n;
}

/* Adds a tensor, or its first `most` elements, to an item. What one of the two models does not have, and the router of
 * a pruned one, is passed over. */
static emo_status compare(comparison *x, weight_error *to, const char *original, const char *made, size_t most) {
    size_t n = 0, m = 0;
    emo_error err = EMO_ERROR_INIT;
    emo_status status = emo_model_tensor_f32(x->made, made, NULL, 0, &m, &err);
    if (status == EMO_OK)
        status = emo_model_tensor_f32(x->original, original, NULL, 0, &n, &err);
    if (status == EMO_E_NOT_FOUND)
        return EMO_OK;
    if (status != EMO_OK) {
        x->c->err = err;
        return status;
    }
    status = make_room(x, n > m ? n : m);
    if (status == EMO_OK)
        status = emo_model_tensor_f32(x->original, original, x->a, n, &n, &x->c->err);
    if (status == EMO_OK)
        status = emo_model_tensor_f32(x->made, made, x->b, m, &m, &x->c->err);
    if (status == EMO_OK && n == m) {
        n = n < most ? n : most;
        add(to, x->a, x->b, n);
        add(&x->out->all, x->a, x->b, n);
    }
    return status;
}

static weight_error *next_item(comparison *x) { return &x->out->items[x->out->count]; }

static void keep_item(comparison *x) {
    if (next_item(x)->elements > 0)
        x->out->count++;
    else
        memset(next_item(x), 0, sizeof(weight_error));
}

/* The expert of the original that this one was. */
static int32_t expert_of(const comparison *x, int32_t layer, int32_t expert) {
    int32_t id = emo_model_original_expert(x->made, layer, expert), experts = emo_model_experts(x->original, layer);
    for (int32_t e = 0; e < experts; e++) {
        if (emo_model_original_expert(x->original, layer, e) == id)
            return e;
    }
    return -1;
}

static emo_status compare_experts(comparison *x, int32_t layer, int32_t first, int32_t end, const char *kind) {
    emo_status status = EMO_OK;
    for (int word = 0; status == EMO_OK && word < EXPERT_WORDS; word++) {
        (void)snprintf(next_item(x)->name, sizeof(next_item(x)->name), "blk.%d.%s_%s.weight", (int)layer,
                       expert_words[word].file, kind);
        for (int32_t e = first; status == EMO_OK && e < end; e++) {
            char names[2][96];
            int32_t ids[2] = {expert_of(x, layer, e), e};
            for (int i = 0; i < 2; i++)
                (void)snprintf(names[i], sizeof(names[i]), "model.layers.%d.mlp.experts.%d.%s.weight", (int)layer,
                               (int)ids[i], expert_words[word].model);
            status = compare(x, next_item(x), names[0], names[1], SIZE_MAX);
        }
        keep_item(x);
    }
    return status;
}

static emo_status compare_layer(comparison *x, int32_t layer, int32_t hidden) {
    emo_status status = EMO_OK;
    int32_t experts = emo_model_experts(x->made, layer), shared = emo_model_shared(x->made, layer);
    /* a file has only the router's rows of routed experts */
    size_t router = (size_t)(experts - shared) * (size_t)hidden;
    for (int word = 0; status == EMO_OK && word < LAYER_WORDS; word++) {
        char name[96];
        (void)snprintf(next_item(x)->name, sizeof(next_item(x)->name), "blk.%d.%s.weight", (int)layer,
                       layer_words[word].file);
        (void)snprintf(name, sizeof(name), "model.layers.%d.%s.weight", (int)layer, layer_words[word].model);
        status = compare(x, next_item(x), name, name, word == ROUTER_WORD ? router : SIZE_MAX);
        keep_item(x);
    }
    if (status == EMO_OK)
        status = compare_experts(x, layer, 0, experts - shared, "exps");
    return status == EMO_OK ? compare_experts(x, layer, experts - shared, experts, "shexp") : status;
}

static emo_status compare_one(comparison *x, const char *file, const char *model) {
    (void)snprintf(next_item(x)->name, sizeof(next_item(x)->name), "%s", file);
    emo_status status = compare(x, next_item(x), model, model, SIZE_MAX);
    keep_item(x);
    return status;
}

emo_status weight_errors_collect(cli *c, const emo_model *original, const emo_model *made, weight_errors *out) {
    memset(out, 0, sizeof(*out));
    comparison x = {.c = c, .original = original, .made = made, .out = out};
    emo_model_info info = EMO_MODEL_INFO_INIT;
    emo_progress progress = cli_progress(c);
    emo_status status = emo_model_get_info(made, &info, &c->err);
    if (status == EMO_OK) {
        out->items = calloc(3 + (size_t)info.layers * (LAYER_WORDS + 2 * EXPERT_WORDS), sizeof(*out->items));
        if (out->items == NULL)
            status = cli_fail(c, EMO_E_OUT_OF_MEMORY, "out of memory");
    }
    if (status == EMO_OK)
        status = compare_one(&x, "token_embd.weight", "model.embed_tokens.weight");
    for (int32_t l = 0; status == EMO_OK && l < info.layers; l++) {
        emo_progress_info at = {"compare", (uint64_t)l, (uint64_t)info.layers};
        if (progress.report != NULL && progress.report(progress.ctx, &at) != 0)
            status = cli_fail(c, EMO_E_CANCELLED, "cancelled; the file is whole, its errors were not looked at");
        else
            status = compare_layer(&x, l, info.hidden);
    }
    if (status == EMO_OK)
        status = compare_one(&x, "output.weight", "lm_head.weight");
    free(x.a);
    free(x.b);
    return status;
}
