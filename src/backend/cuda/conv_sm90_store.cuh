/* SPDX-License-Identifier: Apache-2.0 */
/* conv_sm90_store.cuh - from sums in registers to memory.
 * A warp has 16 rows, pixels; lane l has of row l / 4 (r % 2 = 0) and row l / 4 + 8 (r % 2 = 1) the
 * outputs 2 (l % 4) and the next one of every group of 8. */
#ifndef WAN_BACKEND_CUDA_CONV_SM90_STORE_CUH
#define WAN_BACKEND_CUDA_CONV_SM90_STORE_CUH

#include "backend/cuda/conv_sm90_job.cuh"

/* Among four lanes: v[i] of lane q and v[q] of lane i change places. */
static __device__ __forceinline__ void transpose4(uint32_t (&v)[4], int q) {
#pragma unroll
    for (int bit = 1; bit <= 2; bit *= 2) {
        bool upper = q & bit;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i & bit)
                continue;
            uint32_t got = __shfl_xor_sync(0xffffffffu, upper ? v[i] : v[i + bit], bit);
            v[i] = upper ? got : v[i];
            v[i + bit] = upper ? v[i + bit] : got;
        }
    }
}

/* acc += bias; what is added past the last output is not stored. */
template <int MW, int N>
static __device__ __forceinline__ void add_bias(const conv_job &j, float (&acc)[MW][N / 2], int out,
                                                int q) {
#pragma unroll
    for (int b = 0; b < N / 8 && j.bias; b++) {
        float2 bias = *(const float2 *)(j.bias + min(out + 8 * b, j.out - 8) + 2 * q);
#pragma unroll
        for (int r = 0; r < 2 * MW; r++) {
            acc[r / 2][4 * b + 2 * (r % 2)] += bias.x;
            acc[r / 2][4 * b + 2 * (r % 2) + 1] += bias.y;
        }
    }
}

/* Rows of whole groups of 8 outputs.  Four lanes hold two neighbours each of four such groups;
 * after a transposition each has one group, 16 bytes, and together they store 64 bytes of a row. */
template <int MW, int N>
static __device__ __forceinline__ void store_wide(const conv_job &j, const float (&acc)[MW][N / 2],
                                                  f16 *const (&to)[2 * MW], int out, int q) {
#pragma unroll
    for (int g = 0; g < N / 32; g++) {
        int o = out + 32 * g + 8 * q;
        int64_t at = o < j.channels ? o : o + j.part;
#pragma unroll
        for (int r = 0; r < 2 * MW; r++) {
            uint32_t v[4];
#pragma unroll
            for (int b = 0; b < 4; b++) {
                const float *d = &acc[r / 2][16 * g + 4 * b + 2 * (r % 2)];
                v[b] = pack_pair<f16>(d[0], d[1]);
            }
            transpose4(v, q);
            if (to[r] && o < j.out)
                *(uint4 *)(to[r] + at) = make_uint4(v[0], v[1], v[2], v[3]);
        }
    }
}

/* The same of codes, two groups of 8 a lane. */
template <int MW, int N>
static __device__ __forceinline__ void store_wide(const conv_job &j, const float (&acc)[MW][N / 2],
                                                  f8 *const (&to)[2 * MW], int out, int q) {
#pragma unroll
    for (int g = 0; g < N / 64; g++)
#pragma unroll
        for (int r = 0; r < 2 * MW; r++) {
            uint32_t v[4];
#pragma unroll
            for (int b = 0; b < 4; b++) {
                const float *d = &acc[r / 2][32 * g + 8 * b + 2 * (r % 2)];
                v[b] = pack_four(d[0], d[1], d[4], d[5]);
            }
            transpose4(v, q);
            int o = out + 64 * g + 16 * q;
            if (to[r] && o < j.out)
                *(uint4 *)(to[r] + o) =
                    make_uint4(__byte_perm(v[0], v[1], 0x5410), __byte_perm(v[2], v[3], 0x5410),
                               __byte_perm(v[0], v[1], 0x7632), __byte_perm(v[2], v[3], 0x7632));
        }
}

/* The norm of a pixel's outputs, which are a whole tile's: in four lanes, beside other rows. */
template <int MW, int N>
static __device__ __forceinline__ void normalise(const conv_job &j, float (&acc)[MW][N / 2],
                                                 int q) {
    float scale[2 * MW] = {};
#pragma unroll
    for (int b = 0; b < N / 8; b++)
#pragma unroll
        for (int r = 0; r < 2 * MW; r++) {
            const float *d = &acc[r / 2][4 * b + 2 * (r % 2)];
            scale[r] += d[0] * d[0] + d[1] * d[1];
        }
#pragma unroll
    for (int r = 0; r < 2 * MW; r++) {
        scale[r] += __shfl_xor_sync(0xffffffffu, scale[r], 1);
        scale[r] += __shfl_xor_sync(0xffffffffu, scale[r], 2);
        scale[r] = sqrtf((float)N) / fmaxf(sqrtf(scale[r]), 1e-12f);
    }
#pragma unroll
    for (int b = 0; b < N / 8; b++) {
        float2 gain = *(const float2 *)(j.gain + 8 * b + 2 * q);
#pragma unroll
        for (int r = 0; r < 2 * MW; r++) {
            float *d = &acc[r / 2][4 * b + 2 * (r % 2)];
            d[0] = silu<f16>(d[0] * scale[r] * gain.x) * j.code;
            d[1] = silu<f16>(d[1] * scale[r] * gain.y) * j.code;
        }
    }
}

/* Any number of outputs, one by one. */
template <int MW, int N>
static __device__ __forceinline__ void store_each(const conv_job &j, const float (&acc)[MW][N / 2],
                                                  f16 *const (&to)[2 * MW], int out, int q) {
#pragma unroll
    for (int b = 0; b < N / 8; b++)
#pragma unroll
        for (int r = 0; r < 2 * MW; r++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                int o = out + 8 * b + 2 * q + e;
                if (!to[r] || o >= j.out)
                    continue;
                f16 *at = to[r] + (o < j.channels ? o : o + j.part);
                float sum = acc[r / 2][4 * b + 2 * (r % 2) + e];
                sum += j.bias ? __ldg(j.bias + o) : 0.f;
                sum += j.add ? to_float(*at) : 0.f;
                from_float(at, sum);
            }
}

#endif
