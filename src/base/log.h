/* SPDX-License-Identifier: Apache-2.0 */
/* log.h - the library's only voice: a callback.  Passed by value; fn may be NULL. */
#ifndef WAN_BASE_LOG_H
#define WAN_BASE_LOG_H

#include "wan.h"

typedef struct logger {
    wan_log_fn fn;
    void *user;
} logger;

__attribute__((format(printf, 3, 4))) void wan_log(logger l, wan_log_level level,
                                                   const char *format, ...);

#endif
