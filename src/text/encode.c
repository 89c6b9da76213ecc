/* SPDX-License-Identifier: Apache-2.0 */
#include "text/encode.h"

#include <string.h>

#include "base/status.h"
#include "text/unicode.h"

/* One call's state; the tokenizer itself is only read. */
typedef struct work {
    const emo_tokenizer *tok;
    bool parse_special;
    emo__id_sink *sink;
    emo__bpe_scratch bpe;
    emo__regex_scratch *regex;
    emo__buf spaced; /* a piece with a space in front */
    const emo_progress *progress;
    uint64_t total;
    uint64_t seen; /* bytes of the pieces so far */
    uint64_t next; /* when it is time for a report */
} work;

#define REPORT_BYTES 65536 /* a shorter text is done before anybody could ask */

/* A step of the pre-tokenizer: which Split comes next. */
typedef struct step {
    work *work;
    size_t level;
} step;

static emo_status on_last_piece(void *ctx, const char *piece, size_t length, emo_error *err) {
    work *w = ctx;
    w->seen += length;
    if (w->seen >= w->next) {
        w->next = w->seen + REPORT_BYTES;
        emo_status status =
            emo__report(w->progress, "tokenize", w->seen < w->total ? w->seen : w->total, w->total, err);
        if (status != EMO_OK)
            return status;
    }
    return emo__bpe_piece(w->tok, &w->bpe, piece, length, w->sink, err);
}

static emo_status byte_level(work *w, const char *text, size_t length, emo_error *err) {
    if (w->tok->prefix_space && text[0] != ' ') {
        w->spaced.size = 0;
        emo_status status = emo__buf_append(&w->spaced, " ", 1, err);
        if (status == EMO_OK)
            status = emo__buf_append(&w->spaced, text, length, err);
        if (status != EMO_OK)
            return status;
        text = w->spaced.data;
        length = w->spaced.size;
    }
    if (w->tok->gpt2 != NULL)
        return emo__split_run(w->tok->gpt2, &w->regex, text, length, on_last_piece, w, err);
    return on_last_piece(w, text, length, err);
}

static emo_status pretokenize(work *w, size_t level, const char *text, size_t length, emo_error *err);

static emo_status on_piece(void *ctx, const char *piece, size_t length, emo_error *err) {
    const step *s = ctx;
    return pretokenize(s->work, s->level, piece, length, err);
}

/* At most EMO__MAX_SPLITS deep. */
static emo_status pretokenize(work *w, size_t level, const char *text, size_t length, emo_error *err) {
    if (level == w->tok->n_splits)
        return byte_level(w, text, length, err);
    step next = {w, level + 1};
    return emo__split_run(&w->tok->splits[level], &w->regex, text, length, on_piece, &next, err);
}

/* The longest added token that the text begins with; NULL: none. The tokens are sorted by their bytes: those that agree
 * with the text so far are a range, in which one that ends here comes first. */
static const emo__added *match_added(const emo_tokenizer *tok, bool normalized, const char *text, size_t length) {
    emo__range range = tok->added_ranges[normalized ? 1 : 0][(unsigned char)text[0]];
    const emo__added *best = NULL;
    for (size_t n = 1; range.begin < range.end; n++) {
        if (tok->added[range.begin].length == n) {
            best = &tok->added[range.begin];
            while (range.begin < range.end && tok->added[range.begin].length == n)
                range.begin++; /* two of one text: the lower id */
        }
        if (n == length)
            break;
        /* those with text[n] at place n */
        unsigned char want = (unsigned char)text[n];
        for (int side = 0; side < 2; side++) {
            uint32_t low = range.begin, high = range.end;
            while (low < high) {
                uint32_t middle = low + (high - low) / 2;
                unsigned char c = (unsigned char)tok->bytes.data[tok->added[middle].offset + n];
                if (c < want || (side == 1 && c == want))
                    low = middle + 1;
                else
                    high = middle;
            }
            if (side == 0)
                range.begin = low;
            else
                range.end = low;
        }
    }
    return best;
}

/* True when a word touches the place from the left, or with `right` from the right. */
static bool word_at(const char *text, size_t length, size_t place, bool right) {
    const unsigned char *p = (const unsigned char *)text;
    uint32_t c;
    if (right ? place == length : place == 0)
        return false;
    if (!right) {
        place--;
        while ((p[place] & 0xC0) == 0x80)
            place--;
    }
    (void)emo__utf8_read(p + place, &c);
    return emo__is_word(c);
}

/* White space at the start, or with `back` at the end, of text[0..length): bytes. */
static size_t strip(const char *text, size_t length, bool back) {
    const unsigned char *p = (const unsigned char *)text;
    size_t n = 0;
    while (n < length) {
        size_t at = back ? length - n - 1 : n;
        while (back && (p[at] & 0xC0) == 0x80)
            at--;
        uint32_t c;
        size_t size = emo__utf8_read(p + at, &c);
        if (emo__char_class(c) != EMO__CLASS_SPACE)
            break;
        n += size;
    }
    return n;
}

typedef emo_status (*segment_fn)(work *w, const char *text, size_t length, emo_error *err);

/* Cuts added tokens out of the text and hands what lies between them on. A match that does not count is plain text, and
 * the search goes on behind it: as Hugging Face's. */
static emo_status cut_added(work *w, bool normalized, const char *text, size_t length, segment_fn fn, emo_error *err) {
    const emo_tokenizer *tok = w->tok;
    emo_status status = EMO_OK;
    size_t done = 0;
    if (!w->parse_special && !tok->plain_added[normalized ? 1 : 0])
        return fn(w, text, length, err);
    for (size_t at = 0; at < length && status == EMO_OK;) {
        const emo__added *added = match_added(tok, normalized, text + at, length - at);
        if (added == NULL) {
            at++;
            continue;
        }
        size_t begin = at;
        at += added->length;
        if (!w->parse_special && (tok->tokens[added->id].flags & EMO__TOKEN_SPECIAL) != 0)
            continue;
        if (added->single_word && (word_at(text, length, begin, false) || word_at(text, length, at, true)))
            continue;
        size_t end = at + (added->rstrip ? strip(text + at, length - at, false) : 0);
        /* White space that was taken may still hold a token, and the text goes on behind that one; but one that takes
         * what lies left of it has nothing left there: as Hugging Face's. */
        if (added->lstrip && end <= done)
            continue;
        if (added->lstrip && begin > done)
            begin -= strip(text + done, begin - done, true);
        if (begin > done)
            status = fn(w, text + done, begin - done, err);
        emo__emit(w->sink, added->id);
        done = end;
    }
    return status == EMO_OK && done < length ? fn(w, text + done, length - done, err) : status;
}

static emo_status plain(work *w, const char *text, size_t length, emo_error *err) {
    return length > 0 ? pretokenize(w, 0, text, length, err) : EMO_OK;
}

static emo_status normalized_added(work *w, const char *text, size_t length, emo_error *err) {
    return length > 0 ? cut_added(w, true, text, length, plain, err) : EMO_OK;
}

/* Normalises, with the forms from `level` on, what lies between the other added tokens. */
static emo_status normalize(work *w, size_t level, const char *text, size_t length, emo_error *err) {
    const emo_tokenizer *tok = w->tok;
    while (level < tok->n_forms && emo__utf8_surely_normal(tok->forms[level], text, length))
        level++;
    if (level == tok->n_forms)
        return normalized_added(w, text, length, err);
    emo__buf normal;
    emo__buf_init(&normal, w->bpe.mem);
    emo_status status = emo__utf8_normalize(tok->forms[level], &normal, text, length, err);
    if (status == EMO_OK)
        status = normalize(w, level + 1, normal.data, normal.size, err);
    emo__buf_free(&normal);
    return status;
}

static emo_status between_added(work *w, const char *text, size_t length, emo_error *err) {
    return normalize(w, 0, text, length, err);
}

static emo_status put_around(const emo_tokenizer *tok, bool end, emo__id_sink *sink, emo_error *err) {
    if (tok->unknown_template != NULL)
        return emo__fail(
            err, EMO_E_UNSUPPORTED,
            "tokenizer.json: post_processor: '%.80s' is not supported: what it adds around a text is unknown",
            tok->unknown_template);
    for (size_t i = 0; i < (end ? tok->n_after : tok->n_before); i++)
        emo__emit(sink, end ? tok->after[i] : tok->before[i]);
    return EMO_OK;
}

emo_status emo__encode(const emo_tokenizer *tok, const emo__encode_flags *flags, const char *text, size_t length,
                       emo__id_sink *sink, emo_error *err) {
    const emo__mem *mem = &tok->rt->mem;
    work w = {0};
    w.tok = tok;
    w.parse_special = flags->parse_special;
    w.sink = sink;
    w.progress = flags->progress;
    w.total = length;
    w.next = flags->progress != NULL ? REPORT_BYTES : UINT64_MAX;
    emo__bpe_scratch_init(&w.bpe, mem);
    emo__buf_init(&w.spaced, mem);
    emo__buf clean;
    emo__buf_init(&clean, mem);
    emo_status status = flags->add_special ? put_around(tok, false, sink, err) : EMO_OK;
    if (status == EMO_OK && !emo__utf8_valid(text, length)) {
        size_t left;
        status = emo__utf8_clean(&clean, text, length, false, &left, err);
        text = clean.data;
        length = clean.size;
    }
    if (status == EMO_OK && length > 0)
        status = cut_added(&w, false, text, length, between_added, err);
    if (status == EMO_OK && flags->add_special)
        status = put_around(tok, true, sink, err);
    emo__buf_free(&clean);
    emo__buf_free(&w.spaced);
    emo__bpe_scratch_free(&w.bpe);
    emo__regex_scratch_free(w.regex);
    return status;
}

/* The guard counts readers, in a tokenizer that is otherwise only read. */
static emo__guard *guard_of(const emo_tokenizer *tok) { return (emo__guard *)(uintptr_t)&tok->guard; }

emo_status emo__encode_shared(const emo_tokenizer *tok, const emo__encode_flags *flags, const char *text, size_t length,
                              emo__id_sink *sink, emo_error *err) {
    emo__guard *guard = guard_of(tok);
    if (!emo__guard_try_read(guard))
        return emo__fail(err, EMO_E_BUSY, "the tokenizer is being changed by another thread");
    emo_status status = emo__encode(tok, flags, text, length, sink, err);
    emo__guard_end_read(guard);
    if (status != EMO_OK)
        sink->count = 0;
    else if (sink->capacity > 0 && sink->count > sink->capacity)
        return emo__fail(err, EMO_E_LIMIT, "the text has %zu tokens; the buffer has room for %zu", sink->count,
                         sink->capacity);
    return status;
}

emo_status emo__encode_text(const emo__mem *mem, const emo_tokenizer *tokenizer, const char *text, size_t length,
                            const emo_progress *progress, int32_t **ids, size_t *count, emo_error *err) {
    emo__encode_flags flags = {.progress = progress};
    *ids = NULL;
    *count = 0;
    if (length == 0)
        return EMO_OK;
    size_t capacity = length; /* nearly always enough */
    for (int attempt = 0; attempt < 2; attempt++) {
        int32_t *room = emo__malloc_array(mem, capacity, sizeof *room);
        if (room == NULL)
            return emo__fail_memory(err, capacity * sizeof *room);
        emo__id_sink sink = {room, capacity, 0};
        emo_status status = emo__encode_shared(tokenizer, &flags, text, length, &sink, err);
        if (status == EMO_OK) {
            *ids = room;
            *count = sink.count;
            return EMO_OK;
        }
        emo__free(mem, room);
        if (status != EMO_E_LIMIT || sink.count <= capacity) /* another limit than that of the room */
            return status;
        capacity = sink.count;
        emo__error_clear(err);
    }
    return emo__fail(err, EMO_E_INTERNAL, "the tokenizer changed its mind about the number of tokens");
}

emo_status emo__decode(const emo_tokenizer *tok, const int32_t *ids, size_t n, char *out, size_t capacity, size_t *size,
                       emo_error *err) {
    size_t need = 0;
    for (size_t i = 0; i < n; i++) {
        if (!emo__tok_has(tok, ids[i]))
            return emo__fail_at(err, EMO_E_RANGE, EMO_DOMAIN_ARGUMENT, (int64_t)i,
                                "ids[%zu] is %d; the tokenizer has no such token (its ids end at %d)", i, (int)ids[i],
                                (int)tok->vocab_size - 1);
        size_t length = tok->tokens[ids[i]].length;
        if (capacity >= need && capacity - need >= length)
            memcpy(out + need, emo__tok_bytes(tok, ids[i]), length);
        need += length;
    }
    *size = need;
    if (capacity > 0 && need > capacity)
        return emo__fail(err, EMO_E_LIMIT, "the text has %zu bytes; the buffer has room for %zu", need, capacity);
    return EMO_OK;
}

emo_status emo__decode_shared(const emo_tokenizer *tok, const int32_t *ids, size_t n, char *out, size_t capacity,
                              size_t *size, emo_error *err) {
    if (!emo__guard_try_read(guard_of(tok)))
        return emo__fail(err, EMO_E_BUSY, "the tokenizer is being changed by another thread");
    emo_status status = emo__decode(tok, ids, n, out, capacity, size, err);
    emo__guard_end_read(guard_of(tok));
    return status;
}
