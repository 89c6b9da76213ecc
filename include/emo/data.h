/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file data.h
 * @brief Documents: read, tokenised once, labelled with domains; and multiple-choice items.
 */
#ifndef EMO_DATA_H
#define EMO_DATA_H

#include <emo/runtime.h>
#include <emo/tokenizer.h>

#ifdef __cplusplus
extern "C" {
#endif

/** An ordered list of tokenised documents with domain labels; immutable. It keeps its runtime alive. */
typedef struct emo_dataset emo_dataset;

/** An ordered list of multiple-choice items; immutable. It keeps its runtime alive. */
typedef struct emo_choices emo_choices;

/** Element type of token files that do not say it themselves. */
typedef int32_t emo_token_type;
enum { EMO_TOKENS_U16 = 0, EMO_TOKENS_U32 = 1, EMO_TOKENS_AUTO = 2 /**< the smaller one that holds the vocabulary */ };

/** Options of emo_dataset_open(). */
typedef struct emo_dataset_options {
    uint32_t struct_size;
    int32_t skip_broken;       /**< 1: leave out documents that cannot be read, and count them; 0: they are errors */
    int64_t max_documents;     /**< stop after so many (of the wanted domain); 0: all */
    const char *domain;        /**< only documents of this domain; NULL: all */
    const char *cache_dir;     /**< folder for the tokenised form, used again by later calls; NULL: keep it in memory */
    emo_token_type token_type; /**< of token files without .npy header; EMO_TOKENS_AUTO */
    int32_t eos;               /**< end-of-text id that ends documents when they are packed; -1: the tokenizer's */
    emo_progress progress;     /**< phase "tokenize", units are bytes of the files (0 in all where not known) */
    const char *mix_root;      /**< folder that the paths of mix files begin in; NULL: the mix file's own */
    const char *mix_tokenizer; /**< stands for {TOKENIZER} in the paths of mix files; NULL: allenai/dolma2-tokenizer */
} emo_dataset_options;
#define EMO_DATASET_OPTIONS_INIT                                                                                       \
    { sizeof(emo_dataset_options), 0, 0, 0, 0, EMO_TOKENS_AUTO, -1, {0, 0}, 0, 0 }

/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_dataset_options_init(emo_dataset_options *options);
#define emo_dataset_options_init(object) EMO_STRUCT_INIT(emo_dataset_options, object)

/** One document, as a view. */
typedef struct emo_document {
    const int32_t *tokens; /**< [count], without end-of-text token; valid while a dataset made from it lives */
    int64_t count;         /**< at least 1 */
    int64_t prompt_tokens; /**< how many of the first tokens are a prompt, on which there is no loss; usually 0 */
    int64_t bytes;         /**< UTF-8 bytes of the text (0 when made from tokens alone) */
    int64_t prompt_bytes;  /**< how many of them are the prompt's */
    int32_t domain;        /**< index for emo_dataset_domain_name() */
    int32_t reserved;
} emo_document;

/**
 * Reads and tokenises documents, in the order of `paths`:
 * - `*.jsonl`, `*.json`, `*.jsonl.gz`: a JSON object a line, with "text", or with "prompt" and "completion"; optionally
 *   "domain". Other keys are left alone. Empty lines and empty texts are passed over.
 * - `*.npy`, `*.bin`: token ids (.npy of one dimension, or raw little-endian without header), cut into documents after
 *   each end-of-text token.
 * - `*.mix`, and a `*.txt` or `*.csv` whose first line names one: a mix file, with a `label,path` line for each file to
 *   read, `#` before remarks. The label is the domain of documents that name none; a path that is not absolute begins
 * in `mix_root`.
 * - any other file, plain or gzip: one document of UTF-8 text.
 * - a folder: all its files, recursively, in byte order of their names.
 * A document without "domain" gets the name of the first sub-folder below the given folder, else the empty name.
 * The tokens do not depend on the number of threads. With `cache_dir` they are kept there in a file that is used again
 * while tokenizer, options and files (names, sizes, times) are the same.
 * @param options NULL for the defaults.
 * @return EMO_OK, EMO_E_NOT_FOUND (also no document of the domain), EMO_E_IO, EMO_E_FORMAT (a broken document, as
 *         "file:line"; also invalid UTF-8, and a dataset without any document), EMO_E_RANGE (an option),
 * EMO_E_CANCELLED, EMO_E_OUT_OF_MEMORY. Any thread. The caller owns *out.
 */
EMO_API EMO_MUST_CHECK emo_status emo_dataset_open(emo_runtime *rt, const char *const *paths, size_t n_paths,
                                                   const emo_tokenizer *tokenizer, const emo_dataset_options *options,
                                                   emo_dataset **out, emo_error *err);

/**
 * A dataset of token ids, which are copied.
 * @param tokens  the documents one behind the other.
 * @param lengths [n] tokens of each, at least 1.
 * @param domains [n] domain names, copied; NULL: all have the empty name.
 * @param eos     end-of-text id used when packing; -1: none, documents follow each other without a mark.
 * @return EMO_OK, EMO_E_RANGE (a negative token, an empty document), EMO_E_OUT_OF_MEMORY. The caller owns *out.
 */
EMO_API EMO_MUST_CHECK emo_status emo_dataset_from_tokens(emo_runtime *rt, const int32_t *tokens, const size_t *lengths,
                                                          const char *const *domains, size_t n, int32_t eos,
                                                          emo_dataset **out, emo_error *err);

/**
 * A dataset of texts (NUL-terminated UTF-8), each one document.
 * @param domains [n] or NULL, as above.
 * @return EMO_OK, EMO_E_FORMAT (invalid UTF-8 or an empty text, by index), EMO_E_OUT_OF_MEMORY. The caller owns *out.
 */
EMO_API EMO_MUST_CHECK emo_status emo_dataset_from_text(emo_runtime *rt, const emo_tokenizer *tokenizer,
                                                        const char *const *texts, const char *const *domains, size_t n,
                                                        emo_dataset **out, emo_error *err);

/**
 * The same with options: skip_broken, max_documents, domain, eos and progress (units are bytes of the texts) as in
 * emo_dataset_open(); the others mean nothing here. NULL: the defaults.
 * @return also EMO_E_NOT_FOUND (no text of the domain), EMO_E_RANGE (an option), EMO_E_CANCELLED.
 */
EMO_API EMO_MUST_CHECK emo_status emo_dataset_from_text_with(emo_runtime *rt, const emo_tokenizer *tokenizer,
                                                             const char *const *texts, const char *const *domains,
                                                             size_t n, const emo_dataset_options *options,
                                                             emo_dataset **out, emo_error *err);

/** The number of documents; 0 for NULL. Any thread. */
EMO_API int64_t emo_dataset_count(const emo_dataset *dataset);
/** The number of tokens of all documents, without end-of-text tokens. Any thread. */
EMO_API int64_t emo_dataset_tokens(const emo_dataset *dataset);
/** The UTF-8 bytes of all documents. Any thread. */
EMO_API int64_t emo_dataset_bytes(const emo_dataset *dataset);
/** The documents that emo_dataset_open() left out as broken. Any thread. */
EMO_API int64_t emo_dataset_skipped(const emo_dataset *dataset);
/** The end-of-text id, or -1. Any thread. */
EMO_API int32_t emo_dataset_eos(const emo_dataset *dataset);
/** The rows of an embedding that the ids (with the end-of-text id) need: highest id + 1, or the tokenizer's vocabulary
 * where one was used. Any thread. */
EMO_API int32_t emo_dataset_vocab_size(const emo_dataset *dataset);
/** The number of domains. Filtered datasets keep the domains, and their numbers, of what they were made from. */
EMO_API int32_t emo_dataset_domains(const emo_dataset *dataset);
/** The name of a domain, valid while the dataset lives; NULL if out of range. Any thread. */
EMO_API const char *emo_dataset_domain_name(const emo_dataset *dataset, int32_t domain);
/** A document as a view. @return EMO_OK, EMO_E_RANGE. Any thread. */
EMO_API EMO_MUST_CHECK emo_status emo_dataset_document(const emo_dataset *dataset, int64_t index, emo_document *out,
                                                       emo_error *err);

/**
 * A part of a dataset (tokens are shared, not copied).
 * @param domain   only this domain; NULL: all.
 * @param examples how many documents to draw, without repetition, in an order that depends on `seed` alone; 0: all, in
 *                 the order they have.
 * @return EMO_OK, EMO_E_NOT_FOUND (no document of that domain), EMO_E_RANGE (fewer documents than `examples`). The
 *         caller owns *out.
 */
EMO_API EMO_MUST_CHECK emo_status emo_dataset_filter(const emo_dataset *dataset, const char *domain, int64_t examples,
                                                     uint64_t seed, emo_dataset **out, emo_error *err);

/** Releases the caller's reference. NULL is a no-op. Any thread. */
EMO_API void emo_dataset_release(emo_dataset *dataset);

/** Documents as text, one after the other, read as they are asked for. It keeps its runtime alive. */
typedef struct emo_texts emo_texts;

/** One document as text: views valid until the next call on the emo_texts. */
typedef struct emo_text_document {
    const char *text;    /**< [length] UTF-8, not NUL-terminated; a prompt and its completion are one text */
    size_t length;       /**< at least 1 */
    size_t prompt_bytes; /**< how many of the first bytes are a prompt; usually 0 */
    const char *domain;  /**< its domain's name */
} emo_text_document;

/**
 * Opens documents for reading as text: the same files, lines and domains as emo_dataset_open(), without a tokenizer and
 * with one document in memory at a time.
 * @param options skip_broken, max_documents and domain as there; the other fields mean nothing here. NULL: defaults.
 * @return EMO_OK, EMO_E_NOT_FOUND, EMO_E_IO, EMO_E_RANGE (an option), EMO_E_OUT_OF_MEMORY. Any thread. The caller owns
 *         *out.
 */
EMO_API EMO_MUST_CHECK emo_status emo_texts_open(emo_runtime *rt, const char *const *paths, size_t n_paths,
                                                 const emo_dataset_options *options, emo_texts **out, emo_error *err);
/**
 * The next document; out->text is NULL behind the last.
 * @return EMO_OK, EMO_E_IO, EMO_E_FORMAT (a broken document, as "file:line"), EMO_E_UNSUPPORTED (a file of token ids),
 *         EMO_E_BUSY, EMO_E_OUT_OF_MEMORY. Needs exclusive use.
 */
EMO_API EMO_MUST_CHECK emo_status emo_texts_next(emo_texts *texts, emo_text_document *out, emo_error *err);
/**
 * The reader that emo_tokenizer_train() takes, over what is still to be read; where reading fails, training says why.
 * @return EMO_OK, EMO_E_INVALID_ARGUMENT. The emo_texts must outlive it.
 */
EMO_API EMO_MUST_CHECK emo_status emo_texts_reader(emo_texts *texts, emo_text_reader *out, emo_error *err);
/** The documents given so far. */
EMO_API int64_t emo_texts_count(const emo_texts *texts);
/** The bytes of their texts. */
EMO_API int64_t emo_texts_bytes(const emo_texts *texts);
/** The documents left out as broken so far. */
EMO_API int64_t emo_texts_skipped(const emo_texts *texts);
/** Releases the texts. NULL is a no-op. */
EMO_API void emo_texts_release(emo_texts *texts);

/** One multiple-choice item; views valid while the emo_choices lives. */
typedef struct emo_choice_item {
    const char *id;
    const char *domain;
    const char *kind;
    const char *context;
    const char *const *choices; /**< [count] continuations of the context */
    int32_t count;              /**< at least 2 */
    int32_t answer;             /**< index of the right one */
} emo_choice_item;

/**
 * Reads items from a `.jsonl` or `.jsonl.gz` file: an object a line with "context", "choices" (2 to 64 strings) and
 * "answer" (the index of the right one); optionally "id", "domain", "kind" (else the empty string).
 * @return EMO_OK, EMO_E_NOT_FOUND, EMO_E_IO, EMO_E_FORMAT (as "file:line"), EMO_E_OUT_OF_MEMORY. The caller owns *out.
 */
EMO_API EMO_MUST_CHECK emo_status emo_choices_open(emo_runtime *rt, const char *path, emo_choices **out,
                                                   emo_error *err);
/** The number of items; 0 for NULL. Any thread. */
EMO_API int64_t emo_choices_count(const emo_choices *choices);
/** An item as a view. @return EMO_OK, EMO_E_RANGE. Any thread. */
EMO_API EMO_MUST_CHECK emo_status emo_choices_item(const emo_choices *choices, int64_t index, emo_choice_item *out,
                                                   emo_error *err);
/** Releases the caller's reference. NULL is a no-op. Any thread. */
EMO_API void emo_choices_release(emo_choices *choices);

#ifdef __cplusplus
}
#endif
#endif
