/* SPDX-License-Identifier: Apache-2.0 */
#include "media/exif.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

enum { ORIENTATION = 0x0112, SHORT = 3, ENTRY = 12 };

static uint32_t number(const uint8_t *p, int bytes, bool big) {
    uint32_t v = 0;
    for (int i = 0; i < bytes; i++)
        v = v << 8 | p[big ? i : bytes - 1 - i];
    return v;
}

int wan_exif_orientation(const uint8_t *tiff, size_t size) {
    if (size < 8 || (memcmp(tiff, "II*\0", 4) != 0 && memcmp(tiff, "MM\0*", 4) != 0))
        return 1;
    bool big = tiff[0] == 'M';
    size_t at = number(tiff + 4, 4, big);
    if (at > size - 2)
        return 1;
    size_t count = number(tiff + at, 2, big), room = (size - at - 2) / ENTRY;
    const uint8_t *entry = tiff + at + 2;
    for (size_t i = 0; i < count && i < room; i++, entry += ENTRY) {
        if (number(entry, 2, big) != ORIENTATION)
            continue;
        uint32_t v = number(entry + 8, 2, big);
        bool fine = number(entry + 2, 2, big) == SHORT && number(entry + 4, 4, big) == 1;
        return fine && v >= 1 && v <= 8 ? (int)v : 1;
    }
    return 1;
}

/* Output pixel (x, y) is the source pixel origin + x * right + y * down. */
void wan_exif_turn(const uint8_t *src, int w, int h, int orientation, uint8_t *dst) {
    assert(orientation >= 1 && orientation <= 8);
    bool swapped = orientation >= 5;
    bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    bool from_below = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    ptrdiff_t across = from_right ? -3 : 3, along = (ptrdiff_t)w * (from_below ? -3 : 3);
    ptrdiff_t right = swapped ? along : across, down = swapped ? across : along;
    const uint8_t *row = src + (from_right ? (ptrdiff_t)(w - 1) * 3 : 0) +
                         (from_below ? (ptrdiff_t)(h - 1) * w * 3 : 0);
    int out_w = swapped ? h : w, out_h = swapped ? w : h;
    for (int y = 0; y < out_h; y++)
        for (int x = 0; x < out_w; x++, dst += 3)
            memcpy(dst, row + x * right + y * down, 3);
}
