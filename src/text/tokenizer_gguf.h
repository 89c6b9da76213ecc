/* SPDX-License-Identifier: Apache-2.0 */
/* Tokenizers in the keys of a GGUF file. */
#ifndef EMO_SRC_TEXT_TOKENIZER_GGUF_H
#define EMO_SRC_TEXT_TOKENIZER_GGUF_H

#include "io/gguf.h"
#include "text/vocab.h"

/* What the model says of its ids; -1: none. */
typedef struct emo__tok_ids {
    int32_t vocab; /* the ids above the tokenizer's own are filled with unused tokens */
    int32_t eos;
    int32_t bos;
    int32_t pad;
} emo__tok_ids;

/* tok NULL: a file without a tokenizer. EMO_E_UNSUPPORTED when the tokenizer cuts texts in a way that the format has no
 * name for. */
EMO_MUST_CHECK emo_status emo__tok_write_gguf(const emo_tokenizer *tok, const emo__tok_ids *ids, emo__gguf_writer *w,
                                              emo_error *err);
/* *out NULL when the file has none. EMO_E_UNSUPPORTED for a kind this library does not have. */
EMO_MUST_CHECK emo_status emo__tok_read_gguf(emo_runtime *rt, const emo__gguf *g, emo_tokenizer **out, emo_error *err);

#endif
