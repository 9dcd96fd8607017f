/* SPDX-License-Identifier: Apache-2.0 */
/* utf8.h - is this text?  Names from files stand in messages and reports, so they must be. */
#ifndef WAN_IO_UTF8_H
#define WAN_IO_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of the character at s, at most n: 1 to 4, or 0 if they are not UTF-8 (overlong forms,
 * surrogates and numbers past U+10FFFF are not). */
int wan_utf8_length(const char *s, size_t n);
/* Valid UTF-8 (no surrogates, no overlong forms) without control characters. */
bool wan_utf8_plain(const char *text, size_t size);

#endif
