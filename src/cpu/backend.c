/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU back end's memory, execs and table. Work is done when a call returns, so synchronising is a no-op. */
#include <string.h>

#include "backend/composed.h"
#include "base/checked.h"
#include "base/status.h"
#include "cpu/cpu.h"
#include "cpu/gemm/gemm.h"
#include "tensor/dtype.h"
#include "tensor/quant.h"

static const emo_runtime *runtime_of(emo_backend *backend) { return ((emo__cpu_backend *)backend)->rt; }

/* A region of an exec begins with its size. The system gives memory as pages of zeros, which takes longer than what
 * many operators do in it: sessions come and go, and the next one takes over what the last one had. */
#define REGION_HEAD EMO__ALIGN
#define REGION_LEAST ((size_t)4 << 20) /* what is kept when nobody uses it: no less, nor more */
#define REGION_MOST ((size_t)128 << 20)

static size_t region_size(const void *region) {
    size_t size;
    memcpy(&size, (const char *)region - REGION_HEAD, sizeof size);
    return size;
}

static void region_free(const emo__mem *mem, void *region) {
    if (region != NULL)
        emo__free(mem, (char *)region - REGION_HEAD);
}

static void *region_take(emo__cpu_backend *backend, size_t bytes) {
    const emo__mem *mem = &backend->rt->mem;
    void *kept = __atomic_exchange_n(&backend->kept, NULL, __ATOMIC_ACQ_REL);
    if (kept != NULL && region_size(kept) >= bytes)
        return kept;
    region_free(mem, kept);
    size_t whole;
    char *block = emo__add_size(bytes, REGION_HEAD, &whole) ? emo__alloc(mem, whole) : NULL;
    if (block == NULL)
        return NULL;
    memcpy(block, &bytes, sizeof bytes);
    return block + REGION_HEAD;
}

static void region_give(emo__cpu_backend *backend, void *region) {
    if (region != NULL && region_size(region) >= REGION_LEAST && region_size(region) <= REGION_MOST)
        region = __atomic_exchange_n(&backend->kept, region, __ATOMIC_ACQ_REL);
    region_free(&backend->rt->mem, region);
}

static void destroy(emo_backend *backend) {
    if (backend != NULL) {
        region_free(&runtime_of(backend)->mem, ((emo__cpu_backend *)backend)->kept);
        emo__free(&runtime_of(backend)->mem, backend);
    }
}

static emo_status mem_alloc(emo_backend *backend, size_t bytes, void **out, emo_error *err) {
    *out = emo__alloc(&runtime_of(backend)->mem, bytes);
    return *out != NULL ? EMO_OK : emo__fail_memory(err, bytes);
}

static void mem_free(emo_backend *backend, void *ptr) { emo__free(&runtime_of(backend)->mem, ptr); }

/* Large blocks are worth several threads. */
#define PIECE ((size_t)1 << 20)

typedef struct block_task {
    char *dst;
    const char *src; /* NULL: zeros */
    size_t bytes;
} block_task;

static void block_piece(void *task, size_t index, size_t worker) {
    const block_task *t = task;
    (void)worker;
    size_t first = index * PIECE;
    size_t bytes = t->bytes - first < PIECE ? t->bytes - first : PIECE;
    if (t->src != NULL)
        memcpy(t->dst + first, t->src + first, bytes);
    else
        memset(t->dst + first, 0, bytes);
}

static emo_status copy(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err) {
    (void)err;
    block_task t = {dst, src, bytes};
    if (bytes >= 4 * PIECE)
        emo__parallel_for(emo__cpu(exec)->rt, (bytes + PIECE - 1) / PIECE, block_piece, &t);
    else if (bytes > 0)
        memcpy(dst, src, bytes);
    return EMO_OK;
}

static emo_status zero(emo_exec *exec, void *dst, size_t bytes, emo_error *err) {
    (void)err;
    block_task t = {dst, NULL, bytes};
    if (bytes >= 4 * PIECE)
        emo__parallel_for(emo__cpu(exec)->rt, (bytes + PIECE - 1) / PIECE, block_piece, &t);
    else if (bytes > 0)
        memset(dst, 0, bytes);
    return EMO_OK;
}

static emo_status synchronize(emo_exec *exec, emo_error *err) {
    (void)exec;
    (void)err;
    return EMO_OK;
}

static emo_status exec_create(emo_backend *backend, const emo_exec_options *options, emo_exec **out, emo_error *err) {
    *out = NULL;
    emo_dtype compute = options != NULL ? options->compute : EMO_DTYPE_F32;
    if (compute != EMO_DTYPE_F32 && compute != EMO_DTYPE_BF16)
        return emo__fail(err, EMO_E_UNSUPPORTED, "the CPU back end computes in f32 or bf16, not in %s",
                         emo_dtype_name(compute) != NULL ? emo_dtype_name(compute) : "?");
    const emo_runtime *rt = runtime_of(backend);
    emo__cpu_exec *cpu = emo__calloc(&rt->mem, 1, sizeof *cpu);
    if (cpu == NULL)
        return emo__fail_memory(err, sizeof *cpu);
    cpu->base.backend = backend;
    cpu->rt = rt;
    cpu->isa = rt->isa;
    if (compute == EMO_DTYPE_BF16 && cpu->isa >= EMO_ISA_AMX && !emo__cpu_allow_amx()) {
        emo__log(rt, EMO_LOG_WARNING, "the system does not allow AMX to this process: bf16 products use AVX-512");
        cpu->isa = EMO_ISA_AVX512_VNNI; /* which such a processor has */
    }
    cpu->gemm = emo__gemm_kernels_of(cpu->isa, compute);
    cpu->workers = rt->executor.concurrency;
    *out = &cpu->base;
    return EMO_OK;
}

static void exec_destroy(emo_exec *exec) {
    if (exec != NULL) {
        emo__cpu_exec *cpu = emo__cpu(exec);
        region_give((emo__cpu_backend *)exec->backend, cpu->scratch);
        region_free(&cpu->rt->mem, cpu->outer);
        emo__free(&cpu->rt->mem, cpu);
    }
}

/* ---- work in parts ---- */

static int64_t window(emo_exec *exec, int64_t first, int64_t last, int64_t work) {
    emo__cpu_window *w = &emo__cpu(exec)->window;
    int64_t seen = w->seen;
    *w = (emo__cpu_window){first, last, 0, work};
    return seen;
}

typedef struct part_task {
    emo_task_fn fn;
    void *task;
    size_t first;
} part_task;

static void run_part(void *arg, size_t index, size_t worker) {
    const part_task *t = arg;
    t->fn(t->task, t->first + index, worker);
}

/* About ten microseconds of one core: waking another takes as long. */
#define LITTLE_WORK ((int64_t)1 << 17)

static void run_loop(const emo__cpu_exec *cpu, size_t count, int64_t work, emo_task_fn fn, void *task) {
    if (work >= LITTLE_WORK) {
        emo__parallel_for(cpu->rt, count, fn, task);
        return;
    }
    for (size_t i = 0; i < count; i++)
        fn(task, i, 0);
}

void emo__cpu_for(emo__cpu_exec *cpu, size_t count, int64_t work, emo_task_fn fn, void *task) {
    emo__cpu_window *w = &cpu->window;
    if (w->work == 0) {
        run_loop(cpu, count, work, fn, task);
        return;
    }
    int64_t first = w->first > w->seen ? w->first - w->seen : 0;
    int64_t last = w->last - w->seen < (int64_t)count ? w->last - w->seen : (int64_t)count;
    part_task part = {fn, task, (size_t)first};
    w->seen += (int64_t)count;
    if (first < last)
        run_loop(cpu, (size_t)(last - first), work / (int64_t)count * (last - first), run_part, &part);
}

/* Rows beyond which a weight that was read is used often enough; multiply-adds then count, not reading. */
enum { MANY_ROWS = 32, TILE_ROWS = 128 };
/* Weights of a tile with fewer rows for one of several workers: reading them takes a fraction of a millisecond, which
 * is what an operator waits for at most when the system stops a worker in one. */
#define TILE_WEIGHTS ((int64_t)1 << 19)

void emo__cpu_task_shape(const emo__cpu_exec *cpu, int64_t m, int64_t k, int products, int64_t *max_rows,
                         int64_t *max_cols) {
    *max_rows = *max_cols = 0;
    if (k < 1)
        return;
    if (cpu->window.work == 0) {
        if (cpu->workers > 1 && m < MANY_ROWS)
            *max_cols = k * products < TILE_WEIGHTS ? TILE_WEIGHTS / (k * products) : 1;
        return;
    }
    int64_t rows = m < TILE_ROWS ? m : TILE_ROWS;
    int64_t columns = cpu->window.work / (k * products * (rows > MANY_ROWS ? rows : MANY_ROWS));
    *max_rows = rows;
    *max_cols = columns > 1 ? columns : 1; /* the engine has a least of its own */
}

static void *grow_region(emo__cpu_exec *cpu, char **region, size_t *size, size_t bytes, emo_error *err) {
    if (((emo__cpu_backend *)cpu->base.backend)->planning) { /* the operator gives up here: see planner.c */
        *size = bytes > *size ? bytes : *size;
        cpu->taken = bytes > cpu->taken ? bytes : cpu->taken;
        return NULL;
    }
    if (bytes > *size && *region != NULL && region_size(*region) >= bytes) { /* one that was kept */
        *size = bytes;
    } else if (bytes > *size) {
        void *fresh = region_take((emo__cpu_backend *)cpu->base.backend, bytes);
        if (fresh == NULL) {
            (void)emo__fail_memory(err, bytes);
            return NULL;
        }
        region_free(&cpu->rt->mem, *region);
        *region = fresh;
        *size = bytes;
    }
    return *region;
}

void *emo__cpu_scratch(emo__cpu_exec *cpu, size_t bytes, emo_error *err) {
    return grow_region(cpu, &cpu->scratch, &cpu->scratch_size, bytes, err);
}

void *emo__cpu_outer(emo__cpu_exec *cpu, size_t bytes, emo_error *err) {
    return grow_region(cpu, &cpu->outer, &cpu->outer_size, bytes, err);
}

static emo_status exec_reserve(emo_exec *exec, size_t bytes, emo_error *err) {
    if (bytes == 0)
        return EMO_OK;
    return emo__cpu_scratch(emo__cpu(exec), bytes, err) != NULL ? EMO_OK : EMO_E_OUT_OF_MEMORY;
}

static emo_status table_sync(emo_exec *exec, emo_expert_table *table, emo_error *err) {
    (void)exec;
    (void)err;
    table->device = NULL; /* the CPU reads `slots` */
    return EMO_OK;
}

static void table_free(emo_backend *backend, emo_expert_table *table) {
    (void)backend;
    table->device = NULL;
}

static int32_t supports(const emo_backend *backend, int32_t op, emo_dtype weight_dtype) {
    (void)backend;
    return op >= EMO_OP_EMBED && op <= EMO_OP_ATTENTION_PAGES &&
           (emo__dtype_float(weight_dtype) || ((op == EMO_OP_EMBED || op == EMO_OP_LINEAR || op == EMO_OP_EXPERTS ||
                                                op == EMO_OP_HEAD || op == EMO_OP_EXPERTS_PARTS) &&
                                               emo__dtype_quantised(weight_dtype))); /* forward only */
}

static size_t exec_scratch(emo_exec *exec) { return emo__cpu(exec)->scratch_size + emo__cpu(exec)->outer_size; }

/* What the process may have is for the system to say, when it is asked for it. */
static emo_status memory(emo_backend *backend, emo_backend_memory *out, emo_error *err) {
    (void)backend;
    (void)out;
    (void)err;
    return EMO_OK;
}

emo_status emo__cpu_backend_create(const emo_runtime *rt, emo_backend **out, emo_error *err) {
    *out = NULL;
    emo__cpu_backend *cpu = emo__calloc(&rt->mem, 1, sizeof *cpu);
    if (cpu == NULL)
        return emo__fail_memory(err, sizeof *cpu);
    cpu->rt = rt;
    cpu->base.ops = &cpu->ops;
    cpu->base.name = "cpu";
    emo_backend_ops *ops = &cpu->ops;
    ops->struct_size = sizeof *ops;
    ops->abi = EMO_BACKEND_ABI;
    ops->destroy = destroy;
    ops->supports = supports;
    ops->mem_alloc = mem_alloc;
    ops->mem_free = mem_free;
    ops->upload = copy;
    ops->download = copy;
    ops->copy = copy;
    ops->zero = zero;
    ops->synchronize = synchronize;
    ops->exec_create = exec_create;
    ops->exec_destroy = exec_destroy;
    ops->exec_reserve = exec_reserve;
    ops->table_sync = table_sync;
    ops->table_free = table_free;
    ops->window = window;
    emo__cpu_register_all(ops);
    ops->planner = emo__cpu_planner;
    ops->memory = memory;
    ops->exec_scratch = exec_scratch;
    emo__backend_complete(ops);
    *out = &cpu->base;
    return EMO_OK;
}
