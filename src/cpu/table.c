/* SPDX-License-Identifier: Apache-2.0 */
/* Which file supplies which operators: one register function per family. */
#include "cpu/cpu.h"
#include "cpu/route_ops.h"

void emo__cpu_register_all(emo_backend_ops *ops) {
    emo__cpu_register_gemm(ops);
    emo__cpu_register_swiglu(ops);
    emo__cpu_register_experts(ops);
    emo__cpu_register_route(ops);
    emo__cpu_register_embed(ops);
    emo__cpu_register_norm(ops);
    emo__cpu_register_attention(ops);
    emo__cpu_register_head(ops);
    emo__cpu_register_optim(ops);
    emo__cpu_register_sample(ops);
    emo__cpu_register_primitives(ops);
}
