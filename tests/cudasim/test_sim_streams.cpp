/* SPDX-License-Identifier: Apache-2.0 */
/* Streams, events, graphs, memory that comes and goes in the order of a stream, and no memory at all. */
#include "cudasim/support.h"

#include <thread>

__global__ static void fill_k(int *o, int v) { o[threadIdx.x] = v; }
__global__ static void add_k(int *o, const int *x, int v) { o[threadIdx.x] = x[threadIdx.x] + v; }

struct Streams {
    cudaStream_t a, b;
    cudaEvent_t event;
    Streams() {
        EXPECT_CUDA(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
        EXPECT_CUDA(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking));
        EXPECT_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    }
    ~Streams() {
        (void)cudaEventDestroy(event);
        (void)cudaStreamDestroy(a);
        (void)cudaStreamDestroy(b);
    }
};

static int first_of(const int *x, cudaStream_t s) {
    int v = -1;
    EXPECT_CUDA(cudaMemcpyAsync(&v, x, sizeof v, cudaMemcpyDeviceToHost, s));
    return v;
}

static void expect(const char *hooked, const char *everywhere) {
    std::string text = take_findings();
#if defined(CUDASIM_HOOKS)
    const char *wanted = hooked;
#else
    const char *wanted = everywhere;
#endif
    if (wanted == nullptr ? !text.empty() : text.find(wanted) == std::string::npos)
        fail_msg("expected '%s', found: %s", wanted != nullptr ? wanted : "nothing", text.c_str());
}

/* Work runs when something waits for it: the reader that nobody ordered meets what was there before. */
static void test_missing_wait(void **) {
    Streams s;
    Buffer<int> x(32), y(32);
    x.fill(0);
    EXPECT_CUDA(cudaDeviceSynchronize());
    EXPECT_CUDA(EMO_LAUNCH(fill_k, 1, 32, 0, s.a, x.data, 3));
    EXPECT_CUDA(EMO_LAUNCH(add_k, 1, 32, 0, s.b, y.data, (const int *)x.data, 1));
    assert_int_equal(first_of(y.data, s.b), 1);
    EXPECT_CUDA(cudaDeviceSynchronize());
    expect("another operation that no event or stream orders", nullptr);
}

/* In whatever order it ran: the checker knows what is ordered, not what happened to come first. */
static void test_missing_wait_eager(void **) {
    cudasim_control.streams(0);
    {
        Streams s;
        Buffer<int> x(32), y(32);
        x.fill(0);
        EXPECT_CUDA(cudaDeviceSynchronize());
        EXPECT_CUDA(EMO_LAUNCH(fill_k, 1, 32, 0, s.a, x.data, 3));
        EXPECT_CUDA(EMO_LAUNCH(add_k, 1, 32, 0, s.b, y.data, (const int *)x.data, 1));
        assert_int_equal(first_of(y.data, s.b), 4);
    }
    cudasim_control.streams(1);
    expect("read by thread 0 of block 0 in add_k", nullptr);
}

static void test_event_wait(void **) {
    for (int mode = 0; mode < 3; mode++) {
        cudasim_control.streams(mode);
        Streams s;
        Buffer<int> x(32), y(32);
        EXPECT_CUDA(EMO_LAUNCH(fill_k, 1, 32, 0, s.a, x.data, 3));
        EXPECT_CUDA(cudaEventRecord(s.event, s.a));
        EXPECT_CUDA(cudaStreamWaitEvent(s.b, s.event, 0));
        EXPECT_CUDA(EMO_LAUNCH(add_k, 1, 32, 0, s.b, y.data, (const int *)x.data, 1));
        assert_int_equal(first_of(y.data, s.b), 4);
        /* And back: the next round may not overwrite what is being read. */
        EXPECT_CUDA(cudaEventRecord(s.event, s.b));
        EXPECT_CUDA(cudaStreamWaitEvent(s.a, s.event, 0));
        EXPECT_CUDA(EMO_LAUNCH(fill_k, 1, 32, 0, s.a, x.data, 5));
        assert_int_equal(first_of(x.data, s.a), 5);
    }
    cudasim_control.streams(1);
    expect(nullptr, nullptr);
}

/* The host that waited for one stream may use its results on another. */
static void test_host_orders(void **) {
    Streams s;
    Buffer<int> x(32), y(32);
    EXPECT_CUDA(EMO_LAUNCH(fill_k, 1, 32, 0, s.a, x.data, 3));
    EXPECT_CUDA(cudaStreamSynchronize(s.a));
    EXPECT_CUDA(EMO_LAUNCH(add_k, 1, 32, 0, s.b, y.data, (const int *)x.data, 1));
    assert_int_equal(first_of(y.data, s.b), 4);
    expect(nullptr, nullptr);
}

/* A reader on another stream must be waited for before its memory is written again. */
static void test_overwritten_while_read(void **) {
    Streams s;
    Buffer<int> x(32), y(32);
    x.fill(0);
    EXPECT_CUDA(cudaDeviceSynchronize());
    EXPECT_CUDA(EMO_LAUNCH(add_k, 1, 32, 0, s.b, y.data, (const int *)x.data, 1));
    EXPECT_CUDA(cudaMemsetAsync(x.data, 1, 128, s.a));
    EXPECT_CUDA(cudaDeviceSynchronize());
    expect("race in device memory: write by cudaMemset", nullptr);
}

/* Blocking streams and the default stream wait for each other, the others do not. */
static void test_default_stream(void **) {
    cudaStream_t s;
    EXPECT_CUDA(cudaStreamCreate(&s));
    {
        Buffer<int> x(32), y(32);
        EXPECT_CUDA(EMO_LAUNCH(fill_k, 1, 32, 0, s, x.data, 3));
        EXPECT_CUDA(EMO_LAUNCH(add_k, 1, 32, 0, 0, y.data, (const int *)x.data, 1));
        EXPECT_CUDA(EMO_LAUNCH(add_k, 1, 32, 0, s, x.data, (const int *)y.data, 1));
        assert_int_equal(first_of(x.data, s), 5);
    }
    EXPECT_CUDA(cudaStreamDestroy(s));
    expect(nullptr, nullptr);
}

static void test_queries(void **) {
    Streams s;
    Buffer<int> x(32);
    EXPECT_CUDA(cudaStreamQuery(s.a));
    EXPECT_CUDA(EMO_LAUNCH(fill_k, 1, 32, 0, s.a, x.data, 3));
    EXPECT_CUDA(cudaEventRecord(s.event, s.a));
    assert_int_equal(cudaEventQuery(s.event), cudaErrorNotReady);
    EXPECT_CUDA(cudaEventQuery(s.event));
    EXPECT_CUDA(EMO_LAUNCH(fill_k, 1, 32, 0, s.a, x.data, 4));
    assert_int_equal(cudaStreamQuery(s.a), cudaErrorNotReady);
    EXPECT_CUDA(cudaStreamQuery(s.a));
    expect(nullptr, nullptr);
}

/* Memory in the order of a stream: usable there, and elsewhere only after an event. */
static void test_stream_ordered_memory(void **) {
    Streams s;
    int *p;
    size_t before = cudasim_control.live();
    EXPECT_CUDA(cudaMallocAsync((void **)&p, 128, s.a));
    EXPECT_CUDA(EMO_LAUNCH(fill_k, 1, 32, 0, s.a, p, 3));
    EXPECT_CUDA(cudaFreeAsync(p, s.a));
    EXPECT_CUDA(cudaStreamSynchronize(s.a));
    assert_int_equal(cudasim_control.live(), before);
    expect(nullptr, nullptr);
    EXPECT_CUDA(cudaMallocAsync((void **)&p, 128, s.a));
    EXPECT_CUDA(cudaStreamSynchronize(s.a));
    EXPECT_CUDA(EMO_LAUNCH(fill_k, 1, 32, 0, s.b, p, 3));
    EXPECT_CUDA(cudaFreeAsync(p, s.a));
    EXPECT_CUDA(cudaStreamSynchronize(s.b));
    EXPECT_CUDA(cudaStreamSynchronize(s.a));
    expect("race in device memory: write by cudaFreeAsync", nullptr);
}

/* ---- graphs ---- */

/* x = 1; then y = x + 10 on one branch and z = x + 100 on another; then x = y + z (by way of y). */
static cudaGraphExec_t capture(Streams &s, int *x, int *y, int *z, bool join) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    cudaEvent_t back;
    EXPECT_CUDA(cudaEventCreate(&back));
    EXPECT_CUDA(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeThreadLocal));
    EXPECT_CUDA(EMO_LAUNCH(add_k, 1, 32, 0, s.a, x, (const int *)x, 1));
    EXPECT_CUDA(cudaEventRecord(s.event, s.a));
    EXPECT_CUDA(cudaStreamWaitEvent(s.b, s.event, 0));
    EXPECT_CUDA(EMO_LAUNCH(add_k, 1, 32, 0, s.b, z, (const int *)x, 100));
    EXPECT_CUDA(EMO_LAUNCH(add_k, 1, 32, 0, s.a, y, (const int *)x, 10));
    if (join) {
        EXPECT_CUDA(cudaEventRecord(back, s.b));
        EXPECT_CUDA(cudaStreamWaitEvent(s.a, back, 0));
        EXPECT_CUDA(EMO_LAUNCH(add_k, 1, 32, 0, s.a, z, (const int *)z, 1000));
    }
    cudaError_t error = cudaStreamEndCapture(s.a, &graph);
    assert_int_equal(error, join ? cudaSuccess : cudaErrorStreamCaptureUnjoined);
    if (error == cudaSuccess) {
        EXPECT_CUDA(cudaGraphInstantiate(&exec, graph, 0));
        EXPECT_CUDA(cudaGraphDestroy(graph));
    }
    EXPECT_CUDA(cudaEventDestroy(back));
    return exec;
}

static void test_graph_replay(void **) {
    for (int mode = 0; mode < 3; mode++) {
        cudasim_control.streams(mode);
        Streams s;
        Buffer<int> x(32), y(32), z(32);
        x.fill(0);
        EXPECT_CUDA(cudaDeviceSynchronize());
        cudaGraphExec_t exec = capture(s, x.data, y.data, z.data, true);
        assert_int_equal(first_of(x.data, s.a), 0); /* capturing runs nothing */
        for (int round = 1; round <= 3; round++) {
            EXPECT_CUDA(cudaGraphLaunch(exec, s.a));
            EXPECT_CUDA(EMO_LAUNCH(add_k, 1, 32, 0, s.a, x.data, (const int *)x.data, 1));
            assert_int_equal(first_of(x.data, s.a), 2 * round);
            assert_int_equal(first_of(y.data, s.a), 2 * round + 9);
            assert_int_equal(first_of(z.data, s.a), 2 * round + 1099);
        }
        /* Work on another stream has to wait for the graph as for a kernel. */
        EXPECT_CUDA(cudaGraphLaunch(exec, s.a));
        EXPECT_CUDA(cudaEventRecord(s.event, s.a));
        EXPECT_CUDA(cudaStreamWaitEvent(s.b, s.event, 0));
        EXPECT_CUDA(EMO_LAUNCH(add_k, 1, 32, 0, s.b, y.data, (const int *)z.data, 0));
        assert_int_equal(first_of(y.data, s.b), 7 + 1100);
        EXPECT_CUDA(cudaGraphExecDestroy(exec));
    }
    cudasim_control.streams(1);
    expect(nullptr, nullptr);
}

static void test_graph_not_waited_for(void **) {
    Streams s;
    Buffer<int> x(32), y(32), z(32);
    x.fill(0);
    EXPECT_CUDA(cudaDeviceSynchronize());
    cudaGraphExec_t exec = capture(s, x.data, y.data, z.data, true);
    EXPECT_CUDA(cudaGraphLaunch(exec, s.a));
    EXPECT_CUDA(EMO_LAUNCH(add_k, 1, 32, 0, s.b, y.data, (const int *)x.data, 0));
    EXPECT_CUDA(cudaDeviceSynchronize());
    EXPECT_CUDA(cudaGraphExecDestroy(exec));
    expect("race in device memory", nullptr);
}

static void test_capture_mistakes(void **) {
    Streams s;
    Buffer<int> x(32), y(32), z(32);
    x.fill(0);
    EXPECT_CUDA(cudaDeviceSynchronize());
    cudaGraph_t graph;
    assert_null(capture(s, x.data, y.data, z.data, false));
    expect("was not joined back", "was not joined back");
    EXPECT_CUDA(EMO_LAUNCH(fill_k, 1, 32, 0, s.b, x.data, 1));
    EXPECT_CUDA(cudaEventRecord(s.event, s.b));
    EXPECT_CUDA(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeThreadLocal));
    assert_int_equal(cudaStreamWaitEvent(s.a, s.event, 0), cudaErrorStreamCaptureIsolation);
    expect("recorded outside the capture", "recorded outside the capture");
    assert_int_equal(cudaStreamSynchronize(s.a), cudaErrorStreamCaptureUnsupported);
    expect("that is being captured", "that is being captured");
    assert_int_equal(cudaDeviceSynchronize(), cudaErrorStreamCaptureUnsupported);
    expect("while a stream is being captured", "while a stream is being captured");
    cudaStreamCaptureStatus status;
    EXPECT_CUDA(cudaStreamIsCapturing(s.a, &status));
    assert_int_equal(status, cudaStreamCaptureStatusInvalidated);
    assert_int_equal(EMO_LAUNCH(fill_k, 1, 32, 0, s.a, x.data, 1), cudaErrorStreamCaptureInvalidated);
    assert_int_equal(cudaStreamEndCapture(s.a, &graph), cudaErrorStreamCaptureInvalidated);
    assert_null(graph);
    assert_int_equal(cudaStreamEndCapture(s.a, &graph), cudaErrorIllegalState);
    EXPECT_CUDA(cudaDeviceSynchronize());
}

/* What a thread may do while it captures, and what others may. */
static void test_capture_modes(void **) {
    static const cudaStreamCaptureMode modes[] = {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal,
                                                  cudaStreamCaptureModeRelaxed};
    for (int m = 0; m < 3; m++) {
        for (int other = 0; other < 2; other++) {
            Streams s;
            cudaGraph_t graph = nullptr;
            void *p = nullptr;
            cudaError_t error = cudaSuccess;
            bool forbidden = m == 0 || (m == 1 && other == 0);
            EXPECT_CUDA(cudaStreamBeginCapture(s.a, modes[m]));
            auto call = [&] { error = cudaMalloc(&p, 64); };
            if (other)
                std::thread(call).join();
            else
                call();
            assert_int_equal(error, forbidden ? cudaErrorStreamCaptureUnsupported : cudaSuccess);
            expect(forbidden ? "cudaMalloc while a stream" : nullptr,
                   forbidden ? "cudaMalloc while a stream" : nullptr);
            cudaError_t elsewhere = cudaSuccess;
            std::thread([&] { elsewhere = m == 2 ? cudaSuccess : cudaStreamEndCapture(s.a, &graph); }).join();
            assert_int_equal(elsewhere, m == 2 ? cudaSuccess : cudaErrorStreamCaptureWrongThread);
            assert_int_equal(cudaStreamEndCapture(s.a, &graph),
                             forbidden ? cudaErrorStreamCaptureInvalidated : cudaSuccess);
            if (!forbidden)
                EXPECT_CUDA(cudaGraphDestroy(graph));
            EXPECT_CUDA(cudaFree(p));
        }
    }
    (void)take_findings();
}

/* An upload that a graph would repeat from memory that may be gone by then, and the default stream's turn. */
static void test_capture_reads_the_host(void **) {
    Streams s;
    Buffer<int> x(32);
    int pageable[32] = {0};
    cudaGraph_t graph = nullptr;
    EXPECT_CUDA(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeThreadLocal));
    EXPECT_CUDA(cudaMemcpyAsync(x.data, pageable, sizeof pageable, cudaMemcpyHostToDevice, s.a));
    expect("will use pageable memory", "will use pageable memory");
    EXPECT_CUDA(cudaStreamEndCapture(s.a, &graph));
    EXPECT_CUDA(cudaGraphDestroy(graph));
    cudaStream_t blocking;
    EXPECT_CUDA(cudaStreamCreate(&blocking));
    EXPECT_CUDA(cudaStreamBeginCapture(blocking, cudaStreamCaptureModeThreadLocal));
    assert_int_equal(EMO_LAUNCH(fill_k, 1, 32, 0, (cudaStream_t)0, x.data, 1), cudaErrorStreamCaptureImplicit);
    expect("on the default stream", "on the default stream");
    assert_int_equal(cudaStreamEndCapture(blocking, &graph), cudaErrorStreamCaptureInvalidated);
    EXPECT_CUDA(cudaStreamDestroy(blocking));
}

static void test_counts(void **) {
    Streams s;
    Buffer<int> x(32), y(32), z(32);
    cudasim_counts c;
    x.fill(0);
    EXPECT_CUDA(cudaDeviceSynchronize());
    cudaGraphExec_t exec = capture(s, x.data, y.data, z.data, true);
    cudasim_control.counts(nullptr);
    EXPECT_CUDA(cudaGraphLaunch(exec, s.a));
    EXPECT_CUDA(EMO_LAUNCH(fill_k, 1, 32, 0, s.a, x.data, 1));
    cudasim_control.counts(&c);
    assert_int_equal(c.graphs, 1);
    assert_int_equal(c.launches, 1);
    assert_int_equal(c.waits + c.to_host + c.to_device, 0);
    int one[32];
    EXPECT_CUDA(cudaMemcpyAsync(one, x.data, sizeof one, cudaMemcpyDeviceToHost, s.a)); /* pageable: it blocks */
    EXPECT_CUDA(cudaMemcpyAsync(x.data, one, sizeof one, cudaMemcpyHostToDevice, s.a));
    EXPECT_CUDA(cudaStreamSynchronize(s.a));
    cudasim_control.counts(&c);
    assert_int_equal(c.waits, 2);
    assert_int_equal(c.to_host, 1);
    assert_int_equal(c.to_device, 1);
    assert_int_equal(c.beside, 0);
    cudaStream_t quiet; /* no kernel runs there */
    EXPECT_CUDA(cudaStreamCreate(&quiet));
    EXPECT_CUDA(cudaMemcpyAsync(x.data, one, sizeof one, cudaMemcpyHostToDevice, quiet));
    EXPECT_CUDA(cudaStreamDestroy(quiet));
    cudasim_control.counts(&c);
    assert_int_equal(c.to_device, 1);
    assert_int_equal(c.beside, 1);
    EXPECT_CUDA(cudaGraphExecDestroy(exec));
    cudasim_control.fail_graph(1);
    cudaGraph_t graph;
    EXPECT_CUDA(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeThreadLocal));
    EXPECT_CUDA(cudaStreamEndCapture(s.a, &graph));
    assert_int_equal(cudaGraphInstantiate(&exec, graph, 0), cudaErrorMemoryAllocation);
    cudasim_control.fail_graph(0);
    EXPECT_CUDA(cudaGraphInstantiate(&exec, graph, 0));
    EXPECT_CUDA(cudaGraphDestroy(graph));
    EXPECT_CUDA(cudaGraphExecDestroy(exec));
}

/* ---- memory ---- */

static void test_out_of_memory(void **) {
    size_t left, total;
    void *p, *q;
    cudasim_control.memory(1 << 20);
    EXPECT_CUDA(cudaMemGetInfo(&left, &total));
    assert_int_equal(total, 1 << 20);
    assert_int_equal(cudaMalloc(&p, left + 1), cudaErrorMemoryAllocation);
    assert_null(p);
    assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    EXPECT_CUDA(cudaMalloc(&p, left));
    assert_int_equal(cudaMalloc(&q, 1), cudaErrorMemoryAllocation);
    EXPECT_CUDA(cudaFree(p));
    cudasim_control.memory((size_t)4 << 30);
    cudasim_control.fail_allocation(2);
    EXPECT_CUDA(cudaMalloc(&p, 4));
    assert_int_equal(cudaMalloc(&q, 4), cudaErrorMemoryAllocation);
    assert_int_equal(cudaMallocHost(&q, 4), cudaErrorMemoryAllocation);
    cudasim_control.fail_allocation(0);
    EXPECT_CUDA(cudaMalloc(&q, 4));
    EXPECT_CUDA(cudaFree(p));
    EXPECT_CUDA(cudaFree(q));
    (void)cudaGetLastError();
}

/* Every float, bf16 and double of new memory is NaN. */
static void test_new_memory_is_nan(void **) {
#if !defined(CUDASIM_HOOKS)
    Buffer<float> x(100);
    for (float v : x.get())
        assert_true(v != v);
#endif
}

static void test_attributes(void **) {
    int v = 0, most = 0;
    EXPECT_CUDA(cudaDeviceGetAttribute(&v, cudaDevAttrComputeCapabilityMajor, 0));
    assert_in_range(v, 8, 20);
    EXPECT_CUDA(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    assert_int_equal(cudaFuncSetAttribute((const void *)fill_k, cudaFuncAttributeMaxDynamicSharedMemorySize, most + 1),
                     cudaErrorInvalidValue);
    EXPECT_CUDA(cudaFuncSetAttribute((const void *)fill_k, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
    Buffer<int> x(32);
    EXPECT_CUDA(EMO_LAUNCH(fill_k, 1, 32, most, 0, x.data, 1));
    EXPECT_CUDA(cudaDeviceSynchronize());
    assert_int_equal(cudaSetDevice(1), cudaErrorInvalidDevice);
    assert_string_equal(cudaGetErrorName(cudaErrorMemoryAllocation), "cudaErrorMemoryAllocation");
}

static int nothing_left(void **) {
    std::string text = take_findings();
    if (!text.empty())
        print_error("left over: %s\n", text.c_str());
    return text.empty() ? 0 : -1;
}
#define TEST(f) cmocka_unit_test_teardown(f, nothing_left)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_missing_wait),     TEST(test_missing_wait_eager),     TEST(test_event_wait),
        TEST(test_host_orders),      TEST(test_overwritten_while_read), TEST(test_default_stream),
        TEST(test_queries),          TEST(test_stream_ordered_memory),  TEST(test_graph_replay),
        TEST(test_capture_mistakes), TEST(test_graph_not_waited_for),   TEST(test_out_of_memory),
        TEST(test_capture_modes),    TEST(test_capture_reads_the_host), TEST(test_counts),
        TEST(test_attributes),       TEST(test_new_memory_is_nan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
