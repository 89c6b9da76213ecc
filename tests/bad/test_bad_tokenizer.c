/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer.json files that are wrong or ask for what is not there: each gives its status and says why. */
#include "support/support.h"
#include "unit/text/text_support.h"

typedef struct bad_case {
    const char *vocab, *merges, *added, *rest;
    emo_status status;
    const char *words;
} bad_case;

#define POST(single, id)                                                                                               \
    ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":" single                                          \
    ",\"special_tokens\":{\"<s>\":{\"ids\":[" id "]}}}" TEXT_BYTE_LEVEL
#define SPLIT(body) ",\"pre_tokenizer\":{\"type\":\"Split\"," body "}"

static const bad_case cases[] = {
    {",\"ab\":65793", "", "", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "'ab' is 65793"},
    {",\"ab\":257,\"cd\":258,\"ef\":255", "", "", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "two tokens have the id 255"},
    {",\"ab\":257,\"cd\":258,\"ef\":258", "", "", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "two tokens have the id 258"},
    {",\"ab\":257", "", "{\"id\":256,\"content\":\"x\"}", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "'x' has the id 256"},
    {",\"ab\":4000000000000", "", "", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "4000000000000"},
    {",\"ab\":-1", "", "", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "'ab' is -1"},
    {",\"ab\":2.5", "", "", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "not an integer"},
    {",\"ab\":\"256\"", "", "", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "not an integer"},
    {",\"\":256", "", "", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "id 256"},
    {",\"a b\":256", "", "", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "byte-level alphabet"},
    {",\"\\u4e2d\":256", "", "", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "byte-level alphabet"},
    {",\"ab\":256,\"ab\":256", "", "", TEXT_BYTE_LEVEL, EMO_E_FORMAT, NULL},
    {",\"ab\":256", "\"a c\"", "", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "merges[0]: what 'a' and 'c' make"},
    {",\"ab\":256", "\"a b\",\"ab cd\"", "", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "merges[1]: 'cd'"},
    {",\"ab\":256", "\"ab\"", "", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "one space"},
    {",\"ab\":256", "\"a b c\"", "", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "one space"},
    {",\"ab\":256", "\"a \"", "", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "merges[0]"},
    {",\"ab\":256", "[\"a\"]", "", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "merges[0]"},
    {",\"ab\":256", "[\"a\",\"b\",\"c\"]", "", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "merges[0]"},
    {",\"ab\":256", "7", "", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "merges[0]"},
    {",\"ab\":256", "\"a xy\"", "{\"id\":257,\"content\":\"xy\"}", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "'xy'"},
    {"", "", "{\"id\":256,\"content\":\"x!\"},{\"id\":256,\"content\":\"y!\"}", TEXT_BYTE_LEVEL, EMO_E_FORMAT,
     "two tokens have the id 256"},
    {"", "", "{\"id\":5,\"content\":\"x!\"}", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "two tokens have the id 5"},
    {"", "", "{\"id\":256,\"content\":\"\"}", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "added_tokens[0]"},
    {"", "", "{\"id\":256}", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "content"},
    {"", "", "{\"content\":\"x!\"}", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "id"},
    {"", "", "{\"id\":2000000000,\"content\":\"x!\"}", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "id"},
    {"", "", "{\"id\":-1,\"content\":\"x!\"}", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "id"},
    {"", "", "{\"id\":256,\"content\":\"x!\",\"special\":1}", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "special"},
    {"", "", "{\"id\":256,\"content\":\"x!\",\"single_word\":1}", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "single_word"},
    {"", "", "3", TEXT_BYTE_LEVEL, EMO_E_FORMAT, "added_tokens[0]"},
    {",\"\u00c3\u00a9\":256", "", "{\"id\":256,\"content\":\"\u00c3\u00a9\"}", TEXT_BYTE_LEVEL, EMO_E_UNSUPPORTED,
     "spelling of other bytes"},
    {"", "", "", "", EMO_E_UNSUPPORTED, "pre_tokenizer"},
    {"", "", "", ",\"pre_tokenizer\":{\"type\":\"Metaspace\"}", EMO_E_UNSUPPORTED, "Metaspace"},
    {"", "", "", ",\"pre_tokenizer\":7", EMO_E_UNSUPPORTED, "pre_tokenizer"},
    {"", "", "", ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[]}", EMO_E_UNSUPPORTED, "ByteLevel"},
    {"", "", "",
     ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":\"ByteLevel\"}]}",
     EMO_E_UNSUPPORTED, "behind ByteLevel"},
    {"", "", "", SPLIT("\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Sideways\""), EMO_E_UNSUPPORTED, "Sideways"},
    {"", "", "", SPLIT("\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Isolated\",\"invert\":2"), EMO_E_FORMAT, "invert"},
    {"", "", "", SPLIT("\"pattern\":{\"Regex\":\"[a&&b]\"},\"behavior\":\"Isolated\""), EMO_E_UNSUPPORTED, "&&"},
    {"", "", "", ",\"pre_tokenizer\":{\"type\":\"Digits\"}", EMO_E_UNSUPPORTED, "no ByteLevel"},
    {"", "", "", ",\"pre_tokenizer\":{\"type\":\"Punctuation\"}", EMO_E_UNSUPPORTED, "Punctuation"},
    {"", "", "", SPLIT("\"pattern\":{\"Regex\":\"(a\"},\"behavior\":\"Isolated\""), EMO_E_FORMAT, "does not compile"},
    {"", "", "", SPLIT("\"pattern\":{\"Regex\":\"\"},\"behavior\":\"Isolated\""), EMO_E_FORMAT, "0 bytes"},
    {"", "", "", SPLIT("\"pattern\":{},\"behavior\":\"Isolated\""), EMO_E_FORMAT, "pattern"},
    {"", "", "", SPLIT("\"pattern\":{\"Regex\":\"a\"}"), EMO_E_FORMAT, "behavior"},
    {"", "", "", ",\"normalizer\":{\"type\":\"Lowercase\"}" TEXT_BYTE_LEVEL, EMO_E_UNSUPPORTED, "Lowercase"},
    {"", "", "",
     ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Strip\"}]"
     "}" TEXT_BYTE_LEVEL,
     EMO_E_UNSUPPORTED, "Strip"},
    {"", "", "", ",\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"}]}" TEXT_BYTE_LEVEL,
     EMO_E_UNSUPPORTED, "Fuse"},
    {"", "", "", POST("[{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}]", "300"), EMO_E_FORMAT,
     "no known id"},
    {"", "", "", POST("[{\"SpecialToken\":{\"id\":\"<t>\"}},{\"Sequence\":{\"id\":\"A\"}}]", "3"), EMO_E_FORMAT,
     "'<t>' has no ids"},
    {"", "", "", POST("[{\"SpecialToken\":{\"id\":\"<s>\"}}]", "3"), EMO_E_FORMAT, "no sequence A"},
    {"", "", "", POST("[{\"Sequence\":{\"id\":\"B\"}}]", "3"), EMO_E_FORMAT, "single[0]"},
    {"", "", "", ",\"decoder\":{\"type\":\"Metaspace\"}" TEXT_BYTE_LEVEL, EMO_E_UNSUPPORTED, "Metaspace"},
};

static void wrong_parts(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    static char json[32768];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const bad_case *c = &cases[i];
        size_t n = text_json(json, sizeof json, c->vocab, c->merges, c->added, c->rest);
        emo_tokenizer *tok = NULL;
        emo_status status = emo_tokenizer_from_json(rt, json, n, &tok, &err);
        if (status != c->status || (c->words != NULL && strstr(err.message, c->words) == NULL))
            fail_msg("case %zu: got %s (%s), want %s with '%s'", i, emo_status_name(status), err.message,
                     emo_status_name(c->status), c->words);
        assert_null(tok);
    }
    emo_runtime_release(rt);
}

#define SMALL(vocab, settings)                                                                                         \
    "{\"model\":{\"type\":\"BPE\",\"vocab\":{" vocab "},\"merges\":[]" settings                                        \
    "},\"pre_tokenizer\":{\"type\":\"ByteLevel\"}}"

static void wrong_wholes(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    static const struct {
        const char *json;
        emo_status status;
        const char *words;
    } wholes[] = {
        {"", EMO_E_FORMAT, NULL},
        {"{", EMO_E_FORMAT, NULL},
        {"[]", EMO_E_FORMAT, "object"},
        {"{}", EMO_E_FORMAT, "model"},
        {"{\"model\":{\"type\":\"Unigram\"}}", EMO_E_UNSUPPORTED, "Unigram"},
        {SMALL("\"a\":0", ",\"byte_fallback\":true"), EMO_E_UNSUPPORTED, "byte_fallback"},
        {SMALL("\"a\":0", ",\"unk_token\":\"?\""), EMO_E_FORMAT, "unk_token '?'"},
        {SMALL("", ""), EMO_E_FORMAT, "no token for any byte"},
        {"{\"model\":{\"type\":\"BPE\",\"dropout\":0.1}}", EMO_E_UNSUPPORTED, "dropout"},
        {"{\"model\":{\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\"}}", EMO_E_UNSUPPORTED, "end_of_word_suffix"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":[]}}", EMO_E_FORMAT, "vocab"},
    };
    for (size_t i = 0; i < sizeof wholes / sizeof wholes[0]; i++) {
        emo_tokenizer *tok = NULL;
        EXPECT_STATUS(emo_tokenizer_from_json(rt, wholes[i].json, strlen(wholes[i].json), &tok, &err), wholes[i].status,
                      wholes[i].words);
        assert_null(tok);
    }
    /* merges missing */
    static char json[32768];
    size_t n = text_json(json, sizeof json, "", "", "", TEXT_BYTE_LEVEL);
    char *merges = strstr(json, ",\"merges\"");
    assert_non_null(merges);
    memcpy(merges, "}}", 3);
    emo_tokenizer *tok = NULL;
    EXPECT_STATUS(emo_tokenizer_from_json(rt, json, strlen(json), &tok, &err), EMO_E_FORMAT, "merges");
    /* cut anywhere: a status, never more */
    n = text_json(json, sizeof json, ",\"ab\":256", "\"a b\"", "{\"id\":257,\"content\":\"x!\"}", TEXT_BYTE_LEVEL);
    for (size_t cut = 0; cut < n; cut += 7)
        EXPECT_STATUS(emo_tokenizer_from_json(rt, json, cut, &tok, &err), EMO_E_FORMAT, "tokenizer.json");
    EXPECT_OK(emo_tokenizer_from_json(rt, json, n, &tok, &err));
    emo_tokenizer_release(tok);
    EXPECT_STATUS(emo_tokenizer_from_json(NULL, json, n, &tok, &err), EMO_E_INVALID_ARGUMENT, "runtime");
    EXPECT_STATUS(emo_tokenizer_load(rt, "/nonexistent/tokenizer.json", &tok, &err), EMO_E_NOT_FOUND, "nonexistent");
    emo_runtime_release(rt);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_parts),
        cmocka_unit_test(wrong_wholes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
