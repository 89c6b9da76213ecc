/* SPDX-License-Identifier: Apache-2.0 */
/* Time of the expert operators: bench_experts [threads]. The last expert is shared: it gets every token. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/runtime.h"
#include "cpu/cpu.h"
#include "tensor/dtype.h"

typedef struct shape {
    const char *what;
    int32_t tokens, hidden, inner, routed, k; /* k of the routed experts a token, and the shared one */
    emo_dtype dtype;
    int train;
} shape;

static const shape shapes[] = {
    {"train f32", 4096, 256, 128, 32, 4, EMO_DTYPE_F32, 1},
    {"prefill bf16", 512, 2048, 1024, 31, 7, EMO_DTYPE_BF16, 0},
    {"decode bf16", 1, 2048, 1024, 31, 7, EMO_DTYPE_BF16, 0},
};

static double now(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *numbers(size_t n, emo_dtype dtype) {
    char *out = malloc((n + 1) * emo__dtype_size(dtype));
    for (size_t i = 0; out != NULL && i < n; i++) {
        float value = (float)(i % 17) * 0.01f - 0.08f;
        (void)emo__convert(out + i * emo__dtype_size(dtype), dtype, &value, EMO_DTYPE_F32, 1);
    }
    return out;
}

static emo_weight weight(void *data, emo_dtype dtype, int64_t rows, int64_t cols) {
    return (emo_weight){.data = data, .dtype = dtype, .rows = rows, .cols = cols, .stride = cols};
}

/* Best time of the forward or the backward. */
static double time_of(emo_exec *exec, const emo_experts_args *args, int backward) {
    double best = 1e30, begin = now();
    for (int turn = 0; turn < 3 || now() - begin < 0.3; turn++) {
        double start = now();
        if ((backward ? exec->backend->ops->experts_backward : exec->backend->ops->experts_forward)(exec, args, NULL) !=
            EMO_OK)
            return -1.0;
        double took = now() - start;
        best = took < best ? took : best;
    }
    return best;
}

static void measure(emo_exec *exec, const shape *s) {
    int32_t experts = s->routed + 1, total_k = s->k + 1, n = s->tokens * total_k;
    size_t matrix = (size_t)s->inner * (size_t)s->hidden, count = (size_t)n;
    emo_expert_slot *slots = calloc((size_t)experts, sizeof *slots);
    int32_t *indices = malloc(count * 4), *order = malloc(count * 4), *inverse = malloc(count * 4);
    int32_t *offsets = malloc(((size_t)experts + 1) * 4);
    for (int32_t t = 0; t < s->tokens; t++)
        for (int32_t j = 0; j < total_k; j++)
            indices[t * total_k + j] = j == s->k ? s->routed : (t * 7 + j * 3 + t / 5) % s->routed;
    int32_t place = 0;
    for (int32_t e = 0; e < experts; e++) {
        offsets[e] = place;
        for (int32_t i = 0; i < n; i++)
            if (indices[i] == e) {
                order[place] = i;
                inverse[i] = place++;
            }
        slots[e].gate = weight(numbers(matrix, s->dtype), s->dtype, s->inner, s->hidden);
        slots[e].up = weight(numbers(matrix, s->dtype), s->dtype, s->inner, s->hidden);
        slots[e].down = weight(numbers(matrix, s->dtype), s->dtype, s->hidden, s->inner);
        if (s->train) {
            slots[e].d_gate = numbers(matrix, EMO_DTYPE_F32);
            slots[e].d_up = numbers(matrix, EMO_DTYPE_F32);
            slots[e].d_down = numbers(matrix, EMO_DTYPE_F32);
        }
    }
    offsets[experts] = place;
    size_t wide = (size_t)s->tokens * (size_t)s->hidden;
    float *x = numbers(wide, EMO_DTYPE_F32), *y = numbers(wide, EMO_DTYPE_F32), *dy = numbers(wide, EMO_DTYPE_F32);
    float *dx = numbers(wide, EMO_DTYPE_F32), *weights = numbers(count, EMO_DTYPE_F32);
    float *d_weights = numbers(count, EMO_DTYPE_F32);
    float *saved = s->train ? numbers(count * 2 * (size_t)s->inner, EMO_DTYPE_F32) : NULL;
    emo_experts_args args = {.tokens = s->tokens,
                             .hidden = s->hidden,
                             .inner = s->inner,
                             .k_total = total_k,
                             .experts = experts,
                             .x = x,
                             .offsets = offsets,
                             .order = order,
                             .inverse = inverse,
                             .weights = weights,
                             .table = {slots, experts, NULL},
                             .saved = saved,
                             .y = y,
                             .dy = dy,
                             .dx = dx,
                             .d_weights = d_weights};
    double flops = 6e-9 * (double)n * (double)matrix, took = time_of(exec, &args, 0);
    printf("%-13s forward  %9.3f ms %7.1f GFLOP/s", s->what, took * 1e3, flops / took);
    if (s->tokens == 1)
        printf(" %6.2f GB/s", 3e-9 * (double)n * (double)(matrix * emo__dtype_size(s->dtype)) / took);
    printf("\n");
    if (s->train) {
        took = time_of(exec, &args, 1);
        printf("%-13s backward %9.3f ms %7.1f GFLOP/s\n", s->what, took * 1e3, 2.0 * flops / took);
    }
    for (int32_t e = 0; e < experts; e++) {
        free((void *)(uintptr_t)slots[e].gate.data);
        free((void *)(uintptr_t)slots[e].up.data);
        free((void *)(uintptr_t)slots[e].down.data);
        free(slots[e].d_gate);
        free(slots[e].d_up);
        free(slots[e].d_down);
    }
    free(slots);
    free(indices);
    free(order);
    free(inverse);
    free(offsets);
    free(x);
    free(y);
    free(dy);
    free(dx);
    free(weights);
    free(d_weights);
    free(saved);
}

int main(int argc, char **argv) {
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    options.threads = argc > 1 ? (int32_t)strtol(argv[1], NULL, 10) : 1;
    emo_runtime *rt = NULL;
    emo_exec *exec = NULL;
    emo_error err = EMO_ERROR_INIT;
    if (emo_runtime_create(&options, &rt, &err) != EMO_OK ||
        rt->cpu->ops->exec_create(rt->cpu, NULL, &exec, &err) != EMO_OK) {
        fprintf(stderr, "%s\n", err.message);
        emo_runtime_release(rt);
        return 1;
    }
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        measure(exec, &shapes[i]);
    exec->backend->ops->exec_destroy(exec);
    emo_runtime_release(rt);
    return 0;
}
