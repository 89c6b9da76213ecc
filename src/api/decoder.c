/* SPDX-License-Identifier: Apache-2.0 */
/* The streaming decoder: whole characters only. */
#include "base/options.h"
#include "base/status.h"
#include "text/unicode.h"
#include "text/vocab.h"

#include <string.h>

struct emo_decoder {
    emo__guard guard;
    emo_tokenizer *tok;
    bool skip_special;
    emo__buf pending; /* the start of a character */
    emo__buf text;    /* what the caller sees */
};

emo_status emo_decoder_create(const emo_tokenizer *tokenizer, const emo_decoder_options *options, emo_decoder **out,
                              emo_error *err) {
    emo__error_clear(err);
    if (out != NULL)
        *out = NULL;
    if (tokenizer == NULL || out == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", tokenizer == NULL ? "tokenizer" : "out");
    emo_decoder_options opt = EMO_DECODER_OPTIONS_INIT;
    emo_status status = emo__options_copy(&opt, sizeof opt, options, "emo_decoder_options", err);
    if (status != EMO_OK)
        return status;
    if (opt.skip_special != 0 && opt.skip_special != 1)
        return emo__fail(err, EMO_E_RANGE, "skip_special is %d; it must be 0 or 1", (int)opt.skip_special);
    const emo__mem *mem = &tokenizer->rt->mem;
    emo_decoder *decoder = emo__calloc(mem, 1, sizeof *decoder);
    if (decoder == NULL)
        return emo__fail_memory(err, sizeof *decoder);
    emo__guard_init(&decoder->guard);
    emo__buf_init(&decoder->pending, mem);
    emo__buf_init(&decoder->text, mem);
    status = emo__buf_reserve(&decoder->text, 1, err);
    if (status != EMO_OK) {
        emo__free(mem, decoder);
        return status;
    }
    decoder->skip_special = opt.skip_special != 0;
    decoder->tok = (emo_tokenizer *)(uintptr_t)tokenizer; /* only the reference count is written */
    emo__ref_get(&decoder->tok->ref);
    *out = decoder;
    return EMO_OK;
}

static emo_status push(emo_decoder *decoder, int32_t id, emo_error *err) {
    const emo_tokenizer *tok = decoder->tok;
    if (!emo__tok_has(tok, id))
        return emo__fail(err, EMO_E_RANGE, "id %d: the tokenizer has no such token (its ids end at %d)", (int)id,
                         (int)tok->vocab_size - 1);
    if (decoder->skip_special && (tok->tokens[id].flags & EMO__TOKEN_SPECIAL) != 0)
        return EMO_OK;
    size_t before = decoder->pending.size, left;
    emo_status status = emo__buf_append(&decoder->pending, emo__tok_bytes(tok, id), tok->tokens[id].length, err);
    if (status == EMO_OK)
        status = emo__utf8_clean(&decoder->text, decoder->pending.data, decoder->pending.size, true, &left, err);
    if (status != EMO_OK) { /* as if nothing had been pushed */
        decoder->pending.size = before;
        decoder->text.size = 0;
        decoder->text.data[0] = '\0';
        return status;
    }
    memmove(decoder->pending.data, decoder->pending.data + decoder->pending.size - left, left);
    decoder->pending.size = left;
    return EMO_OK;
}

static emo_status flush(emo_decoder *decoder, emo_error *err) {
    size_t left;
    emo_status status =
        emo__utf8_clean(&decoder->text, decoder->pending.data, decoder->pending.size, false, &left, err);
    if (status == EMO_OK)
        decoder->pending.size = 0;
    return status;
}

/* id < 0 with `end`: flush. */
static emo_status next(emo_decoder *decoder, int32_t id, bool end, const char **text, size_t *length, emo_error *err) {
    emo__error_clear(err);
    if (text != NULL)
        *text = "";
    if (length != NULL)
        *length = 0;
    if (decoder == NULL || text == NULL || length == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "decoder, text or length is NULL");
    if (!emo__guard_try_write(&decoder->guard))
        return emo__fail(err, EMO_E_BUSY, "the decoder is in use by another thread");
    decoder->text.size = 0;
    decoder->text.data[0] = '\0';
    emo_status status = end ? flush(decoder, err) : push(decoder, id, err);
    if (status == EMO_OK) {
        *text = decoder->text.data;
        *length = decoder->text.size;
    }
    emo__guard_end_write(&decoder->guard);
    return status;
}

emo_status emo_decoder_push(emo_decoder *decoder, int32_t id, const char **text, size_t *length, emo_error *err) {
    return next(decoder, id, false, text, length, err);
}

emo_status emo_decoder_flush(emo_decoder *decoder, const char **text, size_t *length, emo_error *err) {
    return next(decoder, -1, true, text, length, err);
}

void emo_decoder_release(emo_decoder *decoder) {
    if (decoder == NULL)
        return;
    emo_tokenizer *tok = decoder->tok;
    emo__buf_free(&decoder->pending);
    emo__buf_free(&decoder->text);
    emo__free(&tok->rt->mem, decoder);
    emo_tokenizer_release(tok);
}
