/* SPDX-License-Identifier: Apache-2.0 */
/* What a processor and its system say of themselves, and which levels follow from it. The second is a function of the
 * first alone, on every machine: tests make up machines. */
#ifndef EMO_SRC_CPU_ISA_H
#define EMO_SRC_CPU_ISA_H

#include <emo/runtime.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum emo__cpu_family { EMO__CPU_OTHER = 0, EMO__CPU_X86 = 1, EMO__CPU_ARM64 = 2 } emo__cpu_family;

typedef struct emo__cpu_features {
    emo__cpu_family family;
    /* x86-64: who made it, registers of CPUID, extended control register 0 (0: the system does not use it), and the
     * state components that a process may have on request */
    bool intel;
    uint32_t leaf_1_eax;
    uint32_t leaf_1_ecx;
    uint32_t leaf_7_ebx;
    uint32_t leaf_7_ecx;
    uint32_t leaf_7_edx;
    uint32_t leaf_7_1_eax;
    uint64_t xcr0;
    uint64_t on_request;
    /* 64-bit Arm: what Linux reports to every process */
    uint64_t hwcap;
    uint64_t hwcap2;
} emo__cpu_features;

/* This machine's. */
emo__cpu_features emo__cpu_features_here(void);
/* Whether a machine with `f` can run `isa`. */
bool emo__cpu_features_have(const emo__cpu_features *f, emo_isa isa);
/* The level that it should run: the highest that it can, unless that is slower (never EMO_ISA_AUTO). */
emo_isa emo__cpu_features_best(const emo__cpu_features *f);

#endif
