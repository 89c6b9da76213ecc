/* SPDX-License-Identifier: Apache-2.0 */
/* Element sizes and conversions between f32 and the 16-bit formats. */
#ifndef EMO_SRC_TENSOR_DTYPE_H
#define EMO_SRC_TENSOR_DTYPE_H

#include <emo/base.h>
#include <string.h>

/* Bytes of one element; 0 for unknown and for block formats. */
size_t emo__dtype_size(emo_dtype dtype);
/* F32, F16 or BF16: the float types that weights may have. */
static inline int emo__dtype_float(emo_dtype dtype) {
    return dtype == EMO_DTYPE_F32 || dtype == EMO_DTYPE_F16 || dtype == EMO_DTYPE_BF16;
}

static inline float emo__bits_f32(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline uint32_t emo__f32_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float emo__bf16_to_f32(uint16_t h) { return emo__bits_f32((uint32_t)h << 16); }

/* Rounds to nearest, ties to even; NaN stays NaN. */
static inline uint16_t emo__f32_to_bf16(float value) {
    uint32_t bits = emo__f32_bits(value);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

float emo__f16_to_f32(uint16_t h);
uint16_t emo__f32_to_f16(float value); /* to nearest, ties to even; overflow gives infinity */

/* Converts `count` elements between F32, F16 and BF16 (equal types copy), and from quantised blocks (whole ones) to
 * those. False for another pair. src and dst need not be aligned. */
int emo__convert(void *dst, emo_dtype dst_dtype, const void *src, emo_dtype src_dtype, size_t count);

#endif
