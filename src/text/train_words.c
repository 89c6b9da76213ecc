/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/status.h"
#include "text/hash.h"
#include "text/train.h"
#include "text/unicode.h"

#define REPORT_BYTES ((uint64_t)1 << 18)

void emo__words_init(emo__words *words, const emo__mem *mem) {
    memset(words, 0, sizeof *words);
    words->mem = mem;
    emo__buf_init(&words->bytes, mem);
}

void emo__words_free(emo__words *words) {
    emo__buf_free(&words->bytes);
    emo__free(words->mem, words->items);
    emo__free(words->mem, words->slots);
    emo__words_init(words, words->mem);
}

static emo_status rehash(emo__words *words, emo_error *err) {
    size_t size = words->slots == NULL ? 4096 : (words->mask + 1) * 2;
    uint32_t *slots = emo__calloc(words->mem, size, sizeof *slots);
    if (slots == NULL)
        return emo__fail_memory(err, size * sizeof *slots);
    emo__free(words->mem, words->slots);
    words->slots = slots;
    words->mask = size - 1;
    for (size_t w = 0; w < words->n; w++) {
        const emo__word *word = &words->items[w];
        size_t i = (size_t)emo__hash_bytes(words->bytes.data + word->offset, word->length) & words->mask;
        while (slots[i] != 0)
            i = (i + 1) & words->mask;
        slots[i] = (uint32_t)w + 1;
    }
    return EMO_OK;
}

static emo_status count_piece(void *ctx, const char *piece, size_t length, emo_error *err) {
    emo__words *words = ctx;
    if (length > UINT32_MAX)
        return emo__fail(err, EMO_E_LIMIT, "a word of %zu bytes", length);
    uint64_t hash = emo__hash_bytes(piece, length);
    uint32_t tag = (uint32_t)(hash >> 32);
    size_t i = (size_t)hash & words->mask;
    for (; words->slots[i] != 0; i = (i + 1) & words->mask) {
        emo__word *word = &words->items[words->slots[i] - 1];
        if (word->tag == tag && word->length == length &&
            memcmp(words->bytes.data + word->offset, piece, length) == 0) {
            word->count++;
            return EMO_OK;
        }
    }
    if (words->n >= UINT32_MAX - 1)
        return emo__fail(err, EMO_E_LIMIT, "too many distinct words");
    emo_status status =
        emo__grow(words->mem, (void **)&words->items, &words->capacity, words->n + 1, sizeof *words->items, err);
    size_t offset = words->bytes.size;
    if (status == EMO_OK)
        status = emo__buf_append(&words->bytes, piece, length, err);
    if (status != EMO_OK)
        return status;
    words->items[words->n++] = (emo__word){offset, (uint32_t)length, tag, 1};
    words->slots[i] = (uint32_t)words->n;
    return words->n * 2 > words->mask ? rehash(words, err) : EMO_OK;
}

emo_status emo__words_count(emo__words *words, const emo__split *split, const emo_tokenizer_train_options *options,
                            const emo_text_reader *reader, emo_error *err) {
    emo__regex_scratch *scratch = NULL;
    emo__buf clean;
    emo__buf_init(&clean, words->mem);
    uint64_t done = 0, reported = 0;
    emo_status status = rehash(words, err);
    while (status == EMO_OK) {
        const char *text = NULL;
        size_t length = 0;
        int32_t more = reader->next(reader->ctx, &text, &length);
        if (more < 0) {
            status = emo__fail(err, more, "reading the texts failed: %s", emo_status_text(more));
            break;
        }
        if (more == 0)
            break;
        if (text == NULL && length > 0) {
            status = emo__fail(err, EMO_E_INVALID_ARGUMENT, "the reader gave a NULL text of %zu bytes", length);
            break;
        }
        done += length;
        if (length > 0 && !emo__utf8_valid(text, length)) {
            size_t left;
            clean.size = 0;
            status = emo__utf8_clean(&clean, text, length, false, &left, err);
            text = clean.data;
            length = clean.size;
        }
        if (status == EMO_OK && length > 0)
            status = emo__split_run(split, &scratch, text, length, count_piece, words, err);
        if (status == EMO_OK && (done - reported >= REPORT_BYTES || reported == 0)) {
            reported = done;
            status = emo__report(&options->progress, "count words", done, options->max_bytes, err);
        }
        if (options->max_bytes > 0 && done >= options->max_bytes)
            break;
    }
    emo__buf_free(&clean);
    emo__regex_scratch_free(scratch);
    return status;
}
