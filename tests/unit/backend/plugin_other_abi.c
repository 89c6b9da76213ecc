/* SPDX-License-Identifier: Apache-2.0 */
/* A plug-in of another version of the operator table. */
#include <emo/sys/backend.h>

extern const emo_backend_plugin_entry emo_backend_plugin;
__attribute__((visibility("default"))) const emo_backend_plugin_entry emo_backend_plugin = {
    .struct_size = sizeof(emo_backend_plugin_entry), .abi = EMO_BACKEND_ABI + 1, .name = "other"};
