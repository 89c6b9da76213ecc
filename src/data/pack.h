/* SPDX-License-Identifier: Apache-2.0 */
/* An endless stream of training rows. In epoch e the documents follow each other in the order of
 * emo__permutation(seed, EMO__RNG_ORDER, e), each with the end-of-text token behind it; the epochs follow each other
 * seamlessly, and row r is the tokens [r * seq_len, (r + 1) * seq_len) of that stream: a pure function of (dataset,
 * seed, seq_len, r). */
#ifndef EMO_SRC_DATA_PACK_H
#define EMO_SRC_DATA_PACK_H

#include "data/dataset.h"

typedef struct emo__packer emo__packer;

/* Retains the dataset. seq_len >= 2. */
EMO_MUST_CHECK emo_status emo__packer_create(const emo_dataset *dataset, uint64_t seed, int32_t seq_len,
                                             emo__packer **out, emo_error *err);
void emo__packer_destroy(emo__packer *packer);

/* Tokens of an epoch, end-of-text tokens included. */
uint64_t emo__packer_epoch_tokens(const emo__packer *packer);

/* ids: [seq_len]. label_mask: [seq_len] or NULL; label_mask[i] is 1 when the label of position i, which is ids[i + 1],
 * counts: it is 0 where that token belongs to a prompt, and at the last position. Any row at any time; neighbouring
 * rows are cheapest. Not thread-safe. */
EMO_MUST_CHECK emo_status emo__packer_row(emo__packer *packer, uint64_t row, int32_t *ids, uint8_t *label_mask,
                                          emo_error *err);

/* labels[i] = ids[i + 1], -100 where label_mask (nullable) is 0 and at the last position; returns how many count. */
int64_t emo__packer_labels(const int32_t *ids, const uint8_t *label_mask, int32_t seq_len, int32_t *labels);

#endif
