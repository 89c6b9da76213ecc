/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *skip_space(const char *at) { return at + strspn(at, " \t\r\n"); }

/* `at` is behind the opening quote; returns the closing one, or the end of the text. */
static const char *string_end(const char *at) {
    while (*at != '\0' && *at != '"') {
        if (*at == '\\' && at[1] != '\0')
            at++;
        at++;
    }
    return at;
}

int config_has(const char *text, const char *key) {
    size_t length = strlen(key);
    int depth = 0;
    for (const char *at = text; *at != '\0'; at++) {
        if (*at == '{' || *at == '[') {
            depth++;
        } else if (*at == '}' || *at == ']') {
            depth--;
        } else if (*at == '"') {
            const char *begin = at + 1, *end = string_end(begin);
            if (*end == '\0')
                return 0;
            at = end;
            const char *after = skip_space(end + 1);
            if (depth == 1 && *after == ':' && (size_t)(end - begin) == length && strncmp(begin, key, length) == 0)
                return strncmp(skip_space(after + 1), "null", 4) != 0;
        }
    }
    return 0;
}

char *config_complete(const char *text, int32_t vocab, int32_t eos) {
    char added[160];
    int used = 0;
    const char *brace = skip_space(text);
    size_t length = strlen(text);
    if (*brace == '{') {
        if (!config_has(text, "vocab_size"))
            used += snprintf(added + used, sizeof(added) - (size_t)used, "\"vocab_size\": %d, ", (int)vocab);
        if (eos >= 0 && !config_has(text, "eos_token_id"))
            used += snprintf(added + used, sizeof(added) - (size_t)used, "\"eos_token_id\": %d, ", (int)eos);
        if (eos >= 0 && !config_has(text, "pad_token_id"))
            used += snprintf(added + used, sizeof(added) - (size_t)used, "\"pad_token_id\": %d, ", (int)eos);
        if (used > 0 && *skip_space(brace + 1) == '}')
            used -= 2; /* no comma before the end of an empty object */
    }
    char *out = malloc(length + (size_t)used + 1);
    if (out == NULL)
        return NULL;
    size_t head = *brace == '{' ? (size_t)(brace - text) + 1 : 0;
    memcpy(out, text, head);
    memcpy(out + head, added, (size_t)used);
    memcpy(out + head + (size_t)used, text + head, length - head + 1);
    return out;
}
