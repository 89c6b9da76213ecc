/* SPDX-License-Identifier: Apache-2.0 */
/* Each operator once, for a program that counts instructions: bench_counts ISA [--only WORDS] [--twice NAME]
 * [--calls N]. Prints the names in the order of the calls of count_this(); count_instructions.sh counts inside those.
 * --twice has one operator do its work twice, as a slower kernel would. */
#include <emo/sys/bench.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct operator_case {
    const char *name;
    emo_bench_kind kind;
    int32_t backward;
    emo_dtype weights;
    emo_dtype compute;
    int32_t tokens;
} operator_case;

/* Shapes that are no multiple of a kernel's, small enough for a machine that is simulated. */
enum { MANY = 75, ONE = 1 };
static const operator_case cases[] = {
    {"embed", EMO_BENCH_EMBED, 0, EMO_DTYPE_BF16, EMO_DTYPE_F32, MANY},
    {"embed-backward", EMO_BENCH_EMBED, 1, EMO_DTYPE_F32, EMO_DTYPE_F32, MANY},
    {"norm", EMO_BENCH_NORM, 0, EMO_DTYPE_F32, EMO_DTYPE_F32, MANY},
    {"norm-backward", EMO_BENCH_NORM, 1, EMO_DTYPE_F32, EMO_DTYPE_F32, MANY},
    {"rope", EMO_BENCH_ROPE, 0, EMO_DTYPE_F32, EMO_DTYPE_F32, MANY},
    {"linear", EMO_BENCH_LINEAR, 0, EMO_DTYPE_F32, EMO_DTYPE_F32, MANY},
    {"linear-backward", EMO_BENCH_LINEAR, 1, EMO_DTYPE_F32, EMO_DTYPE_F32, MANY},
    {"linear-f16", EMO_BENCH_LINEAR, 0, EMO_DTYPE_F16, EMO_DTYPE_F32, MANY},
    {"linear-q8_0", EMO_BENCH_LINEAR, 0, EMO_DTYPE_Q8_0, EMO_DTYPE_F32, MANY},
    {"linear-q4_0", EMO_BENCH_LINEAR, 0, EMO_DTYPE_Q4_0, EMO_DTYPE_F32, MANY},
    {"linear-q4_k", EMO_BENCH_LINEAR, 0, EMO_DTYPE_Q4_K, EMO_DTYPE_F32, MANY},
    {"linear-one", EMO_BENCH_LINEAR, 0, EMO_DTYPE_BF16, EMO_DTYPE_F32, ONE},
    {"linear-rounded", EMO_BENCH_LINEAR, 0, EMO_DTYPE_F32, EMO_DTYPE_BF16, MANY},
    {"attention", EMO_BENCH_ATTENTION, 0, EMO_DTYPE_F32, EMO_DTYPE_F32, MANY},
    {"attention-backward", EMO_BENCH_ATTENTION, 1, EMO_DTYPE_F32, EMO_DTYPE_F32, MANY},
    {"route", EMO_BENCH_ROUTE, 0, EMO_DTYPE_F32, EMO_DTYPE_F32, MANY},
    {"route-backward", EMO_BENCH_ROUTE, 1, EMO_DTYPE_F32, EMO_DTYPE_F32, MANY},
    {"plan", EMO_BENCH_PLAN, 0, EMO_DTYPE_F32, EMO_DTYPE_F32, MANY},
    {"experts", EMO_BENCH_EXPERTS, 0, EMO_DTYPE_F32, EMO_DTYPE_F32, MANY},
    {"experts-backward", EMO_BENCH_EXPERTS, 1, EMO_DTYPE_F32, EMO_DTYPE_F32, MANY},
    {"experts-one", EMO_BENCH_EXPERTS, 0, EMO_DTYPE_BF16, EMO_DTYPE_F32, ONE},
    {"swiglu", EMO_BENCH_SWIGLU, 0, EMO_DTYPE_F32, EMO_DTYPE_F32, MANY},
    {"swiglu-backward", EMO_BENCH_SWIGLU, 1, EMO_DTYPE_F32, EMO_DTYPE_F32, MANY},
    {"head-loss", EMO_BENCH_HEAD_LOSS, 1, EMO_DTYPE_F32, EMO_DTYPE_F32, MANY},
    {"head-logits", EMO_BENCH_HEAD_LOGITS, 0, EMO_DTYPE_F32, EMO_DTYPE_F32, ONE},
    {"adamw", EMO_BENCH_ADAMW, 0, EMO_DTYPE_F32, EMO_DTYPE_F32, MANY},
    {"sumsq", EMO_BENCH_SUMSQ, 0, EMO_DTYPE_F32, EMO_DTYPE_F32, MANY},
};

int count_this(emo_bench *bench, int32_t calls); /* not static: it is found by its name */

__attribute__((noinline)) int count_this(emo_bench *bench, int32_t calls) {
    double seconds = 0.0;
    return emo_bench_run(bench, calls, &seconds, NULL) == EMO_OK;
}

static int run(emo_runtime *rt, const operator_case *c, int32_t calls) {
    emo_error err = EMO_ERROR_INIT;
    emo_bench *bench = NULL;
    emo_bench_options o = EMO_BENCH_OPTIONS_INIT;
    o.kind = c->kind;
    o.backward = c->backward;
    o.weights = c->weights;
    o.compute = c->compute;
    o.tokens = c->tokens;
    o.hidden = 256;
    o.inner = 96;
    o.experts = 9;
    o.vocab = 500;
    o.heads = 4;
    o.document = 40;
    if (emo_bench_create(rt, &o, &bench, &err) != EMO_OK) {
        (void)fprintf(stderr, "%s: %s\n", c->name, err.message);
        return 0;
    }
    double seconds = 0.0; /* once outside: the first call of a function of another library looks it up */
    int ok = emo_bench_run(bench, 1, &seconds, &err) == EMO_OK && count_this(bench, calls);
    emo_bench_release(bench);
    (void)printf("%s\n", c->name);
    return ok;
}

int main(int argc, char **argv) {
    const char *only = NULL, *twice = NULL;
    int32_t calls = 1;
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    emo_runtime *rt = NULL;
    emo_error err = EMO_ERROR_INIT;
    for (int i = 2; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--only") == 0)
            only = argv[i + 1];
        else if (strcmp(argv[i], "--twice") == 0)
            twice = argv[i + 1];
        else if (strcmp(argv[i], "--calls") == 0)
            calls = (int32_t)strtol(argv[i + 1], NULL, 10);
    }
    for (emo_isa isa = EMO_ISA_SCALAR; argc > 1 && isa <= EMO_ISA_AMX; isa++)
        if (emo_isa_name(isa) != NULL && strcmp(argv[1], emo_isa_name(isa)) == 0)
            options.isa = isa;
    if (options.isa == EMO_ISA_AUTO || calls < 1 || argc % 2 != 0) {
        (void)fprintf(stderr, "usage: %s ISA [--only NAME] [--twice NAME] [--calls N]\n", argv[0]);
        return 2;
    }
    options.threads = 1;
    emo_status status = emo_runtime_create(&options, &rt, &err);
    if (status != EMO_OK) {
        (void)fprintf(stderr, "%s\n", err.message);
        return status == EMO_E_UNSUPPORTED ? 77 : 1;
    }
    int ok = 1;
    for (size_t i = 0; ok && i < sizeof cases / sizeof cases[0]; i++)
        if (only == NULL || strcmp(only, cases[i].name) == 0)
            ok = run(rt, &cases[i], twice != NULL && strcmp(twice, cases[i].name) == 0 ? 2 * calls : calls);
    emo_runtime_release(rt);
    return !ok;
}
