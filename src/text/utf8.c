/* SPDX-License-Identifier: Apache-2.0 */
#include "text/utf8.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

size_t wan_utf8_check(const char *s, size_t n) {
    size_t at = 0;
    while (at < n) {
        int length = wan_utf8_length(s + at, n - at);
        if (length == 0)
            return at;
        at += (size_t)length;
    }
    return n;
}

uint32_t wan_utf8_read(const char **s) {
    const unsigned char *b = (const unsigned char *)*s;
    if (b[0] < 0x80) {
        *s += 1;
        return b[0];
    }
    int length = b[0] < 0xE0 ? 2 : b[0] < 0xF0 ? 3 : 4;
    uint32_t code = b[0] & (0x7Fu >> length);
    for (int i = 1; i < length; i++)
        code = code << 6 | (b[i] & 0x3Fu);
    *s += length;
    return code;
}

uint32_t wan_windows_1252(uint32_t code) {
    /* Five of the 32 mean nothing there either and stand for themselves. */
    static const uint16_t windows[32] = {
        0x20AC, 0x0081, 0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160,
        0x2039, 0x0152, 0x008D, 0x017D, 0x008F, 0x0090, 0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
        0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0x009D, 0x017E, 0x0178};
    return code >= 0x80 && code <= 0x9F ? windows[code - 0x80] : code;
}

/* Room for `more` bytes and the NUL. */
static bool reserve(text_out *out, size_t more) {
    if (out->failed)
        return false;
    if (out->room - out->size > more)
        return true;
    size_t room = out->size + more + 1;
    room += room / 2 + 32;
    char *s = room > out->size ? realloc(out->s, room) : NULL;
    if (!s) {
        out->failed = true;
        return false;
    }
    out->s = s;
    out->room = room;
    return true;
}

void wan_text_put(text_out *out, const char *s, size_t n) {
    if (!reserve(out, n))
        return;
    memcpy(out->s + out->size, s, n);
    out->size += n;
    out->s[out->size] = '\0';
}

void wan_text_put_char(text_out *out, uint32_t code) {
    assert(code <= 0x10FFFF && !(code >= 0xD800 && code <= 0xDFFF));
    char b[4];
    size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; code >>= 6)
        b[i] = (char)(0x80 | (code & 0x3F));
    b[0] = (char)(n == 1 ? code : (0xF00u >> n & 0xFF) | code);
    wan_text_put(out, b, n);
}

void wan_text_reset(text_out *out) {
    out->size = 0;
    if (out->s)
        out->s[0] = '\0';
}
