/* SPDX-License-Identifier: Apache-2.0 */
/* Which file supplies which operators: one register function per family. */
#include "cpu/cpu.h"

void emo__cpu_register_all(emo_backend_ops *ops) { (void)ops; }
