/* SPDX-License-Identifier: Apache-2.0 */
#include "base/resize.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LOBES 3 /* of the Lanczos window */
#define BITS                                                                                       \
    (32 - 8 - 2) /* of a weight's fraction: 8 for the sample, 2 against overflow of the sum */
#define PI 3.14159265358979323846

/* What one output sample is made of: `count` input samples from `first` on. */
typedef struct tap_range {
    int first, count;
} tap_range;

/* The weights of one direction: weight [out, taps], of which range[i].count are used. */
typedef struct axis {
    int taps;
    tap_range *range;
    int32_t *weight;
} axis;

static double sinc(double x) {
    return x == 0.0 ? 1.0 : sin(x * PI) / (x * PI);
}

static double lanczos(double x) {
    return x >= -LOBES && x < LOBES ? sinc(x) * sinc(x / LOBES) : 0.0;
}

/* How much the filter is widened: not at all when enlarging. */
static double stretch(int in, int out) {
    double scale = (double)in / out;
    return scale < 1.0 ? 1.0 : scale;
}

static int max_taps(int in, int out) {
    return (int)ceil(LOBES * stretch(in, out)) * 2 + 1;
}

/* The weights of output sample i; `exact` is room for a->taps of them before rounding. */
static void axis_weights(axis *a, int in, int out, int i, double *exact) {
    double wide = stretch(in, out), half = LOBES * wide;
    double centre = (i + 0.5) * ((double)in / out), sum = 0.0;
    int first = (int)(centre - half + 0.5), last = (int)(centre + half + 0.5);
    first = first < 0 ? 0 : first;
    last = last > in ? in : last;
    assert(first < last && last - first <= a->taps);
    for (int x = first; x < last; x++)
        sum += exact[x - first] = lanczos((x - centre + 0.5) * (1.0 / wide));
    int32_t *w = a->weight + (size_t)i * (size_t)a->taps;
    for (int k = 0; k < last - first; k++) {
        double v = (sum != 0.0 ? exact[k] / sum : exact[k]) * (1 << BITS);
        w[k] = (int32_t)(v < 0 ? v - 0.5 : v + 0.5); /* half away from zero */
    }
    a->range[i] = (tap_range){first, last - first};
}

static void axis_close(axis *a) {
    free(a->range);
    free(a->weight);
}

/* To be closed even when it fails. */
static bool axis_open(axis *a, int in, int out) {
    size_t taps = (size_t)max_taps(in, out);
    *a = (axis){.taps = (int)taps};
    double *exact = malloc(taps * sizeof *exact);
    a->range = malloc((size_t)out * sizeof *a->range);
    a->weight = malloc((size_t)out * taps * sizeof *a->weight);
    bool ok = exact && a->range && a->weight;
    for (int i = 0; ok && i < out; i++)
        axis_weights(a, in, out, i, exact);
    free(exact);
    return ok;
}

static uint8_t clip8(int32_t sum) {
    int32_t v = sum >> BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static void horizontal(const axis *a, const uint8_t *src, int sw, uint8_t *dst, int dw, int rows) {
    for (int y = 0; y < rows; y++, src += (size_t)sw * 3, dst += (size_t)dw * 3) {
        for (int x = 0; x < dw; x++) {
            const int32_t *w = a->weight + (size_t)x * (size_t)a->taps;
            const uint8_t *p = src + (size_t)a->range[x].first * 3;
            int32_t r = 1 << (BITS - 1), g = r, b = r;
            for (int k = 0; k < a->range[x].count; k++, p += 3) {
                r += w[k] * p[0];
                g += w[k] * p[1];
                b += w[k] * p[2];
            }
            dst[x * 3 + 0] = clip8(r);
            dst[x * 3 + 1] = clip8(g);
            dst[x * 3 + 2] = clip8(b);
        }
    }
}

/* `sum` is room for one row of `width` samples. */
static void vertical(const axis *a, const uint8_t *src, uint8_t *dst, size_t width, int dh,
                     int32_t *sum) {
    for (int y = 0; y < dh; y++, dst += width) {
        const int32_t *w = a->weight + (size_t)y * (size_t)a->taps;
        const uint8_t *p = src + (size_t)a->range[y].first * width;
        for (size_t i = 0; i < width; i++)
            sum[i] = 1 << (BITS - 1);
        for (int k = 0; k < a->range[y].count; k++, p += width)
            for (size_t i = 0; i < width; i++)
                sum[i] += w[k] * p[i];
        for (size_t i = 0; i < width; i++)
            dst[i] = clip8(sum[i]);
    }
}

/* Pillow 13 takes the vertical pass first where the height shrinks by more than twice what the
 * width loses (found by comparing: its results are rounded in between, so the order shows); older
 * ones never do. */
static bool vertical_first(int sw, int sh, int dw, int dh) {
    return dh < sh && sh - dh > 2 * ((int64_t)sw - dw);
}

/* Samples between the passes. */
static size_t between_size(int sw, int sh, int dw, int dh) {
    return 3 * (vertical_first(sw, sh, dw, dh) ? (size_t)sw * (size_t)dh : (size_t)dw * (size_t)sh);
}

size_t wan_resize_memory(int sw, int sh, int dw, int dh) {
    size_t x_taps = (size_t)max_taps(sw, dw), y_taps = (size_t)max_taps(sh, dh);
    return between_size(sw, sh, dw, dh) + (size_t)(sw > dw ? sw : dw) * 3 * sizeof(int32_t) +
           (x_taps + y_taps) * sizeof(double) +
           (size_t)dw * (x_taps * sizeof(int32_t) + sizeof(tap_range)) +
           (size_t)dh * (y_taps * sizeof(int32_t) + sizeof(tap_range));
}

wan_status wan_resize_lanczos(const uint8_t *src, int sw, int sh, uint8_t *dst, int dw, int dh,
                              error *err) {
    assert(sw > 0 && sh > 0 && dw > 0 && dh > 0);
    if (sw == dw && sh == dh) {
        memcpy(dst, src, (size_t)dw * 3 * (size_t)dh);
        return WAN_OK;
    }
    axis ax = {0}, ay = {0};
    uint8_t *between = malloc(between_size(sw, sh, dw, dh)); /* 8 bits again, as Pillow's are */
    int32_t *sum = malloc((size_t)(sw > dw ? sw : dw) * 3 * sizeof *sum);
    bool ok = between && sum && axis_open(&ax, sw, dw) && axis_open(&ay, sh, dh);
    if (ok && vertical_first(sw, sh, dw, dh)) {
        vertical(&ay, src, between, (size_t)sw * 3, dh, sum);
        horizontal(&ax, between, sw, dst, dw, dh);
    } else if (ok) {
        horizontal(&ax, src, sw, between, dw, sh);
        vertical(&ay, between, dst, (size_t)dw * 3, dh, sum);
    }
    axis_close(&ay);
    axis_close(&ax);
    free(sum);
    free(between);
    if (!ok)
        return wan_fail(err, WAN_E_MEMORY,
                        "stretching a picture from %dx%d to %dx%d needs %zu bytes", sw, sh, dw, dh,
                        wan_resize_memory(sw, sh, dw, dh));
    return WAN_OK;
}
