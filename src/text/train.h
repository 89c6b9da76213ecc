/* SPDX-License-Identifier: Apache-2.0 */
/* Learning merges from texts. */
#ifndef EMO_SRC_TEXT_TRAIN_H
#define EMO_SRC_TEXT_TRAIN_H

#include "base/progress.h"
#include "text/vocab.h"

/* Distinct pieces and how often each occurs. */
typedef struct emo__word {
    size_t offset; /* into bytes */
    uint32_t length;
    uint32_t tag;
    uint64_t count;
} emo__word;

typedef struct emo__words {
    const emo__mem *mem;
    emo__buf bytes;
    emo__word *items;
    size_t n, capacity;
    uint32_t *slots; /* index + 1; 0: free */
    size_t mask;
} emo__words;

void emo__words_init(emo__words *words, const emo__mem *mem);
void emo__words_free(emo__words *words);
/* Reads the texts; options are checked already. */
EMO_MUST_CHECK emo_status emo__words_count(emo__words *words, const emo__split *split,
                                           const emo_tokenizer_train_options *options, const emo_text_reader *reader,
                                           emo_error *err);

/* Adds the merges learned, and their tokens, to tok, which holds the 256 bytes; at most `target` tokens in all. */
EMO_MUST_CHECK emo_status emo__train_merges(emo_tokenizer *tok, const emo__words *words, int32_t target,
                                            const emo_tokenizer_train_options *options, emo_error *err);

EMO_MUST_CHECK emo_status emo__train(emo_runtime *rt, const emo_tokenizer_train_options *options,
                                     const emo_text_reader *reader, emo_tokenizer **out, emo_error *err);

#endif
