/* SPDX-License-Identifier: Apache-2.0 */
/* The one symbol that the plug-in exports. */
#include "device.h"

extern "C" {
extern EMO_API const emo_backend_plugin_entry emo_backend_plugin;
const emo_backend_plugin_entry emo_backend_plugin = {sizeof(emo_backend_plugin_entry),
                                                     EMO_BACKEND_ABI,
                                                     "cuda",
                                                     emo_cuda_device_count,
                                                     emo_cuda_device_open,
                                                     emo_cuda_planner_open};
}
