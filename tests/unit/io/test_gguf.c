/* SPDX-License-Identifier: Apache-2.0 */
/* GGUF files: round trips through every kind of source, and files that lie. */
#include <unistd.h>

#include "base/runtime.h"
#include "io/files.h"
#include "io/gguf.h"
#include "support/folder.h"

TEST_RUNTIME_AND_FOLDER(1, EMO_ISA_SCALAR)

static const char *write_file(void) {
    static const int64_t dims_a[] = {5, 3}, dims_b[] = {32, 2, 2}, dims_c[] = {7};
    emo_error err = EMO_ERROR_INIT;
    emo__gguf_writer *w = NULL;
    const char *path = test_path("a.gguf");
    float a[15], c[7];
    unsigned char b[4 * 34];
    test_fill(a, 15, 1, 1.0f);
    test_fill(c, 7, 2, 1.0f);
    for (size_t i = 0; i < sizeof b; i++)
        b[i] = (unsigned char)i;
    (void)remove(path);
    EXPECT_OK(emo__gguf_writer_create(rt, path, &w, &err));
    EXPECT_OK(emo__gguf_put_string(w, "general.architecture", "deepseek", 8, &err));
    EXPECT_OK(emo__gguf_put_u32(w, "n", 4000000000u, &err));
    EXPECT_OK(emo__gguf_put_f32(w, "f", 0.5f, &err));
    EXPECT_OK(emo__gguf_put_bool(w, "yes", true, &err));
    EXPECT_OK(emo__gguf_put_array(w, "texts", EMO__GGUF_STRING, 2, &err));
    EXPECT_STATUS(emo__gguf_put_u32(w, "between", 1, &err), EMO_E_INTERNAL, "between");
    EXPECT_STATUS(emo__gguf_put_item_i32(w, 1, &err), EMO_E_INTERNAL, "item");
    EXPECT_OK(emo__gguf_put_item_string(w, "one", 3, &err));
    EXPECT_OK(emo__gguf_put_item_string(w, "", 0, &err));
    EXPECT_STATUS(emo__gguf_put_item_string(w, "", 0, &err), EMO_E_INTERNAL, "item");
    EXPECT_OK(emo__gguf_put_array(w, "numbers", EMO__GGUF_I32, 2, &err));
    EXPECT_OK(emo__gguf_put_item_i32(w, -7, &err));
    EXPECT_OK(emo__gguf_put_item_i32(w, 8, &err));
    EXPECT_OK(emo__gguf_writer_add(w, "a", EMO_DTYPE_F32, dims_a, 2, &err));
    EXPECT_STATUS(emo__gguf_writer_add(w, "a", EMO_DTYPE_F32, dims_a, 2, &err), EMO_E_EXISTS, "twice");
    EXPECT_STATUS(emo__gguf_writer_add(w, "x", EMO_DTYPE_Q4_0, dims_a, 2, &err), EMO_E_UNSUPPORTED, "rows of 5");
    EXPECT_OK(emo__gguf_writer_add(w, "b", EMO_DTYPE_Q8_0, dims_b, 3, &err));
    EXPECT_OK(emo__gguf_writer_add(w, "c", EMO_DTYPE_F32, dims_c, 1, &err));
    EXPECT_OK(emo__gguf_writer_begin(w, &err));
    EXPECT_STATUS(emo__gguf_writer_write(w, "b", b, 8, &err), EMO_E_INTERNAL, "\"a\" is next");
    EXPECT_OK(emo__gguf_writer_write(w, "a", a, 24, &err));
    EXPECT_STATUS(emo__gguf_writer_write(w, "a", a, 60, &err), EMO_E_INTERNAL, "more data");
    EXPECT_OK(emo__gguf_writer_write(w, "a", (char *)a + 24, 36, &err));
    EXPECT_OK(emo__gguf_writer_write(w, "b", b, sizeof b, &err));
    EXPECT_STATUS(emo__gguf_writer_finish(w, &err), EMO_E_INTERNAL, "\"c\" is next");
    assert_false(access(path, F_OK) == 0); /* nothing under its name before it is complete */
    EXPECT_OK(emo__gguf_writer_write(w, "c", c, sizeof c, &err));
    EXPECT_OK(emo__gguf_writer_finish(w, &err));
    uint64_t size = 0;
    int64_t mtime = 0;
    EXPECT_OK(emo__file_stat(path, &size, &mtime, &err));
    assert_int_equal(size, emo__gguf_writer_size(w));
    emo__gguf_writer_destroy(w);
    return path;
}

static void check_file(emo_source *source) {
    emo_error err = EMO_ERROR_INIT;
    emo__gguf *g = NULL;
    int64_t n;
    double f;
    bool yes;
    const char *text;
    size_t length;
    emo__gguf_array array;
    assert_true(emo__gguf_detect(source));
    EXPECT_OK(emo__gguf_open(rt, source, &g, &err));
    EXPECT_OK(emo__gguf_string(g, "general.architecture", &text, &length, &err));
    assert_true(length == 8 && memcmp(text, "deepseek", 8) == 0);
    EXPECT_OK(emo__gguf_string(g, "absent", &text, &length, &err));
    assert_null(text);
    EXPECT_STATUS(emo__gguf_string(g, "n", &text, &length, &err), EMO_E_FORMAT, "no text");
    EXPECT_OK(emo__gguf_i64(g, "n", 0, 0, INT64_MAX, &n, &err));
    assert_int_equal(n, 4000000000);
    EXPECT_STATUS(emo__gguf_i64(g, "n", 0, 0, INT32_MAX, &n, &err), EMO_E_RANGE, "4000000000");
    EXPECT_STATUS(emo__gguf_i64(g, "f", 0, 0, 1, &n, &err), EMO_E_FORMAT, "integer");
    EXPECT_OK(emo__gguf_i64(g, "absent", 11, 0, 1, &n, &err));
    assert_int_equal(n, 11);
    EXPECT_OK(emo__gguf_f64(g, "f", 0, 0, 1, &f, &err));
    assert_true(f == 0.5);
    EXPECT_STATUS(emo__gguf_f64(g, "f", 0, 1, 2, &f, &err), EMO_E_RANGE, "0.5");
    EXPECT_STATUS(emo__gguf_f64(g, "texts", 0, 1, 2, &f, &err), EMO_E_FORMAT, "number");
    EXPECT_OK(emo__gguf_bool(g, "yes", false, &yes, &err));
    assert_true(yes);
    EXPECT_STATUS(emo__gguf_bool(g, "n", false, &yes, &err), EMO_E_FORMAT, "truth");
    EXPECT_OK(emo__gguf_array_open(g, "texts", &array, &err));
    assert_int_equal(array.count, 2);
    EXPECT_STATUS(emo__gguf_array_i64(&array, &n, &err), EMO_E_FORMAT, "integers");
    EXPECT_OK(emo__gguf_array_string(&array, &text, &length, &err));
    assert_true(length == 3 && memcmp(text, "one", 3) == 0);
    EXPECT_OK(emo__gguf_array_string(&array, &text, &length, &err));
    assert_int_equal(length, 0);
    EXPECT_STATUS(emo__gguf_array_string(&array, &text, &length, &err), EMO_E_FORMAT, "no array of texts");
    EXPECT_OK(emo__gguf_array_open(g, "numbers", &array, &err));
    EXPECT_OK(emo__gguf_array_i64(&array, &n, &err));
    assert_int_equal(n, -7);
    EXPECT_STATUS(emo__gguf_array_open(g, "n", &array, &err), EMO_E_FORMAT, "no array");
    EXPECT_OK(emo__gguf_array_open(g, "absent", &array, &err));
    assert_int_equal(array.count, 0);

    assert_int_equal(emo__gguf_count(g), 3);
    const emo__gguf_tensor *t = emo__gguf_find(g, "b");
    assert_non_null(t);
    assert_string_equal(t->type_name, "q8_0");
    assert_int_equal(t->dtype, EMO_DTYPE_Q8_0);
    assert_true(t->n_dims == 3 && t->dims[0] == 32 && t->dims[1] == 2 && t->dims[2] == 2 && t->dims[3] == 1);
    assert_int_equal(t->bytes, 136);
    assert_int_equal(t->offset % EMO__GGUF_ALIGNMENT, 0);
    unsigned char b[136];
    EXPECT_OK(emo__gguf_read(g, t, 34, b, 102, &err));
    assert_true(b[0] == 34 && b[101] == 135);
    EXPECT_STATUS(emo__gguf_read(g, t, 100, b, 37, &err), EMO_E_RANGE, "leave");
    t = emo__gguf_find(g, "c");
    float c[7], want[7];
    test_fill(want, 7, 2, 1.0f);
    EXPECT_OK(emo__gguf_read(g, t, 0, c, sizeof c, &err));
    assert_memory_equal(c, want, sizeof c);
    const void *data = emo__gguf_data(g, t);
    if (data != NULL)
        assert_memory_equal(data, want, sizeof want);
    assert_null(emo__gguf_find(g, "d"));
    assert_null(emo__gguf_at(g, 3));
    emo__gguf_close(g);
}

/* A host's source without a map. */
typedef struct plain {
    const unsigned char *data;
    size_t size;
} plain;

static emo_status plain_size(void *ctx, uint64_t *size) {
    *size = ((plain *)ctx)->size;
    return EMO_OK;
}

static emo_status plain_read(void *ctx, uint64_t offset, void *data, size_t size) {
    memcpy(data, ((plain *)ctx)->data + offset, size);
    return EMO_OK;
}

static emo_source *plain_source(plain *p) {
    emo_error err = EMO_ERROR_INIT;
    emo_source_vtable vtable = EMO_SOURCE_VTABLE_INIT;
    emo_source *source = NULL;
    vtable.size = plain_size;
    vtable.read_at = plain_read;
    EXPECT_OK(emo_source_create(rt, &vtable, p, &source, &err));
    return source;
}

static void round_trip_through_every_source(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    const char *path = write_file();
    emo_source *source = NULL;
    EXPECT_OK(emo_source_open_path(rt, path, &source, &err));
    check_file(source);
    emo_source_release(source);
    plain p = {NULL, 0};
    unsigned char *bytes = test_read(path, &p.size);
    p.data = bytes;
    EXPECT_OK(emo_source_from_memory(rt, bytes, p.size, &source, &err));
    check_file(source);
    emo_source_release(source);
    source = plain_source(&p);
    check_file(source);
    emo_source_release(source);
    free(bytes);
}

static emo_status open_bytes(const unsigned char *bytes, size_t size, bool map, emo_error *err) {
    emo_error ignored = EMO_ERROR_INIT;
    emo_source *source = NULL;
    emo__gguf *g = NULL;
    plain p = {bytes, size};
    if (!map)
        source = plain_source(&p);
    else if (emo_source_from_memory(rt, bytes, size, &source, &ignored) != EMO_OK)
        fail();
    emo_status status = emo__gguf_open(rt, source, &g, err);
    emo__gguf_close(g);
    emo_source_release(source);
    return status;
}

static bool is_refusal(emo_status status) {
    return status == EMO_E_FORMAT || status == EMO_E_UNSUPPORTED || status == EMO_E_RANGE || status == EMO_E_LIMIT;
}

/* Every truncation is refused; every byte of the header set to several values opens or is refused with words. The bytes
 * lie at the end of an own block, so that a memory checker sees a read beyond them. */
static void damaged_files(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    size_t size, header;
    unsigned char *bytes = test_read(write_file(), &size);
    header = size - (64 + 160 + 32);
    for (size_t n = 0; n < size - 32; n++) {
        unsigned char *cut = malloc(n + 1);
        assert_non_null(cut);
        memcpy(cut, bytes, n);
        emo_status status = open_bytes(cut, n, n % 2 == 0, &err);
        if (!is_refusal(status) || err.message[0] == '\0')
            fail_msg("%zu bytes: %s (%s)", n, emo_status_name(status), err.message);
        free(cut);
    }
    size_t opened = 0;
    for (size_t i = 0; i < header; i++) {
        static const unsigned char values[] = {0x00, 0x01, 0x7F, 0x80, 0xFF};
        unsigned char old = bytes[i];
        for (size_t v = 0; v < sizeof values; v++) {
            bytes[i] = values[v];
            emo_status status = open_bytes(bytes, size, v % 2 == 0, &err);
            if (status != EMO_OK && !is_refusal(status))
                fail_msg("byte %zu: %s (%s)", i, emo_status_name(status), err.message);
            opened += status == EMO_OK;
        }
        bytes[i] = old;
    }
    assert_true(opened > 0 && opened < header * 5);
    free(bytes);
}

/* Builds small lies. */
typedef struct maker {
    unsigned char data[512];
    size_t size;
} maker;

static void add(maker *m, uint64_t v, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        m->data[m->size++] = (unsigned char)(v >> (8 * i));
}

static void add_text(maker *m, const char *text) {
    add(m, strlen(text), 8);
    memcpy(m->data + m->size, text, strlen(text));
    m->size += strlen(text);
}

static void begin(maker *m, uint64_t version, uint64_t tensors, uint64_t keys) {
    m->size = 0;
    memset(m->data, 0, sizeof m->data);
    add(m, 0x46554747u, 4);
    add(m, version, 4);
    add(m, tensors, 8);
    add(m, keys, 8);
}

static void tensor(maker *m, const char *name, uint64_t n, uint64_t d0, uint64_t d1, uint64_t type, uint64_t offset) {
    add_text(m, name);
    add(m, n, 4);
    for (uint64_t d = 0; d < n && d < 6; d++)
        add(m, d == 0 ? d0 : d1, 8);
    add(m, type, 4);
    add(m, offset, 8);
}

static void expect(const maker *m, emo_status want, const char *words) {
    emo_error err = EMO_ERROR_INIT;
    EXPECT_STATUS(open_bytes(m->data, m->size, true, &err), want, words);
    EXPECT_STATUS(open_bytes(m->data, m->size, false, &err), want, words);
}

static void files_that_lie(void **state) {
    (void)state;
    maker m;
    begin(&m, 2, 0, 0);
    expect(&m, EMO_E_UNSUPPORTED, "version 2");
    begin(&m, 3, 0, 0);
    m.data[0] = 'X';
    expect(&m, EMO_E_FORMAT, "not a GGUF");
    begin(&m, 3, UINT64_MAX, 0);
    expect(&m, EMO_E_FORMAT, "room");
    begin(&m, 3, 0, (uint64_t)1 << 40);
    expect(&m, EMO_E_FORMAT, "room");
    begin(&m, 3, 0, 1);
    add(&m, UINT64_MAX, 8); /* a name as long as memory */
    add(&m, 0, 8);
    expect(&m, EMO_E_FORMAT, "1 to 512");
    begin(&m, 3, 0, 1);
    add_text(&m, "k");
    add(&m, 8, 4);
    add(&m, UINT64_MAX - 7, 8); /* a string whose end wraps */
    add(&m, 0, 8);
    expect(&m, EMO_E_FORMAT, "too large");
    begin(&m, 3, 0, 1);
    add_text(&m, "k");
    add(&m, 9, 4);
    add(&m, 10, 4);
    add(&m, (uint64_t)1 << 61, 8); /* an array whose bytes wrap */
    add(&m, 0, 8);
    expect(&m, EMO_E_FORMAT, "array");
    begin(&m, 3, 0, 1);
    add_text(&m, "k");
    add(&m, 9, 4);
    add(&m, 9, 4); /* arrays in arrays */
    add(&m, 1, 8);
    expect(&m, EMO_E_FORMAT, "array of a type");
    begin(&m, 3, 0, 1);
    add_text(&m, "k");
    add(&m, 9, 4);
    add(&m, 8, 4);
    add(&m, (uint64_t)1 << 32, 8); /* four billion strings */
    add(&m, 0, 8);
    expect(&m, EMO_E_FORMAT, "strings");
    begin(&m, 3, 0, 1);
    add_text(&m, "k");
    add(&m, 13, 4);
    add(&m, 0, 8);
    expect(&m, EMO_E_FORMAT, "does not exist");
    begin(&m, 3, 0, 1);
    add_text(&m, "k");
    add(&m, 7, 4);
    add(&m, 2, 1);
    expect(&m, EMO_E_FORMAT, "neither 0 nor 1");
    begin(&m, 3, 0, 2);
    for (int i = 0; i < 2; i++) {
        add_text(&m, "same");
        add(&m, 4, 4);
        add(&m, 1, 4);
    }
    expect(&m, EMO_E_FORMAT, "twice");
    for (uint64_t alignment = 0; alignment < 49; alignment += 48) {
        begin(&m, 3, 0, 1);
        add_text(&m, "general.alignment");
        add(&m, 4, 4);
        add(&m, alignment, 4);
        expect(&m, alignment == 0 ? EMO_E_RANGE : EMO_E_FORMAT, "general.alignment");
    }
    static const struct {
        uint64_t n, d0, d1, type, offset;
        const char *words;
    } bad[] = {
        {0, 0, 0, 0, 0, "1 to 4"},
        {5, 1, 1, 0, 0, "1 to 4"},
        {1, 0, 0, 0, 0, "0 or negative"},
        {1, UINT64_MAX, 0, 0, 0, "0 or negative"},
        {4, (uint64_t)1 << 32, (uint64_t)1 << 32, 0, 0, "multiply"},
        {2, (uint64_t)1 << 31, (uint64_t)1 << 31, 0, 0, "bytes"},
        {2, (uint64_t)1 << 30, (uint64_t)1 << 30, 0, 0, "beyond"},
        {1, INT64_MAX, 0, 0, 0, "bytes"},
        {1, 33, 0, 8, 0, "blocks"},
        {1, 128, 0, 12, 0, "blocks"},
        {1, 8, 0, 0, 8, "aligned"},
        {1, 8, 0, 0, (uint64_t)1 << 40, "beyond"},
        {1, 8, 0, 0, UINT64_MAX - 31, "beyond"},
        {1, 1000, 0, 0, 0, "beyond"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        begin(&m, 3, 1, 0);
        tensor(&m, "t", bad[i].n, bad[i].d0, bad[i].d1, bad[i].type, bad[i].offset);
        m.size = 256;
        expect(&m, EMO_E_FORMAT, bad[i].words);
    }
    begin(&m, 3, 2, 0);
    tensor(&m, "a", 1, 16, 0, 0, 0);
    tensor(&m, "b", 1, 16, 0, 0, 32);
    m.size = 512;
    expect(&m, EMO_E_FORMAT, "overlap");
    begin(&m, 3, 2, 0);
    tensor(&m, "a", 1, 8, 0, 0, 0);
    tensor(&m, "a", 1, 8, 0, 0, 32);
    m.size = 512;
    expect(&m, EMO_E_FORMAT, "twice");
    begin(&m, 3, 2, 0);
    tensor(&m, "a", 1, 8, 0, 0, 0);
    tensor(&m, "b", 1, 8, 0, 99, 32); /* an unknown type may be there, as long as nobody reads it */
    m.size = 512;
    expect(&m, EMO_OK, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip_through_every_source),
        cmocka_unit_test(damaged_files),
        cmocka_unit_test(files_that_lie),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
