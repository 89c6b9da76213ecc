/* SPDX-License-Identifier: Apache-2.0 */
#include "model/beside.h"

#include <string.h>

#include "base/status.h"
#include "io/files.h"

#define LARGEST ((size_t)4 << 20) /* no settings are that long */

static const char *const file_names[EMO__BESIDE_FILES] = {
    [EMO__BESIDE_GENERATION] = "generation_config.json",
    [EMO__BESIDE_TOKENIZER] = "tokenizer_config.json",
    [EMO__BESIDE_SPECIAL] = "special_tokens_map.json",
    [EMO__BESIDE_TEMPLATE] = "chat_template.jinja",
};

const char *emo__beside_name(int which) { return file_names[which]; }

emo_status emo__beside_new(const emo__mem *mem, const char *config, size_t length, emo__beside **out, emo_error *err) {
    *out = NULL;
    emo__beside *b = emo__calloc(mem, 1, sizeof *b);
    if (b == NULL)
        return emo__fail_memory(err, sizeof *b);
    emo__ref_init(&b->ref);
    b->mem = mem;
    b->config = emo__strndup(mem, config, length);
    b->config_length = length;
    if (b->config == NULL) {
        emo__free(mem, b);
        return emo__fail_memory(err, length + 1);
    }
    *out = b;
    return EMO_OK;
}

void emo__beside_release(emo__beside *b) {
    if (b == NULL || !emo__ref_put(&b->ref))
        return;
    for (int i = 0; i < EMO__BESIDE_FILES; i++)
        emo__free(b->mem, b->files[i]);
    emo__free(b->mem, b->config);
    emo__free(b->mem, b);
}

emo_status emo__beside_read(emo__beside *b, const char *folder, emo_error *err) {
    emo__buf path;
    emo__buf_init(&path, b->mem);
    emo_status status = EMO_OK;
    for (int i = 0; status == EMO_OK && i < EMO__BESIDE_FILES; i++) {
        status = emo__path_join(&path, folder, file_names[i], err);
        if (status == EMO_OK)
            status = emo__file_read_if_there(b->mem, path.data, LARGEST, &b->files[i], &b->lengths[i], err);
    }
    emo__buf_free(&path);
    return status;
}

emo_status emo__beside_write_config(const emo__beside *b, emo__jw *w, emo_error *err) {
    emo__json *root = NULL;
    const char *type = NULL;
    if (b == NULL || w->status != EMO_OK)
        return EMO_OK;
    emo_status status = emo__json_parse(b->mem, b->config, b->config_length, "config.json", &root, err);
    if (status == EMO_OK)
        status = emo__json_opt_string(root, "model_type", "config.json", "emo", &type, err);
    /* Folders of the older model_type are written under the new one: their classes have other names. */
    bool renamed = status == EMO_OK && strcmp(type, "flex_olmo_noqknorm_prenorm") == 0;
    if (status == EMO_OK) {
        for (emo__json_iter it = emo__json_members(root); emo__json_next(&it);) {
            if (w->status == EMO_OK && !emo__jw_has(w, it.key) && !(renamed && strcmp(it.key, "auto_map") == 0))
                emo__jw_node(w, it.key, it.value);
        }
    }
    emo__json_free(root);
    return status;
}
