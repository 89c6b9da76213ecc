/* SPDX-License-Identifier: Apache-2.0 */
#include "infer/stop.h"

#include <string.h>

#include "base/status.h"
#include "text/unicode.h"

#define MAX_STOPS 256
#define MAX_LENGTH 4096

static emo_status check(const char *text, size_t index, size_t *length, emo_error *err) {
    if (text == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "emo_session_options.stop[%zu] is NULL", index);
    *length = strlen(text);
    if (*length == 0 || *length > MAX_LENGTH)
        return emo__fail(err, EMO_E_RANGE, "emo_session_options.stop[%zu] has %zu bytes; it must have 1 to %d", index,
                         *length, MAX_LENGTH);
    if (!emo__utf8_valid(text, *length))
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "emo_session_options.stop[%zu] is not valid UTF-8", index);
    return EMO_OK;
}

emo_status emo__stops_copy(const emo__mem *mem, const char *const *text, size_t n, emo__stops *stops, emo_error *err) {
    *stops = (emo__stops){0};
    if (n == 0)
        return EMO_OK;
    if (text == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "emo_session_options.stop is NULL while n_stop is %zu", n);
    if (n > MAX_STOPS)
        return emo__fail(err, EMO_E_RANGE, "emo_session_options.n_stop is %zu; at most %d are possible", n, MAX_STOPS);
    stops->text = emo__calloc(mem, n, sizeof *stops->text);
    stops->length = emo__calloc(mem, n, sizeof *stops->length);
    if (stops->text == NULL || stops->length == NULL)
        return emo__fail_memory(err, n * sizeof *stops->text);
    for (size_t i = 0; i < n; i++) {
        emo_status status = check(text[i], i, &stops->length[i], err);
        if (status != EMO_OK)
            return status;
        stops->text[i] = emo__strndup(mem, text[i], stops->length[i]);
        if (stops->text[i] == NULL)
            return emo__fail_memory(err, stops->length[i] + 1);
        stops->n++;
    }
    return EMO_OK;
}

void emo__stops_free(const emo__mem *mem, emo__stops *stops) {
    for (size_t i = 0; i < stops->n; i++)
        emo__free(mem, stops->text[i]);
    emo__free(mem, stops->text);
    emo__free(mem, stops->length);
    *stops = (emo__stops){0};
}

/* The first that is complete wins, so that the result does not depend on how tokens cut the text. */
bool emo__stops_find(const emo__stops *stops, const char *text, size_t size, size_t *at) {
    for (size_t end = 1; end <= size && stops->n > 0; end++) {
        size_t longest = 0;
        for (size_t i = 0; i < stops->n; i++) {
            size_t length = stops->length[i];
            if (length > longest && length <= end && memcmp(text + end - length, stops->text[i], length) == 0)
                longest = length;
        }
        if (longest > 0) {
            *at = end - longest;
            return true;
        }
    }
    return false;
}

size_t emo__stops_held(const emo__stops *stops, const char *text, size_t size) {
    size_t held = 0;
    for (size_t i = 0; i < stops->n; i++) {
        size_t most = stops->length[i] - 1;
        most = most < size ? most : size;
        while (most > held && memcmp(text + size - most, stops->text[i], most) != 0)
            most--;
        held = most > held ? most : held;
    }
    return held;
}
