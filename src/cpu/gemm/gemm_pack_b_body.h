/* SPDX-License-Identifier: Apache-2.0 */
/* Packing a panel of B, for levels without tiles, by pack_lanes and pack_b_along of the including file. */

INLINE void pack_b_as(float *dst, const emo__gemm_operand *b, int64_t first, int lanes, int64_t k0, int64_t kc,
                      emo_dtype dtype) {
    if (b->trans)
        pack_lanes(dst, NR, b, first, lanes, 0, k0, kc, dtype);
    else
        pack_b_along(dst, b, first, lanes, k0, kc, dtype);
}

static void pack_b(float *dst, const emo__gemm_operand *b, int64_t first, int lanes, int64_t k0, int64_t kc) {
    if (b->dtype == EMO_DTYPE_F32)
        pack_b_as(dst, b, first, lanes, k0, kc, EMO_DTYPE_F32);
    else if (b->dtype == EMO_DTYPE_BF16)
        pack_b_as(dst, b, first, lanes, k0, kc, EMO_DTYPE_BF16);
    else
        pack_b_as(dst, b, first, lanes, k0, kc, EMO_DTYPE_F16);
}
