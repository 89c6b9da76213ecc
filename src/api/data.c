/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/checked.h"
#include "base/options.h"
#include "base/progress.h"
#include "base/status.h"
#include "base/utf8.h"
#include "data/choices.h"
#include "data/dataset.h"
#include "data/ingest.h"
#include "text/encode.h"

static emo_status check_out(const void *rt, void **out, emo_error *err) {
    emo__error_clear(err);
    if (out == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "out is NULL");
    *out = NULL;
    if (rt == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "rt is NULL");
    return EMO_OK;
}

/* names: [n] or NULL; what: the argument's name. */
static emo_status check_strings(const char *const *names, size_t n, const char *what, emo_error *err) {
    for (size_t i = 0; names != NULL && i < n; i++) {
        if (names[i] == NULL)
            return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s[%zu] is NULL", what, i);
    }
    return EMO_OK;
}

static emo_status check_options(emo_dataset_options *opt, const emo_tokenizer *tokenizer, emo_error *err) {
    emo_status status = emo__reading_check(opt, err);
    if (status != EMO_OK)
        return status;
    if (opt->token_type < EMO_TOKENS_U16 || opt->token_type > EMO_TOKENS_AUTO)
        return emo__fail(err, EMO_E_RANGE,
                         "token_type is %d; it must be EMO_TOKENS_U16, EMO_TOKENS_U32 or EMO_TOKENS_AUTO",
                         (int)opt->token_type);
    if (opt->token_type == EMO_TOKENS_AUTO) /* as the programs that write such files do */
        opt->token_type = emo_tokenizer_vocab_size(tokenizer) > 65536 ? EMO_TOKENS_U32 : EMO_TOKENS_U16;
    if (opt->eos < -1 || opt->eos >= emo_tokenizer_vocab_size(tokenizer))
        return emo__fail(err, EMO_E_RANGE, "eos is %d; it must be an id below %d, or -1 for the tokenizer's",
                         (int)opt->eos, (int)emo_tokenizer_vocab_size(tokenizer));
    if (opt->cache_dir != NULL && opt->cache_dir[0] == '\0')
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "cache_dir is empty; NULL keeps the tokens in memory");
    if (opt->eos < 0)
        opt->eos = emo_tokenizer_eos(tokenizer);
    return EMO_OK;
}

static emo_status no_documents(const emo_dataset_options *opt, const char *where, emo_error *err) {
    return emo__fail(err, opt->domain != NULL ? EMO_E_NOT_FOUND : EMO_E_FORMAT,
                     "there are no documents%s%.100s in the given %s", opt->domain != NULL ? " of domain " : "",
                     opt->domain != NULL ? opt->domain : "", where);
}

static emo_status open_in_memory(emo_runtime *rt, const emo__data_files *files, const emo_tokenizer *tokenizer,
                                 const emo_dataset_options *opt, emo_dataset **out, emo_error *err) {
    emo__dataset_draft draft;
    emo__draft_init(&draft, rt);
    draft.eos = opt->eos;
    draft.vocab_size = emo_tokenizer_vocab_size(tokenizer);
    emo_status status = emo__ingest(files, tokenizer, opt, &draft, NULL, err);
    if (status == EMO_OK && draft.doc_count == 0)
        status = no_documents(opt, "files", err);
    if (status == EMO_OK)
        status = emo__draft_finish(&draft, NULL, 0, 0, out, err);
    emo__draft_free(&draft);
    return status;
}

emo_status emo_dataset_open(emo_runtime *rt, const char *const *paths, size_t n_paths, const emo_tokenizer *tokenizer,
                            const emo_dataset_options *options, emo_dataset **out, emo_error *err) {
    emo_status status = check_out(rt, (void **)out, err);
    if (status != EMO_OK)
        return status;
    if (paths == NULL || n_paths == 0 || tokenizer == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s", tokenizer == NULL ? "tokenizer is NULL" : "no paths");
    emo_dataset_options opt = EMO_DATASET_OPTIONS_INIT;
    emo__data_files files = {0};
    status = check_strings(paths, n_paths, "paths", err);
    if (status == EMO_OK)
        status = emo__options_copy(&opt, sizeof opt, options, "emo_dataset_options", err);
    if (status == EMO_OK)
        status = check_options(&opt, tokenizer, err);
    if (status == EMO_OK)
        status = emo__data_files_find(&rt->mem, paths, n_paths, &opt, &files, err);
    if (status == EMO_OK)
        status = opt.cache_dir != NULL ? emo__cache_open(rt, &files, tokenizer, &opt, out, err)
                                       : open_in_memory(rt, &files, tokenizer, &opt, out, err);
    emo__data_files_free(&rt->mem, &files);
    return status;
}

static emo_status add_tokens(emo__dataset_draft *draft, const int32_t *tokens, const size_t *lengths,
                             const char *const *domains, size_t n, emo_error *err) {
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (lengths[i] == 0)
            return emo__fail(err, EMO_E_RANGE, "lengths[%zu] is 0; a document needs a token", i);
        for (size_t t = 0; t < lengths[i]; t++) {
            int32_t id = tokens[at + t];
            if (id < 0 || id == INT32_MAX)
                return emo__fail(err, EMO_E_RANGE, "tokens[%zu] is %d; ids are in [0, 2147483646]", at + t, (int)id);
            if (id >= draft->vocab_size)
                draft->vocab_size = id + 1;
        }
        emo_status status = emo__draft_document(draft, lengths[i], 0, 0, 0, domains != NULL ? domains[i] : "", err);
        if (status == EMO_OK)
            status = emo__draft_tokens(draft, tokens + at, lengths[i], err);
        if (status != EMO_OK)
            return status;
        at += lengths[i];
    }
    return EMO_OK;
}

emo_status emo_dataset_from_tokens(emo_runtime *rt, const int32_t *tokens, const size_t *lengths,
                                   const char *const *domains, size_t n, int32_t eos, emo_dataset **out,
                                   emo_error *err) {
    emo_status status = check_out(rt, (void **)out, err);
    if (status == EMO_OK)
        status = check_strings(domains, n, "domains", err);
    if (status != EMO_OK)
        return status;
    if (tokens == NULL || lengths == NULL || n == 0)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "tokens and lengths must hold at least one document");
    if (eos < -1 || eos == INT32_MAX)
        return emo__fail(err, EMO_E_RANGE, "eos is %d; it must be an id, or -1 for none", (int)eos);
    emo__dataset_draft draft;
    emo__draft_init(&draft, rt);
    draft.eos = eos;
    draft.vocab_size = eos + 1;
    status = add_tokens(&draft, tokens, lengths, domains, n, err);
    if (status == EMO_OK)
        status = emo__draft_finish(&draft, NULL, 0, 0, out, err);
    emo__draft_free(&draft);
    return status;
}

#define TEXTS_AT_ONCE 16 /* between two reports */

/* The texts of a call, and what is said of them. */
typedef struct given_texts {
    const emo_tokenizer *tokenizer;
    const emo_dataset_options *opt;
    emo__phase phase; /* bytes */
} given_texts;

static emo_status add_text(emo__dataset_draft *draft, given_texts *t, const char *text, const char *domain,
                           size_t index, emo_error *err) {
    int32_t *ids = NULL;
    size_t count = 0;
    size_t length = strlen(text);
    emo_progress inner = {&t->phase, emo__phase_report};
    if (length == 0 || !emo__utf8_valid(text, length)) {
        if (t->opt->skip_broken != 0) {
            draft->skipped++;
            emo__log(draft->rt, EMO_LOG_WARNING, "left out: texts[%zu] is %s", index,
                     length == 0 ? "empty" : "not valid UTF-8");
            return EMO_OK;
        }
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_ARGUMENT, (int64_t)index, "texts[%zu] is %s", index,
                            length == 0 ? "empty" : "not valid UTF-8");
    }
    emo_status status = emo__encode_text(&draft->rt->mem, t->tokenizer, text, length, &inner, &ids, &count, err);
    if (status == EMO_OK && count > 0)
        status = emo__draft_document(draft, count, 0, length, 0, domain, err);
    if (status == EMO_OK)
        status = emo__draft_tokens(draft, ids, count, err);
    emo__free(&draft->rt->mem, ids);
    return status;
}

static emo_status add_texts(emo__dataset_draft *draft, given_texts *t, const char *const *all,
                            const char *const *domains, size_t n, emo_error *err) {
    const emo_dataset_options *opt = t->opt;
    t->phase = (emo__phase){&opt->progress, "tokenize", 0, 0, 0, 0};
    for (size_t i = 0; i < n; i++)
        t->phase.total += strlen(all[i]);
    for (size_t i = 0; i < n; i++) {
        const char *domain = domains != NULL ? domains[i] : "";
        emo__phase_next(&t->phase, strlen(all[i]));
        emo_status status = EMO_OK;
        if (i % TEXTS_AT_ONCE == 0)
            status = emo__report(t->phase.outer, t->phase.name, t->phase.done, t->phase.total, err);
        if (status != EMO_OK)
            return status;
        if (opt->max_documents > 0 && draft->doc_count >= (size_t)opt->max_documents)
            break;
        if (opt->domain != NULL && strcmp(opt->domain, domain) != 0)
            continue;
        status = add_text(draft, t, all[i], domain, i, err);
        if (status != EMO_OK)
            return status;
    }
    return draft->doc_count > 0 ? EMO_OK : no_documents(opt, "texts", err);
}

emo_status emo_dataset_from_text(emo_runtime *rt, const emo_tokenizer *tokenizer, const char *const *texts,
                                 const char *const *domains, size_t n, emo_dataset **out, emo_error *err) {
    return emo_dataset_from_text_with(rt, tokenizer, texts, domains, n, NULL, out, err);
}

emo_status emo_dataset_from_text_with(emo_runtime *rt, const emo_tokenizer *tokenizer, const char *const *all,
                                      const char *const *domains, size_t n, const emo_dataset_options *options,
                                      emo_dataset **out, emo_error *err) {
    emo_status status = check_out(rt, (void **)out, err);
    if (status != EMO_OK)
        return status;
    if (tokenizer == NULL || all == NULL || n == 0)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s",
                         tokenizer == NULL ? "tokenizer is NULL" : "texts must hold at least one text");
    emo_dataset_options opt = EMO_DATASET_OPTIONS_INIT;
    status = check_strings(all, n, "texts", err);
    if (status == EMO_OK)
        status = check_strings(domains, n, "domains", err);
    if (status == EMO_OK)
        status = emo__options_copy(&opt, sizeof opt, options, "emo_dataset_options", err);
    if (status == EMO_OK)
        status = check_options(&opt, tokenizer, err);
    if (status != EMO_OK)
        return status;
    given_texts t = {tokenizer, &opt, {0}};
    emo__dataset_draft draft;
    emo__draft_init(&draft, rt);
    draft.eos = opt.eos;
    draft.vocab_size = emo_tokenizer_vocab_size(tokenizer);
    status = add_texts(&draft, &t, all, domains, n, err);
    if (status == EMO_OK)
        status = emo__draft_finish(&draft, NULL, 0, 0, out, err);
    emo__draft_free(&draft);
    return status;
}

int64_t emo_dataset_count(const emo_dataset *dataset) { return dataset != NULL ? (int64_t)dataset->count : 0; }
int64_t emo_dataset_tokens(const emo_dataset *dataset) { return dataset != NULL ? dataset->tokens : 0; }
int64_t emo_dataset_bytes(const emo_dataset *dataset) { return dataset != NULL ? dataset->bytes : 0; }
int64_t emo_dataset_skipped(const emo_dataset *dataset) { return dataset != NULL ? dataset->skipped : 0; }
int32_t emo_dataset_eos(const emo_dataset *dataset) { return dataset != NULL ? dataset->eos : -1; }
int32_t emo_dataset_vocab_size(const emo_dataset *dataset) { return dataset != NULL ? dataset->vocab_size : 0; }
int32_t emo_dataset_domains(const emo_dataset *dataset) { return dataset != NULL ? (int32_t)dataset->domain_count : 0; }

const char *emo_dataset_domain_name(const emo_dataset *dataset, int32_t domain) {
    return dataset != NULL && domain >= 0 && (size_t)domain < dataset->domain_count ? dataset->domains[domain] : NULL;
}

emo_status emo_dataset_document(const emo_dataset *dataset, int64_t index, emo_document *out, emo_error *err) {
    emo__error_clear(err);
    if (dataset == NULL || out == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", dataset == NULL ? "dataset" : "out");
    memset(out, 0, sizeof *out);
    if (index < 0 || (size_t)index >= dataset->count)
        return emo__fail(err, EMO_E_RANGE, "document %lld; there are %zu", (long long)index, dataset->count);
    const emo__doc *doc = &dataset->docs[index];
    out->tokens = dataset->store->tokens + doc->offset;
    out->count = (int64_t)doc->count;
    out->prompt_tokens = (int64_t)doc->prompt;
    out->bytes = (int64_t)doc->bytes;
    out->prompt_bytes = (int64_t)doc->prompt_bytes;
    out->domain = (int32_t)doc->domain;
    return EMO_OK;
}

emo_status emo_dataset_filter(const emo_dataset *dataset, const char *domain, int64_t examples, uint64_t seed,
                              emo_dataset **out, emo_error *err) {
    emo__error_clear(err);
    if (out == NULL || dataset == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", out == NULL ? "out" : "dataset");
    *out = NULL;
    if (examples < 0)
        return emo__fail(err, EMO_E_RANGE, "examples is %lld; it must be positive, or 0 for all", (long long)examples);
    return emo__dataset_filter(dataset, domain, examples, seed, out, err);
}

void emo_dataset_release(emo_dataset *dataset) { emo__dataset_release(dataset); }

emo_status emo_choices_open(emo_runtime *rt, const char *path, emo_choices **out, emo_error *err) {
    emo_status status = check_out(rt, (void **)out, err);
    if (status != EMO_OK)
        return status;
    if (path == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "path is NULL");
    return emo__choices_open(rt, path, out, err);
}

int64_t emo_choices_count(const emo_choices *choices) { return choices != NULL ? (int64_t)choices->count : 0; }

emo_status emo_choices_item(const emo_choices *choices, int64_t index, emo_choice_item *out, emo_error *err) {
    emo__error_clear(err);
    if (choices == NULL || out == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", choices == NULL ? "choices" : "out");
    memset(out, 0, sizeof *out);
    if (index < 0 || (size_t)index >= choices->count)
        return emo__fail(err, EMO_E_RANGE, "item %lld; there are %zu", (long long)index, choices->count);
    *out = choices->items[index];
    return EMO_OK;
}

void emo_choices_release(emo_choices *choices) { emo__choices_release(choices); }
