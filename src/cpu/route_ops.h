/* SPDX-License-Identifier: Apache-2.0 */
/* The routing family's entries. */
#ifndef EMO_SRC_CPU_ROUTE_OPS_H
#define EMO_SRC_CPU_ROUTE_OPS_H

#include "cpu/cpu.h"

emo_status emo__cpu_route_forward(emo_exec *exec, const emo_route_args *a, emo_error *err);
emo_status emo__cpu_route_backward(emo_exec *exec, const emo_route_args *a, emo_error *err);
emo_status emo__cpu_plan(emo_exec *exec, const emo_plan_args *a, emo_error *err);
emo_status emo__cpu_balance(emo_exec *exec, const emo_balance_args *a, emo_error *err);
emo_status emo__cpu_balance_documents(emo_exec *exec, const emo_balance_documents_args *a, emo_error *err);

void emo__cpu_register_route(emo_backend_ops *ops);

#endif
