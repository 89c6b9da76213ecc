/* SPDX-License-Identifier: Apache-2.0 */
/* A back end of a few entries, as a shared library of its own: memory of the services, gemm, elementwise addition. */
#include <string.h>

#include <emo/sys/backend.h>

typedef struct few {
    emo_backend base;
    const emo_backend_services *services;
} few;

static const emo_backend_services *services_of(const emo_backend *backend) { return ((const few *)backend)->services; }

static void destroy(emo_backend *backend) {
    const emo_backend_services *s = services_of(backend);
    s->log(s->ctx, EMO_LOG_INFO, "few: closed");
    s->free(s->ctx, backend);
}

static int32_t supports(const emo_backend *backend, int32_t op, emo_dtype dtype) {
    (void)backend;
    (void)op;
    return dtype == EMO_DTYPE_F32;
}

static emo_status mem_alloc(emo_backend *backend, size_t bytes, void **out, emo_error *err) {
    const emo_backend_services *s = services_of(backend);
    (void)err;
    *out = s->alloc(s->ctx, bytes);
    return *out != NULL ? EMO_OK : EMO_E_OUT_OF_MEMORY;
}

static void mem_free(emo_backend *backend, void *ptr) { services_of(backend)->free(services_of(backend)->ctx, ptr); }

static emo_status copy(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err) {
    (void)exec;
    (void)err;
    memcpy(dst, src, bytes);
    return EMO_OK;
}

static emo_status zero(emo_exec *exec, void *dst, size_t bytes, emo_error *err) {
    (void)exec;
    (void)err;
    memset(dst, 0, bytes);
    return EMO_OK;
}

static emo_status synchronize(emo_exec *exec, emo_error *err) {
    (void)exec;
    (void)err;
    return EMO_OK;
}

static emo_status exec_create(emo_backend *backend, const emo_exec_options *options, emo_exec **out, emo_error *err) {
    void *exec = NULL;
    (void)options;
    emo_status status = mem_alloc(backend, sizeof(emo_exec), &exec, err);
    if (status == EMO_OK)
        ((emo_exec *)exec)->backend = backend;
    *out = exec;
    return status;
}

static void exec_destroy(emo_exec *exec) { mem_free(exec->backend, exec); }

static emo_status exec_reserve(emo_exec *exec, size_t bytes, emo_error *err) {
    (void)exec;
    (void)bytes;
    (void)err;
    return EMO_OK;
}

static emo_status table_sync(emo_exec *exec, emo_expert_table *table, emo_error *err) {
    (void)exec;
    (void)table;
    (void)err;
    return EMO_OK;
}

static void table_free(emo_backend *backend, emo_expert_table *table) {
    (void)backend;
    (void)table;
}

static void gemm_row(void *task, size_t i, size_t worker) {
    const emo_gemm_args *g = task;
    const float *b = g->b;
    int64_t r = (int64_t)i;
    (void)worker;
    for (int64_t j = 0; j < g->n; j++) {
        float sum = 0.0f;
        for (int64_t k = 0; k < g->k; k++)
            sum += (g->trans_a ? g->a[k * g->lda + r] : g->a[r * g->lda + k]) *
                   (g->trans_b ? b[j * g->ldb + k] : b[k * g->ldb + j]);
        float *c = &g->c[r * g->ldc + j];
        *c = g->alpha * sum + (g->beta != 0.0f ? g->beta * *c : 0.0f);
    }
}

static emo_status gemm(emo_exec *exec, const emo_gemm_args *args, emo_error *err) {
    const emo_backend_services *s = services_of(exec->backend);
    emo_gemm_args copied = *args;
    (void)err;
    s->parallel_for(s->ctx, (size_t)args->m, gemm_row, &copied);
    return EMO_OK;
}

static emo_status elementwise(emo_exec *exec, const emo_elementwise_args *a, emo_error *err) {
    (void)exec;
    (void)err;
    if (a->op != EMO_ELEMENT_ADD || a->x.data != NULL || a->y.data != NULL)
        return EMO_E_UNSUPPORTED;
    for (int64_t r = 0; r < a->rows; r++)
        for (int64_t c = 0; c < a->cols; c++)
            a->out.data[r * a->out.row + c * a->out.col] = a->beta;
    return EMO_OK;
}

static emo_status device_info(const emo_backend *backend, emo_backend_device_info *out, emo_error *err) {
    (void)backend;
    (void)err;
    memcpy(out->name, "a device of few words", sizeof "a device of few words");
    out->memory_bytes = 4096;
    return EMO_OK;
}

static const emo_backend_ops table = {.struct_size = sizeof(emo_backend_ops),
                                      .abi = EMO_BACKEND_ABI,
                                      .destroy = destroy,
                                      .supports = supports,
                                      .mem_alloc = mem_alloc,
                                      .mem_free = mem_free,
                                      .upload = copy,
                                      .download = copy,
                                      .copy = copy,
                                      .zero = zero,
                                      .synchronize = synchronize,
                                      .exec_create = exec_create,
                                      .exec_destroy = exec_destroy,
                                      .exec_reserve = exec_reserve,
                                      .table_sync = table_sync,
                                      .table_free = table_free,
                                      .gemm = gemm,
                                      .elementwise = elementwise,
                                      .device_info = device_info};

static emo_status count_devices(const emo_backend_services *services, int32_t *out, emo_error *err) {
    (void)services;
    (void)err;
    *out = 2;
    return EMO_OK;
}

static emo_status open_device(const emo_backend_services *services, int32_t index, emo_backend **out, emo_error *err) {
    (void)index;
    (void)err;
    few *backend = services->alloc(services->ctx, sizeof *backend);
    if (backend == NULL)
        return EMO_E_OUT_OF_MEMORY;
    backend->base.ops = &table;
    backend->base.name = "few";
    backend->services = services;
    *out = &backend->base;
    return EMO_OK;
}

extern const emo_backend_plugin_entry emo_backend_plugin;
__attribute__((visibility("default")))
const emo_backend_plugin_entry emo_backend_plugin = {.struct_size = sizeof(emo_backend_plugin_entry),
                                                     .abi = EMO_BACKEND_ABI,
                                                     .name = "few",
                                                     .count = count_devices,
                                                     .open = open_device};
