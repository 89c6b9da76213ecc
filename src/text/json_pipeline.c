/* SPDX-License-Identifier: Apache-2.0 */
/* What tokenizer.json does to a text before and behind the model. */
#include <string.h>

#include "base/status.h"
#include "text/tokenizer_json.h"

#define WHERE "tokenizer.json"

static const char *type_of(const emo__json *node) {
    const char *type = emo__json_string(emo__json_get(node, "type"), NULL);
    return type != NULL ? type : "(none)";
}

emo_status emo__tok_unsupported(emo_error *err, const char *place, const char *what) {
    return emo__fail_at(err, EMO_E_UNSUPPORTED, EMO_DOMAIN_FILE, 0, WHERE ": %s: '%s' is not supported", place, what);
}

static const char *const form_names[] = {"NFC", "NFD", "NFKC", "NFKD"};

static emo_status read_normalizer(emo_tokenizer *tok, const emo__json *node, int depth, emo_error *err) {
    if (node == NULL)
        return EMO_OK;
    const char *type = type_of(node);
    for (size_t i = 0; i < 4; i++) {
        if (strcmp(type, form_names[i]) != 0)
            continue;
        if (tok->n_forms == EMO__MAX_FORMS)
            return emo__tok_unsupported(err, "normalizer", "more than four in a row");
        tok->forms[tok->n_forms++] = (emo__form)i;
        return EMO_OK;
    }
    if (strcmp(type, "Sequence") != 0 || depth > 4)
        return emo__tok_unsupported(err, "normalizer", type);
    const emo__json *list = emo__json_get(node, "normalizers");
    emo_status status = EMO_OK;
    for (size_t i = 0; i < emo__json_size(list) && status == EMO_OK; i++)
        status = read_normalizer(tok, emo__json_at(list, i), depth + 1, err);
    return status;
}

static emo_status read_split(emo_tokenizer *tok, const emo__json *node, emo_error *err) {
    static const char *const place = WHERE ": pre_tokenizer: Split";
    const char *name;
    bool invert;
    emo_status status = emo__json_need_string(node, "behavior", place, &name, err);
    if (status == EMO_OK)
        status = emo__json_opt_bool(node, "invert", place, false, &invert, err);
    if (status != EMO_OK)
        return status;
    int behavior = 0;
    while (behavior < 5 && strcmp(name, emo__behavior_names[behavior]) != 0)
        behavior++;
    if (behavior == 5)
        return emo__tok_unsupported(err, "pre_tokenizer: Split: behavior", name);
    const emo__json *pattern = emo__json_get(node, "pattern");
    size_t length;
    const char *text = emo__json_string(emo__json_get(pattern, "Regex"), &length);
    bool literal = text == NULL;
    if (literal)
        text = emo__json_string(emo__json_get(pattern, "String"), &length);
    if (text == NULL)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: pattern must have a Regex or a String", place);
    if (memchr(text, 0, length) != NULL)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: the pattern holds a NUL character", place);
    emo__split *split;
    status = emo__tok_next_split(tok, &split, err);
    if (status == EMO_OK)
        status = emo__split_init_as(split, &tok->rt->mem, text, length, literal, (emo__behavior)behavior, invert, err);
    return status == EMO_OK ? status : emo__fail_prefix(err, status, WHERE ": pre_tokenizer");
}

static emo_status read_digits(emo_tokenizer *tok, const emo__json *node, emo_error *err) {
    bool individual;
    emo__split *split;
    emo_status status =
        emo__json_opt_bool(node, "individual_digits", WHERE ": pre_tokenizer: Digits", false, &individual, err);
    if (status == EMO_OK && (status = emo__tok_next_split(tok, &split, err)) == EMO_OK)
        emo__split_init_digits(split, individual);
    return status;
}

/* *bytes turns true with ByteLevel, behind which nothing may come. */
static emo_status read_pre_tokenizer(emo_tokenizer *tok, const emo__json *node, int depth, bool *bytes,
                                     emo_error *err) {
    const char *type = type_of(node);
    emo_status status = EMO_OK;
    if (*bytes)
        return emo__tok_unsupported(err, "pre_tokenizer: behind ByteLevel", type);
    if (strcmp(type, "Sequence") == 0 && depth < 4) {
        const emo__json *list = emo__json_get(node, "pretokenizers");
        for (size_t i = 0; i < emo__json_size(list) && status == EMO_OK; i++)
            status = read_pre_tokenizer(tok, emo__json_at(list, i), depth + 1, bytes, err);
        return status;
    }
    if (strcmp(type, "Split") == 0)
        return read_split(tok, node, err);
    if (strcmp(type, "Digits") == 0)
        return read_digits(tok, node, err);
    if (strcmp(type, "ByteLevel") != 0)
        return emo__tok_unsupported(err, "pre_tokenizer", type);
    bool use_regex = true;
    *bytes = true;
    status =
        emo__json_opt_bool(node, "add_prefix_space", WHERE ": pre_tokenizer: ByteLevel", true, &tok->prefix_space, err);
    if (status == EMO_OK)
        status = emo__json_opt_bool(node, "use_regex", WHERE ": pre_tokenizer: ByteLevel", true, &use_regex, err);
    return status == EMO_OK && use_regex ? emo__tok_use_gpt2(tok, err) : status;
}

static emo_status read_decoder(const emo__json *node, int depth, emo_error *err) {
    if (node == NULL)
        return EMO_OK;
    const char *type = type_of(node);
    if (strcmp(type, "ByteLevel") == 0)
        return EMO_OK;
    const emo__json *list = emo__json_get(node, "decoders");
    if (strcmp(type, "Sequence") != 0 || depth > 4 || emo__json_size(list) == 0)
        return emo__tok_unsupported(err, "decoder", type);
    emo_status status = EMO_OK;
    for (size_t i = 0; i < emo__json_size(list) && status == EMO_OK; i++)
        status = read_decoder(emo__json_at(list, i), depth + 1, err);
    return status;
}

emo_status emo__tok_read_pipeline(emo_tokenizer *tok, const emo__json *root, emo_error *err) {
    const emo__json *pre = emo__json_get(root, "pre_tokenizer");
    bool bytes = false;
    emo_status status = read_normalizer(tok, emo__json_get(root, "normalizer"), 0, err);
    if (status == EMO_OK)
        status = pre != NULL ? read_pre_tokenizer(tok, pre, 0, &bytes, err)
                             : emo__tok_unsupported(err, "pre_tokenizer", "null");
    if (status == EMO_OK && !bytes)
        status = emo__tok_unsupported(err, "pre_tokenizer", "no ByteLevel");
    return status == EMO_OK ? read_decoder(emo__json_get(root, "decoder"), 0, err) : status;
}

/* ---- what the post-processor puts around a text ---- */

#define POST WHERE ": post_processor"

static emo_status around(emo_tokenizer *tok, const emo__json *id, bool end, emo_error *err) {
    int64_t value;
    if (!emo__json_i64(id, &value) || value < 0 || value >= tok->vocab_size || !emo__tok_has(tok, (int32_t)value))
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, POST ": a special token has no known id");
    size_t *n = end ? &tok->n_after : &tok->n_before;
    if (*n == EMO__MAX_TEMPLATE)
        return emo__tok_unsupported(err, "post_processor", "more than 16 special tokens");
    (end ? tok->after : tok->before)[(*n)++] = (int32_t)value;
    return EMO_OK;
}

/* Puts the last of `before`, from `from` on, in front: a later processor's tokens lie further out. */
static void rotate(int32_t *ids, size_t from, size_t n) {
    int32_t copy[EMO__MAX_TEMPLATE];
    memcpy(copy, ids, n * sizeof *ids);
    memcpy(ids, copy + from, (n - from) * sizeof *ids);
    memcpy(ids + (n - from), copy, from * sizeof *ids);
}

static emo_status read_single(emo_tokenizer *tok, const emo__json *node, emo_error *err) {
    const emo__json *single = emo__json_get(node, "single");
    size_t from = tok->n_before;
    bool text = false;
    emo_status status = EMO_OK;
    for (size_t i = 0; i < emo__json_size(single) && status == EMO_OK; i++) {
        const emo__json *piece = emo__json_at(single, i);
        const char *sequence = emo__json_string(emo__json_get(emo__json_get(piece, "Sequence"), "id"), NULL);
        const char *name = emo__json_string(emo__json_get(emo__json_get(piece, "SpecialToken"), "id"), NULL);
        if (sequence != NULL && strcmp(sequence, "A") == 0 && !text) {
            text = true;
            continue;
        }
        if (name == NULL)
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, (int64_t)i,
                                POST ": single[%zu] is neither the sequence A nor a special token", i);
        const emo__json *ids = emo__json_get(emo__json_get(emo__json_get(node, "special_tokens"), name), "ids");
        if (emo__json_size(ids) == 0)
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, (int64_t)i,
                                POST ": the special token '%.80s' has no ids", name);
        for (size_t k = 0; k < emo__json_size(ids) && status == EMO_OK; k++)
            status = around(tok, emo__json_at(ids, k), text, err);
    }
    if (status == EMO_OK && !text)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, POST ": single has no sequence A");
    rotate(tok->before, from, tok->n_before);
    return status;
}

static emo_status read_processor(emo_tokenizer *tok, const emo__json *node, int depth, emo_error *err) {
    const char *type = type_of(node);
    emo_status status = EMO_OK;
    if (strcmp(type, "ByteLevel") == 0) /* offsets only */
        return EMO_OK;
    if (strcmp(type, "TemplateProcessing") == 0)
        return read_single(tok, node, err);
    if (strcmp(type, "BertProcessing") == 0 || strcmp(type, "RobertaProcessing") == 0) {
        size_t from = tok->n_before;
        status = around(tok, emo__json_at(emo__json_get(node, "cls"), 1), false, err);
        rotate(tok->before, from, tok->n_before);
        return status == EMO_OK ? around(tok, emo__json_at(emo__json_get(node, "sep"), 1), true, err) : status;
    }
    if (strcmp(type, "Sequence") == 0 && depth < 4) {
        const emo__json *list = emo__json_get(node, "processors");
        for (size_t i = 0; i < emo__json_size(list) && status == EMO_OK; i++)
            status = read_processor(tok, emo__json_at(list, i), depth + 1, err);
        return status;
    }
    if (tok->unknown_template == NULL && (tok->unknown_template = emo__strdup(&tok->rt->mem, type)) == NULL)
        return emo__fail_memory(err, strlen(type) + 1);
    return EMO_OK;
}

emo_status emo__tok_read_template(emo_tokenizer *tok, const emo__json *node, emo_error *err) {
    if (node == NULL)
        return EMO_OK;
    emo__buf text;
    emo__jw writer;
    emo__buf_init(&text, &tok->rt->mem);
    emo__jw_begin(&writer, &text, 0, err);
    emo__jw_node(&writer, NULL, node);
    emo_status status = emo__jw_end(&writer);
    if (status == EMO_OK && (tok->post_processor = emo__strndup(&tok->rt->mem, text.data, text.size)) == NULL)
        status = emo__fail_memory(err, text.size);
    emo__buf_free(&text);
    return status == EMO_OK ? read_processor(tok, node, 0, err) : status;
}
