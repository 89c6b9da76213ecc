/* SPDX-License-Identifier: Apache-2.0 */
#include <emo/tokenizer.h>

#include <string.h>

#include "base/options.h"
#include "base/status.h"
#include "data/texts.h"
#include "io/files.h"
#include "text/encode.h"
#include "text/tokenizer_json.h"
#include "text/train.h"
#include "text/unicode.h"

#define MAX_FILE ((size_t)1 << 28)

#define NEED(argument)                                                                                                 \
    do {                                                                                                               \
        if ((argument) == NULL)                                                                                        \
            return emo__fail(err, EMO_E_INVALID_ARGUMENT, #argument " is NULL");                                       \
    } while (0)

static emo_status byte_tokenizer(emo_tokenizer *tok, emo_error *err) {
    emo_status status = EMO_OK;
    for (int b = 0; b < 256 && status == EMO_OK; b++) {
        char byte = (char)b;
        status = emo__tok_set(tok, b, &byte, 1, EMO__TOKEN_MODEL, err);
    }
    emo__added added = {.id = 256};
    if (status == EMO_OK)
        status = emo__tok_set(tok, 256, EMO_TOKENIZER_EOS, sizeof EMO_TOKENIZER_EOS - 1,
                              EMO__TOKEN_ADDED | EMO__TOKEN_SPECIAL, err);
    if (status == EMO_OK)
        status = emo__tok_add_added(tok, &added, err);
    if (status == EMO_OK)
        status = emo__tok_index(tok, err);
    return status == EMO_OK ? emo__tok_finish(tok, err) : status;
}

emo_status emo_tokenizer_create_bytes(emo_runtime *runtime, emo_tokenizer **out, emo_error *err) {
    emo__error_clear(err);
    NEED(out);
    *out = NULL;
    NEED(runtime);
    emo_tokenizer *tok;
    emo_status status = emo__tok_new(runtime, &tok, err);
    if (status != EMO_OK)
        return status;
    status = byte_tokenizer(tok, err);
    if (status != EMO_OK) {
        emo__tok_destroy(tok);
        return status;
    }
    *out = tok;
    return EMO_OK;
}

emo_status emo_tokenizer_from_json(emo_runtime *runtime, const char *text, size_t length, emo_tokenizer **out,
                                   emo_error *err) {
    emo__error_clear(err);
    NEED(out);
    *out = NULL;
    NEED(runtime);
    NEED(text);
    return emo__tok_read_json(runtime, text, length, out, err);
}

emo_status emo_tokenizer_load(emo_runtime *runtime, const char *path, emo_tokenizer **out, emo_error *err) {
    emo__error_clear(err);
    NEED(out);
    *out = NULL;
    NEED(runtime);
    NEED(path);
    emo__buf file;
    emo__buf_init(&file, &runtime->mem);
    char *text = NULL;
    size_t size = 0;
    emo_status status = EMO_OK;
    if (emo__path_is_dir(path)) {
        status = emo__path_join(&file, path, "tokenizer.json", err);
        path = file.data;
    }
    if (status == EMO_OK)
        status = emo__file_read(&runtime->mem, path, MAX_FILE, &text, &size, err);
    if (status == EMO_OK) {
        status = emo__tok_read_json(runtime, text, size, out, err);
        if (status == EMO_E_FORMAT || status == EMO_E_UNSUPPORTED)
            status = emo__fail_prefix(err, status, "%s", path);
    }
    emo__free(&runtime->mem, text);
    emo__buf_free(&file);
    return status;
}

emo_status emo_tokenizer_load_source(emo_runtime *runtime, const emo_source *source, emo_tokenizer **out,
                                     emo_error *err) {
    emo__error_clear(err);
    NEED(out);
    *out = NULL;
    NEED(runtime);
    NEED(source);
    uint64_t size = emo_source_size(source);
    if (size > MAX_FILE)
        return emo__fail(err, EMO_E_LIMIT, "the source has %llu bytes; a tokenizer.json may have %zu",
                         (unsigned long long)size, MAX_FILE);
    char *text = emo__alloc(&runtime->mem, (size_t)size + 1);
    if (text == NULL)
        return emo__fail_memory(err, (size_t)size + 1);
    emo_status status = emo_source_read_at(source, 0, text, (size_t)size, err);
    if (status == EMO_OK)
        status = emo__tok_read_json(runtime, text, (size_t)size, out, err);
    emo__free(&runtime->mem, text);
    return status;
}

emo_status emo_tokenizer_save(const emo_tokenizer *tokenizer, const char *path, emo_error *err) {
    emo__error_clear(err);
    NEED(tokenizer);
    NEED(path);
    emo__buf text;
    emo__buf_init(&text, &tokenizer->rt->mem);
    emo_status status = emo__tok_write_json(tokenizer, &text, err);
    if (status == EMO_OK)
        status = emo__file_write(&tokenizer->rt->mem, path, text.data, text.size, err);
    emo__buf_free(&text);
    return status;
}

emo_status emo_tokenizer_to_json(const emo_tokenizer *tokenizer, char *out, size_t capacity, size_t *size,
                                 emo_error *err) {
    emo__error_clear(err);
    NEED(size);
    *size = 0;
    NEED(tokenizer);
    if (capacity > 0)
        NEED(out);
    emo__buf text;
    emo__buf_init(&text, &tokenizer->rt->mem);
    emo_status status = emo__tok_write_json(tokenizer, &text, err);
    if (status == EMO_OK) {
        *size = text.size;
        if (capacity > 0 && capacity < text.size)
            status =
                emo__fail(err, EMO_E_LIMIT, "the JSON has %zu bytes; the buffer has room for %zu", text.size, capacity);
        else if (capacity > 0)
            memcpy(out, text.data, text.size);
    }
    emo__buf_free(&text);
    return status;
}

void emo_tokenizer_release(emo_tokenizer *tokenizer) {
    if (tokenizer != NULL && emo__ref_put(&tokenizer->ref))
        emo__tok_destroy(tokenizer);
}

int32_t emo_tokenizer_vocab_size(const emo_tokenizer *tokenizer) {
    return tokenizer != NULL ? tokenizer->vocab_size : 0;
}

int32_t emo_tokenizer_eos(const emo_tokenizer *tokenizer) {
    return tokenizer != NULL ? atomic_load(&tokenizer->eos) : -1;
}

emo_status emo_tokenizer_set_eos(emo_tokenizer *tokenizer, int32_t id, emo_error *err) {
    emo__error_clear(err);
    NEED(tokenizer);
    if (id != -1 && !emo__tok_has(tokenizer, id))
        return emo__fail(err, EMO_E_RANGE, "id %d: the tokenizer has no such token (its ids end at %d)", (int)id,
                         (int)tokenizer->vocab_size - 1);
    if (!emo__guard_try_write(&tokenizer->guard))
        return emo__fail(err, EMO_E_BUSY, "the tokenizer is in use by another thread");
    atomic_store(&tokenizer->eos, id);
    emo__guard_end_write(&tokenizer->guard);
    return EMO_OK;
}

int32_t emo_tokenizer_token_to_id(const emo_tokenizer *tokenizer, const char *bytes, size_t length) {
    return tokenizer != NULL && bytes != NULL ? emo__tok_find(tokenizer, bytes, length) : -1;
}

emo_status emo_tokenizer_id_to_token(const emo_tokenizer *tokenizer, int32_t id, const char **bytes, size_t *length,
                                     emo_error *err) {
    emo__error_clear(err);
    NEED(bytes);
    NEED(length);
    *bytes = NULL;
    *length = 0;
    NEED(tokenizer);
    if (!emo__tok_has(tokenizer, id))
        return emo__fail(err, EMO_E_NOT_FOUND, "id %d: the tokenizer has no such token (its ids end at %d)", (int)id,
                         (int)tokenizer->vocab_size - 1);
    *bytes = emo__tok_bytes(tokenizer, id);
    *length = tokenizer->tokens[id].length;
    return EMO_OK;
}

int32_t emo_tokenizer_is_special(const emo_tokenizer *tokenizer, int32_t id) {
    return tokenizer != NULL && emo__tok_has(tokenizer, id) && (tokenizer->tokens[id].flags & EMO__TOKEN_SPECIAL) != 0;
}

uint64_t emo_tokenizer_hash(const emo_tokenizer *tokenizer) { return tokenizer != NULL ? tokenizer->hash : 0; }

/* Readers count themselves in the guard, which is the one part of a const tokenizer that changes. */
emo_status emo_tokenizer_encode_with(const emo_tokenizer *tokenizer, const emo_tokenizer_encode_options *options,
                                     const char *text, size_t length, int32_t *ids, size_t capacity, size_t *count,
                                     emo_error *err) {
    emo__error_clear(err);
    NEED(count);
    *count = 0;
    NEED(tokenizer);
    if (length > 0)
        NEED(text);
    if (capacity > 0)
        NEED(ids);
    emo_tokenizer_encode_options opt = EMO_TOKENIZER_ENCODE_OPTIONS_INIT;
    emo_status status = emo__options_copy(&opt, sizeof opt, options, "emo_tokenizer_encode_options", err);
    if (status != EMO_OK)
        return status;
    if (opt.parse_special != 0 && opt.parse_special != 1)
        return emo__fail(err, EMO_E_RANGE, "parse_special is %d; it must be 0 or 1", (int)opt.parse_special);
    if (opt.add_special != 0 && opt.add_special != 1)
        return emo__fail(err, EMO_E_RANGE, "add_special is %d; it must be 0 or 1", (int)opt.add_special);
    status = emo__options_reserved(opt.reserved, "emo_tokenizer_encode_options", err);
    if (status != EMO_OK)
        return status;
    if (length == 0)
        text = "";
    emo__encode_flags flags = {opt.parse_special != 0, opt.add_special != 0, &opt.progress};
    emo__id_sink sink = {ids, capacity, 0};
    status = emo__encode_shared(tokenizer, &flags, text, length, &sink, err);
    *count = sink.count;
    return status;
}

emo_status emo_tokenizer_encode(const emo_tokenizer *tokenizer, const char *text, size_t length, int32_t *ids,
                                size_t capacity, size_t *count, emo_error *err) {
    return emo_tokenizer_encode_with(tokenizer, NULL, text, length, ids, capacity, count, err);
}

emo_status emo_tokenizer_decode(const emo_tokenizer *tokenizer, const int32_t *ids, size_t n, char *out,
                                size_t capacity, size_t *size, emo_error *err) {
    emo__error_clear(err);
    NEED(size);
    *size = 0;
    NEED(tokenizer);
    if (n > 0)
        NEED(ids);
    if (capacity > 0)
        NEED(out);
    return emo__decode_shared(tokenizer, ids, n, out, capacity, size, err);
}

emo_status emo_tokenizer_train(emo_runtime *runtime, const emo_tokenizer_train_options *options,
                               const emo_text_reader *reader, emo_tokenizer **out, emo_error *err) {
    emo__error_clear(err);
    NEED(out);
    *out = NULL;
    NEED(runtime);
    NEED(reader);
    NEED(reader->next);
    emo_tokenizer_train_options opt = EMO_TOKENIZER_TRAIN_OPTIONS_INIT;
    emo_status status = emo__options_copy(&opt, sizeof opt, options, "emo_tokenizer_train_options", err);
    if (status != EMO_OK)
        return status;
    if (opt.vocab_size < 257 || opt.vocab_size > EMO__MAX_TOKENS)
        return emo__fail(err, EMO_E_RANGE, "vocab_size is %d; it must be 257 to %d", (int)opt.vocab_size,
                         EMO__MAX_TOKENS);
    if (opt.min_frequency < 1)
        return emo__fail(err, EMO_E_RANGE, "min_frequency is %lld; it must be at least 1",
                         (long long)opt.min_frequency);
    if (opt.eos != NULL && (opt.eos[0] == '\0' || !emo__utf8_valid(opt.eos, strlen(opt.eos))))
        return emo__fail(err, EMO_E_RANGE, "eos must be UTF-8 and not empty");
    status = emo__train(runtime, &opt, reader, out, err);
    if (status != EMO_OK && err != NULL && reader->next == emo__texts_read) {
        const emo_error *failure = &((const emo_texts *)reader->ctx)->failure;
        if (failure->code == status) /* says where */
            *err = *failure;
    }
    return status;
}
