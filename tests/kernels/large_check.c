/* SPDX-License-Identifier: Apache-2.0 */
/* Shapes of the 5B model, for devices that have tiles and schedules for them: a few thousand of the
 * results, drawn at random, against double precision. */
#include "check.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

typedef struct sample {
    int64_t n, *at;
    double *want, *tol;
} sample;

/* n of `all` results, the first and the last among them. */
static sample draw(check *t, int64_t all, int64_t n) {
    sample s = {.n = n,
                .at = host_alloc(t, sizeof(int64_t) * (size_t)n),
                .want = host_alloc(t, sizeof(double) * (size_t)n),
                .tol = host_alloc(t, sizeof(double) * (size_t)n)};
    for (int64_t i = 0; i < n; i++)
        s.at[i] = i == 0 ? 0 : i == 1 ? all - 1 : random_int(t, all);
    return s;
}

static void expect_sample(check *t, const char *what, tensor y, const sample *s) {
    expect_some(t, what, y, s->at, s->n, s->want, s->tol);
}

static void linear_case(check *t, dtype type, int64_t m, int64_t k, int64_t n, activation act) {
    size_t mark = wan_mark(t->c);
    float *hx, *hw, *hb;
    char what[96];
    tensor x = new_rows(t, WAN_DIMS(m, k), NORMAL, &hx);
    linear l = {.weight = new_weight(t, type, WAN_DIMS(n, k), NORMAL, &hw),
                .bias = new_f32(t, WAN_DIMS(n), NORMAL, &hb)};
    rounding rx = rounding_of(t, hx, m * k), rw = rounding_of(t, hw, n * k);
    sample s = draw(t, m * n, 1500);
    for (int64_t i = 0; i < s.n; i++)
        s.want[i] = reference_dot(hx + s.at[i] / n * k, rx, hw + s.at[i] % n * k, rw,
                                  hb[s.at[i] % n], k, act, &s.tol[i]);
    /* Where the result is of 16 bits so is the bias; no activation is steeper than 1.2. */
    for (int64_t i = 0; m % 2 && t->c->act != WAN_F32 && i < s.n; i++)
        s.tol[i] += 1.2 * 0x1p-9 * fabs(hb[s.at[i] % n]);
    snprintf(what, sizeof what, "%s [%lld, %lld] -> %lld, activation %d", wan_dtype(type)->name,
             (long long)m, (long long)k, (long long)n, act);
    guard_begin(t, sizeof(float) * (size_t)(m * n));
    tensor y = wan_new(t->c, m % 2 ? t->c->act : WAN_F32, WAN_DIMS(m, n));
    guard_begin(t, 0);
    wan_linear_into(t->c, y, x, &l, act);
    guard_end(t, y);
    expect_sample(t, what, y, &s);
    wan_release(t->c, mark);
}

CHECK(large_linear) {
    linear_case(t, WAN_BF16, 4725, 3072, 3072, WAN_NONE);
    linear_case(t, WAN_BF16, 4725, 3072, 1536, WAN_GELU_TANH);
    linear_case(t, WAN_BF16, 1125, 14336, 384, WAN_NONE);
    linear_case(t, WAN_BF16, 512, 4096, 3072, WAN_GELU_TANH);
    linear_case(t, WAN_F32, 2, 256, 3072, WAN_SILU);
    linear_case(t, WAN_BF16, 1, 3072, 18432, WAN_NONE);
    linear_case(t, WAN_BF16, 4725, 3072, 192, WAN_NONE); /* the head */
    linear_case(t, WAN_BF16, 4725, 192, 3072, WAN_NONE); /* patches */
    for (int type = 0; type < WAN_DTYPES; type++)
        if (wan_dtype((dtype)type)->weight)
            linear_case(t, (dtype)type, 301 + type % 2, 3072, 512, WAN_NONE);
}

static void attention_case(check *t, attention_shape s) {
    size_t mark = wan_mark(t->c);
    int64_t width = s.heads * s.size, reach = s.queries > s.keys ? s.queries : s.keys;
    float *hq, *hk, *hv, *hb = NULL;
    char what[96];
    tensor q = new_rows(t, WAN_DIMS(s.queries, width), NORMAL, &hq),
           k = new_rows(t, WAN_DIMS(s.keys, width), NORMAL, &hk),
           v = new_rows(t, WAN_DIMS(s.keys, width), NORMAL, &hv);
    attention a = {.heads = (int)s.heads,
                   .scale = (float)(s.spread / sqrt((double)s.size)),
                   .last_key_count = s.last_count};
    if (s.bias)
        a.bias = new_f32(t, WAN_DIMS(s.heads, 2 * reach - 1), NORMAL, &hb);
    snprintf(what, sizeof what, "%lld queries, %lld keys, %lld x %lld", (long long)s.queries,
             (long long)s.keys, (long long)s.heads, (long long)s.size);
    guard_begin(t, sizeof(float) * (size_t)(s.queries * width));
    tensor y = wan_attention(t->c, q, k, v, &a);
    guard_end(t, y);
    sample rows = draw(t, s.queries * s.heads, s.keys < 8000 ? 120 : 40),
           one = draw(t, s.size, s.size);
    double *weight = host_alloc(t, sizeof *weight * (size_t)s.keys);
    for (int64_t r = 0; r < rows.n; r++) {
        int64_t i = rows.at[r] / s.heads, h = rows.at[r] % s.heads, at = i * width + h * s.size;
        reference_attention(t, &s, hq + at, hk + h * s.size, hv + h * s.size,
                            s.bias ? hb + h * (2 * reach - 1) + reach - 1 - i : NULL, a.scale,
                            weight, one.want, one.tol);
        for (int64_t j = 0; j < s.size; j++)
            one.at[j] = at + j;
        expect_sample(t, what, y, &one);
    }
    wan_release(t->c, mark);
}

CHECK(large_attention) {
    static const attention_shape shapes[] = {
        {1125, 1125, 24, 128, 1, false, 1}, {1125, 1125, 4, 128, 1, false, 8},
        {4725, 4725, 3, 128, 1, false, 2},  {1125, 512, 24, 128, 1, false, 1},
        {1125, 37, 24, 128, 475, false, 1}, {512, 512, 64, 64, 1, true, 1},
        {61, 61, 64, 64, 1, true, 2},       {900, 900, 1, 1024, 1, false, 1},
        {129, 4097, 2, 128, 3, false, 1},   {1, 1000, 5, 128, 1, false, 1},
        {4096, 8192, 1, 128, 1, false, 1},  {4200, 8300, 2, 128, 1, false, 4},
    };
    for (size_t i = 0; i < COUNT(shapes); i++)
        attention_case(t, shapes[i]);
}

typedef struct conv_shape {
    int64_t t, h, w, in, out, kt, k;
    resample how;
} conv_shape;

/* Result number `at` of kernel w over x, double precision; frames in front of x are zero. */
static double conv_at(const conv_shape *s, const float *x, const float *w, int64_t at, double sum,
                      double *tol) {
    int64_t scale = s->how == WAN_UP2 ? 2 : 1, step = s->how == WAN_DOWN2 ? 2 : 1;
    int64_t width = s->w * scale / step, height = s->h * scale / step, taps = s->kt * s->k * s->k;
    int64_t o = at % s->out, col0 = at / s->out % width, row0 = at / s->out / width % height;
    int64_t pad = s->how == WAN_DOWN2 ? 0 : s->k / 2;
    double magnitude = fabs(sum);
    for (int64_t tap = 0; tap < taps; tap++) {
        int64_t f = at / s->out / width / height - (s->kt - 1) + tap / (s->k * s->k);
        int64_t row = row0 * step - pad + tap / s->k % s->k, col = col0 * step - pad + tap % s->k;
        if (f < 0 || row < 0 || col < 0 || row >= s->h * scale || col >= s->w * scale)
            continue;
        const float *in = x + ((f * s->h + row / scale) * s->w + col / scale) * s->in;
        for (int64_t i = 0; i < s->in; i++) {
            double p = (double)in[i] * w[(o * s->in + i) * taps + tap];
            sum += p;
            magnitude += fabs(p);
        }
    }
    *tol = tol_dot(taps * s->in, magnitude) + 1000 * FLT_MIN;
    return sum;
}

static void conv_case(check *t, const conv_shape *s) {
    size_t mark = wan_mark(t->c);
    bool flat = s->how != WAN_SAME || s->kt == 1;
    int64_t scale = s->how == WAN_UP2 ? 2 : 1, step = s->how == WAN_DOWN2 ? 2 : 1;
    float *hx, *hw, *hb, *start;
    char what[96];
    tensor x = new_act(t, WAN_DIMS(s->t, s->h, s->w, s->in), NORMAL, &hx);
    const int64_t deep[5] = {s->out, s->in, s->kt, s->k, s->k},
                  plain[4] = {s->out, s->in, s->k, s->k};
    conv w = {.channels_last = s->in % 3 == 0};
    w.weight = new_kernel(t, WAN_BF16, flat ? 4 : 5, flat ? plain : deep, w.channels_last, &hw);
    w.bias = new_f32(t, WAN_DIMS(s->out), NORMAL, &hb);
    tensor sum = new_act(t, WAN_DIMS(s->t, s->h * scale / step, s->w * scale / step, s->out),
                         NORMAL, &start);
    sample r = draw(t, wan_elements(sum), 1000);
    snprintf(what, sizeof what, "[%lld, %lld, %lld, %lld] -> %lld, kernel %lld, %lld, resample %d",
             (long long)s->t, (long long)s->h, (long long)s->w, (long long)s->in, (long long)s->out,
             (long long)s->kt, (long long)s->k, (int)s->how);
    for (int add = 0; add < 2; add++) {
        for (int64_t i = 0; i < r.n; i++)
            r.want[i] =
                conv_at(s, hx, hw, r.at[i],
                        hb[r.at[i] % s->out] + (double)(add ? start[r.at[i]] : 0), &r.tol[i]);
        size_t inner = wan_mark(t->c);
        tensor y = sum;
        if (!add)
            y = flat ? wan_conv2d(t->c, x, &w, s->how) : wan_conv3d(t->c, x, &w, NULL);
        else if (flat)
            wan_conv2d_add(t->c, y, x, &w, s->how);
        else
            wan_conv3d_add(t->c, y, x, &w, NULL);
        expect_sample(t, what, y, &r);
        wan_release(t->c, inner);
    }
    wan_release(t->c, mark);
}

CHECK(large_conv) {
    static const conv_shape shapes[] = {
        {5, 30, 30, 1024, 1024, 3, 3, WAN_SAME}, {2, 60, 60, 1024, 256, 3, 3, WAN_SAME},
        {2, 44, 80, 512, 512, 3, 3, WAN_SAME},   {4, 120, 60, 256, 256, 3, 3, WAN_SAME},
        {2, 90, 120, 256, 12, 3, 3, WAN_SAME},   {3, 30, 30, 48, 1024, 3, 3, WAN_SAME},
        {4, 30, 30, 1024, 512, 1, 1, WAN_SAME},  {4, 30, 30, 1024, 1024, 3, 1, WAN_SAME},
        {2, 30, 44, 1024, 1024, 1, 3, WAN_UP2},  {1, 120, 120, 160, 160, 1, 3, WAN_DOWN2},
        {5, 60, 60, 12, 160, 3, 3, WAN_SAME},    {3, 31, 29, 320, 640, 3, 3, WAN_SAME},
    };
    for (size_t i = 0; i < COUNT(shapes); i++)
        conv_case(t, &shapes[i]);
}
