/* SPDX-License-Identifier: Apache-2.0 */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "support/far.h"

#include <sys/mman.h>
#include <unistd.h>

#include "backend/registry.h"
#include "base/status.h"

typedef struct block {
    struct block *next;
    void *data;
    size_t bytes; /* whole pages */
} block;

typedef struct far_backend {
    emo_backend base;
    emo_backend *cpu;
    emo_backend_ops ops;
    block *blocks;
} far_backend;

typedef struct pending {
    struct pending *next;
    void *dst;
    size_t bytes;
    char data[];
} pending;

typedef struct far_exec {
    emo_exec base;
    emo_exec *cpu;
    pending *downloads; /* newest first */
} far_exec;

static int fail_in;
static size_t live;

void far_fail_allocation(int n) { fail_in = n; }
size_t far_live_bytes(void) { return live; }

static far_backend *of(emo_backend *b) { return (far_backend *)b; }
static far_exec *of_exec(emo_exec *e) { return (far_exec *)e; }

static void protect(emo_backend *backend, int how) {
    for (block *b = of(backend)->blocks; b != NULL; b = b->next)
        assert_int_equal(mprotect(b->data, b->bytes, how), 0);
}

static emo_status mem_alloc(emo_backend *backend, size_t bytes, void **out, emo_error *err) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    *out = NULL;
    if (fail_in > 0 && --fail_in == 0)
        return emo__fail_memory(err, bytes);
    block *b = malloc(sizeof *b);
    assert_non_null(b);
    b->bytes = (bytes / page + 1) * page;
    b->data = mmap(NULL, b->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(b->data != MAP_FAILED);
    memset(b->data, 0xff, b->bytes); /* not a number */
    assert_int_equal(mprotect(b->data, b->bytes, PROT_NONE), 0);
    b->next = of(backend)->blocks;
    of(backend)->blocks = b;
    live += b->bytes;
    *out = b->data;
    return EMO_OK;
}

static void mem_free(emo_backend *backend, void *ptr) {
    for (block **at = &of(backend)->blocks; *at != NULL; at = &(*at)->next) {
        block *b = *at;
        if (b->data != ptr)
            continue;
        *at = b->next;
        assert_int_equal(munmap(b->data, b->bytes), 0);
        live -= b->bytes;
        free(b);
        return;
    }
    assert_null(ptr); /* memory of another device */
}

static emo_status move(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err) {
    (void)err;
    protect(exec->backend, PROT_READ | PROT_WRITE);
    if (bytes > 0 && src != NULL)
        memcpy(dst, src, bytes);
    else if (bytes > 0)
        memset(dst, 0, bytes);
    protect(exec->backend, PROT_NONE);
    return EMO_OK;
}

static emo_status zero(emo_exec *exec, void *dst, size_t bytes, emo_error *err) {
    return move(exec, dst, NULL, bytes, err);
}

static emo_status download(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err) {
    pending *p = malloc(sizeof *p + bytes);
    assert_non_null(p);
    *p = (pending){of_exec(exec)->downloads, dst, bytes};
    of_exec(exec)->downloads = p;
    memset(dst, 0xff, bytes);
    return move(exec, p->data, src, bytes, err);
}

static void deliver(pending *p, int arrive) {
    if (p == NULL)
        return;
    deliver(p->next, arrive);
    if (arrive)
        memcpy(p->dst, p->data, p->bytes);
    free(p);
}

static emo_status synchronize(emo_exec *exec, emo_error *err) {
    (void)err;
    deliver(of_exec(exec)->downloads, 1);
    of_exec(exec)->downloads = NULL;
    return EMO_OK;
}

static emo_status exec_create(emo_backend *backend, const emo_exec_options *options, emo_exec **out, emo_error *err) {
    far_exec *e = calloc(1, sizeof *e);
    assert_non_null(e);
    e->base.backend = backend;
    emo_status status = of(backend)->cpu->ops->exec_create(of(backend)->cpu, options, &e->cpu, err);
    *out = status == EMO_OK ? &e->base : NULL;
    if (status != EMO_OK)
        free(e);
    return status;
}

static void exec_destroy(emo_exec *exec) {
    if (exec == NULL)
        return;
    deliver(of_exec(exec)->downloads, 0);
    exec->backend->ops->synchronize(exec, NULL);
    of(exec->backend)->cpu->ops->exec_destroy(of_exec(exec)->cpu);
    free(exec);
}

static emo_status exec_reserve(emo_exec *exec, size_t bytes, emo_error *err) {
    (void)exec;
    (void)bytes;
    (void)err;
    return EMO_OK;
}

/* A table on the device: a block that must come back. */
static void table_free(emo_backend *backend, emo_expert_table *table) {
    mem_free(backend, table->device);
    table->device = NULL;
}

static emo_status table_sync(emo_exec *exec, emo_expert_table *table, emo_error *err) {
    table_free(exec->backend, table);
    return mem_alloc(exec->backend, 1, &table->device, err);
}

static void destroy(emo_backend *backend) {
    assert_null(of(backend)->blocks); /* everything was given back */
    free(backend);
}

static int32_t supports(const emo_backend *backend, int32_t op, emo_dtype dtype) {
    (void)backend;
    (void)op;
    return dtype == EMO_DTYPE_F32 || dtype == EMO_DTYPE_F16 || dtype == EMO_DTYPE_BF16;
}

#define FAR(entry, type)                                                                                               \
    static emo_status far_##entry(emo_exec *exec, const type *args, emo_error *err) {                                  \
        protect(exec->backend, PROT_READ | PROT_WRITE);                                                                \
        emo_status status = of(exec->backend)->cpu->ops->entry(of_exec(exec)->cpu, args, err);                         \
        protect(exec->backend, PROT_NONE);                                                                             \
        return status;                                                                                                 \
    }
EMO_OPERATORS(FAR, FAR)

void far_add(emo_runtime *rt) {
    emo_error err = EMO_ERROR_INIT;
    far_backend *far = calloc(1, sizeof *far);
    emo__device *device = emo__calloc(&rt->mem, 1, sizeof *device);
    assert_non_null(far);
    assert_non_null(device);
    emo_backend_ops *ops = &device->ops;
    ops->struct_size = sizeof *ops;
    ops->abi = EMO_BACKEND_ABI;
    ops->destroy = destroy;
    ops->supports = supports;
    ops->mem_alloc = mem_alloc;
    ops->mem_free = mem_free;
    ops->upload = move;
    ops->download = download;
    ops->copy = move;
    ops->zero = zero;
    ops->synchronize = synchronize;
    ops->exec_create = exec_create;
    ops->exec_destroy = exec_destroy;
    ops->exec_reserve = exec_reserve;
    ops->table_sync = table_sync;
    ops->table_free = table_free;
#define PUT(entry, type) ops->entry = far_##entry;
    EMO_OPERATORS(PUT, PUT)
    far->base.ops = ops;
    far->base.name = "far";
    far->cpu = rt->cpu;
    device->backend = &far->base;
    EXPECT_OK(emo__registry_add(rt->registry, &device, 1, &err));
}
