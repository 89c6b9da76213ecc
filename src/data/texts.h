/* SPDX-License-Identifier: Apache-2.0 */
/* Documents as text, one after the other. */
#ifndef EMO_SRC_DATA_TEXTS_H
#define EMO_SRC_DATA_TEXTS_H

#include "data/ingest.h"
#include "io/gzip.h"

struct emo_texts {
    emo__guard guard;
    emo_runtime *rt;
    emo__data_files files;
    size_t file;       /* the one being read, or the next */
    emo__lines *lines; /* of it; NULL: not open */
    emo__json *line;   /* what the caller looks at */
    emo__buf joined;   /* prompt and completion, where it is both */
    char *domain;      /* only this one; NULL: all */
    bool skip_broken;
    int64_t max_documents; /* 0: all */
    int64_t count, bytes, skipped;
    emo_error failure; /* of the last reading through an emo_text_reader */
};

/* Sets out->text to NULL at the end. EMO_E_BUSY where another thread is in it. */
EMO_MUST_CHECK emo_status emo__texts_next(emo_texts *texts, emo_text_document *out, emo_error *err);
/* The function of an emo_text_reader over an emo_texts. */
int32_t emo__texts_read(void *ctx, const char **text, size_t *length);
void emo__texts_free(emo_texts *texts);

#endif
