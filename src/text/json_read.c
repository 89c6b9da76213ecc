/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer.json to a tokenizer. */
#include <string.h>

#include "base/status.h"
#include "io/json.h"
#include "text/tokenizer_json.h"
#include "text/unicode.h"

#define WHERE "tokenizer.json"
#define EXTRA_IDS 65536 /* holes that ids may leave */

static emo_status read_added(emo_tokenizer *tok, const emo__json *list, size_t vocab, emo_error *err) {
    static const char *const place = WHERE ": added_tokens";
    size_t n = emo__json_size(list);
    if (list != NULL && emo__json_typeof(list) != EMO__JSON_ARRAY)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s must be a list", place);
    int64_t limit = (int64_t)vocab + (int64_t)n + EXTRA_IDS;
    if (limit > EMO__MAX_TOKENS)
        limit = EMO__MAX_TOKENS;
    for (size_t i = 0; i < n; i++) {
        const emo__json *node = emo__json_at(list, i);
        size_t length;
        const char *content = emo__json_string(emo__json_get(node, "content"), &length);
        if (content == NULL || length == 0)
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, (int64_t)i, "%s[%zu]: content must be text", place,
                                i);
        emo__added added = {0};
        bool special;
        emo_status status = emo__json_need_i32(node, "id", place, 0, (int32_t)limit - 1, &added.id, err);
        if (status == EMO_OK)
            status = emo__json_opt_bool(node, "special", place, false, &special, err);
        if (status == EMO_OK)
            status = emo__json_opt_bool(node, "lstrip", place, false, &added.lstrip, err);
        if (status == EMO_OK)
            status = emo__json_opt_bool(node, "rstrip", place, false, &added.rstrip, err);
        if (status == EMO_OK)
            status = emo__json_opt_bool(node, "normalized", place, false, &added.normalized, err);
        if (status == EMO_OK)
            status = emo__json_opt_bool(node, "single_word", place, false, &added.single_word, err);
        if (status == EMO_OK && emo__tok_has(tok, added.id))
            status = emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, added.id, "%s: two tokens have the id %d", place,
                                  (int)added.id);
        if (status == EMO_OK)
            status = emo__tok_set(tok, added.id, content, length,
                                  EMO__TOKEN_ADDED | (special ? (uint32_t)EMO__TOKEN_SPECIAL : 0u), err);
        if (status == EMO_OK)
            status = emo__tok_add_added(tok, &added, err);
        if (status != EMO_OK)
            return status;
    }
    return EMO_OK;
}

/* Added tokens are there already: their own text wins over the vocabulary's spelling. */
static emo_status read_vocab(emo_tokenizer *tok, const emo__json *vocab, size_t n_added, emo_error *err) {
    static const char *const place = WHERE ": model: vocab";
    emo__buf bytes;
    emo__buf_init(&bytes, &tok->rt->mem);
    emo_status status = EMO_OK;
    int64_t limit = (int64_t)emo__json_size(vocab) + (int64_t)n_added + EXTRA_IDS;
    if (limit > EMO__MAX_TOKENS)
        limit = EMO__MAX_TOKENS;
    for (emo__json_iter it = emo__json_members(vocab); status == EMO_OK && emo__json_next(&it);) {
        int64_t id;
        size_t length = strlen(it.key);
        if (!emo__json_i64(it.value, &id)) {
            status = emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: the id of '%.80s' is not an integer",
                                  place, it.key);
            break;
        }
        if (id < 0 || id >= limit) {
            status = emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, id,
                                  "%s: the id of '%.80s' is %lld; with so few tokens ids must be 0 to %lld", place,
                                  it.key, (long long)id, (long long)limit - 1);
            break;
        }
        bool ok;
        status = emo__alphabet_decode(&bytes, it.key, length, &ok, err);
        if (status != EMO_OK)
            break;
        const emo__token *known = emo__tok_has(tok, (int32_t)id) ? &tok->tokens[id] : NULL;
        if (known != NULL && (known->flags & EMO__TOKEN_ADDED) != 0) {
            const char *content = emo__tok_bytes(tok, (int32_t)id);
            if (known->length == length && memcmp(content, it.key, length) == 0) {
                bool same = ok && bytes.size == length && memcmp(bytes.data, it.key, length) == 0;
                if (ok && !same) /* Hugging Face's finds it as text and spells it as bytes */
                    status = emo__fail_at(err, EMO_E_UNSUPPORTED, EMO_DOMAIN_FILE, id,
                                          WHERE ": added_tokens: '%.80s' is the vocabulary's spelling of other bytes",
                                          it.key);
                else
                    status = emo__tok_set(tok, (int32_t)id, it.key, length,
                                          EMO__TOKEN_MODEL | (same ? 0u : (uint32_t)EMO__TOKEN_RAW), err);
                continue;
            }
        }
        if (!ok || length == 0)
            status = emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, id,
                                  "%s: '%.80s' (id %lld) is not written in the byte-level alphabet", place, it.key,
                                  (long long)id);
        else
            status = emo__tok_set(tok, (int32_t)id, bytes.data, bytes.size, EMO__TOKEN_MODEL, err);
        if (status == EMO_E_FORMAT)
            status = emo__fail_prefix(err, status, WHERE);
    }
    emo__buf_free(&bytes);
    return status;
}

/* A token of the model by its spelling in the file; -1: none. */
static emo_status find_spelled(const emo_tokenizer *tok, emo__buf *bytes, const char *text, size_t length, int32_t *id,
                               emo_error *err) {
    bool ok;
    emo_status status = emo__alphabet_decode(bytes, text, length, &ok, err);
    *id = -1;
    if (status != EMO_OK)
        return status;
    *id = ok ? emo__tok_find(tok, bytes->data, bytes->size) : emo__tok_find(tok, text, length);
    uint32_t want = ok ? (uint32_t)EMO__TOKEN_MODEL : (uint32_t)(EMO__TOKEN_MODEL | EMO__TOKEN_RAW);
    if (*id >= 0 && (tok->tokens[*id].flags & want) != want)
        *id = -1;
    return EMO_OK;
}

static emo_status read_merge(emo_tokenizer *tok, const emo__json *node, size_t index, emo__buf *bytes, emo__buf *both,
                             emo_error *err) {
    const char *part[2];
    size_t length[2];
    size_t n;
    const char *line = emo__json_string(node, &n);
    if (line != NULL) {
        const char *space = memchr(line, ' ', n);
        if (space == NULL || memchr(space + 1, ' ', n - (size_t)(space + 1 - line)) != NULL)
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, (int64_t)index,
                                WHERE ": model: merges[%zu]: '%.80s' is not two tokens with one space between them",
                                index, line);
        part[0] = line;
        length[0] = (size_t)(space - line);
        part[1] = space + 1;
        length[1] = n - length[0] - 1;
    } else {
        part[0] = emo__json_string(emo__json_at(node, 0), &length[0]);
        part[1] = emo__json_string(emo__json_at(node, 1), &length[1]);
        if (part[0] == NULL || part[1] == NULL || emo__json_size(node) != 2)
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, (int64_t)index,
                                WHERE ": model: merges[%zu] is neither a text nor a list of two texts", index);
    }
    int32_t ids[2];
    for (int i = 0; i < 2; i++) {
        emo_status status = find_spelled(tok, bytes, part[i], length[i], &ids[i], err);
        if (status != EMO_OK)
            return status;
        if (ids[i] < 0)
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, (int64_t)index,
                                WHERE ": model: merges[%zu]: '%.*s' is not in the vocabulary", index,
                                (int)(length[i] < 80 ? length[i] : 80), part[i]);
    }
    both->size = 0;
    emo_status status = emo__buf_append(both, emo__tok_bytes(tok, ids[0]), tok->tokens[ids[0]].length, err);
    if (status == EMO_OK)
        status = emo__buf_append(both, emo__tok_bytes(tok, ids[1]), tok->tokens[ids[1]].length, err);
    if (status != EMO_OK)
        return status;
    int32_t result = emo__tok_find(tok, both->data, both->size);
    if (result < 0 || (tok->tokens[result].flags & EMO__TOKEN_MODEL) == 0)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, (int64_t)index,
                            WHERE ": model: merges[%zu]: what '%.*s' and '%.*s' make is not in the vocabulary", index,
                            (int)(length[0] < 80 ? length[0] : 80), part[0], (int)(length[1] < 80 ? length[1] : 80),
                            part[1]);
    return emo__tok_add_merge(tok, ids[0], ids[1], result, err);
}

static emo_status read_merges(emo_tokenizer *tok, const emo__json *merges, emo_error *err) {
    if (emo__json_typeof(merges) != EMO__JSON_ARRAY)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, WHERE ": model: merges must be a list");
    emo__buf bytes, both;
    emo__buf_init(&bytes, &tok->rt->mem);
    emo__buf_init(&both, &tok->rt->mem);
    emo_status status = EMO_OK;
    for (size_t i = 0; i < emo__json_size(merges) && status == EMO_OK; i++)
        status = read_merge(tok, emo__json_at(merges, i), i, &bytes, &both, err);
    emo__buf_free(&bytes);
    emo__buf_free(&both);
    return status;
}

/* Hugging Face's would silently give such a token the vocabulary's id. */
static emo_status check_added(const emo_tokenizer *tok, emo_error *err) {
    emo__buf bytes;
    emo__buf_init(&bytes, &tok->rt->mem);
    emo_status status = EMO_OK;
    for (size_t i = 0; i < tok->n_added && status == EMO_OK; i++) {
        int32_t id = tok->added[i].id, other;
        const char *content = emo__tok_bytes(tok, id);
        size_t length = tok->tokens[id].length;
        status = find_spelled(tok, &bytes, content, length, &other, err);
        if (status == EMO_OK && other >= 0 && other != id && (tok->tokens[id].flags & EMO__TOKEN_MODEL) == 0)
            status = emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, id,
                                  WHERE ": added_tokens: '%.*s' has the id %d, but the vocabulary gives it %d",
                                  (int)(length < 80 ? length : 80), content, (int)id, (int)other);
    }
    emo__buf_free(&bytes);
    return status;
}

static emo_status check_model(emo_tokenizer *tok, const emo__json *model, emo_error *err) {
    static const char *const place = WHERE ": model";
    const char *text;
    double dropout;
    if (emo__json_typeof(model) != EMO__JSON_OBJECT)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, WHERE " has no model");
    emo_status status = emo__json_opt_string(model, "type", place, "BPE", &text, err);
    if (status == EMO_OK && strcmp(text, "BPE") != 0)
        status = emo__tok_unsupported(err, "model", text);
    if (status == EMO_OK)
        status = emo__json_opt_f64(model, "dropout", place, 0, 0, 1, &dropout, err);
    if (status == EMO_OK && dropout > 0)
        status = emo__tok_unsupported(err, "model", "dropout");
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < 2 && status == EMO_OK; i++) {
        status = emo__json_opt_string(model, affixes[i], place, "", &text, err);
        if (status == EMO_OK && text[0] != '\0')
            status = emo__tok_unsupported(err, "model", affixes[i]);
    }
    if (status == EMO_OK)
        status = emo__json_opt_bool(model, "ignore_merges", place, false, &tok->ignore_merges, err);
    if (status == EMO_OK && emo__json_typeof(emo__json_get(model, "vocab")) != EMO__JSON_OBJECT)
        status = emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, WHERE ": model: vocab must be an object");
    return status;
}

/* What becomes of bytes that the vocabulary lacks. */
static emo_status read_unknown(emo_tokenizer *tok, const emo__json *model, emo_error *err) {
    static const char *const place = WHERE ": model";
    const char *unk;
    bool fallback;
    emo_status status = emo__json_opt_bool(model, "byte_fallback", place, false, &fallback, err);
    if (status == EMO_OK)
        status = emo__json_opt_string(model, "unk_token", place, NULL, &unk, err);
    if (status == EMO_OK)
        status = emo__json_opt_bool(model, "fuse_unk", place, false, &tok->fuse_unk, err);
    if (status != EMO_OK || !tok->partial) { /* there is nothing unknown */
        tok->fuse_unk = false;
        return status;
    }
    if (fallback)
        return emo__tok_unsupported(err, "model", "byte_fallback");
    if (unk != NULL) {
        emo__buf bytes;
        emo__buf_init(&bytes, &tok->rt->mem);
        status = find_spelled(tok, &bytes, unk, strlen(unk), &tok->unk, err);
        emo__buf_free(&bytes);
        if (status == EMO_OK && tok->unk < 0)
            status = emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                                  "%s: the unk_token '%.80s' is not in the vocabulary", place, unk);
        return status;
    }
    unsigned missing = 0;
    for (int b = 0; b < 256; b++)
        missing += tok->byte_ids[b] < 0;
    if (missing == 256)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: the vocabulary has no token for any byte",
                            place);
    emo__log(tok->rt, EMO_LOG_WARNING,
             WHERE ": the vocabulary has no token for %u of the 256 bytes and no unk_token: text with them loses them",
             missing);
    return EMO_OK;
}

static emo_status read_all(emo_tokenizer *tok, const emo__json *root, emo_error *err) {
    if (emo__json_typeof(root) != EMO__JSON_OBJECT)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, WHERE " must be an object");
    const emo__json *model = emo__json_get(root, "model");
    const emo__json *added = emo__json_get(root, "added_tokens");
    emo_status status = check_model(tok, model, err);
    if (status == EMO_OK)
        status = emo__tok_read_pipeline(tok, root, err);
    if (status == EMO_OK)
        status = read_added(tok, added, emo__json_size(emo__json_get(model, "vocab")), err);
    if (status == EMO_OK)
        status = read_vocab(tok, emo__json_get(model, "vocab"), tok->n_added, err);
    if (status == EMO_OK)
        status = emo__tok_index(tok, err);
    if (status == EMO_OK)
        status = check_added(tok, err);
    if (status == EMO_OK)
        status = read_unknown(tok, model, err);
    if (status == EMO_OK)
        status = read_merges(tok, emo__json_get(model, "merges"), err);
    if (status == EMO_OK)
        status = emo__tok_read_template(tok, emo__json_get(root, "post_processor"), err);
    return status == EMO_OK ? emo__tok_finish(tok, err) : status;
}

emo_status emo__tok_read_json(emo_runtime *rt, const char *text, size_t length, emo_tokenizer **out, emo_error *err) {
    *out = NULL;
    emo__json *root = NULL;
    emo_tokenizer *tok = NULL;
    emo_status status = emo__json_parse(&rt->mem, text, length, WHERE, &root, err);
    if (status == EMO_OK)
        status = emo__tok_new(rt, &tok, err);
    if (status == EMO_OK)
        status = read_all(tok, root, err);
    emo__json_free(root);
    if (status != EMO_OK) {
        if (tok != NULL)
            emo__tok_destroy(tok);
        return status;
    }
    *out = tok;
    return EMO_OK;
}
