/* SPDX-License-Identifier: Apache-2.0 */
/* The devices of a runtime: the CPU's first, then those of loaded plug-ins. Safe for use by several threads. */
#ifndef EMO_SRC_BACKEND_REGISTRY_H
#define EMO_SRC_BACKEND_REGISTRY_H

#include <emo/sys/backend.h>

#include "base/runtime.h"

enum { EMO__MAX_DEVICES = 16 };

typedef struct emo__registry emo__registry;

/* One opened device of a plug-in; the registry frees it. `ops` is the completed copy of the plug-in's table, `services`
 * what the plug-in was given. */
typedef struct emo__device {
    emo_backend *backend;
    emo_backend_ops ops;
    emo_backend_services services;
} emo__device;

/* `cpu` stays the runtime's. */
EMO_MUST_CHECK emo_status emo__registry_create(const emo_runtime *rt, emo_backend *cpu, emo__registry **out,
                                               emo_error *err);
/* Closes the plug-ins' devices; NULL is a no-op. */
void emo__registry_destroy(const emo_runtime *rt, emo__registry *registry);

int32_t emo__registry_count(emo__registry *registry);
/* NULL when there is none; valid as long as the registry. */
emo_backend *emo__registry_get(emo__registry *registry, int32_t index);

/* The first device of a back end, or with "name:N" its N-th from 0; EMO_E_NOT_FOUND names those that are there. */
EMO_MUST_CHECK emo_status emo__registry_open(emo__registry *registry, const char *name, emo_backend **out,
                                             emo_error *err);

/* Takes all `count` devices (blocks of the runtime's memory) of one plug-in, or none. */
EMO_MUST_CHECK emo_status emo__registry_add(emo__registry *registry, emo__device **devices, int32_t count,
                                            emo_error *err);

void emo__device_close(const emo_runtime *rt, emo__device *device);

#endif
