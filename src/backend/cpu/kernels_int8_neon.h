/* SPDX-License-Identifier: Apache-2.0 */
/* kernels_int8_neon.h - words of kernels_int8.h for NEON: rows and panels of signed bytes. */
#ifndef WAN_BACKEND_CPU_KERNELS_INT8_NEON_H
#define WAN_BACKEND_CPU_KERNELS_INT8_NEON_H

#include <math.h>

enum { WORDS = 8, OFFSET = 0 };

WORD float half_float(uint16_t h) {
    return vgetq_lane_f32(v_set_f16(h), 0);
}

WORD void put_codes(char *to, const int8_t *code) {
    memcpy(to, code, 32);
}

/* Bits of numbers without a sign are in the order of the numbers, NaN last. */
WORD float quantise(int8_t *code, const float *x) {
    uint32x4_t top = vdupq_n_u32(0);
    for (int i = 0; i < 32; i += 4)
        top = vmaxq_u32(top, vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(x + i))));
    uint32_t bits = vmaxvq_u32(top);
    float most, scale = bits >= 0x7f800000 ? NAN : 0;
    memcpy(&most, &bits, sizeof most);
    if (!(most >= 0x1p-100f) || bits >= 0x7f800000) {
        memset(code, 0, 32);
        return scale;
    }
    float by = 127 / most;
    for (int i = 0; i < 32; i += 8) {
        int32x4_t low = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i), by));
        int32x4_t high = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i + 4), by));
        vst1_s8(code + i, vqmovn_s16(vcombine_s16(vqmovn_s32(low), vqmovn_s32(high))));
    }
    return most / 127;
}

#endif
