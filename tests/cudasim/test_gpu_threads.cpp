/* SPDX-License-Identifier: Apache-2.0 */
/* Threads, barriers, shuffles, votes, atomics and shared memory: what the CUDA C++ programming guide says of them. */
#include "cudasim/support.h"

__global__ static void where_k(int *out) {
    int thread = (int)(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
    int block = (int)(blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z));
    int n = (int)(blockDim.x * blockDim.y * blockDim.z);
    out[block * n + thread] = block * 1000 + (int)(threadIdx.x * 100 + threadIdx.y * 10 + threadIdx.z);
}

static void test_indices(void **) {
    Buffer<int> out(2 * 3 * 2 * (3 * 2 * 2));
    EXPECT_CUDA(EMO_LAUNCH(where_k, dim3(2, 3, 2), dim3(3, 2, 2), 0, 0, out.data));
    std::vector<int> got = out.get();
    for (int b = 0; b < 12; b++)
        for (int t = 0; t < 12; t++)
            assert_int_equal(got[(size_t)(b * 12 + t)], b * 1000 + t % 3 * 100 + t / 3 % 2 * 10 + t / 6);
}

/* Every warp waits for every other, many times; shared memory shows in which round each is. */
__global__ static void rounds_k(int *wrong, int rounds) {
    EMO_SHARED(int, round, 96);
    int t = (int)threadIdx.x, bad = 0;
    for (int r = 0; r < rounds; r++) {
        round[t] = r;
        __syncthreads();
        for (int i = 0; i < 96; i++)
            bad += round[i] != r;
        __syncthreads();
    }
    wrong[t] = bad;
}

static void test_barrier(void **) {
    Buffer<int> wrong(96);
    EXPECT_CUDA(EMO_LAUNCH(rounds_k, 1, 96, 0, 0, wrong.data, 9));
    for (int v : wrong.get())
        assert_int_equal(v, 0);
}

/* Threads that returned do not hold up a barrier. */
__global__ static void early_k(int *out) {
    EMO_SHARED(int, s, 64);
    if (threadIdx.x >= 64)
        return;
    s[threadIdx.x] = (int)threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = s[63 - threadIdx.x];
}

static void test_exited_threads(void **) {
    Buffer<int> out(64);
    EXPECT_CUDA(EMO_LAUNCH(early_k, 1, 100, 0, 0, out.data));
    std::vector<int> got = out.get();
    for (int i = 0; i < 64; i++)
        assert_int_equal(got[(size_t)i], 63 - i);
}

__global__ static void barrier_votes_k(int *out) {
    int t = (int)threadIdx.x;
    int count = __syncthreads_count(t % 3 == 0), any = __syncthreads_or(t == 40), none = __syncthreads_or(t == 400);
    int all = __syncthreads_and(t < 70), some = __syncthreads_and(t < 69);
    if (t == 69) {
        out[0] = count;
        out[1] = any != 0;
        out[2] = none != 0;
        out[3] = all != 0;
        out[4] = some != 0;
    }
}

static void test_barrier_votes(void **) {
    Buffer<int> out(5);
    EXPECT_CUDA(EMO_LAUNCH(barrier_votes_k, 1, 70, 0, 0, out.data));
    std::vector<int> got = out.get();
    int expected[5] = {24, 1, 0, 1, 0};
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(got[i], expected[i]);
}

/* A lane whose source is outside its segment keeps its own value. */
__global__ static void shuffles_k(int *out, int width) {
    int lane = (int)threadIdx.x;
    out[lane] = __shfl_sync(EMO_FULL_WARP, 100 + lane, 5, width);
    out[32 + lane] = __shfl_up_sync(EMO_FULL_WARP, 100 + lane, 3u, width);
    out[64 + lane] = __shfl_down_sync(EMO_FULL_WARP, 100 + lane, 3u, width);
    out[96 + lane] = __shfl_xor_sync(EMO_FULL_WARP, 100 + lane, 6, width);
    out[128 + lane] = __shfl_sync(EMO_FULL_WARP, 100 + lane, 31 - lane, width);
}

static void test_shuffles(void **) {
    for (int width = 8; width <= 32; width *= 2) {
        Buffer<int> out(160);
        EXPECT_CUDA(EMO_LAUNCH(shuffles_k, 1, 32, 0, 0, out.data, width));
        std::vector<int> got = out.get();
        for (int lane = 0; lane < 32; lane++) {
            int base = lane / width * width, at = lane % width;
            assert_int_equal(got[(size_t)lane], 100 + base + 5 % width);
            assert_int_equal(got[(size_t)(32 + lane)], 100 + (at >= 3 ? lane - 3 : lane));
            assert_int_equal(got[(size_t)(64 + lane)], 100 + (at + 3 < width ? lane + 3 : lane));
            assert_int_equal(got[(size_t)(96 + lane)], 100 + (lane ^ 6));
            assert_int_equal(got[(size_t)(128 + lane)], 100 + base + (31 - lane) % width);
        }
    }
}

/* Lanes of a mask meet without the others; 64-bit values travel whole. */
__global__ static void masked_k(double *out) {
    int lane = (int)threadIdx.x;
    double v = 1.0 + lane / 1024.0;
    if (lane < 16)
        v = __shfl_xor_sync(0x0000ffffu, v, 1);
    else if (lane >= 24)
        v = __shfl_sync(0xff000000u, v, 30);
    out[lane] = v;
}

static void test_masks(void **) {
    Buffer<double> out(32);
    EXPECT_CUDA(EMO_LAUNCH(masked_k, 1, 32, 0, 0, out.data));
    std::vector<double> got = out.get();
    for (int lane = 0; lane < 32; lane++) {
        int from = lane < 16 ? lane ^ 1 : lane >= 24 ? 30 : lane;
        assert_true(got[(size_t)lane] == 1.0 + from / 1024.0);
    }
}

__global__ static void votes_k(unsigned *out) {
    unsigned lane = threadIdx.x;
    unsigned r[10] = {__ballot_sync(EMO_FULL_WARP, lane % 3 == 0),
                      (unsigned)__any_sync(EMO_FULL_WARP, lane == 7),
                      (unsigned)__all_sync(EMO_FULL_WARP, lane < 31),
                      __match_any_sync(EMO_FULL_WARP, lane / 5),
                      __reduce_add_sync(EMO_FULL_WARP, lane),
                      __reduce_max_sync(EMO_FULL_WARP, lane ^ 0x80000000u),
                      __reduce_min_sync(EMO_FULL_WARP, lane + 3),
                      (unsigned)__reduce_max_sync(EMO_FULL_WARP, (int)lane - 40),
                      (unsigned)__reduce_min_sync(EMO_FULL_WARP, (int)lane - 40),
                      __reduce_or_sync(EMO_FULL_WARP, 1u << lane % 5)};
    for (int i = 0; i < 10; i++)
        out[lane * 10 + (unsigned)i] = r[i];
}

static void test_votes(void **) {
    Buffer<unsigned> out(320);
    EXPECT_CUDA(EMO_LAUNCH(votes_k, 1, 32, 0, 0, out.data));
    std::vector<unsigned> got = out.get();
    unsigned third = 0;
    for (unsigned i = 0; i < 32; i += 3)
        third |= 1u << i;
    for (unsigned lane = 0; lane < 32; lane++) {
        unsigned first = lane / 5 * 5, match = 0;
        for (unsigned i = first; i < first + 5 && i < 32; i++)
            match |= 1u << i;
        unsigned expected[10] = {third, 1, 0, match, 496, 31u ^ 0x80000000u, 3, (unsigned)-9, (unsigned)-40, 31};
        for (unsigned i = 0; i < 10; i++)
            assert_int_equal(got[lane * 10 + i], expected[i]);
    }
}

__global__ static void atomics_k(int *sum, unsigned *most, unsigned *bits, float *total, unsigned *once) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    atomicAdd(sum, i);
    atomicMax(most, (unsigned)i);
    atomicOr(bits, 1u << i % 32);
    atomicAdd(total, 0.5f);
    if (atomicCAS(once, 0u, 1u + (unsigned)i) == 0u)
        atomicAdd(sum, 1000000);
}

static void test_atomics(void **) {
    Buffer<int> sum(1);
    Buffer<unsigned> most(1), bits(1), once(1);
    Buffer<float> total(1);
    sum.fill(0);
    most.fill(0);
    bits.fill(0);
    once.fill(0);
    total.fill(0);
    EXPECT_CUDA(EMO_LAUNCH(atomics_k, 4, 48, 0, 0, sum.data, most.data, bits.data, total.data, once.data));
    assert_int_equal(sum.get()[0], 191 * 192 / 2 + 1000000);
    assert_int_equal(most.get()[0], 191);
    assert_int_equal(bits.get()[0], 0xffffffffu);
    assert_true(total.get()[0] == 96.0f);
    assert_in_range(once.get()[0], 1, 192);
}

/* Static arrays of two template instances are apart; dynamic memory has the size that the launch gave. */
template <int N>
__global__ static void shared_k(int *out, int n) {
    EMO_SHARED(int, a, N);
    EMO_DYN_SHARED(int, d);
    for (int i = (int)threadIdx.x; i < N; i += (int)blockDim.x)
        a[i] = i * N;
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x)
        d[i] = i + 1000000;
    __syncthreads();
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x)
        out[i] = d[n - 1 - i] + a[i % N];
}

template <int N>
static void run_shared() {
    const int n = 60000 / 4;
    Buffer<int> out(n);
    EXPECT_CUDA(cudaFuncSetAttribute((const void *)shared_k<N>, cudaFuncAttributeMaxDynamicSharedMemorySize, n * 4));
    EXPECT_CUDA(EMO_LAUNCH((shared_k<N>), 1, 128, n * 4, 0, out.data, n));
    std::vector<int> got = out.get();
    for (int i = 0; i < n; i++)
        assert_int_equal(got[(size_t)i], n - 1 - i + 1000000 + i % N * N);
}

static void test_shared(void **) {
    run_shared<33>();
    run_shared<500>();
}

/* The warp sums of emo_gpu.h: a butterfly, the same bits in all lanes; the maximum keeps a NaN. */
__global__ static void reductions_k(const float *x, float *sum, float *most, double *wide) {
    unsigned lane = threadIdx.x;
    sum[lane] = emo_warp_sum(x[lane]);
    most[lane] = emo_warp_max(x[lane]);
    wide[lane] = emo_warp_sum((double)x[lane]);
}

static void test_reductions(void **) {
    std::vector<float> x(32);
    for (unsigned i = 0; i < 32; i++)
        x[i] = 1.0f / (float)(3 + i * 7 % 32);
    for (int with_nan = 0; with_nan < 2; with_nan++) {
        if (with_nan)
            x[9] = NAN;
        float v[32], next[32], top = x[0];
        double all = 0;
        memcpy(v, x.data(), sizeof v);
        for (int o = 16; o > 0; o >>= 1) {
            for (int i = 0; i < 32; i++)
                next[i] = v[i] + v[i ^ o];
            memcpy(v, next, sizeof v);
        }
        for (float e : x) {
            top = e > top ? e : top;
            all += e;
        }
        Buffer<float> in(x), sum(32), most(32);
        Buffer<double> wide(32);
        EXPECT_CUDA(EMO_LAUNCH(reductions_k, 1, 32, 0, 0, (const float *)in.data, sum.data, most.data, wide.data));
        std::vector<float> s = sum.get(), m = most.get();
        std::vector<double> w = wide.get();
        for (unsigned i = 0; i < 32; i++) {
            if (with_nan) {
                assert_true(isnan(s[i]) && isnan(m[i]) && isnan(w[i]));
                continue;
            }
            assert_true(s[i] == v[i] && m[i] == top);
            assert_true(fabs(w[i] - all) <= 1e-15 * 32); /* 32 roundings of sums below 4 */
        }
    }
}

int main(void) {
    if (no_device())
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_indices),       cmocka_unit_test(test_barrier),  cmocka_unit_test(test_exited_threads),
        cmocka_unit_test(test_barrier_votes), cmocka_unit_test(test_shuffles), cmocka_unit_test(test_masks),
        cmocka_unit_test(test_votes),         cmocka_unit_test(test_atomics),  cmocka_unit_test(test_shared),
        cmocka_unit_test(test_reductions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
