/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/plugin.h"

#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

#include "backend/composed.h"
#include "base/status.h"

/* ---- services ---- */

static void *service_alloc(void *ctx, size_t bytes) { return emo__alloc(&((const emo_runtime *)ctx)->mem, bytes); }
static void service_free(void *ctx, void *ptr) { emo__free(&((const emo_runtime *)ctx)->mem, ptr); }
static void service_log(void *ctx, emo_log_level level, const char *message) {
    emo__log(ctx, level, "%s", message != NULL ? message : "");
}
static void service_parallel_for(void *ctx, size_t count, emo_task_fn fn, void *task) {
    emo__parallel_for(ctx, count, fn, task);
}

static emo_backend_services services_of(const emo_runtime *rt) {
    return (emo_backend_services){.struct_size = sizeof(emo_backend_services),
                                  .abi = EMO_BACKEND_ABI,
                                  .ctx = (void *)(uintptr_t)rt,
                                  .alloc = service_alloc,
                                  .free = service_free,
                                  .log = service_log,
                                  .workers = rt->executor.concurrency,
                                  .parallel_for = service_parallel_for,
                                  .libraries = rt->libraries};
}

/* ---- devices ---- */

/* A plug-in's failure as a status of ours, whatever it returned. */
static emo_status plugin_failed(emo_error *err, emo_status status, const char *name, const char *what) {
    if (status >= 0) {
        emo__error_clear(err);
        return emo__fail(err, EMO_E_BACKEND, "back end '%s' answered %s with status %d, which is no status", name, what,
                         (int)status);
    }
    if (err != NULL && err->message[0] == '\0')
        return emo__fail_at(err, status, EMO_DOMAIN_BACKEND, 0, "back end '%s' failed in %s", name, what);
    return emo__fail_prefix(err, status, "back end '%s'", name);
}

/* Copies the table, refuses one that lacks what has no default, and completes it. */
static emo_status adopt_table(emo__device *device, const char *name, emo_error *err) {
    const emo_backend_ops *own = device->backend->ops;
    if (own == NULL || own->struct_size < sizeof own->struct_size + sizeof own->abi)
        return emo__fail(err, EMO_E_BACKEND, "back end '%s' opened a device without an operator table", name);
    if (own->abi != EMO_BACKEND_ABI)
        return emo__fail(err, EMO_E_UNSUPPORTED,
                         "back end '%s' has an operator table of version %u; this is version %d", name,
                         (unsigned)own->abi, EMO_BACKEND_ABI);
    emo_backend_ops *ops = &device->ops;
    memset(ops, 0, sizeof *ops);
    memcpy(ops, own, own->struct_size < sizeof *ops ? own->struct_size : sizeof *ops);
    ops->struct_size = sizeof *ops;
#define REQUIRE(entry)                                                                                                 \
    if (ops->entry == NULL)                                                                                            \
        return emo__fail(err, EMO_E_BACKEND, "the table of back end '%s' lacks %s", name, #entry);
    REQUIRE(destroy)
    REQUIRE(supports)
    REQUIRE(mem_alloc)
    REQUIRE(mem_free)
    REQUIRE(upload)
    REQUIRE(download)
    REQUIRE(copy)
    REQUIRE(zero)
    REQUIRE(synchronize)
    REQUIRE(exec_create)
    REQUIRE(exec_destroy)
    REQUIRE(exec_reserve)
    REQUIRE(table_sync)
    REQUIRE(table_free)
#undef REQUIRE
    emo__backend_complete(ops);
    device->backend->ops = ops;
    return EMO_OK;
}

enum { PLANNER = -1 }; /* instead of a device's number */

/* A device of the plug-in `entry`, or a planner; without an entry the planner of `like`. */
static emo_status open_device(const emo_runtime *rt, const emo_backend_plugin_entry *entry, emo_backend *like,
                              int32_t index, emo__device **out, emo_error *err) {
    emo__device *device = emo__calloc(&rt->mem, 1, sizeof *device);
    const char *name = entry != NULL ? entry->name : like->name;
    *out = NULL;
    if (device == NULL)
        return emo__fail_memory(err, sizeof *device);
    device->services = services_of(rt);
    emo_backend *backend = NULL;
    emo_status status = entry == NULL      ? like->ops->planner(like, &backend, err)
                        : index == PLANNER ? entry->planner(&device->services, &backend, err)
                                           : entry->open(&device->services, index, &backend, err);
    if (status == EMO_OK && backend == NULL)
        status = 1;
    if (status != EMO_OK) {
        status = plugin_failed(err, status, name, "open");
    } else {
        device->backend = backend;
        backend->name = name;
        void (*destroy)(emo_backend *) = backend->ops != NULL ? backend->ops->destroy : NULL;
        status = adopt_table(device, name, err);
        if (status != EMO_OK) { /* the plug-in's own table is not to be trusted further than its destroy */
            if (destroy != NULL && backend->ops->abi == EMO_BACKEND_ABI)
                destroy(backend);
            device->backend = NULL;
        }
    }
    if (status != EMO_OK) {
        emo__device_close(rt, device);
        return status;
    }
    *out = device;
    return EMO_OK;
}

static emo_status open_devices(const emo_runtime *rt, emo__registry *registry, const emo_backend_plugin_entry *entry,
                               emo_error *err) {
    emo_backend_services services = services_of(rt);
    emo__device *devices[EMO__MAX_DEVICES];
    int32_t count = 0, opened = 0;
    emo_status status = entry->count(&services, &count, err);
    if (status != EMO_OK)
        return plugin_failed(err, status, entry->name, "count");
    if (count < 1)
        return emo__fail(err, EMO_E_NOT_FOUND, "back end '%s' found no device on this machine", entry->name);
    if (count > EMO__MAX_DEVICES - 1)
        count = EMO__MAX_DEVICES - 1; /* the first ones, as in a machine that had no more */
    while (opened < count && status == EMO_OK) {
        status = open_device(rt, entry, NULL, opened, &devices[opened], err);
        opened += status == EMO_OK;
    }
    if (status == EMO_OK)
        status = emo__registry_add(registry, devices, opened, err);
    while (status != EMO_OK && opened > 0)
        emo__device_close(rt, devices[--opened]);
    return status;
}

/* ---- the library ---- */

/* The entry of the plug-in at an absolute path. It stays loaded. */
static emo_status find_entry(const char *path, const emo_backend_plugin_entry **out, emo_error *err) {
    struct stat info;
    *out = NULL;
    if (path[0] != '/')
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "path '%s' is relative; a plug-in needs an absolute path", path);
    if (stat(path, &info) != 0)
        return emo__fail_at(err, errno == ENOENT || errno == ENOTDIR ? EMO_E_NOT_FOUND : EMO_E_IO, EMO_DOMAIN_SYSTEM,
                            errno, "plug-in '%s' cannot be found (error %d)", path, errno);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        const char *why = dlerror();
        return emo__fail(err, EMO_E_FORMAT, "'%s' cannot be loaded: %s", path, why != NULL ? why : "no reason given");
    }
    const emo_backend_plugin_entry *entry = dlsym(library, EMO_BACKEND_PLUGIN_SYMBOL);
    if (entry == NULL)
        return emo__fail(err, EMO_E_FORMAT, "'%s' is no back-end plug-in: it has no symbol " EMO_BACKEND_PLUGIN_SYMBOL,
                         path);
    if (entry->abi != EMO_BACKEND_ABI)
        return emo__fail(err, EMO_E_UNSUPPORTED,
                         "'%s' was built for version %u of the operator table; this is version %d", path,
                         (unsigned)entry->abi, EMO_BACKEND_ABI);
    if (entry->struct_size < offsetof(emo_backend_plugin_entry, planner) || entry->name == NULL ||
        entry->name[0] == '\0' || strlen(entry->name) > 31 || strchr(entry->name, ':') != NULL ||
        entry->count == NULL || entry->open == NULL)
        return emo__fail(err, EMO_E_FORMAT, "'%s' has an incomplete plug-in entry", path);
    *out = entry;
    return EMO_OK;
}

emo_status emo__plugin_load(const emo_runtime *rt, emo__registry *registry, const char *path, emo_error *err) {
    const emo_backend_plugin_entry *entry = NULL;
    emo_status status = find_entry(path, &entry, err);
    return status == EMO_OK ? open_devices(rt, registry, entry, err) : status;
}

/* ---- planners ---- */

static emo_status no_planner(const char *name, emo_error *err) {
    return emo__fail(err, EMO_E_UNSUPPORTED, "back end '%s' cannot say what it would need", name);
}

emo_status emo__planner_of(const emo_runtime *rt, emo_backend *backend, emo__device **out, emo_error *err) {
    *out = NULL;
    if (backend->ops->planner == NULL || backend->ops->memory == NULL || backend->ops->exec_scratch == NULL)
        return no_planner(backend->name, err);
    return open_device(rt, NULL, backend, PLANNER, out, err);
}

emo_status emo__plugin_planner(const emo_runtime *rt, const char *path, const char *name, emo__device **out,
                               emo_error *err) {
    const emo_backend_plugin_entry *entry = NULL;
    emo_status status = find_entry(path, &entry, err);
    *out = NULL;
    if (status != EMO_OK)
        return status;
    size_t length = strcspn(name, ":");
    if (strlen(entry->name) != length || strncmp(entry->name, name, length) != 0)
        return emo__fail(err, EMO_E_NOT_FOUND, "'%s' is the back end '%s', not '%s'", path, entry->name, name);
    if (entry->struct_size < sizeof *entry || entry->planner == NULL)
        return no_planner(entry->name, err);
    return open_device(rt, entry, NULL, PLANNER, out, err);
}
