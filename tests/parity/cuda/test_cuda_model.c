/* SPDX-License-Identifier: Apache-2.0 */
/* Whole models on the CUDA back end against the CPU: training, resuming, sessions, selection, subsets, running out of
 * memory. */
#include "cudasim/control.h"
#include "support/device_cases.h"
#include "support/mirror.h"

static void add(emo_runtime *rt) {
    emo_error err = EMO_ERROR_INIT;
    if (mirror_plugin() == NULL)
        skip();
    EXPECT_OK(emo_runtime_load_backend(rt, mirror_plugin(), &err));
}

static size_t live(void) {
    const cudasim_control_table *simulator = mirror_simulator(mirror_plugin());
    if (simulator == NULL)
        skip();
    return simulator->live();
}

static void fail_allocation(int n) {
    const cudasim_control_table *simulator = mirror_simulator(mirror_plugin());
    if (simulator == NULL)
        skip();
    simulator->fail_allocation(n);
}

static void nothing_was_found(void **state) {
    (void)state;
    if (mirror_plugin() == NULL)
        skip();
    mirror_expect_clean(mirror_plugin());
}

int main(void) {
    /* f32: every operator is within some 1e-6 of the CPU's (the other parity tests), and eight steps at a learning rate
     * of 0.01 carry that to the weights; where a gradient is near zero AdamW's division enlarges it. A wrong formula
     * shows as 1e-2 and more. bf16: a rounding of 2^-9 moves choices between experts that are almost equal, and a
     * changed choice moves a weight by some steps of 0.01. */
    static const device_kind cuda = {"cuda", add, 2e-4, 0.05, live, fail_allocation};
    const struct CMUnitTest tests[] = {DEVICE_CASES, cmocka_unit_test(nothing_was_found)};
    device_under_test = &cuda;
    return cmocka_run_group_tests(tests, setup, teardown);
}
