/* SPDX-License-Identifier: Apache-2.0 */
/* Cutting packed rows into documents. The reference cuts twice, one token apart: for attention an end token is the last
 * of its document, for the router it is the first of the next. */
#ifndef EMO_SRC_MOE_DOCUMENTS_H
#define EMO_SRC_MOE_DOCUMENTS_H

#include <stdint.h>

/* ids: [rows * seq_len] tokens, row after row; eos < 0: no end token, each row is one document.
 * begin: room for rows * seq_len + 1 offsets; gets the begin of every document and, last, rows * seq_len. No document
 * is empty and none crosses a row. Return the number of documents. rows * seq_len fits in int32. */
int64_t emo__router_documents(const int32_t *ids, int64_t rows, int64_t seq_len, int32_t eos, int32_t *begin);
int64_t emo__attention_documents(const int32_t *ids, int64_t rows, int64_t seq_len, int32_t eos, int32_t *begin);

/* Each row one document. */
int64_t emo__row_documents(int64_t rows, int64_t seq_len, int32_t *begin);

#endif
