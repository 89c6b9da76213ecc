/* SPDX-License-Identifier: Apache-2.0 */
#include "data/texts.h"

#include <string.h>

#include "base/status.h"
#include "base/utf8.h"

void emo__texts_free(emo_texts *texts) {
    emo_runtime *rt = texts->rt;
    emo__lines_close(texts->lines);
    emo__json_free(texts->line);
    emo__buf_free(&texts->joined);
    emo__data_files_free(&rt->mem, &texts->files);
    emo__free(&rt->mem, texts->domain);
    emo__free(&rt->mem, texts);
    emo_runtime_release(rt);
}

static void end_file(emo_texts *texts) {
    emo__lines_close(texts->lines);
    texts->lines = NULL;
    texts->file++;
}

/* Prompt and completion as one text. */
static emo_status join(emo_texts *texts, const emo__document_text *doc, emo_text_document *out, emo_error *err) {
    texts->joined.size = 0;
    emo_status status = emo__buf_append(&texts->joined, doc->prompt, doc->prompt_bytes, err);
    if (status == EMO_OK)
        status = emo__buf_append(&texts->joined, doc->text, doc->text_bytes, err);
    out->text = texts->joined.data;
    out->length = texts->joined.size;
    out->prompt_bytes = doc->prompt_bytes;
    return status;
}

/* One line of the current file; out->text stays NULL where there is nothing to give. */
static emo_status next_line(emo_texts *texts, const emo__data_file *file, emo_text_document *out, emo_error *err) {
    const char *line;
    size_t length;
    bool end;
    char where[EMO__WHERE];
    emo_status status = emo__lines_next(texts->lines, &line, &length, &end, err);
    if (status != EMO_OK)
        return status;
    if (end) {
        end_file(texts);
        return EMO_OK;
    }
    if (emo__document_blank(line, length))
        return EMO_OK;
    emo__document_where(file, emo__lines_number(texts->lines), where);
    emo__document_text doc;
    status = emo__json_parse(&texts->rt->mem, line, length, where, &texts->line, err);
    if (status == EMO_OK)
        status =
            emo__document_read(texts->line, file, emo__lines_number(texts->lines), texts->domain, where, &doc, err);
    if (status == EMO_E_FORMAT && texts->skip_broken) {
        texts->skipped++;
        emo__log(texts->rt, EMO_LOG_WARNING, "left out: %s", err != NULL ? err->message : where);
        emo__error_clear(err);
        return EMO_OK;
    }
    if (status != EMO_OK || doc.text == NULL || doc.text_bytes == 0)
        return status;
    out->domain = doc.domain;
    if (doc.prompt_bytes > 0)
        return join(texts, &doc, out, err);
    out->text = doc.text;
    out->length = doc.text_bytes;
    return EMO_OK;
}

/* The whole of the current file. */
static emo_status next_whole(emo_texts *texts, const emo__data_file *file, emo_text_document *out, emo_error *err) {
    const char *text;
    size_t length;
    emo_status status = emo__lines_rest(texts->lines, &text, &length, err);
    if (status == EMO_OK && !emo__utf8_valid(text, length))
        status = emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: the text is not valid UTF-8", file->path);
    if (status != EMO_OK)
        return status;
    if (length == 0 || emo__document_blank(text, length)) { /* also when it has been given */
        end_file(texts);
        return EMO_OK;
    }
    out->text = text;
    out->length = length;
    out->domain = file->domain;
    return EMO_OK;
}

static emo_status step(emo_texts *texts, emo_text_document *out, emo_error *err) {
    const emo__data_file *file = &texts->files.items[texts->file];
    if (file->kind == EMO__FILE_TOKENS)
        return emo__fail_at(err, EMO_E_UNSUPPORTED, EMO_DOMAIN_FILE, 0, "%s holds token ids, not text", file->path);
    bool json = file->kind == EMO__FILE_JSON;
    if (!json && texts->domain != NULL && strcmp(texts->domain, file->domain) != 0) {
        texts->file++;
        return EMO_OK;
    }
    emo_status status = EMO_OK;
    if (texts->lines == NULL)
        status = emo__lines_open(&texts->rt->mem, file->path, 0, &texts->lines, err);
    if (status == EMO_OK)
        status = json ? next_line(texts, file, out, err) : next_whole(texts, file, out, err);
    if (status == EMO_E_FORMAT && texts->skip_broken) { /* a damaged file: what came before the damage was given */
        texts->skipped++;
        emo__log(texts->rt, EMO_LOG_WARNING, "left out the rest of %s", file->path);
        emo__error_clear(err);
        memset(out, 0, sizeof *out);
        end_file(texts);
        return EMO_OK;
    }
    return status;
}

static emo_status next(emo_texts *texts, emo_text_document *out, emo_error *err) {
    if (texts->max_documents > 0 && texts->count >= texts->max_documents)
        return EMO_OK;
    while (out->text == NULL && texts->file < texts->files.count) {
        emo__json_free(texts->line);
        texts->line = NULL;
        emo_status status = step(texts, out, err);
        if (status != EMO_OK)
            return status;
    }
    if (out->text != NULL) {
        texts->count++;
        texts->bytes += (int64_t)out->length;
    }
    return EMO_OK;
}

emo_status emo__texts_next(emo_texts *texts, emo_text_document *out, emo_error *err) {
    memset(out, 0, sizeof *out);
    if (!emo__guard_try_write(&texts->guard))
        return emo__fail(err, EMO_E_BUSY, "the texts are being read by another thread");
    emo_status status = next(texts, out, err);
    if (status != EMO_OK)
        memset(out, 0, sizeof *out);
    emo__guard_end_write(&texts->guard);
    return status;
}

int32_t emo__texts_read(void *ctx, const char **text, size_t *length) {
    emo_texts *texts = ctx;
    emo_text_document doc;
    emo__error_clear(&texts->failure);
    emo_status status = emo__texts_next(texts, &doc, &texts->failure);
    *text = doc.text;
    *length = doc.length;
    return status != EMO_OK ? (int32_t)status : doc.text != NULL;
}
