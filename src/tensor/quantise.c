/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/quantise.h"

#include <assert.h>
#include <math.h>

#include "base/fp8.h"
#include "tensor/quantise_block.h"

static float clamp(float x, float most) {
    return x > most ? most : x < -most ? -most : x;
}

static void f32(uint8_t *b, const float *x) {
    memcpy(b, x, sizeof *x);
}

static void f16(uint8_t *b, const float *x) {
    wan_store_16(b, wan_half_from_float(*x));
}

static void bf16(uint8_t *b, const float *x) {
    wan_store_16(b, wan_brain_from_float(*x));
}

static void f8_e4m3(uint8_t *b, const float *x) {
    *b = wan_f8_e4m3_from_float(clamp(*x, WAN_F8_E4M3_MAX));
}

static void f8_e5m2(uint8_t *b, const float *x) {
    *b = wan_f8_e5m2_from_float(clamp(*x, WAN_F8_E5M2_MAX));
}

static void i8(uint8_t *b, const float *x) {
    *b = (uint8_t)(int8_t)clamp(rintf(clamp(*x, 128)), 127);
}

/* How a block is written, and where it holds halves that may have overflowed (-1: nowhere). */
typedef struct packer {
    void (*block)(uint8_t *b, const float *x);
    int half[2];
} packer;

static const packer table[WAN_DTYPES] = {
    [WAN_F32] = {f32, {-1, -1}},
    [WAN_F16] = {f16, {0, -1}},
    [WAN_BF16] = {bf16, {-1, -1}},
    [WAN_F8_E4M3] = {f8_e4m3, {-1, -1}},
    [WAN_F8_E5M2] = {f8_e5m2, {-1, -1}},
    [WAN_Q8_0] = {wan_pack_q8_0, {0, -1}},
    [WAN_Q4_0] = {wan_pack_q4_0, {0, -1}},
    [WAN_Q4_1] = {wan_pack_q4_1, {0, 2}},
    [WAN_Q5_0] = {wan_pack_q5_0, {0, -1}},
    [WAN_Q5_1] = {wan_pack_q5_1, {0, 2}},
    [WAN_Q2_K] = {wan_pack_q2_k, {80, 82}},
    [WAN_Q3_K] = {wan_pack_q3_k, {108, -1}},
    [WAN_Q4_K] = {wan_pack_q4_k, {0, 2}},
    [WAN_Q5_K] = {wan_pack_q5_k, {0, 2}},
    [WAN_Q6_K] = {wan_pack_q6_k, {208, -1}},
    [WAN_IQ4_NL] = {wan_pack_iq4_nl, {0, -1}},
    [WAN_IQ4_XS] = {wan_pack_iq4_xs, {0, -1}},
};

/* No scale that fits a half reaches as far; beyond it sums of cubes would overflow. */
#define FAR 1e9f

bool wan_can_quantise(dtype type) {
    return type < WAN_DTYPES && table[type].block;
}

static wan_status not_finite(const float *src, int64_t i, error *err) {
    return wan_fail(err, WAN_E_FORMAT, "element %lld is %g: weights must be finite", (long long)i,
                    (double)src[i]);
}

/* A half that is infinite, or NaN. */
static bool overflowed(const packer *p, const uint8_t *b) {
    for (int i = 0; i < 2; i++)
        if (p->half[i] >= 0 && (wan_load_16(b + p->half[i]) & 0x7c00) == 0x7c00)
            return true;
    return false;
}

wan_status wan_quantise(dtype type, void *dst, const float *src, int64_t n, error *err) {
    assert(wan_can_quantise(type));
    const dtype_info *d = wan_dtype(type);
    const packer *p = &table[type];
    assert(n % d->block == 0);
    uint8_t *b = dst;
    for (int64_t i = 0; i < n; i += d->block, b += d->bytes) {
        int64_t extreme = i;
        for (int64_t e = i; e < i + d->block; e++) {
            if (!isfinite(src[e]))
                return not_finite(src, e, err);
            if (wan_abs(src[e]) > wan_abs(src[extreme]))
                extreme = e;
        }
        bool far = p->half[0] >= 0 && wan_abs(src[extreme]) > FAR;
        if (!far)
            p->block(b, src + i);
        if (far || overflowed(p, b) || (type == WAN_BF16 && (wan_load_16(b) & 0x7f80) == 0x7f80))
            return wan_fail(err, WAN_E_FORMAT, "element %lld is %g, too large for %s",
                            (long long)extreme, (double)src[extreme], d->name);
    }
    return WAN_OK;
}

wan_status wan_quantise_rows(dtype type, void *dst, float *scale, const float *src, int64_t rows,
                             int64_t cols, error *err) {
    assert(type == WAN_F8_E4M3 || type == WAN_F8_E5M2 || type == WAN_I8);
    float top = type == WAN_I8 ? 127 : type == WAN_F8_E4M3 ? WAN_F8_E4M3_MAX : WAN_F8_E5M2_MAX;
    void (*code)(uint8_t *, const float *) = type == WAN_I8        ? i8
                                             : type == WAN_F8_E4M3 ? f8_e4m3
                                                                   : f8_e5m2;
    uint8_t *b = dst;
    for (int64_t r = 0; r < rows; r++) {
        const float *x = src + r * cols;
        float most = 1e-5f;
        for (int64_t i = 0; i < cols; i++) {
            if (!isfinite(x[i]))
                return not_finite(src, r * cols + i, err);
            most = wan_abs(x[i]) > most ? wan_abs(x[i]) : most;
        }
        scale[r] = most / top;
        for (int64_t i = 0; i < cols; i++) {
            float q = x[i] / scale[r];
            code(b + r * cols + i, &q);
        }
    }
    return WAN_OK;
}
