/* SPDX-License-Identifier: Apache-2.0 */
#define _XOPEN_SOURCE 700 /* nftw */
#include "support/folder.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

static char root[512];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where) {
    (void)st;
    (void)type;
    (void)where;
    return remove(path);
}

const char *test_folder(void) {
    const char *base = getenv("TMPDIR");
    (void)snprintf(root, sizeof root, "%s/emo-test-XXXXXX", base != NULL && base[0] != '\0' ? base : "/tmp");
    assert_non_null(mkdtemp(root));
    return root;
}

void test_folder_remove(void) {
    if (root[0] != '\0')
        (void)nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    root[0] = '\0';
}

const char *test_path(const char *name) {
    static char ring[8][1024];
    static unsigned next;
    char *path = ring[next++ % 8];
    (void)snprintf(path, sizeof ring[0], "%s/%s", root, name);
    return path;
}

const char *test_write(const char *name, const void *data, size_t size) {
    const char *path = test_path(name);
    char parent[1024];
    (void)snprintf(parent, sizeof parent, "%s", path);
    for (char *p = parent + strlen(root) + 1; *p != '\0'; p++) {
        if (*p == '/') {
            *p = '\0';
            (void)mkdir(parent, 0777);
            *p = '/';
        }
    }
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    return path;
}

const char *test_append_gzip(const char *name, const char *text, size_t size) {
    const char *path = test_path(name);
    gzFile file = gzopen(path, "ab");
    assert_non_null(file);
    assert_int_equal(gzwrite(file, text, (unsigned)size), (int)size);
    assert_int_equal(gzclose(file), Z_OK);
    return path;
}

unsigned char *test_read(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long length = ftell(file);
    assert_true(length >= 0);
    rewind(file);
    unsigned char *data = malloc((size_t)length + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, (size_t)length, file), (size_t)length);
    assert_int_equal(fclose(file), 0);
    *size = (size_t)length;
    return data;
}
