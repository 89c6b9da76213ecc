/* SPDX-License-Identifier: Apache-2.0 */
/* Operators of a device against what bounds them: bytes over bandwidth, operations over peak.
 * usage: bench_device PLUGIN DEVICE [--tokens N] [--gb-per-s B] [--tflops F32] [--tflops-bf16 F]
 * The shape is one layer of a model with 128 experts, hidden 2048, or a sixteenth of that with fewer than 1024 tokens.
 */
#include <emo/device.h>
#include <time.h>

#include "backend/registry.h"
#include "support/ops.h"

typedef struct bench {
    emo_backend *backend;
    const emo_backend_ops *ops;
    emo_exec *exec;
    int bf16;
    double bandwidth, peak; /* of this exec: bytes/s, operations/s */
    int64_t tokens, hidden, inner, vocab, document;
    int32_t experts, k, heads;
    float *random; /* host, 1 << 20 */
    emo_error err;
} bench;

static double now(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void must(const bench *b, emo_status status) {
    if (status == EMO_OK)
        return;
    (void)fprintf(stderr, "%s: %s\n", emo_status_name(status), b->err.message);
    exit(1);
}

static void *memory(bench *b, int64_t bytes) {
    void *p = NULL;
    must(b, b->ops->mem_alloc(b->backend, (size_t)bytes, &p, &b->err));
    return p;
}

/* Random numbers in [-0.05, 0.05), as f32 or the upper halves of them. */
static void *numbers(bench *b, int64_t n, int bf16) {
    int64_t bytes = n * (bf16 ? 2 : 4), piece = (int64_t)1 << 22;
    char *p = memory(b, bytes);
    uint16_t *upper = malloc((size_t)piece);
    if (upper == NULL)
        exit(1);
    for (int64_t i = 0; i < piece / 4; i++)
        memcpy(&upper[i], (const char *)&b->random[i] + 2, 2);
    for (int64_t at = 0; at < bytes; at += piece / 2)
        must(b, b->ops->upload(b->exec, p + at, bf16 ? (void *)upper : (void *)b->random,
                               (size_t)(bytes - at < piece / 2 ? bytes - at : piece / 2), &b->err));
    free(upper);
    return p;
}

static emo_weight weights(bench *b, int64_t rows, int64_t cols) {
    return test_weight(numbers(b, rows * cols, b->bf16), b->bf16 ? EMO_DTYPE_BF16 : EMO_DTYPE_F32, rows, cols);
}

static int32_t *whole(bench *b, int64_t n, int64_t below, int64_t step) {
    int32_t *host = malloc((size_t)n * sizeof *host), *p = memory(b, n * 4);
    if (host == NULL)
        exit(1);
    for (int64_t i = 0; i < n; i++)
        host[i] = (int32_t)(i * step % below);
    must(b, b->ops->upload(b->exec, p, host, (size_t)n * sizeof *host, &b->err));
    free(host);
    return p;
}

/* One row of the table: the best of some runs of several calls. */
#define TIME(b, name, bytes, operations, call)                                                                         \
    do {                                                                                                               \
        double best = 1e30;                                                                                            \
        int calls = 1;                                                                                                 \
        for (int run = 0; run < 5; run++) {                                                                            \
            double begin = now();                                                                                      \
            for (int i = 0; i < calls; i++)                                                                            \
                must(b, call);                                                                                         \
            must(b, (b)->ops->synchronize((b)->exec, &(b)->err));                                                      \
            double took = (now() - begin) / calls;                                                                     \
            best = run > 0 && took < best ? took : best; /* the first one makes plans and scratch */                   \
            calls = took < 1e-3 ? 20 : 4;                                                                              \
        }                                                                                                              \
        row(b, name, best, (double)(bytes), (double)(operations));                                                     \
    } while (0)

static void row(const bench *b, const char *name, double seconds, double bytes, double operations) {
    double by_bytes = bytes / b->bandwidth, by_operations = operations / b->peak;
    double limit = by_bytes > by_operations ? by_bytes : by_operations;
    (void)printf("%-22s %-5s %12.1f %9.1f %9.2f %12.1f %8.1f %%  %s\n", name, b->bf16 ? "bf16" : "f32", seconds * 1e6,
                 bytes / seconds * 1e-9, operations / seconds * 1e-12, limit * 1e6, 100.0 * limit / seconds,
                 by_bytes > by_operations ? "bytes" : "operations");
    (void)fflush(stdout);
}

static void rows_of_numbers(bench *b) {
    int64_t n = b->tokens * b->hidden;
    float *x = numbers(b, n, 0), *y = numbers(b, n, 0), *dx = numbers(b, n, 0), *rstd = numbers(b, b->tokens, 0);
    emo_norm_args norm = {.tokens = b->tokens, .hidden = b->hidden, .eps = 1e-5f, .x = x, .y = y, .rstd = rstd};
    norm.weight = weights(b, 1, b->hidden);
    norm.dy = y;
    norm.dx = dx;
    norm.d_weight = numbers(b, b->hidden, 0);
    TIME(b, "norm_forward", 8 * n, 4 * n, b->ops->norm_forward(b->exec, &norm, &b->err));
    TIME(b, "norm_backward", 12 * n, 10 * n, b->ops->norm_backward(b->exec, &norm, &b->err));
    emo_embed_args embed = {.tokens = b->tokens, .hidden = b->hidden, .out = y, .d_out = x};
    embed.ids = whole(b, b->tokens, b->vocab, 7919);
    embed.weight = weights(b, b->vocab, b->hidden);
    embed.d_weight = numbers(b, b->vocab * b->hidden, 0);
    TIME(b, "embed_forward", (b->bf16 ? 6 : 8) * n, 0, b->ops->embed_forward(b->exec, &embed, &b->err));
    TIME(b, "embed_backward", 12 * n, n, b->ops->embed_backward(b->exec, &embed, &b->err));
    b->ops->mem_free(b->backend, embed.d_weight);
    int64_t half = b->hidden / b->heads / 2;
    emo_rope_args rope = {.tokens = b->tokens, .heads = b->heads, .head_dim = (int32_t)(2 * half), .stride = b->hidden};
    rope.positions = whole(b, b->tokens, b->document, 1);
    rope.cos = numbers(b, b->document * half, 0);
    rope.sin = numbers(b, b->document * half, 0);
    rope.x = x;
    TIME(b, "rope", 8 * n, 6 * n, b->ops->rope(b->exec, &rope, &b->err));
    double *sum = memory(b, 8);
    must(b, b->ops->zero(b->exec, sum, 8, &b->err));
    emo_sumsq_args sumsq = {n, x, sum};
    TIME(b, "sumsq", 4 * n, 2 * n, b->ops->sumsq(b->exec, &sumsq, &b->err));
    emo_step_scalars s = {.lr = 1e-4f, .bias1 = 0.1f, .bias2 = 0.1f, .clip_scale = 1.0f},
                     *scalars = memory(b, sizeof s);
    must(b, b->ops->upload(b->exec, scalars, &s, sizeof s, &b->err));
    emo_adamw_args adamw = {n, x, y, dx, numbers(b, n, 0), 0.9f, 0.95f, 1e-8f, 0.1f, scalars};
    must(b, b->ops->zero(b->exec, adamw.v, (size_t)n * 4, &b->err));
    TIME(b, "adamw", 28 * n, 12 * n, b->ops->adamw(b->exec, &adamw, &b->err));
}

static void products(bench *b) {
    int64_t n = b->tokens * b->hidden, w = b->hidden * b->hidden;
    emo_linear_args a = {.tokens = b->tokens, .x_stride = b->hidden, .y_stride = b->hidden};
    a.x = numbers(b, n, 0);
    a.y = numbers(b, n, 0);
    a.dy = a.y;
    a.dx = numbers(b, n, 0);
    a.weight = weights(b, b->hidden, b->hidden);
    a.d_weight = numbers(b, w, 0);
    double item = b->bf16 ? 2 : 4;
    TIME(b, "linear_forward", 8.0 * (double)n + item * (double)w, 2.0 * (double)(n * b->hidden),
         b->ops->linear_forward(b->exec, &a, &b->err));
    TIME(b, "linear_backward", 16.0 * (double)n + (item + 8) * (double)w, 4.0 * (double)(n * b->hidden),
         b->ops->linear_backward(b->exec, &a, &b->err));
}

static void attention(bench *b) {
    int64_t n = b->tokens * b->hidden, documents = b->tokens / b->document;
    emo_attention_segment *segments = calloc((size_t)documents, sizeof *segments);
    if (segments == NULL)
        exit(1);
    for (int64_t i = 0; i < documents; i++)
        segments[i] = (emo_attention_segment){i * b->document, b->document, i * b->document, b->document};
    emo_attention_args a = {.n_segments = documents, .segments = segments, .q_last = b->tokens, .heads = b->heads};
    a.kv_heads = b->heads;
    a.head_dim = (int32_t)(b->hidden / b->heads);
    a.scale = 0.1f;
    a.q_stride = a.kv_stride = a.o_stride = b->hidden;
    a.q = numbers(b, n, 0);
    a.k = numbers(b, n, 0);
    a.v = numbers(b, n, 0);
    a.o = numbers(b, n, 0);
    a.lse = numbers(b, b->tokens * b->heads, 0);
    a.d_o = numbers(b, n, 0);
    a.dq = numbers(b, n, 0);
    a.dk = numbers(b, n, 0);
    a.dv = numbers(b, n, 0);
    double pairs = (double)b->tokens * (double)b->document / 2.0 * (double)b->hidden;
    TIME(b, "attention_forward", 16 * n, 4.0 * pairs, b->ops->attention_forward(b->exec, &a, &b->err));
    TIME(b, "attention_backward", 32 * n, 10.0 * pairs, b->ops->attention_backward(b->exec, &a, &b->err));
    free(segments);
}

static void mixture(bench *b) {
    int64_t n = b->tokens * b->hidden, e = b->experts, rows = b->tokens * b->k, documents = b->tokens / b->document;
    emo_route_args r = {
        .tokens = b->tokens, .hidden = b->hidden, .experts = b->experts, .k = b->k, .columns = b->experts};
    r.phases = EMO_ROUTE_LOGITS | EMO_ROUTE_POOL | EMO_ROUTE_SELECT;
    r.last = b->tokens;
    r.n_segments = documents;
    r.x = numbers(b, n, 0);
    r.weight = weights(b, e, b->hidden);
    r.segment_begin = whole(b, documents + 1, INT32_MAX, b->document);
    r.pool_size = whole(b, documents, 1 << 20, 0);
    r.logits = numbers(b, b->tokens * e, 0);
    r.usage = numbers(b, documents * e, 0);
    r.allowed = memory(b, documents * e);
    r.indices = memory(b, rows * 4);
    r.weights = numbers(b, rows, 0);
    int32_t *sizes = calloc((size_t)documents, sizeof *sizes);
    for (int64_t i = 0; sizes != NULL && i < documents; i++)
        sizes[i] = b->experts / 4;
    must(b, b->ops->upload(b->exec, (void *)(uintptr_t)r.pool_size, sizes, (size_t)documents * 4, &b->err));
    free(sizes);
    TIME(b, "route_forward", 4 * n + 12 * b->tokens * e, 2.0 * (double)(n * e),
         b->ops->route_forward(b->exec, &r, &b->err));
    emo_plan_args p = {b->tokens,          b->k, b->experts, r.indices, memory(b, (e + 1) * 4), memory(b, rows * 4),
                       memory(b, rows * 4)};
    TIME(b, "plan", 12 * rows, 0, b->ops->plan(b->exec, &p, &b->err));
    emo_expert_slot *slots = calloc((size_t)e, sizeof *slots);
    if (slots == NULL)
        exit(1);
    int64_t w = b->inner * b->hidden;
    for (int64_t i = 0; i < e; i++) {
        slots[i].gate = weights(b, b->inner, b->hidden);
        slots[i].up = weights(b, b->inner, b->hidden);
        slots[i].down = weights(b, b->hidden, b->inner);
        slots[i].d_gate = numbers(b, w, 0);
        slots[i].d_up = numbers(b, w, 0);
        slots[i].d_down = numbers(b, w, 0);
    }
    emo_experts_args x = {
        .tokens = b->tokens, .hidden = b->hidden, .inner = b->inner, .k_total = b->k, .experts = b->experts};
    x.x = r.x;
    x.offsets = p.offsets;
    x.order = p.order;
    x.inverse = p.inverse;
    x.weights = r.weights;
    x.table = (emo_expert_table){slots, b->experts, NULL};
    must(b, b->ops->table_sync(b->exec, &x.table, &b->err));
    x.saved = numbers(b, rows * 2 * b->inner, 0);
    x.y = numbers(b, n, 0);
    x.dy = x.y;
    x.dx = numbers(b, n, 0);
    x.d_weights = numbers(b, rows, 0);
    double item = b->bf16 ? 2 : 4, each = 6.0 * (double)rows * (double)w;
    TIME(b, "experts_forward", 8.0 * (double)n + 3 * item * (double)(e * w) + 8.0 * (double)(rows * b->inner), each,
         b->ops->experts_forward(b->exec, &x, &b->err));
    TIME(b, "experts_backward", 16.0 * (double)n + (3 * item + 24) * (double)(e * w) + 8.0 * (double)(rows * b->inner),
         2.0 * each, b->ops->experts_backward(b->exec, &x, &b->err));
    b->ops->table_free(b->backend, &x.table);
    free(slots);
}

static void head(bench *b) {
    int64_t n = b->tokens * b->hidden, w = b->vocab * b->hidden;
    emo_head_args a = {.tokens = b->tokens, .hidden = b->hidden, .ce_scale = 1e-3f, .z_scale = 1e-5f};
    a.x = numbers(b, n, 0);
    a.weight = weights(b, b->vocab, b->hidden);
    a.labels = whole(b, b->tokens, b->vocab, 104729);
    a.ce_sum = memory(b, 8);
    a.z_sum = memory(b, 8);
    a.dx = numbers(b, n, 0);
    a.d_weight = numbers(b, w, 0);
    TIME(b, "head_loss", 8.0 * (double)n + 8.0 * (double)w, 6.0 * (double)b->tokens * (double)w,
         b->ops->head_loss(b->exec, &a, &b->err));
}

static double option(int argc, char **argv, const char *name, double fallback) {
    for (int i = 3; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return strtod(argv[i + 1], NULL);
    return fallback;
}

int main(int argc, char **argv) {
    bench b = {.tokens = 0, .err = EMO_ERROR_INIT};
    emo_runtime *rt = NULL;
    if (argc < 3) {
        (void)fprintf(stderr, "usage: %s PLUGIN DEVICE [--tokens N] [--gb-per-s B] [--tflops F] [--tflops-bf16 F]\n",
                      argv[0]);
        return 2;
    }
    b.tokens = (int64_t)option(argc, argv, "--tokens", 16384);
    int64_t part = b.tokens < 1024 ? 16 : 1;
    b.hidden = 2048 / part;
    b.inner = 1024 / part;
    b.vocab = 100352 / part / part;
    b.document = b.tokens < 4096 ? b.tokens / 4 : 4096;
    b.experts = (int32_t)(128 / part);
    b.k = 8 / (part > 1 ? 4 : 1);
    b.heads = 16 / (part > 1 ? 4 : 1);
    b.random = test_floats((size_t)1 << 20, 1, 0.05f);
    must(&b, emo_runtime_create(NULL, &rt, &b.err));
    must(&b, emo_runtime_load_backend(rt, argv[1], &b.err));
    must(&b, emo__registry_open(rt->registry, argv[2], &b.backend, &b.err));
    b.ops = b.backend->ops;
    (void)printf("%lld tokens, hidden %lld, %d experts of %lld, %d a token, documents of %lld\n", (long long)b.tokens,
                 (long long)b.hidden, (int)b.experts, (long long)b.inner, (int)b.k, (long long)b.document);
    (void)printf("%-22s %-5s %12s %9s %9s %12s %10s  %s\n", "operator", "", "us", "GB/s", "TFLOP/s", "limit us",
                 "of limit", "limited by");
    static void (*const groups[])(bench * b) = {rows_of_numbers, products, attention, mixture, head};
    for (b.bf16 = 0; b.bf16 < 2; b.bf16++) {
        emo_exec_options o = {.struct_size = sizeof o, .compute = b.bf16 ? EMO_DTYPE_BF16 : EMO_DTYPE_F32};
        b.bandwidth = option(argc, argv, "--gb-per-s", 3350) * 1e9;
        b.peak = (b.bf16 ? option(argc, argv, "--tflops-bf16", 989) : option(argc, argv, "--tflops", 67)) * 1e12;
        for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
            must(&b, b.ops->exec_create(b.backend, &o, &b.exec, &b.err));
            groups[i](&b);
            b.ops->exec_destroy(b.exec);
        }
    }
    return 0; /* the process gives everything back */
}
