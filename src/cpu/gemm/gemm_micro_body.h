/* SPDX-License-Identifier: Apache-2.0 */
/* The micro-kernel of a level without tiles. The including file defines VL, MR, NRV, vec, V_ZERO, V_SET1, V_LOAD,
 * V_STORE, V_ADD, V_MUL, INLINE, NR, PER_STEP (elements of k in a packed float) and V_STEP(a, b, c): c and what they
 * add. */
INLINE void store_tile(vec acc[MR][NRV], int rows, float *c, int64_t ldc, float alpha, float beta) {
    vec scale = V_SET1(alpha), keep = V_SET1(beta);
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < NRV; j++) {
            float *p = c + i * ldc + j * VL;
            vec t = V_MUL(scale, acc[i][j]);
            if (beta == 1.0f)
                t = V_ADD(V_LOAD(p), t);
            else if (beta != 0.0f)
                t = V_ADD(V_MUL(keep, V_LOAD(p)), t);
            V_STORE(p, t);
        }
    }
}

/* One step along k. */
INLINE void micro_step(vec acc[MR][NRV], const int rows, const float *a, const float *b) {
    vec bv[NRV];
#pragma GCC unroll 4
    for (int j = 0; j < NRV; j++)
        bv[j] = V_LOAD(b + j * VL);
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        vec av = V_SET1(a[i]);
#pragma GCC unroll 4
        for (int j = 0; j < NRV; j++)
            acc[i][j] = V_STEP(av, bv[j], acc[i][j]);
    }
}

enum { STEPS_PER_LINE = 4, LINE = 16 /* floats */ };

INLINE void micro_rows(int64_t steps, const float *a, const float *b, const int rows, int cols, float *c, int64_t ldc,
                       float alpha, float beta) {
    vec acc[MR][NRV];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < NRV; j++)
            acc[i][j] = V_ZERO;
    int64_t kk = 0;
    /* C is asked for line by line: all lines at once would keep the loads of A and B waiting */
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < NR && kk + STEPS_PER_LINE <= steps; j += LINE, kk += STEPS_PER_LINE) {
            __builtin_prefetch(c + i * ldc + j, 1, 3);
#pragma GCC unroll 1 /* unrolled, it would need more registers than there are */
            for (int step = 0; step < STEPS_PER_LINE; step++, a += MR, b += NR)
                micro_step(acc, rows, a, b);
        }
    for (; kk < steps; kk++, a += MR, b += NR)
        micro_step(acc, rows, a, b);
    if (cols == NR) {
        store_tile(acc, rows, c, ldc, alpha, beta);
        return;
    }
    float edge[MR * NR];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < NRV; j++)
            V_STORE(edge + i * NR + j * VL, acc[i][j]);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols && j < NR; j++) {
            float t = alpha * edge[i * NR + j];
            if (beta != 0.0f)
                t = beta * c[i * ldc + j] + t;
            c[i * ldc + j] = t;
        }
}

#define ROWS(r)                                                                                                        \
    static void micro_##r(int64_t steps, const float *a, const float *b, int cols, float *c, int64_t ldc, float alpha, \
                          float beta) {                                                                                \
        micro_rows(steps, a, b, (r) < MR ? (r) : MR, cols, c, ldc, alpha, beta);                                       \
    }
ROWS(1)
ROWS(2)
ROWS(3)
ROWS(4)
#if MR > 4
ROWS(5)
ROWS(6)
#endif
#if MR > 6
ROWS(7)
ROWS(8)
ROWS(9)
ROWS(10)
ROWS(11)
ROWS(12)
ROWS(13)
ROWS(14)
#endif

typedef void (*micro_fn)(int64_t, const float *, const float *, int, float *, int64_t, float, float);
static const micro_fn micro_table[] = {
    micro_1, micro_2, micro_3, micro_4,
#if MR > 4
    micro_5, micro_6,
#endif
#if MR > 6
    micro_7, micro_8, micro_9, micro_10, micro_11, micro_12, micro_13, micro_14,
#endif
};

static void micro(int64_t kc, const float *a, const float *b, int rows, int cols, float *c, int64_t ldc, float alpha,
                  float beta) {
    micro_table[rows - 1]((kc + PER_STEP - 1) / PER_STEP, a, b, cols, c, ldc, alpha, beta);
}
