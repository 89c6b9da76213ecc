/* SPDX-License-Identifier: Apache-2.0 */
/* emo_source as the inside sees it. */
#ifndef EMO_SRC_IO_SOURCE_H
#define EMO_SRC_IO_SOURCE_H

#include <emo/source.h>

#include "base/runtime.h"

emo_source *emo__source_retain(emo_source *source);

/* The path it was opened from, or "memory" / "source"; for messages. */
const char *emo__source_name(const emo_source *source);

emo_runtime *emo__source_runtime(const emo_source *source); /* borrowed */

/* The implementation of the public constructors; arguments are checked already. */
emo_status emo__source_open_path(emo_runtime *rt, const char *path, emo_source **out, emo_error *err);
emo_status emo__source_from_memory(emo_runtime *rt, const void *data, size_t size, emo_source **out, emo_error *err);
emo_status emo__source_create(emo_runtime *rt, const emo_source_vtable *vtable, void *ctx, emo_source **out,
                              emo_error *err);
emo_status emo__source_read_at(const emo_source *source, uint64_t offset, void *data, size_t size, emo_error *err);
void emo__source_release(emo_source *source);
/* The system need not keep these bytes of a file in its cache. No-op for other sources. */
void emo__source_forget(const emo_source *source, uint64_t offset, size_t size);

#endif
