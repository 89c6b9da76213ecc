/* SPDX-License-Identifier: Apache-2.0 */
/* Devices, plug-ins, and tables completed from composed defaults. EMO_TEST_PLUGINS is the folder of plugin_*.so. */
#include <emo/device.h>

#include "backend/registry.h"
#include "base/runtime.h"
#include "support/support.h"

static const char *plugin(const char *name) {
    static char path[1024];
    assert_true(snprintf(path, sizeof path, "%s/%s.so", EMO_TEST_PLUGINS, name) < (int)sizeof path);
    return path;
}

static void the_cpu_is_device_0(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_SCALAR);
    emo_device_info info = EMO_DEVICE_INFO_INIT;
    assert_int_equal(emo_device_count(rt), 1);
    EXPECT_OK(emo_device_get_info(rt, 0, &info, &err));
    assert_int_equal(info.kind, EMO_DEVICE_CPU);
    assert_string_equal(info.backend, "cpu");
    assert_string_equal(info.name, "scalar");
    assert_true(info.memory > 0);
    assert_int_equal(info.n_dtypes, 6); /* f32, f16, bf16, and the three quantised types */
    EXPECT_STATUS(emo_device_get_info(rt, 1, &info, &err), EMO_E_RANGE, "devices 0 to 0");
    EXPECT_STATUS(emo_device_get_info(rt, -1, &info, &err), EMO_E_RANGE, "device -1");
    EXPECT_STATUS(emo_device_get_info(NULL, 0, &info, &err), EMO_E_INVALID_ARGUMENT, "runtime");
    EXPECT_STATUS(emo_device_get_info(rt, 0, NULL, &err), EMO_E_INVALID_ARGUMENT, "info");
    info.struct_size = 0;
    EXPECT_STATUS(emo_device_get_info(rt, 0, &info, &err), EMO_E_INVALID_ARGUMENT, "struct_size");
    assert_int_equal(emo_device_count(NULL), 0);
    emo_runtime_release(rt);
}

static void bad_libraries_give_a_status(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    EXPECT_STATUS(emo_runtime_load_backend(NULL, "/x", &err), EMO_E_INVALID_ARGUMENT, "runtime");
    EXPECT_STATUS(emo_runtime_load_backend(rt, NULL, &err), EMO_E_INVALID_ARGUMENT, "path");
    EXPECT_STATUS(emo_runtime_load_backend(rt, "plugin_few.so", &err), EMO_E_INVALID_ARGUMENT, "absolute");
    EXPECT_STATUS(emo_runtime_load_backend(rt, "", &err), EMO_E_INVALID_ARGUMENT, "absolute");
    EXPECT_STATUS(emo_runtime_load_backend(rt, plugin("not_there"), &err), EMO_E_NOT_FOUND, "not_there");
    EXPECT_STATUS(emo_runtime_load_backend(rt, EMO_TEST_PLUGINS, &err), EMO_E_FORMAT, "cannot be loaded");
    EXPECT_STATUS(emo_runtime_load_backend(rt, plugin("plugin_no_symbol"), &err), EMO_E_FORMAT, "emo_backend_plugin");
    EXPECT_STATUS(emo_runtime_load_backend(rt, plugin("plugin_other_abi"), &err), EMO_E_UNSUPPORTED, "version");
    EXPECT_STATUS(emo_runtime_load_backend(rt, plugin("plugin_broken"), &err), EMO_E_BACKEND, "lacks supports");
    EXPECT_STATUS(emo_runtime_load_backend(rt, plugin("plugin_broken"), &err), EMO_E_NOT_FOUND, "no device");
    EXPECT_STATUS(emo_runtime_load_backend(rt, plugin("plugin_broken"), &err), EMO_E_BACKEND, "failed in open");
    EXPECT_STATUS(emo_runtime_load_backend(rt, plugin("plugin_broken"), &err), EMO_E_BACKEND, "which is no status");
    assert_int_equal(emo_device_count(rt), 1);
    emo_runtime_release(rt);
}

static void devices_of_a_plugin_are_listed_and_found(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_device_info info = EMO_DEVICE_INFO_INIT;
    EXPECT_OK(emo_runtime_load_backend(rt, plugin("plugin_few"), &err));
    EXPECT_STATUS(emo_runtime_load_backend(rt, plugin("plugin_few"), &err), EMO_E_EXISTS, "few");
    assert_int_equal(emo_device_count(rt), 3);
    EXPECT_OK(emo_device_get_info(rt, 2, &info, &err));
    assert_string_equal(info.backend, "few");
    assert_string_equal(info.name, "a device of few words");
    assert_int_equal(info.kind, EMO_DEVICE_OTHER);
    assert_true(info.memory == 4096 && info.n_dtypes == 1 && info.dtypes[0] == EMO_DTYPE_F32);
    emo_backend *cpu, *first, *second, *none;
    EXPECT_OK(emo__registry_open(rt->registry, "cpu", &cpu, &err));
    EXPECT_OK(emo__registry_open(rt->registry, "few", &first, &err));
    EXPECT_OK(emo__registry_open(rt->registry, "few:1", &second, &err));
    assert_ptr_equal(cpu, rt->cpu);
    assert_ptr_equal(first, emo__registry_get(rt->registry, 1));
    assert_ptr_equal(second, emo__registry_get(rt->registry, 2));
    static const char *const unknown[] = {"few:2", "few:", "few:x", "few:-1", "cuda", "", "fe", "few:0000"};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        EXPECT_STATUS(emo__registry_open(rt->registry, unknown[i], &none, &err), EMO_E_NOT_FOUND, "cpu, few, few");
        assert_null(none);
    }
    emo_runtime_release(rt);
}

/* The plug-in has gemm and a fill: a linear layer comes from the composed default, RoPE does not exist. */
static void a_small_table_is_completed(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(2, EMO_ISA_AUTO);
    EXPECT_OK(emo_runtime_load_backend(rt, plugin("plugin_few"), &err));
    emo_backend *few = emo__registry_get(rt->registry, 1);
    emo_exec *exec;
    EXPECT_OK(few->ops->exec_create(few, NULL, &exec, &err));
    float x[6] = {1, 2, 3, 4, 5, 6}, w[6] = {1, 0, 1, 0, 2, 0}, bias[2] = {10, 20}, y[4], dx[6], dw[6] = {0};
    float dy[4] = {1, 0, 0, 1}, d_bias[2] = {5, 5};
    emo_linear_args a = {.tokens = 2,
                         .x = x,
                         .x_stride = 3,
                         .weight = {w, NULL, EMO_DTYPE_F32, EMO_LAYOUT_ROWS, 2, 3, 3},
                         .bias = {bias, NULL, EMO_DTYPE_F32, EMO_LAYOUT_ROWS, 1, 2, 2},
                         .y = y,
                         .y_stride = 2,
                         .dy = dy,
                         .dx = dx,
                         .d_weight = dw,
                         .d_bias = d_bias};
    EXPECT_OK(few->ops->linear_forward(exec, &a, &err));
    EXPECT_OK(few->ops->linear_backward(exec, &a, &err));
    static const float want_y[4] = {14, 24, 20, 30}, want_dx[6] = {1, 0, 1, 0, 2, 0}, want_bias[2] = {6, 6};
    assert_memory_equal(y, want_y, sizeof y);
    assert_memory_equal(dx, want_dx, sizeof dx);
    assert_memory_equal(dw, x, sizeof dw);
    assert_memory_equal(d_bias, want_bias, sizeof d_bias);
    emo_rope_args rope = {.tokens = 1};
    EXPECT_STATUS(few->ops->rope(exec, &rope, &err), EMO_E_UNSUPPORTED, "'few' has no operator 'rope'");
    /* a composed operator whose primitives are missing fails and frees what it took */
    emo_swiglu_args glu = {.tokens = 1, .inner = 2, .gate = x, .up = x, .stride = 2, .y = y};
    EXPECT_STATUS(few->ops->swiglu_forward(exec, &glu, &err), EMO_E_UNSUPPORTED, "");
    few->ops->exec_destroy(exec);
    emo_runtime_release(rt);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cpu_is_device_0),
        cmocka_unit_test(bad_libraries_give_a_status),
        cmocka_unit_test(devices_of_a_plugin_are_listed_and_found),
        cmocka_unit_test(a_small_table_is_completed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
