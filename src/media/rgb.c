/* SPDX-License-Identifier: Apache-2.0 */
#include "media/rgb.h"

#include <libavutil/pixdesc.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* Pixels of one plane: bytes a pixel, where R, G, B and alpha (or -1) begin, and whether samples
 * are 16 bits, big endian as PNG stores them. */
typedef struct packed {
    enum AVPixelFormat format;
    int step, r, g, b, a;
    bool wide;
} packed;

// clang-format off
static const packed packed_table[] = {
    { AV_PIX_FMT_RGB24,    3, 0, 1, 2, -1, false }, { AV_PIX_FMT_RGBA,     4, 0, 1, 2,  3, false },
    { AV_PIX_FMT_ARGB,     4, 1, 2, 3,  0, false }, { AV_PIX_FMT_GRAY8,    1, 0, 0, 0, -1, false },
    { AV_PIX_FMT_YA8,      2, 0, 0, 0,  1, false }, { AV_PIX_FMT_RGB48BE,  6, 0, 2, 4, -1, true  },
    { AV_PIX_FMT_RGBA64BE, 8, 0, 2, 4,  6, true  }, { AV_PIX_FMT_GRAY16BE, 2, 0, 0, 0, -1, true  },
    { AV_PIX_FMT_YA16BE,   4, 0, 0, 0,  2, true  },
};
// clang-format on

/* To the nearest level; Pillow cuts the low byte off instead, at most one level apart. */
static uint8_t narrow(const uint8_t *p) {
    return (uint8_t)((((uint32_t)p[0] << 8 | p[1]) * 255 + 32767) / 65535);
}

static void from_packed(const AVFrame *f, const packed *k, uint8_t *rgb, bool *transparent) {
    for (int y = 0; y < f->height; y++) {
        const uint8_t *p = f->data[0] + (ptrdiff_t)y * f->linesize[0];
        for (int x = 0; x < f->width; x++, p += k->step, rgb += 3) {
            rgb[0] = k->wide ? narrow(p + k->r) : p[k->r];
            rgb[1] = k->wide ? narrow(p + k->g) : p[k->g];
            rgb[2] = k->wide ? narrow(p + k->b) : p[k->b];
            if (k->a >= 0 && (p[k->a] != 255 || (k->wide && p[k->a + 1] != 255)))
                *transparent = true;
        }
    }
}

/* One byte an index; the palette is ARGB in the machine's order. */
static void from_palette(const AVFrame *f, uint8_t *rgb, bool *transparent) {
    uint32_t palette[256];
    memcpy(palette, f->data[1], sizeof palette);
    for (int y = 0; y < f->height; y++) {
        const uint8_t *p = f->data[0] + (ptrdiff_t)y * f->linesize[0];
        for (int x = 0; x < f->width; x++, rgb += 3) {
            uint32_t c = palette[p[x]];
            rgb[0] = (uint8_t)(c >> 16);
            rgb[1] = (uint8_t)(c >> 8);
            rgb[2] = (uint8_t)c;
            *transparent |= c >> 24 != 255;
        }
    }
}

/* Eight pixels a byte, the highest bit first; a set bit is white. */
static void from_bits(const AVFrame *f, uint8_t *rgb) {
    for (int y = 0; y < f->height; y++) {
        const uint8_t *p = f->data[0] + (ptrdiff_t)y * f->linesize[0];
        for (int x = 0; x < f->width; x++, rgb += 3)
            memset(rgb, p[x / 8] >> (7 - x % 8) & 1 ? 255 : 0, 3);
    }
}

/* Planes in the order G, B, R. */
static void from_planes(const AVFrame *f, uint8_t *rgb) {
    for (int y = 0; y < f->height; y++)
        for (int x = 0; x < f->width; x++, rgb += 3) {
            rgb[0] = f->data[2][(ptrdiff_t)y * f->linesize[2] + x];
            rgb[1] = f->data[0][(ptrdiff_t)y * f->linesize[0] + x];
            rgb[2] = f->data[1][(ptrdiff_t)y * f->linesize[1] + x];
        }
}

/* ----------------------------------------------------------------------------------------------------
 * YCbCr */

/* One chroma plane and how it lies under the luma: shifts of 0 (as fine), 1 (half as fine), 2. */
typedef struct chroma {
    const uint8_t *plane;
    ptrdiff_t stride;
    int width, height, shift_x, shift_y;
} chroma;

static uint8_t clip8(int v) {
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* The plane's row nearest to output row y and the next nearest; both the same at an edge. */
static void two_rows(const chroma *c, int y, const uint8_t **near, const uint8_t **far) {
    int n = y >> 1, k = y & 1 ? n + 1 : n - 1;
    k = k < 0 ? 0 : k >= c->height ? c->height - 1 : k;
    *near = c->plane + n * c->stride;
    *far = c->plane + k * c->stride;
}

/* libjpeg's "fancy" spreading: each sample is 3/4 of the nearest and 1/4 of the next, in each
 * halved direction; its rounding alternates.  It repeats samples where that is not defined: quarter
 * chroma, and planes of two columns. */
static void spread_jpeg(const chroma *c, int y, int width, int *sum, uint8_t *out) {
    if (c->shift_x > 1 || c->shift_y > 1 || (c->shift_x && c->width <= 2)) {
        const uint8_t *row = c->plane + (y >> c->shift_y) * c->stride;
        for (int x = 0; x < width; x++)
            out[x] = row[x >> c->shift_x];
        return;
    }
    const uint8_t *near = c->plane + y * c->stride, *far = near;
    if (c->shift_y)
        two_rows(c, y, &near, &far);
    if (!c->shift_x) {
        for (int x = 0; x < width; x++)
            out[x] =
                c->shift_y ? (uint8_t)((3 * near[x] + far[x] + (y & 1 ? 2 : 1)) >> 2) : near[x];
        return;
    }
    for (int x = 0; x < c->width; x++)
        sum[x] = c->shift_y ? 3 * near[x] + far[x] : near[x];
    int shift = c->shift_y ? 4 : 2, left_bias = c->shift_y ? 8 : 1, right_bias = c->shift_y ? 7 : 2;
    for (int x = 0; x < width; x++) {
        int n = x >> 1, k = x & 1 ? n + 1 : n - 1;
        k = k < 0 ? 0 : k >= c->width ? c->width - 1 : k;
        out[x] = (uint8_t)((3 * sum[n] + sum[k] + (x & 1 ? right_bias : left_bias)) >> shift);
    }
}

/* libwebp's: the same weights (9, 3, 3, 1) / 16 in two halving steps, each rounded its own way. */
static void spread_webp(const chroma *c, int y, int width, int *sum, uint8_t *out) {
    (void)sum;
    const uint8_t *n, *f;
    two_rows(c, y, &n, &f);
    out[0] = (uint8_t)((3 * n[0] + f[0] + 2) >> 2);
    for (int x = 1; x < c->width; x++) {
        int all = n[x - 1] + n[x] + f[x - 1] + f[x] + 8;
        int left = (all + 2 * (n[x] + f[x - 1])) >> 3, right = (all + 2 * (n[x - 1] + f[x])) >> 3;
        out[2 * x - 1] = (uint8_t)((left + n[x - 1]) >> 1);
        if (2 * x < width)
            out[2 * x] = (uint8_t)((right + n[x]) >> 1);
    }
    if (width % 2 == 0)
        out[width - 1] = (uint8_t)((3 * n[c->width - 1] + f[c->width - 1] + 2) >> 2);
}

/* JFIF: full range, BT.601, in libjpeg's 16-bit fractions. */
static void pixel_jpeg(int y, int cb, int cr, uint8_t *rgb) {
    cb -= 128;
    cr -= 128;
    rgb[0] = clip8(y + ((91881 * cr + 32768) >> 16));
    rgb[1] = clip8(y + ((-22554 * cb - 46802 * cr + 32768) >> 16));
    rgb[2] = clip8(y + ((116130 * cb + 32768) >> 16));
}

/* Limited range, BT.601, in libwebp's fractions: each product loses its low byte, the sum six more
 * bits. */
static void pixel_webp(int y, int u, int v, uint8_t *rgb) {
    int luma = (y * 19077) >> 8;
    rgb[0] = clip8((luma + ((v * 26149) >> 8) - 14234) >> 6);
    rgb[1] = clip8((luma - ((u * 6419) >> 8) - ((v * 13320) >> 8) + 8708) >> 6);
    rgb[2] = clip8((luma + ((u * 33050) >> 8) - 17685) >> 6);
}

static void find_alpha(const AVFrame *f, bool *transparent) {
    for (int y = 0; y < f->height && !*transparent; y++)
        for (int x = 0; x < f->width; x++)
            *transparent |= f->data[3][(ptrdiff_t)y * f->linesize[3] + x] != 255;
}

static wan_status from_ycbcr(const AVFrame *f, const AVPixFmtDescriptor *d, bool webp, uint8_t *rgb,
                             error *err) {
    int sx = d->log2_chroma_w, sy = d->log2_chroma_h;
    int cw = AV_CEIL_RSHIFT(f->width, sx), ch = AV_CEIL_RSHIFT(f->height, sy);
    chroma cb = {f->data[1], f->linesize[1], cw, ch, sx, sy};
    chroma cr = {f->data[2], f->linesize[2], cw, ch, sx, sy};
    size_t width = (size_t)f->width;
    uint8_t *rows = malloc(2 * width);
    int *sum = malloc((size_t)cw * sizeof *sum);
    for (int y = 0; rows && sum && y < f->height; y++) {
        const uint8_t *luma = f->data[0] + (ptrdiff_t)y * f->linesize[0];
        (webp ? spread_webp : spread_jpeg)(&cb, y, f->width, sum, rows);
        (webp ? spread_webp : spread_jpeg)(&cr, y, f->width, sum, rows + width);
        for (size_t x = 0; x < width; x++, rgb += 3)
            (webp ? pixel_webp : pixel_jpeg)(luma[x], rows[x], rows[width + x], rgb);
    }
    wan_status status = WAN_OK;
    if (!rows || !sum)
        status = wan_fail(err, WAN_E_MEMORY, "out of memory for a picture of %dx%d", f->width,
                          f->height);
    free(sum);
    free(rows);
    return status;
}

wan_status wan_rgb_from_frame(const AVFrame *f, bool webp, const char *name, uint8_t *rgb,
                              bool *transparent, error *err) {
    *transparent = false;
    for (size_t i = 0; i < COUNT(packed_table); i++)
        if (packed_table[i].format == f->format) {
            from_packed(f, &packed_table[i], rgb, transparent);
            return WAN_OK;
        }
    switch (f->format) {
    case AV_PIX_FMT_PAL8:
        from_palette(f, rgb, transparent);
        return WAN_OK;
    case AV_PIX_FMT_MONOBLACK:
        from_bits(f, rgb);
        return WAN_OK;
    case AV_PIX_FMT_GBRP:
    case AV_PIX_FMT_GBRAP: /* CMYK, made RGB by the decoder */
        from_planes(f, rgb);
        return WAN_OK;
    case AV_PIX_FMT_YUVA420P:
        find_alpha(f, transparent);
        break;
    case AV_PIX_FMT_YUV420P:
    case AV_PIX_FMT_YUVJ420P:
    case AV_PIX_FMT_YUV422P:
    case AV_PIX_FMT_YUVJ422P:
    case AV_PIX_FMT_YUV440P:
    case AV_PIX_FMT_YUVJ440P:
    case AV_PIX_FMT_YUV444P:
    case AV_PIX_FMT_YUVJ444P:
    case AV_PIX_FMT_YUV411P:
    case AV_PIX_FMT_YUVJ411P:
    case AV_PIX_FMT_YUV410P:
    case AV_PIX_FMT_YUVA444P: /* YCCK, made YCbCr by the decoder */
        break;
    default:
        return wan_fail(err, WAN_E_IMAGE, "%s: pixels of a kind that cannot be read (%s)", name,
                        av_get_pix_fmt_name(f->format) ? av_get_pix_fmt_name(f->format)
                                                       : "unknown");
    }
    return from_ycbcr(f, av_pix_fmt_desc_get(f->format), webp, rgb, err);
}
