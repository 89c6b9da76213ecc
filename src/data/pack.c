/* SPDX-License-Identifier: Apache-2.0 */
#include "data/pack.h"

#include <string.h>

#include "base/checked.h"
#include "base/status.h"
#include "tensor/philox.h"

struct emo__packer {
    emo_dataset *dataset;
    uint64_t seed;
    int32_t seq_len;
    uint64_t epoch_tokens;
    uint64_t epoch; /* that `order` and `starts` are for; UINT64_MAX: none yet */
    uint32_t *order;
    uint64_t *starts; /* [count + 1] stream position inside the epoch of the i-th document in order */
    size_t cursor;    /* document (in order) that the last row ended in */
};

static uint64_t mark(const emo__packer *p) { return p->dataset->eos >= 0 ? 1 : 0; }

emo_status emo__packer_create(const emo_dataset *dataset, uint64_t seed, int32_t seq_len, emo__packer **out,
                              emo_error *err) {
    *out = NULL;
    if (seq_len < 2)
        return emo__fail(err, EMO_E_RANGE, "seq_len is %d; it must be at least 2", (int)seq_len);
    const emo__mem *mem = &dataset->rt->mem;
    emo__packer *p = emo__calloc(mem, 1, sizeof *p);
    if (p == NULL)
        return emo__fail_memory(err, sizeof *p);
    p->dataset = emo__dataset_retain(dataset);
    p->seed = seed;
    p->seq_len = seq_len;
    p->epoch = UINT64_MAX;
    p->epoch_tokens = (uint64_t)dataset->tokens + mark(p) * dataset->count;
    p->order = emo__malloc_array(mem, dataset->count, sizeof p->order[0]);
    p->starts = emo__malloc_array(mem, dataset->count + 1, sizeof p->starts[0]);
    if (p->order == NULL || p->starts == NULL) {
        emo__packer_destroy(p);
        return emo__fail_memory(err, (dataset->count + 1) * sizeof(uint64_t));
    }
    *out = p;
    return EMO_OK;
}

void emo__packer_destroy(emo__packer *packer) {
    if (packer == NULL)
        return;
    emo_dataset *dataset = packer->dataset;
    const emo__mem *mem = &dataset->rt->mem;
    emo__free(mem, packer->order);
    emo__free(mem, packer->starts);
    emo__free(mem, packer);
    emo__dataset_release(dataset);
}

uint64_t emo__packer_epoch_tokens(const emo__packer *packer) { return packer->epoch_tokens; }

static void enter_epoch(emo__packer *p, uint64_t epoch) {
    if (p->epoch == epoch)
        return;
    emo__permutation(p->seed, EMO__RNG_ORDER, epoch, p->order, p->dataset->count);
    uint64_t at = 0;
    for (size_t i = 0; i < p->dataset->count; i++) {
        p->starts[i] = at;
        at += p->dataset->docs[p->order[i]].count + mark(p);
    }
    p->starts[p->dataset->count] = at;
    p->epoch = epoch;
    p->cursor = 0;
}

/* The document (in order) that holds position `at` of the epoch. */
static size_t document_at(const emo__packer *p, uint64_t at) {
    size_t low = 0;
    size_t high = p->dataset->count; /* starts[low] <= at < starts[high] */
    if (p->starts[p->cursor] <= at) {
        low = p->cursor;
        if (at < p->starts[low + 1])
            return low;
    }
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (p->starts[middle] <= at)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Copies the stream's tokens [at, at + n) of the current epoch, which lie in one document (its mark included), and
 * whether each counts as a label. */
static void copy_piece(const emo__packer *p, size_t document, uint64_t inside, size_t n, int32_t *ids,
                       uint8_t *counts) {
    const emo__doc *doc = &p->dataset->docs[p->order[document]];
    size_t text = inside < doc->count ? (size_t)(doc->count - inside) : 0;
    if (text > n)
        text = n;
    if (text > 0)
        memcpy(ids, p->dataset->store->tokens + doc->offset + inside, text * sizeof ids[0]);
    if (n > text)
        ids[text] = p->dataset->eos;
    for (size_t i = 0; counts != NULL && i < n; i++)
        counts[i] = inside + i >= doc->prompt ? 1 : 0;
}

emo_status emo__packer_row(emo__packer *packer, uint64_t row, int32_t *ids, uint8_t *label_mask, emo_error *err) {
    emo__packer *p = packer;
    size_t length = (size_t)p->seq_len;
    uint64_t begin;
    if (__builtin_mul_overflow(row, (uint64_t)length, &begin))
        return emo__fail(err, EMO_E_RANGE, "row %llu is beyond the end of the stream", (unsigned long long)row);
    uint64_t epoch = begin / p->epoch_tokens;
    uint64_t at = begin % p->epoch_tokens;
    for (size_t done = 0; done < length;) {
        enter_epoch(p, epoch);
        size_t document = document_at(p, at);
        uint64_t left = p->starts[document + 1] - at;
        size_t n = left < length - done ? (size_t)left : length - done;
        copy_piece(p, document, at - p->starts[document], n, ids + done, label_mask != NULL ? label_mask + done : NULL);
        p->cursor = document;
        done += n;
        at += n;
        if (at == p->epoch_tokens) {
            epoch++;
            at = 0;
        }
    }
    if (label_mask != NULL) { /* from "this token counts" to "the label of this position counts" */
        memmove(label_mask, label_mask + 1, length - 1);
        label_mask[length - 1] = 0;
    }
    return EMO_OK;
}

int64_t emo__packer_labels(const int32_t *ids, const uint8_t *label_mask, int32_t seq_len, int32_t *labels) {
    int64_t count = 0;
    for (int32_t i = 0; i + 1 < seq_len; i++) {
        bool counts = label_mask == NULL || label_mask[i] != 0;
        labels[i] = counts ? ids[i + 1] : -100;
        count += counts;
    }
    labels[seq_len - 1] = -100;
    return count;
}
