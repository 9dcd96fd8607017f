/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>

#include "tensor/quantise_block.h"

enum { MOST = 32 /* elements of a group */ };

float wan_extreme(const float *x, int n) {
    float most = 0, at = 0;
    for (int i = 0; i < n; i++)
        if (wan_abs(x[i]) > most) {
            most = wan_abs(x[i]);
            at = x[i];
        }
    return at;
}

float wan_inverse(float d) {
    float id = d != 0 ? 1 / d : 0;
    return wan_abs(id) <= 3.402823466e38f ? id : 0;
}

/* Sums of a weighted least squares fit of one factor: sum w x l, sum w l^2. */
typedef struct sums {
    float lx, l2;
} sums;

static sums signed_codes(int n, int top, const float *x, float inverse, int8_t *code) {
    sums s = {0, 0};
    for (int i = 0; i < n; i++) {
        int l = wan_clamp(wan_nearest(inverse * x[i]), -top, top - 1);
        float w = x[i] * x[i];
        code[i] = (int8_t)l;
        s.lx += w * x[i] * (float)l;
        s.l2 += w * (float)l * (float)l;
    }
    return s;
}

/* As they are stored. */
static void offset_codes(int n, int top, const int8_t *code, uint8_t *stored) {
    for (int i = 0; i < n; i++)
        stored[i] = (uint8_t)(code[i] + top);
}

float wan_fit_signed(int n, int top, const float *x, uint8_t *stored) {
    assert(n <= MOST);
    float extreme = wan_extreme(x, n);
    if (wan_abs(extreme) < WAN_NO_SIGNAL) {
        memset(stored, 0, (size_t)n);
        return 0;
    }
    int8_t code[MOST], trial[MOST];
    sums s = signed_codes(n, top, x, -(float)top / extreme, code);
    float scale = s.l2 != 0 ? s.lx / s.l2 : 0, best = scale * s.lx;
    for (int i = -9; i <= 9; i++) {
        if (i == 0)
            continue;
        s = signed_codes(n, top, x, -((float)top + 0.1f * (float)i) / extreme, trial);
        if (s.l2 > 0 && s.lx * s.lx > best * s.l2) {
            memcpy(code, trial, (size_t)n);
            scale = s.lx / s.l2;
            best = scale * s.lx;
        }
    }
    offset_codes(n, top, code, stored);
    return scale;
}

/* One code to where it is best with all others fixed; true if it moved. */
static bool move_code(int top, float x, int8_t *code, sums *s) {
    float w = x * x, l = (float)*code;
    sums rest = {s->lx - w * x * l, s->l2 - w * l * l};
    if (rest.lx <= 0)
        return false;
    int to = wan_clamp(wan_nearest(x * rest.l2 / rest.lx), -top, top - 1);
    if (to == *code)
        return false;
    rest.lx += w * x * (float)to;
    rest.l2 += w * (float)to * (float)to;
    if (!(rest.l2 > 0 && rest.lx * rest.lx * s->l2 > s->lx * s->lx * rest.l2))
        return false;
    *code = (int8_t)to;
    *s = rest;
    return true;
}

float wan_fit_signed_steps(int n, int top, const float *x, uint8_t *stored) {
    assert(n <= MOST);
    float extreme = wan_extreme(x, n);
    if (wan_abs(extreme) < WAN_NO_SIGNAL) {
        memset(stored, 0, (size_t)n);
        return 0;
    }
    int8_t code[MOST];
    sums s = signed_codes(n, top, x, -(float)top / extreme, code);
    bool moved = true;
    for (int pass = 0; pass < 5 && moved; pass++) {
        moved = false;
        for (int i = 0; i < n; i++)
            moved |= move_code(top, x[i], code + i, &s);
    }
    offset_codes(n, top, code, stored);
    return s.l2 > 0 ? s.lx / s.l2 : 0;
}

static void affine_codes(int top, int n, const float *x, float inverse, float low, uint8_t *code) {
    for (int i = 0; i < n; i++)
        code[i] = (uint8_t)wan_clamp(wan_nearest(inverse * (x[i] - low)), 0, top);
}

static float affine_error(bool absolute, int n, const float *x, const float *weight,
                          const uint8_t *code, float scale, float low) {
    float total = 0;
    for (int i = 0; i < n; i++) {
        float e = scale * (float)code[i] + low - x[i];
        total += weight[i] * (absolute ? wan_abs(e) : e * e);
    }
    return total;
}

/* Scale and lowest value (at most 0) that suit the codes best; false if all codes are equal. */
static bool affine_squares(int n, const float *x, const float *weight, const uint8_t *code,
                           float sw, float sx, float *scale, float *low) {
    float sl = 0, sl2 = 0, sxl = 0;
    for (int i = 0; i < n; i++) {
        float w = weight[i], l = (float)code[i];
        sl += w * l;
        sl2 += w * l * l;
        sxl += w * l * x[i];
    }
    float det = sw * sl2 - sl * sl;
    if (!(det > 0))
        return false;
    *scale = (sw * sxl - sx * sl) / det;
    *low = (sl2 * sx - sl * sxl) / det;
    if (*low > 0) {
        *low = 0;
        *scale = sxl / sl2;
    }
    return true;
}

float wan_fit_affine(const affine_search *how, int n, const float *x, const float *weight,
                     uint8_t *code, float *min) {
    assert(n <= MOST);
    float low = x[0], high = x[0], sw = weight[0], sx = weight[0] * x[0];
    for (int i = 1; i < n; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
        sw += weight[i];
        sx += weight[i] * x[i];
    }
    low = low > 0 ? 0 : low;
    if (high == low) {
        memset(code, 0, (size_t)n);
        *min = -low;
        return 0;
    }
    float top = (float)how->top, inverse = top / (high - low), scale = 1 / inverse;
    affine_codes(how->top, n, x, inverse, low, code);
    float best = affine_error(how->absolute, n, x, weight, code, scale, low);
    uint8_t trial[MOST];
    for (int i = 0; i <= how->steps; i++) {
        /* From the lowest value found so far, not from the first: ggml's way. */
        inverse = (how->first + how->step * (float)i + top) / (high - low);
        affine_codes(how->top, n, x, inverse, low, trial);
        float s, l;
        if (!affine_squares(n, x, weight, trial, sw, sx, &s, &l))
            continue;
        float e = affine_error(how->absolute, n, x, weight, trial, s, l);
        if (e < best) {
            memcpy(code, trial, (size_t)n);
            best = e;
            scale = s;
            low = l;
        }
    }
    *min = -low;
    return scale;
}
