/* SPDX-License-Identifier: Apache-2.0 */
/* Tokenizers and documents. */
#include "base/utf8.h"
#include "data/dataset.h"
#include "fuzz/fuzz.h"

/* ---- tokenizers ---- */

/* Encodes and decodes. `exact`: the bytes must come back, which holds where nothing normalises them. */
static void round_trip(const emo_tokenizer *tok, const char *text, size_t length, bool exact) {
    emo_error err = EMO_ERROR_INIT;
    emo_decoder *decoder = NULL;
    size_t n = 0;
    size_t again = 0;
    size_t bytes = 0;
    size_t streamed = 0;
    const char *view = NULL;
    if (!FUZZ_CALL(emo_tokenizer_encode(tok, text, length, NULL, 0, &n, &err)))
        return;
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    FUZZ_CHECK(ids != NULL);
    if (n > 0) /* with a capacity of 0 it asks for the count */
        FUZZ_OK(emo_tokenizer_encode(tok, text, length, ids, n, &again, &err));
    FUZZ_CHECK(again == n);
    FUZZ_OK(emo_tokenizer_decode(tok, ids, n, NULL, 0, &bytes, &err));
    char *back = malloc(bytes + 1);
    FUZZ_CHECK(back != NULL);
    if (bytes > 0)
        FUZZ_OK(emo_tokenizer_decode(tok, ids, n, back, bytes, &bytes, &err));
    if (exact)
        FUZZ_CHECK(bytes == length && memcmp(back, text, length) == 0);
    FUZZ_OK(emo_decoder_create(tok, NULL, &decoder, &err));
    for (size_t i = 0; i <= n; i++) {
        size_t piece = 0;
        if (i < n)
            FUZZ_OK(emo_decoder_push(decoder, ids[i], &view, &piece, &err));
        else
            FUZZ_OK(emo_decoder_flush(decoder, &view, &piece, &err));
        FUZZ_CHECK(emo__utf8_valid(view, piece));
        streamed += piece;
    }
    if (emo__utf8_valid(back, bytes))
        FUZZ_CHECK(streamed == bytes);
    emo_decoder_release(decoder);
    free(back);
    free(ids);
}

void fuzz_tokenizer(const uint8_t *data, size_t size) {
    static const char sample[] =
        "It's 1234  words,\n\n na\xc3\xafve \xe6\x97\xa5\xe6\x9c\xac e\xcc\x81 <|endoftext|>\t'll";
    emo_runtime *rt = fuzz_runtime();
    emo_error err = EMO_ERROR_INIT;
    emo_tokenizer *tok = NULL;
    emo_tokenizer *back = NULL;
    if (!FUZZ_CALL(emo_tokenizer_from_json(rt, size > 0 ? (const char *)data : "", size, &tok, &err)))
        return;
    round_trip(tok, sample, sizeof sample - 1, false);
    FUZZ_OK(emo_tokenizer_save(tok, fuzz_file("tokenizer.json", NULL, 0), &err));
    FUZZ_OK(emo_tokenizer_load(rt, fuzz_file("tokenizer.json", NULL, 0), &back, &err));
    FUZZ_CHECK(emo_tokenizer_hash(tok) == emo_tokenizer_hash(back));
    emo_tokenizer_release(back);
    emo_tokenizer_release(tok);
}

static int32_t next_text(void *ctx, const char **text, size_t *length) {
    static const char *const texts[] = {"the cat sat on the mat, and the cat's mat sat",
                                        "12345 67 na\xc3\xafve \xe6\x97\xa5", "the rate of the loan\n\n is the rate"};
    size_t *at = ctx;
    if (*at >= sizeof texts / sizeof texts[0])
        return 0;
    *text = texts[*at];
    *length = strlen(texts[(*at)++]);
    return 1;
}

void fuzz_text(const uint8_t *data, size_t size) {
    static emo_tokenizer *trained;
    static emo_tokenizer *bytes;
    emo_error err = EMO_ERROR_INIT;
    if (trained == NULL) {
        size_t at = 0;
        emo_text_reader reader = {&at, next_text};
        emo_tokenizer_train_options options = EMO_TOKENIZER_TRAIN_OPTIONS_INIT;
        options.vocab_size = 290;
        FUZZ_OK(emo_tokenizer_train(fuzz_runtime(), &options, &reader, &trained, &err));
        FUZZ_OK(emo_tokenizer_create_bytes(fuzz_runtime(), &bytes, &err));
    }
    const char *text = size > 0 ? (const char *)data : "";
    bool valid = emo__utf8_valid(text, size); /* what is not becomes U+FFFD */
    round_trip(bytes, text, size, valid);
    round_trip(trained, text, size, valid);
    /* the bytes as ids */
    int32_t ids[64];
    size_t n = size / 2 < 64 ? size / 2 : 64;
    char out[64];
    size_t length = 0;
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)data[2 * i] * 2 - (int32_t)data[2 * i + 1];
    emo_status status = emo_tokenizer_decode(trained, ids, n, out, sizeof out, &length, &err);
    (void)FUZZ_CALL(status);
    emo_tokenizer_encode_options special = EMO_TOKENIZER_ENCODE_OPTIONS_INIT;
    special.parse_special = 1;
    (void)FUZZ_CALL(emo_tokenizer_encode_with(trained, &special, text, size, NULL, 0, &n, &err));
}

/* ---- documents ---- */

static void read_documents(const char *path, emo_token_type type) {
    static emo_tokenizer *tok;
    emo_runtime *rt = fuzz_runtime();
    emo_error err = EMO_ERROR_INIT;
    if (tok == NULL)
        FUZZ_OK(emo_tokenizer_create_bytes(rt, &tok, &err));
    int64_t counts[2] = {-1, -1};
    for (int skip = 0; skip < 2; skip++) {
        emo_dataset *set = NULL;
        emo_dataset_options options = EMO_DATASET_OPTIONS_INIT;
        options.skip_broken = skip;
        options.token_type = type;
        if (!FUZZ_CALL(emo_dataset_open(rt, &path, 1, tok, &options, &set, &err)))
            continue;
        counts[skip] = emo_dataset_count(set);
        FUZZ_CHECK(counts[skip] > 0 && (skip == 1 || emo_dataset_skipped(set) == 0));
        int64_t tokens = 0;
        for (int64_t i = 0; i < counts[skip]; i++) {
            emo_document d;
            FUZZ_OK(emo_dataset_document(set, i, &d, &err));
            FUZZ_CHECK(d.count > 0 && d.prompt_tokens <= d.count);
            for (int64_t k = 0; k < d.count; k++)
                FUZZ_CHECK(d.tokens[k] >= 0 && d.tokens[k] < emo_dataset_vocab_size(set));
            tokens += d.count;
        }
        FUZZ_CHECK(tokens == emo_dataset_tokens(set));
        emo_dataset_release(set);
    }
    FUZZ_CHECK(counts[0] < 0 || counts[0] == counts[1]); /* nothing is left out of what is sound */
}

void fuzz_jsonl(const uint8_t *data, size_t size) {
    emo_error err = EMO_ERROR_INIT;
    emo_choices *items = NULL;
    const char *path = fuzz_file("d.jsonl", data, size);
    read_documents(path, EMO_TOKENS_U16);
    if (!FUZZ_CALL(emo_choices_open(fuzz_runtime(), path, &items, &err)))
        return;
    for (int64_t i = 0; i < emo_choices_count(items); i++) {
        emo_choice_item item;
        FUZZ_OK(emo_choices_item(items, i, &item, &err));
        FUZZ_CHECK(item.count >= 2 && item.answer >= 0 && item.answer < item.count);
    }
    emo_choices_release(items);
}

void fuzz_gzip(const uint8_t *data, size_t size) {
    read_documents(fuzz_file("d.jsonl.gz", data, size), EMO_TOKENS_U16);
    read_documents(fuzz_file("d.txt.gz", data, size), EMO_TOKENS_U16);
}

/* The first byte says whether tokens without a header have two bytes or four. */
void fuzz_npy(const uint8_t *data, size_t size) {
    if (size > 0)
        read_documents(fuzz_file("d.npy", data + 1, size - 1), data[0] % 2 == 0 ? EMO_TOKENS_U16 : EMO_TOKENS_U32);
}
