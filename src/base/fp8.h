/* SPDX-License-Identifier: Apache-2.0 */
/* fp8.h - the two 8-bit floats of weight files, one value at a time, as PyTorch casts them.
 * E4M3 has no infinity: past 464 there is only NaN (0x7f).  E5M2 is the upper byte of a half.
 * Both round to nearest even, once. */
#ifndef WAN_BASE_FP8_H
#define WAN_BASE_FP8_H

#include "base/half.h"

#define WAN_F8_E4M3_MAX 448.0f
#define WAN_F8_E5M2_MAX 57344.0f

static inline float wan_f8_e4m3_to_float(uint8_t b) {
    uint32_t sign = (uint32_t)(b & 0x80) << 24, rest = b & 0x7f;
    if (rest == 0x7f)
        return wan_bits_float(sign | 0x7fc00000);
    /* A half with the same exponent and mantissa bits is 2^-8 of the value. */
    return wan_half_to_float((uint16_t)((b & 0x80) << 8 | (int)(rest << 7))) * 256;
}

static inline float wan_f8_e5m2_to_float(uint8_t b) {
    return wan_half_to_float((uint16_t)(b << 8));
}

static inline uint8_t wan_f8_e4m3_from_float(float f) {
    uint32_t u = wan_float_bits(f), sign = u >> 24 & 0x80, rest = u & 0x7fffffff;
    if (rest >= 0x43f00000) /* 480 and up, infinity, NaN */
        return (uint8_t)(sign | 0x7f);
    if (rest < 0x3c800000) { /* subnormal: let the adder round */
        float scaled = wan_bits_float(rest) + 0x1p14f;
        return (uint8_t)(sign | (wan_float_bits(scaled) - 0x46800000));
    }
    rest += 0x7ffff + (rest >> 20 & 1);
    return (uint8_t)(sign | (rest - 0x3c000000) >> 20);
}

static inline uint8_t wan_f8_e5m2_from_float(float f) {
    uint32_t u = wan_float_bits(f), sign = u >> 24 & 0x80, rest = u & 0x7fffffff;
    if (rest > 0x7f800000)
        return (uint8_t)(sign | 0x7f);
    if (rest >= 0x47700000) /* 61440, half way to the next: infinity */
        return (uint8_t)(sign | 0x7c);
    if (rest < 0x38800000) {
        float scaled = wan_bits_float(rest) + 0x1p7f;
        return (uint8_t)(sign | (wan_float_bits(scaled) - 0x43000000));
    }
    rest += 0xfffff + (rest >> 21 & 1);
    return (uint8_t)(sign | (rest - 0x38000000) >> 21);
}

#endif
