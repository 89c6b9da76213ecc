/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file router.h
 * @brief EMO's router alone: hidden states and documents in, experts, weights and losses out, and the way back.
 *
 * For another engine that wants document pools without the rest of the library. Notation: E experts, the last H of
 * them shared, n = E - H routed; K = top_k counts the shared ones, k = K - H are chosen per token. With always-active
 * experts (then H = 0) k = K - n_always are chosen among the others.
 *
 *     router r; weights W [E, hidden]; batch of tokens x [rows * seq_len, hidden], cut into documents
 *     emo_router_forward:  probs -> pool of each document -> scores -> indices and weights [tokens, K], losses
 *     emo_router_backward: d_weights -> dx, dW, with the load-balancing and the z-loss gradient
 *
 * The formulas are those of EMO (arXiv 2605.06663): load balancing n / k * sum_e counts[e] * mean(scores[., e]) / N,
 * z-loss sum logsumexp^2 / N, N the loss divisor of the batch. All memory is host memory.
 *
 * Thread rule: forward, backward and setters need exclusive use of the router (EMO_E_BUSY otherwise).
 */
#ifndef EMO_ROUTER_H
#define EMO_ROUTER_H

#include <emo/comm.h>
#include <emo/mask.h>
#include <emo/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct emo_router emo_router;

/** How scores are made from logits. */
typedef int32_t emo_router_gating;
enum { EMO_ROUTER_SOFTMAX = 0, EMO_ROUTER_SIGMOID = 1 };

/** The weight of shared experts: 1 each (as in EMO's training), or a softmax over their own logits (as in the Hugging
 * Face inference model; the two differ from two shared experts on). */
typedef int32_t emo_router_shared_mode;
enum { EMO_ROUTER_SHARED_ONE = 0, EMO_ROUTER_SHARED_SOFTMAX = 1 };

/** Over what the load-balancing loss counts tokens. */
typedef int32_t emo_balance_scope;
enum {
    EMO_BALANCE_MICROBATCH = 0, /**< the micro-batch, over all ranks (as the reference does) */
    EMO_BALANCE_BATCH = 1,      /**< the micro-batches of the step so far, and the previous step's for those to come */
    EMO_BALANCE_WINDOW = 2,     /**< mean over the last N steps, this one included; N = 1 is BATCH */
    EMO_BALANCE_DOCUMENT = 3    /**< each document over its own pool, then the mean */
};

/** Options of emo_router_create(). hidden, experts and top_k must be set. */
typedef struct emo_router_options {
    uint32_t struct_size;
    int32_t hidden;                     /**< 1 to 1048576 */
    int32_t experts;                    /**< E, shared ones included; 1 to 65536 */
    int32_t shared;                     /**< H, 0 to E - 1 */
    int32_t top_k;                      /**< K, shared (or always-active) ones included; k = K - H in 1 .. n */
    emo_router_gating gating;           /**< default EMO_ROUTER_SOFTMAX */
    emo_router_shared_mode shared_mode; /**< default EMO_ROUTER_SHARED_ONE */
    float norm_p;          /**< > 0: chosen weights are divided by their p-norm (1: sum to one); default 0: not */
    float jitter;          /**< x times uniform noise in [1 - jitter, 1 + jitter], training only; 0 to below 1 */
    int32_t n_always;      /**< always-active experts; needs shared == 0 and softmax gating */
    const int32_t *always; /**< [n_always] ids, ascending; copied */
    float balance_weight;  /**< of the load-balancing loss; default 0.1 */
    float z_weight;        /**< of the z-loss; default 0.001 */
    emo_balance_scope balance_scope; /**< default EMO_BALANCE_MICROBATCH */
    int32_t balance_window;          /**< steps of EMO_BALANCE_WINDOW, 1 to 65536; default 1 */
    int32_t layer;    /**< the layer this router stands for: in random draws, masks and pool tables; default 0 */
    int32_t reserved; /**< 0 */
    uint64_t seed;    /**< of pools and jitter; default 0 */
    emo_comm *comm;   /**< counts and loss divisors are summed over its ranks; retained; NULL: one rank */
} emo_router_options;

#define EMO_ROUTER_OPTIONS_INIT                                                                                        \
    {                                                                                                                  \
        sizeof(emo_router_options), 0, 0, 0, 0, EMO_ROUTER_SOFTMAX, EMO_ROUTER_SHARED_ONE, 0.0f, 0.0f, 0, 0, 0.1f,     \
            0.001f, EMO_BALANCE_MICROBATCH, 1, 0, 0, 0, 0                                                              \
    }

/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_router_options_init(emo_router_options *options);
#define emo_router_options_init(object) EMO_STRUCT_INIT(emo_router_options, object)

/** Training draws pools and computes losses; evaluation uses the policy's evaluation pool and computes none. */
typedef int32_t emo_router_mode;
enum { EMO_ROUTER_TRAIN = 0, EMO_ROUTER_EVAL = 1 };

/** The input of emo_router_forward(). Pointers are borrowed until backward has run or the next forward begins. */
typedef struct emo_router_batch {
    uint32_t struct_size;
    emo_router_mode mode;          /**< default EMO_ROUTER_TRAIN */
    int64_t rows;                  /**< rows of packed tokens */
    int64_t seq_len;               /**< tokens per row; rows * seq_len tokens in all, below 2^31 / K */
    const float *x;                /**< [rows * seq_len, hidden], finite */
    int64_t n_documents;           /**< 0: each row is a document */
    const int64_t *document_begin; /**< [n_documents + 1] token offsets from 0 to rows * seq_len, ascending; empty
                                      documents are skipped and draw no pool */
    const int64_t *document_ids;   /**< [n_documents] global ids, keys of the random draws and of pool tables; NULL:
                                      first_document, first_document + 1 ... over the documents that are not empty */
    int64_t first_document;        /**< default 0 */
    uint64_t step;                 /**< training step, key of the random draws; default 0 */
    double loss_div_factor;        /**< N of this rank's whole batch, all micro-batches; 0: the tokens of this call */
    int32_t microbatch;            /**< which micro-batch of the step this is; default 0 */
    int32_t microbatches;          /**< of how many; default 1 */
    int64_t first_token; /**< number of the first token in the step over all micro-batches and ranks, the key of the
                            jitter; default 0 */
} emo_router_batch;

#define EMO_ROUTER_BATCH_INIT                                                                                          \
    { sizeof(emo_router_batch), EMO_ROUTER_TRAIN, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0, 1, 0 }

/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_router_batch_init(emo_router_batch *batch);
#define emo_router_batch_init(object) EMO_STRUCT_INIT(emo_router_batch, object)

/** What forward found: views into the router, valid until its next forward or its release. D documents that are not
 *  empty (rows, when the pool's scope is the row). */
typedef struct emo_routing {
    uint32_t struct_size;
    int32_t experts;               /**< E */
    int32_t routed;                /**< n */
    int32_t top_k;                 /**< K */
    int64_t tokens;                /**< rows * seq_len */
    int64_t documents;             /**< D */
    uint64_t serial;               /**< which forward it came from; checked by backward */
    const int32_t *indices;        /**< [tokens, K] chosen, best first, then the shared (or always-active) ones; -1
                                      with weight 0 where fewer experts are allowed than are to be chosen */
    const float *weights;          /**< [tokens, K] */
    const float *logits;           /**< [tokens, n]; [tokens, E] with EMO_ROUTER_SHARED_SOFTMAX and shared > 0 */
    int64_t logits_stride;         /**< n or E */
    const float *scores;           /**< [tokens, n]; 0 outside the pool */
    const float *score_sum;        /**< [n] */
    const int32_t *counts;         /**< [E] tokens per expert on this rank */
    const int64_t *counts_all;     /**< [n] summed over the ranks (in evaluation: this rank's) */
    const int32_t *document_begin; /**< [D + 1] */
    const int32_t *pool_size;      /**< [D] size asked for by the policy, n without a pool, 0 when by mass */
    const float *usage;            /**< [D, n] probabilities before the pool, summed over the document */
    const uint8_t *allowed;        /**< [D, n] 1: in the pool (and the mask) */
    double balance_loss;           /**< unweighted; 0 in evaluation */
    double z_loss;                 /**< unweighted; 0 in evaluation */
    double loss;                   /**< balance_weight * balance_loss + z_weight * z_loss */
} emo_routing;

#define EMO_ROUTING_INIT                                                                                               \
    { sizeof(emo_routing), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0 }

/** An empty result, as the macro makes it: see emo_struct_init(). */
EMO_API void emo_routing_init(emo_routing *routing);
#define emo_routing_init(object) EMO_STRUCT_INIT(emo_routing, object)

/**
 * Creates a router with zero weights. The caller owns *out and releases it with emo_router_release().
 * @return EMO_OK, EMO_E_INVALID_ARGUMENT, EMO_E_RANGE (an option, by name), EMO_E_OUT_OF_MEMORY.
 */
EMO_API EMO_MUST_CHECK emo_status emo_router_create(emo_runtime *runtime, const emo_router_options *options,
                                                    emo_router **out, emo_error *err);

/** Releases the caller's reference. NULL is a no-op. */
EMO_API void emo_router_release(emo_router *router);

/** Copies W in: f32 [experts, hidden], `count` = experts * hidden. The rows of shared experts are used only with
 *  EMO_ROUTER_SHARED_SOFTMAX. */
EMO_API EMO_MUST_CHECK emo_status emo_router_set_weights(emo_router *router, const float *weights, size_t count,
                                                         emo_error *err);

/** The router's W, [experts, hidden]; a view until the release or the next emo_router_set_weights(). NULL for NULL. */
EMO_API const float *emo_router_weights(const emo_router *router);

/** Selection by score + bias, weights from the score alone (loss-free balancing). bias: [count], count = n or 0 to
 *  remove it; copied. EMO_E_UNSUPPORTED with always-active experts. */
EMO_API EMO_MUST_CHECK emo_status emo_router_set_score_bias(emo_router *router, const float *bias, size_t count,
                                                            emo_error *err);

/** bias += rate * sign(mean(counts) - counts), with the counts of the last forward over all ranks; starts from 0.
 *  With a mask in that forward: for the experts of the mask, by their mean. */
EMO_API EMO_MUST_CHECK emo_status emo_router_update_score_bias(emo_router *router, float rate, emo_error *err);

/** The bias, [n]; NULL when there is none. A view until it is changed or the router released. */
EMO_API const float *emo_router_score_bias(const emo_router *router);

/**
 * Routes a batch. With a communicator of several ranks every rank must call it, in training mode, as often.
 * @param pool NULL: no pools.
 * @param mask NULL: every expert. A mask of one layer is used as it is, else its layer `options.layer`. With fewer
 *        experts than k in it, k is what is left (see emo_mask).
 * @param routing starts as EMO_ROUTING_INIT.
 * @return EMO_OK, EMO_E_INVALID_ARGUMENT, EMO_E_RANGE (a pool smaller than k, a document outside a pool table),
 *         EMO_E_MISMATCH (the mask's shape), EMO_E_COMM, EMO_E_OUT_OF_MEMORY, EMO_E_BUSY. Nothing in *routing is valid
 *         after an error.
 */
EMO_API EMO_MUST_CHECK emo_status emo_router_forward(emo_router *router, const emo_router_batch *batch,
                                                     const emo_pool_policy *pool, const emo_mask *mask,
                                                     emo_routing *routing, emo_error *err);

/**
 * The gradient of sum(d_weights * weights) + loss; the choice of experts carries none.
 * @param routing of the last forward of this router, else EMO_E_MISMATCH.
 * @param d_weights [tokens, K]; entries of shared experts count only with EMO_ROUTER_SHARED_SOFTMAX. NULL: zero.
 * @param dx [tokens, hidden], added to; NULL: not wanted.
 * @param dw [experts, hidden], added to; NULL: not wanted.
 */
EMO_API EMO_MUST_CHECK emo_status emo_router_backward(emo_router *router, const emo_routing *routing,
                                                      const float *d_weights, float *dx, float *dw, emo_error *err);

#ifdef __cplusplus
}
#endif
#endif
