/* SPDX-License-Identifier: Apache-2.0 */
/* Planted bugs in kernels: each must be found, with the right message at the right line. */
#include "cudasim/support.h"

/* The line of this file that holds the comment "bug: name". */
static int line(const std::string &name) {
    std::ifstream file(EMO_THIS_SOURCE);
    std::string text;
    for (int n = 1; std::getline(file, text); n++)
        if (text.find("/* bug: " + name + " */") != std::string::npos)
            return n;
    fail_msg("no line is marked %s", name.c_str());
    return 0;
}

static void expect(const char *message, int at) {
    std::string text = take_findings();
    std::string place = at > 0 ? "test_sim_bugs.cpp:" + std::to_string(at) : "";
    if (text.find(message) == std::string::npos || text.find(place) == std::string::npos)
        fail_msg("expected '%s' at %s, found: %s", message, place.c_str(), text.c_str());
}

/* One launch of a kernel, waited for. */
#define RUN(kernel, grid, block, ...)                                                                                  \
    do {                                                                                                               \
        (void)EMO_LAUNCH(kernel, grid, block, 64, 0, __VA_ARGS__);                                                     \
        (void)cudaDeviceSynchronize();                                                                                 \
    } while (0)

/* ---- found in every build ---- */

__global__ static void divergent_k(float *) {
    if (threadIdx.x < 64)
        __syncthreads();
    else
        __syncthreads(); /* bug: divergent */
}
static void test_divergent_barrier(void **) {
    RUN(divergent_k, 1, 128, nullptr);
    expect("divergent barrier in divergent_k", line("divergent"));
}

/* A device that died says so until the end. */
static void test_sticky_error(void **) {
    float *p;
    RUN(divergent_k, 1, 128, nullptr);
    assert_int_equal(cudaGetLastError(), cudaErrorLaunchFailure);
    assert_int_equal(cudaMalloc((void **)&p, 4), cudaErrorLaunchFailure);
    assert_int_equal(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
    expect("divergent barrier", 0);
    EXPECT_CUDA(cudaDeviceSynchronize());
}

__global__ static void deadlock_k(float *) {
    if (threadIdx.x < 16)
        (void)__shfl_xor_sync(EMO_FULL_WARP, 1.0f, 1); /* bug: deadlock */
    else
        __syncthreads();
}
static void test_deadlock(void **) {
    RUN(deadlock_k, 1, 32, nullptr);
    expect("deadlock in deadlock_k, block 0: 32 of 32 threads are left; 16 (first 16) wait in __syncthreads", 0);
    RUN(deadlock_k, 1, 32, nullptr);
    expect("16 (first 0) wait in a warp operation of mask ffffffff at", line("deadlock"));
}

__global__ static void exited_k(float *) {
    if (threadIdx.x == 5)
        return;
    (void)__shfl_xor_sync(EMO_FULL_WARP, 1.0f, 1); /* bug: exited */
}
static void test_exited_lanes(void **) {
    RUN(exited_k, 1, 32, nullptr);
    expect("it names lanes that have exited", line("exited"));
}

__global__ static void not_in_mask_k(float *) { (void)__ballot_sync(0x0000ffffu, 1); /* bug: not_in_mask */ }
static void test_caller_not_in_mask(void **) {
    RUN(not_in_mask_k, 1, 32, nullptr);
    expect("the caller is not in it", line("not_in_mask"));
}

__global__ static void disagree_k(float *) {
    (void)__ballot_sync(threadIdx.x < 16 ? EMO_FULL_WARP : 0x7fffffffu, 1); /* bug: disagree */
}
static void test_lanes_disagree(void **) {
    RUN(disagree_k, 1, 32, nullptr);
    expect("bad warp mask", line("disagree"));
}

__global__ static void short_warp_k(float *) { (void)emo_warp_sum(1.0f); /* bug: short_warp */ }
static void test_short_warp(void **) {
    RUN(short_warp_k, 1, 40, nullptr);
    expect("whole warp in a short warp", line("short_warp"));
}

__global__ static void ldmatrix_k(float *out) {
    EMO_SHARED(uint32_t, s, 256);
    for (int i = (int)threadIdx.x; i < 256; i += 32)
        s[i] = 0;
    __syncwarp();
    uint32_t r[4];
    const char *row = (const char *)s + threadIdx.x * 16 + (out == nullptr ? 8 : 0);
    emo_ldmatrix_x4(r, out == nullptr ? (const void *)row : out); /* bug: ldmatrix */
}
static void test_ldmatrix_addresses(void **) {
    Buffer<float> x(64);
    RUN(ldmatrix_k, 1, 32, nullptr);
    expect("not 16-byte aligned", line("ldmatrix"));
    RUN(ldmatrix_k, 1, 32, x.data);
    expect("not in shared memory", line("ldmatrix"));
}

__global__ static void nothing_k(float *) {}
static void test_bad_launches(void **) {
    assert_int_equal(EMO_LAUNCH(nothing_k, 1, 1025, 0, 0, nullptr), cudaErrorInvalidConfiguration);
    expect("bad launch of nothing_k", __LINE__ - 1);
    assert_int_equal(EMO_LAUNCH(nothing_k, 0, 32, 0, 0, nullptr), cudaErrorInvalidConfiguration);
    expect("grid 0,1,1", __LINE__ - 1);
    assert_int_equal(EMO_LAUNCH(nothing_k, 1, 32, 50 << 10, 0, nullptr), cudaErrorInvalidValue);
    expect("51200 bytes of dynamic shared memory", __LINE__ - 1);
    assert_int_equal(EMO_LAUNCH(nothing_k, dim3(1, 70000), 32, 0, 0, nullptr), cudaErrorInvalidConfiguration);
    expect("grid 1,70000,1", __LINE__ - 1);
}

/* Pinned memory is filled when the work is waited for, not before. */
static void test_pinned_read_early(void **) {
    Buffer<int> x(1);
    int *p;
    EXPECT_CUDA(cudaMallocHost((void **)&p, sizeof *p));
    *p = 7;
    EXPECT_CUDA(cudaMemsetAsync(x.data, 1, 4, 0));
    EXPECT_CUDA(cudaMemcpyAsync(p, x.data, 4, cudaMemcpyDeviceToHost, 0));
    assert_int_equal(*p, 7);
    EXPECT_CUDA(cudaStreamSynchronize(0));
    assert_int_equal(*p, 0x01010101);
    EXPECT_CUDA(cudaFreeHost(p));
}

static void test_bad_copies(void **) {
    Buffer<int> x(4), y(4);
    int h[8] = {0};
    x.fill(0);
    assert_int_equal(cudaMemcpy(x.data, h, 20, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    expect("cudaMemcpy to device memory of 20 bytes at offset 0 runs out of its allocation of 16 bytes", 0);
    assert_int_equal(cudaMemcpy(h, x.data + 1, 16, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
    expect("cudaMemcpy from device memory of 16 bytes at offset 4", 0);
    assert_int_equal(cudaMemcpy(h, x.data, 4, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    expect("its kind (1) and its addresses disagree (device to host)", 0);
    EXPECT_CUDA(cudaMemset(x.data, 0, 17));
    assert_int_equal(cudaDeviceSynchronize(), cudaErrorInvalidValue);
    expect("cudaMemset of 17 bytes", 0);
    assert_int_equal(cudaMemset(h, 0, 4), cudaErrorInvalidValue);
    expect("cudaMemset of 4 bytes of host memory", 0);
}

static void test_double_free(void **) {
    int *p;
    EXPECT_CUDA(cudaMalloc((void **)&p, 64));
    EXPECT_CUDA(cudaFree(p));
    assert_int_equal(cudaFree(p), cudaErrorInvalidValue);
    expect("which is not allocated", 0);
}

#if defined(CUDASIM_HOOKS)

/* ---- the checker of the hooked build ---- */

__global__ static void no_barrier_k(float *o) {
    EMO_SHARED(float, s, 64);
    s[threadIdx.x] = 1;
    o[threadIdx.x] = s[63 - threadIdx.x]; /* bug: no_barrier */
}
static void test_missing_barrier(void **) {
    Buffer<float> o(64);
    RUN(no_barrier_k, 1, 64, o.data);
    std::string text = take_findings();
    std::string place = "test_sim_bugs.cpp:" + std::to_string(line("no_barrier"));
    assert_true(text.find("race in shared memory: read") != std::string::npos ||
                text.find("uninitialised shared memory") != std::string::npos);
    assert_true(text.find(place) != std::string::npos);
}

/* The second barrier of a reduction is what values do not miss. */
__global__ static void second_barrier_k(float *o) {
    EMO_SHARED(float, s, 2);
    float sum = 0;
    for (int round = 0; round < 2; round++) {
        if (threadIdx.x % 32 == 0)
            s[threadIdx.x / 32] = (float)round; /* bug: second_barrier */
        __syncthreads();
        sum += s[0] + s[1];
    }
    o[threadIdx.x] = sum;
}
static void test_missing_second_barrier(void **) {
    Buffer<float> o(64);
    RUN(second_barrier_k, 1, 64, o.data);
    expect("race in shared memory: write", line("second_barrier"));
}

__global__ static void no_syncwarp_k(float *o) {
    EMO_SHARED(float, s, 32);
    s[threadIdx.x] = (float)threadIdx.x;
    float v = __shfl_xor_sync(EMO_FULL_WARP, s[threadIdx.x], 1); /* meets, and orders nothing */
    o[threadIdx.x] = s[31 - threadIdx.x] + v;                    /* bug: no_syncwarp */
}
static void test_missing_syncwarp(void **) {
    Buffer<float> o(32);
    RUN(no_syncwarp_k, 1, 32, o.data);
    expect("race in shared memory: read", line("no_syncwarp"));
}

/* Half a warp met; the other half did not. */
__global__ static void half_syncwarp_k(float *o) {
    EMO_SHARED(float, s, 32);
    s[threadIdx.x] = (float)threadIdx.x;
    __syncwarp(threadIdx.x < 16 ? 0x0000ffffu : 0xffff0000u);
    o[threadIdx.x] = s[(threadIdx.x + 16) % 32]; /* bug: half_syncwarp */
}
static void test_half_syncwarp(void **) {
    Buffer<float> o(32);
    RUN(half_syncwarp_k, 1, 32, o.data);
    std::string place = "test_sim_bugs.cpp:" + std::to_string(line("half_syncwarp")), text = take_findings();
    assert_true(text.find(place) != std::string::npos);
}

__global__ static void blocks_k(float *o) {
    if (threadIdx.x == 0)
        o[0] = 1; /* bug: blocks */
}
static void test_blocks_race(void **) {
    Buffer<float> o(1);
    RUN(blocks_k, 3, 32, o.data);
    expect("race in device memory: write", line("blocks"));
}

__global__ static void atomic_plain_k(int *o) {
    atomicAdd(&o[0], 1);
    if (threadIdx.x == 7)
        o[1] = o[0]; /* bug: atomic_plain */
}
static void test_atomic_and_plain(void **) {
    Buffer<int> o(2);
    o.fill(0);
    RUN(atomic_plain_k, 1, 32, o.data);
    expect("after an atomic", line("atomic_plain"));
}

/* Bytes of one word are apart, the same byte is not. */
__global__ static void bytes_k(uint8_t *o) { o[threadIdx.x / 2] = (uint8_t)threadIdx.x; /* bug: bytes */ }
static void test_byte_race(void **) {
    Buffer<uint8_t> o(32);
    RUN(bytes_k, 1, 64, o.data);
    expect("race in device memory: write", line("bytes"));
}

__global__ static void unset_k(float *o, const float *x) { o[threadIdx.x] = x[threadIdx.x] * 0; /* bug: unset */ }
static void test_uninitialised_device(void **) {
    Buffer<float> o(32), x(32);
    RUN(unset_k, 1, 32, o.data, (const float *)x.data);
    expect("uninitialised device memory: read by thread 0 of block 0 in unset_k", line("unset"));
}

static void test_uninitialised_download(void **) {
    Buffer<float> x(32);
    EXPECT_CUDA(cudaMemset(x.data, 0, 31 * 4));
    (void)x.get();
    expect("uninitialised device memory: cudaMemcpy to the host reads it at byte 124 of 128", 0);
}

/* What is copied on the device without being set is as unset there. */
static void test_uninitialised_copied(void **) {
    Buffer<float> x(32), y(32), o(32);
    EXPECT_CUDA(cudaMemcpy(y.data, x.data, 128, cudaMemcpyDeviceToDevice));
    assert_string_equal(take_findings().c_str(), "");
    RUN(unset_k, 1, 32, o.data, (const float *)y.data);
    (void)cudaDeviceSynchronize();
    (void)y.get();
    expect("uninitialised device memory", 0);
}

__global__ static void unset_shared_k(float *o) {
    EMO_SHARED(float, s, 64);
    s[threadIdx.x] = 0;
    o[threadIdx.x] = s[threadIdx.x + 32]; /* bug: unset_shared */
}
static void test_uninitialised_shared(void **) {
    Buffer<float> o(32);
    RUN(unset_shared_k, 1, 32, o.data);
    expect("uninitialised shared memory: read", line("unset_shared"));
}

__global__ static void past_k(float *o, int n) { o[n] = 1; /* bug: past */ }
__global__ static void past_byte_k(uint8_t *o, int n) { o[n] = 1; /* bug: past_byte */ }
__global__ static void before_k(float *o, const float *x) { o[0] = x[-1]; /* bug: before */ }
static void test_out_of_bounds(void **) {
    Buffer<float> o(33);
    Buffer<uint8_t> b(33);
    RUN(past_k, 1, 1, o.data, 33);
    expect("out of bounds: write of 4 bytes", line("past"));
    RUN(past_k, 1, 1, o.data, 34);
    expect("4 bytes past the end of an allocation of 132", line("past"));
    RUN(past_byte_k, 1, 1, b.data, 33);
    expect("out of bounds: write of 1 bytes", line("past_byte"));
    RUN(before_k, 1, 1, o.data, (const float *)o.data);
    expect("out of bounds: read", line("before"));
}

static void test_use_after_free(void **) {
    for (size_t bytes : {64, 100000}) {
        float *p;
        EXPECT_CUDA(cudaMalloc((void **)&p, bytes));
        EXPECT_CUDA(cudaFree(p));
        RUN(past_k, 1, 1, p, (int)(bytes / 8));
        expect("(was it freed?)", line("past"));
    }
}

__global__ static void shared_past_k(float *o) {
    EMO_SHARED(float, table, 32);
    table[threadIdx.x] = 0;
    table[threadIdx.x + 1] = 1; /* bug: shared_past */
    o[threadIdx.x] = 0;
}
__global__ static void dynamic_past_k(float *) {
    EMO_DYN_SHARED(float, s);
    s[16] = 1; /* bug: dynamic_past */
}
static void test_shared_overrun(void **) {
    Buffer<float> o(32);
    RUN(shared_past_k, 1, 32, o.data);
    expect("runs out of table of 128 bytes at byte 128", line("shared_past"));
    RUN(dynamic_past_k, 1, 1, o.data);
    expect("out of bounds in shared memory: write of 4 bytes", line("dynamic_past"));
}

static void test_host_pointer(void **) {
    Buffer<float> o(32);
    std::vector<float> h(32);
    RUN(unset_k, 1, 32, o.data, (const float *)h.data());
    expect("host memory: read of 4 bytes by thread 0", line("unset"));
}

__global__ static void others_local_k(float *o) {
    EMO_SHARED(float *, where, 2);
    float mine[4] = {1, 2, 3, (float)threadIdx.x};
    where[threadIdx.x] = mine;
    __syncthreads();
    o[threadIdx.x] = where[1 - threadIdx.x][threadIdx.x]; /* bug: others_local */
    __syncthreads();
}
static void test_local_of_another(void **) {
    Buffer<float> o(2);
    RUN(others_local_k, 1, 2, o.data);
    expect("local memory of another thread: read", line("others_local"));
}

static int host_global;
__global__ static void global_k(float *) { host_global = 1; /* bug: global */ }
static void test_host_global(void **) {
    RUN(global_k, 1, 1, nullptr);
    expect("constant memory written", line("global"));
    assert_int_equal(host_global, 0);
}

__global__ static void misaligned_k(float4 *o, const float *x) { *o = *(const float4 *)(x + 1); /* bug: misaligned */ }
static void test_misaligned(void **) {
    Buffer<float> o(4), x(8);
    x.fill(0);
    RUN(misaligned_k, 1, 1, (float4 *)o.data, (const float *)x.data);
    expect("misaligned address: read of 16 bytes", line("misaligned"));
}

__global__ static void no_wait_k(uint32_t *o, const uint32_t *x) {
    EMO_SHARED(uint32_t, s, 4);
    emo_cp_async16(s, x, 16);
    emo_cp_commit();
    o[0] = s[0]; /* bug: no_wait */
}
__global__ static void wait_no_barrier_k(uint32_t *o, const uint32_t *x) {
    EMO_SHARED(uint32_t, s, 64 * 4);
    emo_cp_async16(s + threadIdx.x * 4, x, 16);
    emo_cp_commit();
    emo_cp_wait<0>();
    o[threadIdx.x] = s[(63 - threadIdx.x) * 4]; /* bug: wait_no_barrier */
}
static void test_cp_async(void **) {
    Buffer<uint32_t> o(64), x(4);
    x.fill(0);
    RUN(no_wait_k, 1, 1, o.data, (const uint32_t *)x.data);
    expect("uninitialised shared memory: read", line("no_wait"));
    RUN(wait_no_barrier_k, 1, 64, o.data, (const uint32_t *)x.data);
    expect("", line("wait_no_barrier"));
}

static void test_host_touches_device(void **) {
    Buffer<int> x(4);
    x.data[0] = 1; /* bug: host_touch */
    expect("host code writes device memory", line("host_touch"));
}

#else

/* Without the checker a write past the end is seen when the memory is freed, and an unawaited copy is NaN. */
#ifdef __SANITIZE_ADDRESS__
static void test_red_zone(void **) { skip(); /* AddressSanitizer ends the program at the write */ }
#else
__global__ static void past_byte_k(uint8_t *o, int n) { o[n] = 1; }
static void test_red_zone(void **) {
    uint8_t *p;
    EXPECT_CUDA(cudaMalloc((void **)&p, 33));
    RUN(past_byte_k, 1, 1, p, 40);
    EXPECT_CUDA(cudaFree(p));
    expect("red zone: byte 7 past the end of an allocation of 33 bytes", 0);
}
#endif

__global__ static void no_wait_k(uint32_t *o, const uint32_t *x) {
    EMO_SHARED(uint32_t, s, 4);
    emo_cp_async16(s, x, 16);
    emo_cp_commit();
    o[0] = s[0];
}
static void test_cp_async(void **) {
    Buffer<uint32_t> o(1), x(4);
    x.fill(0);
    RUN(no_wait_k, 1, 1, o.data, (const uint32_t *)x.data);
    assert_int_equal(o.get()[0], 0xffffffffu);
}
#endif

/* What a test leaves behind is its failure, not the next one's. */
static int nothing_left(void **) {
    std::string text = take_findings();
    if (!text.empty())
        print_error("left over: %s\n", text.c_str());
    return text.empty() ? 0 : -1;
}
#define TEST(f) cmocka_unit_test_teardown(f, nothing_left)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_divergent_barrier),
        TEST(test_sticky_error),
        TEST(test_deadlock),
        TEST(test_exited_lanes),
        TEST(test_caller_not_in_mask),
        TEST(test_lanes_disagree),
        TEST(test_short_warp),
        TEST(test_ldmatrix_addresses),
        TEST(test_bad_launches),
        TEST(test_pinned_read_early),
        TEST(test_bad_copies),
        TEST(test_double_free),
        TEST(test_cp_async),
#if defined(CUDASIM_HOOKS)
        TEST(test_missing_barrier),
        TEST(test_missing_second_barrier),
        TEST(test_missing_syncwarp),
        TEST(test_half_syncwarp),
        TEST(test_blocks_race),
        TEST(test_atomic_and_plain),
        TEST(test_byte_race),
        TEST(test_uninitialised_device),
        TEST(test_uninitialised_download),
        TEST(test_uninitialised_copied),
        TEST(test_uninitialised_shared),
        TEST(test_out_of_bounds),
        TEST(test_use_after_free),
        TEST(test_shared_overrun),
        TEST(test_host_pointer),
        TEST(test_local_of_another),
        TEST(test_host_global),
        TEST(test_misaligned),
        TEST(test_host_touches_device),
#else
        TEST(test_red_zone),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
