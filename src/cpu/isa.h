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
    /* x86-64: registers of CPUID, extended control register 0 (0: the system does not use it), and the state components
     * that a process may have on request */
    uint32_t leaf_1_ecx;
    uint32_t leaf_7_ebx;
    uint32_t leaf_7_ecx;
    uint32_t leaf_7_edx;
    uint32_t leaf_7_1_eax;
    uint64_t xcr0;
    uint64_t on_request;
} emo__cpu_features;

/* This machine's. */
emo__cpu_features emo__cpu_features_here(void);
/* Whether a machine with `f` can run `isa`. */
bool emo__cpu_features_have(const emo__cpu_features *f, emo_isa isa);
/* The highest level that it can run (never EMO_ISA_AUTO). */
emo_isa emo__cpu_features_best(const emo__cpu_features *f);

#endif
