/* SPDX-License-Identifier: Apache-2.0 */
/* Text to ids and back; see emo/tokenizer.h for what the public calls promise. */
#ifndef EMO_SRC_TEXT_ENCODE_H
#define EMO_SRC_TEXT_ENCODE_H

#include "base/progress.h"
#include "text/bpe.h"

typedef struct emo__encode_flags {
    bool parse_special, add_special; /* as in emo_tokenizer_encode_options */
    const emo_progress *progress;    /* NULL: none */
} emo__encode_flags;

EMO_MUST_CHECK emo_status emo__encode(const emo_tokenizer *tok, const emo__encode_flags *flags, const char *text,
                                      size_t length, emo__id_sink *sink, emo_error *err);
/* The same while other threads may want the tokenizer: EMO_E_BUSY when one changes it, EMO_E_LIMIT when the ids do not
 * fit the sink's capacity (sink->count is what they need; a capacity of 0 only counts). On any other failure
 * sink->count is 0. */
EMO_MUST_CHECK emo_status emo__encode_shared(const emo_tokenizer *tok, const emo__encode_flags *flags, const char *text,
                                             size_t length, emo__id_sink *sink, emo_error *err);
/* Tokens of a text as emo_tokenizer_encode() has them, allocated; *ids may be NULL when *count is 0. progress: NULL, or
 * one that may hear of the text twice from the beginning. */
EMO_MUST_CHECK emo_status emo__encode_text(const emo__mem *mem, const emo_tokenizer *tokenizer, const char *text,
                                           size_t length, const emo_progress *progress, int32_t **ids, size_t *count,
                                           emo_error *err);
EMO_MUST_CHECK emo_status emo__decode(const emo_tokenizer *tok, const int32_t *ids, size_t n, char *out,
                                      size_t capacity, size_t *size, emo_error *err);
/* The same while other threads may want the tokenizer: EMO_E_BUSY when one changes it. */
EMO_MUST_CHECK emo_status emo__decode_shared(const emo_tokenizer *tok, const int32_t *ids, size_t n, char *out,
                                             size_t capacity, size_t *size, emo_error *err);

#endif
