/* SPDX-License-Identifier: Apache-2.0 */
/* vector.cuh - numbers in device memory, of f32, bf16 or f16, read and written 8 at a time.
 * Kernels are templates on the element types of what they read and write; all arithmetic is f32.
 * What is too large for f16 becomes its largest number; a NaN stays one. */
#ifndef WAN_BACKEND_CUDA_VECTOR_CUH
#define WAN_BACKEND_CUDA_VECTOR_CUH

#include <assert.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <stdint.h>

#include <type_traits>

#include "backend/cuda/cuda.h"

typedef __nv_bfloat16 bf16;
typedef __half f16;
typedef struct f8 { /* a code of e4m3; only written */
    uint8_t code;
} f8;

#define DEVICE static __device__ __forceinline__

enum { WARP = 32, WIDE = 8 /* numbers that a thread moves at once */ };

DEVICE float to_float(float v) {
    return v;
}
DEVICE float to_float(bf16 v) {
    return __bfloat162float(v);
}
DEVICE float to_float(f16 v) {
    return __half2float(v);
}
DEVICE void from_float(float *to, float v) {
    *to = v;
}
DEVICE void from_float(bf16 *to, float v) {
    *to = __float2bfloat16_rn(v);
}

static constexpr float F16_MOST = 65504, E4M3_MOST = 448;

DEVICE void from_float(f16 *to, float v) {
    f16 most = __float2half_rn(F16_MOST);
    *to = __hmax_nan(__hmin_nan(__float2half_rn(v), most), __hneg(most));
}

DEVICE void from_float(f8 *to, float v) {
    to->code = __nv_cvt_float_to_fp8(v, __NV_SATFINITE, __NV_E4M3);
}

DEVICE bool aligned_on_device(const void *p) {
    return (uintptr_t)p % 16 == 0;
}

/* 8 numbers; p is 16-byte aligned. */
DEVICE void load_wide(float (&v)[WIDE], const float *p) {
    float4 a = reinterpret_cast<const float4 *>(p)[0], b = reinterpret_cast<const float4 *>(p)[1];
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
    v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

/* T is bf16 or f16, for two of which `pair` stands. */
template <class T> DEVICE void unpack_pair(float &low, float &high, uint32_t pair) {
    if constexpr (std::is_same_v<T, f16>) {
        float2 v = __half22float2(*reinterpret_cast<__half2 *>(&pair));
        low = v.x, high = v.y;
    } else {
        low = __uint_as_float(pair << 16);
        high = __uint_as_float(pair & 0xffff0000u);
    }
}

template <class T = bf16> DEVICE uint32_t pack_pair(float low, float high) {
    if constexpr (std::is_same_v<T, f16>) {
        __half2 h = __floats2half2_rn(low, high), most = __float2half2_rn(F16_MOST);
        h = __hmax2_nan(__hmin2_nan(h, most), __hneg2(most));
        return *reinterpret_cast<uint32_t *>(&h);
    } else {
        __nv_bfloat162 b = __floats2bfloat162_rn(low, high);
        return *reinterpret_cast<uint32_t *>(&b);
    }
}

template <class T> DEVICE void load_wide(float (&v)[WIDE], const T *p) {
    uint4 a = *reinterpret_cast<const uint4 *>(p);
    unpack_pair<T>(v[0], v[1], a.x);
    unpack_pair<T>(v[2], v[3], a.y);
    unpack_pair<T>(v[4], v[5], a.z);
    unpack_pair<T>(v[6], v[7], a.w);
}

DEVICE void store_wide(float *p, const float (&v)[WIDE]) {
    reinterpret_cast<float4 *>(p)[0] = make_float4(v[0], v[1], v[2], v[3]);
    reinterpret_cast<float4 *>(p)[1] = make_float4(v[4], v[5], v[6], v[7]);
}

template <class T> DEVICE void store_wide(T *p, const float (&v)[WIDE]) {
    *reinterpret_cast<uint4 *>(p) = make_uint4(pack_pair<T>(v[0], v[1]), pack_pair<T>(v[2], v[3]),
                                               pack_pair<T>(v[4], v[5]), pack_pair<T>(v[6], v[7]));
}

DEVICE uint32_t pack_four(float a, float b, float c, float d) {
    uint32_t low = __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, __NV_E4M3);
    uint32_t high = __nv_cvt_float2_to_fp8x2(make_float2(c, d), __NV_SATFINITE, __NV_E4M3);
    return low | high << 16;
}

DEVICE void store_wide(f8 *p, const float (&v)[WIDE]) {
    *reinterpret_cast<uint2 *>(p) =
        make_uint2(pack_four(v[0], v[1], v[2], v[3]), pack_four(v[4], v[5], v[6], v[7]));
}

/* 4 numbers; p is aligned to all of them. */
DEVICE void load_four(float (&v)[4], const float *p) {
    float4 a = *reinterpret_cast<const float4 *>(p);
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
}

template <class T> DEVICE void load_four(float (&v)[4], const T *p) {
    uint2 a = *reinterpret_cast<const uint2 *>(p);
    unpack_pair<T>(v[0], v[1], a.x);
    unpack_pair<T>(v[2], v[3], a.y);
}

DEVICE void store_four(float *p, const float (&v)[4]) {
    *reinterpret_cast<float4 *>(p) = make_float4(v[0], v[1], v[2], v[3]);
}

template <class T> DEVICE void store_four(T *p, const float (&v)[4]) {
    *reinterpret_cast<uint2 *>(p) = make_uint2(pack_pair<T>(v[0], v[1]), pack_pair<T>(v[2], v[3]));
}

/* The first n of 8 numbers, from any address. */
template <class T> DEVICE void load_some(float (&v)[WIDE], const T *p, int n) {
#pragma unroll
    for (int i = 0; i < WIDE; i++)
        v[i] = i < n ? to_float(p[i]) : 0;
}

template <class T> DEVICE void store_some(T *p, const float (&v)[WIDE], int n) {
#pragma unroll
    for (int i = 0; i < WIDE; i++)
        if (i < n)
            from_float(p + i, v[i]);
}

DEVICE float warp_sum(float v) {
#pragma unroll
    for (int lane = WARP / 2; lane > 0; lane /= 2)
        v += __shfl_xor_sync(0xffffffffu, v, lane);
    return v;
}

/* x / (1 + e^-x); T is what the result is rounded to: two bytes do not see the last bits. */
template <class T> DEVICE float logistic(float x, float slope) {
    if (sizeof(T) == sizeof(float))
        return x / (1 + expf(-slope));
    return __fdividef(x, 1 + __expf(-slope));
}

template <class T> DEVICE float silu(float x) {
    return logistic<T>(x, x);
}

template <class T> DEVICE float gelu_tanh(float x) {
    return logistic<T>(x, 1.5957691216057308f * (x + 0.044715f * x * x * x));
}

/* Modulation of tokens, or the same vector for all. */
typedef struct frame_rows {
    const float *rows;           /* NULL: zeros */
    int64_t width;               /* from one row to the next */
    const int32_t *row_of_frame; /* NULL: row 0 */
    uint32_t tokens_per_frame;
} frame_rows;

DEVICE const float *frame_row(const frame_rows &m, uint32_t token) {
    if (!m.row_of_frame)
        return m.rows;
    return m.rows + m.row_of_frame[token / m.tokens_per_frame] * m.width;
}

/* ---------------------------------------------------------------------------------- on the host */

static inline frame_rows rows_of(by_frame m) {
    return {(const float *)m.rows.data + m.at, m.rows.dim[1], (const int32_t *)m.row_of_frame.data,
            (uint32_t)m.tokens_per_frame};
}

static inline frame_rows one_row(tensor v) {
    return {(const float *)v.data, 0, NULL, 1};
}

static inline bool aligned_16(const void *p) {
    return (uintptr_t)p % 16 == 0;
}

/* Each row can be read 8 numbers at a time. */
static inline bool wide_rows(tensor t, int64_t dim) {
    return aligned_16(t.data) && dim % WIDE == 0;
}

static inline bool wide_rows(const frame_rows &m) {
    return aligned_16(m.rows) && m.width % 4 == 0;
}

/* Calls f with a pointer of the tensor's element type. */
template <class F> static void with_type(tensor t, F f) {
    if (t.type == WAN_BF16)
        f((bf16 *)t.data);
    else if (t.type == WAN_F16)
        f((f16 *)t.data);
    else
        f((float *)t.data);
}

/* bf16 and f16 do not meet. (A function of its own: what decltype says of a variable that a generic
 * lambda inside another has captured, gcc 12 gets wrong.) */
template <class A, class B, class F> static void call_where_met(A *a, B *b, F f) {
    if constexpr (sizeof(A) != sizeof(B) || std::is_same_v<A, B>)
        f(a, b);
    else
        assert(false);
}

template <class F> static void with_types(tensor a, tensor b, F f) {
    with_type(a, [&](auto *pa) { with_type(b, [&](auto *pb) { call_where_met(pa, pb, f); }); });
}

/* The same of tokens, which are never f16. */
template <class F> static void with_token_type(tensor t, F f) {
    assert(t.type != WAN_F16);
    if (t.type == WAN_BF16)
        f((bf16 *)t.data);
    else
        f((float *)t.data);
}

template <class F> static void with_token_types(tensor a, tensor b, F f) {
    with_token_type(a, [&](auto *pa) { with_token_type(b, [&](auto *pb) { f(pa, pb); }); });
}

static inline int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

#endif
