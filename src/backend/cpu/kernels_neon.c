/* SPDX-License-Identifier: Apache-2.0 */
/* NEON as every 64-bit ARM processor has it. */
#include "backend/cpu/kernels.h"
#include "backend/cpu/kernels_transpose.h"
#include "backend/cpu/kernels_words_neon.h"
#include "tensor/quants.h"

enum { MR = 12, BF16_MR = 10, INT8_MR = 6 };

/* clang-format off */
typedef uint8x16_t codes;

WORD codes c_load(const void *p) { return vld1q_u8(p); }
WORD codes c_set(int x) { return vdupq_n_u8((uint8_t)x); }
WORD codes c_or(codes a, codes b) { return vorrq_u8(a, b); }
WORD codes c_sub(codes a, codes b) { return vsubq_u8(a, b); }
WORD codes c_field(codes b, int shift, int mask) {
    return vandq_u8(vshlq_u8(b, vdupq_n_s8((int8_t)-shift)), c_set(mask));
}
WORD codes c_field_to(codes b, int shift, int mask, int to) {
    return vshlq_u8(c_field(b, shift, mask), vdupq_n_s8((int8_t)to));
}
WORD codes c_nibbles(const void *p) {
    uint8x8_t b = vld1_u8(p), low = vand_u8(b, vdup_n_u8(15)), high = vshr_n_u8(b, 4);
    return vcombine_u8(vzip1_u8(low, high), vzip2_u8(low, high));
}
WORD codes c_lookup(const int8_t table[16], codes index) {
    return vqtbl1q_u8(c_load(table), index);
}
WORD codes c_where(unsigned bits, int x) {
    const codes each = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
    codes b = vcombine_u8(vdup_n_u8((uint8_t)bits), vdup_n_u8((uint8_t)(bits >> 8)));
    return vandq_u8(vtstq_u8(b, each), c_set(x));
}
/* Each code moves to the top byte of a lane, then counts as a fraction of 24 bits. */
WORD vec v_from_codes(codes c, int from) {
    const uint32x4_t top = {0x00ffffff, 0x01ffffff, 0x02ffffff, 0x03ffffff};
    codes index = vreinterpretq_u8_u32(vaddq_u32(top, vdupq_n_u32((uint32_t)from << 24)));
    return vcvtq_n_f32_s32(vreinterpretq_s32_u8(vqtbl1q_u8(c, index)), 24);
}
/* clang-format on */

/* 8-bit floats have a half's exponent (E5M2), or a half's of 2^-8 (E4M3). */
static void unpack_f8_e4m3(float *dst, const void *src, int64_t n) {
    const uint8_t *from = src;
    const uint16x8_t low = vdupq_n_u16(0x7f), infinite = vdupq_n_u16(0x7c00);
    for (; n >= 8; n -= 8, dst += 8, from += 8) {
        uint16x8_t b = vmovl_u8(vld1_u8(from));
        uint16x8_t rest = vandq_u16(b, low), sign = vshlq_n_u16(vbicq_u16(b, low), 8);
        uint16x8_t h = vorrq_u16(sign, vshlq_n_u16(rest, 7));
        h = vorrq_u16(h, vandq_u16(vceqq_u16(rest, low), infinite)); /* NaN */
        float16x8_t f = vreinterpretq_f16_u16(h);
        vst1q_f32(dst, vmulq_n_f32(vcvt_f32_f16(vget_low_f16(f)), 256));
        vst1q_f32(dst + 4, vmulq_n_f32(vcvt_high_f32_f16(f), 256));
    }
    wan_dequantise(WAN_F8_E4M3, dst, from, n);
}

static void unpack_f8_e5m2(float *dst, const void *src, int64_t n) {
    const uint8_t *from = src;
    for (; n >= 8; n -= 8, dst += 8, from += 8) {
        float16x8_t f = vreinterpretq_f16_u16(vshll_n_u8(vld1_u8(from), 8));
        vst1q_f32(dst, vcvt_f32_f16(vget_low_f16(f)));
        vst1q_f32(dst + 4, vcvt_high_f32_f16(f));
    }
    wan_dequantise(WAN_F8_E5M2, dst, from, n);
}

static void unpack_mlx_8(float *dst, const void *src, int64_t n) {
    const uint8_t *from = src;
    for (; n >= 8; n -= 8, dst += 8, from += 8) {
        uint16x8_t b = vmovl_u8(vld1_u8(from));
        vst1q_f32(dst, vcvtq_f32_u32(vmovl_u16(vget_low_u16(b))));
        vst1q_f32(dst + 4, vcvtq_f32_u32(vmovl_high_u16(b)));
    }
    wan_dequantise(WAN_MLX_8, dst, from, n);
}

/* Four codes by four, in each lane.  A product fits 16 bits, the sum of two does not always. */
WORD vint i_dot(vint sum, vint panel, vint row) {
    int8x16_t p = vreinterpretq_s8_s32(panel), x = vreinterpretq_s8_s32(row);
    int16x8_t low = vmull_s8(vget_low_s8(p), vget_low_s8(x)), high = vmull_high_s8(p, x);
    return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
}

#include "backend/cpu/kernels_vector.h"

#include "backend/cpu/kernels_int8_neon.h"

#include "backend/cpu/kernels_int8.h"

void wan_cpu_kernels_neon(cpu_kernels *k) {
    fill_table(k);
    fill_int8(k);
}
