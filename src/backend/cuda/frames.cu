/* SPDX-License-Identifier: Apache-2.0 */
/* The autoencoder's shortcuts, the way in and the way out: numbers that change places.
 * Bound by memory.  A block takes a stretch of one row of pixels, so that frame and row are found
 * once; a thread writes 8 channels of a pixel where channels allow it (all of the model's do), else
 * one. */
#include "backend/cuda/vector.cuh"

enum { THREADS = 256, TURNS = 4 /* of a thread, along the row */ };

/* Blocks for `rows` rows of `items` items each; items are then taken by FOR_ITEMS. */
static dim3 blocks_for(int64_t rows, int64_t items) {
    return dim3((unsigned)rows, (unsigned)ceil_div(items, THREADS * TURNS));
}

#define FOR_ITEMS(i, items)                                                                        \
    for (int i = blockIdx.y * THREADS + threadIdx.x; i < (items); i += gridDim.y * THREADS)

/* [frames, height, width, channels] */
typedef struct image {
    int frames, height, width, channels;
} image;

static image image_of(tensor t) {
    return {(int)t.dim[0], (int)t.dim[1], (int)t.dim[2], (int)t.dim[3]};
}

DEVICE int64_t pixel_of(const image &g, int frame, int y, int x) {
    return (((int64_t)frame * g.height + y) * g.width + x) * g.channels;
}

/* ------------------------------------------------------------------------------------ shortcuts */

typedef struct shortcut {
    image from, to;
    int ft, fs, skip; /* skip: frames dropped, or zero frames in front */
    int cells;        /* ft * fs * fs */
    int group; /* dup_up: outputs that share a number; avg_down: numbers that share an output */
} shortcut;

/* Channel o of the result is channel (o * cells + phase) / group = o * STEP + phase / group. */
template <int STEP, class Y, class X>
static __global__ void __launch_bounds__(THREADS)
    dup_up_wide(Y *__restrict__ dst, const X *__restrict__ x, const shortcut s) {
    int n = blockIdx.x / s.to.height + s.skip, y = blockIdx.x % s.to.height;
    int phase = (n % s.ft * s.fs + y % s.fs) * s.fs, each = s.to.channels / WIDE;
    const X *line = x + pixel_of(s.from, n / s.ft, y / s.fs, 0);
    Y *to = dst + (int64_t)blockIdx.x * s.to.width * s.to.channels;
    FOR_ITEMS(i, s.to.width * each) {
        int col = i / each, o = i % each * WIDE, at = (phase + col % s.fs) / s.group;
        const X *from = line + (int64_t)(col / s.fs) * s.from.channels + o * STEP;
        float v[STEP][WIDE];
#pragma unroll
        for (int k = 0; k < STEP; k++)
            load_wide(v[k], from + k * WIDE);
        if (STEP == 2) {
            float picked[WIDE];
#pragma unroll
            for (int k = 0; k < WIDE; k++)
                picked[k] = at ? v[2 * k / WIDE][2 * k % WIDE + 1] : v[2 * k / WIDE][2 * k % WIDE];
            store_wide(to + (int64_t)col * s.to.channels + o, picked);
        } else {
            store_wide(to + (int64_t)col * s.to.channels + o, v[0]);
        }
    }
}

template <class Y, class X>
static __global__ void __launch_bounds__(THREADS)
    dup_up_any(Y *__restrict__ dst, const X *__restrict__ x, const shortcut s) {
    int n = blockIdx.x / s.to.height + s.skip, y = blockIdx.x % s.to.height;
    int phase = (n % s.ft * s.fs + y % s.fs) * s.fs;
    const X *line = x + pixel_of(s.from, n / s.ft, y / s.fs, 0);
    Y *to = dst + (int64_t)blockIdx.x * s.to.width * s.to.channels;
    FOR_ITEMS(i, s.to.width * s.to.channels) {
        int col = i / s.to.channels, o = i % s.to.channels;
        int channel = (o * s.cells + phase + col % s.fs) / s.group;
        from_float(to + i, to_float(line[(int64_t)(col / s.fs) * s.from.channels + channel]));
    }
}

void wan_cuda_dup_up(compute *c, tensor dst, tensor x, int ft, int fs, int drop) {
    cudaStream_t stream = wan_cuda_device(c)->stream;
    shortcut s = {image_of(x), image_of(dst), ft, fs, drop, ft * fs * fs, 0};
    s.group = (int)((int64_t)s.to.channels * s.cells / s.from.channels);
    bool wide = wide_rows(x, s.from.channels) && wide_rows(dst, s.to.channels);
    int step = wide && s.cells % s.group == 0 ? s.cells / s.group : 0;
    int64_t rows = (int64_t)s.to.frames * s.to.height, items = (int64_t)s.to.width * s.to.channels;
    with_types(dst, x, [&](auto *to, auto *from) {
        if (step == 1)
            dup_up_wide<1><<<blocks_for(rows, items / WIDE), THREADS, 0, stream>>>(to, from, s);
        else if (step == 2)
            dup_up_wide<2><<<blocks_for(rows, items / WIDE), THREADS, 0, stream>>>(to, from, s);
        else
            dup_up_any<<<blocks_for(rows, items), THREADS, 0, stream>>>(to, from, s);
    });
    wan_cuda_launched(c, "dup_up");
}

/* Cell i of the block that becomes pixel (t, y, col); NULL for frames before the first. */
template <class X>
DEVICE const X *cell_of(const X *x, const shortcut &s, int t, int y, int col, int i) {
    int area = s.fs * s.fs, frame = t * s.ft + i / area - s.skip;
    if (frame < 0)
        return NULL;
    return x + pixel_of(s.from, frame, y * s.fs + i / s.fs % s.fs, col * s.fs + i % s.fs);
}

/* Every channel gives SHARE outputs: channel c the outputs c * SHARE + i / group of its cells i. */
template <int SHARE, class Y, class X>
static __global__ void __launch_bounds__(THREADS)
    avg_down_wide(Y *__restrict__ dst, const X *__restrict__ x, const shortcut s) {
    int t = blockIdx.x / s.to.height, y = blockIdx.x % s.to.height, each = s.to.channels / WIDE;
    Y *to = dst + (int64_t)blockIdx.x * s.to.width * s.to.channels;
    FOR_ITEMS(i, s.to.width * each) {
        int col = i / each, o = i % each * WIDE;
        float sum[WIDE] = {}, v[WIDE];
#pragma unroll
        for (int part = 0; part < SHARE; part++)
            for (int k = 0; k < s.group; k++) {
                const X *from = cell_of(x, s, t, y, col, part * s.group + k);
                if (!from)
                    continue;
                if (SHARE == 1)
                    load_wide(v, from + o);
                else
                    load_four(reinterpret_cast<float(&)[4]>(v), from + o / SHARE);
#pragma unroll
                for (int e = 0; e < WIDE / SHARE; e++)
                    sum[e * SHARE + part] += v[e];
            }
#pragma unroll
        for (int e = 0; e < WIDE; e++)
            sum[e] = sum[e] / (float)s.group;
        store_wide(to + (int64_t)col * s.to.channels + o, sum);
    }
}

template <class Y, class X>
static __global__ void __launch_bounds__(THREADS)
    avg_down_any(Y *__restrict__ dst, const X *__restrict__ x, const shortcut s) {
    int t = blockIdx.x / s.to.height, y = blockIdx.x % s.to.height;
    Y *to = dst + (int64_t)blockIdx.x * s.to.width * s.to.channels;
    FOR_ITEMS(i, s.to.width * s.to.channels) {
        int col = i / s.to.channels, o = i % s.to.channels;
        float sum = 0;
        for (int k = o * s.group; k < (o + 1) * s.group; k++) {
            const X *from = cell_of(x, s, t, y, col, k % s.cells);
            sum += from ? to_float(from[k / s.cells]) : 0;
        }
        from_float(to + i, sum / (float)s.group);
    }
}

void wan_cuda_avg_down(compute *c, tensor dst, tensor x, int ft, int fs, int pad) {
    cudaStream_t stream = wan_cuda_device(c)->stream;
    shortcut s = {image_of(x), image_of(dst), ft, fs, pad, ft * fs * fs, 0};
    s.group = (int)((int64_t)s.from.channels * s.cells / s.to.channels);
    bool wide = wide_rows(x, s.from.channels) && wide_rows(dst, s.to.channels);
    int share = wide && s.cells % s.group == 0 ? s.cells / s.group : 0;
    int64_t rows = (int64_t)s.to.frames * s.to.height, items = (int64_t)s.to.width * s.to.channels;
    with_types(dst, x, [&](auto *to, auto *from) {
        if (share == 1)
            avg_down_wide<1><<<blocks_for(rows, items / WIDE), THREADS, 0, stream>>>(to, from, s);
        else if (share == 2)
            avg_down_wide<2><<<blocks_for(rows, items / WIDE), THREADS, 0, stream>>>(to, from, s);
        else
            avg_down_any<<<blocks_for(rows, items), THREADS, 0, stream>>>(to, from, s);
    });
    wan_cuda_launched(c, "avg_down");
}

/* ---------------------------------------------------------------------------------------- copy */

/* One block, tile after tile: right for any overlap. */
static __global__ void __launch_bounds__(1024) move_bytes(char *dst, const char *src, size_t n) {
    bool up = dst < src;
    size_t tiles = (n + 1023) / 1024;
    for (size_t i = 0; i < tiles; i++) {
        size_t at = (up ? i : tiles - 1 - i) * 1024 + threadIdx.x;
        char v = at < n ? src[at] : 0;
        __syncthreads();
        if (at < n)
            dst[at] = v;
        __syncthreads();
    }
}

/* Where both overlap, pieces as long as what lies between them are copied one after the other, from
 * the end that is overwritten last. */
static cudaError_t move(char *dst, const char *src, size_t n, cudaStream_t stream) {
    size_t gap = dst < src ? (size_t)(src - dst) : (size_t)(dst - src);
    if (gap == 0 || n == 0)
        return cudaSuccess;
    if (n / gap > 64) {
        move_bytes<<<1, 1024, 0, stream>>>(dst, src, n);
        return cudaGetLastError();
    }
    cudaError_t e = cudaSuccess;
    for (size_t done = 0, step; done < n && e == cudaSuccess; done += step) {
        step = n - done < gap ? n - done : gap;
        size_t at = dst < src ? done : n - done - step;
        e = cudaMemcpyAsync(dst + at, src + at, step, cudaMemcpyDeviceToDevice, stream);
    }
    return e;
}

void wan_cuda_copy(compute *c, tensor dst, tensor src) {
    wan_cuda_ok(
        c,
        move((char *)dst.data, (const char *)src.data, wan_bytes(src), wan_cuda_device(c)->stream),
        "copy");
}

/* --------------------------------------------------------------------------------------- pixels */

/* Image pixels are planes [3, T, H, W]; a pixel of the model holds p x p of them, column offset
 * slower than row offset within a plane (vae.md 2.2). */
typedef struct planes {
    image model; /* channels: planes * p * p */
    int count, p;
    int64_t frames, from; /* of the planes; the first that takes part */
} planes;

static planes planes_of(tensor pixels, tensor x, int64_t from, int p) {
    return {image_of(x), (int)pixels.dim[0], p, pixels.dim[1], from};
}

/* Top left of the p x p pixels of (frame t, row y, column x) in a plane. */
DEVICE int64_t plane_at(const planes &g, int plane, int t, int y, int x) {
    int64_t row = (plane * g.frames + g.from + t) * (g.model.height * g.p) + y * g.p;
    return (row * g.model.width + x) * g.p;
}

/* NaN passes, and shows. */
DEVICE float clamped(float v) {
    return v < -1 ? -1 : v > 1 ? 1 : v;
}

/* p = 2: a thread takes a pixel. */
template <class Y>
static __global__ void __launch_bounds__(THREADS)
    pixels_in_2(Y *__restrict__ dst, const float *__restrict__ pixels, const planes g) {
    int t = blockIdx.x / g.model.height, y = blockIdx.x % g.model.height;
    FOR_ITEMS(x, g.model.width) {
        Y *to = dst + ((int64_t)blockIdx.x * g.model.width + x) * g.model.channels;
#pragma unroll 3
        for (int k = 0; k < g.count; k++) {
            const float2 *from = (const float2 *)(pixels + plane_at(g, k, t, y, x));
            float2 a = from[0], b = from[g.model.width];
            float v[4] = {a.x, b.x, a.y, b.y};
            store_four(to + 4 * k, v);
        }
    }
}

template <class X>
static __global__ void __launch_bounds__(THREADS)
    pixels_out_2(float *__restrict__ pixels, const X *__restrict__ src, const planes g) {
    int t = blockIdx.x / g.model.height, y = blockIdx.x % g.model.height;
    FOR_ITEMS(x, g.model.width) {
        const X *from = src + ((int64_t)blockIdx.x * g.model.width + x) * g.model.channels;
#pragma unroll 3
        for (int k = 0; k < g.count; k++) {
            float2 *to = (float2 *)(pixels + plane_at(g, k, t, y, x));
            float v[4];
            load_four(v, from + 4 * k);
            to[0] = make_float2(clamped(v[0]), clamped(v[2]));
            to[g.model.width] = make_float2(clamped(v[1]), clamped(v[3]));
        }
    }
}

/* Number i of a row of the model's pixels, among the planes. */
DEVICE int64_t pixel_number(const planes &g, int row, int i) {
    int channel = i % g.model.channels, cell = channel % (g.p * g.p), dx = cell / g.p;
    return plane_at(g, channel / (g.p * g.p), row / g.model.height, row % g.model.height,
                    i / g.model.channels) +
           (int64_t)(cell % g.p) * g.model.width * g.p + dx;
}

template <class Y>
static __global__ void __launch_bounds__(THREADS)
    pixels_in_any(Y *__restrict__ dst, const float *__restrict__ pixels, const planes g) {
    int items = g.model.width * g.model.channels;
    FOR_ITEMS(i, items)
    from_float(dst + (int64_t)blockIdx.x * items + i, pixels[pixel_number(g, blockIdx.x, i)]);
}

template <class X>
static __global__ void __launch_bounds__(THREADS)
    pixels_out_any(float *__restrict__ pixels, const X *__restrict__ src, const planes g) {
    int items = g.model.width * g.model.channels;
    FOR_ITEMS(i, items)
    pixels[pixel_number(g, blockIdx.x, i)] =
        clamped(to_float(src[(int64_t)blockIdx.x * items + i]));
}

void wan_cuda_pixels_in(compute *c, tensor dst, tensor pixels, int64_t from, int p) {
    cudaStream_t stream = wan_cuda_device(c)->stream;
    planes g = planes_of(pixels, dst, from, p);
    const float *at = (const float *)pixels.data;
    int64_t rows = dst.dim[0] * dst.dim[1], width = dst.dim[2];
    with_type(dst, [&](auto *to) {
        if (p == 2 && aligned_16(to) && aligned_16(at))
            pixels_in_2<<<blocks_for(rows, width), THREADS, 0, stream>>>(to, at, g);
        else
            pixels_in_any<<<blocks_for(rows, width * dst.dim[3]), THREADS, 0, stream>>>(to, at, g);
    });
    wan_cuda_launched(c, "pixels_in");
}

void wan_cuda_pixels_out(compute *c, tensor pixels, int64_t from, tensor x, int p) {
    cudaStream_t stream = wan_cuda_device(c)->stream;
    planes g = planes_of(pixels, x, from, p);
    float *at = (float *)pixels.data;
    int64_t rows = x.dim[0] * x.dim[1], width = x.dim[2];
    with_type(x, [&](auto *src) {
        if (p == 2 && aligned_16(src) && aligned_16(at))
            pixels_out_2<<<blocks_for(rows, width), THREADS, 0, stream>>>(at, src, g);
        else
            pixels_out_any<<<blocks_for(rows, width * x.dim[3]), THREADS, 0, stream>>>(at, src, g);
    });
    wan_cuda_launched(c, "pixels_out");
}

/* ------------------------------------------------------------------------------------- latents */

/* Planes [C, F, h, w], of which `frames` from `from` on are pixels [frames, h, w, channels]. */
typedef struct latent_job {
    int64_t all, from, size; /* frames of the planes, the first used, numbers of one */
    int64_t pixels;          /* of all frames used */
    int planes, channels;
    const float *mean, *inv_std;
} latent_job;

static latent_job latents_of(tensor latents, tensor x, int64_t from, tensor mean, tensor inv_std) {
    int64_t size = latents.dim[2] * latents.dim[3];
    return {latents.dim[1],
            from,
            size,
            x.dim[0] * size,
            (int)latents.dim[0],
            (int)x.dim[3],
            (const float *)mean.data,
            (const float *)inv_std.data};
}

/* A thread goes along a pixel's channels: planes are then read and written side by side. */
template <class Y>
static __global__ void __launch_bounds__(THREADS)
    latents_to_pixels(Y *__restrict__ dst, const float *__restrict__ latents, const latent_job j) {
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    for (int k = 0; k < j.planes && i < j.pixels; k++)
        from_float(dst + i * j.channels + k,
                   latents[(k * j.all + j.from) * j.size + i] / j.inv_std[k] + j.mean[k]);
}

template <class X>
static __global__ void __launch_bounds__(THREADS)
    pixels_to_latents(float *__restrict__ latents, const X *__restrict__ x, const latent_job j) {
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    for (int k = 0; k < j.planes && i < j.pixels; k++)
        latents[(k * j.all + j.from) * j.size + i] =
            (to_float(x[i * j.channels + k]) - j.mean[k]) * j.inv_std[k];
}

void wan_cuda_latents_in(compute *c, tensor dst, tensor latents, int64_t from, tensor mean,
                         tensor inv_std) {
    cudaStream_t stream = wan_cuda_device(c)->stream;
    latent_job j = latents_of(latents, dst, from, mean, inv_std);
    unsigned blocks = (unsigned)ceil_div(j.pixels, THREADS);
    with_type(dst, [&](auto *to) {
        latents_to_pixels<<<blocks, THREADS, 0, stream>>>(to, (const float *)latents.data, j);
    });
    wan_cuda_launched(c, "latents_in");
}

void wan_cuda_latents_out(compute *c, tensor latents, int64_t from, tensor x, tensor mean,
                          tensor inv_std) {
    cudaStream_t stream = wan_cuda_device(c)->stream;
    latent_job j = latents_of(latents, x, from, mean, inv_std);
    unsigned blocks = (unsigned)ceil_div(j.pixels, THREADS);
    with_type(x, [&](auto *src) {
        pixels_to_latents<<<blocks, THREADS, 0, stream>>>((float *)latents.data, src, j);
    });
    wan_cuda_launched(c, "latents_out");
}
