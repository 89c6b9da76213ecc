/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/registry.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"

struct emo__registry {
    pthread_mutex_t lock;
    int32_t count;
    emo_backend *backends[EMO__MAX_DEVICES];
    emo__device *devices[EMO__MAX_DEVICES]; /* NULL for the CPU */
};

emo_status emo__registry_create(const emo_runtime *rt, emo_backend *cpu, emo__registry **out, emo_error *err) {
    emo__registry *registry = emo__calloc(&rt->mem, 1, sizeof *registry);
    *out = NULL;
    if (registry == NULL)
        return emo__fail_memory(err, sizeof *registry);
    int code = pthread_mutex_init(&registry->lock, NULL);
    if (code != 0) {
        emo__free(&rt->mem, registry);
        return emo__fail_at(err, EMO_E_INTERNAL, EMO_DOMAIN_SYSTEM, code, "a mutex could not be made");
    }
    registry->backends[0] = cpu;
    registry->count = 1;
    *out = registry;
    return EMO_OK;
}

void emo__device_close(const emo_runtime *rt, emo__device *device) {
    if (device == NULL)
        return;
    if (device->backend != NULL)
        device->ops.destroy(device->backend);
    emo__free(&rt->mem, device);
}

void emo__registry_destroy(const emo_runtime *rt, emo__registry *registry) {
    if (registry == NULL)
        return;
    for (int32_t i = registry->count; i-- > 0;)
        emo__device_close(rt, registry->devices[i]);
    pthread_mutex_destroy(&registry->lock);
    emo__free(&rt->mem, registry);
}

int32_t emo__registry_count(emo__registry *registry) {
    pthread_mutex_lock(&registry->lock);
    int32_t count = registry->count;
    pthread_mutex_unlock(&registry->lock);
    return count;
}

emo_backend *emo__registry_get(emo__registry *registry, int32_t index) {
    pthread_mutex_lock(&registry->lock);
    emo_backend *backend = index >= 0 && index < registry->count ? registry->backends[index] : NULL;
    pthread_mutex_unlock(&registry->lock);
    return backend;
}

/* "cuda:2" -> length of "cuda", 2; no number: 0; a number that is none or too long: -1. */
static int32_t number_of(const char *name, size_t *length) {
    const char *colon = strchr(name, ':');
    *length = colon != NULL ? (size_t)(colon - name) : strlen(name);
    if (colon == NULL)
        return 0;
    int32_t number = 0;
    if (colon[1] == '\0' || strlen(colon + 1) > 2)
        return -1;
    for (const char *c = colon + 1; *c != '\0'; c++) {
        if (*c < '0' || *c > '9')
            return -1;
        number = number * 10 + (*c - '0');
    }
    return number;
}

emo_status emo__registry_open(emo__registry *registry, const char *name, emo_backend **out, emo_error *err) {
    size_t length;
    int32_t wanted = number_of(name, &length);
    char there[256] = "";
    *out = NULL;
    pthread_mutex_lock(&registry->lock);
    for (int32_t i = 0, seen = 0; i < registry->count && *out == NULL; i++) {
        const char *own = registry->backends[i]->name;
        size_t used = strlen(there);
        (void)snprintf(there + used, sizeof there - used, "%s%s", i > 0 ? ", " : "", own);
        if (strlen(own) == length && strncmp(own, name, length) == 0 && seen++ == wanted)
            *out = registry->backends[i];
    }
    pthread_mutex_unlock(&registry->lock);
    if (*out == NULL)
        return emo__fail(err, EMO_E_NOT_FOUND, "there is no device '%s'; there are: %s", name, there);
    return EMO_OK;
}

emo_status emo__registry_add(emo__registry *registry, emo__device **devices, int32_t count, emo_error *err) {
    emo_status status = EMO_OK;
    pthread_mutex_lock(&registry->lock);
    for (int32_t i = 0; i < registry->count && status == EMO_OK; i++)
        if (count > 0 && strcmp(registry->backends[i]->name, devices[0]->backend->name) == 0)
            status = emo__fail(err, EMO_E_EXISTS, "back end '%s' is loaded already", registry->backends[i]->name);
    if (status == EMO_OK && count > EMO__MAX_DEVICES - registry->count)
        status = emo__fail(err, EMO_E_LIMIT, "%d devices and %d more: there is room for %d", (int)registry->count,
                           (int)count, (int)EMO__MAX_DEVICES);
    for (int32_t i = 0; i < count && status == EMO_OK; i++) {
        registry->backends[registry->count] = devices[i]->backend;
        registry->devices[registry->count++] = devices[i];
    }
    pthread_mutex_unlock(&registry->lock);
    return status;
}
