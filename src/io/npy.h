/* SPDX-License-Identifier: Apache-2.0 */
/* Token arrays: .npy files (versions 1 to 3, one dimension, little-endian u2 u4 i4 i8) and headerless little-endian
 * arrays, which large token corpora use under the same file name ending. */
#ifndef EMO_SRC_IO_NPY_H
#define EMO_SRC_IO_NPY_H

#include "io/source.h"

typedef enum emo__npy_type { EMO__NPY_U16 = 0, EMO__NPY_U32 = 1, EMO__NPY_I32 = 2, EMO__NPY_I64 = 3 } emo__npy_type;

typedef struct emo__npy {
    emo_source *source; /* borrowed */
    emo__npy_type type;
    uint64_t offset; /* of the first element */
    uint64_t count;
} emo__npy;

/* Without the .npy magic the whole source is raw elements of raw_type. */
EMO_MUST_CHECK emo_status emo__npy_open(emo_source *source, emo__npy_type raw_type, emo__npy *out, emo_error *err);
/* Elements [first, first + count) as int32; EMO_E_FORMAT for a value outside [0, limit). */
EMO_MUST_CHECK emo_status emo__npy_read(const emo__npy *npy, uint64_t first, size_t count, int32_t limit, int32_t *dst,
                                        emo_error *err);

#endif
