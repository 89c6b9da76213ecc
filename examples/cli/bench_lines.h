/* SPDX-License-Identifier: Apache-2.0 */
/* Timing things by turns, each beside what the machine can do at that moment. */
#ifndef EMO_CLI_BENCH_LINES_H
#define EMO_CLI_BENCH_LINES_H

#include "cli.h"

#include <emo/sys/bench.h>

/* What bounds a line: the peak of the arithmetic it uses, or reading memory. */
enum { BENCH_LIMITS = 4 };
typedef enum bench_limit { LIMIT_READ = 0, LIMIT_F32 = 1, LIMIT_BF16 = 2, LIMIT_INT8 = 3 } bench_limit;

/* Times one thing once: *seconds of a unit of work, of which `operations`, `bytes` and `tokens` of the line are. */
typedef emo_status (*bench_run)(cli *c, void *ctx, double *seconds);

typedef struct bench_line {
    char name[64];
    int64_t tokens;    /* of a unit; 0: tokens a second mean nothing */
    double operations; /* of a unit */
    double bytes;      /* the least that it moves */
    bench_limit peak;  /* of the products of this run; LIMIT_READ: its operations are no products */
    bench_run run;
    void *ctx;
    double *seconds; /* [rounds] */
    double *bound;   /* [rounds] seconds that the machine's limits of that moment leave */
    double *share;   /* [rounds] bound over seconds, 0: nothing bounds it */
} bench_line;

typedef struct bench_table {
    bench_line *lines;
    size_t count, room;
    int32_t rounds;
    emo_bench *limits[BENCH_LIMITS];
    double work[BENCH_LIMITS];      /* of a call of a limit */
    double *measured[BENCH_LIMITS]; /* [n_measured] what was seen, in bytes or operations a second */
    int32_t n_measured[BENCH_LIMITS];
    int64_t own;  /* bytes that reading is measured on */
    double cache; /* bytes that the caches of the cores in use hold: what is smaller need not come from memory */
} bench_table;

/* Of `count` numbers, which it sorts. */
typedef struct bench_spread {
    double median, least, most;
} bench_spread;
bench_spread bench_spread_of(double *numbers, int32_t count);

/* Measures the limits that the arithmetic needs: reading, and products in what --compute says; whole numbers where the
 * weights are quantised and the processor has them. */
emo_status bench_begin(cli *c, bench_table *table, int32_t rounds, int quantised);
/* A fresh line, or NULL after cli_fail. */
bench_line *bench_add(cli *c, bench_table *table, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The lines from `first` on, all once to warm up, then `rounds` times by turns. */
emo_status bench_measure(cli *c, bench_table *table, size_t first);
void bench_print(bench_table *table);
void bench_json(bench_table *table, json_writer *json);
void bench_end(bench_table *table);

#endif
