/* SPDX-License-Identifier: Apache-2.0 */
/* How fast the processor multiplies whole numbers of 8 bits, with the instructions that products of quantised weights
 * use. */
#ifndef EMO_SRC_CPU_GEMM_PEAK_H
#define EMO_SRC_CPU_GEMM_PEAK_H

#include "cpu/cpu.h"

/* A loop reads this memory once and makes sixteen products of each of its bytes: on tiles, four tiles of 16 x 16 sums
 * and 8 units of 64 along k. */
#define EMO__PEAK_INT8_BYTES ((size_t)32768)
#define EMO__PEAK_INT8_OPERATIONS (2.0 * 16 * 32768)

/* `loops` loops on memory of that size, 64-byte aligned. */
typedef void (*emo__peak_int8_fn)(const void *memory, int loops);
void emo__peak_int8_amx(const void *memory, int loops);
void emo__peak_int8_vnni(const void *memory, int loops);
void emo__peak_int8_neon_dot(const void *memory, int loops);

/* The one of an exec's level; NULL: it has no instructions for sums of such products. */
emo__peak_int8_fn emo__peak_int8_of(const emo__cpu_exec *cpu);

#endif
