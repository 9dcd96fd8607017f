/* SPDX-License-Identifier: Apache-2.0 */
/* The norm of pixels, bound by memory: a pixel's channels are a row of a warp, kept in registers,
 * several pixels at a time where they are few, so that loads never wait for one another.  Results
 * are numbers, or the codes that a convolution multiplies. */
#include "backend/cuda/vector.cuh"

enum { PIXEL_THREADS = 256 };

typedef struct pixel_job {
    int64_t pixels;
    int channels;
    const float *gain;
    bool silu;
    float code; /* codes are so many times their value */
} pixel_job;

DEVICE float pixel_scale(const pixel_job &j, float squares) {
    return sqrtf((float)j.channels) / fmaxf(sqrtf(squares), 1e-12f);
}

template <class Y> DEVICE float pixel_value(const pixel_job &j, float x, float scale, float gain) {
    float y = x * scale * gain;
    y = j.silu ? silu<Y>(y) : y;
    return std::is_same_v<Y, f8> ? y * j.code : y;
}

/* A warp takes PIXELS pixels at once, so that few channels do not leave it idle between loads.
 * dst may be x. */
template <class Y, class X, int CHUNKS, int PIXELS>
static __global__ void __launch_bounds__(PIXEL_THREADS)
    pixel_norm_wide(Y *dst, const X *x, const pixel_job j) {
    int lane = threadIdx.x % WARP;
    int64_t first = ((int64_t)blockIdx.x * (PIXEL_THREADS / WARP) + threadIdx.x / WARP) * PIXELS;
    float v[PIXELS][CHUNKS][WIDE], g[CHUNKS][WIDE], squares[PIXELS];
#pragma unroll
    for (int p = 0; p < PIXELS; p++)
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            int at = (k * WARP + lane) * WIDE;
            if (at < j.channels && first + p < j.pixels)
                load_wide(v[p][k], x + (first + p) * j.channels + at);
            else
                load_some(v[p][k], x, 0);
        }
#pragma unroll
    for (int k = 0; k < CHUNKS; k++)
        if ((k * WARP + lane) * WIDE < j.channels)
            load_wide(g[k], j.gain + (k * WARP + lane) * WIDE);
#pragma unroll
    for (int p = 0; p < PIXELS; p++) {
        squares[p] = 0;
        for (int k = 0; k < CHUNKS; k++)
            for (int i = 0; i < WIDE; i++)
                squares[p] += v[p][k][i] * v[p][k][i];
        squares[p] = warp_sum(squares[p]);
    }
#pragma unroll
    for (int p = 0; p < PIXELS; p++) {
        float scale = pixel_scale(j, squares[p]);
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            int at = (k * WARP + lane) * WIDE;
            if (at >= j.channels || first + p >= j.pixels)
                continue;
#pragma unroll
            for (int i = 0; i < WIDE; i++)
                v[p][k][i] = pixel_value<Y>(j, v[p][k][i], scale, g[k][i]);
            store_wide(dst + (first + p) * j.channels + at, v[p][k]);
        }
    }
}

template <class Y, class X>
static __global__ void __launch_bounds__(PIXEL_THREADS)
    pixel_norm_any(Y *dst, const X *x, const pixel_job j) {
    int lane = threadIdx.x % WARP;
    int64_t pixel = (int64_t)blockIdx.x * (PIXEL_THREADS / WARP) + threadIdx.x / WARP;
    if (pixel >= j.pixels)
        return;
    const X *from = x + pixel * j.channels;
    float squares = 0;
    for (int i = lane; i < j.channels; i += WARP)
        squares += to_float(from[i]) * to_float(from[i]);
    float scale = pixel_scale(j, warp_sum(squares));
    for (int i = lane; i < j.channels; i += WARP)
        from_float(dst + pixel * j.channels + i,
                   pixel_value<Y>(j, to_float(from[i]), scale, j.gain[i]));
}

template <int CHUNKS, int PIXELS, class Y, class X>
static void launch_pixels(Y *dst, const X *x, const pixel_job &j, cudaStream_t stream) {
    unsigned blocks = (unsigned)ceil_div(j.pixels, PIXEL_THREADS / WARP * PIXELS);
    pixel_norm_wide<Y, X, CHUNKS, PIXELS><<<blocks, PIXEL_THREADS, 0, stream>>>(dst, x, j);
}

template <class Y, class X>
static void run_pixels(Y *dst, const X *x, const pixel_job &j, bool wide, cudaStream_t stream) {
    int64_t chunks = wide ? ceil_div(j.channels, WARP * WIDE) : 0;
    unsigned blocks = (unsigned)ceil_div(j.pixels, PIXEL_THREADS / WARP);
    switch (chunks) {
    case 1:
        launch_pixels<1, 4>(dst, x, j, stream);
        break;
    case 2:
        launch_pixels<2, 2>(dst, x, j, stream);
        break;
    case 3:
        launch_pixels<3, 1>(dst, x, j, stream);
        break;
    case 4:
        launch_pixels<4, 1>(dst, x, j, stream);
        break;
    default:
        pixel_norm_any<<<blocks, PIXEL_THREADS, 0, stream>>>(dst, x, j);
    }
}

static pixel_job job_of(tensor x, tensor gain, bool silu, float code) {
    return {x.dim[0] * x.dim[1] * x.dim[2], (int)x.dim[3], (const float *)gain.data, silu, code};
}

static bool is_wide(tensor dst, tensor x, tensor gain) {
    return wide_rows(x, x.dim[3]) && wide_rows(dst, x.dim[3]) && aligned_16(gain.data);
}

void wan_cuda_pixel_norm(compute *c, tensor dst, tensor x, tensor gain, bool silu) {
    pixel_job j = job_of(x, gain, silu, 1);
    with_types(dst, x, [&](auto *to, auto *from) {
        run_pixels(to, from, j, is_wide(dst, x, gain), wan_cuda_device(c)->stream);
    });
    wan_cuda_launched(c, "pixel_norm");
}

void wan_cuda_pixel_codes(compute *c, tensor dst, tensor x, tensor gain, float code) {
    if (x.type != WAN_F16 || dst.type != WAN_F8_E4M3) {
        wan_fail(&c->err, WAN_E_TYPE, "cuda: no norm of %s into codes of %s",
                 wan_dtype(x.type)->name, wan_dtype(dst.type)->name);
        return;
    }
    run_pixels((f8 *)dst.data, (const f16 *)x.data, job_of(x, gain, true, code),
               is_wide(dst, x, gain), wan_cuda_device(c)->stream);
    wan_cuda_launched(c, "pixel_codes");
}
