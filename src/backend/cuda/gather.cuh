/* SPDX-License-Identifier: Apache-2.0 */
/* gather.cuh - a convolution as a matrix product: which pixel a tap of an output pixel sees, and
 * where the result goes.  A block has a tile of ROWS output pixels, whose places wait in shared
 * memory; steps go over taps, outermost, and spans of input channels. */
#ifndef WAN_BACKEND_CUDA_GATHER_CUH
#define WAN_BACKEND_CUDA_GATHER_CUH

#include "backend/cuda/vector.cuh"

enum { ROWS = 128, TILE_THREADS = 256, NOWHERE = -32768, MOST_PLACES = 32000 };

/* What the first tap of an output pixel sees; NOWHERE past the last pixel.  Short, so that two
 * blocks of the kernel for two bytes fit where a multiprocessor has 100 KiB. */
typedef struct row_places {
    int16_t t[ROWS], y[ROWS], x[ROWS];
} row_places;

static __host__ __device__ inline int64_t out_height(const conv_args &a) {
    return a.height / a.stride;
}
static __host__ __device__ inline int64_t out_width(const conv_args &a) {
    return a.width / a.stride;
}
static __host__ __device__ inline int64_t out_pixels(const conv_args &a) {
    return a.frames_out * out_height(a) * out_width(a);
}

/* By the first ROWS threads; a barrier must follow. */
DEVICE void find_places(row_places &p, const conv_args &a, int64_t first) {
    int i = threadIdx.x;
    int64_t at = first + i, w = out_width(a), h = out_height(a);
    if (i >= ROWS)
        return;
    if (at >= out_pixels(a)) {
        p.t[i] = p.y[i] = p.x[i] = NOWHERE;
        return;
    }
    int64_t line = at / w, t = line / h;
    p.t[i] = (int16_t)(t * a.time_stride - a.before);
    p.y[i] = (int16_t)((line - t * h) * a.stride - a.top);
    p.x[i] = (int16_t)((at - line * w) * a.stride - a.left);
}

/* Where channel 0 of a row's pixel goes, from dst; -1: no such pixel. */
DEVICE int64_t pixel_place(const conv_args &a, const row_places &p, int row) {
    if (p.y[row] == NOWHERE)
        return -1;
    int64_t t = (p.t[row] + a.before) / a.time_stride, each = a.out / a.split;
    int64_t y = (p.y[row] + a.top) / a.stride, x = (p.x[row] + a.left) / a.stride;
    return ((t * a.split * a.dst_h + y * a.step + a.off_y) * a.dst_w + x * a.step + a.off_x) * each;
}

/* Where channel o of a pixel goes, from its channel 0. */
DEVICE int64_t channel_place(const conv_args &a, int o) {
    if (a.split == 1)
        return o;
    int each = (int)a.out / a.split;
    return o / each * a.dst_h * a.dst_w * each + o % each;
}

/* Tap (i, j, l) and first channel of a step. */
typedef struct step_place {
    int i, j, l, c;
} step_place;

DEVICE void next_step(step_place &s, const conv_args &a, int span) {
    s.c += span;
    if (s.c < a.in)
        return;
    s.c = 0;
    if (++s.l < a.kw)
        return;
    s.l = 0;
    if (++s.j < a.kh)
        return;
    s.j = 0;
    s.i++;
}

/* The first tap in time that meets a frame that is there, for any pixel of the tile. */
DEVICE int first_tap(const conv_args &a, int64_t first) {
    int64_t last = first + ROWS < out_pixels(a) ? first + ROWS - 1 : out_pixels(a) - 1;
    int64_t t = last / (out_height(a) * out_width(a));
    int64_t zeros = a.before - (a.past ? a.held : 0) - t * a.time_stride;
    return zeros < 0 ? 0 : (int)zeros;
}

/* Channel 0 of the pixel that row `row` sees through a tap; NULL: zeros. */
template <class T>
DEVICE const T *pixel_seen(const conv_args &a, const row_places &p, int row, const step_place &s) {
    int t = p.t[row] + s.i, y = p.y[row] + s.j, x = p.x[row] + s.l;
    int h = (int)a.height, w = (int)a.width;
    const T *from = (const T *)a.x;
    if ((unsigned)y >= (unsigned)h || (unsigned)x >= (unsigned)w)
        return NULL;
    if (t < 0) {
        if (t < -a.held || !a.past)
            return NULL;
        from = (const T *)a.past;
        t += a.before;
    }
    return from + ((int64_t)t * h * w + y * w + x) * a.in;
}

DEVICE const void *weight_row(const conv_args &a, int bytes, const step_place &s, int o) {
    int64_t tap = (s.i * a.kh + s.j) * a.kw + s.l;
    return (const char *)a.weight + ((tap * a.out + o) * a.in + s.c) * bytes;
}

/* Tiles of output channels are neighbours, so that they find their pixels in L2. */
DEVICE int64_t tile_pixel(int64_t tiles) {
    return blockIdx.x / tiles * ROWS;
}

/* conv_bf16.cu (bf16 and f16), conv_f32.cu: any shape whose frames, rows and columns are at most
 * MOST_PLACES. */
extern "C" cudaError_t wan_cuda_conv_half(const cuda_device *d, const conv_args *a);
extern "C" cudaError_t wan_cuda_conv_f32(const cuda_device *d, const conv_args *a);

#endif
