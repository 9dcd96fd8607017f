/* SPDX-License-Identifier: Apache-2.0 */
#include "io/utf8.h"

int wan_utf8_length(const char *s, size_t n) {
    const unsigned char *b = (const unsigned char *)s;
    if (n == 0)
        return 0;
    if (b[0] < 0x80)
        return 1;
    int length = b[0] < 0xC2 ? 0 : b[0] < 0xE0 ? 2 : b[0] < 0xF0 ? 3 : b[0] < 0xF5 ? 4 : 0;
    if (length == 0 || n < (size_t)length)
        return 0;
    for (int i = 1; i < length; i++) {
        if ((b[i] & 0xC0) != 0x80)
            return 0;
    }
    /* The second byte decides what the first leaves open: overlong forms, surrogates, past the last
     * plane. */
    if ((b[0] == 0xE0 && b[1] < 0xA0) || (b[0] == 0xED && b[1] > 0x9F) ||
        (b[0] == 0xF0 && b[1] < 0x90) || (b[0] == 0xF4 && b[1] > 0x8F))
        return 0;
    return length;
}

/* C0 controls, DEL, and C1 controls (U+0080 to U+009F are C2 80 to C2 9F). */
static bool is_control(const char *s, int length) {
    const unsigned char *b = (const unsigned char *)s;
    return length == 1 ? b[0] < 0x20 || b[0] == 0x7f : b[0] == 0xC2 && b[1] < 0xA0;
}

bool wan_utf8_plain(const char *text, size_t size) {
    while (size > 0) {
        int n = wan_utf8_length(text, size);
        if (n == 0 || is_control(text, n))
            return false;
        text += n;
        size -= (size_t)n;
    }
    return true;
}
