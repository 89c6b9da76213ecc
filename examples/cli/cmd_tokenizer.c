/* SPDX-License-Identifier: Apache-2.0 */
/* emo tokenizer: train, encode, decode. */
#include "cli.h"
#include "dataset.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- train ---- */

static const command_text train_text = {
    "emo tokenizer train", "--data PATH... --vocab-size N --out FILE",
    "Learns a byte-level BPE tokenizer from texts and writes a tokenizer.json. The last id is the end-of-text token.",
    NULL, 0};

static int train(int argc, char **argv) {
    string_list data = {NULL, 0};
    const char *out = NULL;
    int32_t skip_broken = 0;
    int64_t max_bytes = 0;
    emo_tokenizer_train_options options = EMO_TOKENIZER_TRAIN_OPTIONS_INIT;
    option table[] = {
        {"data", OPTION_LIST, &data, "PATH", "texts: .jsonl, .jsonl.gz, folders, text files", NULL, 0, 0, 1, 0},
        {"vocab-size", OPTION_INT32, &options.vocab_size, "N", "tokens in all", "8192", 257, 4194304, 0, 0},
        {"out", OPTION_STRING, &out, "FILE", "the tokenizer.json to write", NULL, 0, 0, 1, 0},
        {"min-frequency", OPTION_INT64, &options.min_frequency, "N", "rarer pairs are not merged", "2", 1, 9e15, 0, 0},
        {"max-bytes", OPTION_INT64, &max_bytes, "N", "learn from so much text at most; 0: all", "0", 0, 9e15, 0, 0},
        {"pattern", OPTION_STRING, &options.pattern, "REGEX", "what cuts texts into words", "the one of cl100k", 0, 0,
         0, 0},
        {"eos", OPTION_STRING, &options.eos, "TEXT", "the end-of-text token", EMO_TOKENIZER_EOS, 0, 0, 0, 0},
        {"skip-broken", OPTION_FLAG, &skip_broken, NULL, "leave malformed documents out", NULL, 0, 0, 0, 0},
        OPTION_END};
    cli c;
    if (!cli_begin(&c, &train_text, table, argc, argv))
        return c.code;
    emo_texts *texts = NULL;
    emo_tokenizer *tokenizer = NULL;
    emo_text_reader reader;
    emo_dataset_options reading = EMO_DATASET_OPTIONS_INIT;
    reading.skip_broken = skip_broken;
    options.max_bytes = (uint64_t)max_bytes;
    options.progress = cli_progress(&c);
    EMO_TRY(emo_texts_open(c.rt, data.items, data.count, &reading, &texts, &c.err));
    EMO_TRY(emo_texts_reader(texts, &reader, &c.err));
    EMO_TRY(emo_tokenizer_train(c.rt, &options, &reader, &tokenizer, &c.err));
    if (emo_texts_count(texts) == 0) {
        cli_fail(&c, EMO_E_FORMAT, "there are no documents in the given files");
        goto done;
    }
    if (emo_texts_skipped(texts) > 0 && !c.common.quiet)
        fprintf(stderr, "emo: warning: %" PRId64 " broken documents were left out\n", emo_texts_skipped(texts));
    EMO_TRY(emo_tokenizer_save(tokenizer, out, &c.err));
    progress_clear(&c.line);
    if (c.common.json) {
        json_writer json = {stdout, 0, {0}};
        json_open(&json, NULL);
        json_string(&json, "tokenizer", out);
        json_integer(&json, "vocab_size", emo_tokenizer_vocab_size(tokenizer));
        json_integer(&json, "eos", emo_tokenizer_eos(tokenizer));
        json_integer(&json, "documents", emo_texts_count(texts));
        json_integer(&json, "bytes", emo_texts_bytes(texts));
        json_close(&json);
    } else if (!c.common.quiet) {
        char size[32];
        printf("%s: %d tokens, from %" PRId64 " documents, %s\n", out, (int)emo_tokenizer_vocab_size(tokenizer),
               emo_texts_count(texts), human_bytes((double)emo_texts_bytes(texts), size));
    }
done:
    emo_tokenizer_release(tokenizer);
    emo_texts_release(texts);
    return cli_end(&c);
}

/* ---- encode ---- */

static const command_text encode_text = {"emo tokenizer encode", "--tokenizer FILE < TEXT",
                                         "Encodes standard input as one text; prints the ids, separated by spaces.",
                                         NULL, 0};

static int encode(int argc, char **argv) {
    const char *path = NULL;
    emo_tokenizer_encode_options options = EMO_TOKENIZER_ENCODE_OPTIONS_INIT;
    option table[] = {
        {"tokenizer", OPTION_STRING, &path, "FILE", "tokenizer.json, or a folder with one", NULL, 0, 0, 1, 0},
        {"special", OPTION_FLAG, &options.parse_special, NULL,
         "special tokens that the text spells out become their ids", NULL, 0, 0, 0, 0},
        {"add-special", OPTION_FLAG, &options.add_special, NULL,
         "add what the tokenizer's post-processor puts around a text", NULL, 0, 0, 0, 0},
        OPTION_END};
    cli c;
    if (!cli_begin(&c, &encode_text, table, argc, argv))
        return c.code;
    emo_tokenizer *tokenizer = NULL;
    char *text = NULL;
    int32_t *ids = NULL;
    size_t length = 0, count = 0;
    options.progress = cli_progress(&c);
    EMO_TRY(emo_tokenizer_load(c.rt, path, &tokenizer, &c.err));
    EMO_TRY(cli_read_file(&c, "-", &text, &length));
    EMO_TRY(emo_tokenizer_encode_with(tokenizer, &options, text, length, NULL, 0, &count, &c.err));
    ids = malloc((count + 1) * sizeof(*ids));
    if (ids == NULL) {
        cli_fail(&c, EMO_E_OUT_OF_MEMORY, "no memory for %zu ids", count);
        goto done;
    }
    EMO_TRY(emo_tokenizer_encode_with(tokenizer, &options, text, length, ids, count + 1, &count, &c.err));
    if (c.common.json) {
        json_writer json = {stdout, 0, {0}};
        json_open(&json, NULL);
        json_integer(&json, "bytes", (int64_t)length);
        json_integer(&json, "count", (int64_t)count);
        json_open_array(&json, "tokens");
        for (size_t i = 0; i < count; i++)
            json_integer(&json, NULL, ids[i]);
        json_close_array(&json);
        json_close(&json);
    } else {
        for (size_t i = 0; i < count; i++)
            printf("%s%" PRId32, i == 0 ? "" : " ", ids[i]);
        putchar('\n');
    }
done:
    free(ids);
    free(text);
    emo_tokenizer_release(tokenizer);
    return cli_end(&c);
}

/* ---- decode ---- */

static const command_text decode_text = {"emo tokenizer decode", "--tokenizer FILE < IDS",
                                         "Decodes ids on standard input, separated by spaces or newlines; prints their "
                                         "text as it is, without a newline after it.",
                                         NULL, 0};

/* The numbers of a text. The caller frees *ids. */
static emo_status parse_ids(cli *c, const char *text, int32_t **ids, size_t *count) {
    size_t capacity = strlen(text) / 2 + 1;
    *count = 0;
    *ids = malloc(capacity * sizeof(**ids));
    if (*ids == NULL)
        return cli_fail(c, EMO_E_OUT_OF_MEMORY, "no memory for the ids");
    for (const char *at = text + strspn(text, " \t\r\n,[]"); *at != '\0'; at += strspn(at, " \t\r\n,[]")) {
        char *end = NULL;
        errno = 0;
        long value = strtol(at, &end, 10);
        if (end == at || errno != 0 || value < 0 || value > INT32_MAX || *count >= capacity)
            return cli_fail(c, EMO_E_FORMAT, "number %zu of the input is no token id: '%.20s'", *count + 1, at);
        (*ids)[(*count)++] = (int32_t)value;
        at = end;
    }
    return EMO_OK;
}

static int decode(int argc, char **argv) {
    const char *path = NULL;
    option table[] = {
        {"tokenizer", OPTION_STRING, &path, "FILE", "tokenizer.json, or a folder with one", NULL, 0, 0, 1, 0},
        OPTION_END};
    cli c;
    if (!cli_begin(&c, &decode_text, table, argc, argv))
        return c.code;
    emo_tokenizer *tokenizer = NULL;
    char *input = NULL, *text = NULL;
    int32_t *ids = NULL;
    size_t length = 0, count = 0, size = 0;
    EMO_TRY(emo_tokenizer_load(c.rt, path, &tokenizer, &c.err));
    EMO_TRY(cli_read_file(&c, "-", &input, &length));
    EMO_TRY(parse_ids(&c, input, &ids, &count));
    EMO_TRY(emo_tokenizer_decode(tokenizer, ids, count, NULL, 0, &size, &c.err));
    text = malloc(size + 1);
    if (text == NULL) {
        cli_fail(&c, EMO_E_OUT_OF_MEMORY, "no memory for the text");
        goto done;
    }
    EMO_TRY(emo_tokenizer_decode(tokenizer, ids, count, text, size + 1, &size, &c.err));
    text[size] = '\0';
    if (c.common.json) {
        json_writer json = {stdout, 0, {0}};
        json_open(&json, NULL);
        json_string(&json, "text", text);
        json_close(&json);
    } else {
        fwrite(text, 1, size, stdout);
    }
done:
    free(text);
    free(ids);
    free(input);
    emo_tokenizer_release(tokenizer);
    return cli_end(&c);
}

/* ---- dispatch ---- */

static const command_text group_text = {"emo tokenizer", "train|encode|decode [options]",
                                        "  train    learn a tokenizer from texts\n"
                                        "  encode   text on standard input to ids\n"
                                        "  decode   ids on standard input to text",
                                        "'emo tokenizer train --help' and the like say more.", 0};

int cmd_tokenizer(int argc, char **argv) {
    static const char *const names[] = {"train", "encode", "decode", NULL};
    const char *name = argc > 0 ? argv[0] : "";
    if (strcmp(name, "train") == 0)
        return train(argc - 1, argv + 1);
    if (strcmp(name, "encode") == 0)
        return encode(argc - 1, argv + 1);
    if (strcmp(name, "decode") == 0)
        return decode(argc - 1, argv + 1);
    if (name[0] == '\0')
        return usage_error(&group_text, "say what to do: train, encode or decode.");
    if (name[0] == '-') { /* --help, or an option in the wrong place */
        option table[] = {OPTION_END};
        common_options common;
        memset(&common, 0, sizeof(common));
        switch (options_parse(&group_text, table, &common, NULL, argc, argv)) {
        case PARSE_HELP:
            return EXIT_CODE_OK;
        case PARSE_ERROR:
            return EXIT_CODE_USAGE;
        case PARSE_RUN:
            return usage_error(&group_text, "say what to do: train, encode or decode.");
        }
    }
    const char *near = nearest_word(name, names);
    if (near != NULL)
        return usage_error(&group_text, "there is no '%s'; did you mean '%s'?", name, near);
    return usage_error(&group_text, "there is no '%s', only train, encode and decode.", name);
}
