/* SPDX-License-Identifier: Apache-2.0 */
/* vector.cuh - numbers in device memory, of f32 or bf16, read and written 8 at a time.
 * Kernels are templates on the element types of what they read and write; all arithmetic is f32. */
#ifndef WAN_BACKEND_CUDA_VECTOR_CUH
#define WAN_BACKEND_CUDA_VECTOR_CUH

#include <cuda_bf16.h>
#include <stdint.h>

#include "backend/cuda/cuda.h"

typedef __nv_bfloat16 bf16;

#define DEVICE static __device__ __forceinline__

enum { WARP = 32, WIDE = 8 /* numbers that a thread moves at once */ };

DEVICE float to_float(float v) {
    return v;
}
DEVICE float to_float(bf16 v) {
    return __bfloat162float(v);
}
DEVICE void from_float(float *to, float v) {
    *to = v;
}
DEVICE void from_float(bf16 *to, float v) {
    *to = __float2bfloat16_rn(v);
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

DEVICE void unpack_pair(float &low, float &high, uint32_t pair) {
    low = __uint_as_float(pair << 16);
    high = __uint_as_float(pair & 0xffff0000u);
}

DEVICE void load_wide(float (&v)[WIDE], const bf16 *p) {
    uint4 a = *reinterpret_cast<const uint4 *>(p);
    unpack_pair(v[0], v[1], a.x);
    unpack_pair(v[2], v[3], a.y);
    unpack_pair(v[4], v[5], a.z);
    unpack_pair(v[6], v[7], a.w);
}

DEVICE uint32_t pack_pair(float low, float high) {
    __nv_bfloat162 b = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&b);
}

DEVICE void store_wide(float *p, const float (&v)[WIDE]) {
    reinterpret_cast<float4 *>(p)[0] = make_float4(v[0], v[1], v[2], v[3]);
    reinterpret_cast<float4 *>(p)[1] = make_float4(v[4], v[5], v[6], v[7]);
}

DEVICE void store_wide(bf16 *p, const float (&v)[WIDE]) {
    *reinterpret_cast<uint4 *>(p) = make_uint4(pack_pair(v[0], v[1]), pack_pair(v[2], v[3]),
                                               pack_pair(v[4], v[5]), pack_pair(v[6], v[7]));
}

/* 4 numbers; p is aligned to all of them. */
DEVICE void load_four(float (&v)[4], const float *p) {
    float4 a = *reinterpret_cast<const float4 *>(p);
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
}

DEVICE void load_four(float (&v)[4], const bf16 *p) {
    uint2 a = *reinterpret_cast<const uint2 *>(p);
    unpack_pair(v[0], v[1], a.x);
    unpack_pair(v[2], v[3], a.y);
}

DEVICE void store_four(float *p, const float (&v)[4]) {
    *reinterpret_cast<float4 *>(p) = make_float4(v[0], v[1], v[2], v[3]);
}

DEVICE void store_four(bf16 *p, const float (&v)[4]) {
    *reinterpret_cast<uint2 *>(p) = make_uint2(pack_pair(v[0], v[1]), pack_pair(v[2], v[3]));
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

/* x / (1 + e^-x); T is what the result is rounded to: bf16 does not see the last bits. */
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
    const float *rows; /* NULL: zeros */
    int64_t width;     /* from one row to the next */
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
    else
        f((float *)t.data);
}

template <class F> static void with_types(tensor a, tensor b, F f) {
    with_type(a, [&](auto *pa) { with_type(b, [&](auto *pb) { f(pa, pb); }); });
}

static inline int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

#endif
