/* SPDX-License-Identifier: Apache-2.0 */
#include "weights/convert.h"

#include <math.h>
#include <string.h>

static float from_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static float from_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, part = h & 0x3ff;
    if (exponent == 31)
        return from_bits(sign | 0x7f800000 | part << 13);
    if (exponent)
        return from_bits(sign | (exponent + 112) << 23 | part << 13);
    float f = ldexpf((float)part, -24);
    return sign ? -f : f;
}

bool wan_to_f32(tensor t, float *out) {
    const char *p = t.data;
    int64_t n = wan_elements(t);
    switch (t.type) {
    case WAN_F32:
        memcpy(out, p, (size_t)n * sizeof *out);
        return true;
    case WAN_F16:
    case WAN_BF16:
        for (int64_t i = 0; i < n; i++) {
            uint16_t h;
            memcpy(&h, p + 2 * i, sizeof h);
            out[i] = t.type == WAN_F16 ? from_f16(h) : from_bits((uint32_t)h << 16);
        }
        return true;
    case WAN_F64:
        for (int64_t i = 0; i < n; i++) {
            double d;
            memcpy(&d, p + 8 * i, sizeof d);
            out[i] = (float)d;
        }
        return true;
    default:
        return false;
    }
}
