/* SPDX-License-Identifier: Apache-2.0 */
/* A plug-in whose table lacks what has no default, one whose second device fails, and one without devices, by turns. */
#include <stddef.h>

#include <emo/sys/backend.h>

static void destroy(emo_backend *backend) { (void)backend; }

static const emo_backend_ops table = {
    .struct_size = sizeof(emo_backend_ops), .abi = EMO_BACKEND_ABI, .destroy = destroy};
static emo_backend backend = {.ops = &table, .name = "broken"};
static int32_t turn;

static emo_status count_devices(const emo_backend_services *services, int32_t *out, emo_error *err) {
    (void)services;
    (void)err;
    *out = turn++ == 0 ? 1 : turn == 2 ? 0 : 3;
    return EMO_OK;
}

static emo_status open_device(const emo_backend_services *services, int32_t index, emo_backend **out, emo_error *err) {
    (void)services;
    (void)index;
    (void)err;
    *out = turn == 1 ? &backend : NULL;
    return turn == 1 ? EMO_OK : turn == 3 ? EMO_E_BACKEND : 7;
}

extern const emo_backend_plugin_entry emo_backend_plugin;
__attribute__((visibility("default")))
const emo_backend_plugin_entry emo_backend_plugin = {.struct_size = sizeof(emo_backend_plugin_entry),
                                                     .abi = EMO_BACKEND_ABI,
                                                     .name = "broken",
                                                     .count = count_devices,
                                                     .open = open_device};
