/* SPDX-License-Identifier: Apache-2.0 */
/* Loading back-end plug-ins. */
#ifndef EMO_SRC_BACKEND_PLUGIN_H
#define EMO_SRC_BACKEND_PLUGIN_H

#include "backend/registry.h"

/* Loads the shared library at an absolute path and adds all of its devices. */
EMO_MUST_CHECK emo_status emo__plugin_load(const emo_runtime *rt, emo__registry *registry, const char *path,
                                           emo_error *err);

/* A planner (see emo_backend_plugin_entry) for devices like an opened one; emo__device_close() ends it.
 * EMO_E_UNSUPPORTED: the back end has none. */
EMO_MUST_CHECK emo_status emo__planner_of(const emo_runtime *rt, emo_backend *backend, emo__device **out,
                                          emo_error *err);
/* The same from a plug-in for devices of `name` ("cuda", "cuda:1"), of which none needs to be there. */
EMO_MUST_CHECK emo_status emo__plugin_planner(const emo_runtime *rt, const char *path, const char *name,
                                              emo__device **out, emo_error *err);

#endif
