/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of cuRAND that fills arrays. The distributions are right and a seed gives the same numbers each time; they
 * are not the numbers that a device gives.
 */
#include <curand.h>

#include "cudasim/internal.h"

struct curandGenerator_st {
    cudaStream_t stream;
    uint64_t seed, offset;
};

namespace cudasim {

static uint64_t mix(uint64_t x) {
    x += 0x9E3779B97F4A7C15ull;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

/* (0, 1], as cuRAND's. */
static double uniform(uint64_t seed, uint64_t i) { return (double)((mix(mix(seed) + i) >> 40) + 1) / 16777216.0; }

static curandStatus_t fill(curandGenerator_t g, float *out, size_t n, std::function<float(uint64_t, uint64_t)> value) {
    CUDASIM_LOCK;
    uint64_t seed = g->seed, first = g->offset;
    g->offset += n;
    cudaError_t error = enqueue(g->stream, "cuRAND", [=] {
        if (!inside_allocation(out, n * sizeof(float), true, "the output of cuRAND"))
            return cudaErrorIllegalAddress;
        for (size_t i = 0; i < n; i++)
            out[i] = value(seed, first + i);
        check_written(out, n * sizeof(float));
        return cudaSuccess;
    });
    return error == cudaSuccess ? CURAND_STATUS_SUCCESS : CURAND_STATUS_LAUNCH_FAILURE;
}

} // namespace cudasim

using namespace cudasim;

extern "C" {

curandStatus_t curandCreateGenerator(curandGenerator_t *out, curandRngType_t) {
    CUDASIM_LOCK;
    if (allocation_fails())
        return CURAND_STATUS_ALLOCATION_FAILED;
    *out = new curandGenerator_st{nullptr, 0, 0};
    return CURAND_STATUS_SUCCESS;
}
curandStatus_t curandDestroyGenerator(curandGenerator_t g) {
    delete g;
    return CURAND_STATUS_SUCCESS;
}
curandStatus_t curandSetStream(curandGenerator_t g, cudaStream_t stream) {
    g->stream = stream;
    return CURAND_STATUS_SUCCESS;
}
curandStatus_t curandSetPseudoRandomGeneratorSeed(curandGenerator_t g, unsigned long long seed) {
    g->seed = seed;
    g->offset = 0;
    return CURAND_STATUS_SUCCESS;
}
curandStatus_t curandSetGeneratorOffset(curandGenerator_t g, unsigned long long offset) {
    g->offset = offset;
    return CURAND_STATUS_SUCCESS;
}
curandStatus_t curandGenerateUniform(curandGenerator_t g, float *out, size_t n) {
    return fill(g, out, n, [](uint64_t seed, uint64_t i) { return (float)uniform(seed, i); });
}
curandStatus_t curandGenerateNormal(curandGenerator_t g, float *out, size_t n, float mean, float deviation) {
    if (n % 2 != 0) /* as the real one's pseudo-random generators */
        return CURAND_STATUS_LENGTH_NOT_MULTIPLE;
    return fill(g, out, n, [=](uint64_t seed, uint64_t i) {
        double r = sqrt(-2.0 * log(uniform(seed, i & ~1ull))), angle = 6.283185307179586 * uniform(seed, i | 1ull);
        return mean + deviation * (float)((i & 1) != 0 ? r * sin(angle) : r * cos(angle));
    });
}

} /* extern "C" */
