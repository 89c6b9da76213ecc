/* SPDX-License-Identifier: Apache-2.0 */
/* Attention: per segment, query head and block of queries a product with the keys, a causal softmax and a product with
 * the values. */
#include "backend/composed.h"
#include "base/status.h"

enum { QUERY_BLOCK = 128 };

typedef struct block {
    const emo_attention_args *a;
    const emo_attention_segment *s;
    int32_t head;
    int64_t first; /* query of the segment */
    int64_t count;
    float *probs; /* [QUERY_BLOCK, k_count] */
    float *other; /* the same; backward */
    float *rows;  /* [QUERY_BLOCK] */
} block;

emo_status emo__attention_check(const emo_attention_args *a, emo_error *err) {
    if (a->page_rows < 0 || (a->page_rows & (a->page_rows - 1)) != 0)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "attention over pages of %lld rows: it must be a power of two",
                         (long long)a->page_rows);
    if (a->heads < 1 || a->kv_heads < 1 || a->heads % a->kv_heads != 0 || a->head_dim < 1)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT,
                         "attention with %d heads, %d kv heads and head_dim %d: heads must be a multiple of kv heads",
                         (int)a->heads, (int)a->kv_heads, (int)a->head_dim);
    for (int64_t i = 0; i < a->n_segments; i++)
        if (a->segments[i].q_count < 0 || a->segments[i].q_count > a->segments[i].k_count)
            return emo__fail(err, EMO_E_INVALID_ARGUMENT,
                             "attention segment %lld has %lld queries and %lld keys: at most one query per key",
                             (long long)i, (long long)a->segments[i].q_count, (long long)a->segments[i].k_count);
    return EMO_OK;
}

static int64_t longest(const emo_attention_args *a) {
    int64_t keys = 0;
    for (int64_t i = 0; i < a->n_segments; i++)
        keys = a->segments[i].k_count > keys ? a->segments[i].k_count : keys;
    return keys;
}

static int64_t query_at(const block *b) {
    return (b->s->q_begin + b->first) * b->a->q_stride + (int64_t)b->head * b->a->head_dim;
}
static int64_t out_at(const block *b) {
    return (b->s->q_begin + b->first) * b->a->o_stride + (int64_t)b->head * b->a->head_dim;
}
static int64_t key_at(const block *b) {
    return b->s->k_begin * b->a->kv_stride + (int64_t)(b->head / (b->a->heads / b->a->kv_heads)) * b->a->head_dim;
}

/* out[count, k_count] = alpha rows other^T, rows the block's of q or d_o */
static void against(emo__composed *c, const block *b, float alpha, const float *rows, int64_t stride, const float *kv,
                    float *out) {
    EMO__RUN(c, gemm, emo_gemm_args, .trans_b = 1, .m = b->count, .n = b->s->k_count, .k = b->a->head_dim,
             .alpha = alpha, .a = rows, .lda = stride, .b = kv + key_at(b), .b_dtype = EMO_DTYPE_F32,
             .ldb = b->a->kv_stride, .c = out, .ldc = b->s->k_count);
}

/* probs of the block; b->rows: their logsumexp */
static void probabilities(emo__composed *c, const block *b) {
    against(c, b, b->a->scale, b->a->q + query_at(b), b->a->q_stride, b->a->k, b->probs);
    EMO__RUN(c, softmax, emo_softmax_args, .rows = b->count, .cols = b->s->k_count, .x = b->probs,
             .x_stride = b->s->k_count, .probs = b->probs, .lse = b->rows,
             .causal = b->s->k_count - b->s->q_count + b->first + 1);
}

static void forward_block(emo__composed *c, const block *b) {
    const emo_attention_args *a = b->a;
    probabilities(c, b);
    EMO__RUN(c, gemm, emo_gemm_args, .m = b->count, .n = a->head_dim, .k = b->s->k_count, .alpha = 1.0f, .a = b->probs,
             .lda = b->s->k_count, .b = a->v + key_at(b), .b_dtype = EMO_DTYPE_F32, .ldb = a->kv_stride,
             .c = a->o + out_at(b), .ldc = a->o_stride);
    if (a->lse != NULL) {
        float *lse = a->lse + (b->s->q_begin + b->first) * a->heads + b->head;
        emo__composed_add(c, b->count, 1, 1.0f, emo__per_row(b->rows), 0.0f, emo__no_array(),
                          (emo_array){lse, a->heads, 0});
    }
}

/* dP = dO V^T, dS = P (dP - rowsum(P dP)); dq = scale dS K, dk += scale dS^T Q, dv += P^T dO */
static void backward_block(emo__composed *c, const block *b, int first_of_keys) {
    const emo_attention_args *a = b->a;
    int64_t keys = b->s->k_count;
    float beta = first_of_keys ? 0.0f : 1.0f;
    emo_array p = emo__dense(b->probs, keys), ds = emo__dense(b->other, keys);
    probabilities(c, b);
    EMO__RUN(c, gemm, emo_gemm_args, .trans_a = 1, .m = keys, .n = a->head_dim, .k = b->count, .alpha = 1.0f,
             .a = b->probs, .lda = keys, .b = a->d_o + out_at(b), .b_dtype = EMO_DTYPE_F32, .ldb = a->o_stride,
             .beta = beta, .c = a->dv + key_at(b), .ldc = a->kv_stride);
    against(c, b, 1.0f, a->d_o + out_at(b), a->o_stride, a->v, b->other);
    emo__composed_dot(c, b->count, keys, p, ds, b->rows);
    emo__composed_add(c, b->count, keys, 1.0f, ds, -1.0f, emo__per_row(b->rows), ds);
    emo__composed_mul(c, b->count, keys, 1.0f, ds, p, ds);
    EMO__RUN(c, gemm, emo_gemm_args, .m = b->count, .n = a->head_dim, .k = keys, .alpha = a->scale, .a = b->other,
             .lda = keys, .b = a->k + key_at(b), .b_dtype = EMO_DTYPE_F32, .ldb = a->kv_stride,
             .c = a->dq + query_at(b), .ldc = a->q_stride);
    EMO__RUN(c, gemm, emo_gemm_args, .trans_a = 1, .m = keys, .n = a->head_dim, .k = b->count, .alpha = a->scale,
             .a = b->other, .lda = keys, .b = a->q + query_at(b), .b_dtype = EMO_DTYPE_F32, .ldb = a->q_stride,
             .beta = beta, .c = a->dk + key_at(b), .ldc = a->kv_stride);
}

/* rows[j] = key (or value) j of a segment whose rows lie in pages. */
static void gather_pages(emo__composed *c, const emo_attention_args *a, const emo_attention_segment *s, const float *x,
                         float *rows) {
    for (int64_t j = 0; c->status == EMO_OK && j < s->k_count; j += a->page_rows) {
        int64_t n = s->k_count - j < a->page_rows ? s->k_count - j : a->page_rows;
        const float *from = x + a->pages[s->k_begin + j / a->page_rows] * a->page_rows * a->kv_stride;
        /* the row after the last may not be there: what lies between two rows is not copied after it */
        int64_t floats = (n - 1) * a->kv_stride + (int64_t)a->kv_heads * a->head_dim;
        c->status = c->ops->copy(c->exec, rows + j * a->kv_stride, from, (size_t)floats * sizeof(float), c->err);
    }
}

/* Every segment with its keys and values side by side, as a call of its own. */
static emo_status run_pages(emo_exec *exec, const emo_attention_args *a, emo_error *err) {
    emo__composed c = emo__composed_begin(exec, err);
    float *k = emo__composed_floats(&c, longest(a), a->kv_stride);
    float *v = emo__composed_floats(&c, longest(a), a->kv_stride);
    for (int64_t i = 0; i < a->n_segments && c.status == EMO_OK; i++) {
        emo_attention_segment segment = a->segments[i];
        emo_attention_args one = *a;
        gather_pages(&c, a, &segment, a->k, k);
        gather_pages(&c, a, &segment, a->v, v);
        segment.k_begin = 0;
        one.n_segments = 1;
        one.segments = &segment;
        one.k = k;
        one.v = v;
        one.page_rows = 0;
        if (c.status == EMO_OK)
            c.status = emo__composed_attention_forward(exec, &one, err);
    }
    return emo__composed_end(&c);
}

static emo_status run(emo_exec *exec, const emo_attention_args *a, int backward, emo_error *err) {
    emo_status status = emo__attention_check(a, err);
    if (status != EMO_OK)
        return status;
    if (a->page_rows > 0 && !backward)
        return run_pages(exec, a, err);
    emo__composed c = emo__composed_begin(exec, err);
    block b = {.a = a};
    b.probs = emo__composed_floats(&c, QUERY_BLOCK, longest(a));
    b.other = backward ? emo__composed_floats(&c, QUERY_BLOCK, longest(a)) : NULL;
    b.rows = emo__composed_floats(&c, QUERY_BLOCK, 1);
    for (int64_t i = 0; i < a->n_segments && c.status == EMO_OK; i++) {
        b.s = &a->segments[i];
        int64_t begin = 0, end = b.s->q_count;
        if (!backward) {
            begin = a->q_first > b.s->q_begin ? a->q_first - b.s->q_begin : 0;
            end = a->q_last - b.s->q_begin < end ? a->q_last - b.s->q_begin : end;
        }
        for (b.head = 0; b.head < a->heads; b.head++)
            for (b.first = begin; b.first < end; b.first += QUERY_BLOCK) {
                b.count = end - b.first < QUERY_BLOCK ? end - b.first : QUERY_BLOCK;
                if (backward)
                    backward_block(&c, &b, b.first == 0 && b.head % (a->heads / a->kv_heads) == 0);
                else
                    forward_block(&c, &b);
            }
    }
    return emo__composed_end(&c);
}

emo_status emo__composed_attention_forward(emo_exec *exec, const emo_attention_args *a, emo_error *err) {
    return run(exec, a, 0, err);
}

emo_status emo__composed_attention_backward(emo_exec *exec, const emo_attention_args *a, emo_error *err) {
    return run(exec, a, 1, err);
}

/* Row of the cache that holds a key of a segment; *run: how many of its next `most` keys follow there. */
static int64_t cache_row(const emo_store_kv_args *a, const emo_attention_segment *s, int64_t key, int64_t most,
                         int64_t *run) {
    *run = most;
    if (a->page_rows == 0)
        return s->k_begin + key;
    int64_t inside = key % a->page_rows;
    *run = most < a->page_rows - inside ? most : a->page_rows - inside;
    return a->pages[s->k_begin + key / a->page_rows] * a->page_rows + inside;
}

emo_status emo__composed_store_kv(emo_exec *exec, const emo_store_kv_args *a, emo_error *err) {
    const emo_backend_ops *ops = exec->backend->ops;
    emo_status status = EMO_OK;
    for (int64_t i = 0; status == EMO_OK && i < a->n_segments; i++) {
        const emo_attention_segment *s = &a->segments[i];
        int64_t from = s->q_begin > a->first ? s->q_begin : a->first;
        int64_t to = s->q_begin + s->q_count < a->last ? s->q_begin + s->q_count : a->last;
        for (int64_t run = 0; status == EMO_OK && from < to; from += run) {
            int64_t row = cache_row(a, s, s->k_count - s->q_count + (from - s->q_begin), to - from, &run);
            size_t bytes = (size_t)(run * a->width) * sizeof(float);
            status = ops->copy(exec, a->cache_k + row * a->width, a->k + from * a->width, bytes, err);
            if (status == EMO_OK)
                status = ops->copy(exec, a->cache_v + row * a->width, a->v + from * a->width, bytes, err);
        }
    }
    return status;
}
