/* SPDX-License-Identifier: Apache-2.0 */
/* error.h - how a call says what went wrong.
 * The place that finds a fault writes the sentence once (file, thing, both numbers); callers pass
 * it on. An error is owned by whoever declared it; nothing is allocated. */
#ifndef WAN_BASE_ERROR_H
#define WAN_BASE_ERROR_H

#include "wan.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef wan_error error;

/* Writes code and sentence into err (which may be NULL) and returns code, so that `return
 * wan_fail(...)` works. The first failure wins: an err that already holds one is left alone. */
__attribute__((format(printf, 3, 4))) wan_status wan_fail(error *err, wan_status code,
                                                          const char *format, ...);

/* Forgets what err holds. */
void wan_error_clear(error *err);

#ifdef __cplusplus
}
#endif

#endif
