/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file sys/backend.h
 * @brief The operator table that a back end fills in. Stable per minor version; for back-end authors only.
 *
 * Conventions of every operator:
 * - Matrices are row-major; activations and gradients are f32; `tokens` counts rows of the packed batch.
 * - All `float *`, `int32_t *` ... array arguments are addresses of the back end's memory (`mem_alloc`); scalars and
 *   the argument struct itself are host memory and may be reused as soon as the call returns.
 * - A call enqueues on the exec's stream and may return before the work is done; it never waits for the device.
 * - "accumulate" and "+=" arguments add to what is there; everything else overwrites.
 * - Results do not depend on the number of threads. A row's result does not depend on the other rows of the call.
 * - Entries that a back end leaves NULL are taken by the composed default built from the primitives.
 */
#ifndef EMO_SYS_BACKEND_H
#define EMO_SYS_BACKEND_H

#include <emo/hooks.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EMO_BACKEND_ABI 2

typedef struct emo_backend emo_backend; /**< one opened device; the struct below */
typedef struct emo_exec emo_exec;       /**< a stream with its scratch memory; the back end's own */
typedef struct emo_event emo_event;     /**< a point in an exec's work; the back end's own */

/* ---- views ---- */

/** Block layouts of a weight. */
enum { EMO_LAYOUT_ROWS = 0 /**< row after row; of a quantised type: rows of whole blocks */ };

/** A weight as operators see it. y = x W^T: `rows` are outputs, `cols` inputs. */
typedef struct emo_weight {
    const void *data;   /**< NULL: not loaded (an expert outside the subset) or absent (a bias) */
    const void *packed; /**< the back end's packed form, or NULL */
    emo_dtype dtype;    /**< F32, F16, BF16 (data aligned to the element); forward only: quantised (any address) */
    int32_t layout;     /**< EMO_LAYOUT_ROWS */
    int64_t rows;
    int64_t cols;
    int64_t stride; /**< elements from row to row */
} emo_weight;

/** One expert: SwiGLU down(silu(gate(x)) * up(x)). Gradients are [rows, cols] f32, NULL when not wanted, and += . */
typedef struct emo_expert_slot {
    emo_weight gate; /**< [inner, hidden] */
    emo_weight up;   /**< [inner, hidden] */
    emo_weight down; /**< [hidden, inner] */
    float *d_gate;
    float *d_up;
    float *d_down;
} emo_expert_slot;

/** Experts by their original id. `device` is made from `slots` by the back end's table_sync (the CPU's: the same). */
typedef struct emo_expert_table {
    const emo_expert_slot *slots;
    int32_t count;
    void *device;
} emo_expert_table;

/* ---- block operators ---- */

/** out[t] = weight[ids[t]]. Backward: d_weight[ids[t]] += d_out[t], in token order. */
typedef struct emo_embed_args {
    int64_t tokens;
    int64_t hidden;
    const int32_t *ids; /**< [tokens], inside the vocabulary (the caller checked) */
    emo_weight weight;  /**< [vocab, hidden] */
    float *out;         /**< [tokens, hidden] */
    const float *d_out; /**< backward */
    float *d_weight;    /**< backward, [vocab, hidden] */
} emo_embed_args;

/** RMSNorm: y = w * x * rstd, rstd = 1 / sqrt(mean(x^2) + eps). */
typedef struct emo_norm_args {
    int64_t tokens;
    int64_t hidden;
    float eps;
    const float *x;    /**< [tokens, hidden] */
    emo_weight weight; /**< [1, hidden] */
    float *y;          /**< [tokens, hidden]; may not alias x */
    float *rstd;       /**< [tokens]; forward: written when not NULL; backward: read */
    /* backward */
    const float *dy;       /**< [tokens, hidden] */
    float *dx;             /**< [tokens, hidden] */
    int32_t dx_accumulate; /**< dx += instead of = */
    float *d_weight;       /**< [hidden], +=; may be NULL */
} emo_norm_args;

/** y = x W^T + bias. Backward: dx = dy W, d_weight += dy^T x, d_bias += column sums of dy. */
typedef struct emo_linear_args {
    int64_t tokens;
    const float *x; /**< [tokens, weight.cols] */
    int64_t x_stride;
    emo_weight weight;
    emo_weight bias; /**< data NULL: none; [1, weight.rows] */
    float *y;        /**< [tokens, weight.rows] */
    int64_t y_stride;
    int32_t accumulate; /**< y += (residual) */
    /* backward */
    const float *dy; /**< stride y_stride */
    float *dx;       /**< stride x_stride; NULL: not wanted */
    int32_t dx_accumulate;
    float *d_weight; /**< [rows, cols] dense; NULL: not wanted */
    float *d_bias;   /**< NULL: not wanted */
} emo_linear_args;

/** Rotate-half RoPE in place on `heads` heads of each row: element i pairs with i + head_dim / 2. */
typedef struct emo_rope_args {
    int64_t tokens;
    int32_t heads;
    int32_t head_dim;
    int64_t stride;           /**< floats from row to row of x */
    const int32_t *positions; /**< [tokens], below the rows of cos and sin */
    const float *cos;         /**< [max_positions, head_dim / 2] */
    const float *sin;
    float *x;        /**< [tokens, heads * head_dim] inside rows of `stride` */
    int32_t inverse; /**< rotate back (the backward pass) */
} emo_rope_args;

/** Query rows [q_begin, q_begin + q_count) see the key rows [k_begin, k_begin + k_count), causally: the last query
 *  sees all keys, the query before it all but one, and so on (q_count <= k_count). */
typedef struct emo_attention_segment {
    int64_t q_begin;
    int64_t q_count;
    int64_t k_begin;
    int64_t k_count;
} emo_attention_segment;

/** Causal attention inside segments; query head j uses kv head j / (heads / kv_heads). */
typedef struct emo_attention_args {
    int64_t n_segments;
    const emo_attention_segment *segments; /**< host memory; segments do not share query rows */
    int64_t q_first; /**< only query rows in [q_first, q_last) are computed (slices of one call) */
    int64_t q_last;
    int32_t heads;
    int32_t kv_heads;
    int32_t head_dim;
    float scale;
    const float *q; /**< row stride q_stride */
    int64_t q_stride;
    const float *k; /**< row stride kv_stride; the training batch or the KV cache */
    const float *v;
    int64_t kv_stride;
    float *o; /**< row stride o_stride */
    int64_t o_stride;
    float *lse; /**< [query rows, heads]; written when not NULL, read by backward */
    /* backward over whole segments (q_first and q_last are ignored); strides as in the forward */
    const float *d_o;
    float *dq;
    float *dk;
    float *dv;
    /* a cache in pages, forward only, of back ends that support EMO_OP_ATTENTION_PAGES: key j of a segment is row
     * pages[k_begin + j / page_rows] * page_rows + j % page_rows of k and v, so that k_begin counts entries of pages */
    int64_t page_rows;    /**< a power of two; 0: the keys of a segment are rows one after the other */
    const int32_t *pages; /**< host memory */
} emo_attention_args;

/** New keys and values into a cache: row q_begin + i of a segment goes to row k_begin + k_count - q_count + i. */
typedef struct emo_store_kv_args {
    int64_t n_segments;
    const emo_attention_segment *segments; /**< host memory */
    int64_t first;                         /**< only the rows [first, last) */
    int64_t last;
    int64_t width;  /**< floats of a row */
    const float *k; /**< dense rows of the batch */
    const float *v;
    float *cache_k; /**< dense rows of the cache */
    float *cache_v;
    int64_t page_rows;    /**< 0: rows k_begin + ... ; else through pages, as in emo_attention_args */
    const int32_t *pages; /**< host memory */
} emo_store_kv_args;

enum { EMO_GATING_SOFTMAX = 0, EMO_GATING_SIGMOID = 1 };
/** Weight of shared experts: 1 each (training), or a softmax over their own logits (the HF inference model). */
enum { EMO_SHARED_ONE = 0, EMO_SHARED_SOFTMAX = 1 };
/** Phases of route; run in this order. LOGITS and SELECT work on the rows [first, last), POOL on everything. */
enum { EMO_ROUTE_LOGITS = 1, EMO_ROUTE_POOL = 2, EMO_ROUTE_SELECT = 4 };

/**
 * The router. n = routed experts, H = shared experts (the last H ids), E = n + H, K = k + H (or k + n_always).
 *
 * LOGITS: logits = (jittered) x W^T over the first `columns` rows of W.
 * POOL:   per segment: allowed = allowed_in (or all); probs = softmax of the logits over allowed_in; usage = their sum
 *         over the segment's tokens; the pool keeps the `pool_size` allowed experts of largest usage (ties to the lower
 *         id), the last `forced` routed ones always. By mass: size = (number of experts with cumulative mean mass <
 *         pool_mass) + 1, clamped to [pool_min, pool_max]. Always-active experts are in every pool and count in it.
 * SELECT: scores = softmax (or sigmoid + 1e-7) of the logits over `allowed`, 0 outside; top-k of scores (+ score_bias),
 *         descending, ties to the lower id; weights are the scores, divided by their norm_p-norm when norm_p > 0;
 *         then the shared (or always-active) experts. When fewer than k experts are allowed in a segment, the rest of
 *         the row gets index -1 and weight 0, which every later operator skips.
 */
typedef struct emo_route_args {
    int64_t tokens;
    int64_t hidden;
    int32_t experts; /**< n */
    int32_t shared;  /**< H */
    int32_t k;       /**< chosen per token */
    int32_t
        columns; /**< logits computed per token: n, or E when shared_mode needs the shared ones or the caller asks */
    int32_t phases;
    int64_t first;
    int64_t last;
    const float *x;    /**< [tokens, hidden] */
    emo_weight weight; /**< [E, hidden] */
    int64_t n_segments;
    const int32_t *segment_begin; /**< [n_segments + 1], from 0 to tokens, ascending; no empty segment */
    const uint8_t *allowed_in;    /**< [n_segments, n] or NULL: all */
    const int32_t *pool_size;     /**< [n_segments] or NULL: no pool; a size >= n keeps all */
    float pool_mass;              /**< > 0: pools by mass instead of pool_size */
    int32_t pool_min;
    int32_t pool_max;
    int32_t forced;
    int32_t n_always;
    const int32_t
        *always; /**< [n_always] ids of always-active experts (then shared = 0): used with their softmax weight */
    int32_t gating;
    int32_t shared_mode;
    float norm_p;
    const float *score_bias; /**< [n] or NULL */
    float jitter;            /**< 0: none */
    uint64_t seed;           /**< jitter's key, with step, layer and first_token + t */
    uint64_t step;
    int64_t first_token; /**< number of token 0 in the step over all micro-batches and ranks */
    int32_t layer;
    /* outputs */
    float *logits;            /**< [tokens, columns] */
    float *usage;             /**< [n_segments, n]; NULL: not wanted (then no pools) */
    uint8_t *allowed;         /**< [n_segments, n], as narrowed */
    float *scores;            /**< [tokens, n]; NULL: not wanted */
    int32_t *indices;         /**< [tokens, K] */
    float *weights;           /**< [tokens, K] */
    float *lse;               /**< [tokens] logsumexp of the masked logits; NULL: not wanted */
    int32_t *counts;          /**< [E], +=; NULL: not wanted */
    float *score_sum;         /**< [n] sum over tokens of the (for sigmoid: normalised) scores, +=; NULL: not wanted */
    double *z_sum;            /**< [1] sum over tokens of lse^2, +=; NULL: not wanted */
    int32_t *segment_counts;  /**< [n_segments, n], zeroed by POOL, += by SELECT; NULL: not wanted */
    float *segment_score_sum; /**< [n_segments, n], zeroed by POOL, += by SELECT; NULL: not wanted */
    /* backward: gradient of sum(d_weights * weights) + sum(balance * scores) + z_scale * sum(lse^2) */
    const float *d_weights; /**< [tokens, K] */
    const float *balance;   /**< [n], or [n_segments, n] when balance_by_segment; NULL: none */
    int32_t balance_by_segment;
    float z_scale;
    float *d_logits; /**< [tokens, columns] scratch, holds the gradient afterwards */
    float *dx;       /**< [tokens, hidden], += */
    float *d_weight; /**< [E, hidden], +=; NULL: not wanted */
} emo_route_args;

/**
 * The load-balancing loss from counts: loss += scale * sum_e f[e] * score_sum[e]; grad[e] = weight * scale * f[e], with
 * f = sum_s coef[s] * source[s] (i32 or f32 arrays of n).
 */
typedef struct emo_balance_args {
    int32_t experts;
    int32_t n_sources;
    const void *const *sources; /**< host array of device addresses */
    const emo_dtype *dtypes;    /**< host array: EMO_DTYPE_I32 or EMO_DTYPE_F32 */
    const double *coef;         /**< host array */
    float *f;                   /**< [n] output, may be NULL */
    double scale;
    double weight;
    const float *score_sum; /**< [n]; NULL: only f */
    double *loss;           /**< [1], +=; may be NULL */
    float *grad;            /**< [n]; may be NULL */
} emo_balance_args;

/**
 * Balancing per document: loss_d = p_d / k * sum_e counts[d,e] * (score_sum[d,e] / T_d) / T_d over its pool of p_d
 * experts; loss += scale * sum_d loss_d; grad[d,e] = weight * scale * p_d / k * counts[d,e] / T_d^2.
 */
typedef struct emo_balance_documents_args {
    int32_t experts;
    int32_t k;
    int64_t n_segments;
    const int32_t *segment_begin;
    const uint8_t *allowed;
    const int32_t *segment_counts;
    const float *segment_score_sum;
    double scale;
    double weight;
    double *loss;
    float *grad; /**< [n_segments, n] */
} emo_balance_documents_args;

/** Token-expert assignment, sorted by expert, then token. Entries with index -1 are left out. */
typedef struct emo_plan_args {
    int64_t tokens;
    int32_t k_total;        /**< K */
    int32_t experts;        /**< E */
    const int32_t *indices; /**< [tokens, K] */
    int32_t *offsets;       /**< [E + 1] */
    int32_t *order;         /**< [tokens * K] assignments t * K + j, by expert */
    int32_t *inverse;       /**< [tokens * K] place in `order`, -1 for left-out entries */
} emo_plan_args;

/** Phases of experts_forward, for back ends that support EMO_OP_EXPERTS_PARTS. 0: all of it at once. */
enum { EMO_EXPERTS_RUN = 1, EMO_EXPERTS_COMBINE = 2 };

/**
 * Experts: y[t] (+)= sum_j weights[t,j] * expert_{indices[t,j]}(x[t]), j ascending.
 * Assignments to an expert whose slot is not loaded are an internal error of the caller.
 *
 * In phases, so that not all experts of a plan must be there at once:
 * RUN:     the unweighted outputs of the experts whose slots have data go to `out`, a row for each of their
 *          assignments; the rows of other experts are left alone. `saved` is not written.
 * COMBINE: y (and out_norm) from `out`, whose rows are all there by then; the table is not looked at.
 * How a row lies in `out` is the back end's own. Arguments but table and phases are the same in all these calls.
 * The sum is that of a call without phases, bit for bit, however the experts were shared out among RUNs.
 */
typedef struct emo_experts_args {
    int64_t tokens;
    int64_t hidden;
    int64_t inner;
    int32_t k_total;
    int32_t experts;
    const float *x;         /**< [tokens, hidden] */
    const int32_t *offsets; /**< from plan */
    const int32_t *order;
    const int32_t *inverse;
    const float *weights; /**< [tokens, K] */
    emo_expert_table table;
    float *saved; /**< [tokens * K, 2 * inner] pre-activations gate|up in plan order; NULL: not wanted */
    float *y;     /**< [tokens, hidden]; forward: NULL: only `saved` is wanted */
    int32_t accumulate;
    /* backward; slot gradients come from the table */
    const float *dy;  /**< [tokens, hidden] */
    float *dx;        /**< [tokens, hidden], +=; NULL: not wanted */
    float *d_weights; /**< [tokens, K] */
    /* statistics for subset selection, forward only */
    float *out_norm; /**< [tokens, K] L2 norm of each expert's unweighted output; NULL: not wanted */
    int32_t phases;  /**< forward only; 0: all */
    float *out;      /**< with phases: [tokens * K, hidden rounded up to a multiple of 4], rows in plan order */
} emo_experts_args;

/** Elementwise SwiGLU of a dense MLP on [tokens, inner]: y = silu(gate) * up; backward: d_gate, d_up from dy. */
typedef struct emo_swiglu_args {
    int64_t tokens;
    int64_t inner;
    const float *gate;
    const float *up;
    int64_t stride; /**< floats from row to row of gate, up, d_gate and d_up */
    float *y;       /**< dense [tokens, inner] */
    const float *dy;
    float *d_gate;
    float *d_up;
} emo_swiglu_args;

/**
 * Language-model head over chunks of the vocabulary: cross-entropy and z-loss, and with dx their gradient
 * (ce_scale * CE + z_scale * logsumexp^2, summed over tokens whose label is not -100).
 */
typedef struct emo_head_args {
    int64_t tokens;
    int64_t hidden;
    const float *x;        /**< [tokens, hidden], after the last norm */
    emo_weight weight;     /**< [vocab, hidden] */
    const int32_t *labels; /**< [tokens]; -100: ignored */
    float *token_loss;     /**< [tokens] CE, 0 where ignored; NULL: not wanted */
    double *ce_sum;        /**< [1], += (unscaled); NULL: not wanted */
    double *z_sum;         /**< [1], += sum of logsumexp^2 (unscaled); NULL: not wanted */
    float ce_scale;
    float z_scale;
    float *dx;       /**< [tokens, hidden]; NULL: losses only */
    float *d_weight; /**< [vocab, hidden], +=; NULL: not wanted */
} emo_head_args;

/** Logits of chosen rows. */
typedef struct emo_head_logits_args {
    int64_t n_rows;
    int64_t hidden;
    const int32_t *rows; /**< [n_rows] rows of x, or NULL: the first n_rows */
    const float *x;
    emo_weight weight;
    float *logits; /**< [n_rows, vocab] */
} emo_head_logits_args;

/** Scalars of an optimizer step; they live in device memory and never come to the host inside a step. */
typedef struct emo_step_scalars {
    float lr;
    float bias1;      /**< 1 - beta1^step */
    float bias2;      /**< 1 - beta2^step */
    float clip_scale; /**< min(1, max_norm / (grad_norm + 1e-6)) */
    float grad_norm;
    int32_t skip; /**< non-zero: gradients were not finite, adamw does nothing */
    double sumsq;
} emo_step_scalars;

/** p *= 1 - lr wd; m = b1 m + (1-b1) g s; v = b2 v + (1-b2) (g s)^2; p -= lr / bias1 * m / (sqrt(v / bias2) + eps),
 *  written as sqrt(v) / sqrt(bias2); s = clip_scale. */
typedef struct emo_adamw_args {
    int64_t count;
    float *p;
    const float *g;
    float *m;
    float *v;
    float beta1;
    float beta2;
    float eps;
    float weight_decay;
    const emo_step_scalars *scalars; /**< device memory */
} emo_adamw_args;

/** out[0] += sum of x^2, in a fixed order. */
typedef struct emo_sumsq_args {
    int64_t count;
    const float *x;
    double *out;
} emo_sumsq_args;

/** From scalars->sumsq: grad_norm, clip_scale (max_norm <= 0: 1) and skip. */
typedef struct emo_clip_args {
    float max_norm;
    emo_step_scalars *scalars;
} emo_clip_args;

/** How to draw one token from a row of logits. Host memory, one per row. */
typedef struct emo_sample_row {
    float temperature;        /**< 0: greedy (argmax, ties to the lower id) */
    int32_t top_k;            /**< 0: off */
    float top_p;              /**< 1: off */
    float min_p;              /**< 0: off */
    float repetition_penalty; /**< 1: off */
    const int32_t *history;   /**< tokens the penalty looks at */
    int32_t history_count;
    uint64_t seed;
    uint64_t sequence;
    uint64_t position;
} emo_sample_row;

typedef struct emo_sample_args {
    int64_t rows;
    int64_t vocab;
    const float *logits; /**< [rows, vocab] */
    const emo_sample_row *how;
    int32_t *ids;    /**< [rows] */
    float *logprobs; /**< [rows] log-probability of the drawn token under softmax(logits), before any filter; may be
                        NULL */
} emo_sample_args;

/* ---- primitives, from which the composed defaults are built ---- */

/** C = alpha op(A) op(B) + beta C; op transposes when the flag is set. B may be a weight of any dtype. */
typedef struct emo_gemm_args {
    int32_t trans_a; /**< A is [m, k], or [k, m] when set */
    int32_t trans_b; /**< B is [k, n], or [n, k] when set */
    int64_t m;
    int64_t n;
    int64_t k;
    float alpha;
    const float *a;
    int64_t lda;
    const void *b;
    emo_dtype b_dtype;
    int64_t ldb;
    float beta;
    float *c;
    int64_t ldc;
} emo_gemm_args;

enum {
    EMO_GROUPED_FORWARD = 0, /**< C[rows of g] = A[rows of g] W_g^T */
    EMO_GROUPED_DGRAD = 1,   /**< C[rows of g] = A[rows of g] W_g */
    EMO_GROUPED_WGRAD = 2    /**< G_g += A[rows of g]^T B[rows of g], G_g = [A columns, B columns] */
};

/** Which matrix of each slot a grouped GEMM uses. */
enum { EMO_SLOT_GATE = 0, EMO_SLOT_UP = 1, EMO_SLOT_DOWN = 2 };

typedef struct emo_grouped_gemm_args {
    int32_t mode;
    int32_t slot;
    int32_t groups;
    const int32_t *offsets; /**< [groups + 1] rows of A, C and B; device memory */
    int64_t max_rows;       /**< capacity: offsets[groups] <= max_rows */
    emo_expert_table table;
    const float *a;
    int64_t lda;
    const float *b; /**< WGRAD only */
    int64_t ldb;
    float *c; /**< FORWARD and DGRAD */
    int64_t ldc;
    int32_t accumulate;
} emo_grouped_gemm_args;

/** dst[i] = src[order[i] / k_total] for i < *count (device); without order: src[i / k_total]. */
typedef struct emo_gather_args {
    int64_t max_rows;
    const int32_t *count; /**< [1], or NULL: max_rows */
    int64_t width;
    int32_t k_total;
    const int32_t *order;
    const float *src;
    float *dst;
} emo_gather_args;

/** dst[t] (+)= sum_j weights[t,j] * src[inverse[t,j]], j ascending; with d_weights: d_weights[t,j] = dot(dy[t],
 * src[..]). */
typedef struct emo_combine_args {
    int64_t tokens;
    int64_t width;
    int32_t k_total;
    const int32_t *inverse;
    const float *weights; /**< NULL: 1 */
    const float *src;
    float *dst; /**< NULL: only d_weights */
    int32_t accumulate;
    const float *dy;
    float *d_weights;
} emo_combine_args;

/** probs = softmax over the allowed columns of each row (0 elsewhere), lse. A row without any: all 0, lse 0. */
typedef struct emo_softmax_args {
    int64_t rows;
    int64_t cols;
    const float *x;
    int64_t x_stride;
    const uint8_t *allowed; /**< [n_sets, cols] or NULL */
    const int32_t *set_of;  /**< [rows] set of each row, or NULL: row i has set 0 */
    float *probs;           /**< stride cols; may be x when x_stride is cols */
    float *lse;             /**< [rows] or NULL */
    int64_t causal;         /**< > 0: row i sees the columns below causal + i only */
    int32_t sigmoid;        /**< probs = sigmoid(x) + floor over the allowed columns instead; lse as ever */
    float floor;
} emo_softmax_args;

/** Element (r, c) lies at data[r * row + c * col]; a stride of 0 repeats a row, a column or one number. */
typedef struct emo_array {
    float *data; /**< read only where an argument is an input */
    int64_t row;
    int64_t col;
} emo_array;

enum {
    EMO_ELEMENT_ADD = 0, /**< alpha x + beta y; without y: alpha x + beta; without x: beta */
    EMO_ELEMENT_MUL = 1, /**< alpha x y */
    EMO_ELEMENT_DIV = 2, /**< alpha x / y, 0 where y is 0 */
    EMO_ELEMENT_POW = 3, /**< x^alpha, x >= 0 */
    EMO_ELEMENT_SIGMOID = 4
};

/** out (+)= op(x, y), element by element; out may be x or y. */
typedef struct emo_elementwise_args {
    int32_t op;
    int32_t accumulate;
    int64_t rows;
    int64_t cols;
    float alpha;
    float beta;
    emo_array x;
    emo_array y;
    emo_array out;
} emo_elementwise_args;

/** out[r] = sum_c x[r,c] y[r,c]; total += the sum of them all, in f64 and a fixed order. */
typedef struct emo_row_dot_args {
    int64_t rows;
    int64_t cols;
    emo_array x;
    emo_array y;   /**< data NULL: 1 */
    float *out;    /**< [rows] or NULL */
    double *total; /**< [1] or NULL */
} emo_row_dot_args;

/** values[r,j] = x[r, indices[r,j]], or with `add` x[r, indices[r,j]] += alpha values[r,j] in the order of j. An index
 *  outside [0, cols) reads 0 and adds nothing. */
typedef struct emo_pick_args {
    int64_t rows;
    int64_t cols;
    int32_t k;
    int32_t add;
    float alpha;
    const int32_t *indices;
    int64_t index_stride;
    float *x; /**< NULL when reading: 1 everywhere */
    int64_t x_stride;
    float *values; /**< NULL when adding: 1 everywhere */
    int64_t value_stride;
} emo_pick_args;

/** The k allowed columns of largest x + bias of each row, descending, ties to the lower column, then the fixed ones,
 *  which do not compete. Values are x without the bias. Missing or not allowed: index -1, value 0. Fixed ids from
 *  `cols` on are always taken, with value 1. */
typedef struct emo_topk_args {
    int64_t rows;
    int64_t cols;
    int32_t k;
    int32_t n_fixed;
    const int32_t *fixed; /**< [n_fixed] */
    const float *x;
    int64_t x_stride;
    const float *bias;      /**< [cols] or NULL */
    const uint8_t *allowed; /**< as in softmax */
    const int32_t *set_of;
    int32_t *indices; /**< [rows, k + n_fixed] */
    float *values;    /**< [rows, k + n_fixed] */
} emo_topk_args;

/** allowed = allowed_in (or all) and the fixed columns, narrowed to the columns of largest x: `size` of them, or by
 *  mass as in route's POOL. Fixed columns and the last `forced` ones stay. */
typedef struct emo_keep_top_args {
    int64_t rows;
    int64_t cols;
    const float *x;            /**< [rows, cols]; NULL: nothing is narrowed */
    const uint8_t *allowed_in; /**< [rows, cols] or NULL */
    uint8_t *allowed;          /**< [rows, cols] */
    const int32_t *size;       /**< [rows] or NULL */
    float mass;                /**< > 0: this share of the row's weight instead of size */
    int32_t min;
    int32_t max;
    const int32_t *row_begin; /**< by mass: row r weighs row_begin[r + 1] - row_begin[r] */
    int32_t forced;
    int32_t n_fixed;
    const int32_t *fixed; /**< [n_fixed] */
} emo_keep_top_args;

/** set_of[t] = s for begin[s] <= t < begin[s + 1]. */
typedef struct emo_segment_ids_args {
    int64_t tokens;
    int64_t n_segments;
    const int32_t *begin; /**< [n_segments + 1] */
    int32_t *set_of;      /**< [tokens] */
} emo_segment_ids_args;

/** out[set_of[r]] += x[r], r ascending. */
typedef struct emo_segment_sum_args {
    int64_t rows;
    int64_t cols;
    const int32_t *set_of; /**< [rows] */
    const float *x;        /**< [rows, cols] */
    float *out;            /**< [sets, cols] */
} emo_segment_sum_args;

/** counts[set_of[r], indices[r,j]] += 1; indices outside [0, bins) are left out. */
typedef struct emo_count_args {
    int64_t rows;
    int32_t k;
    int32_t bins;
    const int32_t *indices; /**< [rows, k] */
    const int32_t *set_of;  /**< [rows] or NULL: set 0 */
    int32_t *counts;        /**< [sets, bins] */
} emo_count_args;

/* ---- the table ---- */

typedef struct emo_exec_options {
    uint32_t struct_size;
    emo_dtype compute;     /**< EMO_DTYPE_F32; EMO_DTYPE_BF16 where supported */
    int32_t deterministic; /**< 0: products may be added up in an order that differs from run to run */
    int32_t reserved;
    void *host_stream; /**< a stream of the host's, or NULL */
} emo_exec_options;

/** Operator numbers for `supports`. */
enum {
    EMO_OP_EMBED = 1,
    EMO_OP_NORM,
    EMO_OP_LINEAR,
    EMO_OP_ROPE,
    EMO_OP_ATTENTION,
    EMO_OP_ROUTE,
    EMO_OP_BALANCE,
    EMO_OP_PLAN,
    EMO_OP_EXPERTS,
    EMO_OP_SWIGLU,
    EMO_OP_HEAD,
    EMO_OP_ADAMW,
    EMO_OP_REDUCE,
    EMO_OP_SAMPLE,
    EMO_OP_GEMM,
    EMO_OP_GROUPED_GEMM,
    EMO_OP_ROWS,
    EMO_OP_EXPERTS_PARTS,  /**< phases of experts_forward */
    EMO_OP_ATTENTION_PAGES /**< attention_forward reads a page table; asked with EMO_DTYPE_F32 */
};

/** What a device says of itself; the caller zeroes it. */
typedef struct emo_backend_device_info {
    char name[64];         /**< "NVIDIA H100" */
    int32_t kind;          /**< EMO_DEVICE_* of emo/device.h */
    uint64_t memory_bytes; /**< 0: not known */
} emo_backend_device_info;

/** Memory of a device; the caller zeroes it. */
typedef struct emo_backend_memory {
    uint64_t live_bytes;   /**< handed out by mem_alloc and as scratch, and not given back */
    uint64_t free_bytes;   /**< that may still be had; 0 where total_bytes is 0 */
    uint64_t total_bytes;  /**< 0: not known */
    uint64_t pinned_bytes; /**< of the host: what pinned_alloc handed out, and rings for transfers */
} emo_backend_memory;

/** An operator: enqueue on exec, fill err on failure (EMO_E_OUT_OF_MEMORY, EMO_E_UNSUPPORTED, EMO_E_BACKEND). */
#define EMO_OPERATOR_FIELD(name, args_type) emo_status (*name)(emo_exec * exec, const args_type *args, emo_error *err);

/**
 * Every operator: its entry in the table and its arguments. Entries of COMPOSED may stay NULL: they have a default made
 * of primitives; without one of PRIMITIVE, calls that need it fail with EMO_E_UNSUPPORTED. A new operator goes to the
 * list's end, and EMO_BACKEND_ABI counts up, since what follows the operators in the table moves.
 */
#define EMO_OPERATORS(COMPOSED, PRIMITIVE)                                                                             \
    PRIMITIVE(embed_forward, emo_embed_args)                                                                           \
    PRIMITIVE(embed_backward, emo_embed_args)                                                                          \
    COMPOSED(norm_forward, emo_norm_args)                                                                              \
    COMPOSED(norm_backward, emo_norm_args)                                                                             \
    COMPOSED(linear_forward, emo_linear_args)                                                                          \
    COMPOSED(linear_backward, emo_linear_args)                                                                         \
    PRIMITIVE(rope, emo_rope_args)                                                                                     \
    COMPOSED(attention_forward, emo_attention_args)                                                                    \
    COMPOSED(attention_backward, emo_attention_args)                                                                   \
    COMPOSED(route_forward, emo_route_args)                                                                            \
    COMPOSED(route_backward, emo_route_args)                                                                           \
    PRIMITIVE(balance, emo_balance_args)                                                                               \
    PRIMITIVE(balance_documents, emo_balance_documents_args)                                                           \
    PRIMITIVE(plan, emo_plan_args)                                                                                     \
    COMPOSED(experts_forward, emo_experts_args)                                                                        \
    COMPOSED(experts_backward, emo_experts_args)                                                                       \
    COMPOSED(swiglu_forward, emo_swiglu_args)                                                                          \
    COMPOSED(swiglu_backward, emo_swiglu_args)                                                                         \
    COMPOSED(head_loss, emo_head_args)                                                                                 \
    COMPOSED(head_logits, emo_head_logits_args)                                                                        \
    PRIMITIVE(adamw, emo_adamw_args)                                                                                   \
    PRIMITIVE(sumsq, emo_sumsq_args)                                                                                   \
    PRIMITIVE(clip, emo_clip_args)                                                                                     \
    PRIMITIVE(sample, emo_sample_args)                                                                                 \
    PRIMITIVE(gemm, emo_gemm_args)                                                                                     \
    PRIMITIVE(grouped_gemm, emo_grouped_gemm_args)                                                                     \
    PRIMITIVE(gather, emo_gather_args)                                                                                 \
    PRIMITIVE(combine, emo_combine_args)                                                                               \
    PRIMITIVE(softmax, emo_softmax_args)                                                                               \
    PRIMITIVE(elementwise, emo_elementwise_args)                                                                       \
    PRIMITIVE(row_dot, emo_row_dot_args)                                                                               \
    PRIMITIVE(pick, emo_pick_args)                                                                                     \
    PRIMITIVE(topk, emo_topk_args)                                                                                     \
    PRIMITIVE(keep_top, emo_keep_top_args)                                                                             \
    PRIMITIVE(segment_ids, emo_segment_ids_args)                                                                       \
    PRIMITIVE(segment_sum, emo_segment_sum_args)                                                                       \
    PRIMITIVE(count, emo_count_args)                                                                                   \
    COMPOSED(store_kv, emo_store_kv_args)

/** What became of the pieces between replay_begin and replay_end. */
typedef struct emo_replay_counts {
    int64_t pieces;
    int64_t plain;    /**< operator by operator */
    int64_t recorded; /**< into a graph, which then ran */
    int64_t replayed; /**< by a graph that was there */
    int64_t bytes;    /**< device memory for the host arrays of a piece, the most so far */
} emo_replay_counts;

typedef struct emo_backend_ops {
    uint32_t struct_size;
    uint32_t abi; /**< EMO_BACKEND_ABI */

    void (*destroy)(emo_backend *backend);
    int32_t (*supports)(const emo_backend *backend, int32_t op, emo_dtype weight_dtype);

    /* memory: 64-byte aligned or better; uploads and downloads are ordered with the exec's work, and the host memory
     * may be reused on return (upload) or read after `synchronize` (download); mem_free may come while work that uses
     * the memory is under way: the back end waits for it or frees later */
    emo_status (*mem_alloc)(emo_backend *backend, size_t bytes, void **out, emo_error *err);
    void (*mem_free)(emo_backend *backend, void *ptr);
    emo_status (*upload)(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err);
    emo_status (*download)(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err);
    emo_status (*copy)(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err);
    emo_status (*zero)(emo_exec *exec, void *dst, size_t bytes, emo_error *err);
    emo_status (*synchronize)(emo_exec *exec, emo_error *err);

    emo_status (*exec_create)(emo_backend *backend, const emo_exec_options *options, emo_exec **out, emo_error *err);
    void (*exec_destroy)(emo_exec *exec);
    /** Scratch of at least `bytes`, kept until the exec goes; operators that need more grow it or fail. */
    emo_status (*exec_reserve)(emo_exec *exec, size_t bytes, emo_error *err);

    emo_status (*table_sync)(emo_exec *exec, emo_expert_table *table, emo_error *err);
    void (*table_free)(emo_backend *backend, emo_expert_table *table);

    EMO_OPERATORS(EMO_OPERATOR_FIELD, EMO_OPERATOR_FIELD)

    /** Fills in what the device says of itself; NULL: only its name is known. */
    emo_status (*device_info)(const emo_backend *backend, emo_backend_device_info *out, emo_error *err);

    /* planning; NULL: not known */

    /** The device's memory at the moment. */
    emo_status (*memory)(emo_backend *backend, emo_backend_memory *out, emo_error *err);
    /** The most scratch that one operator of the exec has taken since the last call, in bytes. */
    size_t (*exec_scratch)(emo_exec *exec);
    /** A planner for devices like this one, see emo_backend_plugin_entry. */
    emo_status (*planner)(emo_backend *backend, emo_backend **out, emo_error *err);

    /**
     * Work in parts; NULL: operators run whole. From this call on the exec numbers the tasks that its operators consist
     * of, over all calls, and runs those in [first, last) alone; a task has at most about `work` multiply-adds. The
     * caller makes the same calls again with the next window until all tasks have run, each once, in ascending order;
     * in between it enqueues nothing else on the exec. Results are those of whole calls, bit for bit. linear_forward,
     * attention_forward, experts_forward, swiglu_forward and head_logits heed it, no other operator may be called.
     * work 0: everything runs whole again. Returns the number of tasks since the call before.
     */
    int64_t (*window)(emo_exec *exec, int64_t first, int64_t last, int64_t work);

    /* state kept beside the device; NULL: none can be */

    /** Host memory that the device reads and writes by itself (page-locked), zeroed. */
    emo_status (*pinned_alloc)(emo_backend *backend, size_t bytes, void **out, emo_error *err);
    /** No copy from or to it may be under way. */
    void (*pinned_free)(emo_backend *backend, void *ptr);
    /** Copies between pinned and device memory, either way, in the order of the exec. It returns before that is done.
     */
    emo_status (*stream)(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err);
    /** What is enqueued on `exec` from here on begins when what is enqueued on `other` by now is done. */
    emo_status (*after)(emo_exec *exec, emo_exec *other, emo_error *err);

    /* order between execs; NULL: work is done when its call returns */

    emo_status (*event_create)(emo_backend *backend, emo_event **out, emo_error *err);
    /** What waits for it still does. */
    void (*event_destroy)(emo_backend *backend, emo_event *event);
    /** The event is now the point in the exec's work behind all that is enqueued. */
    emo_status (*event_record)(emo_exec *exec, emo_event *event, emo_error *err);
    /** What is enqueued on the exec from here on begins when what came before the event is done. An event that was
     *  never recorded orders nothing. */
    emo_status (*event_order)(emo_exec *exec, emo_event *event, emo_error *err);
    /** The host waits for what came before the event. */
    emo_status (*event_wait)(emo_backend *backend, emo_event *event, emo_error *err);

    /** Like table_sync for a table that no other exec uses: nothing is allocated when its size is what it was. NULL:
     *  table_sync does. */
    emo_status (*table_update)(emo_exec *exec, emo_expert_table *table, emo_error *err);

    /** A piece of work that comes again and again, such as a micro-batch or a generated token: between the two calls
     *  the back end may hold back what is enqueued and hand it to the device as a whole, which it keeps for the next
     *  piece of that key that is the same but for host arrays and numbers. A download or a wait in between is
     *  allowed, and ends the holding. What holds without a piece holds with one. NULL: every operator is enqueued at
     *  its call. */
    emo_status (*replay_begin)(emo_exec *exec, uint64_t key, emo_error *err);
    emo_status (*replay_end)(emo_exec *exec, emo_error *err);
    /** Adds nothing, overwrites; the caller zeroes it. NULL as the two above. */
    void (*replay_counts)(const emo_exec *exec, emo_replay_counts *out);
    /** Device memory for the host arrays of pieces, now: no piece takes more from here on, and one that would need more
     *  is enqueued operator by operator. Without it, there is as much as was needed so far. NULL as the ones above. */
    emo_status (*replay_reserve)(emo_exec *exec, size_t bytes, emo_error *err);

    /** A mark in the exec's work, and waiting for it: all that was enqueued before the mark is done and its downloads
     *  have landed, while what came later may go on. At most 8 marks are waited for at a time, the oldest first.
     *  NULL: work is done when its call returns. */
    emo_status (*mark)(emo_exec *exec, uint64_t *out, emo_error *err);
    emo_status (*wait)(emo_exec *exec, uint64_t mark, emo_error *err);
} emo_backend_ops;

/** What every back end instance and exec begins with; the back end's own fields follow. */
struct emo_backend {
    const emo_backend_ops *ops;
    const char *name; /**< "cpu", "cuda" */
};
struct emo_exec {
    emo_backend *backend;
};

/* ---- plug-ins ---- */

/** What a plug-in may ask of the library, so that it has no undefined emo_ symbol. Valid as long as the back end. */
typedef struct emo_backend_services {
    uint32_t struct_size;
    uint32_t abi;                            /**< the library's EMO_BACKEND_ABI */
    void *ctx;                               /**< handed to every function below */
    void *(*alloc)(void *ctx, size_t bytes); /**< host memory, 64-byte aligned; NULL on failure */
    void (*free)(void *ctx, void *ptr);
    void (*log)(void *ctx, emo_log_level level, const char *message);
    size_t workers;
    void (*parallel_for)(void *ctx, size_t count, emo_task_fn fn, void *task);
    const char *libraries; /**< emo_runtime_options.libraries */
} emo_backend_services;

/**
 * A plug-in is a shared library with one exported object, `const emo_backend_plugin_entry emo_backend_plugin`. The
 * library is never unloaded. The back end fills its table (with its own struct_size and abi); the library works on a
 * completed copy of it, which takes the place of `ops` in the opened back end.
 */
typedef struct emo_backend_plugin_entry {
    uint32_t struct_size;
    uint32_t abi;     /**< EMO_BACKEND_ABI of the header it was built with */
    const char *name; /**< "cuda" */
    emo_status (*count)(const emo_backend_services *services, int32_t *out, emo_error *err); /**< devices it can open */
    emo_status (*open)(const emo_backend_services *services, int32_t index, emo_backend **out, emo_error *err);
    /** May be NULL, or beyond struct_size. A planner: a back end without a device, whose memory is addresses that
     * nobody looks at. Its operators take the scratch that a device's would and do nothing else, transfers move nothing
     * (downloads are zeros), `memory` counts, and exec_reserve hands out what it is asked for, or all that was taken.
     * What a model or a trainer would need is found by making it there. */
    emo_status (*planner)(const emo_backend_services *services, emo_backend **out, emo_error *err);
} emo_backend_plugin_entry;

#define EMO_BACKEND_PLUGIN_SYMBOL "emo_backend_plugin"

#ifdef __cplusplus
}
#endif
#endif
