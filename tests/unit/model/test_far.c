/* SPDX-License-Identifier: Apache-2.0 */
/* Models on a device whose memory the host cannot touch: everything as on the CPU, to the bit. */
#include "support/device_cases.h"
#include "support/far.h"

int main(void) {
    static const device_kind far = {"far", far_add, 0.0, 0.0, far_live_bytes, far_fail_allocation};
    const struct CMUnitTest tests[] = {DEVICE_CASES};
    device_under_test = &far;
    return cmocka_run_group_tests(tests, setup, teardown);
}
