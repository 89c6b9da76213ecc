/* SPDX-License-Identifier: Apache-2.0 */
/* Correct kernels that share memory in every way the back end does: no finding, in any order of threads and blocks. */
#include "cudasim/support.h"

/* Lanes pass values through shared memory of their warp, ordered by __syncwarp alone; all read what one wrote. */
__global__ static void warp_exchange_k(float *o) {
    EMO_SHARED(float, s, 64);
    float *mine = s + (threadIdx.x & 32u);
    unsigned lane = threadIdx.x & 31u;
    float sum = 0;
    for (int round = 0; round < 3; round++) {
        mine[lane] = (float)(lane + (unsigned)round);
        __syncwarp();
        sum += mine[31 - lane] + mine[0];
        __syncwarp();
        if (lane == 5)
            mine[0] = 100;
        __syncwarp();
        sum += mine[0];
        __syncwarp();
    }
    o[threadIdx.x] = sum;
}

/* Halves of a warp go their own ways. */
__global__ static void half_warps_k(float *o) {
    EMO_SHARED(float, s, 32);
    unsigned lane = threadIdx.x, first = lane & 16u, mask = 0xffffu << first;
    for (unsigned step = 1; step < 16; step *= 2) {
        s[lane] = (float)lane;
        __syncwarp(mask);
        o[lane] = s[first + ((lane + step) & 15u)];
        __syncwarp(mask);
    }
    __syncwarp();
    o[lane] += s[31 - lane];
}

/* Order is passed on: lane 0 tells lane 1, lane 1 tells lane 2. */
__global__ static void chain_k(float *o) {
    EMO_SHARED(float, s, 1);
    unsigned lane = threadIdx.x;
    if (lane == 0)
        s[0] = 1;
    for (unsigned i = 0; i < 31; i++)
        if (lane == i || lane == i + 1) {
            __syncwarp(3u << i);
            if (lane == i + 1)
                s[0] += 1;
        }
    if (lane == 31)
        o[0] = s[0];
}

/* Neighbours write the two halves and the four bytes of a word; later whole words are read and written. */
__global__ static void neighbours_k(emo_bf16 *h, uint8_t *b, uint32_t *words) {
    h[threadIdx.x] = __float2bfloat16((float)threadIdx.x);
    b[threadIdx.x] = (uint8_t)threadIdx.x;
    __syncthreads();
    if (threadIdx.x < 32) {
        words[threadIdx.x] = ((const uint32_t *)h)[threadIdx.x] + ((const uint32_t *)b)[threadIdx.x / 2];
        ((uint32_t *)h)[threadIdx.x] = 0;
    }
}

/* Two buffers, one barrier a round. */
__global__ static void ping_pong_k(float *o) {
    EMO_SHARED(float, s, 2 * 64);
    float v = (float)threadIdx.x;
    for (int round = 0; round < 5; round++) {
        float *now = s + (round & 1) * 64;
        now[threadIdx.x] = v;
        __syncthreads();
        v = now[(threadIdx.x + 1) % 64];
    }
    o[threadIdx.x] = v;
}

/* A histogram by atomics in shared and device memory, read after a barrier and in the next launch. */
__global__ static void histogram_k(int *total, const int *x, int n) {
    EMO_SHARED(int, h, 16);
    if (threadIdx.x < 16)
        h[threadIdx.x] = 0;
    __syncthreads();
    for (int i = (int)(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += (int)(gridDim.x * blockDim.x))
        atomicAdd(&h[x[i] & 15], 1);
    __syncthreads();
    if (threadIdx.x < 16 && h[threadIdx.x] != 0)
        atomicAdd(&total[threadIdx.x], h[threadIdx.x]);
}
__global__ static void fill_k(int *o, int n) {
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x)
        o[i] = i * 7;
}

/* Three stages of cp.async; the last tile is short. */
__global__ static void pipeline_k(float *o, const float4 *x, int tiles, int rest) {
    EMO_SHARED(float4, stage, 3 * 32);
    unsigned t = threadIdx.x;
    auto load = [&](int tile) {
        int valid = tile < tiles - 1 || (int)t < rest ? 16 : 0;
        if (tile < tiles)
            emo_cp_async16(stage + tile % 3 * 32 + t, x + (valid ? tile * 32 + (int)t : 0), valid);
        emo_cp_commit();
    };
    load(0);
    load(1);
    float sum = 0;
    for (int tile = 0; tile < tiles; tile++) {
        emo_cp_wait<1>();
        __syncthreads();
        load(tile + 2);
        float4 v = stage[tile % 3 * 32 + (31 - t)];
        sum += v.x + v.y + v.z + v.w;
    }
    o[t] = sum;
}

struct Triple {
    float a, b, c;
};
/* Structures, local arrays, threads that leave early, a uniform branch around a barrier, vector loads. */
__global__ static void mixed_k(Triple *o, const Triple *x, const float4 *y, Triple by_value, int n, int flag) {
    EMO_DYN_SHARED(Triple, s);
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    s[threadIdx.x] = i < n ? x[i] : by_value;
    if (flag) {
        __syncthreads();
        by_value.a += s[blockDim.x - 1 - threadIdx.x].b;
    }
    if (i >= n)
        return;
    float local[4], most = y[i].x;
    for (int k = 0; k < 4; k++)
        local[k] = (&y[i].x)[k];
    for (int k = 3; k >= 0; k--)
        most = max(most, local[k]);
    Triple r = {by_value.a, most, local[i & 3]};
    o[i] = r;
}

static void run_all() {
    Buffer<float> o(64), o2(32);
    EXPECT_CUDA(EMO_LAUNCH(warp_exchange_k, 1, 64, 0, 0, o.data));
    EXPECT_CUDA(EMO_LAUNCH(half_warps_k, 1, 32, 0, 0, o.data));
    EXPECT_CUDA(EMO_LAUNCH(chain_k, 1, 32, 0, 0, o.data));
    assert_true(o.get()[0] == 32.0f);
    Buffer<emo_bf16> h(64);
    Buffer<uint8_t> b(64);
    Buffer<uint32_t> words(32);
    EXPECT_CUDA(EMO_LAUNCH(neighbours_k, 1, 64, 0, 0, h.data, b.data, words.data));
    EXPECT_CUDA(EMO_LAUNCH(neighbours_k, 1, 64, 0, 0, h.data, b.data, words.data));
    EXPECT_CUDA(EMO_LAUNCH(ping_pong_k, 1, 64, 0, 0, o.data));
    assert_true(o.get()[60] == 1.0f);
    Buffer<int> x(1000), total(16);
    EXPECT_CUDA(EMO_LAUNCH(fill_k, 1, 100, 0, 0, x.data, 1000));
    total.fill(0);
    EXPECT_CUDA(EMO_LAUNCH(histogram_k, 5, 64, 0, 0, total.data, (const int *)x.data, 1000));
    int all = 0;
    for (int v : total.get())
        all += v;
    assert_int_equal(all, 1000);
    std::vector<float> ones(4 * (4 * 32 + 7), 1.0f);
    Buffer<float> y(ones);
    EXPECT_CUDA(EMO_LAUNCH(pipeline_k, 1, 32, 0, 0, o2.data, (const float4 *)y.data, 5, 7));
    std::vector<float> sums = o2.get();
    assert_true(sums[0] == 16.0f && sums[31] == 20.0f);
    Buffer<Triple> in(std::vector<Triple>(100, Triple{1, 2, 3})), out(100);
    EXPECT_CUDA(EMO_LAUNCH(mixed_k, 2, 64, 64 * sizeof(Triple), 0, out.data, (const Triple *)in.data,
                           (const float4 *)y.data, Triple{5, 6, 7}, 100, 1));
    assert_true(out.get()[99].a == 7.0f);
}

static void test_in_order(void **) {
    run_all();
    assert_string_equal(take_findings().c_str(), "");
}

static void test_random_orders(void **) {
    for (uint32_t seed = 1; seed <= 12; seed++) {
        cudasim_control.seed(seed);
        run_all();
    }
    cudasim_control.seed(0);
    assert_string_equal(take_findings().c_str(), "");
}

static void test_streams_random(void **) {
    for (int mode = 0; mode <= 2; mode++) {
        cudasim_control.streams(mode);
        run_all();
    }
    cudasim_control.streams(1);
    assert_string_equal(take_findings().c_str(), "");
}

/* The order that a seed gives is really another one. */
__global__ static void order_k(int *next, int *order) { order[atomicAdd(next, 1)] = (int)threadIdx.x; }

static void test_seed_changes_order(void **) {
    std::vector<int> seen[2];
    for (uint32_t seed = 0; seed < 2; seed++) {
        cudasim_control.seed(seed * 77);
        Buffer<int> next(1), order(64);
        next.fill(0);
        EXPECT_CUDA(EMO_LAUNCH(order_k, 1, 64, 0, 0, next.data, order.data));
        seen[seed] = order.get();
    }
    cudasim_control.seed(0);
    for (int i = 0; i < 64; i++)
        assert_int_equal(seen[0][(size_t)i], i);
    assert_true(seen[0] != seen[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_in_order), cmocka_unit_test(test_random_orders),
                                       cmocka_unit_test(test_streams_random),
                                       cmocka_unit_test(test_seed_changes_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
