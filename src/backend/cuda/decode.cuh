/* SPDX-License-Identifier: Apache-2.0 */
/* decode.cuh - stored weights back to numbers, 8 at a time: src/tensor/quants*.c on the device.
 * Products and differences are rounded one by one, in the same order, so that the bits agree. */
#ifndef WAN_BACKEND_CUDA_DECODE_CUH
#define WAN_BACKEND_CUDA_DECODE_CUH

#include <cuda_fp16.h>

#include "backend/cuda/vector.cuh"

/* Numbers stored together, and their bytes. */
template <dtype T> struct layout {
    static constexpr int block = T == WAN_MLX_4 ? 2
                                 : T == WAN_Q8_0 || T == WAN_Q4_0 || T == WAN_Q4_1 ||
                                         T == WAN_Q5_0 || T == WAN_Q5_1 || T == WAN_IQ4_NL
                                     ? 32
                                 : T == WAN_Q2_K || T == WAN_Q3_K || T == WAN_Q4_K ||
                                         T == WAN_Q5_K || T == WAN_Q6_K || T == WAN_IQ4_XS
                                     ? 256
                                     : 1;
    static constexpr int bytes = T == WAN_F64                       ? 8
                                 : T == WAN_F32                     ? 4
                                 : T == WAN_F16 || T == WAN_BF16    ? 2
                                 : T == WAN_Q8_0                    ? 34
                                 : T == WAN_Q4_0 || T == WAN_IQ4_NL ? 18
                                 : T == WAN_Q4_1                    ? 20
                                 : T == WAN_Q5_0                    ? 22
                                 : T == WAN_Q5_1                    ? 24
                                 : T == WAN_Q2_K                    ? 84
                                 : T == WAN_Q3_K                    ? 110
                                 : T == WAN_Q4_K                    ? 144
                                 : T == WAN_Q5_K                    ? 176
                                 : T == WAN_Q6_K                    ? 210
                                 : T == WAN_IQ4_XS                  ? 136
                                                                    : 1;
};

DEVICE float half_at(const uint8_t *p) {
    return __half2float(*reinterpret_cast<const __half *>(p));
}

DEVICE uint32_t word_at(const uint8_t *p) {
    const uint16_t *h = reinterpret_cast<const uint16_t *>(p); /* blocks have even sizes */
    return h[0] | (uint32_t)h[1] << 16;
}

DEVICE float e4m3(uint8_t b) {
    uint32_t rest = b & 0x7f;
    if (rest == 0x7f)
        return __uint_as_float(0x7fc00000u | (uint32_t)(b & 0x80) << 24);
    /* A half with the same exponent and mantissa bits is 2^-8 of the value. */
    return __half2float(__ushort_as_half((unsigned short)((b & 0x80) << 8 | rest << 7))) * 256;
}

DEVICE float e5m2(uint8_t b) {
    return __half2float(__ushort_as_half((unsigned short)(b << 8)));
}

static __device__ const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                 1,    13,   25,  38,  53,  69,  89,  113};

/* Number i of a type whose numbers are stored one by one, where it is aligned. */
template <dtype T> DEVICE float plain_at(const void *p, int64_t i) {
    if constexpr (T == WAN_F64)
        return (float)((const double *)p)[i];
    else if constexpr (T == WAN_F32)
        return ((const float *)p)[i];
    else if constexpr (T == WAN_F16)
        return __half2float(((const __half *)p)[i]);
    else if constexpr (T == WAN_BF16)
        return __bfloat162float(((const bf16 *)p)[i]);
    else if constexpr (T == WAN_F8_E4M3)
        return e4m3(((const uint8_t *)p)[i]);
    else if constexpr (T == WAN_F8_E5M2)
        return e5m2(((const uint8_t *)p)[i]);
    else if constexpr (T == WAN_I8)
        return (float)((const int8_t *)p)[i];
    else
        return (float)((const uint8_t *)p)[i];
}

/* Of a type known at run time; no inline function, for it is rarely wanted and large. */
static __device__ __noinline__ float plain_value(dtype type, const void *p, int64_t i) {
    switch (type) {
    case WAN_F64:
        return plain_at<WAN_F64>(p, i);
    case WAN_F32:
        return plain_at<WAN_F32>(p, i);
    case WAN_F16:
        return plain_at<WAN_F16>(p, i);
    case WAN_BF16:
        return plain_at<WAN_BF16>(p, i);
    case WAN_F8_E4M3:
        return plain_at<WAN_F8_E4M3>(p, i);
    case WAN_F8_E5M2:
        return plain_at<WAN_F8_E5M2>(p, i);
    case WAN_I8:
        return plain_at<WAN_I8>(p, i);
    default:
        return plain_at<WAN_MLX_8>(p, i);
    }
}

/* Eight codes, a byte each. */
typedef struct codes {
    uint32_t low, high;
} codes;

DEVICE codes codes_at(const uint8_t *p) {
    return {word_at(p), word_at(p + 4)};
}

/* Fields of `mask` in every byte, `shift` bits up; then moved up to bit `to`. */
DEVICE codes field(codes q, int shift, uint32_t mask, int to = 0) {
    uint32_t all = mask * 0x01010101u;
    return {(q.low >> shift & all) << to, (q.high >> shift & all) << to};
}

DEVICE codes both(codes a, codes b) {
    return {a.low | b.low, a.high | b.high};
}

/* Bit k of 8 bits, at bit `to` of code k. */
DEVICE codes spread(uint32_t bits, int to) {
    /* copies of the 4 bits 7 apart; of each copy the one that fell on a byte's lowest bit stays */
    uint32_t low = (bits & 15) * 0x00204081u & 0x01010101u;
    uint32_t high = (bits >> 4 & 15) * 0x00204081u & 0x01010101u;
    return {low << to, high << to};
}

DEVICE int code(codes q, int k) {
    return (int)((k < 4 ? q.low : q.high) >> 8 * (k % 4) & 255);
}

/* v = d (q - minus) */
DEVICE void times(float (&v)[WIDE], float d, codes q, int minus) {
#pragma unroll
    for (int k = 0; k < WIDE; k++)
        v[k] = __fmul_rn(d, (float)(code(q, k) - minus));
}

/* v = d q + m */
DEVICE void times_plus(float (&v)[WIDE], float d, codes q, float m) {
#pragma unroll
    for (int k = 0; k < WIDE; k++)
        v[k] = __fadd_rn(__fmul_rn(d, (float)code(q, k)), m);
}

DEVICE void times_iq4(float (&v)[WIDE], float d, codes q) {
#pragma unroll
    for (int k = 0; k < WIDE; k++)
        v[k] = __fmul_rn(d, (float)__ldg(iq4_values + code(q, k)));
}

/* ------------------------------------------------------------------------- blocks of 32 and 256 */

/* Codes i.. of the nibbles of a block of 32: the first half of the elements are the low ones. */
DEVICE codes nibbles(const uint8_t *qs, int i) {
    return field(codes_at(qs + i % 16), i < 16 ? 0 : 4, 15);
}

template <dtype T> DEVICE void decode_small(float (&v)[WIDE], const uint8_t *b, int i) {
    float d = half_at(b);
    if constexpr (T == WAN_Q8_0) {
        codes q = codes_at(b + 2 + i);
#pragma unroll
        for (int k = 0; k < WIDE; k++)
            v[k] = __fmul_rn(d, (float)(int8_t)code(q, k));
    } else if constexpr (T == WAN_Q4_0) {
        times(v, d, nibbles(b + 2, i), 8);
    } else if constexpr (T == WAN_Q4_1) {
        times_plus(v, d, nibbles(b + 4, i), half_at(b + 2));
    } else if constexpr (T == WAN_Q5_0) {
        times(v, d, both(nibbles(b + 6, i), spread(b[2 + i / 8], 4)), 16);
    } else if constexpr (T == WAN_Q5_1) {
        times_plus(v, d, both(nibbles(b + 8, i), spread(b[4 + i / 8], 4)), half_at(b + 2));
    } else {
        times_iq4(v, d, nibbles(b + 2, i));
    }
}

/* Scale and minimum of group j of Q4_K and Q5_K. */
DEVICE void k_scale(const uint8_t *sc, int j, float &scale, float &min) {
    int s = j < 4 ? sc[j] & 63 : (sc[j + 4] & 15) | sc[j - 4] >> 6 << 4;
    int m = j < 4 ? sc[j + 4] & 63 : sc[j + 4] >> 4 | sc[j] >> 6 << 4;
    scale = __fmul_rn(scale, (float)s);
    min = __fmul_rn(min, (float)m);
}

DEVICE int q3_k_scale(const uint8_t *sc, int j) {
    int low = j < 8 ? sc[j] & 15 : sc[j - 8] >> 4;
    return (low | (sc[8 + j % 4] >> 2 * (j / 4) & 3) << 4) - 32;
}

DEVICE int iq4_xs_scale(const uint8_t *b, int j) {
    int low = b[4 + j / 2] >> 4 * (j % 2) & 15, high = (b[2] | b[3] << 8) >> 2 * j & 3;
    return (low | high << 4) - 32;
}

/* Codes i.. of Q4_K and Q5_K. */
DEVICE codes four_bits(const uint8_t *qs, int i) {
    return field(codes_at(qs + i / 64 * 32 + i % 32), i % 64 < 32 ? 0 : 4, 15);
}

template <dtype T> DEVICE void decode_large(float (&v)[WIDE], const uint8_t *b, int i) {
    if constexpr (T == WAN_Q2_K) {
        codes q = field(codes_at(b + 16 + i / 128 * 32 + i % 32), 2 * (i % 128 / 32), 3);
        float scale = __fmul_rn(half_at(b + 80), (float)(b[i / 16] & 15));
        times_plus(v, scale, q, -__fmul_rn(half_at(b + 82), (float)(b[i / 16] >> 4)));
    } else if constexpr (T == WAN_Q3_K) {
        codes q = field(codes_at(b + 32 + i / 128 * 32 + i % 32), 2 * (i % 128 / 32), 3);
        q = both(q, field(codes_at(b + i % 32), i / 32, 1, 2)); /* 4 less where the bit is clear */
        times(v, __fmul_rn(half_at(b + 108), (float)q3_k_scale(b + 96, i / 16)), q, 4);
    } else if constexpr (T == WAN_Q4_K || T == WAN_Q5_K) {
        float scale = half_at(b), min = half_at(b + 2);
        codes q = four_bits(b + (T == WAN_Q4_K ? 16 : 48), i);
        if (T == WAN_Q5_K)
            q = both(q, field(codes_at(b + 16 + i % 32), i / 32, 1, 4));
        k_scale(b + 4, i / 32, scale, min);
        times_plus(v, scale, q, -min);
    } else if constexpr (T == WAN_Q6_K) {
        int n = i / 128, g = i % 128 / 32, l = i % 32;
        codes low = field(codes_at(b + 64 * n + l + 32 * (g & 1)), g < 2 ? 0 : 4, 15);
        codes high = field(codes_at(b + 128 + 32 * n + l), 2 * g, 3, 4);
        float scale = __fmul_rn(half_at(b + 208), (float)(int8_t)b[192 + i / 16]);
        times(v, scale, both(low, high), 32);
    } else {
        float scale = __fmul_rn(half_at(b), (float)iq4_xs_scale(b, i / 32));
        times_iq4(v, scale, nibbles(b + 8 + i / 32 * 16, i % 32));
    }
}

/* Numbers [e, e + 8) of what lies at `at`, whole blocks from there on; e is a multiple of 8, `at`
 * of 16.  What follows the last number may be read, and is then not to be used. */
template <dtype T> DEVICE void decode(float (&v)[WIDE], const uint8_t *at, int e) {
    if constexpr (layout<T>::block == 32) {
        decode_small<T>(v, at + e / 32 * layout<T>::bytes, e % 32);
    } else if constexpr (layout<T>::block == 256) {
        decode_large<T>(v, at + e / 256 * layout<T>::bytes, e % 256);
    } else if constexpr (T == WAN_MLX_4) {
        uint32_t q = *reinterpret_cast<const uint32_t *>(at + e / 2);
#pragma unroll
        for (int k = 0; k < WIDE; k++)
            v[k] = (float)(q >> 4 * k & 15);
    } else if constexpr (T == WAN_F32) {
        load_wide(v, (const float *)at + e);
    } else if constexpr (T == WAN_BF16) {
        load_wide(v, (const bf16 *)at + e);
    } else {
#pragma unroll
        for (int k = 0; k < WIDE; k++)
            v[k] = plain_at<T>(at, e + k);
    }
}

#endif
