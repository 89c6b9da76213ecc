/* SPDX-License-Identifier: Apache-2.0 */
#define EMO__IN_STATUS_C
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* vsnprintf may cut inside a UTF-8 sequence; drop the incomplete tail. */
static void trim_utf8(char *text, size_t length) {
    size_t i = length;
    size_t back = 0;
    while (i > 0 && back < 4) {
        unsigned char c = (unsigned char)text[i - 1];
        if ((c & 0xC0u) != 0x80u) {
            size_t need = c < 0x80u ? 1 : c >= 0xF0u ? 4 : c >= 0xE0u ? 3 : c >= 0xC0u ? 2 : 1;
            if (need > back + 1)
                text[i - 1] = '\0';
            return;
        }
        i--;
        back++;
    }
}

static void set_message(emo_error *err, const char *fmt, va_list args) {
    int n = vsnprintf(err->message, sizeof err->message, fmt, args);
    if (n < 0)
        err->message[0] = '\0';
    else if ((size_t)n >= sizeof err->message)
        trim_utf8(err->message, sizeof err->message - 1);
}

void emo__error_clear(emo_error *err) {
    if (err != NULL) {
        err->code = EMO_OK;
        err->domain = EMO_DOMAIN_NONE;
        err->number = 0;
        err->message[0] = '\0';
    }
}

emo_status emo__fail(emo_error *err, emo_status code, const char *fmt, ...) {
    if (err != NULL) {
        va_list args;
        err->code = code;
        err->domain = EMO_DOMAIN_ARGUMENT;
        err->number = 0;
        va_start(args, fmt);
        set_message(err, fmt, args);
        va_end(args);
    }
    return code;
}

emo_status emo__fail_at(emo_error *err, emo_status code, emo_error_domain domain, int64_t number, const char *fmt,
                        ...) {
    if (err != NULL) {
        va_list args;
        err->code = code;
        err->domain = domain;
        err->number = number;
        va_start(args, fmt);
        set_message(err, fmt, args);
        va_end(args);
    }
    return code;
}

emo_status emo__fail_memory(emo_error *err, size_t bytes) {
    return emo__fail_at(err, EMO_E_OUT_OF_MEMORY, EMO_DOMAIN_SYSTEM, 0, "out of memory: %zu bytes were asked for",
                        bytes);
}

emo_status emo__fail_prefix(emo_error *err, emo_status code, const char *fmt, ...) {
    if (err == NULL)
        return code;
    char old[sizeof err->message];
    memcpy(old, err->message, sizeof old);
    va_list args;
    va_start(args, fmt);
    set_message(err, fmt, args);
    va_end(args);
    size_t used = strlen(err->message);
    int n = snprintf(err->message + used, sizeof err->message - used, ": %s", old);
    if (n > 0 && (size_t)n >= sizeof err->message - used)
        trim_utf8(err->message, sizeof err->message - 1);
    if (err->code == EMO_OK)
        err->code = code;
    return err->code;
}

const char *emo_status_name(emo_status status) {
    switch (status) {
#define CASE(name, value, text)                                                                                        \
    case name:                                                                                                         \
        return #name;
        EMO_STATUS_TABLE(CASE)
#undef CASE
    default:
        return "EMO_E_UNKNOWN";
    }
}

const char *emo_status_text(emo_status status) {
    switch (status) {
#define CASE(name, value, text)                                                                                        \
    case name:                                                                                                         \
        return text;
        EMO_STATUS_TABLE(CASE)
#undef CASE
    default:
        return "unknown status";
    }
}
