/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a test steers the simulator. A program linked with it names `cudasim_control`; one that loads the simulated
 * plug-in finds the symbol of that name in it with dlsym (a real plug-in has none).
 */
#ifndef CUDASIM_CONTROL_H
#define CUDASIM_CONTROL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Calls since the last reset. */
typedef struct cudasim_counts {
    size_t waits;     /* of the host for the device: synchronising, freeing, copies that block */
    size_t to_host;   /* copies */
    size_t to_device; /* the same */
    size_t launches;  /* of kernels, one by one: not into a graph, and not by one */
    size_t graphs;    /* launched */
    size_t beside;    /* of to_device: in streams that never ran a kernel */
} cudasim_counts;

typedef struct cudasim_control_table {
    size_t struct_size;
    void (*seed)(uint32_t seed);    /* 0: threads and blocks in order, else a random order */
    void (*streams)(int mode);      /* 0: work runs when enqueued; 1: when waited for; 2: in any allowed order */
    void (*memory)(size_t bytes);   /* device memory there is */
    void (*fail_allocation)(int n); /* n > 0: the n-th device or pinned allocation from now on and all later ones
                                       fail; 0: none */
    int (*findings)(void);          /* findings so far */
    size_t (*take)(char *, size_t); /* their text, at most size - 1 bytes; forgets them and the device's error */
    size_t (*live)(void);           /* bytes of device memory that are allocated */
    void (*blas)(int mode);         /* cuBLASLt 0: is there; 1: is missing; 2: has no way for any product */
    int (*heuristics)(void);        /* times that its heuristic was asked so far */
    void (*fail_graph)(int n); /* n > 0: the n-th graph from now on that is to be instantiated, and all later ones */
    void (*counts)(cudasim_counts *out); /* nullable; resets them */
} cudasim_control_table;

extern const cudasim_control_table cudasim_control;

#define CUDASIM_CONTROL_SYMBOL "cudasim_control"

#ifdef __cplusplus
}
#endif
#endif
