/* SPDX-License-Identifier: Apache-2.0 */
/* How fast the processor multiplies whole numbers of 8 bits, in the tiles that products of quantised weights use. */
#ifndef EMO_SRC_CPU_GEMM_PEAK_H
#define EMO_SRC_CPU_GEMM_PEAK_H

#include "cpu/cpu.h"

/* A loop: four tiles of 16 x 16 sums, 8 units of 64 along k, from 32 KB. */
#define EMO__PEAK_INT8_BYTES ((size_t)32768)
#define EMO__PEAK_INT8_OPERATIONS (2.0 * 32 * 32 * 64 * 8)

/* Whether this level has it. */
int emo__peak_int8_there(const emo__cpu_exec *cpu);
/* `loops` times, on memory of that size, 64-byte aligned. Only where it is there. */
void emo__peak_int8_run(const void *memory, int loops);

#endif
