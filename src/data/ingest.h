/* SPDX-License-Identifier: Apache-2.0 */
/* Files to tokens. */
#ifndef EMO_SRC_DATA_INGEST_H
#define EMO_SRC_DATA_INGEST_H

#include "data/dataset.h"
#include "io/files.h"
#include "io/json.h"

typedef enum emo__file_kind { EMO__FILE_JSON, EMO__FILE_TEXT, EMO__FILE_TOKENS } emo__file_kind;

typedef struct emo__data_file {
    char *path;
    char *domain; /* of documents that name none */
    emo__file_kind kind;
    uint64_t size;
    int64_t mtime_ns;
} emo__data_file;

typedef struct emo__data_files {
    emo__data_file *items;
    size_t count;
    size_t capacity;
} emo__data_files;

/* Bounds of the options that say which documents are read, to tokens or as text. */
EMO_MUST_CHECK emo_status emo__reading_check(const emo_dataset_options *opt, emo_error *err);
bool emo__ends_with(const char *text, size_t length, const char *end);
/* The files that the paths (files, folders, mix files) stand for, in order. */
EMO_MUST_CHECK emo_status emo__data_files_find(const emo__mem *mem, const char *const *paths, size_t n_paths,
                                               const emo_dataset_options *opt, emo__data_files *out, emo_error *err);
EMO_MUST_CHECK emo_status emo__data_files_add(const emo__mem *mem, const char *path, const char *domain,
                                              size_t domain_length, emo__data_files *out, emo_error *err);
/* Whether a path is a mix file: by its name, or by its first line. */
EMO_MUST_CHECK emo_status emo__mix_is(const emo__mem *mem, const char *path, bool *mix, emo_error *err);
EMO_MUST_CHECK emo_status emo__mix_add(const emo__mem *mem, const char *path, const emo_dataset_options *opt,
                                       emo__data_files *out, emo_error *err);
void emo__data_files_free(const emo__mem *mem, emo__data_files *files);

/* A document of a JSON Lines file, as views into the parsed line. */
typedef struct emo__document_text {
    const char *text;   /* NULL: the document is of another domain */
    const char *prompt; /* in front of it; NULL: none */
    size_t text_bytes, prompt_bytes;
    const char *domain;
} emo__document_text;

/* `wanted`: only this domain; NULL: all. `where` is for messages. */
EMO_MUST_CHECK emo_status emo__document_read(const emo__json *root, const emo__data_file *file, uint64_t line,
                                             const char *wanted, const char *where, emo__document_text *out,
                                             emo_error *err);
/* "file:line"; line 0: the file. Long paths are cut in front: the file's name and the line are what one looks for. */
#define EMO__WHERE 512
void emo__document_where(const emo__data_file *file, uint64_t line, char where[EMO__WHERE]);
/* True for a line or a file that holds nothing. */
bool emo__document_blank(const char *text, size_t length);

/* Reads all files into the draft; the tokens go to `file` when it is not NULL, else into the draft. opt->eos is
 * resolved already. */
EMO_MUST_CHECK emo_status emo__ingest(const emo__data_files *files, const emo_tokenizer *tokenizer,
                                      const emo_dataset_options *opt, emo__dataset_draft *draft, emo__atomic_file *file,
                                      emo_error *err);

/* The cached form of a dataset: opens opt->cache_dir's file for these inputs, making it first when there is none that
 * fits. */
EMO_MUST_CHECK emo_status emo__cache_open(emo_runtime *rt, const emo__data_files *files, const emo_tokenizer *tokenizer,
                                          const emo_dataset_options *opt, emo_dataset **out, emo_error *err);

#endif
