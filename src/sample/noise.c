/* SPDX-License-Identifier: Apache-2.0 */
#include "sample/noise.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* Every rounding here is part of the result: fmaf where torch's AVX2 code fuses, separate
 * operations elsewhere.  The build must not contract or reorder (-ffp-contract=off, no
 * -ffast-math). */

enum { WORDS = 624, SHIFTED = 397, BLOCK = 16 };

void wan_noise_seed(noise_generator *g, uint64_t seed) {
    memset(g, 0, sizeof *g);
    g->state[0] = (uint32_t)seed; /* torch drops the upper half */
    for (uint32_t j = 1; j < WORDS; j++)
        g->state[j] = 1812433253u * (g->state[j - 1] ^ (g->state[j - 1] >> 30)) + j;
    g->at = WORDS;
}

/* The next 624 words of the Mersenne twister. */
static void twist(uint32_t *s) {
    for (int j = 0; j < WORDS; j++) {
        uint32_t y = (s[j] & 0x80000000u) | (s[(j + 1) % WORDS] & 0x7fffffffu);
        s[j] = s[(j + SHIFTED) % WORDS] ^ (y >> 1) ^ ((y & 1u) ? 0x9908b0dfu : 0u);
    }
}

static uint32_t next_word(noise_generator *g) {
    if (g->at == WORDS) {
        twist(g->state);
        g->at = 0;
    }
    uint32_t y = g->state[g->at++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

static float next_uniform(noise_generator *g) {
    return (float)(next_word(g) & 0xffffffu) * 0x1p-24f;
}

static double next_uniform_double(noise_generator *g) {
    uint64_t high = next_word(g);
    return (double)((high << 32 | next_word(g)) & 0x1fffffffffffffu) * 0x1p-53;
}

/* Natural logarithm of v in [2^-24, 1]: Cephes' polynomial, as the vector code evaluates it. */
static float vector_log(float v) {
    static const float poly[] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,
                                 -1.2420140846e-1f, 1.4249322787e-1f,  -1.6668057665e-1f,
                                 2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
    int exponent;
    float m = frexpf(v, &exponent);
    float e = (float)exponent;
    float x = m - 1.0f;
    if (m < 0.707106781186547524f) {
        e -= 1.0f;
        x += m;
    }
    float z = x * x;
    float y = poly[0];
    for (size_t i = 1; i < sizeof poly / sizeof poly[0]; i++)
        y = fmaf(y, x, poly[i]);
    y = y * x;
    y = fmaf(y, z, e * -2.12194440e-4f);
    y = fmaf(-z, 0.5f, y);
    x = x + y;
    return fmaf(e, 0.693359375f, x);
}

/* Sine and cosine of angle in [0, 2 pi): reduction to an eighth of a turn in three parts of pi / 4,
 * then Cephes. */
static void vector_sincos(float angle, float *sine, float *cosine) {
    int32_t q = (int32_t)(angle * 1.27323954473516f);
    q = (q + 1) & ~1;
    float n = (float)q;
    float x = fmaf(n, -0.78515625f, angle);
    x = fmaf(n, -2.4187564849853515625e-4f, x);
    x = fmaf(n, -3.77489497744594108e-8f, x);
    float z = x * x;

    float c = fmaf(2.443315711809948e-5f, z, -1.388731625493765e-3f);
    c = fmaf(c, z, 4.166664568298827e-2f);
    c = c * z;
    c = fmaf(c, z, -(z * 0.5f));
    c = c + 1.0f;

    float s = fmaf(-1.9515295891e-4f, z, 8.3321608736e-3f);
    s = fmaf(s, z, -1.6666654611e-1f);
    s = s * z;
    s = fmaf(s, x, x);

    if (q & 2) {
        float swap = s;
        s = c;
        c = swap;
    }
    *sine = (q & 4) ? -s : s;
    *cosine = (~(q - 2) & 4) ? -c : c;
}

/* Box and Muller over 16 uniforms in place: value j pairs with value j + 8.  torch adds the mean,
 * 0, which turns -0 into 0 where the radius is zero. */
static void normal_block(float *d) {
    for (int j = 0; j < BLOCK / 2; j++) {
        float radius = sqrtf(-2.0f * vector_log(1.0f - d[j]));
        float s, c;
        vector_sincos(6.283185307179586f * d[j + 8], &s, &c);
        d[j] = radius * c + 0.0f;
        d[j + 8] = radius * s + 0.0f;
    }
}

/* Fewer than 16 values: in double, one pair at a time; a left-over second half waits for the next
 * such draw. */
static float next_normal(noise_generator *g) {
    if (g->has_next) {
        g->has_next = 0;
        return (float)g->next_normal;
    }
    const double two_pi = 6.283185307179586476925;
    double u1 = next_uniform_double(g);
    double u2 = next_uniform_double(g);
    double radius = sqrt(-2.0 * log1p(-u2));
    g->next_normal = radius * sin(two_pi * u1);
    g->has_next = 1;
    return (float)(radius * cos(two_pi * u1));
}

void wan_noise_draw(noise_generator *g, float *dst, int64_t n) {
    assert(n >= 0);
    if (n < BLOCK) {
        for (int64_t i = 0; i < n; i++)
            dst[i] = next_normal(g);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        dst[i] = next_uniform(g);
    for (int64_t i = 0; i + BLOCK <= n; i += BLOCK)
        normal_block(dst + i);
    if (n % BLOCK) { /* the last 16 anew, over the end of the block before */
        float *tail = dst + n - BLOCK;
        for (int i = 0; i < BLOCK; i++)
            tail[i] = next_uniform(g);
        normal_block(tail);
    }
}
