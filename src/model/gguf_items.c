/* SPDX-License-Identifier: Apache-2.0 */
/* Which tensor of a GGUF file is which of the model. */
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "model/gguf.h"

emo_status emo__gguf_can_say(const emo__config *c, emo_error *err) {
#define NO(...) return emo__fail(err, EMO_E_UNSUPPORTED, "GGUF cannot say this model: " __VA_ARGS__)
    int32_t moe = -1; /* the first MoE layer */
    for (int32_t l = 0; l < c->layers; l++) {
        const emo__layer_config *layer = &c->layer[l];
        if (layer->experts == 0) {
            if (moe >= 0)
                NO("layer %d is dense behind the MoE layer %d; dense layers must come first", (int)l, (int)moe);
            if (c->dense_bias)
                NO("dense layers with biases (dense_mlp_bias)");
            continue;
        }
        moe = moe < 0 ? l : moe;
        if (layer->n_always > 0)
            NO("layer %d has always-active experts, which are chosen by nobody but weighted by the router", (int)l);
        if (layer->shared > 1)
            NO("layer %d has %d shared experts; one or none is possible", (int)l, (int)layer->shared);
        if (layer->experts != c->layer[moe].experts || layer->shared != c->layer[moe].shared)
            NO("layers %d and %d have %d and %d experts (%d and %d shared); all MoE layers must have the same number",
               (int)moe, (int)l, (int)c->layer[moe].experts, (int)layer->experts, (int)c->layer[moe].shared,
               (int)layer->shared);
    }
    if (moe >= 0 && c->norm_topk)
        NO("the weights of the chosen experts are renormalised (norm_topk_prob)");
    if (moe >= 0 && c->gating != EMO_GATING_SOFTMAX)
        NO("its routers weigh experts by a sigmoid");
    if (moe >= 0 && c->score_bias)
        NO("its routers have score biases");
    if (c->attention_bias)
        NO("attention with biases (attention_bias)");
    if ((int64_t)c->heads * c->head_dim != c->hidden)
        NO("%d heads of %d are not the hidden size %d", (int)c->heads, (int)c->head_dim, (int)c->hidden);
#undef NO
    return EMO_OK;
}

static const char *const layer_words[EMO__W_COUNT] = {
    [EMO__W_ATTN_NORM] = "attn_norm",
    [EMO__W_Q] = "attn_q",
    [EMO__W_K] = "attn_k",
    [EMO__W_V] = "attn_v",
    [EMO__W_O] = "attn_output",
    [EMO__W_FFN_NORM] = "ffn_norm",
    [EMO__W_ROUTER] = "ffn_gate_inp",
    [EMO__W_MLP_GATE] = "ffn_gate",
    [EMO__W_MLP_UP] = "ffn_up",
    [EMO__W_MLP_DOWN] = "ffn_down",
};
static const char *const slot_words[3] = {
    [EMO_SLOT_GATE] = "ffn_gate", [EMO_SLOT_UP] = "ffn_up", [EMO_SLOT_DOWN] = "ffn_down"};

static emo__gguf_item plain(const char *name, int32_t layer, int32_t which, int64_t rows, int64_t cols) {
    emo__gguf_item item = {
        .layer = layer, .which = which, .expert = -1, .slices = 1, .rows = rows, .cols = cols, .vector = rows == 1};
    if (layer < 0)
        (void)snprintf(item.name, sizeof item.name, "%s.weight", name);
    else
        (void)snprintf(item.name, sizeof item.name, "blk.%d.%s.weight", (int)layer, name);
    item.exact = item.vector;
    return item;
}

static emo__gguf_item *layer_items(const emo__config *c, int32_t l, emo__gguf_item *at) {
    int64_t hidden = c->hidden, kv = (int64_t)c->kv_heads * c->head_dim;
    bool dense = c->layer[l].experts == 0;
    int32_t routed = emo__config_routed(c, l);
    for (int32_t which = 0; which < EMO__W_COUNT; which++) {
        int64_t rows = hidden, cols = hidden;
        if (layer_words[which] == NULL || (which >= EMO__W_MLP_GATE && !dense) || (which == EMO__W_ROUTER && dense))
            continue;
        if (which == EMO__W_ATTN_NORM || which == EMO__W_FFN_NORM)
            rows = 1;
        else if (which == EMO__W_K || which == EMO__W_V)
            rows = kv;
        else if (which == EMO__W_ROUTER)
            rows = routed;
        else if (which == EMO__W_MLP_GATE || which == EMO__W_MLP_UP)
            rows = c->dense_inner;
        else if (which == EMO__W_MLP_DOWN)
            cols = c->dense_inner;
        *at = plain(layer_words[which], l, which, rows, cols);
        at->heads = which == EMO__W_Q ? c->heads : which == EMO__W_K ? c->kv_heads : 0;
        if (which == EMO__W_ROUTER) { /* a single expert is a matrix of one row all the same */
            at->vector = false;
            at->exact = true;
        } else if (rows == 1 && which != EMO__W_ATTN_NORM && which != EMO__W_FFN_NORM) {
            at->vector = at->exact = false;
        }
        at++;
    }
    for (int32_t group = 0; !dense && group < 2; group++)
        for (int32_t slot = 0; slot < 3; slot++) {
            bool down = slot == EMO_SLOT_DOWN;
            *at = plain("", l, slot, down ? hidden : c->inner, down ? c->inner : hidden);
            (void)snprintf(at->name, sizeof at->name, "blk.%d.%s_%s.weight", (int)l, slot_words[slot],
                           group == 0 ? "exps" : "shexp");
            at->vector = at->exact = false;
            at->expert = group == 0 ? 0 : routed;
            at->slices = group == 0 ? routed : 1;
            at->zero = group == 1 && c->layer[l].shared == 0;
            at++;
        }
    return at;
}

emo_status emo__gguf_items(const emo__mem *mem, const emo__config *c, emo__gguf_item **out, size_t *count,
                           emo_error *err) {
    size_t most = 3 + 16 * (size_t)c->layers;
    *count = 0;
    *out = emo__malloc_array(mem, most, sizeof **out);
    if (*out == NULL)
        return emo__fail_memory(err, most * sizeof **out);
    emo__gguf_item *at = *out;
    *at++ = plain("token_embd", -1, 0, c->vocab, c->hidden);
    for (int32_t l = 0; l < c->layers; l++)
        at = layer_items(c, l, at);
    *at++ = plain("output_norm", -1, 1, 1, c->hidden);
    *at++ = plain("output", -1, 2, c->vocab, c->hidden);
    *count = (size_t)(at - *out);
    return EMO_OK;
}

emo_weight *emo__gguf_view(emo_model *m, const emo__gguf_item *item, int32_t slice) {
    if (item->layer < 0)
        return item->which == 0 ? &m->embed : item->which == 1 ? &m->norm : &m->head;
    emo__layer *layer = &m->layers[item->layer];
    if (item->expert < 0)
        return &layer->w[item->which];
    emo_expert_slot *slot = &layer->experts[item->expert + slice];
    return item->which == EMO_SLOT_GATE ? &slot->gate : item->which == EMO_SLOT_UP ? &slot->up : &slot->down;
}
