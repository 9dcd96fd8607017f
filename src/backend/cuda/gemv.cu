/* SPDX-License-Identifier: Apache-2.0 */
/* Products of few rows: the time embedding, short texts.  Bound by reading the weight, which is
 * read once and as it is stored.
 *
 * A block of 4 warps has OUTS rows of the weight; a thread takes 8 columns of each at a time, 16
 * bytes of bf16, the warps side by side along the columns.  x is small, stays in L1 and meets OUTS
 * weights a load.  Sums over the block's threads are taken once at the end.  x and w are used as
 * they are, without rounding either to bf16. */
#include "backend/cuda/decode.cuh"
#include "backend/cuda/product.h"

enum { FEW_THREADS = 128, OUTS = 4, FEW_WARPS = FEW_THREADS / WARP };

DEVICE void eight(float (&v)[WIDE], const uint8_t *row, int64_t k, const float *) {
    load_wide(v, (const float *)row + k);
}

DEVICE void eight(float (&v)[WIDE], const uint8_t *row, int64_t k, const bf16 *) {
    load_wide(v, (const bf16 *)row + k);
}

/* Columns [k, k + 8) of a row of the weight. */
template <dtype T> DEVICE void eight_weights(float (&v)[WIDE], const uint8_t *row, int64_t k) {
    if constexpr (T == WAN_F8_E4M3) {
        uint2 q = *reinterpret_cast<const uint2 *>(row + k);
#pragma unroll
        for (int i = 0; i < WIDE; i++)
            v[i] = e4m3((uint8_t)((i < 4 ? q.x : q.y) >> 8 * (i % 4)));
    } else {
        decode<T>(v, row, (int)k);
    }
}

DEVICE float activated(float v, activation act) {
    if (act == WAN_GELU_TANH)
        return gelu_tanh<float>(v);
    return act == WAN_SILU ? silu<float>(v) : v;
}

DEVICE void put(const few_rows &f, int64_t row, int64_t out, float v) {
    if (f.scale)
        v *= f.scale[f.scale_each ? out : 0];
    if (f.bias)
        v += f.bias[out];
    v = activated(v, f.act);
    if (f.result == WAN_BF16)
        from_float((bf16 *)f.dst + row * f.out + out, v);
    else
        ((float *)f.dst)[row * f.out + out] = v;
}

template <dtype T, class X, int ROWS>
static __global__ void __launch_bounds__(FEW_THREADS) few_rows_kernel(const few_rows f) {
    __shared__ float part[FEW_WARPS][OUTS * ROWS];
    int64_t first = (int64_t)blockIdx.x * OUTS;
    int64_t w_bytes = f.in / layout<T>::block * layout<T>::bytes;
    const uint8_t *x = (const uint8_t *)f.x, *w[OUTS];
    float sum[OUTS][ROWS] = {};
#pragma unroll
    for (int o = 0; o < OUTS; o++) /* past the last: the last again */
        w[o] = (const uint8_t *)f.w + min(first + o, f.out - 1) * w_bytes;
    for (int64_t k = threadIdx.x * WIDE; k < f.in; k += FEW_THREADS * WIDE) {
        float a[OUTS][WIDE], b[WIDE];
#pragma unroll
        for (int o = 0; o < OUTS; o++)
            eight_weights<T>(a[o], w[o], k);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            if (r >= f.rows)
                break;
            eight(b, x + (int64_t)r * f.in * sizeof(X), k, (const X *)NULL);
#pragma unroll
            for (int o = 0; o < OUTS; o++)
#pragma unroll
                for (int i = 0; i < WIDE; i++)
                    sum[o][r] = fmaf(a[o][i], b[i], sum[o][r]);
        }
    }
#pragma unroll
    for (int o = 0; o < OUTS; o++)
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float v = warp_sum(sum[o][r]);
            if (threadIdx.x % WARP == 0)
                part[threadIdx.x / WARP][o * ROWS + r] = v;
        }
    __syncthreads();
    int o = threadIdx.x / ROWS, r = threadIdx.x % ROWS;
    if (o >= OUTS || r >= f.rows || first + o >= f.out)
        return;
    float v = 0;
#pragma unroll
    for (int i = 0; i < FEW_WARPS; i++)
        v += part[i][o * ROWS + r];
    put(f, r, first + o, v);
}

template <dtype T, class X> static void launch(const few_rows &f, cudaStream_t stream) {
    static_assert(OUTS * FEW_ROWS <= FEW_THREADS, "a thread for each result");
    unsigned blocks = (unsigned)ceil_div(f.out, OUTS);
    if (f.rows <= 2)
        few_rows_kernel<T, X, 2><<<blocks, FEW_THREADS, 0, stream>>>(f);
    else if (f.rows <= 8)
        few_rows_kernel<T, X, 8><<<blocks, FEW_THREADS, 0, stream>>>(f);
    else
        few_rows_kernel<T, X, FEW_ROWS><<<blocks, FEW_THREADS, 0, stream>>>(f);
}

template <dtype T> static cudaError_t launch_for(const few_rows &f, cudaStream_t stream) {
    if (f.x_type == WAN_BF16)
        launch<T, bf16>(f, stream);
    else
        launch<T, float>(f, stream);
    return cudaGetLastError();
}

bool wan_cuda_few_rows_fits(int64_t rows, tensor weight, bool groups) {
    dtype t = weight.type;
    return rows <= FEW_ROWS && weight.dim[1] % WIDE == 0 && !groups &&
           (t == WAN_BF16 || t == WAN_F16 || t == WAN_F32 || t == WAN_Q8_0 || t == WAN_F8_E4M3);
}

cudaError_t wan_cuda_few_rows(const few_rows *f, cudaStream_t stream) {
    uintptr_t w = (uintptr_t)f->w;
    if (!aligned_16(f->x) || w % (f->w_type == WAN_Q8_0 ? 2 : 16))
        return cudaErrorMisalignedAddress;
    switch (f->w_type) {
    case WAN_BF16:
        return launch_for<WAN_BF16>(*f, stream);
    case WAN_F16:
        return launch_for<WAN_F16>(*f, stream);
    case WAN_F32:
        return launch_for<WAN_F32>(*f, stream);
    case WAN_Q8_0:
        return launch_for<WAN_Q8_0>(*f, stream);
    case WAN_F8_E4M3:
        return launch_for<WAN_F8_E4M3>(*f, stream);
    default:
        return cudaErrorInvalidValue;
    }
}

/* --------------------------------------------------------------------------------------- check */

enum { CHECK_THREADS = 256, CHECK_ROWS = 3 };

template <dtype T>
static __global__ void __launch_bounds__(CHECK_THREADS)
    check_rows(const product p, const unfinished left, float *sums) {
    int64_t at = (int64_t)blockIdx.x * (CHECK_THREADS / WARP) + threadIdx.x / WARP;
    int64_t out = at / CHECK_ROWS, row = at % CHECK_ROWS * (p.rows - 1) / (CHECK_ROWS - 1);
    float sum = 0, got;
    if (out >= p.out)
        return;
    for (int64_t k = threadIdx.x % WARP; k < p.in; k += WARP)
        sum = fmaf(plain_at<T>(p.x, row * p.in + k), plain_at<T>(p.w, out * p.in + k), sum);
    sum = warp_sum(sum);
    if (threadIdx.x % WARP)
        return;
    if (T == WAN_F8_E4M3 && !left.scales)
        sum *= p.x_scale[row] * p.w_scale[out];
    if (p.bias && !left.bias)
        sum += p.bias[out];
    if (!left.act)
        sum = activated(sum, p.act);
    got = p.result == WAN_BF16 ? to_float(((const bf16 *)p.dst)[row * p.out + out])
                               : ((const float *)p.dst)[row * p.out + out];
    if (!isfinite(sum))
        return; /* says nothing about the product */
    atomicAdd(sums, (got - sum) * (got - sum));
    atomicAdd(sums + 1, sum * sum);
}

cudaError_t wan_cuda_product_check(const product *p, unfinished left, void *scratch,
                                   cudaStream_t stream, double *distance) {
    float sums[2];
    unsigned blocks = (unsigned)ceil_div(p->out * CHECK_ROWS, CHECK_THREADS / WARP);
    cudaError_t e = cudaMemsetAsync(scratch, 0, sizeof sums, stream);
    if (e)
        return e;
    if (p->operand == WAN_F32)
        check_rows<WAN_F32><<<blocks, CHECK_THREADS, 0, stream>>>(*p, left, (float *)scratch);
    else if (p->operand == WAN_BF16)
        check_rows<WAN_BF16><<<blocks, CHECK_THREADS, 0, stream>>>(*p, left, (float *)scratch);
    else
        check_rows<WAN_F8_E4M3><<<blocks, CHECK_THREADS, 0, stream>>>(*p, left, (float *)scratch);
    e = cudaGetLastError();
    if (!e)
        e = cudaMemcpyAsync(sums, scratch, sizeof sums, cudaMemcpyDeviceToHost, stream);
    if (!e)
        e = cudaStreamSynchronize(stream);
    *distance = e || sums[0] == 0 ? 0 : sqrt((double)sums[0] / (double)sums[1]);
    return e;
}
