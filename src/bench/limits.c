/* SPDX-License-Identifier: Apache-2.0 */
/* What bounds operators on this processor, by the library's own means: memory read in order, and the innermost loops of
 * its products on operands that stay in the first-level cache. */
#include "bench/bench.h"

#include "base/checked.h"
#include "base/status.h"
#include "cpu/gemm/gemm.h"
#include "cpu/gemm/peak.h"

enum { PIECES_PER_WORKER = 8, LOOPS = 256, LINE_WORDS = 8, READ_PIECE = 1 << 22, READ_PARTS = 8 };

/* ---- reading ---- */

typedef struct read_task {
    uint64_t *data;
    uint64_t words;
    size_t first;   /* piece of the call */
    uint64_t *sums; /* [workers * LINE_WORDS], so that nothing is left out as useless */
} read_task;

static uint64_t piece_end(const read_task *t, size_t index) {
    uint64_t end = ((uint64_t)index + 1) * (READ_PIECE / 8);
    return end < t->words ? end : t->words;
}

static void write_piece(void *opaque, size_t index, size_t worker) {
    const read_task *t = opaque;
    (void)worker;
    uint64_t end = piece_end(t, index);
    for (uint64_t i = (uint64_t)index * (READ_PIECE / 8); i < end; i++)
        t->data[i] = i; /* a page that was never written has no memory of its own */
}

/* Two runs of lines at once, each asked for a kilobyte ahead: of what was tried, the fastest on one core. */
static void read_piece(void *opaque, size_t index, size_t worker) {
    enum { AHEAD = 1024 / 8 };
    const read_task *t = opaque;
    const uint64_t half = READ_PIECE / 8 / 2;
    const uint64_t *from = t->data + (uint64_t)(t->first + index) * 2 * half;
    uint64_t sum[LINE_WORDS] = {0};
    for (uint64_t i = 0; i < half; i += LINE_WORDS)
        for (int run = 0; run < 2; run++) {
            const uint64_t *line = from + i + (run != 0 ? half : 0);
            __builtin_prefetch(line + AHEAD, 0, 3);
            for (int l = 0; l < LINE_WORDS; l++)
                sum[l] += line[l];
        }
    for (int l = 0; l < LINE_WORDS; l++)
        t->sums[worker * LINE_WORDS + (size_t)l] += sum[l];
}

static size_t read_pieces(const emo_bench *bench) { return (size_t)((bench->o.bytes + READ_PIECE - 1) / READ_PIECE); }

/* Pieces of one call: an eighth of them, the next one at each. */
static size_t pieces_of_call(const emo_bench *bench) {
    size_t n = (read_pieces(bench) + READ_PARTS - 1) / READ_PARTS;
    return n > 0 ? n : 1;
}

static read_task reading(const emo_bench *bench) {
    size_t head = bench->rt->executor.concurrency * LINE_WORDS;
    uint64_t *memory = bench->limit;
    return (read_task){memory + head, bench->o.bytes / 8, 0, memory};
}

/* ---- multiplying ---- */

typedef struct peak_task {
    const emo__gemm_kernels *kernels; /* NULL: whole numbers */
    emo__peak_int8_fn whole;
    int64_t kc;
    char *memory; /* `room` bytes a worker */
    size_t room;
    size_t at_b, at_c; /* in it */
} peak_task;

static peak_task multiplying(const emo_bench *bench) {
    peak_task t = {.memory = bench->limit};
    if (bench->o.kind == EMO_BENCH_PEAK) {
        t.kernels = ((const emo__cpu_exec *)bench->exec)->gemm;
        /* both panels and C in 48 KB */
        t.kc = t.kernels->per_float == 2 ? EMO__GEMM_KC : EMO__GEMM_KC / 2;
        size_t lane = (size_t)(t.kc / t.kernels->per_float) * sizeof(float);
        t.at_b = (size_t)t.kernels->mr * lane;
        t.at_c = t.at_b + (size_t)t.kernels->nr * lane;
        t.room = t.at_c + (size_t)t.kernels->mr * (size_t)t.kernels->nr * sizeof(float);
    } else {
        t.whole = emo__peak_int8_of((const emo__cpu_exec *)bench->exec);
        t.room = EMO__PEAK_INT8_BYTES;
    }
    t.room = (t.room + 4095) / 4096 * 4096;
    return t;
}

static void peak_piece(void *opaque, size_t index, size_t worker) {
    unsigned char before[EMO__GEMM_STATE] __attribute__((aligned(64)));
    const peak_task *t = opaque;
    char *memory = t->memory + worker * t->room;
    (void)index;
    if (t->kernels == NULL) {
        t->whole(memory, LOOPS);
        return;
    }
    const float *a = (const float *)(void *)memory, *b = (const float *)(void *)(memory + t->at_b);
    float *c = (float *)(void *)(memory + t->at_c);
    if (t->kernels->begin != NULL)
        t->kernels->begin(before);
    for (int i = 0; i < LOOPS; i++)
        t->kernels->micro(t->kc, a, b, t->kernels->mr, t->kernels->nr, c, t->kernels->nr, 1.0f, i == 0 ? 0.0f : 1.0f);
    if (t->kernels->end != NULL)
        t->kernels->end(before);
}

/* ---- both ---- */

void emo__bench_make_limit(emo_bench *bench, emo_error *err) {
    size_t workers = bench->rt->executor.concurrency, bytes = 0;
    if (bench->o.kind == EMO_BENCH_PEAK_INT8 && emo__peak_int8_of((const emo__cpu_exec *)bench->exec) == NULL) {
        bench->status =
            emo__fail(err, EMO_E_UNSUPPORTED,
                      "this level, %s, has no instructions for sums of products of 8 bits whose peak could be measured",
                      emo_isa_name(bench->rt->isa));
        return;
    }
    if (bench->o.kind == EMO_BENCH_READ)
        bytes = (size_t)bench->o.bytes + workers * LINE_WORDS * sizeof(uint64_t);
    else
        bytes = multiplying(bench).room * workers;
    bench->limit = emo__calloc(&bench->rt->mem, 1, bytes);
    if (bench->limit == NULL) {
        bench->status = emo__fail_memory(err, bytes);
    } else if (bench->o.kind == EMO_BENCH_READ) {
        read_task t = reading(bench);
        emo__parallel_for(bench->rt, read_pieces(bench), write_piece, &t);
        size_t each = pieces_of_call(bench);
        bench->variants = (int32_t)(read_pieces(bench) / each);
        bench->bytes = (double)each * READ_PIECE;
    } else {
        peak_task t = multiplying(bench);
        double each =
            t.kernels == NULL ? EMO__PEAK_INT8_OPERATIONS : 2.0 * t.kernels->mr * t.kernels->nr * (double)t.kc;
        bench->operations = each * LOOPS * PIECES_PER_WORKER * (double)workers;
    }
}

void emo__bench_call_limit(emo_bench *bench) {
    if (bench->o.kind == EMO_BENCH_READ) {
        read_task t = reading(bench);
        t.first = (size_t)(bench->turn++ % bench->variants) * pieces_of_call(bench);
        emo__parallel_for(bench->rt, pieces_of_call(bench), read_piece, &t);
    } else {
        peak_task t = multiplying(bench);
        emo__parallel_for(bench->rt, PIECES_PER_WORKER * bench->rt->executor.concurrency, peak_piece, &t);
    }
}
