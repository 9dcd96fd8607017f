/* SPDX-License-Identifier: Apache-2.0 */
/* A convolution's weight, once when it is placed: [out, in, taps] or [out, taps, in] of any plain
 * type into [taps][out][in].  A thread takes one (out, in) and goes through the taps: what it
 * writes lies side by side with its neighbours', what it reads lies side by side in channels-last
 * files and stays in L1 from tap to tap in the others. */
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

template <dtype T>
static void launch(void *dst, dtype to, const void *src, int64_t pairs, int in, int taps, bool last,
                   cudaStream_t stream) {
    unsigned blocks = (unsigned)ceil_div(pairs, THREADS);
    if (to == WAN_BF16)
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
