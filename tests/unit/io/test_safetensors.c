/* SPDX-License-Identifier: Apache-2.0 */
/* Writing and reading tensors: one file, shards, sources of every kind. */
#include <unistd.h>

#include "base/runtime.h"
#include "io/files.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "support/folder.h"
#include "tensor/dtype.h"

static const int64_t shape_a[2] = {3, 5};
static const int64_t shape_b[1] = {4};
static const int64_t shape_empty[2] = {0, 7};

static void write_model(emo_runtime *rt, const char *path, uint64_t shard_bytes, emo_error *err_out) {
    emo_error err = EMO_ERROR_INIT;
    emo__st_writer *w = NULL;
    float a[15];
    uint16_t b[4];
    test_fill(a, 15, 3, 2.0f);
    for (int i = 0; i < 4; i++)
        b[i] = emo__f32_to_bf16((float)i + 0.5f);
    EXPECT_OK(emo__st_writer_create(rt, path, shard_bytes, &w, &err));
    EXPECT_OK(emo__st_writer_add(w, "layer.a", EMO_DTYPE_F32, shape_a, 2, &err));
    EXPECT_OK(emo__st_writer_add(w, "empty", EMO_DTYPE_F32, shape_empty, 2, &err));
    EXPECT_OK(emo__st_writer_add(w, "b \"quoted\"", EMO_DTYPE_BF16, shape_b, 1, &err));
    EXPECT_STATUS(emo__st_writer_add(w, "layer.a", EMO_DTYPE_F32, shape_a, 2, &err), EMO_E_EXISTS, "layer.a");
    EXPECT_OK(emo__st_writer_metadata(w, "step", "12", &err));
    EXPECT_OK(emo__st_writer_begin(w, &err));
    EXPECT_OK(emo__st_writer_write(w, "layer.a", a, 24, &err));
    EXPECT_STATUS(emo__st_writer_write(w, "b \"quoted\"", b, 8, &err), EMO_E_INVALID_ARGUMENT, "is next");
    EXPECT_STATUS(emo__st_writer_finish(w, &err), EMO_E_INVALID_ARGUMENT, "24 of 60");
    EXPECT_STATUS(emo__st_writer_write(w, "layer.a", a, 60, &err), EMO_E_RANGE, "more data");
    EXPECT_OK(emo__st_writer_write(w, "layer.a", (char *)a + 24, 36, &err));
    EXPECT_OK(emo__st_writer_write(w, "b \"quoted\"", b, 8, &err));
    EXPECT_OK(emo__st_writer_finish(w, &err));
    emo__st_writer_destroy(w);
    *err_out = err;
}

static void check_set(emo__st_set *set) {
    emo_error err = EMO_ERROR_INIT;
    const emo__st *st = NULL;
    const emo__st_entry *e = NULL;
    float want[15];
    float got[15];
    test_fill(want, 15, 3, 2.0f);
    assert_int_equal(emo__st_set_count(set), 3);
    assert_true(emo__st_set_has(set, "empty"));
    EXPECT_OK(emo__st_set_find(set, "layer.a", &st, &e, &err));
    EXPECT_OK(emo__st_check_shape(e, shape_a, 2, &err));
    EXPECT_STATUS(emo__st_check_shape(e, shape_b, 1, &err), EMO_E_MISMATCH, "[3, 5]; [4]");
    EXPECT_OK(emo__st_read_as(st, e, 0, 15, EMO_DTYPE_F32, got, &err));
    assert_memory_equal(got, want, sizeof got);
    EXPECT_OK(emo__st_read_as(st, e, 4, 2, EMO_DTYPE_F32, got, &err));
    assert_memory_equal(got, want + 4, 8);
    EXPECT_STATUS(emo__st_read_as(st, e, 14, 2, EMO_DTYPE_F32, got, &err), EMO_E_RANGE, "leave");
    if (emo__st_data(st, e) != NULL) {
        assert_int_equal((uintptr_t)emo__st_data(st, e) % 64, 0);
        assert_memory_equal(emo__st_data(st, e), want, sizeof want);
    }
    EXPECT_OK(emo__st_set_find(set, "b \"quoted\"", &st, &e, &err));
    EXPECT_OK(emo__st_read_as(st, e, 0, 4, EMO_DTYPE_F32, got, &err));
    assert_true(got[3] == 3.5f);
    EXPECT_OK(emo__st_set_find(set, "empty", &st, &e, &err));
    assert_int_equal(e->count, 0);
    assert_string_equal(emo__st_metadata(st, "format"), "pt");
    assert_string_equal(emo__st_metadata(st, "step"), "12");
    EXPECT_STATUS(emo__st_set_find(set, "absent", &st, &e, &err), EMO_E_NOT_FOUND, "absent");
}

static void one_file_and_shards(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_SCALAR);
    static const uint64_t sizes[] = {1 << 20, 62};
    for (int round = 0; round < 3; round++) { /* the third time over the other layout */
        emo__st_set *set = NULL;
        const char *folder = test_path("model");
        write_model(rt, folder, sizes[round % 2], &err);
        assert_int_equal(access(test_path("model/model.safetensors"), F_OK) == 0, round % 2 == 0);
        assert_int_equal(access(test_path("model/model.safetensors.index.json"), F_OK) == 0, round % 2 == 1);
        EXPECT_OK(emo__st_set_open(rt, folder, &set, &err));
        check_set(set);
        emo__st_set_close(set);
    }
    emo_runtime_release(rt);
}

static void the_index_may_lie(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_SCALAR);
    static const struct {
        const char *text;
        const char *words;
        emo_status open;
        emo_status find;
    } cases[] = {
        {"{\"weight_map\": {\"x\": \"../model/model.safetensors\"}}", "plain name", EMO_E_FORMAT, EMO_OK},
        {"{\"weight_map\": {\"x\": 5}}", "plain name", EMO_E_FORMAT, EMO_OK},
        {"{\"weight_map\": []}", "weight_map", EMO_E_FORMAT, EMO_OK},
        {"{\"weight_map\": {\"x\": \"gone.safetensors\"}}", "gone.safetensors", EMO_OK, EMO_E_NOT_FOUND},
        {"{\"weight_map\": {\"x\": \"s.safetensors\"}}", "does not", EMO_OK, EMO_E_FORMAT},
    };
    (void)test_write("lie/s.safetensors", "\x02\0\0\0\0\0\0\0{}", 10);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        emo__st_set *set = NULL;
        const emo__st *st = NULL;
        const emo__st_entry *e = NULL;
        (void)test_write("lie/model.safetensors.index.json", cases[i].text, strlen(cases[i].text));
        EXPECT_STATUS(emo__st_set_open(rt, test_path("lie"), &set, &err), cases[i].open,
                      cases[i].open != EMO_OK ? cases[i].words : "");
        if (set != NULL)
            EXPECT_STATUS(emo__st_set_find(set, "x", &st, &e, &err), cases[i].find, cases[i].words);
        emo__st_set_close(set);
    }
    emo__st_set *set = NULL;
    EXPECT_STATUS(emo__st_set_open(rt, test_path("nowhere"), &set, &err), EMO_E_NOT_FOUND, "model.safetensors");
    emo_runtime_release(rt);
}

typedef struct host {
    unsigned char *data;
    size_t size;
    int reads;
    int fail_at; /* the read that fails, from 0; -1: none */
    int released;
} host;

static emo_status host_size(void *ctx, uint64_t *size) {
    *size = ((host *)ctx)->size;
    return EMO_OK;
}
static emo_status host_read(void *ctx, uint64_t offset, void *data, size_t size) {
    host *h = ctx;
    if (h->reads++ == h->fail_at)
        return EMO_E_IO;
    assert_true(offset <= h->size && size <= h->size - offset);
    memcpy(data, h->data + offset, size);
    return EMO_OK;
}
static void host_release(void *ctx) { ((host *)ctx)->released++; }

static void every_failing_read_of_a_host_source_is_reported(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_SCALAR);
    host h = {0};
    write_model(rt, test_path("single.safetensors"), 0, &err);
    h.data = test_read(test_path("single.safetensors"), &h.size);
    int total = 0;
    for (int fail_at = -1; fail_at < total; fail_at++) {
        emo_source_vtable vt = EMO_SOURCE_VTABLE_INIT;
        vt.size = host_size;
        vt.read_at = host_read;
        vt.release = host_release;
        h.reads = 0;
        h.fail_at = fail_at;
        h.released = 0;
        emo_source *source = NULL;
        emo__st_set *set = NULL;
        EXPECT_OK(emo_source_create(rt, &vt, &h, &source, &err));
        assert_null(emo_source_map(source));
        emo_status status = emo__st_set_from_source(rt, source, &set, &err);
        if (fail_at < 0) {
            assert_int_equal(status, EMO_OK);
            check_set(set);
            total = h.reads;
            assert_true(total >= 4);
        } else if (status == EMO_OK) {
            const emo__st *st = NULL;
            const emo__st_entry *e = NULL;
            float x[15];
            bool failed = false;
            for (int again = 0; again < total && !failed; again++) {
                EXPECT_OK(emo__st_set_find(set, "layer.a", &st, &e, &err));
                failed = emo__st_read_as(st, e, 0, 15, EMO_DTYPE_F32, x, &err) == EMO_E_IO;
            }
            assert_true(failed);
        } else {
            assert_int_equal(status, EMO_E_IO);
        }
        emo_source_release(source);
        assert_int_equal(h.released, set == NULL);
        emo__st_set_close(set);
        assert_int_equal(h.released, 1);
    }
    free(h.data);
    emo_runtime_release(rt);
}

static void paths_and_memory(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_SCALAR);
    emo_source *source = NULL;
    char byte = 0;
    EXPECT_STATUS(emo_source_open_path(rt, test_path("gone"), &source, &err), EMO_E_NOT_FOUND, "gone");
    EXPECT_STATUS(emo_source_open_path(rt, test_path("."), &source, &err), EMO_E_IO, "regular");
    EXPECT_STATUS(emo_source_open_path(rt, NULL, &source, &err), EMO_E_INVALID_ARGUMENT, "path");
    EXPECT_STATUS(emo_source_create(rt, NULL, NULL, &source, &err), EMO_E_INVALID_ARGUMENT, "vtable");
    emo_source_vtable vt = EMO_SOURCE_VTABLE_INIT;
    EXPECT_STATUS(emo_source_create(rt, &vt, NULL, &source, &err), EMO_E_INVALID_ARGUMENT, "read_at");
    EXPECT_OK(emo_source_from_memory(rt, NULL, 0, &source, &err));
    assert_int_equal(emo_source_size(source), 0);
    EXPECT_STATUS(emo_source_read_at(source, 0, &byte, 1, &err), EMO_E_RANGE, "leave");
    emo_source_release(source);
    const char *path = test_write("shrinks", "0123456789", 10);
    EXPECT_OK(emo_source_open_path(rt, path, &source, &err));
    EXPECT_STATUS(emo_source_read_at(source, UINT64_MAX, &byte, 1, &err), EMO_E_RANGE, "leave");
    EXPECT_OK(emo_source_read_at(source, 9, &byte, 1, &err));
    assert_int_equal(byte, '9');
    (void)test_write("shrinks", "0123", 4);
    EXPECT_STATUS(emo_source_read_at(source, 9, &byte, 1, &err), EMO_E_IO, "10 bytes when it was opened");
    assert_null(emo_source_map(source));
    emo_source_release(source);
    emo_source_release(NULL);
    emo_runtime_release(rt);
}

TEST_FOLDER

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_file_and_shards),
        cmocka_unit_test(the_index_may_lie),
        cmocka_unit_test(every_failing_read_of_a_host_source_is_reported),
        cmocka_unit_test(paths_and_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
