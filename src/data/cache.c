/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens kept in a file and mapped. In the machine's byte order (a file of the other order does not fit and is made
 * anew):
 *   head    64 bytes, the magic and zeros
 *   tokens  int32 each
 *   docs    emo__doc each, at a multiple of 8
 *   names   of the domains, each with its NUL
 *   key     the text that says what the file was made from
 *   tail    struct tail, at the end */
#include <string.h>

#include "base/checked.h"
#include "base/status.h"
#include "data/ingest.h"

#define HEAD 64u
static const char magic[8] = {'E', 'M', 'O', 'T', 'O', 'K', '0', '2'};
#define ORDER 0x0102030405060708u

typedef struct tail {
    uint64_t order;
    uint64_t token_count;
    uint64_t docs_at;
    uint64_t doc_count;
    uint64_t names_at;
    uint64_t names_bytes;
    uint64_t domain_count;
    uint64_t key_bytes; /* behind the names */
    uint64_t skipped;
    uint64_t check; /* hash of docs, names and key */
    int32_t eos;
    int32_t vocab_size;
    char magic[8];
} tail;

static emo_status make_key(const emo__data_files *files, const emo_tokenizer *tokenizer, const emo_dataset_options *opt,
                           emo__buf *key, emo_error *err) {
    emo_status status =
        emo__buf_printf(key, err, "tokenizer %016llx %d eos %d skip %d max %lld type %d domain %d %s\n",
                        (unsigned long long)emo_tokenizer_hash(tokenizer), (int)emo_tokenizer_vocab_size(tokenizer),
                        (int)opt->eos, (int)opt->skip_broken, (long long)opt->max_documents, (int)opt->token_type,
                        opt->domain != NULL, opt->domain != NULL ? opt->domain : "");
    for (size_t i = 0; i < files->count && status == EMO_OK; i++) {
        const emo__data_file *f = &files->items[i];
        status = emo__buf_printf(key, err, "%llu %lld %s %s\n", (unsigned long long)f->size, (long long)f->mtime_ns,
                                 f->domain, f->path);
    }
    return status;
}

static emo_status bad_cache(emo_error *err, const emo_source *source, const char *what) {
    return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: %s", emo__source_name(source), what);
}

static emo_status read_tail(const emo_source *source, tail *t, emo_error *err) {
    uint64_t size = emo_source_size(source);
    if (size < HEAD + sizeof *t)
        return bad_cache(err, source, "too short");
    emo_status status = emo__source_read_at(source, size - sizeof *t, t, sizeof *t, err);
    if (status != EMO_OK)
        return status;
    if (memcmp(t->magic, magic, sizeof magic) != 0 || t->order != ORDER)
        return bad_cache(err, source, "no token cache of this version and byte order");
    size_t token_bytes;
    size_t doc_bytes;
    size_t at;
    bool fits = emo__mul_size(t->token_count, sizeof(int32_t), &token_bytes) &&
                emo__mul_size(t->doc_count, sizeof(emo__doc), &doc_bytes) && emo__add_size(HEAD, token_bytes, &at) &&
                at <= t->docs_at && t->docs_at - at < 8 && emo__add_size(t->docs_at, doc_bytes, &at) &&
                at == t->names_at && emo__add_size(at, t->names_bytes, &at) && emo__add_size(at, t->key_bytes, &at) &&
                at == size - sizeof *t;
    if (!fits || t->doc_count == 0 || t->vocab_size < 1 || t->eos < -1)
        return bad_cache(err, source, "its parts do not fill the file");
    return EMO_OK;
}

static emo_status take_names(emo__dataset_draft *draft, const emo_source *source, const char *names, const tail *t,
                             emo_error *err) {
    size_t at = 0;
    for (uint64_t i = 0; i < t->domain_count; i++) {
        const char *end = memchr(names + at, 0, t->names_bytes - at);
        uint32_t number;
        if (end == NULL)
            return bad_cache(err, source, "its domain names are cut off");
        emo_status status = emo__draft_domain(draft, names + at, &number, err);
        if (status != EMO_OK)
            return status;
        if (number != i)
            return bad_cache(err, source, "a domain name occurs twice");
        at = (size_t)(end - names) + 1;
    }
    return at == t->names_bytes ? EMO_OK : bad_cache(err, source, "its domain names are too long");
}

static emo_status check_docs(const emo__dataset_draft *draft, const emo_source *source, const tail *t, emo_error *err) {
    for (size_t i = 0; i < draft->doc_count; i++) {
        const emo__doc *d = &draft->docs[i];
        if (d->count == 0 || d->offset > t->token_count || d->count > t->token_count - d->offset ||
            d->prompt > d->count || d->domain >= draft->domain_count || d->bytes > INT64_MAX / 2 ||
            d->prompt_bytes > d->bytes)
            return bad_cache(err, source, "a document lies outside its tokens or domains");
    }
    return EMO_OK;
}

/* docs, names and key as one block; key must be the expected one. */
static emo_status take_index(emo__dataset_draft *draft, const emo_source *source, const tail *t, const emo__buf *key,
                             emo_error *err) {
    const emo__mem *mem = &draft->rt->mem;
    size_t size = (size_t)(emo_source_size(source) - sizeof *t - t->docs_at);
    size_t doc_bytes = (size_t)t->doc_count * sizeof(emo__doc);
    char *block = emo__alloc(mem, size);
    draft->docs = emo__alloc(mem, doc_bytes);
    emo_status status = EMO_OK;
    if (block == NULL || draft->docs == NULL)
        status = emo__fail_memory(err, size);
    if (status == EMO_OK)
        status = emo__source_read_at(source, t->docs_at, block, size, err);
    if (status == EMO_OK) {
        const char *names = block + doc_bytes;
        if (emo__hash_bytes(EMO__HASH_START, block, size) != t->check)
            status = bad_cache(err, source, "its checksum does not fit");
        else if (t->key_bytes != key->size || memcmp(names + t->names_bytes, key->data, key->size) != 0)
            status = bad_cache(err, source, "it was made from other inputs");
        memcpy(draft->docs, block, doc_bytes);
        draft->doc_count = (size_t)t->doc_count;
        draft->skipped = (int64_t)t->skipped;
        draft->eos = t->eos;
        draft->vocab_size = t->vocab_size;
        if (status == EMO_OK)
            status = take_names(draft, source, names, t, err);
        if (status == EMO_OK)
            status = check_docs(draft, source, t, err);
    }
    emo__free(mem, block);
    return status;
}

static emo_status open_cache(emo_runtime *rt, const char *path, const emo__buf *key, emo_dataset **out,
                             emo_error *err) {
    emo_source *source = NULL;
    tail t;
    emo__dataset_draft draft;
    emo__draft_init(&draft, rt);
    emo_status status = emo__source_open_path(rt, path, &source, err);
    if (status == EMO_OK)
        status = read_tail(source, &t, err);
    if (status == EMO_OK)
        status = take_index(&draft, source, &t, key, err);
    if (status == EMO_OK)
        status = emo__draft_finish(&draft, source, HEAD, t.token_count, out, err);
    for (uint64_t i = 0; status == EMO_OK && i < t.token_count; i++) {
        int32_t id = (*out)->store->tokens[i];
        if (id < 0 || id >= t.vocab_size) {
            status = bad_cache(err, source, "a token is outside the vocabulary");
            emo__dataset_release(*out);
            *out = NULL;
        }
    }
    emo__source_release(source);
    emo__draft_free(&draft);
    return status;
}

static emo_status write_index(const emo__dataset_draft *draft, const emo__buf *key, emo__atomic_file *file,
                              emo_error *err) {
    static const char zeros[8] = {0};
    emo__buf names;
    tail t;
    memset(&t, 0, sizeof t);
    emo__buf_init(&names, &draft->rt->mem);
    emo_status status = emo__atomic_write(file, zeros, (8 - file->written % 8) % 8, err);
    for (size_t i = 0; i < draft->domain_count && status == EMO_OK; i++)
        status = emo__buf_append(&names, draft->domains[i], strlen(draft->domains[i]) + 1, err);
    if (status == EMO_OK) {
        size_t doc_bytes = draft->doc_count * sizeof draft->docs[0];
        t.order = ORDER;
        t.token_count = draft->token_count;
        t.docs_at = file->written;
        t.doc_count = draft->doc_count;
        t.names_at = file->written + doc_bytes;
        t.names_bytes = names.size;
        t.domain_count = draft->domain_count;
        t.key_bytes = key->size;
        t.skipped = (uint64_t)draft->skipped;
        t.check = emo__hash_bytes(EMO__HASH_START, draft->docs, doc_bytes);
        t.check = emo__hash_bytes(t.check, names.data, names.size);
        t.check = emo__hash_bytes(t.check, key->data, key->size);
        t.eos = draft->eos;
        t.vocab_size = draft->vocab_size;
        memcpy(t.magic, magic, sizeof magic);
        status = emo__atomic_write(file, draft->docs, doc_bytes, err);
    }
    if (status == EMO_OK)
        status = emo__atomic_write(file, names.data, names.size, err);
    if (status == EMO_OK)
        status = emo__atomic_write(file, key->data, key->size, err);
    if (status == EMO_OK)
        status = emo__atomic_write(file, &t, sizeof t, err);
    emo__buf_free(&names);
    return status;
}

static emo_status make_cache(emo_runtime *rt, const char *path, const emo__data_files *files,
                             const emo_tokenizer *tokenizer, const emo_dataset_options *opt, const emo__buf *key,
                             emo_error *err) {
    char head[HEAD] = {0};
    emo__dataset_draft draft;
    emo__atomic_file file;
    memcpy(head, magic, sizeof magic);
    emo_status status = emo__mkdirs(&rt->mem, opt->cache_dir, err);
    if (status == EMO_OK)
        status = emo__atomic_open(&file, &rt->mem, path, err);
    if (status != EMO_OK)
        return status;
    emo__draft_init(&draft, rt);
    draft.eos = opt->eos;
    draft.vocab_size = emo_tokenizer_vocab_size(tokenizer);
    status = emo__atomic_write(&file, head, sizeof head, err);
    if (status == EMO_OK)
        status = emo__ingest(files, tokenizer, opt, &draft, &file, err);
    if (status == EMO_OK && draft.doc_count == 0)
        status = emo__fail(err, opt->domain != NULL ? EMO_E_NOT_FOUND : EMO_E_FORMAT,
                           "there are no documents%s%.100s in the given files",
                           opt->domain != NULL ? " of domain " : "", opt->domain != NULL ? opt->domain : "");
    if (status == EMO_OK)
        status = write_index(&draft, key, &file, err);
    if (status == EMO_OK)
        status = emo__atomic_commit(&file, err);
    else
        emo__atomic_abort(&file);
    emo__draft_free(&draft);
    return status;
}

emo_status emo__cache_open(emo_runtime *rt, const emo__data_files *files, const emo_tokenizer *tokenizer,
                           const emo_dataset_options *opt, emo_dataset **out, emo_error *err) {
    emo__buf key;
    emo__buf name;
    emo__buf path;
    emo__buf_init(&key, &rt->mem);
    emo__buf_init(&name, &rt->mem);
    emo__buf_init(&path, &rt->mem);
    emo_status status = make_key(files, tokenizer, opt, &key, err);
    if (status == EMO_OK)
        status = emo__buf_printf(&name, err, "%016llx.tokens",
                                 (unsigned long long)emo__hash_bytes(EMO__HASH_START, key.data, key.size));
    if (status == EMO_OK)
        status = emo__path_join(&path, opt->cache_dir, name.data, err);
    if (status == EMO_OK) {
        status = open_cache(rt, path.data, &key, out, err);
        if (status == EMO_E_NOT_FOUND || status == EMO_E_FORMAT) {
            if (status == EMO_E_FORMAT)
                emo__log(rt, EMO_LOG_WARNING, "the token cache is made anew: %s", path.data);
            emo__error_clear(err);
            status = make_cache(rt, path.data, files, tokenizer, opt, &key, err);
            if (status == EMO_OK)
                status = open_cache(rt, path.data, &key, out, err);
        }
    }
    emo__buf_free(&key);
    emo__buf_free(&name);
    emo__buf_free(&path);
    return status;
}
