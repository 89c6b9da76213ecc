/* SPDX-License-Identifier: Apache-2.0 */
/* Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a pure function of key and
 * counter, so that a draw depends on what it is for and never on which thread asks first. */
#ifndef EMO_SRC_TENSOR_PHILOX_H
#define EMO_SRC_TENSOR_PHILOX_H

#include <stddef.h>
#include <stdint.h>

/* What a draw is for. The numbers are part of the reproducibility promise: never reuse or renumber. */
enum {
    EMO__RNG_INIT = 1,    /* a = parameter ordinal, b = block index within the parameter */
    EMO__RNG_POOL = 2,    /* a = step, b = global document id, c = layer */
    EMO__RNG_ORDER = 3,   /* a = epoch */
    EMO__RNG_JITTER = 4,  /* a = step, b = token, c = layer */
    EMO__RNG_SAMPLE = 5,  /* a = sequence, b = position */
    EMO__RNG_SELECT = 6,  /* random expert subsets: a = layer */
    EMO__RNG_EXAMPLE = 7, /* drawing calibration documents */
    EMO__RNG_SHOTS = 8,   /* examples in prompts: a = item or 0, b = attempt */
    EMO__RNG_TEST = 99
};

typedef struct emo__philox {
    uint32_t v[4];
} emo__philox;

/* The raw function. */
emo__philox emo__philox4x32(uint64_t key, const uint32_t counter[4]);

/* Four words for (seed, purpose, a, b, c); a and b use their low 48 and 40 bits. */
emo__philox emo__philox_draw(uint64_t seed, uint32_t purpose, uint64_t a, uint64_t b, uint32_t c);

/* [0, 1) with 24 bits. */
static inline float emo__uniform_f32(uint32_t bits) { return (float)(bits >> 8) * 0x1p-24f; }
/* [0, 1) with 53 bits. */
static inline double emo__uniform_f64(uint32_t high, uint32_t low) {
    return (double)((((uint64_t)high << 32) | low) >> 11) * 0x1p-53;
}
/* Uniform in [0, n) from 64 random bits, by multiplication; the bias is below n * 2^-64. */
static inline uint64_t emo__uniform_below(uint32_t high, uint32_t low, uint64_t n) {
    return (uint64_t)(((unsigned __int128)(((uint64_t)high << 32) | low) * n) >> 64);
}

/* Fills order[0..n) with a permutation of 0..n-1 that depends on (seed, purpose, a) alone. */
void emo__permutation(uint64_t seed, uint32_t purpose, uint64_t a, uint32_t *order, size_t n);

#endif
