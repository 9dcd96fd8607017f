/* SPDX-License-Identifier: Apache-2.0 */
#include "media/quality.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#define WINDOW WAN_SSIM_WINDOW
#define SIGMA 1.5
#define C1 (0.01 * 255 * 0.01 * 255)
#define C2 (0.03 * 255 * 0.03 * 255)

enum { A, B, AA, BB, AB, SUMS }; /* what the window weighs: both lumas, squares and product */

static double luma(const uint8_t *rgb) {
    return 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2];
}

static void gaussian(double window[WINDOW]) {
    double sum = 0;
    for (int i = 0; i < WINDOW; i++) {
        double x = i - WINDOW / 2;
        sum += window[i] = exp(-x * x / (2 * SIGMA * SIGMA));
    }
    for (int i = 0; i < WINDOW; i++)
        window[i] /= sum;
}

/* One row of both pictures, weighed across: out [SUMS][width - WINDOW + 1].  line holds
 * [SUMS][width]. */
static void weigh_row(const uint8_t *a, const uint8_t *b, size_t width, const double *window,
                      double *line, double *out) {
    size_t places = width - WINDOW + 1;
    for (size_t x = 0; x < width; x++) {
        double p = luma(a + 3 * x), q = luma(b + 3 * x);
        line[A * width + x] = p;
        line[B * width + x] = q;
        line[AA * width + x] = p * p;
        line[BB * width + x] = q * q;
        line[AB * width + x] = p * q;
    }
    for (size_t k = 0; k < SUMS; k++)
        for (size_t x = 0; x < places; x++) {
            double sum = 0;
            for (size_t i = 0; i < WINDOW; i++)
                sum += window[i] * line[k * width + x + i];
            out[k * places + x] = sum;
        }
}

/* SSIM at one place, from the weighted means. */
static double similarity(const double m[SUMS]) {
    double aa = m[A] * m[A], bb = m[B] * m[B], ab = m[A] * m[B];
    return (2 * ab + C1) * (2 * (m[AB] - ab) + C2) /
           ((aa + bb + C1) * (m[AA] - aa + (m[BB] - bb) + C2));
}

/* The sum over a row of places; ring holds the last WINDOW weighed rows, the oldest at `oldest`. */
static double similarity_row(const double *ring, size_t oldest, size_t places,
                             const double *window) {
    double sum = 0;
    for (size_t x = 0; x < places; x++) {
        double m[SUMS] = {0};
        for (size_t i = 0; i < WINDOW; i++) {
            const double *row = ring + (oldest + i) % WINDOW * SUMS * places;
            for (size_t k = 0; k < SUMS; k++)
                m[k] += window[i] * row[k * places + x];
        }
        sum += similarity(m);
    }
    return sum;
}

static wan_status ssim(const uint8_t *a, const uint8_t *b, size_t width, size_t height,
                       double *result, error *err) {
    double window[WINDOW], sum = 0;
    size_t places = width - WINDOW + 1, row = SUMS * places;
    double *line = malloc(SUMS * width * sizeof *line);
    double *ring = malloc(WINDOW * row * sizeof *ring);
    wan_status status = WAN_OK;
    if (!line || !ring) {
        status = wan_fail(err, WAN_E_MEMORY, "no memory to compare frames %zu wide", width);
        goto done;
    }
    gaussian(window);
    for (size_t y = 0; y < height; y++) {
        weigh_row(a + y * width * 3, b + y * width * 3, width, window, line,
                  ring + y % WINDOW * row);
        if (y + 1 >= WINDOW)
            sum += similarity_row(ring, (y + 1) % WINDOW, places, window);
    }
    *result = sum / ((double)places * (double)(height - WINDOW + 1));
done:
    free(ring);
    free(line);
    return status;
}

wan_status wan_quality_frame(const uint8_t *a, const uint8_t *b, int width, int height, quality *q,
                             error *err) {
    assert(width >= WINDOW && height >= WINDOW);
    size_t n = (size_t)width * (size_t)height * 3;
    uint64_t squares = 0, sum = 0; /* at most 2^30 bytes of 2^16 each */
    int most = 0;
    for (size_t i = 0; i < n; i++) {
        int d = abs(a[i] - b[i]);
        squares += (uint64_t)(d * d);
        sum += (uint64_t)d;
        most = d > most ? d : most;
    }
    *q =
        (quality){.mse = (double)squares / (double)n, .mae = (double)sum / (double)n, .most = most};
    return ssim(a, b, (size_t)width, (size_t)height, &q->ssim, err);
}

quality wan_quality_mean(const quality *q, size_t count) {
    quality m = {0};
    assert(count > 0);
    for (size_t i = 0; i < count; i++) {
        m.mse += q[i].mse;
        m.mae += q[i].mae;
        m.ssim += q[i].ssim;
        m.most = q[i].most > m.most ? q[i].most : m.most;
    }
    m.mse /= (double)count;
    m.mae /= (double)count;
    m.ssim /= (double)count;
    return m;
}

double wan_quality_psnr(double mse) {
    return mse > 0 ? 10 * log10(255.0 * 255.0 / mse) : INFINITY;
}
