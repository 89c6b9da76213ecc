/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding, decoding, tokenizer.json in both notations, added tokens, the streaming decoder. */
#include <emo/data.h>

#include "support/support.h"
#include "unit/text/text_support.h"

/* "he", "ll", "hell", "hello" and a merge with a space; ids from 256 on. */
#define VOCAB ",\"he\":256,\"ll\":257,\"hell\":258,\"hello\":259,\"\\u0120hello\":260,\"<|endoftext|>\":261"
#define MERGES "\"h e\",\"l l\",\"he ll\",\"hell o\",\"\\u0120 hello\""
#define MERGES_AS_LISTS "[\"h\",\"e\"],[\"l\",\"l\"],[\"he\",\"ll\"],[\"hell\",\"o\"],[\"\\u0120\",\"hello\"]"
#define EOT "{\"id\":261,\"content\":\"<|endoftext|>\",\"special\":true,\"normalized\":false}"

static emo_tokenizer *from_parts(emo_runtime *rt, const char *vocab, const char *merges, const char *added,
                                 const char *rest) {
    emo_error err = EMO_ERROR_INIT;
    static char json[32768];
    emo_tokenizer *tok = NULL;
    size_t n = text_json(json, sizeof json, vocab, merges, added, rest);
    assert_true(n < sizeof json);
    EXPECT_OK(emo_tokenizer_from_json(rt, json, n, &tok, &err));
    return tok;
}

/* Byte b is the id of its place in the alphabet. */
static int32_t byte_id(const emo_tokenizer *tok, unsigned char b) {
    int32_t id = emo_tokenizer_token_to_id(tok, (const char *)&b, 1);
    assert_true(id >= 0 && id < 256);
    return id;
}

static void expect_ids(const emo_tokenizer *tok, int parse_special, const char *text, const int32_t *want, size_t n) {
    emo_error err = EMO_ERROR_INIT;
    int32_t ids[256];
    size_t count = 99;
    emo_tokenizer_encode_options options = EMO_TOKENIZER_ENCODE_OPTIONS_INIT;
    options.parse_special = parse_special;
    EXPECT_OK(emo_tokenizer_encode_with(tok, &options, text, strlen(text), ids, 256, &count, &err));
    if (count != n || memcmp(ids, want, n * sizeof *want) != 0) {
        char got[1024] = "";
        for (size_t i = 0, at = 0; i < count && at < 1000; i++)
            at += (size_t)snprintf(got + at, sizeof got - at, " %d", (int)ids[i]);
        fail_msg("'%s' gives%s", text, got);
    }
}

static void round_trip(const emo_tokenizer *tok, const char *text, size_t length) {
    emo_error err = EMO_ERROR_INIT;
    int32_t *ids = malloc((length + 1) * sizeof *ids);
    char *back = malloc(length + 1);
    assert_true(ids != NULL && back != NULL);
    size_t need = 0, count = 0, size = 0;
    EXPECT_OK(emo_tokenizer_encode(tok, text, length, NULL, 0, &need, &err));
    assert_true(need <= length);
    EXPECT_OK(emo_tokenizer_encode(tok, text, length, ids, need, &count, &err));
    assert_int_equal(count, need);
    EXPECT_OK(emo_tokenizer_decode(tok, ids, count, NULL, 0, &size, &err));
    assert_int_equal(size, length);
    EXPECT_OK(emo_tokenizer_decode(tok, ids, count, back, length, &size, &err));
    assert_memory_equal(back, text, length);
    free(ids);
    free(back);
}

static void the_byte_tokenizer(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_tokenizer *tok = NULL;
    EXPECT_OK(emo_tokenizer_create_bytes(rt, &tok, &err));
    assert_int_equal(emo_tokenizer_vocab_size(tok), 257);
    assert_int_equal(emo_tokenizer_eos(tok), 256);
    assert_int_equal(emo_tokenizer_is_special(tok, 256), 1);
    assert_int_equal(emo_tokenizer_is_special(tok, 65), 0);
    expect_ids(tok, 0, "A\xC3\xA9", (int32_t[]){0x41, 0xC3, 0xA9}, 3);
    expect_ids(tok, 1, "A<|endoftext|>", (int32_t[]){0x41, 256}, 2);
    expect_ids(tok, 0, "\xFF", (int32_t[]){0xEF, 0xBF, 0xBD}, 3); /* U+FFFD */
    expect_ids(tok, 0, "", (int32_t[]){0}, 0);
    round_trip(tok, "a\0b", 3);
    emo_tokenizer_release(tok);
    emo_tokenizer_release(NULL);
    emo_runtime_release(rt);
}

static void merges_by_hand(void **state) {
    (void)state;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    uint64_t hash[2];
    for (int form = 0; form < 2; form++) {
        emo_tokenizer *tok = from_parts(rt, VOCAB, form ? MERGES_AS_LISTS : MERGES, EOT, TEXT_BYTE_LEVEL);
        int32_t h = byte_id(tok, 'h'), l = byte_id(tok, 'l'), o = byte_id(tok, 'o'), space = byte_id(tok, ' ');
        expect_ids(tok, 0, "hello hello", (int32_t[]){259, 260}, 2);
        expect_ids(tok, 0, "hel", (int32_t[]){256, l}, 2);
        expect_ids(tok, 0, "llll", (int32_t[]){257, 257}, 2);
        expect_ids(tok, 0, "lll", (int32_t[]){257, l}, 2); /* the leftmost first */
        expect_ids(tok, 0, "helloo h", (int32_t[]){259, o, space, h}, 4);
        assert_int_equal(emo_tokenizer_vocab_size(tok), 262);
        assert_int_equal(emo_tokenizer_eos(tok), 261);
        assert_int_equal(emo_tokenizer_token_to_id(tok, " hello", 6), 260);
        assert_int_equal(emo_tokenizer_token_to_id(tok, "nothing", 7), -1);
        hash[form] = emo_tokenizer_hash(tok);
        emo_tokenizer_release(tok);
    }
    assert_true(hash[0] == hash[1]);
    emo_tokenizer *other = from_parts(rt, VOCAB, "\"l l\",\"h e\",\"he ll\",\"hell o\"", EOT, TEXT_BYTE_LEVEL);
    assert_true(emo_tokenizer_hash(other) != hash[0]);
    emo_tokenizer_release(other);
    emo_runtime_release(rt);
}

static void long_pieces_give_what_short_ones_give(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_tokenizer *tok = from_parts(rt, VOCAB, MERGES, EOT, TEXT_BYTE_LEVEL);
    /* the last token of each repetition cannot merge across: ids repeat exactly */
    enum { TIMES = 100000 };
    static const char unit[] = "hellxhello lll";
    size_t n = sizeof unit - 1, count = 0;
    int32_t one[16];
    EXPECT_OK(emo_tokenizer_encode(tok, unit, n, one, 16, &count, &err));
    char *text = malloc(n * TIMES);
    int32_t *ids = malloc(n * TIMES * sizeof *ids);
    assert_true(text != NULL && ids != NULL);
    for (size_t i = 0; i < TIMES; i++)
        memcpy(text + i * n, unit, n);
    size_t all = 0;
    EXPECT_OK(emo_tokenizer_encode(tok, text, n * TIMES, ids, n * TIMES, &all, &err));
    assert_int_equal(all, count * TIMES);
    for (size_t i = 0; i < all; i++)
        assert_int_equal(ids[i], one[i % count]);
    round_trip(tok, text, n * TIMES);
    free(text);
    free(ids);
    emo_tokenizer_release(tok);
    emo_runtime_release(rt);
}

static void every_plane_comes_back(void **state) {
    (void)state;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_tokenizer *tok =
        from_parts(rt, VOCAB, MERGES, EOT, ",\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false}");
    unsigned char *text = malloc(0x110000u * 4 / 16);
    assert_non_null(text);
    for (uint32_t plane = 0; plane < 17; plane++) {
        size_t n = 0;
        for (uint32_t c = plane << 16; c < (plane + 1) << 16; c++) {
            if (c < 0xD800 || c > 0xDFFF)
                n += emo__utf8_write(c, text + n);
        }
        round_trip(tok, (const char *)text, n);
    }
    free(text);
    emo_tokenizer_release(tok);
    emo_runtime_release(rt);
}

static void added_tokens(void **state) {
    (void)state;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_tokenizer *tok = from_parts(rt, VOCAB, MERGES,
                                    EOT ",{\"id\":300,\"content\":\"<a>\",\"special\":false,\"normalized\":true},"
                                        "{\"id\":301,\"content\":\"<a>b\",\"special\":true,\"normalized\":true},"
                                        "{\"id\":302,\"content\":\"<m>\",\"lstrip\":true,\"rstrip\":true,"
                                        "\"special\":true,\"normalized\":false}",
                                    TEXT_BYTE_LEVEL);
    assert_int_equal(emo_tokenizer_vocab_size(tok), 303);
    int32_t lt = byte_id(tok, '<'), a = byte_id(tok, 'a'), gt = byte_id(tok, '>'), c = byte_id(tok, 'c');
    int32_t b = byte_id(tok, 'b');
    expect_ids(tok, 0, "<a>", (int32_t[]){300}, 1);
    expect_ids(tok, 0, "<a>b", (int32_t[]){lt, a, gt, b}, 4); /* a special one, longer: plain text, not looked into */
    expect_ids(tok, 1, "<a>c<a>ba", (int32_t[]){300, c, 301, a}, 4); /* the longest */
    expect_ids(tok, 1, "hello \t<m>\xE3\x80\x80\nhello", (int32_t[]){259, 302, 259}, 3);
    expect_ids(tok, 1, "<m><m>", (int32_t[]){302, 302}, 2);
    expect_ids(tok, 1, "<m> <m>", (int32_t[]){302, 302}, 2);
    expect_ids(tok, 1, "<", &lt, 1);
    emo_tokenizer *spaces =
        from_parts(rt, VOCAB, MERGES, EOT ",{\"id\":262,\"content\":\"  \",\"rstrip\":true}", TEXT_BYTE_LEVEL);
    expect_ids(spaces, 0, "     ", (int32_t[]){262, 262}, 2); /* a token in white space that was taken counts */
    emo_tokenizer_release(spaces);
    spaces = from_parts(rt, VOCAB, MERGES, EOT ",{\"id\":262,\"content\":\"  \",\"lstrip\":true,\"rstrip\":true}",
                        TEXT_BYTE_LEVEL);
    expect_ids(spaces, 0, "     ", (int32_t[]){262}, 1); /* unless it takes white space itself */
    emo_tokenizer_release(spaces);
    assert_int_equal(emo_tokenizer_is_special(tok, 300), 0);
    assert_int_equal(emo_tokenizer_is_special(tok, 301), 1);
    assert_int_equal(emo_tokenizer_is_special(tok, 299), 0);
    emo_error err = EMO_ERROR_INIT;
    const char *bytes;
    size_t length;
    EXPECT_STATUS(emo_tokenizer_id_to_token(tok, 299, &bytes, &length, &err), EMO_E_NOT_FOUND, "299");
    EXPECT_OK(emo_tokenizer_id_to_token(tok, 301, &bytes, &length, &err));
    assert_int_equal(length, 4);
    assert_memory_equal(bytes, "<a>b", 4);
    EXPECT_STATUS(emo_tokenizer_set_eos(tok, 299, &err), EMO_E_RANGE, "299");
    EXPECT_OK(emo_tokenizer_set_eos(tok, 302, &err));
    assert_int_equal(emo_tokenizer_eos(tok), 302);
    emo_tokenizer_release(tok);
    emo_runtime_release(rt);
}

static void added_tokens_beside_words(void **state) {
    (void)state;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_tokenizer *tok = from_parts(rt, VOCAB, MERGES,
                                    EOT ",{\"id\":262,\"content\":\"hey\",\"single_word\":true},"
                                        "{\"id\":263,\"content\":\"e\\u0301!\",\"normalized\":true},"
                                        "{\"id\":264,\"content\":\"e\\u0301?\",\"normalized\":false}",
                                    ",\"normalizer\":{\"type\":\"NFC\"}" TEXT_BYTE_LEVEL);
    int32_t space = byte_id(tok, ' '), l = byte_id(tok, 'l'), y = byte_id(tok, 'y');
    int32_t c3 = byte_id(tok, 0xC3), a9 = byte_id(tok, 0xA9);
    expect_ids(tok, 0, "hey hey", (int32_t[]){262, space, 262}, 3);
    expect_ids(tok, 0, "heyl", (int32_t[]){256, y, l}, 3);
    expect_ids(tok, 0, "lhey", (int32_t[]){l, 256, y}, 3);
    expect_ids(tok, 0, "e\xCC\x81!", (int32_t[]){263}, 1);
    expect_ids(tok, 0, "\xC3\xA9!", (int32_t[]){263}, 1);
    expect_ids(tok, 0, "e\xCC\x81?", (int32_t[]){264}, 1);
    expect_ids(tok, 0, "\xC3\xA9?", (int32_t[]){c3, a9, byte_id(tok, '?')}, 3);
    emo_tokenizer_release(tok);
    emo_runtime_release(rt);
}

/* A small vocabulary that lacks most bytes: they are dropped, or become unk, or one unk for a run of them. */
static void bytes_without_a_token(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    static const struct {
        const char *settings;
        int32_t ids[8];
        size_t n;
    } rows[] = {
        {"", {3, 1, 3}, 3}, /* what is left meets and merges */
        {",\"unk_token\":\"?\"", {0, 2, 2, 1, 2, 1, 2, 3}, 8},
        {",\"unk_token\":\"?\",\"fuse_unk\":true", {0, 2, 1, 2, 1, 2, 3}, 7},
    };
    for (size_t i = 0; i < 3; i++) {
        char json[512];
        int n =
            snprintf(json, sizeof json,
                     "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"?\":2,\"ab\":3},\"merges\":[\"a b\"]"
                     "%s}" TEXT_BYTE_LEVEL "}",
                     rows[i].settings);
        emo_tokenizer *tok = NULL;
        EXPECT_OK(emo_tokenizer_from_json(rt, json, (size_t)n, &tok, &err));
        expect_ids(tok, 0, "axxbxbxab", rows[i].ids, rows[i].n);
        size_t size = 0;
        char saved[2048];
        emo_tokenizer *copy = NULL;
        EXPECT_OK(emo_tokenizer_to_json(tok, saved, sizeof saved, &size, &err));
        EXPECT_OK(emo_tokenizer_from_json(rt, saved, size, &copy, &err));
        assert_true(emo_tokenizer_hash(copy) == emo_tokenizer_hash(tok));
        emo_tokenizer_release(copy);
        emo_tokenizer_release(tok);
    }
    emo_runtime_release(rt);
}

static void what_the_post_processor_adds(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
#define TEMPLATE(before, after)                                                                                        \
    "{\"type\":\"TemplateProcessing\",\"single\":[" before "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}" after "],"    \
    "\"pair\":[],\"special_tokens\":{\"<b>\":{\"id\":\"<b>\",\"ids\":[256,257],\"tokens\":[]},\"<|endoftext|>\":{"     \
    "\"id\":"                                                                                                          \
    "\"<|endoftext|>\",\"ids\":[261],\"tokens\":[]}}}"
#define MARK(name) "{\"SpecialToken\":{\"id\":\"" name "\",\"type_id\":0}}"
    static const struct {
        const char *post;
        int32_t ids[8];
        size_t n;
    } rows[] = {
        {"null", {259}, 1},
        {"{\"type\":\"ByteLevel\"}", {259}, 1},
        {TEMPLATE(MARK("<b>") ",", "," MARK("<|endoftext|>")), {256, 257, 259, 261}, 4},
        {"{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"}," TEMPLATE(MARK("<b>") ",", "") "," TEMPLATE(
             MARK("<|endoftext|>") ",", "") "]}",
         {261, 256, 257, 259},
         4},
        {"{\"type\":\"RobertaProcessing\",\"sep\":[\"</s>\",258],\"cls\":[\"<s>\",260]}", {260, 259, 258}, 3},
    };
    emo_tokenizer_encode_options options = EMO_TOKENIZER_ENCODE_OPTIONS_INIT;
    options.add_special = 1;
    int32_t ids[8];
    size_t count = 0;
    char rest[2048];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        (void)snprintf(rest, sizeof rest, ",\"post_processor\":%s" TEXT_BYTE_LEVEL, rows[i].post);
        emo_tokenizer *tok = from_parts(rt, VOCAB, MERGES, EOT, rest);
        expect_ids(tok, 0, "hello", (int32_t[]){259}, 1);
        EXPECT_OK(emo_tokenizer_encode_with(tok, &options, "hello", 5, ids, 8, &count, &err));
        assert_int_equal(count, rows[i].n);
        assert_memory_equal(ids, rows[i].ids, count * sizeof *ids);
        EXPECT_OK(emo_tokenizer_encode_with(tok, &options, NULL, 0, ids, 8, &count, &err));
        assert_int_equal(count, rows[i].n - 1);
        emo_tokenizer_release(tok);
    }
    emo_tokenizer *tok = from_parts(rt, VOCAB, MERGES, EOT, ",\"post_processor\":{\"type\":\"New\"}" TEXT_BYTE_LEVEL);
    EXPECT_STATUS(emo_tokenizer_encode_with(tok, &options, "a", 1, ids, 8, &count, &err), EMO_E_UNSUPPORTED, "'New'");
    options.add_special = 2;
    EXPECT_STATUS(emo_tokenizer_encode_with(tok, &options, "a", 1, ids, 8, &count, &err), EMO_E_RANGE, "add_special");
    emo_tokenizer_release(tok);
    emo_runtime_release(rt);
}

static void what_comes_before_the_merges(void **state) {
    (void)state;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_tokenizer *tok = from_parts(rt, VOCAB, MERGES, "",
                                    ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"}]},"
                                    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true}");
    assert_int_equal(emo_tokenizer_eos(tok), -1);
    int32_t space = byte_id(tok, ' '), c3 = byte_id(tok, 0xC3), a9 = byte_id(tok, 0xA9);
    expect_ids(tok, 0, "hello", (int32_t[]){260}, 1);
    expect_ids(tok, 0, " hello", (int32_t[]){260}, 1);
    expect_ids(tok, 0, "e\xCC\x81", (int32_t[]){space, c3, a9}, 3);
    emo_tokenizer_release(tok);
    tok = from_parts(rt, VOCAB, MERGES, "",
                     ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":"
                     "{\"Regex\":\"he\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\","
                     "\"add_prefix_space\":false,\"use_regex\":false}]}");
    expect_ids(tok, 0, "hello", (int32_t[]){256, 257, byte_id(tok, 'o')}, 3);
    emo_tokenizer_release(tok);
    emo_runtime_release(rt);
}

/* One tokenizer, many threads at once: the same ids everywhere. */
typedef struct shared {
    const emo_tokenizer *tok;
    const int32_t *want;
    size_t count;
    _Atomic int wrong;
} shared;

static const char shared_text[] = "hello he said, l\xC3\xA9l\xC3\xA9 12345 'll hellohello \xE4\xB8\xAD\n\n hel";

static void encode_often(void *task, size_t index, size_t worker) {
    (void)index;
    (void)worker;
    shared *s = task;
    for (int round = 0; round < 200; round++) {
        emo_error err = EMO_ERROR_INIT;
        int32_t ids[128];
        size_t count = 0;
        if (emo_tokenizer_encode(s->tok, shared_text, sizeof shared_text - 1, ids, 128, &count, &err) != EMO_OK ||
            count != s->count || memcmp(ids, s->want, count * sizeof *ids) != 0)
            s->wrong++;
    }
}

static void many_threads_share_one(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(4, EMO_ISA_AUTO);
    /* a pattern without a scanner: PCRE2 runs in every thread */
    emo_tokenizer *tok =
        from_parts(rt, VOCAB, MERGES, EOT,
                   ",\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
                   "{\"type\":\"Split\",\"pattern\":{\"Regex\":\" ?\\\\p{L}+|\\\\s\"},\"behavior\":\"Isolated\"},"
                   "{\"type\":\"ByteLevel\"}]}");
    int32_t want[128];
    shared s = {tok, want, 0, 0};
    EXPECT_OK(emo_tokenizer_encode(tok, shared_text, sizeof shared_text - 1, want, 128, &s.count, &err));
    emo__parallel_for(rt, 16, encode_often, &s);
    assert_int_equal(s.wrong, 0);
    emo_tokenizer_release(tok);
    emo_runtime_release(rt);
}

static void ignore_merges_takes_whole_words(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    static char json[32768], with[32768];
    size_t n = text_json(json, sizeof json, ",\"abc\":256", "", "", TEXT_BYTE_LEVEL);
    emo_tokenizer *tok = NULL;
    EXPECT_OK(emo_tokenizer_from_json(rt, json, n, &tok, &err));
    expect_ids(tok, 0, "abc", (int32_t[]){byte_id(tok, 'a'), byte_id(tok, 'b'), byte_id(tok, 'c')}, 3);
    emo_tokenizer_release(tok);
    (void)snprintf(with, sizeof with, "%.*s,\"ignore_merges\":true}}", (int)(n - 2), json);
    EXPECT_OK(emo_tokenizer_from_json(rt, with, strlen(with), &tok, &err));
    expect_ids(tok, 0, "abc", (int32_t[]){256}, 1);
    emo_tokenizer_release(tok);
    emo_runtime_release(rt);
}

static void saving_keeps_everything(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_tokenizer *tok =
        from_parts(rt, VOCAB, MERGES, EOT ",{\"id\":270,\"content\":\"x y\",\"lstrip\":true,\"single_word\":true}",
                   ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFKD\"},{\"type\":\"NFC\"}]},"
                   "\"post_processor\":{\"type\":\"Kept\",\"x\":[1]},"
                   "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
                   "\"pattern\":{\"String\":\"\\\"q\"},\"behavior\":\"MergedWithNext\",\"invert\":true},"
                   "{\"type\":\"Digits\",\"individual_digits\":true},"
                   "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}]}");
    size_t size = 0, again = 0;
    EXPECT_OK(emo_tokenizer_to_json(tok, NULL, 0, &size, &err));
    char *text = malloc(size), *second = malloc(size);
    assert_true(text != NULL && second != NULL);
    EXPECT_STATUS(emo_tokenizer_to_json(tok, text, size - 1, &again, &err), EMO_E_LIMIT, "room");
    assert_int_equal(again, size);
    EXPECT_OK(emo_tokenizer_to_json(tok, text, size, &size, &err));
    emo_tokenizer *copy = NULL;
    EXPECT_OK(emo_tokenizer_from_json(rt, text, size, &copy, &err));
    assert_true(emo_tokenizer_hash(copy) == emo_tokenizer_hash(tok));
    EXPECT_OK(emo_tokenizer_to_json(copy, second, size, &again, &err));
    assert_int_equal(again, size);
    assert_memory_equal(second, text, size);
    emo_tokenizer_release(copy);

    emo_source *source = NULL;
    EXPECT_OK(emo_source_from_memory(rt, text, size, &source, &err));
    EXPECT_OK(emo_tokenizer_load_source(rt, source, &copy, &err));
    emo_source_release(source);
    assert_true(emo_tokenizer_hash(copy) == emo_tokenizer_hash(tok));
    emo_tokenizer_release(copy);

    char folder[] = "/tmp/emo_tokenizer_XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    EXPECT_STATUS(emo_tokenizer_load(rt, folder, &copy, &err), EMO_E_NOT_FOUND, "tokenizer.json");
    EXPECT_OK(emo_tokenizer_save(tok, path, &err));
    EXPECT_OK(emo_tokenizer_load(rt, folder, &copy, &err));
    assert_true(emo_tokenizer_hash(copy) == emo_tokenizer_hash(tok));
    emo_tokenizer_release(copy);
    assert_int_equal(remove(path), 0);
    assert_int_equal(remove(folder), 0);
    free(text);
    free(second);
    emo_tokenizer_release(tok);
    emo_runtime_release(rt);
}

static void buffers_too_small(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_tokenizer *tok = NULL;
    EXPECT_OK(emo_tokenizer_create_bytes(rt, &tok, &err));
    int32_t ids[3] = {-7, -7, -7};
    size_t count = 0;
    EXPECT_STATUS(emo_tokenizer_encode(tok, "abcd", 4, ids, 2, &count, &err), EMO_E_LIMIT, "4 tokens");
    assert_int_equal(count, 4);
    assert_int_equal(ids[1], 'b');
    assert_int_equal(ids[2], -7);
    char text[4] = "???";
    size_t size = 0;
    EXPECT_STATUS(emo_tokenizer_decode(tok, (int32_t[]){256}, 1, text, 3, &size, &err), EMO_E_LIMIT, "13 bytes");
    assert_int_equal(size, 13);
    assert_string_equal(text, "???");
    EXPECT_STATUS(emo_tokenizer_decode(tok, (int32_t[]){1, 257}, 2, text, 3, &size, &err), EMO_E_RANGE, "ids[1]");
    assert_int_equal(err.number, 1);
    EXPECT_STATUS(emo_tokenizer_decode(tok, (int32_t[]){-1}, 1, text, 3, &size, &err), EMO_E_RANGE, "ids[0]");
    EXPECT_STATUS(emo_tokenizer_encode(tok, NULL, 4, ids, 2, &count, &err), EMO_E_INVALID_ARGUMENT, "text");
    emo_tokenizer_encode_options options = EMO_TOKENIZER_ENCODE_OPTIONS_INIT;
    options.parse_special = 2;
    EXPECT_STATUS(emo_tokenizer_encode_with(tok, &options, "a", 1, ids, 2, &count, &err), EMO_E_RANGE, "parse_special");
    emo_tokenizer_release(tok);
    emo_runtime_release(rt);
}

static void the_stream_holds_characters_together(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_tokenizer *tok = NULL;
    emo_decoder *decoder = NULL;
    EXPECT_OK(emo_tokenizer_create_bytes(rt, &tok, &err));
    emo_decoder_options options = EMO_DECODER_OPTIONS_INIT;
    options.skip_special = 1;
    EXPECT_OK(emo_decoder_create(tok, &options, &decoder, &err));
    emo_tokenizer_release(tok); /* the decoder keeps it */
    static const struct {
        int32_t id;
        const char *text;
    } steps[] = {
        {'a', "a"},
        {0xF0, ""},
        {0x9F, ""},
        {0x98, ""},
        {0x80, "\xF0\x9F\x98\x80"},
        {0xC3, ""},
        {256, ""},
        {0xA9, "\xC3\xA9"},
        {0xE2, ""},
        {0x82, ""},
        {'!', "\xEF\xBF\xBD!"},
        {0xFF, "\xEF\xBF\xBD"},
        {0xC3, ""},
        {0xC3, "\xEF\xBF\xBD"},
    };
    const char *text;
    size_t length;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        EXPECT_OK(emo_decoder_push(decoder, steps[i].id, &text, &length, &err));
        assert_string_equal(text, steps[i].text);
        assert_int_equal(length, strlen(steps[i].text));
    }
    EXPECT_STATUS(emo_decoder_push(decoder, 257, &text, &length, &err), EMO_E_RANGE, "257");
    EXPECT_OK(emo_decoder_flush(decoder, &text, &length, &err));
    assert_string_equal(text, "\xEF\xBF\xBD");
    EXPECT_OK(emo_decoder_flush(decoder, &text, &length, &err));
    assert_string_equal(text, "");
    emo_decoder_release(decoder);
    emo_decoder_release(NULL);
    emo_runtime_release(rt);
}

/* A pattern that explodes is another limit than that of the room, whoever asks for the ids. */
static void a_pattern_that_takes_too_long(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    const char *const learnt[] = {"so it is"};
    text_list list = {learnt, 1, 0};
    emo_text_reader reader = {&list, text_next};
    emo_tokenizer_train_options options = EMO_TOKENIZER_TRAIN_OPTIONS_INIT;
    emo_tokenizer *tokenizer;
    options.vocab_size = 258;
    options.pattern = "(a|aa)+(?=c)$";
    EXPECT_OK(emo_tokenizer_train(rt, &options, &reader, &tokenizer, &err));
    char text[62];
    int32_t ids[64];
    size_t count = 7;
    memset(text, 'a', 60);
    memcpy(text + 60, "b", 2);
    EXPECT_STATUS(emo_tokenizer_encode(tokenizer, text, 61, ids, 64, &count, &err), EMO_E_LIMIT, "takes too long");
    assert_int_equal(count, 0);
    count = 7;
    EXPECT_STATUS(emo_tokenizer_encode(tokenizer, text, 61, NULL, 0, &count, &err), EMO_E_LIMIT, "takes too long");
    assert_int_equal(count, 0);
    const char *const texts[] = {text};
    emo_dataset *data;
    EXPECT_STATUS(emo_dataset_from_text(rt, tokenizer, texts, NULL, 1, &data, &err), EMO_E_LIMIT, "takes too long");
    assert_null(data);
    emo_tokenizer_release(tokenizer);
    emo_runtime_release(rt);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_byte_tokenizer),
        cmocka_unit_test(merges_by_hand),
        cmocka_unit_test(long_pieces_give_what_short_ones_give),
        cmocka_unit_test(every_plane_comes_back),
        cmocka_unit_test(added_tokens),
        cmocka_unit_test(added_tokens_beside_words),
        cmocka_unit_test(bytes_without_a_token),
        cmocka_unit_test(what_the_post_processor_adds),
        cmocka_unit_test(what_comes_before_the_merges),
        cmocka_unit_test(many_threads_share_one),
        cmocka_unit_test(ignore_merges_takes_whole_words),
        cmocka_unit_test(saving_keeps_everything),
        cmocka_unit_test(buffers_too_small),
        cmocka_unit_test(the_stream_holds_characters_together),
        cmocka_unit_test(a_pattern_that_takes_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
