/* SPDX-License-Identifier: Apache-2.0 */
/* What the program prints: JSON, human tables, a progress line. */
#ifndef EMO_CLI_OUTPUT_H
#define EMO_CLI_OUTPUT_H

#include <emo/hooks.h>

#include <stdint.h>
#include <stdio.h>

/* ---- JSON, written as it comes ---- */

enum { JSON_DEPTH = 16 };
typedef struct json_writer {
    FILE *file;
    int depth;
    int filled[JSON_DEPTH]; /* whether something stands in the object or array of this depth already */
} json_writer;

/* `key` is NULL inside an array and for the outermost object. */
void json_open(json_writer *json, const char *key);
void json_close(json_writer *json); /* a newline after the outermost one */
void json_open_array(json_writer *json, const char *key);
void json_close_array(json_writer *json);
void json_string(json_writer *json, const char *key, const char *value); /* NULL: null; bad UTF-8 becomes U+FFFD */
void json_integer(json_writer *json, const char *key, int64_t value);
void json_unsigned(json_writer *json, const char *key, uint64_t value);
void json_number(json_writer *json, const char *key, double value); /* not finite: null */
void json_boolean(json_writer *json, const char *key, int value);
void json_null(json_writer *json, const char *key);

/* ---- Tables ---- */

/* Cells are collected and printed once all widths are known; columns after the first are aligned to the right. */
typedef struct text_table {
    char **cells;
    size_t columns, count;
} text_table;

void table_begin(text_table *table, size_t columns);
void table_cell(text_table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void table_print(text_table *table, FILE *file); /* and frees it; the first row is the heading */

/* Numbers for people: "8.5M", "1.2 GB", "1:02:03". `buffer` has room for 32 bytes; returned for convenience. */
const char *human_count(double value, char buffer[32]);
const char *human_bytes(double value, char buffer[32]);
const char *human_time(double seconds, char buffer[32]);

/* ---- Progress and cancellation ---- */

/* A line on stderr that is written over; silent when stderr is no terminal or the user wants quiet. */
typedef struct progress_line {
    int visible;
    int shown; /* a line stands there now */
    double started, last;
    const char *phase;
} progress_line;

void progress_begin(progress_line *line, int quiet);
void progress_print(progress_line *line, int force, const char *format, ...) __attribute__((format(printf, 3, 4)));
void progress_clear(progress_line *line);
/* The library's hook over a line: shows the phase and cancels once the user asked for it. */
emo_progress progress_hook(progress_line *line);

/* SIGINT and SIGTERM set a flag; a second one ends the program at once. */
void interrupt_install(void);
int interrupt_seen(void);

double seconds_now(void);

#endif
