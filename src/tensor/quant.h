/* SPDX-License-Identifier: Apache-2.0 */
/* Quantised blocks: q8_0, q4_0 and q4_k, in the byte layouts of GGUF. A row is a run of whole blocks.
 *
 *   q8_0   32 elements in  34 bytes: f16 d, 32 x int8 q                          x = d q
 *   q4_0   32 elements in  18 bytes: f16 d, 16 bytes of nibbles                  x = d (q - 8)
 *          byte i holds elements i (low) and i + 16 (high)
 *   q4_k  256 elements in 144 bytes: f16 d, f16 m, 12 bytes of 6-bit s and t     x = d s q - m t
 *          eight groups of 32, each with its own s and t; byte i of each 32 holds element i of an even group (low) and
 *          of the odd one after it (high)
 *
 * Everything here is scalar and deterministic; callers spread rows over threads. */
#ifndef EMO_SRC_TENSOR_QUANT_H
#define EMO_SRC_TENSOR_QUANT_H

#include <emo/base.h>
#include <stdbool.h>

#define EMO__QUANT_MAX_BLOCK 256 /* elements of the largest block; every other block's size divides it */

/* Elements of a block: 1 for plain types, 0 for a number that is no type. */
int64_t emo__dtype_block(emo_dtype dtype);
static inline bool emo__dtype_quantised(emo_dtype dtype) { return emo__dtype_block(dtype) > 1; }

/* Bytes of `count` elements of any type; false when count is negative or no multiple of the block, or on overflow. */
bool emo__dtype_bytes(emo_dtype dtype, int64_t count, size_t *bytes);

/* The byte distance of `count` elements that are known to be whole blocks and in memory. */
size_t emo__dtype_run(emo_dtype dtype, int64_t count);

/* Quantises `count` elements (whole blocks). False when an element is not finite, or so large that its scale is no
 * f16; dst is then of no use. */
bool emo__quantise(void *dst, emo_dtype dtype, const float *src, size_t count);

/* The reverse; exact products in f32. src need not be aligned. */
void emo__dequantise(float *dst, const void *src, emo_dtype dtype, size_t count);

/* How many of the scales of `count` elements (whole blocks) are NaN or infinite. */
int64_t emo__quant_non_finite(const void *src, emo_dtype dtype, size_t count);

#endif
