/* SPDX-License-Identifier: Apache-2.0 */
/* utf8.h - UTF-8 text: checking it, reading code points, and building a new string.
 * Past wan_utf8_check everything here trusts its text.  No state; a text_out belongs to its caller.
 */
#ifndef WAN_TEXT_UTF8_H
#define WAN_TEXT_UTF8_H

#include "io/utf8.h" /* wan_utf8_length */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where the first byte is that belongs to no character; n if there is none. */
size_t wan_utf8_check(const char *s, size_t n);
/* The character at s, which is valid; *s moves past it. */
uint32_t wan_utf8_read(const char **s);
/* C1 controls (U+0080 to U+009F) are mostly meant as Windows-1252, and browsers read them so; the
 * rest stays. */
uint32_t wan_windows_1252(uint32_t code);

/* A string that grows.  When memory runs out `failed` stays set and further text is dropped. */
typedef struct text_out {
    char *s; /* `size` bytes and a NUL behind them, or NULL while nothing was written; freed by the
                owner */
    size_t size, room;
    bool failed;
} text_out;

void wan_text_put(text_out *out, const char *s, size_t n);
/* A code point that is no surrogate and at most U+10FFFF. */
void wan_text_put_char(text_out *out, uint32_t code);
/* Back to the empty string; memory is kept. */
void wan_text_reset(text_out *out);

#endif
