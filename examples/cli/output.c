/* SPDX-License-Identifier: Apache-2.0 */
#include "output.h"

#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- JSON ---- */

/* Length of the valid UTF-8 character at `text`, 0 when there is none (Unicode table 3-7). */
static size_t utf8_length(const unsigned char *text) {
    unsigned char a = text[0];
    if (a < 0x80)
        return 1;
    size_t length = a >= 0xC2 && a <= 0xDF ? 2u : (a & 0xF0) == 0xE0 ? 3u : a >= 0xF0 && a <= 0xF4 ? 4u : 0u;
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xC0) != 0x80)
            return 0;
    }
    if ((a == 0xE0 && text[1] < 0xA0) || (a == 0xED && text[1] > 0x9F) || (a == 0xF0 && text[1] < 0x90) ||
        (a == 0xF4 && text[1] > 0x8F))
        return 0;
    return length;
}

static void json_text(FILE *file, const char *value) {
    fputc('"', file);
    for (const unsigned char *at = (const unsigned char *)value; *at != '\0';) {
        size_t length = utf8_length(at);
        if (length == 0) {
            fputs("\\ufffd", file);
            at++;
        } else if (*at == '"' || *at == '\\') {
            fprintf(file, "\\%c", *at++);
        } else if (*at == '\n') {
            fputs("\\n", file);
            at++;
        } else if (*at < 0x20 || *at == 0x7F) {
            fprintf(file, "\\u%04x", *at++);
        } else {
            fwrite(at, 1, length, file);
            at += length;
        }
    }
    fputc('"', file);
}

static void json_key(json_writer *json, const char *key) {
    if (json->depth > 0) {
        if (json->filled[json->depth - 1])
            fputs(", ", json->file);
        json->filled[json->depth - 1] = 1;
    }
    if (key != NULL) {
        json_text(json->file, key);
        fputs(": ", json->file);
    }
}

static void json_enter(json_writer *json, const char *key, char bracket) {
    json_key(json, key);
    fputc(bracket, json->file);
    if (json->depth < JSON_DEPTH)
        json->filled[json->depth++] = 0;
}

static void json_leave(json_writer *json, char bracket) {
    fputc(bracket, json->file);
    if (json->depth > 0)
        json->depth--;
    if (json->depth == 0)
        fputc('\n', json->file);
}

void json_open(json_writer *json, const char *key) { json_enter(json, key, '{'); }
void json_close(json_writer *json) { json_leave(json, '}'); }
void json_open_array(json_writer *json, const char *key) { json_enter(json, key, '['); }
void json_close_array(json_writer *json) { json_leave(json, ']'); }

void json_null(json_writer *json, const char *key) {
    json_key(json, key);
    fputs("null", json->file);
}

void json_string(json_writer *json, const char *key, const char *value) {
    if (value == NULL) {
        json_null(json, key);
        return;
    }
    json_key(json, key);
    json_text(json->file, value);
}

void json_integer(json_writer *json, const char *key, int64_t value) {
    json_key(json, key);
    fprintf(json->file, "%" PRId64, value);
}

void json_unsigned(json_writer *json, const char *key, uint64_t value) {
    json_key(json, key);
    fprintf(json->file, "%" PRIu64, value);
}

void json_number(json_writer *json, const char *key, double value) {
    if (!isfinite(value)) {
        json_null(json, key);
        return;
    }
    json_key(json, key);
    char text[40];
    for (int digits = 15; digits <= 17; digits++) { /* the shortest of them that reads back as the same number */
        snprintf(text, sizeof(text), "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    fputs(text, json->file);
}

void json_boolean(json_writer *json, const char *key, int value) {
    json_key(json, key);
    fputs(value ? "true" : "false", json->file);
}

/* ---- Tables ---- */

void table_begin(text_table *table, size_t columns) {
    table->cells = NULL;
    table->columns = columns;
    table->count = 0;
}

void table_cell(text_table *table, const char *format, ...) {
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    char **grown = realloc(table->cells, (table->count + 1) * sizeof(*grown));
    if (grown == NULL)
        return;
    table->cells = grown;
    size_t size = strlen(text) + 1;
    table->cells[table->count] = malloc(size);
    if (table->cells[table->count] != NULL)
        memcpy(table->cells[table->count], text, size);
    table->count++;
}

/* Characters, not bytes: continuation bytes do not count. */
static size_t display_width(const char *text) {
    size_t width = 0;
    for (; text != NULL && *text != '\0'; text++)
        width += ((unsigned char)*text & 0xC0) != 0x80;
    return width;
}

void table_print(text_table *table, FILE *file) {
    for (size_t i = 0; i < table->count; i++) {
        size_t column = i % table->columns, width = 0;
        for (size_t j = column; j < table->count; j += table->columns) {
            size_t w = display_width(table->cells[j]);
            width = w > width ? w : width;
        }
        const char *cell = table->cells[i] == NULL ? "" : table->cells[i];
        int pad = (int)(width - display_width(cell));
        if (column == 0)
            fprintf(file, "%s%*s", cell, pad, "");
        else
            fprintf(file, "  %*s%s", pad, "", cell);
        if (column + 1 == table->columns || i + 1 == table->count)
            fputc('\n', file);
    }
    for (size_t i = 0; i < table->count; i++)
        free(table->cells[i]);
    free(table->cells);
    table_begin(table, table->columns);
}

const char *human_count(double value, char buffer[32]) {
    static const char *const units[] = {"", "k", "M", "B", "T"};
    size_t unit = 0;
    for (; fabs(value) >= 999.5 && unit + 1 < sizeof(units) / sizeof(units[0]); unit++)
        value /= 1000.0;
    snprintf(buffer, 32, unit == 0 || fabs(value) >= 99.95 ? "%.0f%s" : "%.3g%s", value, units[unit]);
    return buffer;
}

const char *human_bytes(double value, char buffer[32]) {
    static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB"};
    size_t unit = 0;
    for (; fabs(value) >= 999.5 && unit + 1 < sizeof(units) / sizeof(units[0]); unit++)
        value /= 1000.0;
    snprintf(buffer, 32, unit == 0 || fabs(value) >= 99.95 ? "%.0f %s" : "%.3g %s", value, units[unit]);
    return buffer;
}

const char *human_time(double seconds, char buffer[32]) {
    if (!isfinite(seconds) || seconds < 0 || seconds > 1e9) {
        snprintf(buffer, 32, "?");
        return buffer;
    }
    long total = (long)(seconds + 0.5);
    if (total < 3600)
        snprintf(buffer, 32, "%ld:%02ld", total / 60, total % 60);
    else
        snprintf(buffer, 32, "%ld:%02ld:%02ld", total / 3600, total / 60 % 60, total % 60);
    return buffer;
}

/* ---- Progress ---- */

double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void progress_begin(progress_line *line, int quiet) {
    memset(line, 0, sizeof(*line));
    line->visible = !quiet && isatty(STDERR_FILENO);
    line->started = seconds_now();
}

void progress_print(progress_line *line, int force, const char *format, ...) {
    double now = seconds_now();
    if (!line->visible || (!force && now - line->last < 0.1))
        return;
    line->last = now;
    char text[160];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    fprintf(stderr, "\r%s\033[K", text);
    fflush(stderr);
    line->shown = 1;
}

void progress_clear(progress_line *line) {
    if (line->shown) {
        fprintf(stderr, "\r\033[K");
        fflush(stderr);
    }
    line->shown = 0;
}

static int32_t report(void *ctx, const emo_progress_info *info) {
    progress_line *line = ctx;
    if (line->visible) {
        double now = seconds_now();
        if (line->phase != info->phase) {
            line->phase = info->phase;
            line->started = now;
        }
        const char *phase = info->phase == NULL ? "working" : info->phase;
        char done[32], total[32], left[32];
        if (info->total == 0) {
            progress_print(line, 0, "%s: %s", phase, human_count((double)info->done, done));
        } else {
            double share = (double)info->done / (double)info->total;
            double rest = share > 0 ? (now - line->started) * (1 - share) / share : INFINITY;
            progress_print(line, 0, "%s: %s of %s (%.0f %%), %s left", phase, human_count((double)info->done, done),
                           human_count((double)info->total, total), 100 * share, human_time(rest, left));
        }
    }
    return interrupt_seen();
}

emo_progress progress_hook(progress_line *line) {
    emo_progress hook = {line, report};
    return hook;
}

/* ---- Interruption ---- */

static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
    (void)number;
    interrupted = 1;
}

void interrupt_install(void) {
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal;
    action.sa_flags = (int)SA_RESETHAND;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    action.sa_handler = SIG_IGN; /* a file that may not grow is an error of the write, and has a message then */
    sigaction(SIGXFSZ, &action, NULL);
}

int interrupt_seen(void) { return interrupted != 0; }
