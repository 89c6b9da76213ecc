/* SPDX-License-Identifier: Apache-2.0 */
/* Masks: algebra, what cannot be switched off, JSON and its damaged forms. */
#include <unistd.h>

#include <emo/mask.h>

#include "support/support.h"

TEST_RUNTIME(1, EMO_ISA_AUTO)

static const int32_t experts[3] = {9, 0, 6};
static const int32_t shared[3] = {1, 0, 2};

static emo_mask *with(int count, const int32_t *ids) {
    emo_error err = EMO_ERROR_INIT;
    emo_mask *mask = NULL;
    EXPECT_OK(emo_mask_create(rt, 3, experts, shared, 0, &mask, &err));
    for (int i = 0; i < count; i++)
        EXPECT_OK(emo_mask_set(mask, 0, ids[i], 1, &err));
    return mask;
}

static void expect_list(const emo_mask *mask, int32_t layer, int count, const int32_t *want) {
    emo_error err = EMO_ERROR_INIT;
    int32_t ids[16];
    int32_t got = 0;
    EXPECT_OK(emo_mask_list(mask, layer, ids, 16, &got, &err));
    assert_int_equal(got, count);
    assert_memory_equal(ids, want, (size_t)count * sizeof *want);
    assert_int_equal(emo_mask_count(mask, layer), count);
}

static void algebra(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_mask *a = with(3, (const int32_t[]){0, 3, 5});
    emo_mask *b = with(2, (const int32_t[]){3, 7});
    emo_mask *out = NULL;
    EXPECT_OK(emo_mask_union(a, b, &out, &err));
    expect_list(out, 0, 5, (const int32_t[]){0, 3, 5, 7, 8});
    expect_list(out, 2, 2, (const int32_t[]){4, 5});
    emo_mask_release(out);
    EXPECT_OK(emo_mask_intersect(a, b, &out, &err));
    expect_list(out, 0, 2, (const int32_t[]){3, 8});
    emo_mask_release(out);
    EXPECT_OK(emo_mask_subtract(a, b, &out, &err));
    expect_list(out, 0, 3, (const int32_t[]){0, 5, 8});
    emo_mask_release(out);
    EXPECT_OK(emo_mask_complement(a, &out, &err));
    expect_list(out, 0, 6, (const int32_t[]){1, 2, 4, 6, 7, 8});
    expect_list(out, 1, 0, experts);
    emo_mask *back = NULL;
    EXPECT_OK(emo_mask_complement(out, &back, &err));
    assert_true(emo_mask_equal(a, back));
    assert_false(emo_mask_equal(a, out));
    emo_mask_release(back);
    emo_mask_release(out);
    EXPECT_OK(emo_mask_clone(a, &out, &err));
    EXPECT_OK(emo_mask_set(out, 0, 0, 0, &err));
    assert_int_equal(emo_mask_get(a, 0, 0), 1);
    assert_int_equal(emo_mask_get(out, 0, 0), 0);
    emo_mask_release(out);
    const int32_t other[3] = {9, 0, 7};
    emo_mask *strange = NULL;
    EXPECT_OK(emo_mask_create(rt, 3, other, shared, 1, &strange, &err));
    EXPECT_STATUS(emo_mask_union(a, strange, &out, &err), EMO_E_MISMATCH, "layer 2");
    assert_null(out);
    emo_mask_release(strange);
    emo_mask_release(a);
    emo_mask_release(b);
}

static void what_stays(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    const int32_t offsets[4] = {0, 2, 2, 3};
    const int32_t always[3] = {1, 4, 0};
    emo_mask_options o = EMO_MASK_OPTIONS_INIT;
    o.layers = 3;
    o.experts = experts;
    o.shared = shared;
    o.always_offsets = offsets;
    o.always = always;
    emo_mask *mask = NULL;
    EXPECT_OK(emo_mask_create_with(rt, &o, &mask, &err));
    expect_list(mask, 0, 3, (const int32_t[]){1, 4, 8});
    expect_list(mask, 2, 3, (const int32_t[]){0, 4, 5});
    EXPECT_STATUS(emo_mask_set(mask, 0, 8, 0, &err), EMO_E_INVALID_ARGUMENT, "stays");
    EXPECT_STATUS(emo_mask_set(mask, 0, 4, 0, &err), EMO_E_INVALID_ARGUMENT, "stays");
    EXPECT_STATUS(emo_mask_set(mask, 0, 9, 1, &err), EMO_E_INVALID_ARGUMENT, "9 experts");
    EXPECT_STATUS(emo_mask_set(mask, 3, 0, 1, &err), EMO_E_INVALID_ARGUMENT, "layers 0 to 2");
    emo_mask *out = NULL;
    EXPECT_OK(emo_mask_complement(mask, &out, &err));
    assert_int_equal(emo_mask_get(out, 0, 1), 1);
    assert_int_equal(emo_mask_is_always(out, 0, 1), 1);
    assert_int_equal(emo_mask_is_always(out, 0, 0), 0);
    emo_mask_release(out);
    int32_t ids[2];
    int32_t count = 0;
    EXPECT_STATUS(emo_mask_list(mask, 0, ids, 2, &count, &err), EMO_E_LIMIT, "keeps 3");
    assert_int_equal(count, 3);
    emo_mask_release(mask);
    const int32_t bad[3] = {0, 0, 9};
    o.always = bad;
    EXPECT_STATUS(emo_mask_create_with(rt, &o, &mask, &err), EMO_E_INVALID_ARGUMENT, "layer 2");
    const int32_t huge[3] = {1048576, 1048577, 1};
    EXPECT_STATUS(emo_mask_create(rt, 3, huge, NULL, 1, &mask, &err), EMO_E_RANGE, "layer 1");
    EXPECT_STATUS(emo_mask_create(rt, 3, experts, experts, 1, NULL, &err), EMO_E_INVALID_ARGUMENT, "out");
}

static void json_round_trip(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    const int32_t offsets[4] = {0, 1, 1, 1};
    const int32_t always[1] = {2};
    emo_mask_options o = EMO_MASK_OPTIONS_INIT;
    o.layers = 3;
    o.experts = experts;
    o.shared = shared;
    o.always_offsets = offsets;
    o.always = always;
    emo_mask *a = NULL;
    EXPECT_OK(emo_mask_create_with(rt, &o, &a, &err));
    EXPECT_OK(emo_mask_set(a, 0, 6, 1, &err));
    size_t size = 0;
    EXPECT_OK(emo_mask_to_json(a, NULL, 0, &size, &err));
    char *text = malloc(size);
    assert_non_null(text);
    EXPECT_STATUS(emo_mask_to_json(a, text, size - 1, &size, &err), EMO_E_LIMIT, "bytes");
    EXPECT_OK(emo_mask_to_json(a, text, size, &size, &err));
    assert_int_equal(strlen(text) + 1, size);
    emo_mask *b = NULL;
    EXPECT_OK(emo_mask_from_json(rt, text, size - 1, &b, &err));
    assert_true(emo_mask_equal(a, b));
    assert_int_equal(emo_mask_is_always(b, 0, 2), 1);
    emo_mask_release(b);
    /* every truncation is refused without harm; only white space follows the last brace */
    size_t last = size - 1;
    while (text[last - 1] != '}')
        last--;
    for (size_t n = 0; n < last; n++) {
        assert_int_equal(emo_mask_from_json(rt, text, n, &b, &err), EMO_E_FORMAT);
        assert_null(b);
    }
    char path[64];
    (void)snprintf(path, sizeof path, "/tmp/emo_test_mask_%ld.json", (long)getpid());
    EXPECT_OK(emo_mask_save(a, path, &err));
    EXPECT_OK(emo_mask_load(rt, path, &b, &err));
    assert_true(emo_mask_equal(a, b));
    (void)unlink(path);
    emo_mask_release(b);
    EXPECT_STATUS(emo_mask_load(rt, path, &b, &err), EMO_E_NOT_FOUND, "");
    emo_mask_release(a);
    free(text);
}

static void json_refused(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
#define LAYERS(text) "{\"format\":\"emo-mask\",\"version\":1,\"layers\":[" text "]}"
    static const struct {
        const char *text;
        emo_status status;
        const char *words;
    } bad[] = {
        {"", EMO_E_FORMAT, ""},
        {"[]", EMO_E_FORMAT, "object"},
        {"{}", EMO_E_FORMAT, "format"},
        {"{\"format\":\"other\",\"version\":1,\"layers\":[]}", EMO_E_FORMAT, "format"},
        {"{\"format\":\"emo-mask\",\"version\":2,\"layers\":[]}", EMO_E_UNSUPPORTED, "version 2"},
        {"{\"format\":\"emo-mask\",\"version\":1}", EMO_E_FORMAT, "layers"},
        {LAYERS(""), EMO_E_FORMAT, "layers"},
        {LAYERS("7"), EMO_E_FORMAT, "layers[0]"},
        {LAYERS("{\"keep\":[0]}"), EMO_E_FORMAT, "experts"},
        {LAYERS("{\"experts\":4}"), EMO_E_FORMAT, "keep"},
        {LAYERS("{\"experts\":4,\"keep\":5}"), EMO_E_FORMAT, "keep"},
        {LAYERS("{\"experts\":-1,\"keep\":[]}"), EMO_E_FORMAT, "experts"},
        {LAYERS("{\"experts\":4,\"shared\":5,\"keep\":[]}"), EMO_E_FORMAT, "shared"},
        {LAYERS("{\"experts\":4,\"keep\":[4]}"), EMO_E_FORMAT, "layers[0]"},
        {LAYERS("{\"experts\":4,\"keep\":[0]},{\"experts\":4,\"keep\":[-1]}"), EMO_E_FORMAT, "layers[1]"},
        {LAYERS("{\"experts\":4,\"keep\":[1.5]}"), EMO_E_FORMAT, "layers[0]"},
        {LAYERS("{\"experts\":4,\"keep\":[99999999999999999999]}"), EMO_E_FORMAT, ""},
        {LAYERS("{\"experts\":4,\"keep\":[0],\"always\":[4]}"), EMO_E_FORMAT, "always"},
        {LAYERS("{\"experts\":4,\"experts\":5,\"keep\":[0]}"), EMO_E_FORMAT, ""},
        {LAYERS("{\"experts\":1048577,\"keep\":[0]}"), EMO_E_FORMAT, "experts"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        emo_mask *mask = NULL;
        EXPECT_STATUS(emo_mask_from_json(rt, bad[i].text, strlen(bad[i].text), &mask, &err), bad[i].status,
                      bad[i].words);
        assert_null(mask);
    }
    /* unknown keys are ignored, shared experts kept though not listed, the sum of all layers is limited */
    const char *good =
        "{\"format\":\"emo-mask\",\"version\":1,\"note\":{\"a\":[1]},\"layers\":[{\"experts\":4,\"shared\":1,"
        "\"keep\":[1],\"score\":0.5},{\"experts\":0}]}";
    emo_mask *mask = NULL;
    EXPECT_OK(emo_mask_from_json(rt, good, strlen(good), &mask, &err));
    assert_int_equal(emo_mask_layers(mask), 2);
    expect_list(mask, 0, 2, (const int32_t[]){1, 3});
    emo_mask_release(mask);
    char many[4096] = "{\"format\":\"emo-mask\",\"version\":1,\"layers\":[{\"experts\":1048576,\"keep\":[]}";
    for (int i = 0; i < 16; i++)
        strcat(many, ",{\"experts\":1048576,\"keep\":[]}");
    strcat(many, "]}");
    EXPECT_STATUS(emo_mask_from_json(rt, many, strlen(many), &mask, &err), EMO_E_LIMIT, "experts over all layers");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(algebra),
        cmocka_unit_test(what_stays),
        cmocka_unit_test(json_round_trip),
        cmocka_unit_test(json_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
