/* SPDX-License-Identifier: Apache-2.0 */
/* GFLOP/s of the matrix engine: bench_gemm [threads] [scalar|avx2|avx512|amx] [f32|bf16]. Best of several repetitions,
 * about a tenth of a second each. Rows with m of 8 or fewer also say how fast the weights stream. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/runtime.h"
#include "cpu/cpu.h"
#include "tensor/dtype.h"

typedef struct shape {
    const char *what;
    int ta, tb;
    int64_t m, n, k;
    emo_dtype dtype;
} shape;

static const shape shapes[] = {
    {"square", 0, 1, 2048, 2048, 2048, EMO_DTYPE_F32},
    {"linear", 0, 1, 4096, 256, 256, EMO_DTYPE_F32},
    {"qkv", 0, 1, 4096, 768, 256, EMO_DTYPE_F32},
    {"head", 0, 1, 4096, 8192, 256, EMO_DTYPE_F32},
    {"dgrad", 0, 0, 4096, 256, 256, EMO_DTYPE_F32},
    {"wgrad", 1, 0, 256, 256, 4096, EMO_DTYPE_F32},
    {"wgrad head", 1, 0, 8192, 256, 4096, EMO_DTYPE_F32},
    {"expert up", 0, 1, 512, 128, 256, EMO_DTYPE_F32},
    {"expert down", 0, 1, 512, 256, 128, EMO_DTYPE_F32},
    {"expert wgrad", 1, 0, 128, 256, 512, EMO_DTYPE_F32},
    {"prefill expert", 0, 1, 28, 1024, 2048, EMO_DTYPE_BF16},
    {"decode f32", 0, 1, 1, 8192, 2048, EMO_DTYPE_F32},
    {"decode f16", 0, 1, 1, 16384, 2048, EMO_DTYPE_F16},
    {"decode bf16", 0, 1, 1, 16384, 2048, EMO_DTYPE_BF16},
    {"decode x8", 0, 1, 8, 16384, 2048, EMO_DTYPE_BF16},
};

static double now(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int measure(emo_exec *exec, const shape *s) {
    size_t na = (size_t)(s->m * s->k), nb = (size_t)(s->n * s->k), nc = (size_t)(s->m * s->n);
    float *a = malloc(na * sizeof *a), *c = calloc(nc, sizeof *c);
    size_t item = emo__dtype_size(s->dtype);
    char *b = malloc(nb * item);
    int ok = a != NULL && b != NULL && c != NULL;
    double best = 1e30, begin = now();
    if (ok) {
        for (size_t i = 0; i < na; i++)
            a[i] = (float)(i % 13) * 0.1f - 0.6f;
        for (size_t i = 0; i < nb; i++) {
            float value = (float)(i % 11) * 0.1f - 0.5f;
            (void)emo__convert(b + i * item, s->dtype, &value, EMO_DTYPE_F32, 1);
        }
        emo_gemm_args args = {
            s->ta, s->tb, s->m, s->n, s->k, 1.0f, a, s->ta ? s->m : s->k, b, s->dtype, s->tb ? s->k : s->n,
            0.0f,  c,     s->n};
        begin = now();
        for (int turn = 0; ok && (turn < 3 || now() - begin < 0.15); turn++) {
            double start = now();
            ok = exec->backend->ops->gemm(exec, &args, NULL) == EMO_OK;
            double took = now() - start;
            best = took < best ? took : best;
        }
    }
    if (ok) {
        printf("%-15s %5lld %6lld %5lld  %7.1f GFLOP/s", s->what, (long long)s->m, (long long)s->n, (long long)s->k,
               2e-9 * (double)s->m * (double)s->n * (double)s->k / best);
        if (s->m <= 8)
            printf("  %6.2f GB/s", 1e-9 * (double)(nb * item) / best);
        printf("\n");
    }
    free(a);
    free(b);
    free(c);
    return ok;
}

int main(int argc, char **argv) {
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    options.threads = argc > 1 ? (int32_t)strtol(argv[1], NULL, 10) : 1;
    if (argc > 2)
        options.isa = strcmp(argv[2], "scalar") == 0 ? EMO_ISA_SCALAR
                      : strcmp(argv[2], "avx2") == 0 ? EMO_ISA_AVX2
                      : strcmp(argv[2], "amx") == 0  ? EMO_ISA_AMX
                                                     : EMO_ISA_AVX512;
    emo_exec_options exec_options = {.struct_size = sizeof exec_options};
    if (argc > 3 && strcmp(argv[3], "bf16") == 0)
        exec_options.compute = EMO_DTYPE_BF16;
    emo_runtime *rt = NULL;
    emo_exec *exec = NULL;
    emo_error err = EMO_ERROR_INIT;
    if (emo_runtime_create(&options, &rt, &err) != EMO_OK ||
        rt->cpu->ops->exec_create(rt->cpu, &exec_options, &exec, &err) != EMO_OK) {
        fprintf(stderr, "%s\n", err.message);
        emo_runtime_release(rt);
        return 1;
    }
    int ok = 1;
    for (size_t i = 0; ok && i < sizeof shapes / sizeof shapes[0]; i++)
        ok = measure(exec, &shapes[i]);
    exec->backend->ops->exec_destroy(exec);
    emo_runtime_release(rt);
    return ok ? 0 : 1;
}
