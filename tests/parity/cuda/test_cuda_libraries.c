/* SPDX-License-Identifier: Apache-2.0 */
/* cuBLASLt that is there, missing, elsewhere, or has no way for a product: what is said, and that products stay right.
 * Where the library is only the simulator can say; on a device the folder that is named is tested alone. */
#include "parity/cuda/sides.h"
#include "support/folder.h"

/* Sums of up to 150 products of order 1 in another order. */
#define TOLERANCE_F32 2e-5
/* Both operands rounded to 8 bits. */
#define TOLERANCE_BF16 2e-2
enum { THERE, MISSING, REFUSING };

static const cudasim_control_table *control; /* NULL: on a device */
static char said[4096];
static int warnings;

static void hear(void *ctx, emo_log_level level, const char *message) {
    (void)ctx;
    warnings += level == EMO_LOG_WARNING;
    (void)snprintf(said + strlen(said), sizeof said - strlen(said), "%s\n", message);
}

static int begin(void **state) {
    (void)state;
    const char *path = mirror_plugin();
    if (path == NULL)
        exit(77);
    void *library = dlopen(path, RTLD_NOW);
    assert_non_null(library);
    control = dlsym(library, CUDASIM_CONTROL_SYMBOL);
    return 0;
}

static int restore(void **state) {
    (void)state;
    if (control != NULL)
        control->blas(THERE);
    return 0;
}

static emo_runtime *listening(const char *libraries) {
    emo_error err = EMO_ERROR_INIT;
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    emo_runtime *rt = NULL;
    options.threads = 1;
    options.log.log = hear;
    options.libraries = libraries;
    said[0] = '\0';
    warnings = 0;
    EXPECT_OK(emo_runtime_create(&options, &rt, &err));
    return rt;
}

static void a_named_folder_is_the_only_one(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    emo_runtime *rt = NULL;
    const char *plugin = mirror_plugin();
    options.libraries = "lib";
    EXPECT_STATUS(emo_runtime_create(&options, &rt, &err), EMO_E_INVALID_ARGUMENT, "absolute");
    const char *folder = test_folder();
    rt = listening(folder);
    EXPECT_STATUS(emo_runtime_load_backend(rt, plugin, &err), EMO_E_NOT_FOUND, "libcublasLt.so.");
    assert_non_null(strstr(err.message, folder));
    assert_int_equal(emo_device_count(rt), 1);
    if (control != NULL) { /* a file of that name is all that the simulator's linker asks for */
        char name[64];
        assert_int_equal(sscanf(strstr(err.message, "libcublasLt.so."), "%63s", name), 1);
        (void)test_write(name, "", 0);
        control->blas(MISSING); /* elsewhere */
        EXPECT_OK(emo_runtime_load_backend(rt, plugin, &err));
        assert_int_equal(warnings, 0);
    }
    emo_runtime_release(rt);
    test_folder_remove();
}

static void what_is_missing_is_said_once(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    if (control == NULL)
        skip();
    control->blas(MISSING);
    emo_runtime *rt = listening(NULL);
    EXPECT_OK(emo_runtime_load_backend(rt, mirror_plugin(), &err));
    assert_int_equal(warnings, 1);
    assert_non_null(strstr(said, "cuBLASLt is missing: libcublasLt.so."));
    assert_non_null(strstr(said, "where the dynamic linker looks"));
    emo_runtime_release(rt);
}

/* Products of all kinds, against the CPU's. */
static void products(emo_dtype compute, int rounds, const char *what) {
    emo_error err = EMO_ERROR_INIT;
    uint64_t rng = 31;
    sides s = sides_open(compute);
    for (int round = 0; round < rounds; round++) {
        int64_t m = parity_draw(&rng, 1, 90), n = parity_draw(&rng, 1, 140), k = parity_draw(&rng, 1, 150);
        emo_gemm_args g = parity_product(&rng, round, m, n, k);
        void *b;
        size_t a_count = (size_t)((g.trans_a ? k : m) * g.lda), b_count = (size_t)((g.trans_b ? n : k) * g.ldb);
        float *a = test_floats(a_count, 1, 1.0f);
        (void)parity_weight(g.b_dtype, 1, (int64_t)b_count, 2, &b);
        sides_out c = sides_floats(m * g.ldc, 3);
        for (s.side = 0; s.side < SIDES_COUNT; s.side++) {
            g.a = sides_in(&s, a, a_count * sizeof(float));
            g.b = sides_in(&s, b, b_count * emo__dtype_size(g.b_dtype));
            g.c = sides_io(&s, &c);
            SIDES_RUN(&s, gemm, &g);
            sides_finish(&s, what);
        }
        sides_close_enough(what, c, compute == EMO_DTYPE_BF16 ? TOLERANCE_BF16 : TOLERANCE_F32);
        free(a), free(b);
    }
    sides_close(&s);
}

static void products_without_the_library(void **state) {
    (void)state;
    if (control == NULL)
        skip();
    control->blas(MISSING);
    int before = control->heuristics();
    products(EMO_DTYPE_F32, 12, "own f32 product");
    products(EMO_DTYPE_BF16, 12, "own bf16 product");
    assert_int_equal(control->heuristics(), before);
}

static void products_that_the_library_refuses(void **state) {
    (void)state;
    if (control == NULL)
        skip();
    control->blas(REFUSING);
    products(EMO_DTYPE_F32, 4, "refused f32 product");
    products(EMO_DTYPE_BF16, 4, "refused bf16 product");
}

/* One product of the given size, `offset` floats into its memory. */
static void one(emo_backend *backend, emo_exec *exec, int64_t n, size_t offset) {
    emo_error err = EMO_ERROR_INIT;
    const emo_backend_ops *ops = backend->ops;
    void *memory;
    size_t bytes = ((size_t)(3 * n * n) + offset) * sizeof(float);
    EXPECT_OK(ops->mem_alloc(backend, bytes, &memory, &err));
    EXPECT_OK(ops->zero(exec, memory, bytes, &err));
    float *x = (float *)memory + offset;
    emo_gemm_args g = {.m = n,
                       .n = n,
                       .k = n,
                       .alpha = 1.0f,
                       .a = x,
                       .lda = n,
                       .b = x + n * n,
                       .ldb = n,
                       .b_dtype = EMO_DTYPE_F32,
                       .c = x + 2 * n * n,
                       .ldc = n};
    EXPECT_OK(ops->gemm(exec, &g, &err));
    EXPECT_OK(ops->synchronize(exec, &err));
    ops->mem_free(backend, memory);
}

/* The heuristic is asked once for a shape and an alignment: a second step asks nothing. */
static void plans_are_kept(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_backend *backend = NULL;
    emo_exec *exec = NULL;
    if (control == NULL)
        skip();
    for (int mode = THERE; mode <= REFUSING; mode += REFUSING) {
        emo_runtime *rt = listening(NULL);
        control->blas(mode);
        EXPECT_OK(emo_runtime_load_backend(rt, mirror_plugin(), &err));
        EXPECT_OK(emo__registry_open(rt->registry, "cuda", &backend, &err));
        EXPECT_OK(backend->ops->exec_create(backend, NULL, &exec, &err));
        int before = control->heuristics();
        for (int round = 0; round < 3; round++) {
            one(backend, exec, 16, 0);
            one(backend, exec, 24, 0);
            one(backend, exec, 16, 1); /* 4 bytes further: another alignment */
            assert_int_equal(control->heuristics() - before, 3);
        }
        assert_int_equal(warnings, mode == REFUSING);
        if (mode == REFUSING)
            assert_non_null(strstr(said, "cuBLASLt has no way for a f32 product of 16 x 16 x 16"));
        backend->ops->exec_destroy(exec);
        emo_runtime_release(rt);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_teardown(a_named_folder_is_the_only_one, restore),
                                       cmocka_unit_test_teardown(what_is_missing_is_said_once, restore),
                                       cmocka_unit_test_teardown(products_without_the_library, restore),
                                       cmocka_unit_test_teardown(products_that_the_library_refuses, restore),
                                       cmocka_unit_test_teardown(plans_are_kept, restore)};
    return cmocka_run_group_tests(tests, begin, NULL);
}
