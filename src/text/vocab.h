/* SPDX-License-Identifier: Apache-2.0 */
/* The tokenizer object: tokens, merges and what happens to a text before it meets them. */
#ifndef EMO_SRC_TEXT_VOCAB_H
#define EMO_SRC_TEXT_VOCAB_H

#include <emo/tokenizer.h>

#include "base/runtime.h"
#include "text/split.h"
#include "text/unicode.h"

#define EMO__MAX_TOKENS (1 << 22)
#define EMO__MAX_SPLITS 8
#define EMO__MAX_FORMS 4
#define EMO__MAX_TEMPLATE 16

enum {
    EMO__TOKEN_USED = 1,    /* the id exists */
    EMO__TOKEN_MODEL = 2,   /* it is in the vocabulary of the BPE model */
    EMO__TOKEN_ADDED = 4,   /* it is an added token */
    EMO__TOKEN_SPECIAL = 8, /* and a special one */
    EMO__TOKEN_RAW = 16,    /* in the model's vocabulary, but spelled as plain text there */
    EMO__TOKEN_WHOLE = 32   /* a piece that equals it encodes as just this token */
};

typedef struct emo__token {
    size_t offset; /* into bytes */
    uint32_t length;
    uint32_t flags;
} emo__token;

typedef struct emo__merge {
    int32_t left, right, result;
} emo__merge;

typedef struct emo__pair_slot {
    uint64_t key; /* left << 32 | right; UINT64_MAX: free */
    uint32_t rank;
    int32_t result;
} emo__pair_slot;

typedef struct emo__token_slot {
    uint32_t tag; /* high half of the hash */
    int32_t id;   /* -1: free */
} emo__token_slot;

typedef struct emo__added {
    int32_t id;
    bool lstrip, rstrip, normalized, single_word;
    size_t
        offset; /* into bytes: what is looked for in the text (normalized ones are looked for in their normal form) */
    uint32_t length;
} emo__added;

/* The places of added[] that begin with one byte. */
typedef struct emo__range {
    uint32_t begin, end;
} emo__range;

struct emo_tokenizer {
    emo__ref ref;
    emo__guard guard;
    emo_runtime *rt;
    _Atomic int32_t eos;

    emo__buf bytes; /* of all tokens */
    emo__token *tokens;
    size_t tokens_capacity;
    int32_t vocab_size; /* highest id + 1 */
    int32_t byte_ids[256];
    emo__token_slot *token_slots;
    size_t token_mask;

    emo__merge *merges; /* by rank */
    size_t n_merges, merges_capacity;
    emo__pair_slot *pair_slots;
    size_t pair_mask;

    emo__added *added; /* as in the file until emo__tok_finish(), which sorts them: normalized last, then by bytes */
    size_t n_added, added_capacity;
    emo__range added_ranges[2][256]; /* [normalized][first byte] */
    bool plain_added[2];             /* [normalized]: is there any that is not special */

    emo__form forms[EMO__MAX_FORMS]; /* normalisation, one after the other */
    size_t n_forms;
    bool ignore_merges;
    bool partial;  /* some bytes have no token: byte_ids is -1 there */
    bool fuse_unk; /* one unk for a run of such bytes */
    int32_t unk;   /* what such a byte becomes; -1: nothing */
    emo__split splits[EMO__MAX_SPLITS];
    size_t n_splits;
    bool prefix_space;                                           /* of the ByteLevel pre-tokenizer */
    emo__split *gpt2;                                            /* its own pattern (use_regex); NULL: not used */
    char *post_processor;                                        /* JSON text, kept for saving; NULL: none */
    int32_t before[EMO__MAX_TEMPLATE], after[EMO__MAX_TEMPLATE]; /* what the post-processor puts around a text */
    size_t n_before, n_after;
    char *unknown_template; /* the type of a post-processor that is not understood; NULL: none */
    uint64_t hash;
};

/* The byte-level alphabet: every byte is a printable character. */
uint32_t emo__byte_to_char(unsigned byte);
int emo__char_to_byte(uint32_t c); /* -1: not in the alphabet */
/* The bytes in the order of their characters' code points: '!' first. rank < 256. */
unsigned emo__alphabet_byte(unsigned rank);
/* Appends the alphabet's spelling of bytes. */
EMO_MUST_CHECK emo_status emo__alphabet_encode(emo__buf *out, const char *bytes, size_t length, emo_error *err);
/* Replaces out by the bytes that valid UTF-8 text spells; *ok false when a character is not of the alphabet. */
EMO_MUST_CHECK emo_status emo__alphabet_decode(emo__buf *out, const char *text, size_t length, bool *ok,
                                               emo_error *err);

/* Building: new, tokens, index, merges, added, finish. A failed tokenizer is dropped with emo_tokenizer_release(). */
EMO_MUST_CHECK emo_status emo__tok_new(emo_runtime *rt, emo_tokenizer **out, emo_error *err);
/* A second token with one id is EMO_E_FORMAT unless the bytes are the same (then the flags join). */
EMO_MUST_CHECK emo_status emo__tok_set(emo_tokenizer *tok, int32_t id, const char *bytes, size_t length, uint32_t flags,
                                       emo_error *err);
/* After the last token: makes emo__tok_find() work, notes missing bytes. */
EMO_MUST_CHECK emo_status emo__tok_index(emo_tokenizer *tok, emo_error *err);
EMO_MUST_CHECK emo_status emo__tok_add_merge(emo_tokenizer *tok, int32_t left, int32_t right, int32_t result,
                                             emo_error *err);
EMO_MUST_CHECK emo_status emo__tok_add_added(emo_tokenizer *tok, const emo__added *added, emo_error *err);
/* The next step of the pre-tokenizer; *split is the tokenizer's and zero. */
EMO_MUST_CHECK emo_status emo__tok_next_split(emo_tokenizer *tok, emo__split **split, emo_error *err);
EMO_MUST_CHECK emo_status emo__tok_use_gpt2(emo_tokenizer *tok, emo_error *err);
EMO_MUST_CHECK emo_status emo__tok_finish(emo_tokenizer *tok, emo_error *err);

int32_t emo__tok_find(const emo_tokenizer *tok, const char *bytes, size_t length); /* -1: none */
static inline const char *emo__tok_bytes(const emo_tokenizer *tok, int32_t id) {
    return tok->bytes.data + tok->tokens[id].offset;
}
static inline bool emo__tok_has(const emo_tokenizer *tok, int32_t id) {
    return id >= 0 && id < tok->vocab_size && (tok->tokens[id].flags & EMO__TOKEN_USED) != 0;
}
/* The merge of two tokens; NULL: they do not merge. */
const emo__pair_slot *emo__tok_pair(const emo_tokenizer *tok, int32_t left, int32_t right);

void emo__tok_destroy(emo_tokenizer *tok);

#endif
