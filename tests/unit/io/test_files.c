/* SPDX-License-Identifier: Apache-2.0 */
/* Files, folders, locks, lines and token arrays. */
#include <unistd.h>

#include "base/runtime.h"
#include "io/files.h"
#include "io/gzip.h"
#include "io/npy.h"
#include "support/folder.h"

TEST_RUNTIME_AND_FOLDER(1, EMO_ISA_SCALAR)

static void a_file_appears_whole_or_not_at_all(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo__atomic_file file;
    const char *path = test_write("atomic/out", "old", 3);
    EXPECT_OK(emo__atomic_open(&file, &rt->mem, path, &err));
    EXPECT_OK(emo__atomic_write(&file, "new", 3, &err));
    emo__atomic_abort(&file);
    size_t size = 0;
    char *text = NULL;
    EXPECT_OK(emo__file_read(&rt->mem, path, 100, &text, &size, &err));
    assert_string_equal(text, "old");
    emo__free(&rt->mem, text);
    EXPECT_OK(emo__file_write(&rt->mem, path, "newer", 5, &err));
    EXPECT_OK(emo__file_read(&rt->mem, path, 5, &text, &size, &err));
    assert_string_equal(text, "newer");
    emo__free(&rt->mem, text);
    EXPECT_STATUS(emo__file_read(&rt->mem, path, 4, &text, &size, &err), EMO_E_LIMIT, "5 bytes");
    emo__names names;
    EXPECT_OK(emo__list_files(&rt->mem, test_path("atomic"), true, &names, &err));
    assert_int_equal(names.count, 1); /* no temporary file stays */
    emo__names_free(&names);
    EXPECT_STATUS(emo__file_write(&rt->mem, test_path("no/folder/here"), "x", 1, &err), EMO_E_NOT_FOUND, "here");
}

static void folders_are_listed_in_order_and_removed(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    (void)test_write("tree/b/2.txt", "x", 1);
    (void)test_write("tree/a.txt", "x", 1);
    (void)test_write("tree/b/1/deep.txt", "x", 1);
    (void)test_write("tree/.hidden", "x", 1);
    assert_int_equal(symlink("..", test_path("tree/b/loop")), 0);
    emo__names names;
    EXPECT_OK(emo__list_files(&rt->mem, test_path("tree"), true, &names, &err));
    assert_int_equal(names.count, 3);
    assert_string_equal(names.items[0], "a.txt");
    assert_string_equal(names.items[1], "b/1/deep.txt");
    assert_string_equal(names.items[2], "b/2.txt");
    emo__names_free(&names);
    EXPECT_OK(emo__list_files(&rt->mem, test_path("tree"), false, &names, &err));
    assert_int_equal(names.count, 1);
    emo__names_free(&names);
    EXPECT_OK(emo__mkdirs(&rt->mem, test_path("tree/x/y/z"), &err));
    EXPECT_OK(emo__mkdirs(&rt->mem, test_path("tree/x/y/z"), &err));
    EXPECT_STATUS(emo__mkdirs(&rt->mem, test_path("tree/a.txt/z"), &err), EMO_E_EXISTS, "not a folder");
    EXPECT_OK(emo__list_dirs(&rt->mem, test_path("tree"), &names, &err));
    assert_int_equal(names.count, 2);
    assert_string_equal(names.items[1], "x");
    emo__names_free(&names);
    EXPECT_OK(emo__remove_tree(&rt->mem, test_path("tree"), &err));
    assert_false(access(test_path("tree"), F_OK) == 0);
    assert_true(emo__path_is_dir(test_path("."))); /* the link upwards was not followed */
    EXPECT_OK(emo__remove_tree(&rt->mem, test_path("tree"), &err));
}

static void a_lock_has_one_holder(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo__lock a;
    emo__lock b;
    const char *path = test_path("lock");
    EXPECT_OK(emo__lock_acquire(path, &a, &err));
    EXPECT_STATUS(emo__lock_acquire(path, &b, &err), EMO_E_BUSY, "another run");
    emo__lock_release(&a);
    EXPECT_OK(emo__lock_acquire(path, &b, &err));
    emo__lock_release(&b);
}

/* All lines joined by '|'; the status at the end. */
static emo_status join_lines(const char *path, size_t max_line, char *out, size_t capacity, emo_error *err) {
    emo__lines *lines = NULL;
    emo_status status = emo__lines_open(&rt->mem, path, max_line, &lines, err);
    size_t used = 0;
    for (bool end = false; status == EMO_OK && !end;) {
        const char *line;
        size_t length;
        status = emo__lines_next(lines, &line, &length, &end, err);
        if (status == EMO_OK && !end) {
            assert_true(used + length + 2 < capacity);
            memcpy(out + used, line, length);
            used += length;
            out[used++] = '|';
        }
    }
    out[used] = '\0';
    emo__lines_close(lines);
    return status;
}

static void plain_and_compressed_lines(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    char out[256];
    EXPECT_OK(join_lines(test_write("l1", "a\r\n\nbc\nlast", 11), 0, out, sizeof out, &err));
    assert_string_equal(out, "a||bc|last|");
    EXPECT_OK(join_lines(test_write("l2", "", 0), 0, out, sizeof out, &err));
    assert_string_equal(out, "");
    (void)test_append_gzip("l3.gz", "one\ntw", 6);
    (void)test_append_gzip("l3.gz", "o\nthree\n", 8); /* a second member goes on inside the line */
    EXPECT_OK(join_lines(test_path("l3.gz"), 0, out, sizeof out, &err));
    assert_string_equal(out, "one|two|three|");
    EXPECT_OK(join_lines(test_path("l3.gz"), 5, out, sizeof out, &err));
    EXPECT_STATUS(join_lines(test_path("l3.gz"), 4, out, sizeof out, &err), EMO_E_LIMIT, ":3");
    EXPECT_STATUS(join_lines(test_path("gone"), 0, out, sizeof out, &err), EMO_E_NOT_FOUND, "gone");
}

static void damaged_gzip_is_noticed_wherever_it_is_cut(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    char out[256];
    size_t size = 0;
    unsigned char *whole = test_read(test_append_gzip("cut.gz", "first\nsecond\nthird\n", 19), &size);
    for (size_t n = 2; n < size; n++)
        EXPECT_STATUS(join_lines(test_write("cut2.gz", whole, n), 0, out, sizeof out, &err), EMO_E_FORMAT, "gzip");
    whole[size - 6] ^= 1; /* the checksum */
    EXPECT_STATUS(join_lines(test_write("cut2.gz", whole, size), 0, out, sizeof out, &err), EMO_E_FORMAT, "gzip");
    whole[size - 6] ^= 1;
    memcpy(whole + size, "", 1);
    EXPECT_OK(join_lines(test_write("cut2.gz", whole, size + 1), 0, out, sizeof out, &err)); /* zero padding */
    assert_string_equal(out, "first|second|third|");
    free(whole);
}

static void long_lines_cross_buffers(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    enum { N = 3000000 };
    char *text = malloc(N);
    char *out = malloc(N + 16);
    assert_non_null(text);
    assert_non_null(out);
    for (size_t i = 0; i < N; i++)
        text[i] = (char)('a' + i * i % 23);
    text[10] = '\n';
    text[2500000] = '\n';
    EXPECT_OK(join_lines(test_append_gzip("long.gz", text, N), 0, out, N + 16, &err));
    text[10] = '|';
    text[2500000] = '|';
    assert_memory_equal(out, text, N);
    free(text);
    free(out);
}

static emo_status open_array(const void *data, size_t size, emo_source **source, emo__npy *npy, emo_error *err) {
    emo_status status = emo_source_from_memory(rt, data, size, source, err);
    return status == EMO_OK ? emo__npy_open(*source, EMO__NPY_U16, npy, err) : status;
}

static size_t npy_file(unsigned char *file, const char *dict, unsigned version, const void *data, size_t size) {
    size_t n = strlen(dict);
    size_t head = version == 1 ? 10 : 12;
    memset(file, 0, head);
    memcpy(file, "\x93NUMPY", 6);
    file[6] = (unsigned char)version;
    file[8] = (unsigned char)n;
    file[9] = (unsigned char)(n >> 8);
    memcpy(file + head, dict, n);
    memcpy(file + head + n, data, size);
    return head + n + size;
}

static void token_arrays(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo__npy npy;
    emo_source *source = NULL;
    int32_t ids[4];
    unsigned char file[256];
    static const unsigned char raw[6] = {1, 0, 0, 1, 255, 255};
    EXPECT_OK(open_array(raw, sizeof raw, &source, &npy, &err));
    assert_int_equal(npy.count, 3);
    EXPECT_OK(emo__npy_read(&npy, 0, 3, 65536, ids, &err));
    assert_int_equal(ids[1], 256);
    assert_int_equal(ids[2], 65535);
    EXPECT_STATUS(emo__npy_read(&npy, 0, 3, 65535, ids, &err), EMO_E_FORMAT, "token 2 is 65535");
    emo_source_release(source);
    EXPECT_STATUS(open_array(raw, 5, &source, &npy, &err), EMO_E_FORMAT, "whole number");
    emo_source_release(source);

    static const int64_t wide[3] = {5, -1, 7};
    static const char *const dict = "{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }\n";
    for (unsigned version = 1; version <= 3; version++) {
        size_t size = npy_file(file, dict, version, wide, sizeof wide);
        EXPECT_OK(open_array(file, size, &source, &npy, &err));
        assert_int_equal(npy.count, 3);
        EXPECT_OK(emo__npy_read(&npy, 2, 1, 10, ids, &err));
        assert_int_equal(ids[0], 7);
        EXPECT_STATUS(emo__npy_read(&npy, 0, 2, 10, ids, &err), EMO_E_FORMAT, "token 1 is -1");
        emo_source_release(source);
        for (size_t cut = 6; cut < size; cut++) { /* truncated anywhere behind the magic */
            EXPECT_STATUS(open_array(file, cut, &source, &npy, &err), EMO_E_FORMAT, ".npy header");
            emo_source_release(source);
        }
    }
    static const struct {
        const char *dict;
        emo_status status;
    } bad[] = {
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", EMO_E_UNSUPPORTED},
        {"{'descr': '>i8', 'fortran_order': False, 'shape': (3,), }", EMO_E_UNSUPPORTED},
        {"{'descr': '<i8', 'fortran_order': False, 'shape': (3, 1), }", EMO_E_FORMAT},
        {"{'descr': '<i8', 'fortran_order': False, 'shape': (), }", EMO_E_FORMAT},
        {"{'descr': '<i8', 'fortran_order': False, 'shape': (-3,), }", EMO_E_FORMAT},
        {"{'descr': '<i8', 'fortran_order': False, 'shape': (9999999999999999999999,), }", EMO_E_FORMAT},
        {"{'descr': '<i8', 'fortran_order': False, 'shape': (9223372036854775807,), }", EMO_E_FORMAT},
        {"{'descr': '<i8', 'shape': (3,), }", EMO_E_FORMAT},
        {"{'descr", EMO_E_FORMAT},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        size_t size = npy_file(file, bad[i].dict, 1, wide, sizeof wide);
        EXPECT_STATUS(open_array(file, size, &source, &npy, &err), bad[i].status, ".npy");
        emo_source_release(source);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_appears_whole_or_not_at_all),
        cmocka_unit_test(folders_are_listed_in_order_and_removed),
        cmocka_unit_test(a_lock_has_one_holder),
        cmocka_unit_test(plain_and_compressed_lines),
        cmocka_unit_test(damaged_gzip_is_noticed_wherever_it_is_cut),
        cmocka_unit_test(long_lines_cross_buffers),
        cmocka_unit_test(token_arrays),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
