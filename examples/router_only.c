/* SPDX-License-Identifier: Apache-2.0 */
/*
 * EMO's router inside somebody else's engine: hidden states and documents go in; experts, weights and losses come out,
 * and the gradients go back. No model, no file, no tokenizer.
 */
#include <emo/emo.h>

#include <stdio.h>
#include <stdlib.h>

enum { HIDDEN = 64, EXPERTS = 17, SHARED = 1, TOP_K = 5, TOKENS = 48, DOCUMENTS = 2 };

/* Numbers in [-1, 1) that look random enough for an example. */
static float noise(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / 8388608.0f - 1.0f;
}

static void print_routing(const emo_routing *routing) {
    for (int64_t d = 0; d < routing->documents; d++) {
        printf("document %d shares the experts", (int)d);
        for (int32_t e = 0; e < routing->routed; e++) {
            if (routing->allowed[d * routing->routed + e])
                printf(" %d", (int)e);
        }
        const int32_t first = routing->document_begin[d];
        printf("\n  its first token uses");
        for (int32_t k = 0; k < routing->top_k; k++)
            printf(" %d (%.2f)", (int)routing->indices[first * routing->top_k + k],
                   (double)routing->weights[first * routing->top_k + k]);
        printf("\n");
    }
    printf("load-balancing loss %.4f, z-loss %.4f\n", routing->balance_loss, routing->z_loss);
}

int main(void) {
    static float x[TOKENS * HIDDEN], w[EXPERTS * HIDDEN], dx[TOKENS * HIDDEN], dw[EXPERTS * HIDDEN];
    static float d_weights[TOKENS * TOP_K];
    const int64_t document_begin[DOCUMENTS + 1] = {0, 20, TOKENS};
    uint32_t state = 1;
    for (size_t i = 0; i < sizeof(x) / sizeof(x[0]); i++)
        x[i] = noise(&state);
    for (size_t i = 0; i < sizeof(w) / sizeof(w[0]); i++)
        w[i] = 0.2f * noise(&state);
    for (size_t i = 0; i < sizeof(d_weights) / sizeof(d_weights[0]); i++)
        d_weights[i] = noise(&state); /* in an engine: the gradient that came back from the experts */

    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = NULL;
    emo_router *router = NULL;
    emo_pool_policy *pool = NULL;

    emo_router_options options = EMO_ROUTER_OPTIONS_INIT;
    options.hidden = HIDDEN;
    options.experts = EXPERTS;
    options.shared = SHARED;
    options.top_k = TOP_K;
    EMO_TRY(emo_runtime_create(NULL, &rt, &err));
    EMO_TRY(emo_router_create(rt, &options, &router, &err));
    EMO_TRY(emo_router_set_weights(router, w, EXPERTS * HIDDEN, &err));
    EMO_TRY(emo_pool_policy_create_uniform(rt, 4, 12, &pool, &err)); /* a random size per document */

    emo_router_batch batch = EMO_ROUTER_BATCH_INIT;
    batch.rows = 1;
    batch.seq_len = TOKENS;
    batch.x = x;
    batch.n_documents = DOCUMENTS;
    batch.document_begin = document_begin;
    emo_routing routing = EMO_ROUTING_INIT;
    EMO_TRY(emo_router_forward(router, &batch, pool, NULL, &routing, &err));
    print_routing(&routing);

    /* dx and dw are added to; the gradients of both losses are included. */
    EMO_TRY(emo_router_backward(router, &routing, d_weights, dx, dw, &err));
    printf("dx[0] %.5f, dW[0] %.5f\n", (double)dx[0], (double)dw[0]);
done:
    emo_pool_policy_release(pool);
    emo_router_release(router);
    emo_runtime_release(rt);
    if (err.code != EMO_OK)
        fprintf(stderr, "%s\n", err.message);
    return err.code == EMO_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
