/* SPDX-License-Identifier: Apache-2.0 */
/* A tokenizer to tokenizer.json. */
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "io/json.h"
#include "text/tokenizer_json.h"

static void write_added(const emo_tokenizer *tok, emo__jw *w, const int32_t *order) {
    emo__jw_array(w, "added_tokens");
    for (size_t i = 0; i < tok->n_added; i++) {
        const emo__added *added = &tok->added[order[i]];
        const emo__token *token = &tok->tokens[added->id];
        emo__jw_object(w, NULL);
        emo__jw_i64(w, "id", added->id);
        emo__jw_string_n(w, "content", emo__tok_bytes(tok, added->id), token->length);
        emo__jw_bool(w, "single_word", added->single_word);
        emo__jw_bool(w, "lstrip", added->lstrip);
        emo__jw_bool(w, "rstrip", added->rstrip);
        emo__jw_bool(w, "normalized", added->normalized);
        emo__jw_bool(w, "special", (token->flags & EMO__TOKEN_SPECIAL) != 0);
        emo__jw_object_end(w);
    }
    emo__jw_array_end(w);
}

static void write_byte_level(emo__jw *w, const char *key, bool prefix_space, bool use_regex) {
    emo__jw_object(w, key);
    emo__jw_string(w, "type", "ByteLevel");
    emo__jw_bool(w, "add_prefix_space", prefix_space);
    emo__jw_bool(w, "trim_offsets", true);
    emo__jw_bool(w, "use_regex", use_regex);
    emo__jw_object_end(w);
}

static void write_split(emo__jw *w, const emo__split *split) {
    emo__jw_object(w, NULL);
    if (split->pattern == NULL) {
        emo__jw_string(w, "type", "Digits");
        emo__jw_bool(w, "individual_digits", split->scanner == EMO__SCAN_DIGIT);
    } else {
        emo__jw_string(w, "type", "Split");
        emo__jw_object(w, "pattern");
        emo__jw_string(w, split->literal ? "String" : "Regex", split->pattern);
        emo__jw_object_end(w);
        emo__jw_string(w, "behavior", emo__behavior_names[split->behavior]);
        emo__jw_bool(w, "invert", split->invert);
    }
    emo__jw_object_end(w);
}

static void write_normalizer(const emo_tokenizer *tok, emo__jw *w) {
    static const char *const names[] = {"NFC", "NFD", "NFKC", "NFKD"};
    if (tok->n_forms == 0) {
        emo__jw_null(w, "normalizer");
        return;
    }
    emo__jw_object(w, "normalizer");
    if (tok->n_forms == 1) {
        emo__jw_string(w, "type", names[tok->forms[0]]);
    } else {
        emo__jw_string(w, "type", "Sequence");
        emo__jw_array(w, "normalizers");
        for (size_t i = 0; i < tok->n_forms; i++) {
            emo__jw_object(w, NULL);
            emo__jw_string(w, "type", names[tok->forms[i]]);
            emo__jw_object_end(w);
        }
        emo__jw_array_end(w);
    }
    emo__jw_object_end(w);
}

static void write_pre_tokenizer(const emo_tokenizer *tok, emo__jw *w) {
    if (tok->n_splits == 0) {
        write_byte_level(w, "pre_tokenizer", tok->prefix_space, tok->gpt2 != NULL);
        return;
    }
    emo__jw_object(w, "pre_tokenizer");
    emo__jw_string(w, "type", "Sequence");
    emo__jw_array(w, "pretokenizers");
    for (size_t i = 0; i < tok->n_splits; i++)
        write_split(w, &tok->splits[i]);
    write_byte_level(w, NULL, tok->prefix_space, tok->gpt2 != NULL);
    emo__jw_array_end(w);
    emo__jw_object_end(w);
}

emo_status emo__tok_spell(const emo_tokenizer *tok, int32_t id, emo__buf *text, emo_error *err) {
    const emo__token *token = &tok->tokens[id];
    text->size = 0;
    if ((token->flags & EMO__TOKEN_RAW) != 0)
        return emo__buf_append(text, emo__tok_bytes(tok, id), token->length, err);
    return emo__alphabet_encode(text, emo__tok_bytes(tok, id), token->length, err);
}

static emo_status write_model(const emo_tokenizer *tok, emo__jw *w, emo_error *err) {
    emo__buf text, right;
    emo__buf_init(&text, &tok->rt->mem);
    emo__buf_init(&right, &tok->rt->mem);
    emo_status status = EMO_OK;
    emo__jw_object(w, "model");
    emo__jw_string(w, "type", "BPE");
    emo__jw_null(w, "dropout");
    if (tok->unk >= 0)
        status = emo__tok_spell(tok, tok->unk, &text, err);
    emo__jw_string(w, "unk_token", tok->unk >= 0 ? text.data : NULL);
    emo__jw_null(w, "continuing_subword_prefix");
    emo__jw_null(w, "end_of_word_suffix");
    emo__jw_bool(w, "fuse_unk", tok->fuse_unk);
    emo__jw_bool(w, "byte_fallback", false);
    emo__jw_bool(w, "ignore_merges", tok->ignore_merges);
    emo__jw_object(w, "vocab");
    for (int32_t id = 0; id < tok->vocab_size && status == EMO_OK; id++) {
        if ((tok->tokens[id].flags & EMO__TOKEN_MODEL) == 0)
            continue;
        status = emo__tok_spell(tok, id, &text, err);
        if (status == EMO_OK)
            emo__jw_i64(w, text.data, id);
    }
    emo__jw_object_end(w);
    emo__jw_array(w, "merges");
    for (size_t i = 0; i < tok->n_merges && status == EMO_OK; i++) {
        status = emo__tok_spell(tok, tok->merges[i].left, &text, err);
        if (status == EMO_OK)
            status = emo__tok_spell(tok, tok->merges[i].right, &right, err);
        if (status == EMO_OK)
            status = emo__buf_append(&text, " ", 1, err);
        if (status == EMO_OK)
            status = emo__buf_append(&text, right.data, right.size, err);
        if (status == EMO_OK)
            emo__jw_string_n(w, NULL, text.data, text.size);
    }
    emo__jw_array_end(w);
    emo__jw_object_end(w);
    emo__buf_free(&text);
    emo__buf_free(&right);
    return status;
}

static emo_status write_post_processor(const emo_tokenizer *tok, emo__jw *w, emo_error *err) {
    if (tok->post_processor == NULL) {
        emo__jw_null(w, "post_processor");
        return EMO_OK;
    }
    emo__json *node = NULL;
    emo_status status =
        emo__json_parse(&tok->rt->mem, tok->post_processor, strlen(tok->post_processor), "post_processor", &node, err);
    if (status == EMO_OK)
        emo__jw_node(w, "post_processor", node);
    emo__json_free(node);
    return status;
}

/* `order` gets the places of the added tokens by id: they are kept in the order that matching wants. */
static int compare_u64(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static emo_status order_added(const emo_tokenizer *tok, int32_t **order, emo_error *err) {
    const emo__mem *mem = &tok->rt->mem;
    uint64_t *keys = emo__malloc_array(mem, tok->n_added + 1, sizeof *keys);
    *order = emo__malloc_array(mem, tok->n_added + 1, sizeof **order);
    if (keys == NULL || *order == NULL) {
        emo__free(mem, keys);
        return emo__fail_memory(err, tok->n_added * sizeof *keys);
    }
    for (size_t i = 0; i < tok->n_added; i++)
        keys[i] = (uint64_t)(uint32_t)tok->added[i].id << 32 | i;
    qsort(keys, tok->n_added, sizeof *keys, compare_u64);
    for (size_t i = 0; i < tok->n_added; i++)
        (*order)[i] = (int32_t)(keys[i] & 0xFFFFFFFFu);
    emo__free(mem, keys);
    return EMO_OK;
}

emo_status emo__tok_write_json(const emo_tokenizer *tok, emo__buf *out, emo_error *err) {
    int32_t *order = NULL;
    emo__jw w;
    emo_status status = order_added(tok, &order, err);
    if (status != EMO_OK)
        goto done;
    emo__jw_begin(&w, out, 2, err);
    emo__jw_object(&w, NULL);
    emo__jw_string(&w, "version", "1.0");
    emo__jw_null(&w, "truncation");
    emo__jw_null(&w, "padding");
    write_added(tok, &w, order);
    write_normalizer(tok, &w);
    write_pre_tokenizer(tok, &w);
    if ((status = write_post_processor(tok, &w, err)) != EMO_OK)
        goto done;
    write_byte_level(&w, "decoder", true, true);
    if ((status = write_model(tok, &w, err)) != EMO_OK)
        goto done;
    emo__jw_object_end(&w);
    status = emo__jw_end(&w);
done:
    emo__free(&tok->rt->mem, order);
    return status;
}
