/* SPDX-License-Identifier: Apache-2.0 */
/* Byte-pair merging with counts kept up to date: a merge costs what it changes, not a pass over the words. The words
 * lie in one array of symbols linked inside each word; every pair knows the places where it has ever begun (some may be
 * out of date), and a heap with lazy entries gives the most frequent pair. */
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "text/hash.h"
#include "text/train.h"

#define NONE UINT32_MAX
#define REPORT_MERGES 16

typedef struct symbol {
    int32_t id; /* -1: merged into the one before */
    uint32_t prev, next;
    uint32_t word;
} symbol;

typedef struct pair {
    int32_t left, right;
    int64_t count;
    uint32_t places; /* head of a list */
    bool merged;
} pair;

typedef struct place {
    uint32_t symbol, next;
} place;

typedef struct candidate {
    int64_t count;
    int32_t left, right;
    uint32_t pair;
} candidate;

typedef struct trainer {
    const emo__mem *mem;
    const emo__words *words;
    symbol *symbols;
    size_t n_symbols;
    pair *pairs;
    size_t n_pairs, pairs_capacity;
    uint32_t *slots; /* pair + 1; 0: free */
    size_t mask;
    place *places;
    size_t n_places, places_capacity;
    candidate *heap;
    size_t n_heap, heap_capacity;
    uint32_t *fresh; /* pairs whose count this merge raised */
    size_t n_fresh, fresh_capacity;
    uint32_t *work; /* places of the pair that is being merged */
    size_t work_capacity;
} trainer;

static emo_status rehash(trainer *t, emo_error *err) {
    size_t size = t->slots == NULL ? 16384 : (t->mask + 1) * 2;
    uint32_t *slots = emo__calloc(t->mem, size, sizeof *slots);
    if (slots == NULL)
        return emo__fail_memory(err, size * sizeof *slots);
    emo__free(t->mem, t->slots);
    t->slots = slots;
    t->mask = size - 1;
    for (size_t p = 0; p < t->n_pairs; p++) {
        uint64_t key = (uint64_t)(uint32_t)t->pairs[p].left << 32 | (uint32_t)t->pairs[p].right;
        size_t i = (size_t)emo__hash_mix(key) & t->mask;
        while (slots[i] != 0)
            i = (i + 1) & t->mask;
        slots[i] = (uint32_t)p + 1;
    }
    return EMO_OK;
}

/* The pair's index, made when it is new. */
static emo_status get_pair(trainer *t, int32_t left, int32_t right, uint32_t *index, emo_error *err) {
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t i = (size_t)emo__hash_mix(key) & t->mask;
    for (; t->slots[i] != 0; i = (i + 1) & t->mask) {
        const pair *p = &t->pairs[t->slots[i] - 1];
        if (p->left == left && p->right == right) {
            *index = t->slots[i] - 1;
            return EMO_OK;
        }
    }
    if (t->n_pairs >= NONE - 1)
        return emo__fail(err, EMO_E_LIMIT, "too many distinct pairs");
    emo_status status =
        emo__grow(t->mem, (void **)&t->pairs, &t->pairs_capacity, t->n_pairs + 1, sizeof *t->pairs, err);
    if (status != EMO_OK)
        return status;
    *index = (uint32_t)t->n_pairs;
    t->pairs[t->n_pairs++] = (pair){left, right, 0, NONE, false};
    t->slots[i] = *index + 1;
    return t->n_pairs * 2 > t->mask ? rehash(t, err) : EMO_OK;
}

/* One more occurrence of the pair that begins at `at`. */
static emo_status add_place(trainer *t, uint32_t index, uint32_t at, emo_error *err) {
    if (t->n_places >= NONE - 1)
        return emo__fail(err, EMO_E_LIMIT, "too much text for one training");
    emo_status status =
        emo__grow(t->mem, (void **)&t->places, &t->places_capacity, t->n_places + 1, sizeof *t->places, err);
    if (status != EMO_OK)
        return status;
    pair *p = &t->pairs[index];
    t->places[t->n_places] = (place){at, p->places};
    p->places = (uint32_t)t->n_places++;
    p->count += (int64_t)t->words->items[t->symbols[at].word].count;
    return EMO_OK;
}

static bool comes_first(const candidate *a, const candidate *b) {
    if (a->count != b->count)
        return a->count > b->count;
    if (a->left != b->left)
        return a->left < b->left;
    return a->right < b->right;
}

static emo_status push(trainer *t, uint32_t index, emo_error *err) {
    const pair *p = &t->pairs[index];
    emo_status status = emo__grow(t->mem, (void **)&t->heap, &t->heap_capacity, t->n_heap + 1, sizeof *t->heap, err);
    if (status != EMO_OK)
        return status;
    candidate value = {p->count, p->left, p->right, index};
    size_t i = t->n_heap++;
    while (i > 0 && comes_first(&value, &t->heap[(i - 1) / 2])) {
        t->heap[i] = t->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    t->heap[i] = value;
    return EMO_OK;
}

static candidate pop(trainer *t) {
    candidate top = t->heap[0], value = t->heap[--t->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= t->n_heap)
            break;
        if (child + 1 < t->n_heap && comes_first(&t->heap[child + 1], &t->heap[child]))
            child++;
        if (!comes_first(&t->heap[child], &value))
            break;
        t->heap[i] = t->heap[child];
        i = child;
    }
    t->heap[i] = value;
    return top;
}

static emo_status load_words(trainer *t, const emo_tokenizer *tok, emo_error *err) {
    const emo__words *words = t->words;
    if (words->bytes.size >= NONE)
        return emo__fail(err, EMO_E_LIMIT, "the distinct words have %zu bytes; at most %u can be trained on",
                         words->bytes.size, NONE - 1);
    t->symbols = emo__malloc_array(t->mem, words->bytes.size + 1, sizeof *t->symbols);
    if (t->symbols == NULL)
        return emo__fail_memory(err, words->bytes.size * sizeof *t->symbols);
    for (size_t w = 0; w < words->n; w++) {
        for (uint32_t i = 0; i < words->items[w].length; i++) {
            uint32_t at = (uint32_t)t->n_symbols++;
            unsigned char byte = (unsigned char)words->bytes.data[words->items[w].offset + i];
            t->symbols[at] = (symbol){tok->byte_ids[byte], i > 0 ? at - 1 : NONE,
                                      i + 1 < words->items[w].length ? at + 1 : NONE, (uint32_t)w};
        }
    }
    for (size_t at = 0; at < t->n_symbols; at++) {
        const symbol *s = &t->symbols[at];
        if (s->next == NONE)
            continue;
        uint32_t index;
        emo_status status = get_pair(t, s->id, t->symbols[s->next].id, &index, err);
        if (status == EMO_OK)
            status = add_place(t, index, (uint32_t)at, err);
        if (status != EMO_OK)
            return status;
    }
    for (size_t p = 0; p < t->n_pairs; p++) {
        emo_status status = push(t, (uint32_t)p, err);
        if (status != EMO_OK)
            return status;
    }
    return EMO_OK;
}

static int compare_u32(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* The pair (left, right) stood at `at` and is replaced by (left2, right2). */
static emo_status lose(trainer *t, int32_t left, int32_t right, uint64_t count, emo_error *err) {
    uint32_t index;
    emo_status status = get_pair(t, left, right, &index, err);
    if (status == EMO_OK)
        t->pairs[index].count -= (int64_t)count;
    return status;
}

static emo_status gain(trainer *t, int32_t left, int32_t right, uint32_t at, emo_error *err) {
    uint32_t index;
    emo_status status = get_pair(t, left, right, &index, err);
    if (status == EMO_OK)
        status = add_place(t, index, at, err);
    if (status == EMO_OK)
        status = emo__grow(t->mem, (void **)&t->fresh, &t->fresh_capacity, t->n_fresh + 1, sizeof *t->fresh, err);
    if (status == EMO_OK)
        t->fresh[t->n_fresh++] = index;
    return status;
}

static emo_status merge_at(trainer *t, uint32_t at, int32_t right, int32_t result, emo_error *err) {
    symbol *s = &t->symbols[at];
    uint32_t before = s->prev, behind = t->symbols[s->next].next;
    uint64_t count = t->words->items[s->word].count;
    int32_t left = s->id;
    emo_status status = EMO_OK;
    if (before != NONE)
        status = lose(t, t->symbols[before].id, left, count, err);
    if (status == EMO_OK && behind != NONE)
        status = lose(t, right, t->symbols[behind].id, count, err);
    if (status != EMO_OK)
        return status;
    t->symbols[s->next].id = -1;
    s->id = result;
    s->next = behind;
    if (behind != NONE)
        t->symbols[behind].prev = at;
    if (before != NONE)
        status = gain(t, t->symbols[before].id, result, before, err);
    if (status == EMO_OK && behind != NONE)
        status = gain(t, result, t->symbols[behind].id, at, err);
    return status;
}

static emo_status merge_pair(trainer *t, uint32_t index, int32_t result, emo_error *err) {
    int32_t left = t->pairs[index].left, right = t->pairs[index].right;
    size_t n = 0;
    for (uint32_t i = t->pairs[index].places; i != NONE; i = t->places[i].next) {
        const symbol *s = &t->symbols[t->places[i].symbol];
        if (s->id != left || s->next == NONE || t->symbols[s->next].id != right)
            continue;
        emo_status status = emo__grow(t->mem, (void **)&t->work, &t->work_capacity, n + 1, sizeof *t->work, err);
        if (status != EMO_OK)
            return status;
        t->work[n++] = t->places[i].symbol;
    }
    t->pairs[index].places = NONE;
    /* from left to right, as encoding does: it matters where a token repeats */
    qsort(t->work, n, sizeof *t->work, compare_u32);
    t->n_fresh = 0;
    for (size_t i = 0; i < n; i++) {
        const symbol *s = &t->symbols[t->work[i]];
        if (s->id != left || s->next == NONE || t->symbols[s->next].id != right)
            continue; /* the merge before took its left half */
        emo_status status = merge_at(t, t->work[i], right, result, err);
        if (status != EMO_OK)
            return status;
    }
    t->pairs[index].count = 0;
    /* a pair stands in `fresh` once for every gain; one entry in the heap is enough */
    qsort(t->fresh, t->n_fresh, sizeof *t->fresh, compare_u32);
    for (size_t i = 0; i < t->n_fresh; i++) {
        if ((i > 0 && t->fresh[i] == t->fresh[i - 1]) || t->pairs[t->fresh[i]].count <= 0)
            continue;
        emo_status status = push(t, t->fresh[i], err);
        if (status != EMO_OK)
            return status;
    }
    return EMO_OK;
}

/* The token for a merge: an older one when it spells the same bytes. `known` maps bytes to ids. */
static emo_status token_for(emo_tokenizer *tok, emo__words *known, const pair *p, int32_t *id, emo_error *err);

static emo_status learn(trainer *t, emo_tokenizer *tok, emo__words *known, int32_t target,
                        const emo_tokenizer_train_options *options, emo_error *err) {
    emo_status status = EMO_OK;
    uint64_t merges = 0, total = (uint64_t)(target - tok->vocab_size);
    while (tok->vocab_size < target && t->n_heap > 0) {
        candidate top = pop(t);
        pair *p = &t->pairs[top.pair];
        if (p->count < options->min_frequency)
            continue;
        if (p->count != top.count) { /* it has changed since */
            if (p->count < top.count && (status = push(t, top.pair, err)) != EMO_OK)
                return status;
            continue;
        }
        int32_t result;
        if ((status = token_for(tok, known, p, &result, err)) != EMO_OK)
            return status;
        if (!p->merged && (status = emo__tok_add_merge(tok, p->left, p->right, result, err)) != EMO_OK)
            return status;
        p->merged = true;
        if ((status = merge_pair(t, top.pair, result, err)) != EMO_OK)
            return status;
        if (++merges % REPORT_MERGES == 0 &&
            (status = emo__report(&options->progress, "merge", merges, total, err)) != EMO_OK)
            return status;
    }
    return EMO_OK;
}

static emo_status token_for(emo_tokenizer *tok, emo__words *known, const pair *p, int32_t *id, emo_error *err) {
    emo__buf *bytes = &known->bytes; /* of this token only */
    bytes->size = 0;
    emo_status status = emo__buf_append(bytes, emo__tok_bytes(tok, p->left), tok->tokens[p->left].length, err);
    if (status == EMO_OK)
        status = emo__buf_append(bytes, emo__tok_bytes(tok, p->right), tok->tokens[p->right].length, err);
    if (status != EMO_OK)
        return status;
    size_t i = (size_t)emo__hash_bytes(bytes->data, bytes->size) & known->mask;
    for (; known->slots[i] != 0; i = (i + 1) & known->mask) {
        const emo__token *token = &tok->tokens[known->slots[i] - 1];
        if (token->length == bytes->size && memcmp(tok->bytes.data + token->offset, bytes->data, bytes->size) == 0) {
            *id = (int32_t)known->slots[i] - 1;
            return EMO_OK;
        }
    }
    *id = tok->vocab_size;
    known->slots[i] = (uint32_t)*id + 1;
    return emo__tok_set(tok, *id, bytes->data, bytes->size, EMO__TOKEN_MODEL, err);
}

emo_status emo__train_merges(emo_tokenizer *tok, const emo__words *words, int32_t target,
                             const emo_tokenizer_train_options *options, emo_error *err) {
    trainer t = {0};
    t.mem = words->mem;
    t.words = words;
    emo__words known; /* only its slots and bytes are used: tokens of two bytes and more */
    emo__words_init(&known, words->mem);
    size_t size = 1024;
    while (size < (size_t)target * 2)
        size *= 2;
    emo_status status = rehash(&t, err);
    if (status == EMO_OK) {
        known.slots = emo__calloc(words->mem, size, sizeof *known.slots);
        known.mask = size - 1;
        status = known.slots != NULL ? load_words(&t, tok, err) : emo__fail_memory(err, size * sizeof *known.slots);
    }
    if (status == EMO_OK)
        status = learn(&t, tok, &known, target, options, err);
    emo__words_free(&known);
    emo__free(t.mem, t.symbols);
    emo__free(t.mem, t.pairs);
    emo__free(t.mem, t.slots);
    emo__free(t.mem, t.places);
    emo__free(t.mem, t.heap);
    emo__free(t.mem, t.fresh);
    emo__free(t.mem, t.work);
    return status;
}
