/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fragments of mma.m16n8k16, ldmatrix and cp.async. The positions below are written from the PTX ISA's tables ("Matrix
 * Fragments for mma.m16n8k16 with floating point type", "ldmatrix"), not from what the wrappers or the simulator do.
 */
#include "cudasim/support.h"

/* PTX ISA, operand A (.bf16, 16 x 16): groupID = lane >> 2, threadID_in_group = lane % 4;
 * row = groupID for a_i with 0 <= i < 2 or 4 <= i < 6, else groupID + 8;
 * col = threadID_in_group * 2 + (i & 1) for i < 4, else that + 8. */
static int a_row(int lane, int i) { return (i >= 0 && i < 2) || (i >= 4 && i < 6) ? lane >> 2 : (lane >> 2) + 8; }
static int a_col(int lane, int i) { return lane % 4 * 2 + (i & 1) + (i < 4 ? 0 : 8); }
/* Operand B (16 x 8): row = threadID_in_group * 2 + (i & 1) for i < 2, else that + 8; col = groupID. */
static int b_row(int lane, int i) { return lane % 4 * 2 + (i & 1) + (i < 2 ? 0 : 8); }
static int b_col(int lane) { return lane >> 2; }
/* C and D (16 x 8): row = groupID for c0, c1, groupID + 8 for c2, c3; col = threadID_in_group * 2 + (i & 1). */
static int c_row(int lane, int i) { return i < 2 ? lane >> 2 : (lane >> 2) + 8; }
static int c_col(int lane, int i) { return lane % 4 * 2 + (i & 1); }

static uint16_t bits_of(float v) {
    __nv_bfloat16 h = __float2bfloat16(v);
    uint16_t u;
    memcpy(&u, &h, 2);
    return u;
}

template <int MI, int NJ>
__global__ static void mma_k(float *c, const uint32_t *a, const uint32_t *b) {
    int lane = (int)threadIdx.x;
    float d[MI][NJ][4];
    uint32_t fa[MI][4], fb[NJ][2];
    for (int i = 0; i < MI; i++)
        for (int q = 0; q < 4; q++)
            fa[i][q] = a[(i * 32 + lane) * 4 + q];
    for (int j = 0; j < NJ; j++)
        for (int q = 0; q < 2; q++)
            fb[j][q] = b[(j * 32 + lane) * 2 + q];
    for (int i = 0; i < MI; i++)
        for (int j = 0; j < NJ; j++)
            for (int q = 0; q < 4; q++)
                d[i][j][q] = c[((i * NJ + j) * 32 + lane) * 4 + q];
    if (MI == 1 && NJ == 1)
        emo_mma_bf16(d[0][0], fa[0], fb[0]);
    else
        emo_mma_tile(d, fa, fb);
    for (int i = 0; i < MI; i++)
        for (int j = 0; j < NJ; j++)
            for (int q = 0; q < 4; q++)
                c[((i * NJ + j) * 32 + lane) * 4 + q] = d[i][j][q];
}

template <int MI, int NJ>
static void run_mma() {
    std::vector<float> a(MI * 16 * 16), b(16 * NJ * 8), c(MI * 16 * NJ * 8);
    unsigned seed = 1;
    for (auto *m : {&a, &b, &c})
        for (float &v : *m)
            v = (float)small_number(seed++);
    std::vector<uint32_t> fa(MI * 32 * 4), fb(NJ * 32 * 2);
    std::vector<float> fc(MI * NJ * 32 * 4);
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < MI; i++)
            for (int e = 0; e < 8; e++) /* elements 2q and 2q + 1 share register q, the first in its lower half */
                fa[(size_t)((i * 32 + lane) * 4 + e / 2)] |=
                    (uint32_t)bits_of(a[(size_t)((i * 16 + a_row(lane, e)) * 16 + a_col(lane, e))]) << e % 2 * 16;
        for (int j = 0; j < NJ; j++)
            for (int e = 0; e < 4; e++)
                fb[(size_t)((j * 32 + lane) * 2 + e / 2)] |=
                    (uint32_t)bits_of(b[(size_t)(b_row(lane, e) * NJ * 8 + j * 8 + b_col(lane))]) << e % 2 * 16;
        for (int i = 0; i < MI; i++)
            for (int j = 0; j < NJ; j++)
                for (int e = 0; e < 4; e++)
                    fc[(size_t)(((i * NJ + j) * 32 + lane) * 4 + e)] =
                        c[(size_t)((i * 16 + c_row(lane, e)) * NJ * 8 + j * 8 + c_col(lane, e))];
    }
    Buffer<uint32_t> da(fa), db(fb);
    Buffer<float> dc(fc);
    EXPECT_CUDA(
        EMO_LAUNCH((mma_k<MI, NJ>), 1, 32, 0, 0, dc.data, (const uint32_t *)da.data, (const uint32_t *)db.data));
    std::vector<float> got = dc.get();
    for (int r = 0; r < MI * 16; r++)
        for (int n = 0; n < NJ * 8; n++) {
            float sum = c[(size_t)(r * NJ * 8 + n)];
            for (int k = 0; k < 16; k++)
                sum += a[(size_t)(r * 16 + k)] * b[(size_t)(k * NJ * 8 + n)];
            c[(size_t)(r * NJ * 8 + n)] = sum;
        }
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < MI; i++)
            for (int j = 0; j < NJ; j++)
                for (int e = 0; e < 4; e++)
                    assert_true(got[(size_t)(((i * NJ + j) * 32 + lane) * 4 + e)] ==
                                c[(size_t)((i * 16 + c_row(lane, e)) * NJ * 8 + j * 8 + c_col(lane, e))]);
}

static void test_mma(void **) {
    run_mma<1, 1>();
    run_mma<2, 4>();
    run_mma<4, 4>();
}

/* Lane 8q + r names row r of matrix q; the rows lie 48 bytes apart, in no order of addresses. */
__global__ static void ldmatrix_k(uint32_t *out, const uint16_t *m, int how) {
    EMO_SHARED(uint16_t, s, 32 * 24);
    int lane = (int)threadIdx.x;
    for (int i = lane; i < 32 * 24; i += 32)
        s[i] = m[i];
    __syncwarp();
    const uint16_t *row = s + (lane * 5 % 32) * 24 + 8;
    uint32_t r[4] = {0, 0, 0, 0}, two[2];
    if (how == 0)
        emo_ldmatrix_x4(r, row);
    else if (how == 1)
        emo_ldmatrix_x4_trans(r, row);
    else {
        if (how == 2)
            emo_ldmatrix_x2(two, row);
        else
            emo_ldmatrix_x2_trans(two, row);
        r[0] = two[0];
        r[1] = two[1];
    }
    for (int q = 0; q < 4; q++)
        out[lane * 4 + q] = r[q];
}

/* PTX ISA: thread l holds of each 8 x 8 matrix the elements 2 (l % 4) and the next of row l / 4; with .trans the
 * matrix is loaded in column-major form, so that it holds rows 2 (l % 4) and the next of column l / 4. */
static void test_ldmatrix(void **) {
    std::vector<uint16_t> m(32 * 24);
    for (size_t i = 0; i < m.size(); i++)
        m[i] = (uint16_t)(i * 7 + 1);
    auto element = [&](int q, int row, int col) {
        return (uint32_t)m[(size_t)((q * 8 + row) * 5 % 32 * 24 + 8 + col)];
    };
    Buffer<uint16_t> in(m);
    Buffer<uint32_t> out(128);
    for (int how = 0; how < 4; how++) {
        EXPECT_CUDA(EMO_LAUNCH(ldmatrix_k, 1, 32, 0, 0, out.data, (const uint16_t *)in.data, how));
        std::vector<uint32_t> got = out.get();
        for (int lane = 0; lane < 32; lane++)
            for (int q = 0; q < (how < 2 ? 4 : 2); q++) {
                int line = lane / 4, pair = lane % 4 * 2;
                uint32_t lower = how % 2 == 0 ? element(q, line, pair) : element(q, pair, line);
                uint32_t upper = how % 2 == 0 ? element(q, line, pair + 1) : element(q, pair + 1, line);
                assert_int_equal(got[(size_t)(lane * 4 + q)], lower | upper << 16);
            }
    }
}

/* Two groups in flight: after waiting for all but one the first has landed. Bytes past `valid` are 0. */
__global__ static void copies_k(uint32_t *out, const uint32_t *in) {
    EMO_SHARED(uint32_t, s, 3 * 64 * 4);
    int t = (int)threadIdx.x;
    emo_cp_async16(s + t * 4, in + t * 4, t % 5 * 4 > 16 ? 16 : t % 5 * 4);
    emo_cp_commit();
    emo_cp_async16(s + (64 + t) * 4, in + (64 + t) * 4, 16);
    for (int i = 0; i < 4; i++)
        emo_cp_async4(s + (128 + t) * 4 + i, in + (128 + t) * 4 + i, i == 2 ? 0 : 4);
    emo_cp_commit();
    emo_cp_wait<1>();
    __syncthreads();
    int other = 63 - t;
    for (int i = 0; i < 4; i++)
        out[t * 4 + i] = s[other * 4 + i];
    emo_cp_wait<0>();
    __syncthreads();
    for (int i = 0; i < 8; i++)
        out[(64 + t) * 4 + i % 4 + i / 4 * 256] = s[(64 + other) * 4 + i % 4 + i / 4 * 256];
}

static void test_cp_async(void **) {
    std::vector<uint32_t> in(3 * 64 * 4);
    for (size_t i = 0; i < in.size(); i++)
        in[i] = (uint32_t)i * 2654435761u;
    Buffer<uint32_t> from(in), to(in.size());
    EXPECT_CUDA(EMO_LAUNCH(copies_k, 1, 64, 0, 0, to.data, (const uint32_t *)from.data));
    std::vector<uint32_t> got = to.get();
    for (int part = 0; part < 3; part++)
        for (int t = 0; t < 64; t++)
            for (int i = 0; i < 4; i++) {
                int source = 63 - t;
                bool there = part == 0 ? i < source % 5 : part == 1 ? true : i != 2;
                uint32_t expected = there ? in[(size_t)((part * 64 + source) * 4 + i)] : 0;
                assert_int_equal(got[(size_t)((part * 64 + t) * 4 + i)], expected);
            }
}

__global__ static void pack_k(uint32_t *out) { out[threadIdx.x] = emo_pack_bf16(1.0f + (float)threadIdx.x, -2.0f); }

static void test_pack(void **) {
    Buffer<uint32_t> out(8);
    EXPECT_CUDA(EMO_LAUNCH(pack_k, 1, 8, 0, 0, out.data));
    std::vector<uint32_t> got = out.get();
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(got[i], bits_of(1.0f + (float)i) | 0xc0000000u);
}

int main(void) {
    if (no_device())
        return 77;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_mma), cmocka_unit_test(test_ldmatrix),
                                       cmocka_unit_test(test_cp_async), cmocka_unit_test(test_pack)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
