/* SPDX-License-Identifier: Apache-2.0 */
/* The tokenizer's files beside a model, as other programs want them. */
#include <string.h>

#include "base/status.h"
#include "io/files.h"
#include "model/files.h"

/* The text of a special token; nothing when the id has none. */
static void special(const emo_tokenizer *tokenizer, emo__jw *w, const char *key, int32_t id, bool always) {
    const char *bytes = NULL;
    size_t length = 0;
    if (id >= 0 && emo_tokenizer_is_special(tokenizer, id) != 0 &&
        emo_tokenizer_id_to_token(tokenizer, id, &bytes, &length, NULL) == EMO_OK)
        emo__jw_string_n(w, key, bytes, length);
    else if (always)
        emo__jw_null(w, key);
}

static emo_status special_text(const emo_model *m, emo__buf *out, emo_error *err) {
    const emo__config *c = &m->config;
    emo__jw w;
    emo__jw_begin(&w, out, 2, err);
    emo__jw_object(&w, NULL);
    special(m->tokenizer, &w, "bos_token", c->bos, false);
    special(m->tokenizer, &w, "eos_token", c->eos, false);
    special(m->tokenizer, &w, "pad_token", c->pad, false);
    emo__jw_object_end(&w);
    return emo__jw_end(&w);
}

static emo_status tokenizer_text(const emo_model *m, emo__buf *out, emo_error *err) {
    const emo__config *c = &m->config;
    emo__jw w;
    emo__jw_begin(&w, out, 2, err);
    emo__jw_object(&w, NULL);
    special(m->tokenizer, &w, "bos_token", c->bos, true);
    emo__jw_bool(&w, "clean_up_tokenization_spaces", false);
    special(m->tokenizer, &w, "eos_token", c->eos, true);
    /* Without this the class below also gives token_type_ids, which the model does not take. */
    emo__jw_row(&w, "model_input_names");
    emo__jw_string(&w, NULL, "input_ids");
    emo__jw_string(&w, NULL, "attention_mask");
    emo__jw_array_end(&w);
    emo__jw_i64(&w, "model_max_length", c->max_positions);
    special(m->tokenizer, &w, "pad_token", c->pad, true);
    emo__jw_string(&w, "tokenizer_class", "PreTrainedTokenizerFast");
    emo__jw_null(&w, "unk_token");
    emo__jw_object_end(&w);
    return emo__jw_end(&w);
}

static emo_status write_or_remove(const emo_model *m, emo__buf *path, const char *folder, const char *name,
                                  const char *text, size_t length, emo_error *err) {
    emo_status status = emo__path_join(path, folder, name, err);
    if (status != EMO_OK)
        return status;
    return text != NULL ? emo__file_write(&m->rt->mem, path->data, text, length, err)
                        : emo__remove_tree(&m->rt->mem, path->data, err);
}

emo_status emo__save_tokenizer(const emo_model *m, const char *folder, emo_error *err) {
    typedef emo_status (*maker)(const emo_model *m, emo__buf *out, emo_error *err);
    static const maker makers[EMO__BESIDE_FILES] = {
        [EMO__BESIDE_TOKENIZER] = tokenizer_text,
        [EMO__BESIDE_SPECIAL] = special_text,
    };
    const emo__beside *b = m->config.beside;
    if (m->tokenizer == NULL)
        return EMO_OK;
    /* What was there belongs to the tokenizer that was there. */
    bool keep = b != NULL && b->has_tokenizer && b->tokenizer == emo_tokenizer_hash(m->tokenizer) &&
                b->files[EMO__BESIDE_TOKENIZER] != NULL;
    emo__buf path;
    emo__buf text;
    emo__buf_init(&path, &m->rt->mem);
    emo__buf_init(&text, &m->rt->mem);
    emo_status status;
    EMO_TRY(status = emo__path_join(&path, folder, "tokenizer.json", err));
    EMO_TRY(status = emo_tokenizer_save(m->tokenizer, path.data, err));
    for (int i = EMO__BESIDE_TOKENIZER; i < EMO__BESIDE_FILES; i++) {
        const char *bytes = keep ? b->files[i] : NULL;
        size_t length = keep ? b->lengths[i] : 0;
        text.size = 0;
        if (!keep && makers[i] != NULL) {
            EMO_TRY(status = makers[i](m, &text, err));
            bytes = text.data;
            length = text.size;
        }
        EMO_TRY(status = write_or_remove(m, &path, folder, emo__beside_name(i), bytes, length, err));
    }
done:
    emo__buf_free(&path);
    emo__buf_free(&text);
    return status;
}
