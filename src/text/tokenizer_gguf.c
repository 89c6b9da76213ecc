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
enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER = 4, UNUSED = 5 };

/* Names of patterns in tokenizer.ggml.pre. Of those that mean one and the same the first is written. */
typedef struct pattern_row {
    const char *name;
    emo__scanner scanner;
    bool whole; /* a piece that is a token is that token, whatever its merges say; and bos stands before a text unless
                   the file says otherwise */
} pattern_row;

static const pattern_row patterns[] = {
    {"dbrx", EMO__SCAN_CL100K, false},     {"llama-bpe", EMO__SCAN_CL100K, true},  {"gpt-2", EMO__SCAN_GPT2, false},
    {"qwen2", EMO__SCAN_QWEN2, false},     {"smaug-bpe", EMO__SCAN_CL100K, false}, {"llama3", EMO__SCAN_CL100K, true},
    {"llama-v3", EMO__SCAN_CL100K, true},  {"olmo", EMO__SCAN_GPT2, false},        {"phi-2", EMO__SCAN_GPT2, false},
    {"stablelm2", EMO__SCAN_QWEN2, false},
};
enum { PATTERNS = sizeof patterns / sizeof patterns[0] };

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
    bool whole = tok->ignore_merges && tok->n_merges > 0;
    for (size_t i = 0; i < PATTERNS; i++)
        if (patterns[i].scanner == scanner && patterns[i].whole == whole)
            return patterns[i].name;
    return NULL;
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

/* What the post-processor puts around a text: bos before it and eos behind it can be said. */
static emo_status put_around(const emo_tokenizer *tok, const emo__tok_ids *model_ids, emo__gguf_writer *w,
                             emo_error *err) {
    emo__tok_ids ids = *model_ids;
    if (tok->n_before == 1 && ids.bos < 0)
        ids.bos = tok->before[0];
    if (tok->n_after == 1 && ids.eos < 0)
        ids.eos = tok->after[0];
    bool bos = tok->n_before == 1 && tok->before[0] == ids.bos, eos = tok->n_after == 1 && tok->after[0] == ids.eos;
    if (tok->n_before > (bos ? 1u : 0u) || tok->n_after > (eos ? 1u : 0u) || tok->unknown_template != NULL)
        emo__log(tok->rt, EMO_LOG_WARNING,
                 "the tokenizer's post-processor adds more than bos before a text and eos behind it, which GGUF cannot "
                 "say: other programs will not add it");
    emo_status status = put_ids(&ids, w, err);
    if (status == EMO_OK)
        status = emo__gguf_put_bool(w, "tokenizer.ggml.add_bos_token", bos, err);
    if (status == EMO_OK)
        status = emo__gguf_put_bool(w, "tokenizer.ggml.add_eos_token", eos, err);
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
    EMO_TRY(status = put_around(tok, ids, w, err));
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
        if (status != EMO_OK || type == UNUSED || added != (type == CONTROL || type == USER || type == UNKNOWN))
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
        emo__jw_bool(w, "special", type != USER);
        emo__jw_bool(w, "normalized", false);
        emo__jw_object_end(w);
    }
    return status;
}

/* bos before a text and eos behind it, where the file asks for them. */
static emo_status write_around(const emo__gguf *g, emo__jw *w, bool bos_usual, emo_error *err) {
    static const char *const names[2] = {"bos", "eos"};
    int64_t ids[2];
    bool add[2];
    emo_status status = EMO_OK;
    for (int i = 0; status == EMO_OK && i < 2; i++) {
        char key[48];
        (void)snprintf(key, sizeof key, "tokenizer.ggml.add_%s_token", names[i]);
        status = emo__gguf_bool(g, key, i == 0 && bos_usual, &add[i], err);
        (void)snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", names[i]);
        if (status == EMO_OK)
            status = emo__gguf_i64(g, key, -1, 0, INT32_MAX, &ids[i], err);
        add[i] = status == EMO_OK && add[i] && ids[i] >= 0;
    }
    if (status != EMO_OK || (!add[0] && !add[1]))
        return status;
    emo__jw_object(w, "post_processor");
    emo__jw_string(w, "type", "TemplateProcessing");
    emo__jw_array(w, "single");
    for (int i = 0; i < 3; i++) { /* bos, the text, eos */
        if (i != 1 && !add[i / 2])
            continue;
        emo__jw_object(w, NULL);
        emo__jw_object(w, i == 1 ? "Sequence" : "SpecialToken");
        emo__jw_string(w, "id", i == 1 ? "A" : names[i / 2]);
        emo__jw_i64(w, "type_id", 0);
        emo__jw_object_end(w);
        emo__jw_object_end(w);
    }
    emo__jw_array_end(w);
    emo__jw_object(w, "special_tokens");
    for (int i = 0; i < 2; i++) {
        if (!add[i])
            continue;
        emo__jw_object(w, names[i]);
        emo__jw_string(w, "id", names[i]);
        emo__jw_row(w, "ids");
        emo__jw_i64(w, NULL, ids[i]);
        emo__jw_array_end(w);
        emo__jw_object_end(w);
    }
    emo__jw_object_end(w);
    emo__jw_object_end(w);
    return EMO_OK;
}

/* The arrays as the text of a tokenizer.json, so that one parser checks both forms. */
static emo_status arrays_as_json(const emo__gguf *g, const pattern_row *pattern, emo__buf *out, emo_error *err) {
    emo__jw w;
    emo__gguf_array merges;
    emo_status status = emo__gguf_array_open(g, "tokenizer.ggml.merges", &merges, err);
    emo__jw_begin(&w, out, 0, err);
    emo__jw_object(&w, NULL);
    emo__jw_array(&w, "added_tokens");
    if (status == EMO_OK)
        status = write_tokens(g, &w, true, err);
    emo__jw_array_end(&w);
    write_pattern(&w, pattern->scanner == EMO__SCAN_CL100K  ? EMO__PATTERN_CL100K
                      : pattern->scanner == EMO__SCAN_QWEN2 ? EMO__PATTERN_QWEN2
                                                            : NULL);
    if (status == EMO_OK)
        status = write_around(g, &w, pattern->whole, err);
    emo__jw_object(&w, "model");
    emo__jw_string(&w, "type", "BPE");
    emo__jw_bool(&w, "ignore_merges", pattern->whole);
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
    const pattern_row *pattern = NULL;
    for (size_t i = 0; pattern == NULL && i < PATTERNS; i++)
        if (is(text, length, patterns[i].name))
            pattern = &patterns[i];
    if (!is(model, model_length, "gpt2") || pattern == NULL)
        return emo__fail_at(err, EMO_E_UNSUPPORTED, EMO_DOMAIN_FILE, 0,
                            "%s: a tokenizer of the kind '%.*s' with the pattern '%.*s'", emo__gguf_name(g),
                            (int)(model_length < 40 ? model_length : 40), model, (int)(length < 40 ? length : 40),
                            text != NULL ? text : "");
    emo__buf json;
    emo__buf_init(&json, &rt->mem);
    status = arrays_as_json(g, pattern, &json, err);
    if (status == EMO_OK && (status = emo__tok_read_json(rt, json.data, json.size, out, err)) != EMO_OK)
        status = emo__fail_prefix(err, status, "%s, as", emo__gguf_name(g));
    emo__buf_free(&json);
    return status;
}
