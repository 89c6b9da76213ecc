/* SPDX-License-Identifier: Apache-2.0 */
/* Tokenizers in GGUF files: the arrays alone give the ids of the tokenizer.json they were made of; what is refused. */
#include <unistd.h>

#include "base/runtime.h"
#include "support/folder.h"
#include "text/tokenizer_gguf.h"
#include "unit/text/text_support.h"

TEST_RUNTIME_AND_FOLDER(1, EMO_ISA_AUTO)

/* th, the, " t", " the", 12, and a token that no merge makes */
static const char vocab[] = ",\"th\":256,\"the\":257,\"\\u0120t\":258,\"\\u0120the\":259,\"12\":260,\"zebra\":261";
static const char merges[] = "\"t h\",\"th e\",\"\\u0120 t\",\"\\u0120 the\",\"1 2\"";
static const char added[] = "{\"id\":263,\"content\":\"<|end|>\",\"special\":true,\"normalized\":false},"
                            "{\"id\":264,\"content\":\"<b>\",\"special\":true,\"normalized\":false},"
                            "{\"id\":265,\"content\":\"USER:\",\"special\":false,\"normalized\":false}";
#define LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"
#define CUT(pattern)                                                                                                   \
    ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"         \
    "\"" pattern "\"},\"behavior\":\"Isolated\"}," LEVEL "]}"
#define CL100K                                                                                                         \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| "                             \
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define QWEN2                                                                                                          \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| "                                  \
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define GPT2 ",\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}"
#define AROUND                                                                                                         \
    ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<b>\"}},"            \
    "{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"<|end|>\"}}],\"special_tokens\":"                       \
    "{\"<b>\":{\"ids\":[264]},\"<|end|>\":{\"ids\":[263]}}}"

static emo_tokenizer *from_json(const char *json) {
    emo_error err = EMO_ERROR_INIT;
    emo_tokenizer *tok = NULL;
    EXPECT_OK(emo_tokenizer_from_json(rt, json, strlen(json), &tok, &err));
    return tok;
}

static emo_tokenizer *make(const char *rest, bool whole) {
    static char json[32768];
    size_t n = text_json(json, sizeof json - 64, vocab, merges, added, rest);
    if (whole) /* ,"ignore_merges":true in front of the last two braces */
        (void)snprintf(json + n - 2, 64, ",\"ignore_merges\":true}}");
    return from_json(json);
}

static emo__gguf *write_and_open(const emo_tokenizer *tok, const emo__tok_ids *ids) {
    emo_error err = EMO_ERROR_INIT;
    emo__gguf_writer *w = NULL;
    emo__gguf *g = NULL;
    emo_source *source = NULL;
    (void)remove(test_path("t.gguf"));
    EXPECT_OK(emo__gguf_writer_create(rt, test_path("t.gguf"), &w, &err));
    EXPECT_OK(emo__tok_write_gguf(tok, ids, w, &err));
    EXPECT_OK(emo__gguf_writer_begin(w, &err));
    EXPECT_OK(emo__gguf_writer_finish(w, &err));
    emo__gguf_writer_destroy(w);
    /* as a file of others: the whole tokenizer.json goes by another name */
    size_t size, at = 0;
    unsigned char *bytes = test_read(test_path("t.gguf"), &size);
    while (at + 26 < size && memcmp(bytes + at, "tokenizer.huggingface.json", 26) != 0)
        at++;
    assert_true(at + 26 < size);
    bytes[at] = 'x';
    const char *path = test_write("u.gguf", (const char *)bytes, size);
    free(bytes);
    EXPECT_OK(emo_source_open_path(rt, path, &source, &err));
    EXPECT_OK(emo__gguf_open(rt, source, &g, &err));
    emo_source_release(source);
    return g;
}

static void expect_same_ids(const emo_tokenizer *a, const emo_tokenizer *b) {
    static const char *const texts[] = {"the zebra and then the theft",
                                        "  12 123 1234567 it's DON'T we'LL",
                                        "tabs\t\tlines\r\n\r\n  end  ",
                                        "<|end|>the<b> USER: hi",
                                        "\xe6\x97\xa5\xe6\x9c\xac \xc3\xa9\xcc\x81 \xf0\x9f\x91\xa9\xe2\x80\x8d",
                                        "zebra",
                                        "",
                                        "a_b/c?!... $12.50\xc2\xa0x"};
    emo_error err = EMO_ERROR_INIT;
    for (int32_t flags = 0; flags < 4; flags++)
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
            emo_tokenizer_encode_options options = EMO_TOKENIZER_ENCODE_OPTIONS_INIT;
            int32_t x[256], y[256];
            size_t nx, ny;
            options.parse_special = flags & 1;
            options.add_special = flags >> 1;
            EXPECT_OK(emo_tokenizer_encode_with(a, &options, texts[i], strlen(texts[i]), x, 256, &nx, &err));
            EXPECT_OK(emo_tokenizer_encode_with(b, &options, texts[i], strlen(texts[i]), y, 256, &ny, &err));
            if (nx != ny || memcmp(x, y, nx * sizeof x[0]) != 0)
                fail_msg("flags %d: other ids for '%s'", (int)flags, texts[i]);
        }
}

static void arrays_alone_give_the_same_ids(void **state) {
    (void)state;
    static const struct {
        const char *rest;
        const char *name;
        bool whole;
    } kinds[] = {
        {CUT(CL100K), "dbrx", false}, {CUT(CL100K), "llama-bpe", true},    {GPT2, "gpt-2", false},
        {CUT(QWEN2), "qwen2", false}, {CUT(CL100K) AROUND, "dbrx", false}, {CUT(CL100K) AROUND, "llama-bpe", true},
    };
    emo_error err = EMO_ERROR_INIT;
    const emo__tok_ids ids = {.vocab = 270, .eos = 263, .bos = -1, .pad = -1};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        emo_tokenizer *tok = make(kinds[i].rest, kinds[i].whole), *back = NULL;
        emo__gguf *g = write_and_open(tok, &ids);
        const char *text;
        size_t length;
        bool bos, eos;
        emo__gguf_array tokens;
        EXPECT_OK(emo__gguf_string(g, "tokenizer.ggml.pre", &text, &length, &err));
        assert_true(length == strlen(kinds[i].name) && memcmp(text, kinds[i].name, length) == 0);
        EXPECT_OK(emo__gguf_array_open(g, "tokenizer.ggml.tokens", &tokens, &err));
        assert_int_equal(tokens.count, 270);
        EXPECT_OK(emo__gguf_bool(g, "tokenizer.ggml.add_bos_token", false, &bos, &err));
        EXPECT_OK(emo__gguf_bool(g, "tokenizer.ggml.add_eos_token", false, &eos, &err));
        assert_true(bos == (i > 3) && eos == (i > 3));
        EXPECT_OK(emo__tok_read_gguf(rt, g, &back, &err));
        expect_same_ids(tok, back);
        emo_tokenizer_release(back);
        emo__gguf_close(g);
        emo_tokenizer_release(tok);
    }
    /* a tokenizer of bytes, without merges */
    emo_tokenizer *bytes = NULL, *back = NULL;
    EXPECT_OK(emo_tokenizer_create_bytes(rt, &bytes, &err));
    emo__gguf *g = write_and_open(bytes, &(emo__tok_ids){.vocab = 257, .eos = 256, .bos = -1, .pad = -1});
    EXPECT_OK(emo__tok_read_gguf(rt, g, &back, &err));
    expect_same_ids(bytes, back);
    emo_tokenizer_release(back);
    emo__gguf_close(g);
    emo_tokenizer_release(bytes);
}

/* Files of others, from their arrays. */
typedef struct file {
    const char *model;
    const char *pre;
    const char *tokens[4];
    int32_t kinds[4];
    int32_t n_kinds;
    const char *merge;
    bool kinds_as_text;
} file;

static emo_status read_file(const file *f, emo_tokenizer **out, emo_error *why) {
    emo_error err = EMO_ERROR_INIT;
    emo__gguf_writer *w = NULL;
    emo__gguf *g = NULL;
    emo_source *source = NULL;
    emo__buf byte;
    emo__buf_init(&byte, &rt->mem);
    (void)remove(test_path("f.gguf"));
    EXPECT_OK(emo__gguf_writer_create(rt, test_path("f.gguf"), &w, &err));
    EXPECT_OK(emo__gguf_put_string(w, "tokenizer.ggml.model", f->model, strlen(f->model), &err));
    if (f->pre != NULL)
        EXPECT_OK(emo__gguf_put_string(w, "tokenizer.ggml.pre", f->pre, strlen(f->pre), &err));
    uint64_t own = 0;
    while (own < 4 && f->tokens[own] != NULL)
        own++;
    EXPECT_OK(emo__gguf_put_array(w, "tokenizer.ggml.tokens", EMO__GGUF_STRING, 256 + own, &err));
    for (unsigned i = 0; i < 256; i++) {
        char c = (char)emo__alphabet_byte(i);
        byte.size = 0;
        EXPECT_OK(emo__alphabet_encode(&byte, &c, 1, &err));
        EXPECT_OK(emo__gguf_put_item_string(w, byte.data, byte.size, &err));
    }
    for (uint64_t i = 0; i < own; i++) {
        size_t n = f->tokens[i][0] == '0' ? 1 : strlen(f->tokens[i]); /* "0": a NUL */
        EXPECT_OK(emo__gguf_put_item_string(w, f->tokens[i][0] == '0' ? "" : f->tokens[i], n, &err));
    }
    if (f->kinds_as_text) {
        EXPECT_OK(emo__gguf_put_string(w, "tokenizer.ggml.token_type", "1", 1, &err));
    } else if (f->n_kinds > 0) {
        EXPECT_OK(emo__gguf_put_array(w, "tokenizer.ggml.token_type", EMO__GGUF_I32, 256 + (uint64_t)f->n_kinds, &err));
        for (int i = -256; i < f->n_kinds; i++)
            EXPECT_OK(emo__gguf_put_item_i32(w, i < 0 ? 1 : f->kinds[i], &err));
    }
    EXPECT_OK(emo__gguf_put_array(w, "tokenizer.ggml.merges", EMO__GGUF_STRING, f->merge != NULL, &err));
    if (f->merge != NULL)
        EXPECT_OK(emo__gguf_put_item_string(w, f->merge, strlen(f->merge), &err));
    EXPECT_OK(emo__gguf_put_u32(w, "tokenizer.ggml.bos_token_id", 257, &err));
    EXPECT_OK(emo__gguf_writer_begin(w, &err));
    EXPECT_OK(emo__gguf_writer_finish(w, &err));
    emo__gguf_writer_destroy(w);
    emo__buf_free(&byte);
    EXPECT_OK(emo_source_open_path(rt, test_path("f.gguf"), &source, &err));
    EXPECT_OK(emo__gguf_open(rt, source, &g, &err));
    emo_source_release(source);
    emo_status status = emo__tok_read_gguf(rt, g, out, why);
    emo__gguf_close(g);
    return status;
}

static void files_of_others(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_tokenizer *tok = NULL;
    emo_tokenizer_encode_options options = EMO_TOKENIZER_ENCODE_OPTIONS_INIT;
    int32_t ids[16];
    size_t n;
    /* Llama 3 puts bos before a text though the file does not say so; an unused token is none. */
    EXPECT_OK(read_file(&(file){"gpt2", "llama-bpe", {"th", "<s>", "<pad>"}, {1, 3, 5}, 3, "t h", false}, &tok, &err));
    options.parse_special = options.add_special = 1;
    EXPECT_OK(emo_tokenizer_encode_with(tok, &options, "th<s>", 5, ids, 16, &n, &err));
    assert_int_equal(n, 3);
    assert_true(ids[0] == 257 && ids[1] == 256 && ids[2] == 257);
    assert_int_equal(emo_tokenizer_vocab_size(tok), 258);
    emo_tokenizer_release(tok);
    /* without kinds every token is an ordinary one */
    EXPECT_OK(read_file(&(file){"gpt2", "olmo", {"th", "<s>"}, {0}, 0, "t h", false}, &tok, &err));
    EXPECT_OK(emo_tokenizer_encode_with(tok, &options, "th", 2, ids, 16, &n, &err));
    assert_true(n == 1 && ids[0] == 256);
    emo_tokenizer_release(tok);
    EXPECT_OK(read_file(&(file){"none", NULL, {NULL}, {0}, 0, NULL, false}, &tok, &err));
    assert_null(tok);

    static const struct {
        file f;
        emo_status status;
        const char *words;
    } bad[] = {
        {{"llama", "default", {NULL}, {0}, 0, NULL, false},
         EMO_E_UNSUPPORTED,
         "kind 'llama' with the pattern 'default'"},
        {{"gpt2", "tekken", {NULL}, {0}, 0, NULL, false}, EMO_E_UNSUPPORTED, "pattern 'tekken'"},
        {{"gpt2", NULL, {NULL}, {0}, 0, NULL, false}, EMO_E_UNSUPPORTED, "pattern ''"},
        {{"gpt2", "dbrx", {"th", "x"}, {1}, 1, NULL, false}, EMO_E_FORMAT, "258 tokens, but 257 kinds"},
        {{"gpt2", "dbrx", {"0"}, {1}, 1, NULL, false}, EMO_E_FORMAT, "NUL"},
        {{"gpt2", "dbrx", {"\xff"}, {3}, 1, NULL, false}, EMO_E_FORMAT, "UTF-8"},
        {{"gpt2", "dbrx", {"th"}, {1}, 1, "t x", false}, EMO_E_FORMAT, "merge"},
        {{"gpt2", "dbrx", {"th"}, {1}, 1, "th", false}, EMO_E_FORMAT, "merge"},
        {{"gpt2", "dbrx", {"th", "th"}, {1, 1}, 2, NULL, false}, EMO_E_FORMAT, "duplicate key"},
        {{"gpt2", "dbrx", {"th"}, {1}, 1, NULL, true}, EMO_E_FORMAT, "token_type\" is no array"},
        {{"gpt2", "llama3", {"th"}, {1}, 1, NULL, false}, EMO_E_FORMAT, "no known id"}, /* bos lies beyond the tokens */
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        emo_status status = read_file(&bad[i].f, &tok, &err);
        if (status != bad[i].status || strstr(err.message, bad[i].words) == NULL)
            fail_msg("case %zu: %s (%s)", i, emo_status_name(status), err.message);
        assert_null(tok);
    }
}

/* What cannot be said is refused before anything is written. */
static void what_cannot_be_said(void **state) {
    (void)state;
    static const struct {
        const char *rest;
        bool whole;
        const char *words;
    } bad[] = {
        {",\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true}", false,
         "add_prefix_space"},
        {CUT("\\\\s+"), false, "no name for"},
        {TEXT_BYTE_LEVEL, false, "no name for"},
        {GPT2, true, "no name for"},
    };
    emo_error err = EMO_ERROR_INIT;
    const emo__tok_ids ids = {.vocab = 266, .eos = 263, .bos = -1, .pad = -1};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        emo__gguf_writer *w = NULL;
        emo_tokenizer *tok = make(bad[i].rest, bad[i].whole);
        EXPECT_OK(emo__gguf_writer_create(rt, test_path("n.gguf"), &w, &err));
        EXPECT_STATUS(emo__tok_write_gguf(tok, &ids, w, &err), EMO_E_UNSUPPORTED, bad[i].words);
        emo__gguf_writer_destroy(w);
        emo_tokenizer_release(tok);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrays_alone_give_the_same_ids),
        cmocka_unit_test(files_of_others),
        cmocka_unit_test(what_cannot_be_said),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
