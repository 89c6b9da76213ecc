/* SPDX-License-Identifier: Apache-2.0 */
#include "text/bpe.h"

#include <string.h>

#include "base/status.h"

#define SHORT 48u /* bytes; up to here a scan over all pairs is faster than a heap */
#define NONE UINT32_MAX

typedef struct symbol {
    int32_t id; /* -1: merged into the one before */
    uint32_t prev, next;
} symbol;

void emo__bpe_scratch_init(emo__bpe_scratch *scratch, const emo__mem *mem) {
    memset(scratch, 0, sizeof *scratch);
    scratch->mem = mem;
}

void emo__bpe_scratch_free(emo__bpe_scratch *scratch) {
    emo__free(scratch->mem, scratch->symbols);
    emo__free(scratch->mem, scratch->heap);
    emo__bpe_scratch_init(scratch, scratch->mem);
}

/* The tokens of the bytes; returns how many, at most n. Where some bytes have none: what unk says. */
static inline size_t first_ids(const emo_tokenizer *tok, const unsigned char *bytes, size_t n, int32_t *ids) {
    if (!tok->partial) {
        for (size_t i = 0; i < n; i++)
            ids[i] = tok->byte_ids[bytes[i]];
        return n;
    }
    size_t count = 0;
    bool fused = false;
    for (size_t i = 0; i < n; i++) {
        int32_t id = tok->byte_ids[bytes[i]];
        if (id >= 0 || (tok->unk >= 0 && !fused))
            ids[count++] = id >= 0 ? id : tok->unk;
        fused = id < 0 && tok->fuse_unk;
    }
    return count;
}

static void merge_short(const emo_tokenizer *tok, const unsigned char *bytes, size_t n, emo__id_sink *sink) {
    int32_t ids[SHORT], results[SHORT];
    uint32_t ranks[SHORT]; /* of the pair (i, i + 1); NONE: it does not merge */
    n = first_ids(tok, bytes, n, ids);
    for (size_t i = 0; i + 1 < n; i++) {
        const emo__pair_slot *pair = emo__tok_pair(tok, ids[i], ids[i + 1]);
        ranks[i] = pair != NULL ? pair->rank : NONE;
        results[i] = pair != NULL ? pair->result : -1;
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++) {
            if (ranks[i] < ranks[best])
                best = i;
        }
        if (ranks[best] == NONE)
            break;
        ids[best] = results[best];
        n--;
        for (size_t i = best + 1; i < n; i++)
            ids[i] = ids[i + 1];
        for (size_t i = best + 1; i + 1 < n; i++) {
            ranks[i] = ranks[i + 1];
            results[i] = results[i + 1];
        }
        for (size_t i = best > 0 ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const emo__pair_slot *pair = emo__tok_pair(tok, ids[i], ids[i + 1]);
            ranks[i] = pair != NULL ? pair->rank : NONE;
            results[i] = pair != NULL ? pair->result : -1;
        }
    }
    for (size_t i = 0; i < n; i++)
        emo__emit(sink, ids[i]);
}

/* A binary heap of rank << 32 | position, the least on top. */
static void sift_down(uint64_t *heap, size_t n, size_t i) {
    uint64_t value = heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n)
            break;
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= value)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = value;
}

static void sift_up(uint64_t *heap, size_t i) {
    uint64_t value = heap[i];
    while (i > 0 && heap[(i - 1) / 2] > value) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = value;
}

static void push_pair(const emo_tokenizer *tok, const symbol *symbols, uint32_t at, uint64_t *heap, size_t *n) {
    if (at == NONE || symbols[at].next == NONE)
        return;
    const emo__pair_slot *pair = emo__tok_pair(tok, symbols[at].id, symbols[symbols[at].next].id);
    if (pair == NULL)
        return;
    heap[*n] = (uint64_t)pair->rank << 32 | at;
    sift_up(heap, (*n)++);
}

static emo_status merge_long(const emo_tokenizer *tok, emo__bpe_scratch *scratch, const unsigned char *bytes, size_t n,
                             emo__id_sink *sink, emo_error *err) {
    if (n >= NONE / 2)
        return emo__fail(err, EMO_E_LIMIT, "a piece of %zu bytes; at most %u can be encoded", n, NONE / 2 - 1);
    emo_status status = emo__grow(scratch->mem, &scratch->symbols, &scratch->symbols_capacity, n, sizeof(symbol), err);
    /* each merge takes one entry out and puts two in, and there are fewer than n merges */
    if (status == EMO_OK)
        status =
            emo__grow(scratch->mem, (void **)&scratch->heap, &scratch->heap_capacity, 2 * n, sizeof(uint64_t), err);
    if (status != EMO_OK)
        return status;
    symbol *symbols = scratch->symbols;
    uint64_t *heap = scratch->heap;
    int32_t *ids = (int32_t *)(void *)heap; /* room for them until the heap is filled */
    size_t pending = 0;
    n = first_ids(tok, bytes, n, ids);
    if (n == 0)
        return EMO_OK;
    for (size_t i = 0; i < n; i++)
        symbols[i] = (symbol){ids[i], i > 0 ? (uint32_t)i - 1 : NONE, i + 1 < n ? (uint32_t)i + 1 : NONE};
    for (size_t i = 0; i < n; i++)
        push_pair(tok, symbols, (uint32_t)i, heap, &pending);
    while (pending > 0) {
        uint64_t top = heap[0];
        heap[0] = heap[--pending];
        if (pending > 0)
            sift_down(heap, pending, 0);
        uint32_t at = (uint32_t)top;
        symbol *left = &symbols[at];
        if (left->id < 0 || left->next == NONE)
            continue;
        symbol *right = &symbols[left->next];
        const emo__pair_slot *pair = emo__tok_pair(tok, left->id, right->id);
        if (pair == NULL || pair->rank != (uint32_t)(top >> 32))
            continue; /* the pair has changed since */
        left->id = pair->result;
        left->next = right->next;
        right->id = -1;
        if (left->next != NONE)
            symbols[left->next].prev = at;
        push_pair(tok, symbols, left->prev, heap, &pending);
        push_pair(tok, symbols, at, heap, &pending);
    }
    for (uint32_t i = 0; i != NONE; i = symbols[i].next)
        emo__emit(sink, symbols[i].id);
    return EMO_OK;
}

emo_status emo__bpe_merge(const emo_tokenizer *tok, emo__bpe_scratch *scratch, const char *bytes, size_t length,
                          emo__id_sink *sink, emo_error *err) {
    const unsigned char *p = (const unsigned char *)bytes;
    if (tok->n_merges == 0 && !tok->partial) {
        for (size_t i = 0; i < length; i++)
            emo__emit(sink, tok->byte_ids[p[i]]);
        return EMO_OK;
    }
    if (length > SHORT)
        return merge_long(tok, scratch, p, length, sink, err);
    merge_short(tok, p, length, sink);
    return EMO_OK;
}

emo_status emo__bpe_piece(const emo_tokenizer *tok, emo__bpe_scratch *scratch, const char *bytes, size_t length,
                          emo__id_sink *sink, emo_error *err) {
    int32_t id = emo__tok_find(tok, bytes, length);
    if (id >= 0 && (tok->tokens[id].flags & EMO__TOKEN_WHOLE) != 0) {
        emo__emit(sink, id);
        return EMO_OK;
    }
    return emo__bpe_merge(tok, scratch, bytes, length, sink, err);
}
