/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes of the block formats, and reading them. */
#include "tensor/quant.h"

#include "base/checked.h"
#include "tensor/dtype.h"
#include "tensor/quant_blocks.h"

int64_t emo__dtype_block(emo_dtype dtype) {
    switch (dtype) {
    case EMO_DTYPE_Q8_0:
    case EMO_DTYPE_Q4_0:
        return EMO__Q_SMALL;
    case EMO_DTYPE_Q4_K:
        return EMO__Q4_K_BLOCK;
    default:
        return emo__dtype_size(dtype) > 0 ? 1 : 0;
    }
}

static size_t block_bytes(emo_dtype dtype) {
    switch (dtype) {
    case EMO_DTYPE_Q8_0:
        return EMO__Q8_0_BYTES;
    case EMO_DTYPE_Q4_0:
        return EMO__Q4_0_BYTES;
    case EMO_DTYPE_Q4_K:
        return EMO__Q4_K_BYTES;
    default:
        return emo__dtype_size(dtype);
    }
}

bool emo__dtype_bytes(emo_dtype dtype, int64_t count, size_t *bytes) {
    int64_t block = emo__dtype_block(dtype);
    return block > 0 && count >= 0 && count % block == 0 &&
           emo__mul_size((size_t)(count / block), block_bytes(dtype), bytes);
}

size_t emo__dtype_run(emo_dtype dtype, int64_t count) {
    int64_t block = emo__dtype_block(dtype);
    return block == 0 ? 0 : (size_t)(count / block) * block_bytes(dtype);
}

static float f16_at(const unsigned char *p) { return emo__f16_to_f32((uint16_t)(p[0] | p[1] << 8)); }

static void read_q8_0(float *dst, const unsigned char *block) {
    float d = f16_at(block);
    for (int i = 0; i < EMO__Q_SMALL; i++)
        dst[i] = d * (float)(int8_t)block[2 + i];
}

static void read_q4_0(float *dst, const unsigned char *block) {
    float d = f16_at(block);
    for (int i = 0; i < EMO__Q_SMALL / 2; i++) {
        dst[i] = d * (float)((block[2 + i] & 15) - 8);
        dst[i + EMO__Q_SMALL / 2] = d * (float)((block[2 + i] >> 4) - 8);
    }
}

void emo__q4_k_unpack(const unsigned char packed[12], uint8_t s[8], uint8_t t[8]) {
    for (int g = 0; g < 4; g++) {
        s[g] = packed[g] & 63;
        t[g] = packed[g + 4] & 63;
        s[g + 4] = (uint8_t)((packed[g + 8] & 15) | (packed[g] >> 6) << 4);
        t[g + 4] = (uint8_t)((packed[g + 8] >> 4) | (packed[g + 4] >> 6) << 4);
    }
}

static void read_q4_k(float *dst, const unsigned char *block) {
    uint8_t s[8], t[8];
    float d = f16_at(block), m = f16_at(block + 2);
    emo__q4_k_unpack(block + 4, s, t);
    for (int pair = 0; pair < 4; pair++) {
        const unsigned char *q = block + 16 + 32 * pair;
        float *even = dst + 64 * pair, *odd = even + 32;
        float scale_even = d * (float)s[2 * pair], offset_even = m * (float)t[2 * pair];
        float scale_odd = d * (float)s[2 * pair + 1], offset_odd = m * (float)t[2 * pair + 1];
        for (int i = 0; i < 32; i++) {
            even[i] = scale_even * (float)(q[i] & 15) - offset_even;
            odd[i] = scale_odd * (float)(q[i] >> 4) - offset_odd;
        }
    }
}

void emo__dequantise(float *dst, const void *src, emo_dtype dtype, size_t count) {
    const unsigned char *from = src;
    size_t block = (size_t)emo__dtype_block(dtype), bytes = block_bytes(dtype);
    for (size_t i = 0; block > 1 && i + block <= count; i += block, from += bytes) {
        if (dtype == EMO_DTYPE_Q8_0)
            read_q8_0(dst + i, from);
        else if (dtype == EMO_DTYPE_Q4_0)
            read_q4_0(dst + i, from);
        else
            read_q4_k(dst + i, from);
    }
}

static bool f16_is_odd(const unsigned char *p) { return (p[1] & 0x7C) == 0x7C; }

int64_t emo__quant_non_finite(const void *src, emo_dtype dtype, size_t count) {
    const unsigned char *from = src;
    size_t block = (size_t)emo__dtype_block(dtype), bytes = block_bytes(dtype);
    int64_t found = 0;
    for (size_t i = 0; block > 1 && i + block <= count; i += block, from += bytes)
        found += f16_is_odd(from) || (dtype == EMO_DTYPE_Q4_K && f16_is_odd(from + 2));
    return found;
}
