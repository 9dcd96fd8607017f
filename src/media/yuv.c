/* SPDX-License-Identifier: Apache-2.0 */
#include "media/yuv.h"

#include <assert.h>

/* BT.709's luma weights, and the rest of the matrix that follows from them. */
#define KR 0.2126
#define KG 0.7152
#define KB 0.0722
#define CB (224.0 / 255.0 / (2.0 - 2.0 * KB)) /* of B' - Y' */
#define CR (224.0 / 255.0 / (2.0 - 2.0 * KR)) /* of R' - Y' */

#define BITS 16 /* of a fraction; 255 * 8 samples * 65536 stays within 31 bits */
#define FIX(x) ((int32_t)((x) * (1 << BITS) + ((x) < 0 ? -0.5 : 0.5)))

static void luma_row(const uint8_t *rgb, int width, uint8_t *out) {
    const int32_t r = FIX(KR * 219 / 255), g = FIX(KG * 219 / 255), b = FIX(KB * 219 / 255);
    for (int x = 0; x < width; x++)
        out[x] = (uint8_t)((r * rgb[3 * x] + g * rgb[3 * x + 1] + b * rgb[3 * x + 2] +
                            (16 << BITS) + (1 << (BITS - 1))) >>
                           BITS);
}

/* [1 2 1] across, centred on the even column, [1 1] down: eight times the colour where the chroma
 * sample lies. */
static int32_t gather(const uint8_t *a, const uint8_t *b, int before, int after) {
    return a[before] + 2 * a[0] + a[after] + b[before] + 2 * b[0] + b[after];
}

static void chroma_row(const uint8_t *top, const uint8_t *bottom, int width, uint8_t *cb,
                       uint8_t *cr) {
    const int32_t ur = FIX(-KR * CB / 8), ug = FIX(-KG * CB / 8), ub = FIX((1 - KB) * CB / 8);
    const int32_t vr = FIX((1 - KR) * CR / 8), vg = FIX(-KG * CR / 8), vb = FIX(-KB * CR / 8);
    const int32_t centre = (128 << BITS) + (1 << (BITS - 1));
    for (int x = 0; x < width; x += 2, top += 6, bottom += 6) {
        int before = x ? -3 : 0;
        int32_t r = gather(top, bottom, before, 3), g = gather(top + 1, bottom + 1, before, 3);
        int32_t b = gather(top + 2, bottom + 2, before, 3);
        *cb++ = (uint8_t)((ur * r + ug * g + ub * b + centre) >> BITS);
        *cr++ = (uint8_t)((vr * r + vg * g + vb * b + centre) >> BITS);
    }
}

void wan_yuv_from_rgb(const uint8_t *rgb, int width, int height, uint8_t *const plane[3],
                      const int stride[3]) {
    assert(width % 2 == 0 && height % 2 == 0);
    size_t row = (size_t)width * 3;
    for (int y = 0; y < height; y++)
        luma_row(rgb + (size_t)y * row, width, plane[0] + (ptrdiff_t)y * stride[0]);
    for (int y = 0; y < height / 2; y++)
        chroma_row(rgb + (size_t)(2 * y) * row, rgb + (size_t)(2 * y + 1) * row, width,
                   plane[1] + (ptrdiff_t)y * stride[1], plane[2] + (ptrdiff_t)y * stride[2]);
}
