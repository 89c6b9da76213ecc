/* SPDX-License-Identifier: Apache-2.0 */
#include "data/ingest.h"

#include <string.h>

#include "base/checked.h"
#include "base/progress.h"
#include "base/status.h"
#include "base/utf8.h"
#include "io/gzip.h"
#include "io/json.h"
#include "io/npy.h"
#include "text/encode.h"

/* Documents are read by one thread and tokenised by all, a batch at a time; batches bound the memory. */
#define BATCH_DOCUMENTS 512
#define BATCH_BYTES ((size_t)4 << 20)

/* A text of this size is tokenised by the calling thread, which can report and be cancelled in the middle of it. It has
 * a batch nearly to itself anyway. */
#define LONG_TEXT BATCH_BYTES

typedef struct job {
    const emo__data_file *file;
    uint64_t line; /* 0: the file is one document */
    char *text;
    size_t length;
    /* results */
    emo_status status;
    emo_error err;
    int32_t *ids; /* NULL: passed over */
    size_t count;
    size_t prompt;
    size_t prompt_bytes;
    size_t bytes;
    char *domain; /* NULL: the file's */
    emo_progress progress;
} job;

typedef struct ingest {
    const emo__mem *mem;
    const emo_tokenizer *tokenizer;
    const emo_dataset_options *opt;
    emo__dataset_draft *draft;
    emo__atomic_file *file;
    job *jobs;
    size_t job_count;
    size_t job_bytes;
    bool full;           /* max_documents reached */
    emo__phase phase;    /* bytes of the files */
    uint64_t file_begin; /* the same at the begin of the current file */
} ingest;

static bool wanted_domain(const ingest *in, const char *domain) {
    return in->opt->domain == NULL || strcmp(in->opt->domain, domain) == 0;
}

static emo_status encode_pair(const ingest *in, job *j, const emo__document_text *doc) {
    int32_t *a = NULL;
    int32_t *b = NULL;
    size_t n_a = 0;
    size_t n_b = 0;
    emo_error *err = &j->err;
    if (doc->text_bytes == 0)
        return EMO_OK;
    emo_status status = EMO_OK;
    if (doc->prompt != NULL)
        status = emo__encode_text(in->mem, in->tokenizer, doc->prompt, doc->prompt_bytes, &j->progress, &a, &n_a, err);
    if (status == EMO_OK)
        status = emo__encode_text(in->mem, in->tokenizer, doc->text, doc->text_bytes, &j->progress, &b, &n_b, err);
    j->bytes = doc->prompt_bytes + doc->text_bytes;
    if (status == EMO_OK && n_a > 0) {
        int32_t *both = emo__malloc_array(in->mem, n_a + n_b, sizeof *both);
        if (both == NULL) {
            status = emo__fail_memory(err, (n_a + n_b) * sizeof *both);
        } else {
            memcpy(both, a, n_a * sizeof *both);
            if (n_b > 0)
                memcpy(both + n_a, b, n_b * sizeof *both);
            emo__free(in->mem, b);
            b = both;
        }
    }
    emo__free(in->mem, a);
    if (status != EMO_OK) {
        emo__free(in->mem, b);
        return status;
    }
    j->ids = b;
    j->count = n_a + n_b;
    j->prompt = n_a;
    j->prompt_bytes = doc->prompt_bytes;
    return EMO_OK;
}

static emo_status encode_json(const ingest *in, job *j, const char *where) {
    emo__json *root = NULL;
    emo__document_text doc;
    emo_status status = emo__json_parse(in->mem, j->text, j->length, where, &root, &j->err);
    if (status != EMO_OK)
        return status;
    status = emo__document_read(root, j->file, j->line, in->opt->domain, where, &doc, &j->err);
    if (status == EMO_OK && doc.text != NULL) {
        status = encode_pair(in, j, &doc);
        if (status == EMO_OK && strcmp(doc.domain, j->file->domain) != 0) {
            j->domain = emo__strdup(in->mem, doc.domain);
            if (j->domain == NULL)
                status = emo__fail_memory(&j->err, strlen(doc.domain) + 1);
        }
    }
    emo__json_free(root);
    return status;
}

static void run_job(void *task, size_t index, size_t worker) {
    const ingest *in = task;
    job *j = &in->jobs[index];
    char where[EMO__WHERE];
    (void)worker;
    emo__document_where(j->file, j->line, where);
    if (j->file->kind == EMO__FILE_JSON) {
        j->status = encode_json(in, j, where);
    } else if (!emo__utf8_valid(j->text, j->length)) {
        j->status = emo__fail_at(&j->err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: the text is not valid UTF-8", where);
    } else {
        j->bytes = j->length;
        j->status =
            emo__encode_text(in->mem, in->tokenizer, j->text, j->length, &j->progress, &j->ids, &j->count, &j->err);
    }
}

static emo_status put_document(ingest *in, const int32_t *ids, size_t count, size_t prompt, size_t bytes,
                               size_t prompt_bytes, const char *domain, emo_error *err) {
    emo_status status = emo__draft_document(in->draft, count, prompt, bytes, prompt_bytes, domain, err);
    if (status != EMO_OK)
        return status;
    if (in->file != NULL) {
        status = emo__atomic_write(in->file, ids, count * sizeof ids[0], err);
        in->draft->token_count += count;
    } else {
        status = emo__draft_tokens(in->draft, ids, count, err);
    }
    in->full = in->opt->max_documents > 0 && in->draft->doc_count >= (size_t)in->opt->max_documents;
    return status;
}

static emo_status take_job(ingest *in, const job *j, emo_error *err) {
    if (j->status == EMO_E_FORMAT && in->opt->skip_broken) {
        in->draft->skipped++;
        emo__log(in->draft->rt, EMO_LOG_WARNING, "left out: %s", j->err.message);
        return EMO_OK;
    }
    if (j->status != EMO_OK) {
        if (err != NULL)
            *err = j->err;
        return j->status;
    }
    if (j->count == 0 || in->full)
        return EMO_OK;
    return put_document(in, j->ids, j->count, j->prompt, j->bytes, j->prompt_bytes,
                        j->domain != NULL ? j->domain : j->file->domain, err);
}

static void clear_jobs(ingest *in) {
    for (size_t i = 0; i < in->job_count; i++) {
        emo__free(in->mem, in->jobs[i].text);
        emo__free(in->mem, in->jobs[i].ids);
        emo__free(in->mem, in->jobs[i].domain);
    }
    in->job_count = 0;
    in->job_bytes = 0;
}

static emo_status report(ingest *in, uint64_t done, emo_error *err) {
    in->phase.done = done;
    in->phase.room = in->phase.seen = 0;
    return emo__report(in->phase.outer, in->phase.name, done, in->phase.total, err);
}

static emo_status flush(ingest *in, uint64_t done, emo_error *err) {
    /* Only the last can be long: a batch that has one is full. */
    size_t together =
        in->job_count > 0 && in->jobs[in->job_count - 1].length >= LONG_TEXT ? in->job_count - 1 : in->job_count;
    emo__parallel_for(in->draft->rt, together, run_job, in);
    if (together < in->job_count) {
        in->phase.room = done - in->phase.done;
        in->jobs[together].progress = (emo_progress){&in->phase, emo__phase_report};
        run_job(in, together, 0);
    }
    emo_status status = EMO_OK;
    for (size_t i = 0; i < in->job_count && status == EMO_OK && !in->full; i++)
        status = take_job(in, &in->jobs[i], err);
    clear_jobs(in);
    return status == EMO_OK ? report(in, done, err) : status;
}

static emo_status add_job(ingest *in, const emo__data_file *file, uint64_t line, const char *text, size_t length,
                          emo_error *err) {
    job *j = &in->jobs[in->job_count];
    memset(j, 0, sizeof *j);
    j->file = file;
    j->line = line;
    j->length = length;
    j->text = emo__strndup(in->mem, text, length);
    if (j->text == NULL)
        return emo__fail_memory(err, length);
    in->job_count++;
    in->job_bytes += length;
    return EMO_OK;
}

static emo_status read_lines(ingest *in, const emo__data_file *file, emo__lines *lines, emo_error *err) {
    for (;;) {
        const char *line;
        size_t length;
        bool end;
        emo_status status = emo__lines_next(lines, &line, &length, &end, err);
        if (status != EMO_OK || end || in->full)
            return status;
        if (emo__document_blank(line, length))
            continue;
        status = add_job(in, file, emo__lines_number(lines), line, length, err);
        if (status == EMO_OK && (in->job_count == BATCH_DOCUMENTS || in->job_bytes >= BATCH_BYTES))
            status = flush(in, in->file_begin + emo__lines_offset(lines), err);
        if (status != EMO_OK)
            return status;
    }
}

static emo_status read_text_file(ingest *in, const emo__data_file *file, emo_error *err) {
    emo__lines *lines = NULL;
    emo_status status = emo__lines_open(in->mem, file->path, 0, &lines, err);
    if (status == EMO_OK && file->kind == EMO__FILE_JSON) {
        status = read_lines(in, file, lines, err);
    } else if (status == EMO_OK && wanted_domain(in, file->domain)) {
        const char *text;
        size_t length;
        status = emo__lines_rest(lines, &text, &length, err);
        if (status == EMO_OK && !emo__document_blank(text, length))
            status = add_job(in, file, 0, text, length, err);
    }
    emo__lines_close(lines);
    if (status == EMO_E_FORMAT && in->opt->skip_broken) { /* a damaged file: what came before the damage is kept */
        in->draft->skipped++;
        emo__log(in->draft->rt, EMO_LOG_WARNING, "left out the rest of %s", file->path);
        status = EMO_OK;
    }
    if (status == EMO_OK &&
        (file->kind == EMO__FILE_JSON || in->job_count == BATCH_DOCUMENTS || in->job_bytes >= BATCH_BYTES))
        status = flush(in, in->file_begin + file->size, err);
    return status;
}

static size_t text_bytes(const emo_tokenizer *tokenizer, const int32_t *ids, size_t n) {
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        const char *bytes;
        size_t length;
        if (emo_tokenizer_id_to_token(tokenizer, ids[i], &bytes, &length, NULL) == EMO_OK)
            total += length;
    }
    return total;
}

static emo_status put_pending(ingest *in, const emo__data_file *file, emo__buf *pending, emo_error *err) {
    size_t n = pending->size / sizeof(int32_t);
    if (n == 0 || in->full)
        return EMO_OK;
    const int32_t *ids = (const int32_t *)(const void *)pending->data;
    pending->size = 0;
    return put_document(in, ids, n, 0, text_bytes(in->tokenizer, ids, n), 0, file->domain, err);
}

static emo_status cut_tokens(ingest *in, const emo__data_file *file, const emo__npy *npy, emo__buf *pending,
                             emo_error *err) {
    int32_t piece[4096];
    for (uint64_t done = 0; done < npy->count && !in->full;) {
        size_t n = npy->count - done < 4096 ? (size_t)(npy->count - done) : 4096;
        emo_status status = emo__npy_read(npy, done, n, emo_tokenizer_vocab_size(in->tokenizer), piece, err);
        size_t begin = 0;
        for (size_t i = 0; i < n && status == EMO_OK; i++) {
            if (piece[i] != in->opt->eos)
                continue;
            status = emo__buf_append(pending, piece + begin, (i - begin) * sizeof piece[0], err);
            if (status == EMO_OK)
                status = put_pending(in, file, pending, err);
            begin = i + 1;
        }
        if (status == EMO_OK)
            status = emo__buf_append(pending, piece + begin, (n - begin) * sizeof piece[0], err);
        if (status == EMO_OK && done % ((uint64_t)4096 * 256) == 0)
            status = report(in, in->file_begin + done * (file->size / npy->count), err);
        if (status != EMO_OK)
            return status;
        done += n;
    }
    return put_pending(in, file, pending, err);
}

static emo_status read_token_file(ingest *in, const emo__data_file *file, emo_error *err) {
    if (!wanted_domain(in, file->domain))
        return EMO_OK;
    emo_source *source = NULL;
    emo__npy npy;
    emo__buf pending;
    emo__buf_init(&pending, in->mem);
    emo_status status = flush(in, in->file_begin, err); /* what came before */
    if (status == EMO_OK)
        status = emo__source_open_path(in->draft->rt, file->path, &source, err);
    if (status == EMO_OK)
        status = emo__npy_open(source, in->opt->token_type == EMO_TOKENS_U32 ? EMO__NPY_U32 : EMO__NPY_U16, &npy, err);
    if (status == EMO_OK)
        status = cut_tokens(in, file, &npy, &pending, err);
    emo__source_release(source);
    emo__buf_free(&pending);
    return status;
}

emo_status emo__ingest(const emo__data_files *files, const emo_tokenizer *tokenizer, const emo_dataset_options *opt,
                       emo__dataset_draft *draft, emo__atomic_file *file, emo_error *err) {
    ingest in;
    memset(&in, 0, sizeof in);
    in.mem = &draft->rt->mem;
    in.tokenizer = tokenizer;
    in.opt = opt;
    in.draft = draft;
    in.file = file;
    in.phase.outer = &opt->progress;
    in.phase.name = "tokenize";
    for (size_t i = 0; i < files->count; i++)
        in.phase.total += files->items[i].size;
    in.jobs = emo__calloc(in.mem, BATCH_DOCUMENTS, sizeof in.jobs[0]);
    if (in.jobs == NULL)
        return emo__fail_memory(err, BATCH_DOCUMENTS * sizeof in.jobs[0]);
    emo_status status = EMO_OK;
    for (size_t i = 0; i < files->count && status == EMO_OK && !in.full; i++) {
        const emo__data_file *f = &files->items[i];
        status = f->kind == EMO__FILE_TOKENS ? read_token_file(&in, f, err) : read_text_file(&in, f, err);
        in.file_begin += f->size;
    }
    if (status == EMO_OK)
        status = flush(&in, in.phase.total, err);
    clear_jobs(&in);
    emo__free(in.mem, in.jobs);
    return status;
}
