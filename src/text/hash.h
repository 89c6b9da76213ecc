/* SPDX-License-Identifier: Apache-2.0 */
/* Hashing for tables in memory, and the running hash of a tokenizer's contents. */
#ifndef EMO_SRC_TEXT_HASH_H
#define EMO_SRC_TEXT_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t emo__hash_mix(uint64_t x) {
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ x >> 32;
}

static inline uint64_t emo__hash_bytes(const void *data, size_t n) {
    const unsigned char *p = data;
    uint64_t h = 0x9e3779b97f4a7c15u ^ (uint64_t)n, block;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&block, p, 8);
        h = emo__hash_mix(h ^ block);
    }
    block = 0;
    for (size_t i = 0; i < n; i++)
        block |= (uint64_t)p[i] << (8 * i);
    return emo__hash_mix(h ^ block);
}

/* FNV-1a: the same on every machine. */
#define EMO__FNV_START 0xcbf29ce484222325u
static inline uint64_t emo__fnv(uint64_t h, const void *data, size_t n) {
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}
static inline uint64_t emo__fnv_u64(uint64_t h, uint64_t value) {
    for (int i = 0; i < 8; i++)
        h = (h ^ (value >> (8 * i) & 0xFF)) * 0x100000001b3u;
    return h;
}

#endif
