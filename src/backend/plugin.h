/* SPDX-License-Identifier: Apache-2.0 */
/* Loading back-end plug-ins. */
#ifndef EMO_SRC_BACKEND_PLUGIN_H
#define EMO_SRC_BACKEND_PLUGIN_H

#include "backend/registry.h"

/* Loads the shared library at an absolute path and adds all of its devices. */
EMO_MUST_CHECK emo_status emo__plugin_load(const emo_runtime *rt, emo__registry *registry, const char *path,
                                           emo_error *err);

#endif
