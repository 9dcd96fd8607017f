/* SPDX-License-Identifier: Apache-2.0 */
/* A convolution's weight, once when it is placed: [out, in, taps] or [out, taps, in] of any plain
 * type into [taps][out][in].  A thread takes one (out, in) and goes through the taps: what it
 * writes lies side by side with its neighbours', what it reads lies side by side in channels-last
 * files and stays in L1 from tap to tap in the others.  Codes need to be seen whole first. */
#include "backend/cuda/decode.cuh"

enum { THREADS = 256 };

template <dtype T, class Y>
static __global__ void __launch_bounds__(THREADS)
    pack_taps(Y *__restrict__ dst, const void *src, int64_t pairs, int in, int taps, bool last) {
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= pairs)
        return;
    int64_t out = i / in, from = last ? out * taps * in + i % in : i * taps;
    for (int t = 0; t < taps; t++)
        from_float(dst + t * pairs + i, plain_at<T>(src, from + (last ? (int64_t)t * in : t)));
}

DEVICE float block_most(float v) {
    __shared__ float shared[THREADS / WARP];
#pragma unroll
    for (int lane = WARP / 2; lane > 0; lane /= 2)
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, lane));
    if (threadIdx.x % WARP == 0)
        shared[threadIdx.x / WARP] = v;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < THREADS / WARP; i++)
        v = fmaxf(v, shared[i]);
    return v;
}

/* Codes and behind them a scale for each output, its largest magnitude over 448.  A block takes one
 * output, and reads it twice. */
template <dtype T>
static __global__ void __launch_bounds__(THREADS)
    pack_codes(f8 *__restrict__ dst, const void *src, int outs, int in, int taps, bool last) {
    int64_t out = blockIdx.x, first = out * taps * in;
    float most = 0;
    for (int i = threadIdx.x; i < taps * in; i += THREADS)
        most = fmaxf(most, fabsf(plain_at<T>(src, first + i)));
    most = fmaxf(block_most(most), 1e-30f);
    for (int i = threadIdx.x; i < taps * in; i += THREADS) {
        int tap = i / in, channel = i % in;
        float v = plain_at<T>(src, first + (last ? i : channel * taps + tap));
        from_float(dst + (tap * (int64_t)outs + out) * in + channel, v * (E4M3_MOST / most));
    }
    if (threadIdx.x == 0)
        reinterpret_cast<float *>(dst + (int64_t)taps * outs * in)[out] = most / E4M3_MOST;
}

template <dtype T>
static void launch(void *dst, dtype to, const void *src, int64_t pairs, int in, int taps, bool last,
                   cudaStream_t stream) {
    unsigned blocks = (unsigned)ceil_div(pairs, THREADS), outs = (unsigned)(pairs / in);
    if (to == WAN_F8_E4M3)
        pack_codes<T><<<outs, THREADS, 0, stream>>>((f8 *)dst, src, (int)outs, in, taps, last);
    else if (to == WAN_BF16)
        pack_taps<T><<<blocks, THREADS, 0, stream>>>((bf16 *)dst, src, pairs, in, taps, last);
    else if (to == WAN_F16)
        pack_taps<T><<<blocks, THREADS, 0, stream>>>((f16 *)dst, src, pairs, in, taps, last);
    else
        pack_taps<T><<<blocks, THREADS, 0, stream>>>((float *)dst, src, pairs, in, taps, last);
}

#define CASE(T)                                                                                    \
    case T:                                                                                        \
        launch<T>(dst, to, src, pairs, in, taps, channels_last, stream);                           \
        break;

cudaError_t wan_cuda_pack_conv(void *dst, dtype to, const void *src, tensor stored,
                               bool channels_last, cudaStream_t stream) {
    int64_t pairs = stored.dim[0] * stored.dim[1];
    int in = (int)stored.dim[1], taps = 1;
    for (int i = 2; i < stored.rank; i++)
        taps *= (int)stored.dim[i];
    if (pairs == 0 || taps == 0)
        return cudaSuccess;
    /* clang-format off */
    switch (stored.type) {
    CASE(WAN_F64) CASE(WAN_F32) CASE(WAN_F16) CASE(WAN_BF16) CASE(WAN_F8_E4M3) CASE(WAN_F8_E5M2)
    CASE(WAN_I8) CASE(WAN_MLX_8)
    default: return cudaErrorInvalidValue;
    }
    /* clang-format on */
    return cudaGetLastError();
}
