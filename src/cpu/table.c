/* SPDX-License-Identifier: Apache-2.0 */
/* Which file supplies which operators: one register function per family. */
#include "cpu/cpu.h"
#include "cpu/route_ops.h"

void emo__cpu_register_all(emo_backend_ops *ops) { emo__cpu_register_route(ops); }
