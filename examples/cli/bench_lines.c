/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* the sizes of caches and of memory */
#include "bench_lines.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const limit_names[BENCH_LIMITS] = {"read", "f32", "bf16", "int8"};

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

bench_spread bench_spread_of(double *numbers, int32_t count) {
    bench_spread s = {0, 0, 0};
    if (count < 1)
        return s;
    qsort(numbers, (size_t)count, sizeof(*numbers), ascending);
    s.median = count % 2 == 1 ? numbers[count / 2] : (numbers[count / 2 - 1] + numbers[count / 2]) / 2;
    s.least = numbers[0];
    s.most = numbers[count - 1];
    return s;
}

/* So much that a shared cache of hundreds of megabytes, which hosts of virtual machines have, holds little of it; of
 * the memory that is free a quarter at the most. */
static uint64_t reading_bytes(uint64_t least) {
    const uint64_t unit = UINT64_C(32) << 20;
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE), pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t wanted = cache > 0 ? 4 * (uint64_t)cache : 0;
    uint64_t most = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page / 4 : 0;
    wanted = (wanted < most ? wanted : most) / unit * unit;
    return wanted > least ? wanted : least;
}

emo_status bench_begin(cli *c, bench_table *table, int32_t rounds, int quantised) {
    long cache = sysconf(_SC_LEVEL2_CACHE_SIZE);
    memset(table, 0, sizeof(*table));
    table->rounds = rounds;
    table->cache = (cache > 0 ? (double)cache : 2e6) * emo_runtime_threads(c->rt);
    for (int i = 0; i < BENCH_LIMITS; i++) {
        int bf16 = cli_compute(c) == EMO_DTYPE_BF16;
        if ((i == LIMIT_BF16 && !bf16) || (i == LIMIT_INT8 && !(bf16 && quantised)))
            continue;
        emo_bench_options options = EMO_BENCH_OPTIONS_INIT;
        options.kind = i == LIMIT_READ ? EMO_BENCH_READ : i == LIMIT_INT8 ? EMO_BENCH_PEAK_INT8 : EMO_BENCH_PEAK;
        if (i == LIMIT_READ)
            options.bytes = reading_bytes(options.bytes);
        options.compute = i >= LIMIT_BF16 ? EMO_DTYPE_BF16 : EMO_DTYPE_F32;
        emo_status status = emo_bench_create(c->rt, &options, &table->limits[i], &c->err);
        if (status == EMO_E_UNSUPPORTED && i == LIMIT_INT8) { /* such products are made in floats then */
            memset(&c->err, 0, sizeof(c->err));
            continue;
        }
        if (status != EMO_OK)
            return status;
        double operations = 0, bytes = 0;
        emo_bench_work(table->limits[i], &operations, &bytes);
        if (i == LIMIT_READ)
            table->own = (int64_t)options.bytes;
        table->work[i] = i == LIMIT_READ ? bytes : operations;
    }
    return EMO_OK;
}

/* What the products of this run are bounded by. */
static bench_limit peak_of(const bench_table *table) {
    return table->limits[LIMIT_INT8] != NULL ? LIMIT_INT8 : table->limits[LIMIT_BF16] != NULL ? LIMIT_BF16 : LIMIT_F32;
}

bench_line *bench_add(cli *c, bench_table *table, const char *format, ...) {
    if (table->count == table->room) {
        size_t larger = table->room * 2 + 16;
        bench_line *grown = realloc(table->lines, larger * sizeof(*grown));
        if (grown == NULL) {
            (void)cli_fail(c, EMO_E_OUT_OF_MEMORY, "out of memory");
            return NULL;
        }
        table->lines = grown;
        table->room = larger;
    }
    bench_line *line = &table->lines[table->count];
    memset(line, 0, sizeof(*line));
    line->seconds = calloc(3 * (size_t)table->rounds, sizeof(double));
    if (line->seconds == NULL) {
        (void)cli_fail(c, EMO_E_OUT_OF_MEMORY, "out of memory");
        return NULL;
    }
    line->bound = line->seconds + table->rounds;
    line->share = line->bound + table->rounds;
    line->peak = peak_of(table);
    va_list args;
    va_start(args, format);
    vsnprintf(line->name, sizeof(line->name), format, args);
    va_end(args);
    table->count++;
    return line;
}

/* What a limit is now, a second: the best of some short looks, because it is what the machine can do. */
static emo_status look(cli *c, bench_table *table, bench_limit limit, double *rate) {
    enum { LOOKS = 4 };
    for (int i = 0; i < LOOKS; i++) {
        double seconds = 0.0;
        emo_status status = emo_bench_run(table->limits[limit], 1, &seconds, &c->err);
        if (status != EMO_OK)
            return status;
        *rate = table->work[limit] / seconds > *rate ? table->work[limit] / seconds : *rate;
    }
    return EMO_OK;
}

/* Keeps what was seen of a limit. */
static emo_status keep(cli *c, bench_table *table, bench_limit limit, double rate) {
    int32_t n = table->n_measured[limit];
    double *grown = realloc(table->measured[limit], ((size_t)n + 1) * sizeof(*grown));
    if (grown == NULL)
        return cli_fail(c, EMO_E_OUT_OF_MEMORY, "out of memory");
    grown[n] = rate;
    table->measured[limit] = grown;
    table->n_measured[limit] = n + 1;
    return EMO_OK;
}

static int in_cache(const bench_table *table, const bench_line *line) { return line->bytes <= table->cache; }

static emo_status one_line(cli *c, bench_table *table, bench_line *line, int32_t round) {
    const bench_limit both[2] = {LIMIT_READ, line->peak};
    double rate[2] = {0};
    emo_status status = EMO_OK;
    const int looked = line->peak == LIMIT_READ ? 1 : 2;
    for (int k = 0; status == EMO_OK && k < looked; k++)
        status = look(c, table, both[k], &rate[k]);
    if (status == EMO_OK)
        status = line->run(c, line->ctx, &line->seconds[round]);
    for (int k = 0; status == EMO_OK && k < looked; k++) {
        status = look(c, table, both[k], &rate[k]);
        if (status == EMO_OK)
            status = keep(c, table, both[k], rate[k]);
    }
    if (status != EMO_OK)
        return status;
    double by_bytes = in_cache(table, line) ? 0.0 : line->bytes / rate[0],
           by_operations = line->peak == LIMIT_READ ? 0.0 : line->operations / rate[1];
    line->bound[round] = by_bytes > by_operations ? by_bytes : by_operations;
    line->share[round] = line->bound[round] / line->seconds[round];
    return EMO_OK;
}

emo_status bench_measure(cli *c, bench_table *table, size_t first) {
    emo_status status = EMO_OK;
    for (int32_t round = -1; status == EMO_OK && round < table->rounds; round++)
        for (size_t i = first; status == EMO_OK && i < table->count; i++) {
            bench_line *line = &table->lines[i];
            double seconds = 0.0;
            if (interrupt_seen())
                return cli_fail(c, EMO_E_CANCELLED, "cancelled");
            progress_print(&c->line, round < 0, "round %d of %d: %s", (int)round + 1, (int)table->rounds, line->name);
            status = round < 0 ? line->run(c, line->ctx, &seconds) : one_line(c, table, line, round);
        }
    progress_clear(&c->line);
    return status;
}

/* ---- results ---- */

/* What bounds a line, in a word; NULL: nothing that was measured. */
static const char *bound_of(bench_table *table, const bench_line *line) {
    double read = bench_spread_of(table->measured[LIMIT_READ], table->n_measured[LIMIT_READ]).median;
    double peak = bench_spread_of(table->measured[line->peak], table->n_measured[line->peak]).median;
    int multiplies = line->peak != LIMIT_READ && line->operations > 0.0;
    if (!in_cache(table, line) && (!multiplies || line->bytes * peak > line->operations * read))
        return limit_names[LIMIT_READ];
    return multiplies ? limit_names[line->peak] : NULL;
}

void bench_print(bench_table *table) {
    text_table text;
    char number[32];
    table_begin(&text, 8);
    static const char *const heads[] = {"", "ms", "min", "max", "tokens/s", "GFLOP/s", "GB/s", "of limit"};
    for (int i = 0; i < 8; i++)
        table_cell(&text, "%s", heads[i]);
    for (int k = 0; k < BENCH_LIMITS; k++) {
        if (table->n_measured[k] == 0)
            continue;
        bench_spread s = bench_spread_of(table->measured[k], table->n_measured[k]);
        double scale = 1e-9;
        table_cell(&text, k == LIMIT_READ ? "limit: reading memory" : "limit: products, %s", limit_names[k]);
        for (int i = 1; i < 5; i++)
            table_cell(&text, "%s", "");
        table_cell(&text, k == LIMIT_READ ? "%s" : "%s%.0f", "", s.median * scale);
        table_cell(&text, k == LIMIT_READ ? "%s%.1f" : "%s", "", s.median * scale);
        table_cell(&text, "%s", "");
    }
    for (size_t i = 0; i < table->count; i++) {
        const bench_line *line = &table->lines[i];
        const char *bound = bound_of(table, line);
        bench_spread s = bench_spread_of(line->seconds, table->rounds);
        bench_spread share = bench_spread_of(line->share, table->rounds);
        table_cell(&text, "%s", line->name);
        table_cell(&text, "%.3f", s.median * 1e3);
        table_cell(&text, "%.3f", s.least * 1e3);
        table_cell(&text, "%.3f", s.most * 1e3);
        table_cell(&text, "%s", line->tokens > 0 ? human_count((double)line->tokens / s.median, number) : "");
        table_cell(&text, "%.1f", line->operations / s.median * 1e-9);
        table_cell(&text, "%.2f", line->bytes / s.median * 1e-9);
        if (bound != NULL)
            table_cell(&text, "%.0f %% of %s", 100.0 * share.median, bound);
        else
            table_cell(&text, "%s", "in cache");
    }
    table_print(&text, stdout);
}

static void json_spread(json_writer *json, const char *key, double *numbers, int32_t count) {
    bench_spread s = bench_spread_of(numbers, count);
    json_open(json, key);
    json_number(json, "median", s.median);
    json_number(json, "min", s.least);
    json_number(json, "max", s.most);
    json_close(json);
}

void bench_json(bench_table *table, json_writer *json) {
    json_integer(json, "rounds", table->rounds);
    json_open(json, "limits"); /* bytes or operations a second */
    for (int k = 0; k < BENCH_LIMITS; k++) {
        if (table->n_measured[k] > 0)
            json_spread(json, limit_names[k], table->measured[k], table->n_measured[k]);
    }
    json_close(json);
    json_open_array(json, "lines");
    for (size_t i = 0; i < table->count; i++) {
        const bench_line *line = &table->lines[i];
        json_open(json, NULL);
        json_string(json, "name", line->name);
        json_integer(json, "tokens", line->tokens);
        json_number(json, "operations", line->operations);
        json_number(json, "bytes", line->bytes);
        json_spread(json, "seconds", line->seconds, table->rounds);
        if (line->tokens > 0)
            json_number(json, "tokens_per_second",
                        (double)line->tokens / bench_spread_of(line->seconds, table->rounds).median);
        json_string(json, "limit", bound_of(table, line));
        json_spread(json, "limit_seconds", line->bound, table->rounds);
        json_spread(json, "share", line->share, table->rounds);
        json_close(json);
    }
    json_close_array(json);
}

void bench_end(bench_table *table) {
    for (size_t i = 0; i < table->count; i++)
        free(table->lines[i].seconds);
    free(table->lines);
    for (int k = 0; k < BENCH_LIMITS; k++) {
        emo_bench_release(table->limits[k]);
        free(table->measured[k]);
    }
    memset(table, 0, sizeof(*table));
}
