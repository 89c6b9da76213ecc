/* SPDX-License-Identifier: Apache-2.0 */
/* Text that comes out of sessions: stop strings across tokens, whole characters, sampling, options by name. */
#include "base/memory.h"
#include "infer/stop.h"
#include "infer_support.h"
#include "text/unicode.h"

/* e acute (2 bytes) and the euro sign (3 bytes); no byte twice */
#define SCRIPT "ab\xC3\xA9\x64\xE2\x82\xACwxyz"

static emo_runtime *rt;
static emo_model *wild; /* large random weights, with byte tokens */
static emo_model *chain;

static int setup(void **state) {
    (void)state;
    rt = test_runtime(1, EMO_ISA_AUTO);
    wild = test_model(rt, wild_config, 5);
    test_attach_bytes(rt, wild);
    chain = test_chain_model(rt, SCRIPT);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    emo_model_release(wild);
    emo_model_release(chain);
    emo_runtime_release(rt);
    return 0;
}

/* Appends the text of every advance of sequence 0; each must be whole characters. */
static void collect(emo_session *s, const emo_budget *budget, char *out, size_t capacity) {
    emo_error err = EMO_ERROR_INIT;
    emo_state state = EMO_STATE_PENDING;
    size_t size = 0;
    while (state != EMO_STATE_DONE) {
        EXPECT_OK(emo_session_advance(s, budget, &state, &err));
        const char *text = emo_session_text(s);
        size_t n = strlen(text);
        assert_int_equal(emo__utf8_valid_prefix(text, n), n);
        assert_true(state != EMO_STATE_DONE || n == 0);
        assert_true(size + n < capacity);
        memcpy(out + size, text, n);
        size += n;
    }
    out[size] = '\0';
}

static void stops_are_found_wherever_text_is_cut(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    static const char *const words[] = {"abcd", "bc", "aab", "\xC3\xA9!"};
    emo__mem mem;
    emo__mem_init(&mem, NULL);
    emo__stops stops;
    EXPECT_OK(emo__stops_copy(&mem, words, 4, &stops, &err));
    size_t at = 99;
    assert_true(emo__stops_find(&stops, "xabcdx", 6, &at));
    assert_int_equal(at, 2); /* "bc" is complete before "abcd" */
    assert_true(emo__stops_find(&stops, "aaabc", 5, &at));
    assert_int_equal(at, 1);
    assert_false(emo__stops_find(&stops, "ab\xC3\xA9", 4, &at));
    assert_false(emo__stops_find(&stops, "", 0, &at));
    assert_int_equal(emo__stops_held(&stops, "xxab", 4), 2);
    assert_int_equal(emo__stops_held(&stops, "aa", 2), 2);
    assert_int_equal(emo__stops_held(&stops, "aaa", 3), 2);
    assert_int_equal(emo__stops_held(&stops, "x\xC3\xA9", 3), 2);
    assert_int_equal(emo__stops_held(&stops, "xyz", 3), 0);
    assert_int_equal(emo__stops_held(&stops, "", 0), 0);
    emo__stops_free(&mem, &stops);
}

static void text_ends_before_a_stop_string(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    char text[256];
    emo_session *s = test_session(chain, NULL);
    EXPECT_OK(emo_session_append_text(s, "a", &err));
    collect(s, NULL, text, sizeof text);
    assert_string_equal(text, SCRIPT + 1);
    assert_int_equal(emo_session_stop_reason(s, 0), EMO_STOP_EOS);
    const int32_t *ids;
    size_t n = emo_session_generated(s, 0, &ids, NULL);
    assert_int_equal(n, strlen(SCRIPT)); /* eos is a token, but no text */
    assert_int_equal(ids[n - 1], EOS);
    emo_session_release(s);

    static const struct {
        const char *stop;
        const char *text;
    } cases[] = {
        {"yz", "b\xC3\xA9\x64\xE2\x82\xACwx"},
        {"\x64\xE2\x82\xAC", "b\xC3\xA9"},
        {"b", ""},
        {"\xC3\xA9", "b"},
        {"xyq", SCRIPT + 1},  /* held back for a while, then released */
        {"xyzq", SCRIPT + 1}, /* released at the end */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        emo_session_options o = EMO_SESSION_OPTIONS_INIT;
        const char *const stop[] = {"nothing", cases[i].stop};
        o.stop = stop;
        o.n_stop = 2;
        s = test_session(chain, &o);
        EXPECT_OK(emo_session_append_text(s, "a", &err));
        collect(s, NULL, text, sizeof text);
        assert_string_equal(text, cases[i].text);
        assert_int_equal(emo_session_stop_reason(s, 0), i < 4 ? EMO_STOP_STRING : EMO_STOP_EOS);
        /* a second turn starts afresh: no text of the first one is left in the decoder or held back */
        EXPECT_OK(emo_session_append_text(s, "w", &err));
        const emo_budget steps = {0, 3, 0};
        collect(s, &steps, text, sizeof text);
        assert_string_equal(text, i == 0 ? "x" : "xyz");
        EXPECT_OK(emo_session_reset(s, &err));
        EXPECT_OK(emo_session_append_text(s, "a", &err));
        collect(s, NULL, text, sizeof text);
        assert_string_equal(text, cases[i].text);
        emo_session_release(s);
    }
}

/* Text in the decoder or held back when the length is used up is not lost. */
static void a_cut_character_is_mended(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    static const char *const stop[] = {"\xE2\x82\xACwq"};
    char text[64];
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.max_tokens = 2;
    emo_session *s = test_session(chain, &o);
    EXPECT_OK(emo_session_append_text(s, "\x64", &err)); /* then two of the three bytes of the euro sign */
    collect(s, NULL, text, sizeof text);
    assert_string_equal(text, "\xEF\xBF\xBD");
    emo_session_release(s);
    o.max_tokens = 4;
    o.stop = stop;
    o.n_stop = 1;
    s = test_session(chain, &o);
    EXPECT_OK(emo_session_append_text(s, "\x64", &err));
    collect(s, NULL, text, sizeof text);
    assert_string_equal(text, "\xE2\x82\xACw");
    assert_int_equal(emo_session_stop_reason(s, 0), EMO_STOP_LENGTH);
    emo_session_release(s);
}

/* Random bytes, most of them no characters: the pieces add up to the cleaned whole. */
static void text_is_whole_characters(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.max_tokens = 300;
    o.temperature = 2.0f;
    o.ignore_eos = 1;
    emo_session *s = test_session(wild, &o);
    EXPECT_OK(emo_session_append_text(s, "", &err)); /* eos alone */
    char text[2048];
    collect(s, NULL, text, sizeof text);
    const int32_t *ids;
    size_t n = emo_session_generated(s, 0, &ids, NULL);
    assert_int_equal(n, 300);
    char raw[512];
    size_t size = 0, left;
    int differs = 0;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] > 0 && ids[i] < 256) /* NULs are left out */
            raw[size++] = (char)ids[i];
        differs += i > 0 && ids[i] != ids[i - 1];
    }
    assert_true(differs > 100);
    emo__mem mem;
    emo__mem_init(&mem, NULL);
    emo__buf want;
    emo__buf_init(&want, &mem);
    EXPECT_OK(emo__utf8_clean(&want, raw, size, false, &left, &err));
    assert_string_equal(text, want.data);
    emo__buf_free(&want);
    emo_session_release(s);
}

static void prompts_begin_with_eos(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    float with[VOCAB], without[VOCAB];
    static const int32_t ids[] = {EOS, 'h', 'i'};
    for (int32_t prepend = 0; prepend < 2; prepend++) {
        emo_session_options o = EMO_SESSION_OPTIONS_INIT;
        o.prepend_eos = prepend;
        o.max_tokens = -1;
        emo_session *s = test_session(wild, &o);
        EXPECT_OK(emo_session_append_text(s, "h", &err));
        EXPECT_OK(emo_session_append_text(s, "i", &err)); /* no eos in the middle */
        (void)test_finish(s, NULL);
        EXPECT_OK(emo_session_logits(s, 0, with, VOCAB, &err));
        EXPECT_OK(emo_session_reset(s, &err));
        EXPECT_OK(emo_session_append_tokens(s, 0, ids + 1 - prepend, (size_t)(2 + prepend), &err));
        (void)test_finish(s, NULL);
        EXPECT_OK(emo_session_logits(s, 0, without, VOCAB, &err));
        assert_memory_equal(with, without, sizeof with);
        emo_session_release(s);
    }
}

static size_t sample(float temperature, int32_t top_k, float penalty, int32_t window, uint64_t seed, int32_t *out) {
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.max_tokens = 30;
    o.ignore_eos = 1;
    o.temperature = temperature;
    o.top_k = top_k;
    o.repetition_penalty = penalty;
    o.repetition_window = window;
    o.seed = seed;
    emo_session *s = test_session(wild, &o);
    test_append(s, 0, 10, 1);
    (void)test_finish(s, NULL);
    const int32_t *ids;
    size_t n = emo_session_generated(s, 0, &ids, NULL);
    assert_int_equal(n, 30);
    memcpy(out, ids, n * sizeof *ids);
    emo_session_release(s);
    return n;
}

static size_t repeats(const int32_t *ids, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++)
            count += ids[i] == ids[j];
    return count;
}

static void sampling_is_a_function_of_the_seed(void **state) {
    (void)state;
    int32_t a[30], b[30];
    size_t n = sample(1.5f, 0, 1.0f, 0, 7, a);
    (void)sample(1.5f, 0, 1.0f, 0, 7, b);
    assert_memory_equal(a, b, n * sizeof *a);
    (void)sample(1.5f, 0, 1.0f, 0, 8, b);
    assert_memory_not_equal(a, b, n * sizeof *a);
    (void)sample(0.0f, 0, 1.0f, 0, 7, a);
    (void)sample(5.0f, 1, 1.0f, 0, 9, b); /* the best one of one: greedy */
    assert_memory_equal(a, b, n * sizeof *a);
}

static void repetition_is_penalised(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    int32_t ids[30];
    size_t n = sample(0.0f, 0, 1e6f, 0, 1, ids);
    assert_int_equal(repeats(ids, n), 0);
    /* a chain that runs in a circle says nothing twice within the window */
    emo_model *circle = test_chain_model(rt, "ab");
    float *head = (float *)(uintptr_t)circle->head.data;
    memcpy(head + 'a' * 64, (const float *)circle->embed.data + 'b' * 64, 64 * sizeof(float));
    for (size_t i = 0; i < 64; i++) {
        head[EOS * 64 + i] = 0.0f;
        head['z' * 64 + i] = 0.001f * head['a' * 64 + i]; /* the second best after b */
    }
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.max_tokens = 6;
    emo_session *s = test_session(circle, &o);
    EXPECT_OK(emo_session_append_text(s, "a", &err));
    char text[64];
    collect(s, NULL, text, sizeof text);
    assert_string_equal(text, "bababa");
    emo_session_release(s);
    o.repetition_penalty = 1e6f;
    o.repetition_window = 1; /* looks at the token before only, which is not the next one */
    s = test_session(circle, &o);
    EXPECT_OK(emo_session_append_text(s, "a", &err));
    collect(s, NULL, text, sizeof text);
    assert_string_equal(text, "bababa");
    emo_session_release(s);
    o.repetition_window = 2;
    s = test_session(circle, &o);
    EXPECT_OK(emo_session_append_text(s, "a", &err));
    (void)test_finish(s, NULL);
    const int32_t *got;
    assert_int_equal(emo_session_generated(s, 0, &got, NULL), 6);
    assert_int_equal(got[0], 'b');
    assert_int_equal(got[1], 'z');
    emo_session_release(s);
    emo_model_release(circle);
}

/* The masks and the limits of options have tests elsewhere; here every field with a bad value is named. */
static void bad_options_are_named(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_session *s = NULL;
#define EXPECT_BAD(set, status, words)                                                                                 \
    do {                                                                                                               \
        emo_session_options o = EMO_SESSION_OPTIONS_INIT;                                                              \
        set;                                                                                                           \
        EXPECT_STATUS(emo_session_create(wild, &o, &s, &err), status, words);                                          \
        assert_null(s);                                                                                                \
    } while (0)
    static const char *const empty[] = {""};
    static const char *const broken[] = {"ok", "\xC3"};
    static const char *const null[] = {NULL};
    EXPECT_BAD(o.sequences = 0, EMO_E_RANGE, ".sequences is 0");
    EXPECT_BAD(o.sequences = 1025, EMO_E_RANGE, ".sequences");
    EXPECT_BAD(o.capacity = -1, EMO_E_RANGE, ".capacity");
    EXPECT_BAD(o.capacity = 1501, EMO_E_RANGE, "[0, 1500]");
    EXPECT_BAD(o.max_tokens = -2, EMO_E_RANGE, ".max_tokens");
    EXPECT_BAD(o.temperature = -1.0f, EMO_E_RANGE, ".temperature");
    EXPECT_BAD(o.temperature = (float)(1e300 * 1e300), EMO_E_RANGE, ".temperature");
    EXPECT_BAD(o.top_k = -1, EMO_E_RANGE, ".top_k");
    EXPECT_BAD(o.top_p = 0.0f, EMO_E_RANGE, ".top_p");
    EXPECT_BAD(o.top_p = 1.5f, EMO_E_RANGE, ".top_p");
    EXPECT_BAD(o.min_p = -0.1f, EMO_E_RANGE, ".min_p");
    EXPECT_BAD(o.repetition_penalty = 0.0f, EMO_E_RANGE, ".repetition_penalty");
    EXPECT_BAD(o.repetition_window = -1, EMO_E_RANGE, ".repetition_window");
    EXPECT_BAD(o.ignore_eos = 2, EMO_E_RANGE, ".ignore_eos");
    EXPECT_BAD(o.prepend_eos = -1, EMO_E_RANGE, ".prepend_eos");
    EXPECT_BAD(o.n_stop = 1, EMO_E_INVALID_ARGUMENT, ".stop is NULL");
    EXPECT_BAD((o.stop = empty, o.n_stop = 1), EMO_E_RANGE, ".stop[0]");
    EXPECT_BAD((o.stop = broken, o.n_stop = 2), EMO_E_INVALID_ARGUMENT, ".stop[1] is not valid UTF-8");
    EXPECT_BAD((o.stop = null, o.n_stop = 1), EMO_E_INVALID_ARGUMENT, ".stop[0] is NULL");
    EXPECT_BAD((o.stop = empty, o.n_stop = 1000), EMO_E_RANGE, ".n_stop");
    EXPECT_BAD(o.struct_size = 1, EMO_E_INVALID_ARGUMENT, "struct_size");
#undef EXPECT_BAD
    static const int32_t experts[] = {9, 0, 12}, shared[] = {1, 0, 1}, right[] = {9, 0, 13};
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    emo_mask *mask = NULL;
    EXPECT_OK(emo_mask_create(rt, 3, experts, shared, 1, &mask, &err));
    o.mask = mask;
    EXPECT_STATUS(emo_session_create(wild, &o, &s, &err), EMO_E_MISMATCH, "layer 2");
    emo_mask_release(mask);
    EXPECT_OK(emo_mask_create(rt, 3, right, shared, 0, &mask, &err));
    o.mask = mask;
    EXPECT_OK(emo_session_create(wild, &o, &s, &err)); /* the shared experts alone */
    emo_session_release(s);
    s = NULL;
    emo_mask_release(mask);
    EXPECT_STATUS(emo_session_create(NULL, NULL, &s, &err), EMO_E_INVALID_ARGUMENT, "model");
    EXPECT_STATUS(emo_session_create(wild, NULL, NULL, &err), EMO_E_INVALID_ARGUMENT, "out");
    emo_session_release(NULL);
}

static void bad_calls_are_refused(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_session *s = test_session(wild, NULL);
    emo_state now = EMO_STATE_TEXT;
    const emo_budget steps = {0, -1, 0}, tokens = {0, 0, -1};
    float logits[VOCAB];
    emo_mask *mask = NULL;
    EXPECT_STATUS(emo_session_advance(s, &steps, &now, &err), EMO_E_RANGE, "steps");
    EXPECT_STATUS(emo_session_advance(s, &tokens, &now, &err), EMO_E_RANGE, "tokens");
    EXPECT_STATUS(emo_session_advance(s, NULL, NULL, &err), EMO_E_INVALID_ARGUMENT, "state");
    EXPECT_STATUS(emo_session_append_text(s, NULL, &err), EMO_E_INVALID_ARGUMENT, "text");
    EXPECT_STATUS(emo_session_append_tokens(s, 0, NULL, 1, &err), EMO_E_INVALID_ARGUMENT, "tokens");
    EXPECT_STATUS(emo_session_logits(s, 0, logits, VOCAB - 1, &err), EMO_E_LIMIT, "257");
    EXPECT_STATUS(emo_session_logits(s, -1, logits, VOCAB, &err), EMO_E_RANGE, "sequence -1");
    EXPECT_STATUS(emo_session_pool(s, 7, &mask, &err), EMO_E_RANGE, "sequence 7");
    assert_string_equal(emo_session_text_of(s, 3), "");
    assert_string_equal(emo_session_text(NULL), "");
    assert_int_equal(emo_session_generated(s, 9, NULL, NULL), 0);
    assert_int_equal(emo_session_stop_reason(s, 9), EMO_STOP_NONE);
    emo_session_release(s);
    emo_model *bare = test_model(rt, wild_config, 1);
    s = test_session(bare, NULL);
    EXPECT_STATUS(emo_session_append_text(s, "x", &err), EMO_E_INVALID_ARGUMENT, "no tokenizer");
    test_append(s, 0, 3, 1); /* tokens work */
    EXPECT_OK(emo_session_advance(s, NULL, &now, &err));
    assert_int_equal(now, EMO_STATE_TEXT);
    assert_string_equal(emo_session_text(s), "");
    emo_session_release(s);
    emo_model_release(bare);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stops_are_found_wherever_text_is_cut),
        cmocka_unit_test(text_ends_before_a_stop_string),
        cmocka_unit_test(a_cut_character_is_mended),
        cmocka_unit_test(text_is_whole_characters),
        cmocka_unit_test(prompts_begin_with_eos),
        cmocka_unit_test(sampling_is_a_function_of_the_seed),
        cmocka_unit_test(repetition_is_penalised),
        cmocka_unit_test(bad_options_are_named),
        cmocka_unit_test(bad_calls_are_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
