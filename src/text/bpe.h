/* SPDX-License-Identifier: Apache-2.0 */
/* Merging the bytes of one piece into tokens. */
#ifndef EMO_SRC_TEXT_BPE_H
#define EMO_SRC_TEXT_BPE_H

#include "text/vocab.h"

/* Where ids go: those beyond the capacity are counted only. */
typedef struct emo__id_sink {
    int32_t *ids;
    size_t capacity;
    size_t count;
} emo__id_sink;

static inline void emo__emit(emo__id_sink *sink, int32_t id) {
    if (sink->count < sink->capacity)
        sink->ids[sink->count] = id;
    sink->count++;
}

/* What long pieces need; grows and is used again. */
typedef struct emo__bpe_scratch {
    const emo__mem *mem;
    void *symbols;
    uint64_t *heap;
    size_t symbols_capacity, heap_capacity;
} emo__bpe_scratch;
void emo__bpe_scratch_init(emo__bpe_scratch *scratch, const emo__mem *mem);
void emo__bpe_scratch_free(emo__bpe_scratch *scratch);

/* By merges alone: the lowest rank first, the leftmost of equals. O(n log n). */
EMO_MUST_CHECK emo_status emo__bpe_merge(const emo_tokenizer *tok, emo__bpe_scratch *scratch, const char *bytes,
                                         size_t length, emo__id_sink *sink, emo_error *err);
/* The same with the short cut for pieces that are tokens. */
EMO_MUST_CHECK emo_status emo__bpe_piece(const emo_tokenizer *tok, emo__bpe_scratch *scratch, const char *bytes,
                                         size_t length, emo__id_sink *sink, emo_error *err);

#endif
