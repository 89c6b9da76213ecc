/* SPDX-License-Identifier: Apache-2.0 */
/* The language-model head: logits of a chunk of tokens, their softmax, and the gradient in its place. A label outside
 * the vocabulary counts as ignored: labels lie on the device and cannot be refused here. */
#include "backend/composed.h"

enum { HEAD_CHUNK = 256 };

typedef struct head {
    const emo_head_args *a;
    float *probs; /* [chunk, vocab] logits, then probabilities, then their gradient */
    float *lse;   /* [chunk] */
    float *valid; /* [chunk] 1, or 0 where ignored */
    float *pick;  /* [chunk] logit of the label, then the loss */
    float *scale; /* [chunk] */
} head;

static void chunk(emo__composed *c, const head *h, int64_t first, int64_t n) {
    const emo_head_args *a = h->a;
    int64_t vocab = a->weight.rows;
    const float *x = a->x + first * a->hidden;
    const int32_t *labels = a->labels + first;
    emo_array lse = emo__per_row(h->lse), valid = emo__per_row(h->valid), loss = emo__per_row(h->pick);
    EMO__RUN(c, linear_forward, emo_linear_args, .tokens = n, .x = x, .x_stride = a->hidden, .weight = a->weight,
             .y = h->probs, .y_stride = vocab);
    EMO__RUN(c, pick, emo_pick_args, .rows = n, .cols = vocab, .k = 1, .indices = labels, .index_stride = 1,
             .x = h->probs, .x_stride = vocab, .values = h->pick, .value_stride = 1);
    EMO__RUN(c, pick, emo_pick_args, .rows = n, .cols = vocab, .k = 1, .indices = labels, .index_stride = 1,
             .values = h->valid, .value_stride = 1);
    EMO__RUN(c, softmax, emo_softmax_args, .rows = n, .cols = vocab, .x = h->probs, .x_stride = vocab,
             .probs = h->probs, .lse = h->lse);
    emo__composed_mul(c, n, 1, 1.0f, lse, valid, lse);
    emo__composed_add(c, n, 1, 1.0f, lse, -1.0f, loss, loss);
    if (a->token_loss != NULL)
        emo__composed_add(c, n, 1, 1.0f, loss, 0.0f, emo__no_array(), emo__per_row(a->token_loss + first));
    if (a->ce_sum != NULL)
        EMO__RUN(c, row_dot, emo_row_dot_args, .rows = n, .cols = 1, .x = loss, .total = a->ce_sum);
    if (a->z_sum != NULL)
        EMO__RUN(c, row_dot, emo_row_dot_args, .rows = n, .cols = 1, .x = lse, .y = lse, .total = a->z_sum);
    if (a->dx == NULL)
        return;
    /* (ce_scale + 2 z_scale lse) p - ce_scale onehot, 0 for ignored rows */
    emo_array scale = emo__per_row(h->scale), p = emo__dense(h->probs, vocab);
    emo__composed_add(c, n, 1, a->ce_scale, valid, 2.0f * a->z_scale, lse, scale);
    emo__composed_mul(c, n, vocab, 1.0f, p, scale, p);
    EMO__RUN(c, pick, emo_pick_args, .rows = n, .cols = vocab, .k = 1, .add = 1, .alpha = -a->ce_scale,
             .indices = labels, .index_stride = 1, .x = h->probs, .x_stride = vocab);
    EMO__RUN(c, linear_backward, emo_linear_args, .tokens = n, .x = x, .x_stride = a->hidden, .weight = a->weight,
             .y_stride = vocab, .dy = h->probs, .dx = a->dx + first * a->hidden, .d_weight = a->d_weight);
}

emo_status emo__composed_head_loss(emo_exec *exec, const emo_head_args *a, emo_error *err) {
    emo__composed c = emo__composed_begin(exec, err);
    head h = {.a = a};
    int64_t rows = a->tokens < HEAD_CHUNK ? a->tokens : HEAD_CHUNK;
    h.probs = emo__composed_floats(&c, rows, a->weight.rows);
    h.lse = emo__composed_floats(&c, rows, 1);
    h.valid = emo__composed_floats(&c, rows, 1);
    h.pick = emo__composed_floats(&c, rows, 1);
    h.scale = emo__composed_floats(&c, rows, 1);
    for (int64_t first = 0; first < a->tokens && c.status == EMO_OK; first += HEAD_CHUNK)
        chunk(&c, &h, first, a->tokens - first < HEAD_CHUNK ? a->tokens - first : HEAD_CHUNK);
    return emo__composed_end(&c);
}

emo_status emo__composed_head_logits(emo_exec *exec, const emo_head_logits_args *a, emo_error *err) {
    emo__composed c = emo__composed_begin(exec, err);
    const float *x = a->x;
    if (a->n_rows == 0)
        return EMO_OK;
    if (a->rows != NULL) {
        float *chosen = emo__composed_floats(&c, a->n_rows, a->hidden);
        EMO__RUN(&c, gather, emo_gather_args, .max_rows = a->n_rows, .width = a->hidden, .k_total = 1, .order = a->rows,
                 .src = a->x, .dst = chosen);
        x = chosen;
    }
    EMO__RUN(&c, linear_forward, emo_linear_args, .tokens = a->n_rows, .x = x, .x_stride = a->hidden,
             .weight = a->weight, .y = a->logits, .y_stride = a->weight.rows);
    return emo__composed_end(&c);
}
