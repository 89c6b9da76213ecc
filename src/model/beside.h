/* SPDX-License-Identifier: Apache-2.0 */
/* What lies beside the weights of a model and means nothing to this library: keys of config.json it does not know, the
 * tokenizer's settings of other programs. It is kept, so that saving gives it back. */
#ifndef EMO_SRC_MODEL_BESIDE_H
#define EMO_SRC_MODEL_BESIDE_H

#include "base/refcount.h"
#include "io/json.h"

enum {
    EMO__BESIDE_GENERATION, /* generation_config.json */
    EMO__BESIDE_TOKENIZER,  /* tokenizer_config.json */
    EMO__BESIDE_SPECIAL,    /* special_tokens_map.json */
    EMO__BESIDE_TEMPLATE,   /* chat_template.jinja */
    EMO__BESIDE_FILES
};

/* Shared by the copies of a configuration; it does not change once the model is loaded. */
typedef struct emo__beside {
    emo__ref ref;
    const emo__mem *mem;
    char *config; /* text of config.json */
    size_t config_length;
    char *files[EMO__BESIDE_FILES]; /* NULL: not there */
    size_t lengths[EMO__BESIDE_FILES];
    bool has_tokenizer; /* the files on tokens belong to the tokenizer of this hash */
    uint64_t tokenizer;
} emo__beside;

EMO_MUST_CHECK emo_status emo__beside_new(const emo__mem *mem, const char *config, size_t length, emo__beside **out,
                                          emo_error *err);
static inline emo__beside *emo__beside_retain(emo__beside *beside) {
    if (beside != NULL)
        emo__ref_get(&beside->ref);
    return beside;
}
void emo__beside_release(emo__beside *beside); /* NULL is fine */

const char *emo__beside_name(int which);
/* Reads the files of a folder that are there. */
EMO_MUST_CHECK emo_status emo__beside_read(emo__beside *beside, const char *folder, emo_error *err);
/* Writes the members of the old config.json whose keys are not in the open outermost object of `w`, which keeps its
 * keys. NULL: none. */
EMO_MUST_CHECK emo_status emo__beside_write_config(const emo__beside *beside, emo__jw *w, emo_error *err);

#endif
