/* SPDX-License-Identifier: Apache-2.0 */
/* kernels_words_neon.h - the words of kernels_vector.h for NEON as every 64-bit ARM processor has
 * it: 32 registers of 4 floats. */
#ifndef WAN_BACKEND_CPU_KERNELS_WORDS_NEON_H
#define WAN_BACKEND_CPU_KERNELS_WORDS_NEON_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 4, NR = 8 };

#define WORD static inline __attribute__((always_inline))

/* clang-format off */
typedef float32x4_t vec;

WORD vec v_zero(void) { return vdupq_n_f32(0); }
WORD vec v_set(float x) { return vdupq_n_f32(x); }
WORD vec v_load(const float *p) { return vld1q_f32(p); }
WORD void v_store(float *p, vec x) { vst1q_f32(p, x); }

WORD vec v_load_part(const float *p, int n) {
    if (n >= LANES)
        return vld1q_f32(p);
    float32x4_t x = vdupq_n_f32(0);
    if (n > 0)
        x = vld1q_lane_f32(p, x, 0);
    if (n > 1)
        x = vld1q_lane_f32(p + 1, x, 1);
    return n > 2 ? vld1q_lane_f32(p + 2, x, 2) : x;
}
WORD void v_store_part(float *p, vec x, int n) {
    if (n >= LANES) {
        vst1q_f32(p, x);
        return;
    }
    if (n > 0)
        vst1q_lane_f32(p, x, 0);
    if (n > 1)
        vst1q_lane_f32(p + 1, x, 1);
    if (n > 2)
        vst1q_lane_f32(p + 2, x, 2);
}

WORD vec v_add(vec a, vec b) { return vaddq_f32(a, b); }
WORD vec v_sub(vec a, vec b) { return vsubq_f32(a, b); }
WORD vec v_mul(vec a, vec b) { return vmulq_f32(a, b); }
WORD vec v_div(vec a, vec b) { return vdivq_f32(a, b); }
WORD vec v_max(vec a, vec b) { return vmaxq_f32(a, b); } /* NaN when either is */
WORD vec v_fma(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }
WORD vec v_fnma(vec a, vec b, vec c) { return vfmsq_f32(c, a, b); }
WORD vec v_round(vec x) { return vrndnq_f32(x); }
WORD vec v_below(vec x, vec limit, vec a, vec b) { return vbslq_f32(vcltq_f32(x, limit), a, b); }
WORD vec v_unless_below(vec x, vec limit, vec a) {
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a), vcltq_f32(x, limit)));
}
WORD vec v_power(vec n) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23));
}

WORD vec v_even(vec x) { return vtrn1q_f32(x, x); }
WORD vec v_odd(vec x) { return vtrn2q_f32(x, x); }
WORD vec v_swap(vec x) { return vrev64q_f32(x); }
WORD vec v_fmaddsub(vec a, vec b, vec c) {
    const uint32x4_t signs = vreinterpretq_u32_u64(vdupq_n_u64(0x80000000));
    return vfmaq_f32(vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(c), signs)), a, b);
}

WORD vec v_from_f16(const void *p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }
WORD vec v_from_bf16(const void *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16));
}
WORD vec v_from_i8(const void *p) {
    uint32_t four;
    memcpy(&four, p, sizeof four);
    int8x8_t b = vreinterpret_s8_u32(vdup_n_u32(four));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(b))));
}
WORD vec v_set_f16(uint16_t h) { return vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))); }

WORD vec v_set_pair(uint32_t x) { return vreinterpretq_f32_u32(vdupq_n_u32(x)); }
WORD vec v_low(vec pairs) {
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(pairs), 16));
}
WORD vec v_high(vec pairs) {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(pairs), vdupq_n_u32(0xffff0000)));
}
WORD void b_store(void *p, vec x) {
    uint32x4_t u = vreinterpretq_u32_f32(x), odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
    uint32x4_t even = vaddq_u32(vaddq_u32(u, vdupq_n_u32(0x7fff)), odd);
    uint32x4_t b = vbslq_u32(vceqq_f32(x, x), even, vorrq_u32(u, vdupq_n_u32(0x400000)));
    vst1_u8(p, vreinterpret_u8_u16(vshrn_n_u32(b, 16)));
}

typedef int32x4_t vint;

WORD vint i_zero(void) { return vdupq_n_s32(0); }
WORD vint i_load(const void *p) { return vreinterpretq_s32_u8(vld1q_u8(p)); }
WORD void i_store(void *p, vint x) { vst1q_u8(p, vreinterpretq_u8_s32(x)); }
WORD vint i_set(uint32_t x) { return vdupq_n_s32((int32_t)x); }
WORD vec i_float(vint x) { return vcvtq_f32_s32(x); }
WORD vint i_start(vint x) { return vnegq_s32(vshlq_n_s32(x, 7)); }

typedef struct wide {
    float64x2_t s[2];
} wide;

WORD wide w_zero(void) { return (wide){{vdupq_n_f64(0), vdupq_n_f64(0)}}; }
WORD void w_add(wide *w, vec x) {
    w->s[0] = vaddq_f64(w->s[0], vcvt_f64_f32(vget_low_f32(x)));
    w->s[1] = vaddq_f64(w->s[1], vcvt_high_f64_f32(x));
}
WORD void w_add_square(wide *w, vec x) {
    float64x2_t a = vcvt_f64_f32(vget_low_f32(x)), b = vcvt_high_f64_f32(x);
    w->s[0] = vfmaq_f64(w->s[0], a, a);
    w->s[1] = vfmaq_f64(w->s[1], b, b);
}
WORD double w_total(const wide *w) { return vaddvq_f64(vaddq_f64(w->s[0], w->s[1])); }
/* clang-format on */

#endif
