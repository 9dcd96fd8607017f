/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions of any shape in bf16 or f16, sums in f32, with mma.m16n8k16 and cp.async (sm_80 and
 * up).
 *
 * A block of 8 warps makes a tile of 128 pixels x COLS channels (128, 64 or 16, the least that
 * holds all of a narrow result) in steps of 32 input channels of one tap.  Three stages of both
 * operands, 16 KiB each, are on their way: two blocks share a multiprocessor, and two steps of
 * loads hide behind the products.  Rows of 64 bytes are kept as four 16-byte pieces in an order
 * that changes every second row, so that ldmatrix meets no bank twice.  Channels are fetched 8 or 4
 * at a time as they divide, else one by one. Pixels outside are zeros that cp.async fills in. */
#include "backend/cuda/gather.cuh"
#include "backend/cuda/mma.cuh"

enum { SPAN = 32, STAGES = 3, PIECES = SPAN / WIDE };

/* Byte of channel c (a multiple of the vector) of a row, in a tile of rows of SPAN channels. */
DEVICE int swizzled(int row, int c) {
    return row * SPAN * 2 + ((c / WIDE) ^ (row / 2 % PIECES)) * 16 + c % WIDE * 2;
}

/* BYTES at `from` into shared memory, or zeros. */
template <int BYTES> DEVICE void fetch(uint32_t to, const void *from, bool real) {
    if (BYTES == 16)
        copy_16(to, from, real);
    else if (BYTES == 8)
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(from),
                     "r"(real ? 8 : 0)
                     : "memory");
    else
        asm volatile("st.shared.u16 [%0], %1;" ::"r"(to),
                     "h"(real ? *(const unsigned short *)from : (unsigned short)0)
                     : "memory");
}

/* Warps stand in a grid of DOWN x ACROSS; each has BLOCKS_M x 16 pixels and BLOCKS_N x 8 channels.
 */
template <int COLS> struct shape {
    static constexpr int across = COLS == 128 ? 4 : COLS == 64 ? 2 : 1, down = 8 / across;
    static constexpr int blocks_m = ROWS / down / 16, blocks_n = COLS / across / 8;
    static constexpr int pixel_bytes = ROWS * SPAN * 2, stage = pixel_bytes + COLS * SPAN * 2;
};

/* One step's pixels and weights into a stage. */
template <class T, int COLS, int VEC>
DEVICE void fetch_step(const conv_args &a, const row_places &p, const step_place &s, int col,
                       uint32_t stage) {
    constexpr int each = SPAN / VEC;
#pragma unroll(VEC == 1 ? 4 : 8)
    for (int k = 0; k < ROWS * each / TILE_THREADS; k++) {
        int q = k * TILE_THREADS + threadIdx.x, row = q / each, c = q % each * VEC;
        const T *from = pixel_seen<T>(a, p, row, s);
        bool real = from && s.c + c < a.in;
        fetch<VEC * 2>(stage + swizzled(row, c), real ? from + s.c + c : (const T *)a.x, real);
    }
    stage += shape<COLS>::pixel_bytes;
#pragma unroll(VEC == 1 ? 4 : 8)
    for (int k = 0; k * TILE_THREADS < COLS * each; k++) {
        int q = k * TILE_THREADS + threadIdx.x, row = q / each, c = q % each * VEC, o = col + row;
        bool real = o < a.out && s.c + c < a.in;
        const T *from = (const T *)weight_row(a, 2, s, real ? o : 0);
        if (q < COLS * each)
            fetch<VEC * 2>(stage + swizzled(row, c), real ? from + c : (const T *)a.weight, real);
    }
}

template <class T, int COLS>
DEVICE void multiply_step(float (&sum)[shape<COLS>::blocks_m][shape<COLS>::blocks_n][4],
                          uint32_t stage) {
    typedef shape<COLS> s;
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int row = warp / s::across * s::blocks_m * 16 + lane % 16;
    int out = warp % s::across * s::blocks_n * 8 + lane / 16 * 8 + lane % 8;
    uint32_t weights = stage + s::pixel_bytes;
#pragma unroll
    for (int k = 0; k < SPAN; k += 16) {
        uint32_t x[s::blocks_m][4], w[s::blocks_n / 2][4];
#pragma unroll
        for (int m = 0; m < s::blocks_m; m++)
            load_matrices(x[m], stage + swizzled(row + 16 * m, k + lane / 16 * 8));
#pragma unroll
        for (int n = 0; n < s::blocks_n / 2; n++)
            load_matrices(w[n], weights + swizzled(out + 16 * n, k + lane / 8 % 2 * 8));
#pragma unroll
        for (int m = 0; m < s::blocks_m; m++)
#pragma unroll
            for (int n = 0; n < s::blocks_n; n++)
                mma<T>(sum[m][n], x[m], w[n / 2][n % 2 * 2], w[n / 2][n % 2 * 2 + 1]);
    }
}

/* Channels o and o + 1 of a pixel; o may be past the last. */
template <class T>
DEVICE void put_pair(const conv_args &a, int64_t pixel, int o, float v0, float v1, bool pairs) {
    T *dst = (T *)a.dst + pixel;
    if (pixel < 0 || o >= a.out)
        return;
    if (a.bias)
        v0 += a.bias[o];
    if (a.bias && o + 1 < a.out)
        v1 += a.bias[o + 1];
    T *to = dst + channel_place(a, o);
    if (pairs) {
        float x = 0, y = 0;
        if (a.add)
            unpack_pair<T>(x, y, *(uint32_t *)to);
        *(uint32_t *)to = pack_pair<T>(v0 + x, v1 + y);
        return;
    }
    from_float(to, v0 + (a.add ? to_float(*to) : 0));
    if (o + 1 >= a.out)
        return;
    to = dst + channel_place(a, o + 1);
    from_float(to, v1 + (a.add ? to_float(*to) : 0));
}

/* Lane l has of each 16 x 8 block channels l % 4 * 2 and the next, of pixels l / 4 and 8 further.
 */
template <class T, int COLS>
DEVICE void put_sums(const conv_args &a, const row_places &p, int col,
                     const float (&sum)[shape<COLS>::blocks_m][shape<COLS>::blocks_n][4]) {
    typedef shape<COLS> s;
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int row = warp / s::across * s::blocks_m * 16 + lane / 4;
    int out = col + warp % s::across * s::blocks_n * 8 + lane % 4 * 2;
    bool pairs = a.out / a.split % 2 == 0 && (uintptr_t)a.dst % 4 == 0;
#pragma unroll
    for (int m = 0; m < s::blocks_m; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int64_t pixel = pixel_place(a, p, row + 16 * m + 8 * half);
#pragma unroll
            for (int n = 0; n < s::blocks_n; n++)
                put_pair<T>(a, pixel, out + 8 * n, sum[m][n][2 * half], sum[m][n][2 * half + 1],
                            pairs);
        }
}

template <class T, int COLS, int VEC>
static __global__ void __launch_bounds__(TILE_THREADS, 2)
    conv_tile(const __grid_constant__ conv_args a, int64_t tiles) {
    extern __shared__ __align__(128) uint8_t space[];
    __shared__ row_places places;
    typedef shape<COLS> s;
    float sum[s::blocks_m][s::blocks_n][4] = {};
    int64_t first = tile_pixel(tiles);
    int col = (int)(blockIdx.x % tiles) * COLS;
    uint32_t stages = shared_address(space);
    step_place at = {first_tap(a, first), 0, 0, 0};
    int steps = (a.kt - at.i) * a.kh * a.kw * (((int)a.in + SPAN - 1) / SPAN);
    find_places(places, a, first);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
        if (i < steps) {
            fetch_step<T, COLS, VEC>(a, places, at, col, stages + i * s::stage);
            next_step(at, a, SPAN);
        }
        copies_commit();
    }
    int now = 0, next = STAGES - 1;
    for (int i = 0; i < steps; i++) {
        copies_wait<STAGES - 2>();
        __syncthreads(); /* this step is there for all, and the last one is done with */
        if (i + STAGES - 1 < steps) {
            fetch_step<T, COLS, VEC>(a, places, at, col, stages + next * s::stage);
            next_step(at, a, SPAN);
        }
        copies_commit();
        multiply_step<T, COLS>(sum, stages + now * s::stage);
        now = now + 1 == STAGES ? 0 : now + 1;
        next = next + 1 == STAGES ? 0 : next + 1;
    }
    put_sums<T, COLS>(a, places, col, sum);
}

template <class T, int COLS, int VEC>
static cudaError_t launch(const cuda_device *d, const conv_args *a) {
    int bytes = STAGES * shape<COLS>::stage;
    int64_t tiles = ceil_div(a->out, COLS), blocks = ceil_div(out_pixels(*a), ROWS) * tiles;
    cudaError_t e = cudaFuncSetAttribute(conv_tile<T, COLS, VEC>,
                                         cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (e != cudaSuccess)
        return e;
    conv_tile<T, COLS, VEC><<<(unsigned)blocks, TILE_THREADS, bytes, d->stream>>>(*a, tiles);
    return cudaGetLastError();
}

template <class T, int VEC>
static cudaError_t launch_for(const cuda_device *d, const conv_args *a) {
    return a->out <= 16   ? launch<T, 16, VEC>(d, a)
           : a->out <= 64 ? launch<T, 64, VEC>(d, a)
                          : launch<T, 128, VEC>(d, a);
}

template <class T> static cudaError_t launch_typed(const cuda_device *d, const conv_args *a) {
    uintptr_t all = (uintptr_t)a->x | (uintptr_t)a->past | (uintptr_t)a->weight;
    if (a->in % 8 == 0 && all % 16 == 0)
        return launch_for<T, 8>(d, a);
    if (a->in % 4 == 0 && all % 8 == 0)
        return launch_for<T, 4>(d, a);
    return launch_for<T, 1>(d, a);
}

cudaError_t wan_cuda_conv_half(const cuda_device *d, const conv_args *a) {
    return a->type == WAN_F16 ? launch_typed<f16>(d, a) : launch_typed<bf16>(d, a);
}
