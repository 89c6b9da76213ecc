/* SPDX-License-Identifier: Apache-2.0 */
/* What the tokenizer tests share. Include after support/support.h. */
#ifndef EMO_TESTS_TEXT_SUPPORT_H
#define EMO_TESTS_TEXT_SUPPORT_H

#include <emo/tokenizer.h>

#include "text/unicode.h"
#include "text/vocab.h"

static inline uint64_t text_random(uint64_t *state) {
    *state += 0x9e3779b97f4a7c15u;
    uint64_t x = *state;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* A tokenizer.json in `out` (room for `size`): the 256 bytes at the ids 0 to 255 in the alphabet's order, then `vocab`
 * (members that follow them, with a leading comma, or ""), `merges` (elements), `added` (elements), and `rest` (members
 * of the top level with a leading comma; must bring the pre_tokenizer). */
static inline size_t text_json(char *out, size_t size, const char *vocab, const char *merges, const char *added,
                               const char *rest) {
    size_t n = 0;
    n += (size_t)snprintf(out + n, size - n, "{\"added_tokens\":[%s]%s,\"model\":{\"type\":\"BPE\",\"vocab\":{", added,
                          rest);
    for (unsigned i = 0; i < 256; i++) {
        uint32_t c = emo__byte_to_char(emo__alphabet_byte(i));
        n += (size_t)snprintf(out + n, size - n, "%s\"\\u%04x\":%u", i ? "," : "", (unsigned)c, i);
    }
    n += (size_t)snprintf(out + n, size - n, "%s},\"merges\":[%s]}}", vocab, merges);
    return n;
}

#define TEXT_BYTE_LEVEL ",\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"

/* Texts from an array, for training. */
typedef struct text_list {
    const char *const *items;
    size_t count, at;
} text_list;

static inline int32_t text_next(void *ctx, const char **text, size_t *length) {
    text_list *list = ctx;
    if (list->at == list->count)
        return 0;
    *text = list->items[list->at++];
    *length = strlen(*text);
    return 1;
}

#endif
