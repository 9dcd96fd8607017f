/* SPDX-License-Identifier: Apache-2.0 */
/* PSNR, SSIM and mean absolute error against what is known of them: equal frames, a known error,
 * scikit-image, and the formula written out. */
#include "media/quality.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int noise(uint32_t *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return (int)(*seed >> 24);
}

static uint8_t clip8(int v) {
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* As tools/make_quality_values.py draws them. */
static void draw(int width, int height, uint32_t seed, int levels, uint8_t *a, uint8_t *b) {
    uint32_t again = seed + 1;
    for (int i = 0; i < width * height * 3; i++) {
        int v = i / 3 % width * 200 / width + noise(&seed) / 5;
        a[i] = clip8(v);
        b[i] = clip8(v + noise(&again) % (2 * levels + 1) - levels);
    }
}

static quality measure(const uint8_t *a, const uint8_t *b, int width, int height) {
    quality q;
    error err = {0};
    if (wan_quality_frame(a, b, width, height, &q, &err) != WAN_OK)
        fail_msg("%s", err.message);
    return q;
}

static void near(double got, double want, double tolerance, const char *what) {
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s is %.12f, not %.12f", what, got, want);
}

static void equal_frames(void **state) {
    (void)state;
    static uint8_t a[64 * 48 * 3], b[64 * 48 * 3];
    draw(64, 48, 9, 5, a, b);
    quality q = measure(a, a, 64, 48);
    assert_true(q.mse == 0 && q.mae == 0 && q.most == 0 && q.ssim == 1);
    assert_true(isinf(wan_quality_psnr(q.mse)));
    memset(a, 0, sizeof a); /* flat ones too, where the variances are zero */
    assert_true(measure(a, a, 64, 48).ssim == 1);
}

static void known_error(void **state) {
    (void)state;
    static uint8_t a[32 * 16 * 3], b[32 * 16 * 3];
    uint32_t seed = 1;
    for (size_t i = 0; i < sizeof a; i++) {
        a[i] = (uint8_t)(20 + noise(&seed) % 200);
        b[i] = (uint8_t)(a[i] + (i % 2 ? 5 : -5));
    }
    quality q = measure(a, b, 32, 16);
    assert_true(q.mse == 25 && q.mae == 5 && q.most == 5);
    near(wan_quality_psnr(q.mse), 20 * log10(255.0 / 5), 1e-12, "PSNR");
    /* Flat frames have only SSIM's first term. */
    memset(a, 100, sizeof a);
    memset(b, 110, sizeof b);
    double c1 = 0.01 * 255 * 0.01 * 255;
    near(measure(a, b, 32, 16).ssim, (2 * 100 * 110 + c1) / (100 * 100 + 110 * 110 + c1), 1e-9,
         "SSIM");
    /* The worst there is. */
    memset(a, 0, sizeof a);
    memset(b, 255, sizeof b);
    q = measure(a, b, 32, 16);
    assert_true(q.mse == 65025 && q.mae == 255 && q.most == 255);
    near(wan_quality_psnr(q.mse), 0, 1e-12, "PSNR");
}

/* scikit-image 0.26.0, through tools/make_quality_values.py. */
static const struct {
    int width, height, seed, levels;
    double psnr, ssim, mae;
} known[] = {
    {11, 11, 1, 3, 42.071493612139, 0.998608161785, 1.727272727273},
    {16, 12, 2, 10, 32.315541978786, 0.978817933452, 5.343750000000},
    {37, 29, 3, 40, 20.462948066684, 0.561422048770, 21.068654861758},
    {64, 48, 4, 1, 49.905876449208, 0.998861345995, 0.664496527778},
    {40, 64, 5, 120, 11.749705363033, 0.110876690280, 56.750911458333},
};

static void as_scikit_image(void **state) {
    (void)state;
    static uint8_t a[64 * 64 * 3], b[64 * 64 * 3];
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        draw(known[i].width, known[i].height, (uint32_t)known[i].seed, known[i].levels, a, b);
        quality q = measure(a, b, known[i].width, known[i].height);
        near(wan_quality_psnr(q.mse), known[i].psnr, 1e-10, "PSNR");
        near(q.ssim, known[i].ssim, 1e-10, "SSIM");
        near(q.mae, known[i].mae, 1e-10, "mean error");
        quality r = measure(b, a, known[i].width, known[i].height);
        assert_true(r.mse == q.mse && r.mae == q.mae && fabs(r.ssim - q.ssim) < 1e-12);
    }
}

static double luma(const uint8_t *rgb) {
    return 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2];
}

/* The paper's formula at one place, with the window in two dimensions and central moments. */
static double ssim_at(const uint8_t *a, const uint8_t *b, int width, int left, int top) {
    double w[11][11], all = 0, ma = 0, mb = 0, va = 0, vb = 0, vab = 0;
    for (int y = 0; y < 11; y++)
        for (int x = 0; x < 11; x++)
            all += w[y][x] = exp(-((x - 5) * (x - 5) + (y - 5) * (y - 5)) / (2 * 1.5 * 1.5));
    for (int pass = 0; pass < 2; pass++)
        for (int y = 0; y < 11; y++)
            for (int x = 0; x < 11; x++) {
                int at = ((top + y) * width + left + x) * 3;
                double p = luma(a + at), q = luma(b + at), k = w[y][x] / all;
                ma += pass ? 0 : k * p;
                mb += pass ? 0 : k * q;
                va += pass ? k * (p - ma) * (p - ma) : 0;
                vb += pass ? k * (q - mb) * (q - mb) : 0;
                vab += pass ? k * (p - ma) * (q - mb) : 0;
            }
    double c1 = 2.55 * 2.55, c2 = 7.65 * 7.65;
    return (2 * ma * mb + c1) * (2 * vab + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2));
}

static void as_the_formula(void **state) {
    (void)state;
    static uint8_t a[31 * 31 * 3], b[31 * 31 * 3];
    static const int size[][2] = {{11, 11}, {12, 31}, {31, 11}, {23, 19}};
    for (size_t i = 0; i < sizeof size / sizeof size[0]; i++) {
        int w = size[i][0], h = size[i][1];
        double sum = 0;
        draw(w, h, 77 + (uint32_t)i, 25, a, b);
        for (int y = 0; y + 11 <= h; y++)
            for (int x = 0; x + 11 <= w; x++)
                sum += ssim_at(a, b, w, x, y);
        near(measure(a, b, w, h).ssim, sum / ((w - 10) * (h - 10)), 1e-9, "SSIM");
    }
}

static void means(void **state) {
    (void)state;
    quality q[3] = {{1, 2, 0.5, 7}, {3, 4, 0.25, 9}, {5, 0, 0.75, 8}};
    quality m = wan_quality_mean(q, 3);
    assert_true(m.mse == 3 && m.mae == 2 && m.ssim == 0.5 && m.most == 9);
    m = wan_quality_mean(q + 2, 1);
    assert_true(m.mse == 5 && m.mae == 0 && m.ssim == 0.75 && m.most == 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_frames),    cmocka_unit_test(known_error),
        cmocka_unit_test(as_scikit_image), cmocka_unit_test(as_the_formula),
        cmocka_unit_test(means),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
