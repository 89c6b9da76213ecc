/* SPDX-License-Identifier: Apache-2.0 */
/* Gradients of the fused CUDA operators by central differences of their own forward pass: sizes and segments of the
 * CPU's tests. The router's are compared with the CPU's, which are checked against formulas in double. */
#include "parity/cuda/sides.h"
#include "support/gradient.h"

/* One input or output array in device memory. */
typedef struct array {
    float *host;
    float *device;
    size_t n;
} array;

typedef struct check {
    sides s;
    emo_attention_args attention;
    emo_experts_args experts;
    emo_head_args head;
    double *sums; /* device: the head's ce and z */
    array in[6];  /* what the loss depends on */
    array grad[6];
    int n_in;
    array out; /* the loss is sum(out * weight) */
    float *weight;
} check;

static array array_of(check *c, size_t n, uint64_t seed) {
    emo_error err = EMO_ERROR_INIT;
    array a = {test_floats(n, seed, 1.0f), NULL, n};
    void *p;
    EXPECT_OK(c->s.ops->mem_alloc(c->s.backend, n * sizeof(float), &p, &err));
    a.device = p;
    EXPECT_OK(c->s.ops->upload(c->s.exec, p, a.host, n * sizeof(float), &err));
    return a;
}

/* An input and its gradient; gradients that are added to start from 0. */
static void input(check *c, size_t n, uint64_t seed) {
    emo_error err = EMO_ERROR_INIT;
    c->in[c->n_in] = array_of(c, n, seed);
    c->grad[c->n_in] = array_of(c, n, seed);
    EXPECT_OK(c->s.ops->zero(c->s.exec, c->grad[c->n_in].device, n * sizeof(float), &err));
    c->n_in++;
}

static void fetch(check *c, array *a) {
    emo_error err = EMO_ERROR_INIT;
    EXPECT_OK(c->s.ops->download(c->s.exec, a->host, a->device, a->n * sizeof(float), &err));
    EXPECT_OK(c->s.ops->synchronize(c->s.exec, &err));
}

static void upload_inputs(check *c) {
    emo_error err = EMO_ERROR_INIT;
    for (int i = 0; i < c->n_in; i++)
        EXPECT_OK(c->s.ops->upload(c->s.exec, c->in[i].device, c->in[i].host, c->in[i].n * sizeof(float), &err));
}

static double weighted(check *c) {
    double sum = 0.0;
    fetch(c, &c->out);
    for (size_t i = 0; i < c->out.n; i++)
        sum += (double)c->out.host[i] * (double)c->weight[i];
    return sum;
}

static void compare(check *c, test_loss_fn loss, double step, double tolerance) {
    for (int i = 0; i < c->n_in; i++) {
        fetch(c, &c->grad[i]);
        test_gradient(loss, c, c->in[i].host, c->grad[i].host, c->in[i].n, step, tolerance);
    }
    sides_no_findings(&c->s, "gradient");
}

static void drop(check *c, array *a) {
    free(a->host);
    c->s.ops->mem_free(c->s.backend, a->device);
}

static void close_check(check *c) {
    for (int i = 0; i < c->n_in; i++) {
        drop(c, &c->in[i]);
        drop(c, &c->grad[i]);
    }
    drop(c, &c->out);
    free(c->weight);
    sides_close(&c->s);
}

static double attention_loss(void *context) {
    emo_error err = EMO_ERROR_INIT;
    check *c = context;
    upload_inputs(c);
    EXPECT_OK(c->s.ops->attention_forward(c->s.exec, &c->attention, &err));
    return weighted(c);
}

static void attention(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    enum { HEADS = 4, KV_HEADS = 2, DIM = 12, QUERIES = 90, KEY_ROWS = 120, NK = KEY_ROWS * KV_HEADS * DIM };
    enum { NQ = QUERIES * HEADS * DIM };
    /* one block and more, one query, more keys than queries */
    static const emo_attention_segment segments[] = {{0, 70, 0, 70}, {70, 1, 70, 1}, {71, 19, 71, 49}};
    check c = {.s = sides_open(EMO_DTYPE_F32)};
    input(&c, NQ, 1), input(&c, NK, 2), input(&c, NK, 3);
    c.out = array_of(&c, NQ, 4);
    c.weight = test_floats(NQ, 5, 1.0f);
    array lse = array_of(&c, QUERIES * HEADS, 6), d_o = array_of(&c, NQ, 5);
    c.attention = (emo_attention_args){.n_segments = 3,
                                       .segments = segments,
                                       .q_last = QUERIES,
                                       .heads = HEADS,
                                       .kv_heads = KV_HEADS,
                                       .head_dim = DIM,
                                       .scale = 0.6f,
                                       .q = c.in[0].device,
                                       .k = c.in[1].device,
                                       .v = c.in[2].device,
                                       .q_stride = HEADS * DIM,
                                       .kv_stride = KV_HEADS * DIM,
                                       .o = c.out.device,
                                       .o_stride = HEADS * DIM,
                                       .lse = lse.device,
                                       .d_o = d_o.device,
                                       .dq = c.grad[0].device,
                                       .dk = c.grad[1].device,
                                       .dv = c.grad[2].device};
    (void)attention_loss(&c);
    EXPECT_OK(c.s.ops->attention_backward(c.s.exec, &c.attention, &err));
    /* steps of 1e-2 on scores of size 2: about 1e-4 from the cubic term, f32 rounding below that */
    compare(&c, attention_loss, 1e-2, 3e-3);
    drop(&c, &lse), drop(&c, &d_o);
    close_check(&c);
}

static double experts_loss(void *context) {
    emo_error err = EMO_ERROR_INIT;
    check *c = context;
    upload_inputs(c);
    EXPECT_OK(c->s.ops->experts_forward(c->s.exec, &c->experts, &err));
    return weighted(c);
}

static void experts(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    enum { TOKENS = 19, K = 3, N = 4, D = 14, INNER = 10, ROWS = TOKENS * K };
    check c = {.s = sides_open(EMO_DTYPE_F32)};
    int32_t ids[ROWS], order[ROWS], inverse[ROWS], offsets[N + 1];
    uint64_t rng = 5;
    for (int i = 0; i < ROWS; i++)
        ids[i] = (int32_t)parity_draw(&rng, -1, N - 1);
    memset(order, 0, sizeof order);
    emo_plan_args plan = {TOKENS, K, N, ids, offsets, order, inverse};
    EXPECT_OK(c.s.cpu.ops->plan(c.s.cpu.exec, &plan, &err));
    input(&c, TOKENS * D, 1), input(&c, ROWS, 2); /* x, routing weights */
    input(&c, N * INNER * D, 3), input(&c, N * INNER * D, 4), input(&c, N * INNER * D, 5);
    c.out = array_of(&c, TOKENS * D, 6);
    c.weight = test_floats(TOKENS * D, 7, 1.0f);
    array saved = array_of(&c, (size_t)ROWS * 2 * INNER, 8), dy = array_of(&c, TOKENS * D, 7);
    emo_expert_slot slots[N];
    memset(slots, 0, sizeof slots);
    for (int e = 0; e < N; e++) {
        int at = e * INNER * D;
        slots[e].gate = test_weight(c.in[2].device + at, EMO_DTYPE_F32, INNER, D);
        slots[e].up = test_weight(c.in[3].device + at, EMO_DTYPE_F32, INNER, D);
        slots[e].down = test_weight(c.in[4].device + at, EMO_DTYPE_F32, D, INNER);
        slots[e].d_gate = c.grad[2].device + at;
        slots[e].d_up = c.grad[3].device + at;
        slots[e].d_down = c.grad[4].device + at;
    }
    c.s.side = 1;
    c.experts = (emo_experts_args){.tokens = TOKENS, .hidden = D, .inner = INNER, .k_total = K, .experts = N};
    c.experts.x = c.in[0].device;
    c.experts.weights = c.in[1].device;
    c.experts.offsets = sides_in(&c.s, offsets, sizeof offsets);
    c.experts.order = sides_in(&c.s, order, sizeof order);
    c.experts.inverse = sides_in(&c.s, inverse, sizeof inverse);
    c.experts.table = (emo_expert_table){slots, N, NULL};
    c.experts.saved = saved.device;
    c.experts.y = c.out.device;
    c.experts.dy = dy.device;
    c.experts.dx = c.grad[0].device;
    c.experts.d_weights = c.grad[1].device;
    EXPECT_OK(c.s.ops->table_sync(c.s.exec, &c.experts.table, &err));
    (void)experts_loss(&c);
    EXPECT_OK(c.s.ops->experts_backward(c.s.exec, &c.experts, &err));
    /* steps of 1e-2 through a smooth SwiGLU: 1e-4 from the cubic term */
    compare(&c, experts_loss, 1e-2, 3e-3);
    c.s.ops->table_free(c.s.backend, &c.experts.table);
    sides_finish(&c.s, "experts");
    drop(&c, &saved), drop(&c, &dy);
    close_check(&c);
}

static double head_loss(void *context) {
    emo_error err = EMO_ERROR_INIT;
    check *c = context;
    double sums[2] = {0.0, 0.0};
    upload_inputs(c);
    EXPECT_OK(c->s.ops->upload(c->s.exec, c->sums, sums, sizeof sums, &err));
    emo_head_args a = c->head;
    a.dx = a.d_weight = NULL;
    EXPECT_OK(c->s.ops->head_loss(c->s.exec, &a, &err));
    EXPECT_OK(c->s.ops->download(c->s.exec, sums, c->sums, sizeof sums, &err));
    EXPECT_OK(c->s.ops->synchronize(c->s.exec, &err));
    return (double)a.ce_scale * sums[0] + (double)a.z_scale * sums[1];
}

static void head(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    enum { TOKENS = 21, D = 9, VOCAB = 33 };
    check c = {.s = sides_open(EMO_DTYPE_F32)};
    int32_t labels[TOKENS];
    for (int t = 0; t < TOKENS; t++)
        labels[t] = t % 4 == 1 ? -100 : t * 7 % VOCAB;
    input(&c, TOKENS * D, 1), input(&c, VOCAB * D, 2);
    c.out = array_of(&c, 4, 3); /* room for the two sums */
    c.weight = test_floats(1, 4, 1.0f);
    c.sums = (double *)(void *)c.out.device;
    c.s.side = 1;
    c.head = (emo_head_args){.tokens = TOKENS, .hidden = D, .ce_scale = 0.7f, .z_scale = 0.05f};
    c.head.x = c.in[0].device;
    c.head.weight = test_weight(c.in[1].device, EMO_DTYPE_F32, VOCAB, D);
    c.head.labels = sides_in(&c.s, labels, sizeof labels);
    c.head.ce_sum = c.sums;
    c.head.z_sum = c.sums + 1;
    c.head.dx = c.grad[0].device;
    c.head.d_weight = c.grad[1].device;
    EXPECT_OK(c.s.ops->zero(c.s.exec, c.sums, 2 * sizeof(double), &err));
    EXPECT_OK(c.s.ops->head_loss(c.s.exec, &c.head, &err));
    compare(&c, head_loss, 1e-2, 3e-3);
    sides_finish(&c.s, "head");
    close_check(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(attention), cmocka_unit_test(experts), cmocka_unit_test(head)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
