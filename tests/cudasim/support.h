/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of this folder share. Programs named test_gpu_* use nothing of the simulator: nvcc builds them too. */
#ifndef CUDASIM_SUPPORT_H
#define CUDASIM_SUPPORT_H

#include "emo_gpu.h"

/* Before cmocka, whose macros have names of theirs. */
#include <fstream>
#include <string>
#include <vector>

#include <setjmp.h>
#include <stdarg.h>
extern "C" {
#include <cmocka.h>
}

#define EXPECT_CUDA(call) assert_int_equal((int)(call), (int)cudaSuccess)

/* An array in device memory. */
template <class T>
struct Buffer {
    T *data = nullptr;
    size_t count;
    explicit Buffer(size_t n) : count(n) { EXPECT_CUDA(cudaMalloc((void **)&data, n * sizeof(T))); }
    explicit Buffer(const std::vector<T> &from) : Buffer(from.size()) {
        EXPECT_CUDA(cudaMemcpy(data, from.data(), count * sizeof(T), cudaMemcpyHostToDevice));
    }
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;
    ~Buffer() { (void)cudaFree(data); }
    std::vector<T> get() const {
        std::vector<T> out(count);
        EXPECT_CUDA(cudaMemcpy(out.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost));
        return out;
    }
    void fill(int byte) { EXPECT_CUDA(cudaMemset(data, byte, count * sizeof(T))); }
};

/* A program that runs on devices too says 77, "does not apply", where there is none. */
static inline bool no_device() {
    int count = 0;
    return cudaGetDeviceCount(&count) != cudaSuccess || count == 0;
}

/* Small whole numbers are exact in bf16 and in sums of f32: results are compared bit for bit. */
static inline int small_number(unsigned i) { return (int)((i * 2654435761u) >> 28) - 8; }

#ifdef EMO_SIM
#include "cudasim/control.h"
/* The findings since the last call; the device is as new afterwards. */
static inline std::string take_findings() {
    std::vector<char> text(20000);
    cudasim_control.take(text.data(), text.size());
    return text.data();
}
#endif

#endif
