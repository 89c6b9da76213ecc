/* SPDX-License-Identifier: Apache-2.0 */
#include "moe/documents.h"

#include <stddef.h>

/* `after`: a document begins this many tokens after an end token. */
static int64_t cut(const int32_t *ids, int64_t rows, int64_t seq_len, int32_t eos, int64_t after, int32_t *begin) {
    int64_t count = 0;
    for (int64_t row = 0; row < rows && seq_len > 0; row++) {
        int64_t first = row * seq_len;
        begin[count++] = (int32_t)first;
        for (int64_t p = 0; eos >= 0 && p < seq_len; p++) {
            int64_t start = p + after;
            if (ids[first + p] == eos && start > 0 && start < seq_len)
                begin[count++] = (int32_t)(first + start);
        }
    }
    begin[count] = (int32_t)(rows * seq_len);
    return count;
}

int64_t emo__router_documents(const int32_t *ids, int64_t rows, int64_t seq_len, int32_t eos, int32_t *begin) {
    return cut(ids, rows, seq_len, eos, 0, begin);
}

int64_t emo__attention_documents(const int32_t *ids, int64_t rows, int64_t seq_len, int32_t eos, int32_t *begin) {
    return cut(ids, rows, seq_len, eos, 1, begin);
}

int64_t emo__row_documents(int64_t rows, int64_t seq_len, int32_t *begin) {
    return cut(NULL, rows, seq_len, -1, 0, begin);
}
