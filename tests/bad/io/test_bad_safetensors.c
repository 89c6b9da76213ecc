/* SPDX-License-Identifier: Apache-2.0 */
/* Hostile safetensors headers: each must give its status, never a crash. */
#include "base/runtime.h"
#include "io/safetensors.h"
#include "support/support.h"

typedef struct bad_case {
    const char *header;
    size_t data_bytes;
    const char *words; /* NULL: it must open */
} bad_case;

static const bad_case cases[] = {
    {"{}", 0, NULL},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, NULL},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}   ", 4, NULL},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 12, NULL}, /* gaps are harmless */
    {"{\"a\":{\"dtype\":\"FANCY4\",\"shape\":[9],\"data_offsets\":[0,5]}}", 5, NULL},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7, "beyond the end"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,9]}}", 9, "number of bytes"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, "number of bytes"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, "backwards"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8, "backwards or are negative"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "not negative"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8, "integers"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", 8, "must be a list"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "8 dimensions"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0, "more elements"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0, "number of bytes"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,9223372036854775807]}}", 8, "beyond the end"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,99999999999999999999]}}", 8, "JSON"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, "two integers"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "two integers"},
    {"{\"a\":{\"dtype\":7,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype"},
    {"{\"a\":{\"dtype\":\"A_TYPE_NAME_THAT_IS_LONG\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype"},
    {"{\"a\":[]}", 0, "must be an object"},
    {"[]", 0, "JSON object"},
    {"{\"__metadata__\":3}", 0, "__metadata__"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[3,7]}}",
     8, "overlap"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}}",
     8, "overlap"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
     "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
     8, "duplicate"},
    {"{\"a\"", 0, "JSON"},
    {"", 0, "JSON"},
};

static size_t build(unsigned char *file, const char *header, size_t data_bytes) {
    size_t n = strlen(header);
    memset(file, 0, 8 + n + data_bytes);
    for (int i = 0; i < 8; i++)
        file[i] = (unsigned char)((uint64_t)n >> (8 * i));
    memcpy(file + 8, header, n);
    return 8 + n + data_bytes;
}

static emo_status open_bytes(emo_runtime *rt, const unsigned char *file, size_t size, emo__st **st, emo_error *err) {
    emo_source *source = NULL;
    emo_status status = emo_source_from_memory(rt, file, size, &source, err);
    if (status == EMO_OK)
        status = emo__st_open(rt, source, st, err);
    emo_source_release(source);
    return status;
}

static void each_case_has_its_status(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_SCALAR);
    unsigned char file[1024];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        emo__st *st = NULL;
        size_t size = build(file, cases[i].header, cases[i].data_bytes);
        emo_status status = open_bytes(rt, file, size, &st, &err);
        if (cases[i].words == NULL ? status != EMO_OK
                                   : status != EMO_E_FORMAT || strstr(err.message, cases[i].words) == NULL)
            fail_msg("%s: %s '%s', want '%s'", cases[i].header, emo_status_name(status), err.message, cases[i].words);
        emo__st_close(st);
    }
    emo_runtime_release(rt);
}

static void header_lengths(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_SCALAR);
    static const uint64_t lengths[] = {3, 100000001, UINT64_MAX, UINT64_MAX - 7, (uint64_t)1 << 63};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        unsigned char file[10] = {0, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
        emo__st *st = NULL;
        for (int b = 0; b < 8; b++)
            file[b] = (unsigned char)(lengths[i] >> (8 * b));
        EXPECT_STATUS(open_bytes(rt, file, sizeof file, &st, &err), EMO_E_FORMAT, "header claims");
    }
    for (size_t size = 0; size < 8; size++) {
        unsigned char file[8] = {0};
        emo__st *st = NULL;
        EXPECT_STATUS(open_bytes(rt, file, size, &st, &err), EMO_E_FORMAT, "too few");
    }
    emo_runtime_release(rt);
}

static void deep_headers(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_SCALAR);
    static unsigned char file[100008];
    static char header[100001];
    memset(header, '[', 100000);
    emo__st *st = NULL;
    EXPECT_STATUS(open_bytes(rt, file, build(file, header, 0), &st, &err), EMO_E_FORMAT, "deeper");
    emo_runtime_release(rt);
}

/* Every byte of a sound file set to every one of a few values: any status, no crash, and whatever opens can be read. */
static void patched_bytes(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_SCALAR);
    static const unsigned char values[] = {0, '"', '0', '9', '-', '{', '}', '[', ',', 0x80, 0xff};
    unsigned char file[512];
    unsigned char data[512];
    size_t size = build(file,
                        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,8]},"
                        "\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[8,16]}}",
                        16);
    size_t opened = 0;
    for (size_t at = 0; at < size; at++) {
        for (size_t v = 0; v < sizeof values; v++) {
            unsigned char old = file[at];
            emo__st *st = NULL;
            file[at] = values[v];
            if (open_bytes(rt, file, size, &st, &err) == EMO_OK) {
                opened++;
                for (size_t i = 0; i < emo__st_count(st); i++) {
                    const emo__st_entry *e = emo__st_at(st, i);
                    assert_true(e->offset + e->bytes <= size);
                    assert_true(e->bytes <= sizeof data);
                    EXPECT_OK(emo__st_read(st, e, 0, data, (size_t)e->bytes, &err));
                }
            } else {
                assert_int_equal(err.code, EMO_E_FORMAT);
            }
            emo__st_close(st);
            file[at] = old;
        }
    }
    assert_true(opened > 16 * sizeof values - 1); /* at least all changes to the data */
    emo_runtime_release(rt);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_case_has_its_status),
        cmocka_unit_test(header_lengths),
        cmocka_unit_test(deep_headers),
        cmocka_unit_test(patched_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
