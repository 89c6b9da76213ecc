/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>

#include "base/runtime.h"

void emo__log(const emo_runtime *rt, emo_log_level level, const char *fmt, ...) {
    if (rt->log.log == NULL || level > rt->log.level)
        return;
    char message[1024];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    rt->log.log(rt->log.ctx, level, message);
}
