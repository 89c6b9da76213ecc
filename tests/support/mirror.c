/* SPDX-License-Identifier: Apache-2.0 */
#include "support/mirror.h"

#include <dlfcn.h>
#include <emo/device.h>
#include <pthread.h>

#include "backend/registry.h"
#include "cudasim/control.h"
#include "support/mirror_call.h"

const char *mirror_plugin(void) {
    const char *path = getenv("EMO_CUDA_PLUGIN");
    return path != NULL && path[0] != '\0' ? path : NULL;
}

test_device mirror_open_as(const char *plugin, int32_t threads, emo_dtype compute) {
    static emo_backend_ops ops;
    emo_error err = EMO_ERROR_INIT;
    test_device d = {test_runtime(threads, EMO_ISA_AUTO), NULL, NULL};
    emo_backend *backend = NULL;
    emo_exec_options options = {.struct_size = sizeof options, .compute = compute, .deterministic = 1};
    EXPECT_OK(emo_runtime_load_backend(d.rt, plugin, &err));
    backend = emo__registry_get(d.rt->registry, 1);
    assert_non_null(backend);
    EXPECT_OK(backend->ops->exec_create(backend, &options, &d.exec, &err));
    ops = *backend->ops;
#define PUT(entry, type) ops.entry = mirror_##entry;
    EMO_OPERATORS(PUT, PUT)
    d.ops = &ops;
    return d;
}

test_device mirror_open(const char *plugin, int32_t threads) { return mirror_open_as(plugin, threads, EMO_DTYPE_F32); }

const cudasim_control_table *mirror_simulator(const char *plugin) {
    void *library = dlopen(plugin, RTLD_NOW | RTLD_NOLOAD);
    const cudasim_control_table *control = library != NULL ? dlsym(library, CUDASIM_CONTROL_SYMBOL) : NULL;
    if (library != NULL)
        (void)dlclose(library); /* the library itself stays */
    return control;
}

void mirror_expect_clean(const char *plugin) {
    const cudasim_control_table *control = mirror_simulator(plugin);
    static char text[4096];
    if (control == NULL || control->findings() == 0)
        return;
    (void)control->take(text, sizeof text);
    fail_msg("the simulator found: %s", text);
}

void mirror_close(test_device *d, const char *plugin) {
    mirror_expect_clean(plugin);
    d->exec->backend->ops->exec_destroy(d->exec);
    emo_runtime_release(d->rt);
}

/* ---- the CPU's operators on the device ---- */

static struct {
    pthread_mutex_t lock;
    emo_exec *exec;
    const emo_backend_ops *own;
    emo_backend_ops table;
} installed = {.lock = PTHREAD_MUTEX_INITIALIZER};

#define REDIRECT(entry, type)                                                                                          \
    static emo_status redirect_##entry(emo_exec *exec, const type *args, emo_error *err) {                             \
        (void)exec;                                                                                                    \
        (void)pthread_mutex_lock(&installed.lock);                                                                     \
        emo_status status = mirror_##entry(installed.exec, args, err);                                                 \
        (void)pthread_mutex_unlock(&installed.lock);                                                                   \
        return status;                                                                                                 \
    }
EMO_OPERATORS(REDIRECT, REDIRECT)

void mirror_install(emo_runtime *rt, const char *plugin) {
    emo_error err = EMO_ERROR_INIT;
    EXPECT_OK(emo_runtime_load_backend(rt, plugin, &err));
    emo_backend *backend = emo__registry_get(rt->registry, 1);
    assert_non_null(backend);
    EXPECT_OK(backend->ops->exec_create(backend, NULL, &installed.exec, &err));
    installed.own = rt->cpu->ops;
    installed.table = *rt->cpu->ops;
#define SEND(entry, type) installed.table.entry = redirect_##entry;
    EMO_OPERATORS(SEND, SEND)
    rt->cpu->ops = &installed.table;
}

void mirror_remove(emo_runtime *rt) {
    installed.exec->backend->ops->exec_destroy(installed.exec);
    installed.exec = NULL;
    rt->cpu->ops = installed.own;
}
