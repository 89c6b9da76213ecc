/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file source.h
 * @brief Where model files come from: a path, memory, or the host's own storage.
 */
#ifndef EMO_SOURCE_H
#define EMO_SOURCE_H

#include <emo/runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A read-only, random-access run of bytes whose size never changes. */
typedef struct emo_source emo_source;

/**
 * A source that the host implements. Start from EMO_SOURCE_VTABLE_INIT. Every function but `release` may be called from
 * several threads at once.
 */
typedef struct emo_source_vtable {
    uint32_t struct_size;
    uint32_t reserved; /**< 0 */
    /** Writes the size in bytes; called once, at creation. EMO_OK or an error. */
    emo_status (*size)(void *ctx, uint64_t *size);
    /** Copies exactly `size` bytes from `offset` on; the range always lies inside the source. EMO_OK or an error. */
    emo_status (*read_at)(void *ctx, uint64_t offset, void *data, size_t size);
    /** All bytes at one address, valid until `release`; NULL as a result: cannot map. NULL as a pointer: never can. */
    const void *(*map)(void *ctx);
    /** The source is not needed any more. May be NULL. */
    void (*release)(void *ctx);
} emo_source_vtable;

#define EMO_SOURCE_VTABLE_INIT                                                                                         \
    { sizeof(emo_source_vtable), 0, 0, 0, 0, 0 }

/**
 * Opens a regular file. The file is mapped where the system can do so; it must not be changed while the source lives
 * (a read beyond the end of a file that became shorter is reported as EMO_E_IO).
 * The caller owns *out. @return EMO_OK, EMO_E_NOT_FOUND, EMO_E_IO, EMO_E_OUT_OF_MEMORY. Any thread.
 */
EMO_API EMO_MUST_CHECK emo_status emo_source_open_path(emo_runtime *rt, const char *path, emo_source **out,
                                                       emo_error *err);

/** A source over `size` bytes that the caller keeps alive and unchanged for as long as the source lives (objects made
 * from a source keep it alive). The caller owns *out. `data` may be NULL when size is 0. Any thread. */
EMO_API EMO_MUST_CHECK emo_status emo_source_from_memory(emo_runtime *rt, const void *data, size_t size,
                                                         emo_source **out, emo_error *err);

/** A source of the host's. The table is copied; `ctx` must live until `release` is called, which happens once, and only
 * if the creation succeeded. The caller owns *out. Any thread. */
EMO_API EMO_MUST_CHECK emo_status emo_source_create(emo_runtime *rt, const emo_source_vtable *vtable, void *ctx,
                                                    emo_source **out, emo_error *err);

/** The size in bytes; 0 for NULL. Any thread. */
EMO_API uint64_t emo_source_size(const emo_source *source);

/** Copies exactly `size` bytes from `offset` on to `data`. @return EMO_OK, EMO_E_RANGE (the range leaves the source),
 * EMO_E_IO, or the host's status. Any thread. */
EMO_API EMO_MUST_CHECK emo_status emo_source_read_at(const emo_source *source, uint64_t offset, void *data, size_t size,
                                                     emo_error *err);

/** The whole source at one address, valid while the source lives; NULL when it cannot be mapped (then read_at works).
 * Any thread. */
EMO_API const void *emo_source_map(const emo_source *source);

/** Releases the caller's reference; NULL is a no-op. Any thread. */
EMO_API void emo_source_release(emo_source *source);

#ifdef __cplusplus
}
#endif
#endif
