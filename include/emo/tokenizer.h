/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file tokenizer.h
 * @brief Text to token ids and back: byte-level BPE in the tokenizer.json form of Hugging Face, and its training.
 *
 * A tokenizer works on bytes: every text encodes, and decoding gives the same bytes back. Two exceptions, both on the
 * way in: where the text is not valid UTF-8, each maximal invalid subsequence is read as U+FFFD (as Python's
 * `bytes.decode(errors="replace")` does); and a tokenizer that asks for it normalises the text, puts a space in front,
 * removes what its pattern matches, or lacks bytes (they become its unk token or, as a warning says on loading,
 * nothing).
 *
 * What is read of a tokenizer.json: the model "BPE" (merges as "a b" or ["a", "b"], ignore_merges, unk_token,
 * fuse_unk); the normalizers NFC, NFD, NFKC, NFKD and Sequences of them; the pre-tokenizers ByteLevel, Split (a text or
 * a regular expression, every behavior, inverted or not) and Digits followed by ByteLevel, and Sequences of these; the
 * decoder ByteLevel; added tokens with all their settings; the post-processors ByteLevel, TemplateProcessing,
 * BertProcessing, RobertaProcessing and Sequences of them, applied where add_special asks for it. The ids are those of
 * Hugging Face's `tokenizers`. Truncation and padding belong to a call, not to a vocabulary: they are not read.
 * Anything else that would change ids gives EMO_E_UNSUPPORTED with its name.
 *
 * Ids are int32_t, from 0; there may be holes between them.
 */
#ifndef EMO_TOKENIZER_H
#define EMO_TOKENIZER_H

#include <emo/source.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A vocabulary with its merges; immutable but for emo_tokenizer_set_eos(). It keeps its runtime alive. */
typedef struct emo_tokenizer emo_tokenizer;

/** Turns ids into text one at a time. It keeps its tokenizer alive. */
typedef struct emo_decoder emo_decoder;

/** The name of the end-of-text token where nothing else is asked for. */
#define EMO_TOKENIZER_EOS "<|endoftext|>"

/**
 * The plain byte tokenizer: ids 0..255 are the bytes of that value, id 256 is the special token EMO_TOKENIZER_EOS and
 * the end-of-text token.
 * @return EMO_OK, EMO_E_INVALID_ARGUMENT, EMO_E_OUT_OF_MEMORY. Any thread. The caller owns *out.
 */
EMO_API EMO_MUST_CHECK emo_status emo_tokenizer_create_bytes(emo_runtime *runtime, emo_tokenizer **out, emo_error *err);

/**
 * Reads a tokenizer.json.
 * @param path the file, or a folder that holds a tokenizer.json. UTF-8.
 * @return EMO_OK, EMO_E_NOT_FOUND, EMO_E_IO, EMO_E_FORMAT (malformed: the message says where), EMO_E_UNSUPPORTED (the
 *         file asks for something this library lacks, by name), EMO_E_LIMIT, EMO_E_OUT_OF_MEMORY. Any thread. The
 * caller owns *out.
 */
EMO_API EMO_MUST_CHECK emo_status emo_tokenizer_load(emo_runtime *runtime, const char *path, emo_tokenizer **out,
                                                     emo_error *err);

/** The same from a source, which is needed during the call only. */
EMO_API EMO_MUST_CHECK emo_status emo_tokenizer_load_source(emo_runtime *runtime, const emo_source *source,
                                                            emo_tokenizer **out, emo_error *err);

/** The same from memory: `length` bytes of JSON, which are needed during the call only. */
EMO_API EMO_MUST_CHECK emo_status emo_tokenizer_from_json(emo_runtime *runtime, const char *text, size_t length,
                                                          emo_tokenizer **out, emo_error *err);

/**
 * Writes a tokenizer.json that this library and Hugging Face's `tokenizers` read back with the same ids. The file
 * appears whole or not at all.
 * @return EMO_OK, EMO_E_IO, EMO_E_OUT_OF_MEMORY.
 */
EMO_API EMO_MUST_CHECK emo_status emo_tokenizer_save(const emo_tokenizer *tokenizer, const char *path, emo_error *err);

/**
 * The text that emo_tokenizer_save() writes.
 * @param out room for `capacity` bytes; NULL with capacity 0 asks for the size. No NUL is added.
 * @param size the bytes needed; set on EMO_OK and EMO_E_LIMIT.
 * @return EMO_OK, EMO_E_LIMIT (capacity is not 0 and too small; nothing is written), EMO_E_OUT_OF_MEMORY.
 */
EMO_API EMO_MUST_CHECK emo_status emo_tokenizer_to_json(const emo_tokenizer *tokenizer, char *out, size_t capacity,
                                                        size_t *size, emo_error *err);

/** Releases the caller's reference. NULL is a no-op. Any thread. */
EMO_API void emo_tokenizer_release(emo_tokenizer *tokenizer);

/** The highest id + 1: a model needs at least so many rows. Any thread. */
EMO_API int32_t emo_tokenizer_vocab_size(const emo_tokenizer *tokenizer);

/**
 * The end-of-text token, or -1 where there is none. A tokenizer.json does not say which one it is. Of the special added
 * tokens it is the first there is of "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]" and
 * "<|im_end|>"; else the only special token where there is just one; else none. Any thread.
 */
EMO_API int32_t emo_tokenizer_eos(const emo_tokenizer *tokenizer);

/**
 * Names another end-of-text token, or none with -1. It is not kept by emo_tokenizer_save() and not part of the hash.
 * @return EMO_OK, EMO_E_RANGE (no such id), EMO_E_BUSY. Needs exclusive use.
 */
EMO_API EMO_MUST_CHECK emo_status emo_tokenizer_set_eos(emo_tokenizer *tokenizer, int32_t id, emo_error *err);

/** The id of a token given as its raw bytes (not in the byte-level alphabet of the file), or -1. Any thread. */
EMO_API int32_t emo_tokenizer_token_to_id(const emo_tokenizer *tokenizer, const char *bytes, size_t length);

/**
 * The raw bytes of a token; not always UTF-8, not NUL-terminated, valid as long as the tokenizer.
 * @return EMO_OK, EMO_E_NOT_FOUND (no such id). Any thread.
 */
EMO_API EMO_MUST_CHECK emo_status emo_tokenizer_id_to_token(const emo_tokenizer *tokenizer, int32_t id,
                                                            const char **bytes, size_t *length, emo_error *err);

/** 1 when the id is an added token marked special, else 0. Any thread. */
EMO_API int32_t emo_tokenizer_is_special(const emo_tokenizer *tokenizer, int32_t id);

/**
 * A 64-bit hash of everything that decides ids: tokens, merges, pattern, normaliser, added tokens. Two tokenizers with
 * one hash may be taken to be the same; saving and loading keeps it. Not cryptographic. Any thread.
 */
EMO_API uint64_t emo_tokenizer_hash(const emo_tokenizer *tokenizer);

/** Options of emo_tokenizer_encode_with(). */
typedef struct emo_tokenizer_encode_options {
    uint32_t struct_size;
    int32_t parse_special; /**< 0: special tokens in the text are plain text; 1: they become their ids (trusted text
                              only) */
    int32_t add_special;   /**< 1: what the file's post-processor puts around a text (begin and end marks) is added */
    int32_t reserved;      /**< 0 */
    emo_progress progress; /**< for texts above 64 KiB: phase "tokenize", bytes; report NULL: none */
} emo_tokenizer_encode_options;

#define EMO_TOKENIZER_ENCODE_OPTIONS_INIT                                                                              \
    {                                                                                                                  \
        sizeof(emo_tokenizer_encode_options), 0, 0, 0, { 0, 0 }                                                        \
    }

/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_tokenizer_encode_options_init(emo_tokenizer_encode_options *options);
#define emo_tokenizer_encode_options_init(object) EMO_STRUCT_INIT(emo_tokenizer_encode_options, object)

/**
 * Encodes a text. No token is added at either end, and special tokens that the text spells out are not recognised: text
 * from outside cannot forge them. (Added tokens that are not special are part of the vocabulary and are.) Time is O(n
 * log n) whatever the text (a pattern of the file's own that takes too long is stopped).
 * @param text `length` bytes; may hold NULs and invalid UTF-8 (see above). NULL with length 0 is the empty text.
 * @param ids room for `capacity` ids; NULL with capacity 0 asks for the count.
 * @param count the ids needed; set on EMO_OK and EMO_E_LIMIT. Never more than `length` where the
 *        text is valid UTF-8 and neither a space, a normalisation nor add_special is asked for; an invalid byte may
 *        become three.
 * @return EMO_OK, EMO_E_LIMIT (capacity is not 0 and too small; the first `capacity` ids are written),
 *         EMO_E_OUT_OF_MEMORY; EMO_E_LIMIT with *count 0 when the file's pattern takes too long; EMO_E_UNSUPPORTED
 *         when add_special is asked of a post-processor that is not known. Safe to call from many
 *         threads at once.
 */
EMO_API EMO_MUST_CHECK emo_status emo_tokenizer_encode(const emo_tokenizer *tokenizer, const char *text, size_t length,
                                                       int32_t *ids, size_t capacity, size_t *count, emo_error *err);

/** The same with options (NULL: the defaults). Also EMO_E_RANGE for an option, and EMO_E_CANCELLED (*count is 0). */
EMO_API EMO_MUST_CHECK emo_status emo_tokenizer_encode_with(const emo_tokenizer *tokenizer,
                                                            const emo_tokenizer_encode_options *options,
                                                            const char *text, size_t length, int32_t *ids,
                                                            size_t capacity, size_t *count, emo_error *err);

/**
 * Decodes ids to raw bytes: special tokens are spelled out, and where the ids cut a character the bytes are not valid
 * UTF-8 (emo_decoder mends that).
 * @param out room for `capacity` bytes; NULL with capacity 0 asks for the size. No NUL is added.
 * @param size the bytes needed; set on EMO_OK and EMO_E_LIMIT.
 * @return EMO_OK, EMO_E_RANGE (an id there is no token for; its index is in err->number), EMO_E_LIMIT (capacity is not
 * 0 and too small; nothing useful is written). Safe to call from many threads at once.
 */
EMO_API EMO_MUST_CHECK emo_status emo_tokenizer_decode(const emo_tokenizer *tokenizer, const int32_t *ids, size_t n,
                                                       char *out, size_t capacity, size_t *size, emo_error *err);

/** Options of emo_decoder_create(). */
typedef struct emo_decoder_options {
    uint32_t struct_size;
    int32_t skip_special; /**< 1: special tokens give no text; 0: they are spelled out (default) */
} emo_decoder_options;

#define EMO_DECODER_OPTIONS_INIT                                                                                       \
    { sizeof(emo_decoder_options), 0 }

/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_decoder_options_init(emo_decoder_options *options);
#define emo_decoder_options_init(object) EMO_STRUCT_INIT(emo_decoder_options, object)

/** Creates a streaming decoder. @param options NULL for the defaults. The caller owns *out. */
EMO_API EMO_MUST_CHECK emo_status emo_decoder_create(const emo_tokenizer *tokenizer, const emo_decoder_options *options,
                                                     emo_decoder **out, emo_error *err);

/**
 * Takes one id and gives the text that is certain by now: always whole characters of valid UTF-8. Bytes of a character
 * that is not finished wait for the next call; bytes that cannot be part of a character become U+FFFD.
 * @param text a view valid until the next call on the decoder; NUL-terminated; may be empty.
 * @return EMO_OK, EMO_E_RANGE (no such id; the decoder is unchanged), EMO_E_BUSY, EMO_E_OUT_OF_MEMORY.
 *         Needs exclusive use.
 */
EMO_API EMO_MUST_CHECK emo_status emo_decoder_push(emo_decoder *decoder, int32_t id, const char **text, size_t *length,
                                                   emo_error *err);

/** Gives what still waits (as U+FFFD, if anything) and makes the decoder as new. As emo_decoder_push(). */
EMO_API EMO_MUST_CHECK emo_status emo_decoder_flush(emo_decoder *decoder, const char **text, size_t *length,
                                                    emo_error *err);

/** Releases the decoder. NULL is a no-op. */
EMO_API void emo_decoder_release(emo_decoder *decoder);

/** Gives texts one after the other. */
typedef struct emo_text_reader {
    void *ctx;
    /**
     * Sets the next text, valid until the next call. Returns 1, or 0 at the end, or a negative emo_status, which ends
     * the reading call with that status. Called on the thread of the caller.
     */
    int32_t (*next)(void *ctx, const char **text, size_t *length);
} emo_text_reader;

/** Options of emo_tokenizer_train(). */
typedef struct emo_tokenizer_train_options {
    uint32_t struct_size;
    int32_t vocab_size;    /**< tokens in all, with the 256 bytes and the end-of-text token: 257..4194304; 8192 */
    int64_t min_frequency; /**< a pair that occurs less often is not merged, at least 1; 2 */
    uint64_t max_bytes;    /**< stop reading after the text in which so many bytes are reached; 0: read everything */
    const char *eos;       /**< the end-of-text token, UTF-8, not empty; NULL: EMO_TOKENIZER_EOS */
    const char *pattern;   /**< the regular expression that cuts words; NULL: the one of cl100k */
    emo_progress progress; /**< phases "count words" (bytes) and "merge" (merges); report NULL: none */
} emo_tokenizer_train_options;

#define EMO_TOKENIZER_TRAIN_OPTIONS_INIT                                                                               \
    {                                                                                                                  \
        sizeof(emo_tokenizer_train_options), 8192, 2, 0, 0, 0, { 0, 0 }                                                \
    }

/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_tokenizer_train_options_init(emo_tokenizer_train_options *options);
#define emo_tokenizer_train_options_init(object) EMO_STRUCT_INIT(emo_tokenizer_train_options, object)

/**
 * Learns a byte-level BPE tokenizer from texts. Ids 0..255 are the bytes in the order of the byte-level alphabet ('!'
 * first), then the merges in the order learned, and the end-of-text token is the last id. Where the texts do not give
 * enough pairs the vocabulary is smaller than asked. The result depends on the texts (not on their order) and the
 * options alone; of pairs equally frequent the one with the lower left id, then the lower right id, is merged first.
 * Memory grows with the number of distinct words, not with the size of the texts.
 * @param options NULL for the defaults.
 * @return EMO_OK, EMO_E_RANGE (an option), EMO_E_FORMAT (the pattern does not compile), EMO_E_CANCELLED, what the
 * reader returned, EMO_E_OUT_OF_MEMORY. Any thread. The caller owns *out.
 */
EMO_API EMO_MUST_CHECK emo_status emo_tokenizer_train(emo_runtime *runtime, const emo_tokenizer_train_options *options,
                                                      const emo_text_reader *reader, emo_tokenizer **out,
                                                      emo_error *err);

#ifdef __cplusplus
}
#endif
#endif
