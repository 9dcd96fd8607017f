/* SPDX-License-Identifier: Apache-2.0 */
#include "io/utf8.h"

#include <stdint.h>

/* Bytes of the character at p, or 0. */
static size_t character(const uint8_t *p, size_t left) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (p[0] < 0x80)
        return p[0] >= 0x20 && p[0] != 0x7f;
    size_t n = p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
    if (n == 0 || n > left)
        return 0;
    uint32_t c = p[0] & (0xffu >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if (p[i] >> 6 != 2)
            return 0;
        c = c << 6 | (p[i] & 0x3fu);
    }
    bool good = c >= least[n] && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff) && c >= 0xa0;
    return good ? n : 0;
}

bool wan_utf8_plain(const char *text, size_t size) {
    const uint8_t *p = (const uint8_t *)text;
    while (size > 0) {
        size_t n = character(p, size);
        if (n == 0)
            return false;
        p += n;
        size -= n;
    }
    return true;
}
