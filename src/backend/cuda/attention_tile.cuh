/* SPDX-License-Identifier: Apache-2.0 */
/* attention_tile.cuh - what the attention kernels for Hopper have in common (attention_sm90.cu,
 * attention_8bit.cu): turns, rings and barriers, the ends of softmax and of a tile, maps for TMA.
 */
#ifndef WAN_BACKEND_CUDA_ATTENTION_TILE_CUH
#define WAN_BACKEND_CUDA_ATTENTION_TILE_CUH

#include "backend/cuda/attention_sm90.cuh"
#include "backend/cuda/cuda.h"
#include "backend/cuda/sm90.cuh"

static constexpr int Head = 128;
static constexpr int Box = 64; /* columns of a swizzled block: 128 bytes */
static constexpr float Log2e = 1.4426950408889634f;

/* ------------------------------------------------------------------------- turns and rings */

/* Named barriers 1 + group: whose turn it is to issue. */
static __device__ __forceinline__ void turn_wait(int group) {
    asm volatile("bar.sync %0, 256;" ::"r"(1 + group) : "memory");
}

static __device__ __forceinline__ void turn_give(int group) {
    asm volatile("bar.arrive %0, 256;" ::"r"(1 + group) : "memory");
}

/* A place in a ring, and the parity of its barriers. */
template <int Stages> struct ring {
    int at = 0;
    uint32_t parity = 0;
    __device__ __forceinline__ void step() {
        if (++at == Stages) {
            at = 0;
            parity ^= 1;
        }
    }
};

/* Addresses of the barriers: full and empty, of the queries, then of each stage. */
struct barriers {
    uint32_t base;
    __device__ __forceinline__ uint32_t q_full() const { return base; }
    __device__ __forceinline__ uint32_t q_empty() const { return base + 8; }
    __device__ __forceinline__ uint32_t k_full(int i) const { return base + 16 + 32 * i; }
    __device__ __forceinline__ uint32_t k_empty(int i) const { return base + 24 + 32 * i; }
    __device__ __forceinline__ uint32_t v_full(int i) const { return base + 32 + 32 * i; }
    __device__ __forceinline__ uint32_t v_empty(int i) const { return base + 40 + 32 * i; }
};

/* ------------------------------------------------------------------------- matrix products */

/* Values lie MN-major: 8 keys of 64 columns to an atom, the other 64 columns `block` bytes on. */
static __device__ __forceinline__ uint64_t values_at(uint32_t address, uint32_t block) {
    return (matrix_at(address) & ~(0x3fffull << 16)) | (uint64_t)(block >> 4) << 16;
}

/* As matrix_at, of rows of 64 bytes with that swizzle. */
static __device__ __forceinline__ uint64_t half_matrix_at(uint32_t address) {
    return (uint64_t)((address & 0x3ffff) >> 4) | 1ull << 16 | 32ull << 32 | 2ull << 62;
}

/* The assembler likes to move a wait up, past the exponentials that should run beside the product.
 * It does not move one past a store; this one, never done, needs their sum. */
static __device__ __forceinline__ void finish_first(float sum, uint32_t address) {
    asm volatile("{\n.reg .pred p;\nsetp.lt.f32 p, %0, 0f00000000;\n"
                 "@p st.shared.f32 [%1], %0;\n}" ::"f"(sum),
                 "r"(address)
                 : "memory");
}

/* ------------------------------------------------------------------------- softmax
 * A thread has two rows, r = lane / 4 and r + 8 of its warp's 16, and of each eight columns the
 * two at 2 * (lane % 4): x[4 * j + 2 * row + 0 or 1]. */

static __device__ __forceinline__ float exp_2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

static __device__ __forceinline__ uint32_t pack(float low, float high) {
    uint32_t y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}

template <int N>
static __device__ __forceinline__ void pack_all(uint32_t (&p)[N / 2], float (&s)[N]) {
#pragma unroll
    for (int i = 0; i < N / 2; i++)
        p[i] = pack(s[2 * i], s[2 * i + 1]);
}

template <bool Lazy>
static __device__ __forceinline__ void rescale(float (&o)[64], const float (&factor)[2]) {
    if (Lazy && !__any_sync(~0u, factor[0] != 1 || factor[1] != 1))
        return;
#pragma unroll
    for (int i = 0; i < 64; i++)
        o[i] *= factor[(i / 2) % 2];
}

/* ------------------------------------------------------------------------- the end of a tile */

/* Lane i of each four gives its word j to lane j, and gets that one's word i. */
static __device__ __forceinline__ void transpose_quad(uint32_t (&w)[4]) {
    bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        uint32_t got = __shfl_xor_sync(~0u, odd ? w[i] : w[i + 1], 1);
        w[i] = odd ? got : w[i];
        w[i + 1] = odd ? w[i + 1] : got;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        uint32_t got = __shfl_xor_sync(~0u, high ? w[i] : w[i + 2], 2);
        w[i] = high ? got : w[i];
        w[i + 2] = high ? w[i + 2] : got;
    }
}

/* Divides by the sums, in units of 1 / `unit`.  `dst` has n rows of `width`, and is at the head's
 * first column; 16 bytes a thread, 64 in a row by four threads. */
static __device__ __forceinline__ void store(uint16_t *dst, int n, int width, int row,
                                             const float (&o)[64], float (&sum)[2], float unit) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float all = sum[r];
        all += __shfl_xor_sync(~0u, all, 1);
        all += __shfl_xor_sync(~0u, all, 2);
        float inverse = unit / all;
        int at = row + 8 * r;
        uint16_t *to = dst + (int64_t)at * width + 8 * (threadIdx.x % 4);
#pragma unroll
        for (int t = 0; t < 4; t++) {
            uint32_t w[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int x = 4 * (4 * t + i) + 2 * r;
                w[i] = pack(o[x] * inverse, o[x + 1] * inverse);
            }
            transpose_quad(w);
            if (at < n)
                *(uint4 *)(to + 32 * t) = make_uint4(w[0], w[1], w[2], w[3]);
        }
    }
}

/* ------------------------------------------------------------------------- maps */

typedef decltype(&cuTensorMapEncodeTiled) encode_tiled;

/* The driver's, so that nothing links to libcuda. */
static cudaError_t find_encoder(encode_tiled *f) {
    static void *found; /* the same whoever writes it */
    if (!found) {
        cudaDriverEntryPointQueryResult result;
        cudaError_t e = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                                         cudaEnableDefault, &result);
        if (e != cudaSuccess)
            return e;
        if (result != cudaDriverEntryPointSuccess || !found)
            return cudaErrorNotSupported;
    }
    *f = (encode_tiled)found;
    return cudaSuccess;
}

/* [tokens, heads * 128] as {64, tokens, 2 * heads}, in boxes of `rows` tokens and `blocks` times 64
 * columns. */
static bool map_rows(encode_tiled f, CUtensorMap *map, const void *data, int64_t tokens, int heads,
                     int rows, int blocks) {
    cuuint64_t dims[3] = {Box, (cuuint64_t)tokens, 2 * (cuuint64_t)heads};
    cuuint64_t strides[2] = {(cuuint64_t)heads * Head * 2, Box * 2};
    cuuint32_t box[3] = {Box, (cuuint32_t)rows, (cuuint32_t)blocks};
    cuuint32_t steps[3] = {1, 1, 1};
    return f(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, (void *)data, dims, strides, box, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

static bool aligned(const void *p) {
    return (uintptr_t)p % 16 == 0;
}

#endif
