/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/dtype.h"

#include "tensor/quant.h"

size_t emo__dtype_size(emo_dtype dtype) {
    switch (dtype) {
    case EMO_DTYPE_F32:
    case EMO_DTYPE_I32:
        return 4;
    case EMO_DTYPE_F16:
    case EMO_DTYPE_BF16:
        return 2;
    case EMO_DTYPE_U8:
        return 1;
    case EMO_DTYPE_I64:
    case EMO_DTYPE_F64:
        return 8;
    default:
        return 0;
    }
}

const char *emo_dtype_name(emo_dtype dtype) {
    switch (dtype) {
    case EMO_DTYPE_F32:
        return "f32";
    case EMO_DTYPE_F16:
        return "f16";
    case EMO_DTYPE_BF16:
        return "bf16";
    case EMO_DTYPE_U8:
        return "u8";
    case EMO_DTYPE_I32:
        return "i32";
    case EMO_DTYPE_I64:
        return "i64";
    case EMO_DTYPE_F64:
        return "f64";
    case EMO_DTYPE_Q8_0:
        return "q8_0";
    case EMO_DTYPE_Q4_0:
        return "q4_0";
    case EMO_DTYPE_Q4_K:
        return "q4_k";
    default:
        return NULL;
    }
}

float emo__f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 0x1Fu;
    uint32_t mantissa = h & 0x3FFu;
    if (exponent == 0x1Fu)
        return emo__bits_f32(sign | 0x7F800000u | (mantissa << 13));
    if (exponent == 0) {
        /* subnormal: mantissa * 2^-24, exact in float */
        float value = (float)mantissa * 0x1p-24f;
        return sign != 0 ? -value : value;
    }
    return emo__bits_f32(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

uint16_t emo__f32_to_f16(float value) {
    uint32_t bits = emo__f32_bits(value);
    uint16_t sign = (uint16_t)((bits >> 16) & 0x8000u);
    uint32_t rest = bits & 0x7FFFFFFFu;
    if (rest > 0x7F800000u)
        return (uint16_t)(sign | 0x7E00u);
    if (rest >= 0x477FF000u) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7C00u);
    if (rest < 0x38800000u) {
        /* subnormal half: let the addition of 0.5 (whose ulp is 2^-24) do the rounding */
        float shifted = emo__bits_f32(rest) + 0.5f;
        return (uint16_t)(sign | (emo__f32_bits(shifted) - 0x3F000000u));
    }
    uint32_t rounded = rest + 0xFFFu + ((rest >> 13) & 1u);
    return (uint16_t)(sign | ((rounded - 0x38000000u) >> 13));
}

/* Block by block through f32; count is a multiple of the block. */
static int convert_blocks(void *dst, emo_dtype dst_dtype, const void *src, emo_dtype src_dtype, size_t count) {
    if (!emo__dtype_float(dst_dtype))
        return 0;
    float block[EMO__QUANT_MAX_BLOCK];
    size_t step = (size_t)emo__dtype_block(src_dtype), bytes = emo__dtype_run(src_dtype, (int64_t)step);
    size_t item = emo__dtype_size(dst_dtype);
    const unsigned char *from = src;
    unsigned char *to = dst;
    for (size_t i = 0; i + step <= count; i += step, from += bytes, to += step * item) {
        emo__dequantise(block, from, src_dtype, step);
        (void)emo__convert(to, dst_dtype, block, EMO_DTYPE_F32, step);
    }
    return 1;
}

int emo__convert(void *dst, emo_dtype dst_dtype, const void *src, emo_dtype src_dtype, size_t count) {
    if (emo__dtype_quantised(src_dtype))
        return convert_blocks(dst, dst_dtype, src, src_dtype, count);
    size_t dst_size = emo__dtype_size(dst_dtype);
    if (dst_dtype == src_dtype && dst_size != 0) {
        memcpy(dst, src, count * dst_size);
        return 1;
    }
    if (!emo__dtype_float(dst_dtype) || !emo__dtype_float(src_dtype))
        return 0;
    const unsigned char *from = src;
    unsigned char *to = dst;
    for (size_t i = 0; i < count; i++) {
        float value;
        uint16_t half;
        if (src_dtype == EMO_DTYPE_F32) {
            memcpy(&value, from + i * 4, 4);
        } else {
            memcpy(&half, from + i * 2, 2);
            value = src_dtype == EMO_DTYPE_BF16 ? emo__bf16_to_f32(half) : emo__f16_to_f32(half);
        }
        if (dst_dtype == EMO_DTYPE_F32) {
            memcpy(to + i * 4, &value, 4);
        } else {
            half = dst_dtype == EMO_DTYPE_BF16 ? emo__f32_to_bf16(value) : emo__f32_to_f16(value);
            memcpy(to + i * 2, &half, 2);
        }
    }
    return 1;
}
