/* SPDX-License-Identifier: Apache-2.0 */
/* The tokenizer.json form. */
#ifndef EMO_SRC_TEXT_TOKENIZER_JSON_H
#define EMO_SRC_TEXT_TOKENIZER_JSON_H

#include "io/json.h"
#include "text/vocab.h"

EMO_MUST_CHECK emo_status emo__tok_unsupported(emo_error *err, const char *place, const char *what);
/* Normalizer, pre-tokenizer and decoder. */
EMO_MUST_CHECK emo_status emo__tok_read_pipeline(emo_tokenizer *tok, const emo__json *root, emo_error *err);
/* The post-processor, when the tokens are there; NULL: none. */
EMO_MUST_CHECK emo_status emo__tok_read_template(emo_tokenizer *tok, const emo__json *node, emo_error *err);

EMO_MUST_CHECK emo_status emo__tok_read_json(emo_runtime *rt, const char *text, size_t length, emo_tokenizer **out,
                                             emo_error *err);
/* Appends; out->mem is set. */
EMO_MUST_CHECK emo_status emo__tok_write_json(const emo_tokenizer *tok, emo__buf *out, emo_error *err);

/* Replaces text by the token as the vocabulary spells it. */
EMO_MUST_CHECK emo_status emo__tok_spell(const emo_tokenizer *tok, int32_t id, emo__buf *text, emo_error *err);

#endif
