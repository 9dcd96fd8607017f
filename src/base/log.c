/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

void wan_log(logger l, wan_log_level level, const char *format, ...) {
    if (!l.fn)
        return;
    char text[1000];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    l.fn(l.user, level, text);
}
