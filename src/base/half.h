/* SPDX-License-Identifier: Apache-2.0 */
/* half.h - float16 and bfloat16, one value at a time: round to nearest even, as IEEE 754 says.  The
 * scalar truth that vector code is checked against. */
#ifndef WAN_BASE_HALF_H
#define WAN_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t wan_float_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float wan_bits_float(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline float wan_half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, mantissa = h & 1023;
    if (exponent == 31)
        return wan_bits_float(sign | 0x7f800000 | mantissa << 13);
    if (exponent)
        return wan_bits_float(sign | (exponent + 112) << 23 | mantissa << 13);
    float tiny = (float)mantissa * 0x1p-24f; /* exact */
    return sign ? -tiny : tiny;
}

static inline uint16_t wan_half_from_float(float f) {
    uint32_t u = wan_float_bits(f), sign = u >> 16 & 0x8000, rest = u & 0x7fffffff;
    if (rest > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (rest >> 13 & 0x3ff)); /* NaN stays quiet */
    if (rest >= 0x477ff000)
        return (uint16_t)(sign | 0x7c00);
    if (rest < 0x38800000) { /* subnormal: let the adder round */
        float scaled = wan_bits_float(rest) + 0.5f;
        return (uint16_t)(sign | (wan_float_bits(scaled) - 0x3f000000));
    }
    rest += 0xfff + (rest >> 13 & 1);
    return (uint16_t)(sign | (rest - 0x38000000) >> 13);
}

static inline float wan_brain_to_float(uint16_t b) {
    return wan_bits_float((uint32_t)b << 16);
}

static inline uint16_t wan_brain_from_float(float f) {
    uint32_t u = wan_float_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

#endif
