/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/philox.h"

#define M0 0xD2511F53u
#define M1 0xCD9E8D57u
#define W0 0x9E3779B9u
#define W1 0xBB67AE85u

emo__philox emo__philox4x32(uint64_t key, const uint32_t counter[4]) {
    uint32_t k0 = (uint32_t)key;
    uint32_t k1 = (uint32_t)(key >> 32);
    uint32_t c0 = counter[0];
    uint32_t c1 = counter[1];
    uint32_t c2 = counter[2];
    uint32_t c3 = counter[3];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)M0 * c0;
        uint64_t p1 = (uint64_t)M1 * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        uint32_t n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += W0;
        k1 += W1;
    }
    emo__philox out = {{c0, c1, c2, c3}};
    return out;
}

emo__philox emo__philox_draw(uint64_t seed, uint32_t purpose, uint64_t a, uint64_t b, uint32_t c) {
    /* 128 counter bits: a 48, b 40, purpose 8, c 32 */
    uint32_t counter[4];
    counter[0] = (uint32_t)a;
    counter[1] = (uint32_t)((a >> 32) & 0xFFFFu) | (uint32_t)((b & 0xFFFFu) << 16);
    counter[2] = (uint32_t)((b >> 16) & 0xFFFFFFu) | (purpose << 24);
    counter[3] = c;
    return emo__philox4x32(seed, counter);
}

void emo__permutation(uint64_t seed, uint32_t purpose, uint64_t a, uint32_t *order, size_t n) {
    for (size_t i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    for (size_t i = n; i > 1; i--) {
        emo__philox r = emo__philox_draw(seed, purpose, a, i, 0);
        size_t j = (size_t)emo__uniform_below(r.v[0], r.v[1], i);
        uint32_t swap = order[i - 1];
        order[i - 1] = order[j];
        order[j] = swap;
    }
}
