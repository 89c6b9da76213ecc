/* SPDX-License-Identifier: Apache-2.0 */
/* The N-th allocation fails, for every N, while tensors are written and read and documents are opened: a status each
 * time, and nothing leaks. */
#include <emo/data.h>
#include <stdatomic.h>

#include "base/runtime.h"
#include "data/pack.h"
#include "io/files.h"
#include "io/safetensors.h"
#include "support/folder.h"

typedef struct meter {
    atomic_long live;
    atomic_long calls;
    long fail_at; /* from 0; -1: never */
} meter;

static void *meter_alloc(void *ctx, size_t size, size_t alignment) {
    meter *m = ctx;
    void *ptr = NULL;
    if (atomic_fetch_add(&m->calls, 1) == m->fail_at || posix_memalign(&ptr, alignment, size) != 0)
        return NULL;
    atomic_fetch_add(&m->live, 1);
    return ptr;
}

static void meter_free(void *ctx, void *ptr, size_t size, size_t alignment) {
    (void)size;
    (void)alignment;
    atomic_fetch_sub(&((meter *)ctx)->live, 1);
    free(ptr);
}

static char folder[512];

static emo_status tensors(emo_runtime *rt, emo_error *err) {
    static const float data[6] = {1, 2, 3, 4, 5, 6};
    static const int64_t shape[2] = {2, 3};
    emo__st_writer *w = NULL;
    emo__st_set *set = NULL;
    const emo__st *st = NULL;
    const emo__st_entry *entry = NULL;
    float back[6];
    emo_status status;
    EMO_TRY(status = emo__st_writer_create(rt, folder, 24, &w, err));
    EMO_TRY(status = emo__st_writer_add(w, "a", EMO_DTYPE_F32, shape, 2, err));
    EMO_TRY(status = emo__st_writer_add(w, "b", EMO_DTYPE_F32, shape, 2, err));
    EMO_TRY(status = emo__st_writer_begin(w, err));
    EMO_TRY(status = emo__st_writer_write(w, "a", data, sizeof data, err));
    EMO_TRY(status = emo__st_writer_write(w, "b", data, sizeof data, err));
    EMO_TRY(status = emo__st_writer_finish(w, err));
    EMO_TRY(status = emo__st_set_open(rt, folder, &set, err));
    EMO_TRY(status = emo__st_set_find(set, "b", &st, &entry, err));
    EMO_TRY(status = emo__st_read_as(st, entry, 0, 6, EMO_DTYPE_F32, back, err));
    assert_memory_equal(back, data, sizeof data);
done:
    emo__st_writer_destroy(w);
    emo__st_set_close(set);
    return status;
}

static char cache[600];

static emo_status documents(emo_runtime *rt, emo_error *err) {
    const char *paths[2] = {test_path("d.jsonl"), test_path("d.npy")};
    emo_tokenizer *tok = NULL;
    emo_dataset *ds = NULL;
    emo_dataset *part = NULL;
    emo_choices *items = NULL;
    emo__packer *packer = NULL;
    int32_t ids[16];
    uint8_t mask[16];
    emo_status status;
    emo_dataset_options opt = EMO_DATASET_OPTIONS_INIT;
    EMO_TRY(status = emo_tokenizer_create_bytes(rt, &tok, err));
    EMO_TRY(status = emo_dataset_open(rt, paths, 2, tok, &opt, &ds, err));
    assert_int_equal(emo_dataset_count(ds), 4);
    emo_dataset_release(ds);
    ds = NULL;
    opt.cache_dir = cache;
    EMO_TRY(status = emo_dataset_open(rt, paths, 2, tok, &opt, &ds, err));
    EMO_TRY(status = emo_dataset_filter(ds, "x", 1, 3, &part, err));
    EMO_TRY(status = emo__packer_create(part, 1, 16, &packer, err));
    EMO_TRY(status = emo__packer_row(packer, 2, ids, mask, err));
    EMO_TRY(status = emo_choices_open(rt, test_path("mc.jsonl"), &items, err));
done:
    emo__packer_destroy(packer);
    emo_choices_release(items);
    emo_dataset_release(part);
    emo_dataset_release(ds);
    emo_tokenizer_release(tok);
    return status;
}

static void every_allocation_fails_once(emo_status (*work)(emo_runtime *, emo_error *)) {
    meter m = {0, 0, -1};
    long last = 0;
    for (long n = -1; n < last; n++) {
        emo_error err = EMO_ERROR_INIT;
        emo_runtime *rt = NULL;
        emo_runtime_options opt = EMO_RUNTIME_OPTIONS_INIT;
        opt.threads = 2;
        opt.allocator.ctx = &m;
        opt.allocator.alloc = meter_alloc;
        opt.allocator.free = meter_free;
        m.fail_at = -1;
        EXPECT_OK(emo_runtime_create(&opt, &rt, &err));
        EXPECT_OK(emo__remove_tree(&rt->mem, cache, &err));
        atomic_store(&m.calls, 0);
        m.fail_at = n;
        emo_status status = work(rt, &err);
        m.fail_at = -1;
        if (n < 0) {
            assert_int_equal(status, EMO_OK);
            last = atomic_load(&m.calls);
            assert_true(last > 20);
        } else if (status != EMO_E_OUT_OF_MEMORY) {
            fail_msg("allocation %ld: %s: %s", n, emo_status_name(status), err.message);
        } else {
            assert_int_equal(err.code, EMO_E_OUT_OF_MEMORY);
        }
        emo_runtime_release(rt);
        if (atomic_load(&m.live) != 0)
            fail_msg("allocation %ld: %ld blocks leaked", n, atomic_load(&m.live));
    }
}

static void while_tensors_are_written_and_read(void **state) {
    (void)state;
    every_allocation_fails_once(tensors);
}

static void while_documents_are_opened(void **state) {
    (void)state;
    every_allocation_fails_once(documents);
}

static int setup(void **state) {
    (void)state;
    (void)test_folder();
    static const char lines[] = "{\"text\": \"one\", \"domain\": \"x\"}\n{\"prompt\": \"p\", \"completion\": \"cd\"}\n";
    static const uint16_t ids[] = {'a', 'b', 256, 'c'};
    static const char item[] = "{\"context\": \"q\", \"choices\": [\"a\", \"b\"], \"answer\": 1}";
    (void)test_write("d.jsonl", lines, sizeof lines - 1);
    (void)test_write("d.npy", ids, sizeof ids);
    (void)test_write("mc.jsonl", item, sizeof item - 1);
    (void)snprintf(folder, sizeof folder, "%.500s", test_path("model"));
    (void)snprintf(cache, sizeof cache, "%.500s", test_path("cache"));
    return 0;
}
static int teardown(void **state) {
    (void)state;
    test_folder_remove();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(while_tensors_are_written_and_read),
        cmocka_unit_test(while_documents_are_opened),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
