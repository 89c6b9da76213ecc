/* SPDX-License-Identifier: Apache-2.0 */
/* The cases of test_composed.c with the CUDA back end in the place of the composed defaults. */
#define PARITY_ON_PLUGIN
#include "parity/test_composed.c" /* NOLINT(bugprone-suspicious-include) */
