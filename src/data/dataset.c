/* SPDX-License-Identifier: Apache-2.0 */
#include "data/dataset.h"

#include <string.h>

#include "base/checked.h"
#include "base/status.h"
#include "tensor/philox.h"

static void store_release(emo__store *store) {
    if (store == NULL || !emo__ref_put(&store->ref))
        return;
    emo_runtime *rt = store->rt;
    emo__free(&rt->mem, store->owned);
    emo__source_release(store->source);
    emo__free(&rt->mem, store);
    emo_runtime_release(rt);
}

static void free_names(const emo__mem *mem, char **names, size_t count) {
    for (size_t i = 0; i < count; i++)
        emo__free(mem, names[i]);
    emo__free(mem, names);
}

emo_dataset *emo__dataset_retain(const emo_dataset *dataset) {
    emo_dataset *own = (emo_dataset *)(uintptr_t)dataset; /* the count is the only part that changes */
    emo__ref_get(&own->ref);
    return own;
}

void emo__dataset_release(emo_dataset *dataset) {
    if (dataset == NULL || !emo__ref_put(&dataset->ref))
        return;
    emo_runtime *rt = dataset->rt;
    store_release(dataset->store);
    free_names(&rt->mem, dataset->domains, dataset->domain_count);
    emo__free(&rt->mem, dataset->docs);
    emo__free(&rt->mem, dataset);
    emo_runtime_release(rt);
}

void emo__draft_init(emo__dataset_draft *draft, emo_runtime *rt) {
    memset(draft, 0, sizeof *draft);
    draft->rt = rt;
    draft->eos = -1;
    emo__name_index_init(&draft->domain_index, &rt->mem);
}

void emo__draft_free(emo__dataset_draft *draft) {
    const emo__mem *mem = &draft->rt->mem;
    emo__name_index_free(&draft->domain_index);
    free_names(mem, draft->domains, draft->domain_count);
    emo__free(mem, draft->tokens);
    emo__free(mem, draft->docs);
    draft->domains = NULL;
    draft->domain_count = 0;
    draft->tokens = NULL;
    draft->docs = NULL;
}

emo_status emo__draft_domain(emo__dataset_draft *draft, const char *name, uint32_t *out, emo_error *err) {
    if (emo__name_index_find(&draft->domain_index, name, out))
        return EMO_OK;
    const emo__mem *mem = &draft->rt->mem;
    if (draft->domain_count >= INT32_MAX)
        return emo__fail(err, EMO_E_LIMIT, "too many domains");
    emo_status status = emo__grow(mem, (void **)&draft->domains, &draft->domain_capacity, draft->domain_count + 1,
                                  sizeof draft->domains[0], err);
    if (status != EMO_OK)
        return status;
    char *copy = emo__strdup(mem, name);
    if (copy == NULL)
        return emo__fail_memory(err, strlen(name) + 1);
    bool fresh;
    status = emo__name_index_add(&draft->domain_index, copy, (uint32_t)draft->domain_count, &fresh, err);
    if (status != EMO_OK) {
        emo__free(mem, copy);
        return status;
    }
    *out = (uint32_t)draft->domain_count;
    draft->domains[draft->domain_count++] = copy;
    return EMO_OK;
}

emo_status emo__draft_document(emo__dataset_draft *draft, uint64_t count, uint64_t prompt, uint64_t bytes,
                               uint64_t prompt_bytes, const char *domain, emo_error *err) {
    uint32_t number = 0;
    emo_status status = emo__draft_domain(draft, domain, &number, err);
    if (status == EMO_OK && draft->doc_count >= UINT32_MAX)
        status = emo__fail(err, EMO_E_LIMIT, "more than 4294967295 documents");
    if (status == EMO_OK)
        status = emo__grow(&draft->rt->mem, (void **)&draft->docs, &draft->doc_capacity, draft->doc_count + 1,
                           sizeof draft->docs[0], err);
    if (status != EMO_OK)
        return status;
    emo__doc *doc = &draft->docs[draft->doc_count++];
    doc->offset = draft->token_count;
    doc->count = count;
    doc->prompt = prompt;
    doc->bytes = bytes;
    doc->prompt_bytes = prompt_bytes;
    doc->domain = number;
    doc->reserved = 0;
    return EMO_OK;
}

emo_status emo__draft_tokens(emo__dataset_draft *draft, const int32_t *tokens, size_t count, emo_error *err) {
    size_t need;
    if (!emo__add_size(draft->token_count, count, &need))
        return emo__fail_memory(err, SIZE_MAX);
    emo_status status =
        emo__grow(&draft->rt->mem, (void **)&draft->tokens, &draft->token_capacity, need, sizeof draft->tokens[0], err);
    if (status != EMO_OK)
        return status;
    if (count > 0)
        memcpy(draft->tokens + draft->token_count, tokens, count * sizeof tokens[0]);
    draft->token_count = need;
    return EMO_OK;
}

/* Tokens of a mapped source, or a copy where it cannot be mapped. */
static emo_status attach_source(emo__store *store, emo_source *source, uint64_t offset, emo_error *err) {
    const unsigned char *mapped = emo_source_map(source);
    if (mapped != NULL && ((uintptr_t)(mapped + offset) & 3u) == 0) {
        store->source = emo__source_retain(source);
        store->tokens = (const int32_t *)(const void *)(mapped + offset);
        return EMO_OK;
    }
    size_t bytes;
    if (!emo__mul_size((size_t)store->count, sizeof(int32_t), &bytes))
        return emo__fail_memory(err, SIZE_MAX);
    store->owned = emo__alloc(&store->rt->mem, bytes);
    if (store->owned == NULL)
        return emo__fail_memory(err, bytes);
    store->tokens = store->owned;
    return emo__source_read_at(source, offset, store->owned, bytes, err);
}

static void add_up(emo_dataset *dataset) {
    for (size_t i = 0; i < dataset->count; i++) {
        dataset->tokens += (int64_t)dataset->docs[i].count;
        dataset->bytes += (int64_t)dataset->docs[i].bytes;
    }
}

emo_status emo__draft_finish(emo__dataset_draft *draft, emo_source *source, uint64_t offset, uint64_t count,
                             emo_dataset **out, emo_error *err) {
    const emo__mem *mem = &draft->rt->mem;
    *out = NULL;
    if (draft->doc_count == 0)
        return emo__fail(err, EMO_E_FORMAT, "there are no documents");
    emo__store *store = emo__calloc(mem, 1, sizeof *store);
    emo_dataset *dataset = emo__calloc(mem, 1, sizeof *dataset);
    if (store == NULL || dataset == NULL) {
        emo__free(mem, store);
        emo__free(mem, dataset);
        return emo__fail_memory(err, sizeof *store);
    }
    emo__ref_init(&store->ref);
    store->rt = emo__runtime_retain(draft->rt);
    emo__ref_init(&dataset->ref);
    dataset->rt = emo__runtime_retain(draft->rt);
    dataset->store = store;
    emo_status status = EMO_OK;
    if (source != NULL) {
        store->count = count;
        status = attach_source(store, source, offset, err);
    } else {
        store->count = draft->token_count;
        store->owned = draft->tokens;
        store->tokens = draft->tokens;
        draft->tokens = NULL;
    }
    if (status != EMO_OK) {
        emo__dataset_release(dataset);
        return status;
    }
    dataset->docs = draft->docs;
    dataset->count = draft->doc_count;
    dataset->domains = draft->domains;
    dataset->domain_count = draft->domain_count;
    dataset->skipped = draft->skipped;
    dataset->eos = draft->eos;
    dataset->vocab_size = draft->vocab_size;
    draft->docs = NULL;
    draft->domains = NULL;
    draft->domain_count = 0;
    add_up(dataset);
    *out = dataset;
    return EMO_OK;
}

/* Fills order with the indices of the wanted documents; returns how many. */
static size_t matching(const emo_dataset *dataset, const char *domain, uint32_t *order) {
    size_t n = 0;
    for (size_t i = 0; i < dataset->count; i++) {
        if (domain == NULL || strcmp(dataset->domains[dataset->docs[i].domain], domain) == 0)
            order[n++] = (uint32_t)i;
    }
    return n;
}

static emo_status copy_domains(const emo_dataset *from, emo_dataset *to, emo_error *err) {
    const emo__mem *mem = &from->rt->mem;
    to->domains = emo__calloc(mem, from->domain_count, sizeof to->domains[0]);
    if (to->domains == NULL)
        return emo__fail_memory(err, from->domain_count * sizeof to->domains[0]);
    to->domain_count = from->domain_count;
    for (size_t i = 0; i < from->domain_count; i++) {
        to->domains[i] = emo__strdup(mem, from->domains[i]);
        if (to->domains[i] == NULL)
            return emo__fail_memory(err, strlen(from->domains[i]) + 1);
    }
    return EMO_OK;
}

/* wanted: indices into from->docs; order: which of them, in which order (NULL: all). */
static emo_status take(const emo_dataset *from, const uint32_t *wanted, const uint32_t *order, size_t n,
                       emo_dataset **out, emo_error *err) {
    const emo__mem *mem = &from->rt->mem;
    emo_dataset *part = emo__calloc(mem, 1, sizeof *part);
    if (part == NULL)
        return emo__fail_memory(err, sizeof *part);
    emo__ref_init(&part->ref);
    part->rt = emo__runtime_retain(from->rt);
    emo__ref_get(&from->store->ref);
    part->store = from->store;
    part->eos = from->eos;
    part->vocab_size = from->vocab_size;
    emo_status status = copy_domains(from, part, err);
    if (status == EMO_OK) {
        part->docs = emo__malloc_array(mem, n, sizeof part->docs[0]);
        if (part->docs == NULL)
            status = emo__fail_memory(err, n * sizeof part->docs[0]);
    }
    if (status != EMO_OK) {
        emo__dataset_release(part);
        return status;
    }
    part->count = n;
    for (size_t i = 0; i < n; i++)
        part->docs[i] = from->docs[wanted[order != NULL ? order[i] : i]];
    add_up(part);
    *out = part;
    return EMO_OK;
}

emo_status emo__dataset_filter(const emo_dataset *dataset, const char *domain, int64_t examples, uint64_t seed,
                               emo_dataset **out, emo_error *err) {
    const emo__mem *mem = &dataset->rt->mem;
    uint32_t *order = NULL;
    emo_status status = EMO_OK;
    uint32_t *wanted = emo__malloc_array(mem, dataset->count, sizeof *wanted);
    if (wanted == NULL)
        return emo__fail_memory(err, dataset->count * sizeof *wanted);
    size_t n = matching(dataset, domain, wanted);
    size_t take_n = examples > 0 ? (size_t)examples : n;
    if (n == 0) {
        status = emo__fail(err, EMO_E_NOT_FOUND,
                           "no document is of domain \"%.100s\" (the first of the %zu domains "
                           "is \"%.100s\")",
                           domain, dataset->domain_count, dataset->domains[0]);
    } else if (take_n > n) {
        status = emo__fail(err, EMO_E_RANGE, "examples is %lld; there are %zu documents to draw from%s%.100s",
                           (long long)examples, n, domain != NULL ? " of domain " : "", domain != NULL ? domain : "");
    } else if (examples > 0) {
        order = emo__malloc_array(mem, n, sizeof *order);
        if (order == NULL)
            status = emo__fail_memory(err, n * sizeof *order);
        else
            emo__permutation(seed, EMO__RNG_EXAMPLE, 0, order, n);
    }
    if (status == EMO_OK)
        status = take(dataset, wanted, order, take_n, out, err);
    emo__free(mem, wanted);
    emo__free(mem, order);
    return status;
}
