/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of numbers to E4M3 and a scale for each, bound by memory: a row is read once, kept in
 * registers while its largest magnitude is found, and written at one byte a number.
 *
 * A block of 256 threads takes a row, each thread CHUNKS times 8 numbers.  Rows that no block can
 * keep are read twice (the second time from L2). */
#include <cuda_fp8.h>

#include "backend/cuda/decode.cuh"
#include "backend/cuda/product.h"

enum { ROW_THREADS = 256, ROW_WARPS = ROW_THREADS / WARP };

static const float largest = 448, smallest = 1e-30f; /* of E4M3; a row below counts as this */

typedef struct rows_job {
    const uint8_t *src;
    uint8_t *codes;
    float *scale;
    int64_t cols;
    const float *row_scale; /* NULL: 1 */
    bool each;
} rows_job;

DEVICE float magnitude(float most, const float (&v)[WIDE]) {
#pragma unroll
    for (int i = 0; i < WIDE; i++)
        most = fmaxf(most, fabsf(v[i]));
    return most;
}

DEVICE float block_most(float v, float *shared) {
#pragma unroll
    for (int lane = WARP / 2; lane > 0; lane /= 2)
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, lane));
    if (threadIdx.x % WARP == 0)
        shared[threadIdx.x / WARP] = v;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < ROW_WARPS; i++)
        v = fmaxf(v, shared[i]);
    return v;
}

DEVICE uint32_t four_codes(const float *v, float by) {
    uint32_t low =
        __nv_cvt_float2_to_fp8x2(make_float2(v[0] * by, v[1] * by), __NV_SATFINITE, __NV_E4M3);
    uint32_t high =
        __nv_cvt_float2_to_fp8x2(make_float2(v[2] * by, v[3] * by), __NV_SATFINITE, __NV_E4M3);
    return low | high << 16;
}

DEVICE void put_codes(uint8_t *to, const float (&v)[WIDE], float by) {
    *reinterpret_cast<uint2 *>(to) = make_uint2(four_codes(v, by), four_codes(v + 4, by));
}

template <dtype T, int CHUNKS>
static __global__ void __launch_bounds__(ROW_THREADS) quantise_rows(const rows_job j) {
    __shared__ float shared[ROW_WARPS];
    int64_t row = blockIdx.x;
    const uint8_t *src = j.src + row * (j.cols / layout<T>::block * layout<T>::bytes);
    uint8_t *to = j.codes + row * j.cols;
    float v[CHUNKS ? CHUNKS : 1][WIDE], most = 0;
    if (CHUNKS) {
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            int at = (c * ROW_THREADS + threadIdx.x) * WIDE;
            if (at < j.cols) {
                decode<T>(v[c], src, at);
                most = magnitude(most, v[c]);
            }
        }
    } else {
        for (int at = threadIdx.x * WIDE; at < j.cols; at += ROW_THREADS * WIDE) {
            decode<T>(v[0], src, at);
            most = magnitude(most, v[0]);
        }
    }
    most = fmaxf(block_most(most, shared), smallest);
    float by = largest / most, own = most / largest;
    if (threadIdx.x == 0)
        j.scale[row] = j.row_scale ? own * j.row_scale[j.each ? row : 0] : own;
    if (CHUNKS) {
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            int at = (c * ROW_THREADS + threadIdx.x) * WIDE;
            if (at < j.cols)
                put_codes(to + at, v[c], by);
        }
    } else {
        for (int at = threadIdx.x * WIDE; at < j.cols; at += ROW_THREADS * WIDE) {
            decode<T>(v[0], src, at);
            put_codes(to + at, v[0], by);
        }
    }
}

template <dtype T> static cudaError_t launch(const rows_job &j, int64_t rows, cudaStream_t stream) {
    int64_t chunks = ceil_div(j.cols, ROW_THREADS * WIDE);
    if (chunks <= 2)
        quantise_rows<T, 2><<<(unsigned)rows, ROW_THREADS, 0, stream>>>(j);
    else if (chunks <= 4)
        quantise_rows<T, 4><<<(unsigned)rows, ROW_THREADS, 0, stream>>>(j);
    else if (chunks <= 7) /* 14336 */
        quantise_rows<T, 7><<<(unsigned)rows, ROW_THREADS, 0, stream>>>(j);
    else
        quantise_rows<T, 0><<<(unsigned)rows, ROW_THREADS, 0, stream>>>(j);
    return cudaGetLastError();
}

bool wan_cuda_quantises(dtype src) {
    return src == WAN_F32 || src == WAN_BF16 || src == WAN_Q8_0;
}

cudaError_t wan_cuda_quantise_rows(void *out, float *scale, const void *src, dtype type,
                                   int64_t rows, int64_t cols, const float *row_scale, bool each,
                                   cudaStream_t stream) {
    rows_job j = {(const uint8_t *)src, (uint8_t *)out, scale, cols, row_scale, each};
    if (rows == 0)
        return cudaSuccess;
    if ((uintptr_t)src % (type == WAN_Q8_0 ? 2 : 16))
        return cudaErrorMisalignedAddress;
    return type == WAN_F32    ? launch<WAN_F32>(j, rows, stream)
           : type == WAN_BF16 ? launch<WAN_BF16>(j, rows, stream)
           : type == WAN_Q8_0 ? launch<WAN_Q8_0>(j, rows, stream)
                              : cudaErrorInvalidValue;
}

static __global__ void fill(float *dst, const float *src, int64_t n) {
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        dst[i] = src ? *src : 1;
}

cudaError_t wan_cuda_fill(float *dst, const float *src, int64_t n, cudaStream_t stream) {
    if (n > 0)
        fill<<<(unsigned)ceil_div(n, ROW_THREADS), ROW_THREADS, 0, stream>>>(dst, src, n);
    return cudaGetLastError();
}
