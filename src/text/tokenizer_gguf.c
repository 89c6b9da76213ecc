/* SPDX-License-Identifier: Apache-2.0 */
/* Two forms stand side by side in a file: the arrays that llama.cpp reads, and the whole tokenizer.json, which says
 * more and is read first where it is there. */
#include "text/tokenizer_gguf.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "io/json.h"
#include "text/tokenizer_json.h"

#define HF_JSON "tokenizer.huggingface.json"

/* Kinds of tokens in tokenizer.ggml.token_type. */
enum { NORMAL = 1, CONTROL = 3, USER = 4, UNUSED = 5 };

/* The name of the pattern; NULL: it has none there. */
static const char *pattern_name(const emo_tokenizer *tok) {
    emo__scanner scanner = EMO__SCAN_REGEX;
    const emo__split *split = &tok->splits[0];
    /* the patterns leave no gaps: keeping the matches and removing what is between them are the same */
    bool pieces =
        (split->behavior == EMO__ISOLATED && !split->invert) || (split->behavior == EMO__REMOVED && split->invert);
    if (tok->n_splits == 1 && tok->gpt2 == NULL)
        scanner = pieces ? split->scanner : EMO__SCAN_REGEX;
    else if (tok->n_splits == 0 && (tok->gpt2 != NULL || tok->n_merges == 0))
        scanner = EMO__SCAN_GPT2;
    if (scanner == EMO__SCAN_CL100K)
        return tok->ignore_merges ? "llama-bpe" : "dbrx";
    if (tok->ignore_merges && tok->n_merges > 0)
        return NULL;
    return scanner == EMO__SCAN_GPT2 ? "gpt-2" : scanner == EMO__SCAN_QWEN2 ? "qwen2" : NULL;
}

static emo_status put_text(emo__gguf_writer *w, const char *key, const char *text, emo_error *err) {
    return emo__gguf_put_string(w, key, text, strlen(text), err);
}

/* A token that the text can never become. Names are unique, as readers want them. */
static emo_status unused_name(const emo_tokenizer *tok, int32_t id, emo__buf *text, emo_error *err) {
    text->size = 0;
    emo_status status = emo__buf_printf(text, err, "[PAD%d]", (int)id);
    while (status == EMO_OK && emo__tok_find(tok, text->data, text->size) >= 0)
        status = emo__buf_append(text, "_", 1, err);
    return status;
}

static emo_status put_tokens(const emo_tokenizer *tok, int32_t vocab, emo__gguf_writer *w, emo_error *err) {
    emo__buf text;
    emo__buf_init(&text, &tok->rt->mem);
    emo_status status = emo__gguf_put_array(w, "tokenizer.ggml.tokens", EMO__GGUF_STRING, (uint64_t)vocab, err);
    for (int32_t id = 0; status == EMO_OK && id < vocab; id++) {
        if (!emo__tok_has(tok, id)) {
            status = unused_name(tok, id, &text, err);
        } else if ((tok->tokens[id].flags & EMO__TOKEN_ADDED) != 0) {
            text.size = 0;
            status = emo__buf_append(&text, emo__tok_bytes(tok, id), tok->tokens[id].length, err);
        } else {
            status = emo__tok_spell(tok, id, &text, err);
        }
        if (status == EMO_OK)
            status = emo__gguf_put_item_string(w, text.data, text.size, err);
    }
    emo__buf_free(&text);
    if (status == EMO_OK)
        status = emo__gguf_put_array(w, "tokenizer.ggml.token_type", EMO__GGUF_I32, (uint64_t)vocab, err);
    for (int32_t id = 0; status == EMO_OK && id < vocab; id++) {
        uint32_t flags = emo__tok_has(tok, id) ? tok->tokens[id].flags : 0;
        int32_t kind = flags == 0                          ? UNUSED
                       : (flags & EMO__TOKEN_SPECIAL) != 0 ? CONTROL
                       : (flags & EMO__TOKEN_ADDED) != 0   ? USER
                                                           : NORMAL;
        status = emo__gguf_put_item_i32(w, kind, err);
    }
    return status;
}

static emo_status put_merges(const emo_tokenizer *tok, emo__gguf_writer *w, emo_error *err) {
    emo__buf left, right;
    emo__buf_init(&left, &tok->rt->mem);
    emo__buf_init(&right, &tok->rt->mem);
    emo_status status = emo__gguf_put_array(w, "tokenizer.ggml.merges", EMO__GGUF_STRING, tok->n_merges, err);
    for (size_t i = 0; status == EMO_OK && i < tok->n_merges; i++) {
        status = emo__tok_spell(tok, tok->merges[i].left, &left, err);
        if (status == EMO_OK)
            status = emo__tok_spell(tok, tok->merges[i].right, &right, err);
        if (status == EMO_OK)
            status = emo__buf_append(&left, " ", 1, err);
        if (status == EMO_OK)
            status = emo__buf_append(&left, right.data, right.size, err);
        if (status == EMO_OK)
            status = emo__gguf_put_item_string(w, left.data, left.size, err);
    }
    emo__buf_free(&left);
    emo__buf_free(&right);
    return status;
}

static emo_status put_json(const emo_tokenizer *tok, emo__gguf_writer *w, emo_error *err) {
    emo__buf text;
    emo__buf_init(&text, &tok->rt->mem);
    emo_status status = emo__tok_write_json(tok, &text, err);
    if (status == EMO_OK)
        status = emo__gguf_put_string(w, HF_JSON, text.data, text.size, err);
    emo__buf_free(&text);
    return status;
}

static emo_status put_ids(const emo__tok_ids *ids, emo__gguf_writer *w, emo_error *err) {
    emo_status status = EMO_OK;
    if (ids->eos >= 0)
        status = emo__gguf_put_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)ids->eos, err);
    if (status == EMO_OK && ids->bos >= 0)
        status = emo__gguf_put_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)ids->bos, err);
    if (status == EMO_OK && ids->pad >= 0)
        status = emo__gguf_put_u32(w, "tokenizer.ggml.padding_token_id", (uint32_t)ids->pad, err);
    return status;
}

emo_status emo__tok_write_gguf(const emo_tokenizer *tok, const emo__tok_ids *ids, emo__gguf_writer *w, emo_error *err) {
    emo_status status;
    if (tok == NULL) {
        status = put_text(w, "tokenizer.ggml.model", "none", err);
        return status == EMO_OK ? put_ids(ids, w, err) : status;
    }
    const char *pattern = pattern_name(tok);
    if (tok->prefix_space)
        return emo__fail(err, EMO_E_UNSUPPORTED,
                         "the tokenizer puts a space before every text (add_prefix_space), which GGUF cannot say; "
                         "export without the tokenizer");
    if (pattern == NULL)
        return emo__fail(err, EMO_E_UNSUPPORTED,
                         "the tokenizer cuts texts by a pattern that GGUF has no name for (known are those of cl100k, "
                         "GPT-2 and Qwen2); export without the tokenizer");
    if (tok->partial)
        return emo__fail(err, EMO_E_UNSUPPORTED,
                         "the tokenizer lacks tokens for some bytes, which readers of GGUF need; export without the "
                         "tokenizer");
    if (tok->n_forms > 0)
        emo__log(tok->rt, EMO_LOG_WARNING,
                 "the tokenizer brings texts into a Unicode normal form, which GGUF cannot say: other programs encode "
                 "texts that are not in it differently");
    EMO_TRY(status = put_text(w, "tokenizer.ggml.model", "gpt2", err));
    EMO_TRY(status = put_text(w, "tokenizer.ggml.pre", pattern, err));
    EMO_TRY(status = put_tokens(tok, ids->vocab, w, err));
    EMO_TRY(status = put_merges(tok, w, err));
    EMO_TRY(status = put_ids(ids, w, err));
    EMO_TRY(status = emo__gguf_put_bool(w, "tokenizer.ggml.add_bos_token", false, err));
    EMO_TRY(status = emo__gguf_put_bool(w, "tokenizer.ggml.add_eos_token", false, err));
    status = put_json(tok, w, err);
done:
    return status;
}

/* ---- reading ---- */

static bool is(const char *text, size_t length, const char *word) {
    return text != NULL && length == strlen(word) && memcmp(text, word, length) == 0;
}

static void write_pattern(emo__jw *w, const char *regex) {
    emo__jw_object(w, "pre_tokenizer");
    if (regex != NULL) {
        emo__jw_string(w, "type", "Sequence");
        emo__jw_array(w, "pretokenizers");
        emo__jw_object(w, NULL);
        emo__jw_string(w, "type", "Split");
        emo__jw_object(w, "pattern");
        emo__jw_string(w, "Regex", regex);
        emo__jw_object_end(w);
        emo__jw_string(w, "behavior", "Isolated");
        emo__jw_object_end(w);
        emo__jw_object(w, NULL);
    }
    emo__jw_string(w, "type", "ByteLevel");
    emo__jw_bool(w, "add_prefix_space", false);
    emo__jw_bool(w, "use_regex", regex == NULL);
    emo__jw_object_end(w);
    if (regex != NULL) {
        emo__jw_array_end(w);
        emo__jw_object_end(w);
    }
}

/* The tokens of one sort: added ones as a list of objects, the others as members. */
static emo_status write_tokens(const emo__gguf *g, emo__jw *w, bool added, emo_error *err) {
    emo__gguf_array tokens, types;
    emo_status status = emo__gguf_array_open(g, "tokenizer.ggml.tokens", &tokens, err);
    if (status == EMO_OK)
        status = emo__gguf_array_open(g, "tokenizer.ggml.token_type", &types, err);
    if (status == EMO_OK && tokens.count > EMO__MAX_TOKENS)
        status = emo__fail_at(err, EMO_E_LIMIT, EMO_DOMAIN_FILE, 0, "%s: too many tokens", emo__gguf_name(g));
    if (status == EMO_OK && types.key != NULL && types.count != tokens.count)
        status = emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: %llu tokens, but %llu kinds of tokens",
                              emo__gguf_name(g), (unsigned long long)tokens.count, (unsigned long long)types.count);
    for (int64_t id = 0; status == EMO_OK && tokens.count > 0; id++) {
        const char *text;
        size_t length;
        int64_t type = NORMAL;
        status = emo__gguf_array_string(&tokens, &text, &length, err);
        if (status == EMO_OK && types.key != NULL)
            status = emo__gguf_array_i64(&types, &type, err);
        if (status != EMO_OK || type == UNUSED || added != (type == CONTROL || type == USER))
            continue;
        if (memchr(text, 0, length) != NULL)
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, id, "%s: token %lld holds a NUL byte",
                                emo__gguf_name(g), (long long)id);
        if (!added) {
            emo__buf key; /* members want a NUL behind the key */
            emo__buf_init(&key, w->buf->mem);
            status = emo__buf_append(&key, text, length, err);
            if (status == EMO_OK)
                emo__jw_i64(w, key.data != NULL ? key.data : "", id);
            emo__buf_free(&key);
            continue;
        }
        emo__jw_object(w, NULL);
        emo__jw_i64(w, "id", id);
        emo__jw_string_n(w, "content", text, length);
        emo__jw_bool(w, "special", type == CONTROL);
        emo__jw_bool(w, "normalized", false);
        emo__jw_object_end(w);
    }
    return status;
}

/* The arrays as the text of a tokenizer.json, so that one parser checks both forms. */
static emo_status arrays_as_json(const emo__gguf *g, const char *regex, bool ignore_merges, emo__buf *out,
                                 emo_error *err) {
    emo__jw w;
    emo__gguf_array merges;
    emo_status status = emo__gguf_array_open(g, "tokenizer.ggml.merges", &merges, err);
    emo__jw_begin(&w, out, 0, err);
    emo__jw_object(&w, NULL);
    emo__jw_array(&w, "added_tokens");
    if (status == EMO_OK)
        status = write_tokens(g, &w, true, err);
    emo__jw_array_end(&w);
    write_pattern(&w, regex);
    emo__jw_object(&w, "model");
    emo__jw_string(&w, "type", "BPE");
    emo__jw_bool(&w, "ignore_merges", ignore_merges);
    emo__jw_object(&w, "vocab");
    if (status == EMO_OK)
        status = write_tokens(g, &w, false, err);
    emo__jw_object_end(&w);
    emo__jw_array(&w, "merges");
    while (status == EMO_OK && merges.count > 0) {
        const char *text;
        size_t length;
        status = emo__gguf_array_string(&merges, &text, &length, err);
        if (status == EMO_OK)
            emo__jw_string_n(&w, NULL, text, length);
    }
    emo__jw_array_end(&w);
    emo__jw_object_end(&w);
    emo__jw_object_end(&w);
    emo_status written = emo__jw_end(&w);
    return status == EMO_OK ? written : status;
}

emo_status emo__tok_read_gguf(emo_runtime *rt, const emo__gguf *g, emo_tokenizer **out, emo_error *err) {
    const char *text = NULL, *model = NULL;
    size_t length = 0, model_length = 0;
    *out = NULL;
    emo_status status = emo__gguf_string(g, HF_JSON, &text, &length, err);
    if (status == EMO_OK && text != NULL)
        return emo__tok_read_json(rt, text, length, out, err);
    if (status == EMO_OK)
        status = emo__gguf_string(g, "tokenizer.ggml.model", &model, &model_length, err);
    if (status != EMO_OK || model == NULL || is(model, model_length, "none"))
        return status;
    status = emo__gguf_string(g, "tokenizer.ggml.pre", &text, &length, err);
    if (status != EMO_OK)
        return status;
    bool cl100k = is(text, length, "dbrx") || is(text, length, "smaug-bpe") || is(text, length, "llama-bpe");
    bool gpt2 = is(text, length, "gpt-2") || is(text, length, "olmo");
    if (!is(model, model_length, "gpt2") || (!cl100k && !gpt2))
        return emo__fail_at(err, EMO_E_UNSUPPORTED, EMO_DOMAIN_FILE, 0,
                            "%s: a tokenizer of the kind '%.*s' with the pattern '%.*s'", emo__gguf_name(g),
                            (int)(model_length < 40 ? model_length : 40), model, (int)(length < 40 ? length : 40),
                            text != NULL ? text : "");
    emo__buf json;
    emo__buf_init(&json, &rt->mem);
    status = arrays_as_json(g, cl100k ? EMO__PATTERN_CL100K : NULL, is(text, length, "llama-bpe"), &json, err);
    if (status == EMO_OK)
        status = emo__tok_read_json(rt, json.data, json.size, out, err);
    emo__buf_free(&json);
    return status;
}
