/* SPDX-License-Identifier: Apache-2.0 */
/* Narrowing a set of columns to the best ones, by one block: columns are sorted once, in shared memory. */
#ifndef EMO_CUDA_OPS_POOL_H
#define EMO_CUDA_OPS_POOL_H

#include "ops/tiles.h"

enum { EMO_POOL_OUTSIDE = 0, EMO_POOL_COMPETES = 1, EMO_POOL_STAYS = 2 };

/* How many columns stay: `size`, or with mass > 0 one more than those that, with all before them, weigh less than
 * mass * weight, between `least` and `most`. */
typedef struct emo_pool_rule {
    float mass;
    double weight;
    int32_t least, most;
    int64_t size;
} emo_pool_rule;

/* Keys that emo_pool_narrow sorts for n columns: a power of two. */
__host__ __device__ static inline int32_t emo_pool_keys(int64_t n) {
    int32_t keys = 1;
    while (keys < n)
        keys *= 2;
    return keys;
}

/* Bytes of shared memory for n columns: keys, behind them [n] values (f32), [n] states (i32). */
static inline size_t emo_pool_bytes(int64_t n) {
    return (size_t)emo_pool_keys(n) * sizeof(uint64_t) + (size_t)n * (sizeof(float) + sizeof(int32_t));
}

/* Descending by value, ties to the lower column: the larger the key, the earlier; 0 for what is outside. */
__device__ static inline uint64_t emo_pool_key(float x, int32_t column) {
    return (uint64_t)emo_order_key(x) << 32 | (uint32_t)~column;
}

/* Bitonic: descending. count: a power of two. A barrier comes first and last. */
__device__ static inline void emo_pool_sort(uint64_t *keys, int32_t count) {
    for (int32_t size = 2; size <= count; size *= 2)
        for (int32_t stride = size / 2; stride > 0; stride /= 2) {
            __syncthreads();
            for (int32_t i = (int32_t)threadIdx.x; i < count / 2; i += (int32_t)blockDim.x) {
                int32_t low = 2 * i - (i & (stride - 1)), high = low + stride;
                uint64_t a = keys[low], b = keys[high];
                if (((low & size) == 0) == (a < b)) {
                    keys[low] = b;
                    keys[high] = a;
                }
            }
        }
    __syncthreads();
}

/* Clears allowed[c] of the columns that compete and are not among the best. What stays counts in the size. x, state and
 * keys (emo_pool_keys(n) of them) lie in shared memory and have been written by this block, without a barrier yet;
 * room: 33 elements, wanted: one. Every thread of the block calls it. */
__device__ static inline void emo_pool_narrow(const float *x, const int32_t *state, int32_t n, emo_pool_rule rule,
                                              uint64_t *keys, int32_t *room, int64_t *wanted, uint8_t *allowed) {
    int32_t count = emo_pool_keys(n), tid = (int32_t)threadIdx.x, step = (int32_t)blockDim.x;
    int32_t inside = 0, staying = 0, m, kept;
    for (int32_t c = tid; c < count; c += step) {
        int here = c < n && state[c] != EMO_POOL_OUTSIDE;
        keys[c] = here ? emo_pool_key(x[c], c) : 0;
        inside += here;
        staying += here && state[c] == EMO_POOL_STAYS;
    }
    (void)emo_block_scan(inside, room, &m);
    (void)emo_block_scan(staying, room, &kept);
    emo_pool_sort(keys, count);
    if (tid == 0) {
        int64_t size = rule.size;
        if (rule.mass > 0.0f) { /* in the order of the definition */
            double limit = (double)rule.mass * rule.weight, sum = 0.0;
            size = 0;
            while (size < m && size < rule.most) {
                sum += (double)x[~(uint32_t)keys[size]];
                if (!(sum < limit))
                    break;
                size++;
            }
            size += 1;
            size = size < rule.least ? rule.least : size;
            size = size > rule.most ? rule.most : size;
        }
        wanted[0] = size - kept;
    }
    __syncthreads();
    int64_t places = wanted[0];
    int32_t before = 0; /* rivals among the columns before */
    for (int32_t i0 = 0; i0 < m; i0 += step) {
        int32_t i = i0 + tid, c = i < m ? (int32_t) ~(uint32_t)keys[i] : 0, more;
        int rival = i < m && state[c] == EMO_POOL_COMPETES;
        int32_t rank = before + emo_block_scan(rival, room, &more);
        if (rival && rank >= places)
            allowed[c] = 0;
        before += more;
    }
}

#endif
