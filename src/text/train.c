/* SPDX-License-Identifier: Apache-2.0 */
#include "text/train.h"

#include <string.h>

#include "base/status.h"

static emo_status train(emo_tokenizer *tok, emo__words *words, const emo_tokenizer_train_options *options,
                        const emo_text_reader *reader, emo_error *err) {
    const char *pattern = options->pattern != NULL ? options->pattern : EMO__PATTERN_CL100K;
    const char *eos = options->eos != NULL ? options->eos : EMO_TOKENIZER_EOS;
    emo__split *split;
    emo_status status = emo__tok_next_split(tok, &split, err);
    if (status == EMO_OK)
        status = emo__split_init(split, &tok->rt->mem, pattern, strlen(pattern), false, true, err);
    for (unsigned i = 0; i < 256 && status == EMO_OK; i++) {
        char byte = (char)emo__alphabet_byte(i);
        status = emo__tok_set(tok, (int32_t)i, &byte, 1, EMO__TOKEN_MODEL, err);
        tok->byte_ids[(unsigned char)byte] = (int32_t)i;
    }
    if (status == EMO_OK)
        status = emo__words_count(words, &tok->splits[0], options, reader, err);
    if (status == EMO_OK)
        status = emo__train_merges(tok, words, options->vocab_size - 1, options, err);
    for (int32_t id = 0; id < tok->vocab_size && status == EMO_OK; id++) {
        if (tok->tokens[id].length == strlen(eos) && memcmp(emo__tok_bytes(tok, id), eos, strlen(eos)) == 0)
            status = emo__fail(err, EMO_E_RANGE, "eos '%.80s' is a word of the texts; choose another name", eos);
    }
    emo__added added = {.id = tok->vocab_size};
    if (status == EMO_OK)
        status = emo__tok_set(tok, added.id, eos, strlen(eos), EMO__TOKEN_ADDED | EMO__TOKEN_SPECIAL, err);
    if (status == EMO_OK)
        status = emo__tok_add_added(tok, &added, err);
    if (status == EMO_OK)
        status = emo__tok_index(tok, err);
    return status == EMO_OK ? emo__tok_finish(tok, err) : status;
}

emo_status emo__train(emo_runtime *rt, const emo_tokenizer_train_options *options, const emo_text_reader *reader,
                      emo_tokenizer **out, emo_error *err) {
    emo_tokenizer *tok = NULL;
    *out = NULL;
    emo_status status = emo__tok_new(rt, &tok, err);
    if (status != EMO_OK)
        return status;
    emo__words words;
    emo__words_init(&words, &rt->mem);
    status = train(tok, &words, options, reader, err);
    emo__words_free(&words);
    if (status != EMO_OK) {
        emo__tok_destroy(tok);
        return status;
    }
    *out = tok;
    return EMO_OK;
}
