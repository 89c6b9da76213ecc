/* SPDX-License-Identifier: Apache-2.0 */
#include "text/vocab.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/status.h"
#include "text/bpe.h"
#include "text/hash.h"

#define NO_PAIR UINT64_MAX

emo_status emo__tok_new(emo_runtime *rt, emo_tokenizer **out, emo_error *err) {
    *out = NULL;
    emo_tokenizer *tok = emo__calloc(&rt->mem, 1, sizeof *tok);
    if (tok == NULL)
        return emo__fail_memory(err, sizeof *tok);
    emo__ref_init(&tok->ref);
    emo__guard_init(&tok->guard);
    atomic_init(&tok->eos, -1);
    tok->unk = -1;
    tok->rt = emo__runtime_retain(rt);
    emo__buf_init(&tok->bytes, &rt->mem);
    for (int i = 0; i < 256; i++)
        tok->byte_ids[i] = -1;
    *out = tok;
    return EMO_OK;
}

void emo__tok_destroy(emo_tokenizer *tok) {
    emo_runtime *rt = tok->rt;
    const emo__mem *mem = &rt->mem;
    emo__buf_free(&tok->bytes);
    emo__free(mem, tok->tokens);
    emo__free(mem, tok->token_slots);
    emo__free(mem, tok->merges);
    emo__free(mem, tok->pair_slots);
    emo__free(mem, tok->added);
    for (size_t i = 0; i < tok->n_splits; i++)
        emo__split_free(&tok->splits[i], mem);
    if (tok->gpt2 != NULL)
        emo__split_free(tok->gpt2, mem);
    emo__free(mem, tok->gpt2);
    emo__free(mem, tok->post_processor);
    emo__free(mem, tok->unknown_template);
    emo__free(mem, tok);
    emo_runtime_release(rt);
}

emo_status emo__tok_set(emo_tokenizer *tok, int32_t id, const char *bytes, size_t length, uint32_t flags,
                        emo_error *err) {
    if (id < 0 || id >= EMO__MAX_TOKENS)
        return emo__fail(err, EMO_E_FORMAT, "token id %d: ids must be 0 to %d", (int)id, EMO__MAX_TOKENS - 1);
    if (length == 0 || length > UINT32_MAX)
        return emo__fail(err, EMO_E_FORMAT, "the token with id %d is empty or too long", (int)id);
    size_t before = tok->tokens_capacity;
    emo_status status = emo__grow(&tok->rt->mem, (void **)&tok->tokens, &tok->tokens_capacity, (size_t)id + 1,
                                  sizeof *tok->tokens, err);
    if (status != EMO_OK)
        return status;
    memset(tok->tokens + before, 0, (tok->tokens_capacity - before) * sizeof *tok->tokens);
    emo__token *token = &tok->tokens[id];
    if ((token->flags & EMO__TOKEN_USED) != 0) {
        if (token->length != length || memcmp(tok->bytes.data + token->offset, bytes, length) != 0)
            return emo__fail(err, EMO_E_FORMAT, "two tokens have the id %d: '%.*s' and '%.*s'", (int)id,
                             (int)(token->length < 60 ? token->length : 60), tok->bytes.data + token->offset,
                             (int)(length < 60 ? length : 60), bytes);
    } else {
        token->offset = tok->bytes.size;
        token->length = (uint32_t)length;
        if ((status = emo__buf_append(&tok->bytes, bytes, length, err)) != EMO_OK)
            return status;
        if (id >= tok->vocab_size)
            tok->vocab_size = id + 1;
    }
    token->flags |= flags | EMO__TOKEN_USED;
    return EMO_OK;
}

/* A power of two with room for n entries at half load. */
static bool table_size(size_t n, size_t *size) {
    size_t want;
    if (!emo__mul_size(n, 2, &want))
        return false;
    for (*size = 16; *size < want; *size *= 2) {
        if (*size > SIZE_MAX / 4)
            return false;
    }
    return true;
}

/* The slot that holds the bytes, or the free one where they would go. */
static emo__token_slot *find_slot(const emo_tokenizer *tok, const char *bytes, size_t length) {
    uint64_t hash = emo__hash_bytes(bytes, length);
    uint32_t tag = (uint32_t)(hash >> 32);
    for (size_t i = (size_t)hash & tok->token_mask;; i = (i + 1) & tok->token_mask) {
        emo__token_slot *slot = &tok->token_slots[i];
        if (slot->id < 0)
            return slot;
        const emo__token *token = &tok->tokens[slot->id];
        if (slot->tag == tag && token->length == length && memcmp(tok->bytes.data + token->offset, bytes, length) == 0)
            return slot;
    }
}

int32_t emo__tok_find(const emo_tokenizer *tok, const char *bytes, size_t length) {
    return find_slot(tok, bytes, length)->id;
}

static void note_bytes(emo_tokenizer *tok) {
    for (int32_t id = 0; id < tok->vocab_size; id++) {
        const emo__token *token = &tok->tokens[id];
        if ((token->flags & (EMO__TOKEN_MODEL | EMO__TOKEN_RAW)) == EMO__TOKEN_MODEL && token->length == 1)
            tok->byte_ids[(unsigned char)*emo__tok_bytes(tok, id)] = id;
    }
    for (unsigned b = 0; b < 256; b++)
        tok->partial = tok->partial || tok->byte_ids[b] < 0;
}

/* Tokens of the model come first, and of those the ones spelled as bytes: others may be the same text. */
static int index_pass(const emo__token *token) {
    if ((token->flags & EMO__TOKEN_MODEL) == 0)
        return 2;
    return (token->flags & EMO__TOKEN_RAW) != 0 ? 1 : 0;
}

emo_status emo__tok_index(emo_tokenizer *tok, emo_error *err) {
    note_bytes(tok);
    size_t size;
    if (!table_size((size_t)tok->vocab_size, &size) ||
        (tok->token_slots = emo__malloc_array(&tok->rt->mem, size, sizeof *tok->token_slots)) == NULL)
        return emo__fail_memory(err, (size_t)tok->vocab_size * 2 * sizeof *tok->token_slots);
    tok->token_mask = size - 1;
    for (size_t i = 0; i < size; i++)
        tok->token_slots[i] = (emo__token_slot){0, -1};
    for (int pass = 0; pass < 3; pass++) {
        for (int32_t id = 0; id < tok->vocab_size; id++) {
            const emo__token *token = &tok->tokens[id];
            if ((token->flags & EMO__TOKEN_USED) == 0 || index_pass(token) != pass)
                continue;
            const char *bytes = emo__tok_bytes(tok, id);
            emo__token_slot *slot = find_slot(tok, bytes, token->length);
            if (slot->id < 0)
                *slot = (emo__token_slot){(uint32_t)(emo__hash_bytes(bytes, token->length) >> 32), id};
        }
    }
    return EMO_OK;
}

emo_status emo__tok_add_merge(emo_tokenizer *tok, int32_t left, int32_t right, int32_t result, emo_error *err) {
    if (tok->n_merges >= UINT32_MAX - 1)
        return emo__fail(err, EMO_E_LIMIT, "too many merges");
    emo_status status = emo__grow(&tok->rt->mem, (void **)&tok->merges, &tok->merges_capacity, tok->n_merges + 1,
                                  sizeof *tok->merges, err);
    if (status == EMO_OK)
        tok->merges[tok->n_merges++] = (emo__merge){left, right, result};
    return status;
}

emo_status emo__tok_add_added(emo_tokenizer *tok, const emo__added *added, emo_error *err) {
    emo_status status =
        emo__grow(&tok->rt->mem, (void **)&tok->added, &tok->added_capacity, tok->n_added + 1, sizeof *tok->added, err);
    if (status == EMO_OK)
        tok->added[tok->n_added++] = *added;
    return status;
}

emo_status emo__tok_next_split(emo_tokenizer *tok, emo__split **split, emo_error *err) {
    if (tok->n_splits == EMO__MAX_SPLITS)
        return emo__fail(err, EMO_E_UNSUPPORTED, "more than %d pre-tokenizers in a row", EMO__MAX_SPLITS);
    *split = &tok->splits[tok->n_splits++];
    return EMO_OK;
}

emo_status emo__tok_use_gpt2(emo_tokenizer *tok, emo_error *err) {
    tok->gpt2 = emo__calloc(&tok->rt->mem, 1, sizeof *tok->gpt2);
    if (tok->gpt2 == NULL)
        return emo__fail_memory(err, sizeof *tok->gpt2);
    return emo__split_init(tok->gpt2, &tok->rt->mem, EMO__PATTERN_GPT2, sizeof EMO__PATTERN_GPT2 - 1, false, true, err);
}

static size_t pair_start(const emo_tokenizer *tok, uint64_t key) { return (size_t)emo__hash_mix(key) & tok->pair_mask; }

const emo__pair_slot *emo__tok_pair(const emo_tokenizer *tok, int32_t left, int32_t right) {
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    for (size_t i = pair_start(tok, key);; i = (i + 1) & tok->pair_mask) {
        const emo__pair_slot *slot = &tok->pair_slots[i];
        if (slot->key == key)
            return slot;
        if (slot->key == NO_PAIR)
            return NULL;
    }
}

static emo_status index_pairs(emo_tokenizer *tok, emo_error *err) {
    size_t size;
    if (!table_size(tok->n_merges, &size) ||
        (tok->pair_slots = emo__malloc_array(&tok->rt->mem, size, sizeof *tok->pair_slots)) == NULL)
        return emo__fail_memory(err, tok->n_merges * 2 * sizeof *tok->pair_slots);
    tok->pair_mask = size - 1;
    for (size_t i = 0; i < size; i++)
        tok->pair_slots[i] = (emo__pair_slot){NO_PAIR, 0, -1};
    for (size_t rank = 0; rank < tok->n_merges; rank++) {
        const emo__merge *merge = &tok->merges[rank];
        uint64_t key = (uint64_t)(uint32_t)merge->left << 32 | (uint32_t)merge->right;
        size_t i = pair_start(tok, key);
        while (tok->pair_slots[i].key != NO_PAIR && tok->pair_slots[i].key != key)
            i = (i + 1) & tok->pair_mask;
        /* of a merge that is listed twice the later place counts, as in Hugging Face's */
        tok->pair_slots[i] = (emo__pair_slot){key, (uint32_t)rank, merge->result};
    }
    return EMO_OK;
}

/* Marks the tokens that their own bytes encode to, so that most words need one look-up. */
static emo_status mark_whole(emo_tokenizer *tok, emo_error *err) {
    emo__bpe_scratch scratch;
    emo__bpe_scratch_init(&scratch, &tok->rt->mem);
    emo_status status = EMO_OK;
    for (int32_t id = 0; id < tok->vocab_size && status == EMO_OK; id++) {
        emo__token *token = &tok->tokens[id];
        if ((token->flags & (EMO__TOKEN_MODEL | EMO__TOKEN_SPECIAL | EMO__TOKEN_RAW)) != EMO__TOKEN_MODEL)
            continue;
        int32_t ids[2];
        emo__id_sink sink = {ids, 2, 0};
        if (!tok->ignore_merges)
            status = emo__bpe_merge(tok, &scratch, emo__tok_bytes(tok, id), token->length, &sink, err);
        if (tok->ignore_merges || (sink.count == 1 && ids[0] == id))
            token->flags |= EMO__TOKEN_WHOLE;
    }
    emo__bpe_scratch_free(&scratch);
    return status;
}

/* qsort has no context: the keys carry all that is compared. */
typedef struct added_key {
    const char *text;
    emo__added added;
} added_key;

static int compare_added(const void *a, const void *b) {
    const added_key *x = a, *y = b;
    if (x->added.normalized != y->added.normalized)
        return x->added.normalized ? 1 : -1;
    uint32_t n = x->added.length < y->added.length ? x->added.length : y->added.length;
    int order = memcmp(x->text, y->text, n);
    if (order != 0)
        return order;
    if (x->added.length != y->added.length)
        return x->added.length < y->added.length ? -1 : 1;
    return x->added.id < y->added.id ? -1 : x->added.id > y->added.id;
}

/* A normalized token is looked for in the normalised text, so it has to be normalised too. */
static emo_status set_needle(emo_tokenizer *tok, emo__added *added, emo_error *err) {
    const emo__token *token = &tok->tokens[added->id];
    added->offset = token->offset;
    added->length = token->length;
    emo_status status = EMO_OK;
    for (size_t i = 0; i < tok->n_forms && added->normalized && status == EMO_OK; i++) {
        emo__buf text;
        emo__buf_init(&text, &tok->rt->mem);
        status = emo__utf8_normalize(tok->forms[i], &text, tok->bytes.data + added->offset, added->length, err);
        if (status == EMO_OK &&
            (text.size != added->length || memcmp(text.data, tok->bytes.data + added->offset, text.size) != 0)) {
            added->offset = tok->bytes.size;
            added->length = (uint32_t)text.size;
            status = emo__buf_append(&tok->bytes, text.data, text.size, err);
        }
        emo__buf_free(&text);
    }
    return status;
}

static emo_status sort_added(emo_tokenizer *tok, emo_error *err) {
    for (size_t i = 0; i < tok->n_added; i++) {
        emo_status status = set_needle(tok, &tok->added[i], err);
        if (status != EMO_OK)
            return status;
    }
    added_key *keys = emo__malloc_array(&tok->rt->mem, tok->n_added + 1, sizeof *keys);
    if (keys == NULL)
        return emo__fail_memory(err, tok->n_added * sizeof *keys);
    for (size_t i = 0; i < tok->n_added; i++)
        keys[i] = (added_key){tok->bytes.data + tok->added[i].offset, tok->added[i]};
    qsort(keys, tok->n_added, sizeof *keys, compare_added);
    for (size_t i = 0; i < tok->n_added; i++) {
        emo__added *added = &tok->added[i];
        *added = keys[i].added;
        emo__range *range =
            &tok->added_ranges[added->normalized ? 1 : 0][(unsigned char)tok->bytes.data[added->offset]];
        if (range->end == 0)
            range->begin = (uint32_t)i;
        range->end = (uint32_t)i + 1;
        if ((tok->tokens[added->id].flags & EMO__TOKEN_SPECIAL) == 0)
            tok->plain_added[added->normalized ? 1 : 0] = true;
    }
    emo__free(&tok->rt->mem, keys);
    return EMO_OK;
}

static void choose_eos(emo_tokenizer *tok) {
    static const char *const names[] = {EMO_TOKENIZER_EOS, "<|end_of_text|>", "</s>",      "<eos>",
                                        "<|eos|>",         "[EOS]",           "<|im_end|>"};
    int32_t only = -1;
    size_t best = sizeof names / sizeof names[0], count = 0;
    for (size_t i = 0; i < tok->n_added; i++) {
        int32_t id = tok->added[i].id;
        const emo__token *token = &tok->tokens[id];
        if ((token->flags & EMO__TOKEN_SPECIAL) == 0)
            continue;
        count++;
        only = id;
        for (size_t k = 0; k < best; k++) {
            if (strlen(names[k]) == token->length && memcmp(names[k], emo__tok_bytes(tok, id), token->length) == 0) {
                best = k;
                atomic_store(&tok->eos, id);
            }
        }
    }
    if (count == 1)
        atomic_store(&tok->eos, only);
}

static uint64_t content_hash(const emo_tokenizer *tok) {
    uint64_t h = emo__fnv_u64(EMO__FNV_START, (uint64_t)tok->vocab_size);
    for (int32_t id = 0; id < tok->vocab_size; id++) {
        const emo__token *token = &tok->tokens[id];
        h = emo__fnv_u64(h, (uint64_t)(token->flags & ~(uint32_t)EMO__TOKEN_WHOLE) << 32 | token->length);
        if (token->length > 0)
            h = emo__fnv(h, emo__tok_bytes(tok, id), token->length);
    }
    h = emo__fnv_u64(h, tok->n_merges);
    for (size_t i = 0; i < tok->n_merges; i++)
        h = emo__fnv_u64(h, (uint64_t)(uint32_t)tok->merges[i].left << 32 | (uint32_t)tok->merges[i].right);
    for (size_t i = 0; i < tok->n_added; i++) {
        const emo__added *a = &tok->added[i];
        h = emo__fnv_u64(h, (uint64_t)a->id << 8 | (a->lstrip ? 1u : 0u) | (a->rstrip ? 2u : 0u) |
                                (a->normalized ? 4u : 0u) | (a->single_word ? 8u : 0u));
    }
    bool nfc = tok->n_forms == 1 && tok->forms[0] == EMO__NFC;
    h = emo__fnv_u64(h, (nfc ? 1u : 0u) | (tok->ignore_merges ? 2u : 0u) | (tok->prefix_space ? 4u : 0u) |
                            (tok->gpt2 != NULL ? 8u : 0u) | (tok->fuse_unk ? 16u : 0u));
    for (size_t i = 0; i < tok->n_splits; i++) {
        const emo__split *split = &tok->splits[i];
        bool digits = split->pattern == NULL;
        h = emo__fnv_u64(h, (split->literal ? 1u : 0u) | (split->invert ? 2u : 0u) | (unsigned)split->behavior << 2 |
                                (digits ? (unsigned)split->scanner : 0u) << 8);
        h = emo__fnv(h, digits ? "" : split->pattern, digits ? 1 : strlen(split->pattern) + 1);
    }
    if (tok->unk >= 0)
        h = emo__fnv_u64(h, (uint64_t)tok->unk);
    for (size_t i = 0; i < tok->n_forms && !nfc; i++)
        h = emo__fnv_u64(h, (uint64_t)tok->forms[i]);
    return emo__hash_mix(h);
}

emo_status emo__tok_finish(emo_tokenizer *tok, emo_error *err) {
    emo_status status = index_pairs(tok, err);
    if (status == EMO_OK)
        status = mark_whole(tok, err);
    if (status == EMO_OK)
        status = sort_added(tok, err);
    if (status == EMO_OK) {
        choose_eos(tok);
        tok->hash = content_hash(tok);
    }
    return status;
}
