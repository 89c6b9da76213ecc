/* SPDX-License-Identifier: Apache-2.0 */
#include "data/repetition.h"

bool emo__repeats(const int32_t *ids, int64_t n, int32_t max_period, int32_t count) {
    for (int64_t period = 1; period <= max_period && period * count <= n; period++) {
        int64_t same = 0; /* tokens in a row that equal the one a period before */
        for (int64_t i = period; i < n; i++) {
            same = ids[i] == ids[i - period] ? same + 1 : 0;
            if (same >= period * (count - 1))
                return true;
        }
    }
    return false;
}
