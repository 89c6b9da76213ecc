/* SPDX-License-Identifier: Apache-2.0 */
/* Training: known merges, determinism, limits, cancelling; and allocations that fail one by one. */
#include "support/support.h"
#include "unit/text/text_support.h"

static const char *const texts[] = {"low low low low low lower lower newest newest newest newest newest newest",
                                    "widest widest widest aaaaaaa \xE4\xB8\xAD\xE6\x96\x87 12345", "", "\xFF\x80 it's"};

static emo_tokenizer *train(emo_runtime *rt, const char *const *items, size_t count,
                            const emo_tokenizer_train_options *options) {
    emo_error err = EMO_ERROR_INIT;
    text_list list = {items, count, 0};
    emo_text_reader reader = {&list, text_next};
    emo_tokenizer *tok = NULL;
    EXPECT_OK(emo_tokenizer_train(rt, options, &reader, &tok, &err));
    return tok;
}

static void expect_token(const emo_tokenizer *tok, int32_t id, const char *want) {
    emo_error err = EMO_ERROR_INIT;
    const char *bytes;
    size_t length;
    EXPECT_OK(emo_tokenizer_id_to_token(tok, id, &bytes, &length, &err));
    assert_int_equal(length, strlen(want));
    assert_memory_equal(bytes, want, length);
}

static void merges_come_in_the_order_of_frequency(void **state) {
    (void)state;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_tokenizer_train_options options = EMO_TOKENIZER_TRAIN_OPTIONS_INIT;
    options.vocab_size = 256 + 4 + 1;
    static const char *const items[] = {"abab abab abab", " cd cd"};
    /* words: "abab" 1, " abab" 2, " cd" 2. ab: 6; ab ab: 3; then " " abab, " " c and c d stand at 2 each, and of the
     * three " " has the largest id (c 66, ' ' 220): c d is first, then " " with the older token */
    emo_tokenizer *tok = train(rt, items, 2, &options);
    assert_int_equal(emo_tokenizer_vocab_size(tok), 261);
    expect_token(tok, 0, "!");
    expect_token(tok, 255, "\xAD");
    expect_token(tok, 256, "ab");
    expect_token(tok, 257, "abab");
    expect_token(tok, 258, "cd");
    expect_token(tok, 259, " abab");
    expect_token(tok, 260, EMO_TOKENIZER_EOS);
    assert_int_equal(emo_tokenizer_eos(tok), 260);
    emo_tokenizer_release(tok);
    options.min_frequency = 3;
    tok = train(rt, items, 2, &options);
    assert_int_equal(emo_tokenizer_vocab_size(tok), 259); /* fewer than asked */
    emo_tokenizer_release(tok);
    options.vocab_size = 257;
    tok = train(rt, items, 2, &options);
    assert_int_equal(emo_tokenizer_vocab_size(tok), 257);
    emo_tokenizer_release(tok);
    emo_runtime_release(rt);
}

static void the_same_texts_give_the_same_tokenizer(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_tokenizer_train_options options = EMO_TOKENIZER_TRAIN_OPTIONS_INIT;
    options.vocab_size = 290;
    options.eos = "<eos>";
    emo_tokenizer *a = train(rt, texts, 4, &options);
    static const char *reversed[4];
    for (size_t i = 0; i < 4; i++)
        reversed[i] = texts[3 - i];
    emo_tokenizer *b = train(rt, reversed, 4, &options);
    assert_true(emo_tokenizer_hash(a) == emo_tokenizer_hash(b));
    expect_token(a, emo_tokenizer_eos(a), "<eos>");
    /* what was learned encodes, decodes and survives saving */
    size_t size = 0;
    EXPECT_OK(emo_tokenizer_to_json(a, NULL, 0, &size, &err));
    char *json = malloc(size);
    assert_non_null(json);
    EXPECT_OK(emo_tokenizer_to_json(a, json, size, &size, &err));
    emo_tokenizer *copy = NULL;
    EXPECT_OK(emo_tokenizer_from_json(rt, json, size, &copy, &err));
    assert_true(emo_tokenizer_hash(a) == emo_tokenizer_hash(copy));
    assert_int_equal(emo_tokenizer_eos(copy), emo_tokenizer_eos(a));
    int32_t ids[128];
    char back[128];
    size_t count;
    EXPECT_OK(emo_tokenizer_encode(copy, texts[0], strlen(texts[0]), ids, 128, &count, &err));
    assert_true(count < strlen(texts[0]) / 3);
    EXPECT_OK(emo_tokenizer_decode(a, ids, count, back, 128, &size, &err));
    assert_int_equal(size, strlen(texts[0]));
    assert_memory_equal(back, texts[0], size);
    free(json);
    emo_tokenizer_release(a);
    emo_tokenizer_release(b);
    emo_tokenizer_release(copy);
    emo_runtime_release(rt);
}

typedef struct cancel {
    const char *phase;
    int seen;
} cancel;

static int32_t cancel_in(void *ctx, const emo_progress_info *info) {
    cancel *c = ctx;
    if (strcmp(info->phase, c->phase) != 0)
        return 0;
    c->seen++;
    return 1;
}

static int32_t broken(void *ctx, const char **text, size_t *length) {
    (void)ctx;
    (void)text;
    (void)length;
    return EMO_E_IO;
}

static void what_stops_a_training(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_tokenizer *tok = NULL;
    static const char *const phases[] = {"count words", "merge"};
    for (size_t i = 0; i < 2; i++) {
        cancel c = {phases[i], 0};
        text_list list = {texts, 4, 0};
        emo_text_reader reader = {&list, text_next};
        emo_tokenizer_train_options options = EMO_TOKENIZER_TRAIN_OPTIONS_INIT;
        options.progress = (emo_progress){&c, cancel_in};
        EXPECT_STATUS(emo_tokenizer_train(rt, &options, &reader, &tok, &err), EMO_E_CANCELLED, phases[i]);
        assert_int_equal(c.seen, 1);
        assert_null(tok);
    }
    emo_text_reader bad = {NULL, broken};
    EXPECT_STATUS(emo_tokenizer_train(rt, NULL, &bad, &tok, &err), EMO_E_IO, "texts");
    text_list list = {texts, 4, 0};
    emo_text_reader reader = {&list, text_next};
    emo_tokenizer_train_options options = EMO_TOKENIZER_TRAIN_OPTIONS_INIT;
    options.max_bytes = 1;
    EXPECT_OK(emo_tokenizer_train(rt, &options, &reader, &tok, &err));
    assert_int_equal(list.at, 1); /* no text after the one that reached it */
    emo_tokenizer_release(tok);
    options.vocab_size = 256;
    EXPECT_STATUS(emo_tokenizer_train(rt, &options, &reader, &tok, &err), EMO_E_RANGE, "vocab_size");
    options = (emo_tokenizer_train_options)EMO_TOKENIZER_TRAIN_OPTIONS_INIT;
    options.min_frequency = 0;
    EXPECT_STATUS(emo_tokenizer_train(rt, &options, &reader, &tok, &err), EMO_E_RANGE, "min_frequency");
    options = (emo_tokenizer_train_options)EMO_TOKENIZER_TRAIN_OPTIONS_INIT;
    options.pattern = "(";
    EXPECT_STATUS(emo_tokenizer_train(rt, &options, &reader, &tok, &err), EMO_E_FORMAT, "compile");
    options.pattern = NULL;
    options.eos = "";
    EXPECT_STATUS(emo_tokenizer_train(rt, &options, &reader, &tok, &err), EMO_E_RANGE, "eos");
    options.eos = "low";
    list.at = 0;
    EXPECT_STATUS(emo_tokenizer_train(rt, &options, &reader, &tok, &err), EMO_E_RANGE, "another name");
    emo_runtime_release(rt);
}

static void one_long_word_is_not_quadratic(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    enum { N = 1 << 20 }; /* with work quadratic in it this test would take hours */
    char *text = malloc(N + 1);
    int32_t *ids = malloc(N * sizeof *ids);
    assert_true(text != NULL && ids != NULL);
    uint64_t seed = 5;
    for (size_t i = 0; i < N; i++)
        text[i] = (char)('a' + (i < N / 2 ? text_random(&seed) % 4 : 0));
    text[N] = '\0';
    const char *items[] = {text};
    emo_tokenizer_train_options options = EMO_TOKENIZER_TRAIN_OPTIONS_INIT;
    options.vocab_size = 500;
    emo_tokenizer *tok = train(rt, items, 1, &options);
    assert_int_equal(emo_tokenizer_vocab_size(tok), 500);
    size_t count;
    EXPECT_OK(emo_tokenizer_encode(tok, text, N, ids, N, &count, &err));
    assert_true(count < N / 3);
    free(text);
    free(ids);
    emo_tokenizer_release(tok);
    emo_runtime_release(rt);
}

/* An allocator that fails the n-th request and counts what is live. */
typedef struct failing {
    size_t left; /* requests until the failing one; SIZE_MAX: never */
    size_t live;
    bool failed;
} failing;

static void *failing_alloc(void *ctx, size_t size, size_t alignment) {
    failing *f = ctx;
    if (f->left != SIZE_MAX && f->left-- == 0) {
        f->left = SIZE_MAX;
        f->failed = true;
        return NULL;
    }
    void *p = NULL;
    if (posix_memalign(&p, alignment < sizeof(void *) ? sizeof(void *) : alignment, size) != 0)
        return NULL;
    f->live++;
    return p;
}

static void failing_free(void *ctx, void *ptr, size_t size, size_t alignment) {
    failing *f = ctx;
    (void)size;
    (void)alignment;
    f->live--;
    free(ptr);
}

/* Everything once; the first failure ends it. */
static emo_status whole_round(emo_runtime *rt, emo_error *err) {
    emo_tokenizer *tok = NULL, *copy = NULL;
    emo_decoder *decoder = NULL;
    char *json = NULL;
    text_list list = {texts, 4, 0};
    emo_text_reader reader = {&list, text_next};
    emo_tokenizer_train_options options = EMO_TOKENIZER_TRAIN_OPTIONS_INIT;
    options.vocab_size = 280;
    options.pattern = "\\w+|\\W"; /* through PCRE2 */
    emo_status status = emo_tokenizer_train(rt, &options, &reader, &tok, err);
    size_t size = 0, count = 0;
    if (status == EMO_OK)
        status = emo_tokenizer_to_json(tok, NULL, 0, &size, err);
    if (status == EMO_OK) {
        json = malloc(size);
        assert_non_null(json);
        status = emo_tokenizer_to_json(tok, json, size, &size, err);
    }
    if (status == EMO_OK)
        status = emo_tokenizer_from_json(rt, json, size, &copy, err);
    int32_t ids[256];
    char text[128];
    for (size_t i = 0; i < sizeof text; i++) /* long enough for the heap, invalid at its end */
        text[i] = i + 1 < sizeof text ? 'a' : '\xFF';
    if (status == EMO_OK)
        status = emo_tokenizer_encode(copy, text, sizeof text, ids, 256, &count, err);
    if (status == EMO_OK)
        status = emo_decoder_create(copy, NULL, &decoder, err);
    const char *piece;
    size_t length;
    for (size_t i = 0; i < count && status == EMO_OK; i++)
        status = emo_decoder_push(decoder, ids[i], &piece, &length, err);
    emo_decoder_release(decoder);
    emo_tokenizer_release(copy);
    emo_tokenizer_release(tok);
    free(json);
    return status;
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    failing f = {SIZE_MAX, 0, false};
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    options.threads = 1;
    options.allocator = (emo_allocator){&f, failing_alloc, failing_free};
    emo_runtime *rt = NULL;
    EXPECT_OK(emo_runtime_create(&options, &rt, &err));
    size_t before = f.live, n = 0;
    for (;; n++) {
        f.left = n;
        f.failed = false;
        emo_status status = whole_round(rt, &err);
        f.left = SIZE_MAX;
        assert_int_equal(f.live, before);
        if (!f.failed) {
            assert_int_equal(status, EMO_OK);
            break;
        }
        if (status != EMO_E_OUT_OF_MEMORY)
            fail_msg("allocation %zu: %s: %s", n, emo_status_name(status), err.message);
    }
    assert_true(n > 50); /* the loop did reach into the work */
    emo_runtime_release(rt);
    assert_int_equal(f.live, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_come_in_the_order_of_frequency),
        cmocka_unit_test(the_same_texts_give_the_same_tokenizer),
        cmocka_unit_test(what_stops_a_training),
        cmocka_unit_test(one_long_word_is_not_quadratic),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
