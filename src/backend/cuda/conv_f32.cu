/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions of any shape in exact f32 on the ordinary units: the precision f32.
 *
 * A block of 16 x 16 threads makes a tile of 128 pixels x 16 N channels (N 8, 4 or 1), a thread 8
 * pixels x N channels, in steps of 16 input channels of one tap.  Both operands lie in shared
 * memory with channels outermost, so that a thread reads its pixels and channels four at a time: 4
 * reads for 64 products.  The next step waits in registers while this one is multiplied. */
#include "backend/cuda/gather.cuh"

enum { SPAN = 16, SIDE = 16, TALL = ROWS / SIDE, PAD = 4 };

template <int N> struct alignas(16) tile {
    static constexpr int cols = SIDE * N;
    float pixel[2][SPAN][ROWS + PAD], weight[2][SPAN][cols + PAD];
};

/* VEC numbers, or zeros. */
template <int VEC> DEVICE void fetch(float (&v)[VEC], const float *from) {
    if constexpr (VEC == 4) {
        float4 f = from ? *(const float4 *)from : make_float4(0, 0, 0, 0);
        v[0] = f.x, v[1] = f.y, v[2] = f.z, v[3] = f.w;
    } else {
        v[0] = from ? *from : 0;
    }
}

/* What a thread fetches of each step: VEC channels of some rows of both operands. */
template <int N, int VEC> struct fetched {
    static constexpr int each = SPAN / VEC;
    static constexpr int pixels = ROWS * each / TILE_THREADS;
    static constexpr int weights = (tile<N>::cols * each + TILE_THREADS - 1) / TILE_THREADS;
    float pixel[pixels][VEC], weight[weights][VEC];
};

template <int N, int VEC>
DEVICE void fetch_step(fetched<N, VEC> &f, const conv_args &a, const row_places &p,
                       const step_place &s, int col) {
    constexpr int each = fetched<N, VEC>::each;
#pragma unroll
    for (int k = 0; k < fetched<N, VEC>::pixels; k++) {
        int q = k * TILE_THREADS + threadIdx.x, c = q % each * VEC;
        const float *from = pixel_seen<float>(a, p, q / each, s);
        fetch(f.pixel[k], from && s.c + c < a.in ? from + s.c + c : NULL);
    }
#pragma unroll
    for (int k = 0; k < fetched<N, VEC>::weights; k++) {
        int q = k * TILE_THREADS + threadIdx.x, c = q % each * VEC, o = col + q / each;
        bool real = q / each < tile<N>::cols && o < a.out && s.c + c < a.in;
        fetch(f.weight[k], real ? (const float *)weight_row(a, 4, s, o) + c : NULL);
    }
}

template <int N, int VEC> DEVICE void keep_step(tile<N> &t, int stage, const fetched<N, VEC> &f) {
    constexpr int each = fetched<N, VEC>::each;
#pragma unroll
    for (int k = 0; k < fetched<N, VEC>::pixels; k++) {
        int q = k * TILE_THREADS + threadIdx.x;
#pragma unroll
        for (int e = 0; e < VEC; e++)
            t.pixel[stage][q % each * VEC + e][q / each] = f.pixel[k][e];
    }
#pragma unroll
    for (int k = 0; k < fetched<N, VEC>::weights; k++) {
        int q = k * TILE_THREADS + threadIdx.x;
#pragma unroll
        for (int e = 0; e < VEC; e++)
            if (q / each < tile<N>::cols)
                t.weight[stage][q % each * VEC + e][q / each] = f.weight[k][e];
    }
}

/* Row or column k of a thread: fours of neighbours, 64 apart. */
DEVICE int place_of(int thread, int k) {
    return k / 4 * 64 + thread * 4 + k % 4;
}

template <int N> DEVICE int column_of(int thread, int k) {
    return N == 1 ? thread : place_of(thread, k);
}

template <int N> DEVICE void multiply_step(float (&sum)[TALL][N], const tile<N> &t, int stage) {
    int x = threadIdx.x % SIDE, y = threadIdx.x / SIDE;
#pragma unroll
    for (int c = 0; c < SPAN; c++) {
        float p[TALL], w[N];
#pragma unroll
        for (int k = 0; k < TALL; k += 4) {
            float4 f = *(const float4 *)&t.pixel[stage][c][place_of(y, k)];
            p[k] = f.x, p[k + 1] = f.y, p[k + 2] = f.z, p[k + 3] = f.w;
        }
#pragma unroll
        for (int k = 0; k < N; k += 4)
            if constexpr (N == 1) {
                w[0] = t.weight[stage][c][x];
            } else {
                float4 f = *(const float4 *)&t.weight[stage][c][place_of(x, k)];
                w[k] = f.x, w[k + 1] = f.y, w[k + 2] = f.z, w[k + 3] = f.w;
            }
#pragma unroll
        for (int i = 0; i < TALL; i++)
#pragma unroll
            for (int k = 0; k < N; k++)
                sum[i][k] += p[i] * w[k];
    }
}

template <int N>
DEVICE void put_sums(const conv_args &a, const row_places &p, int col,
                     const float (&sum)[TALL][N]) {
    int x = threadIdx.x % SIDE, y = threadIdx.x / SIDE;
#pragma unroll
    for (int i = 0; i < TALL; i++) {
        int64_t pixel = pixel_place(a, p, place_of(y, i));
#pragma unroll
        for (int k = 0; k < N; k++) {
            int o = col + column_of<N>(x, k);
            if (pixel < 0 || o >= a.out)
                continue;
            float *to = (float *)a.dst + pixel + channel_place(a, o);
            *to = sum[i][k] + (a.bias ? a.bias[o] : 0) + (a.add ? *to : 0);
        }
    }
}

template <int N, int VEC>
static __global__ void __launch_bounds__(TILE_THREADS, VEC == 1 ? 1 : 2)
    conv_tile(const __grid_constant__ conv_args a, int64_t tiles) {
    __shared__ tile<N> t;
    __shared__ row_places places;
    float sum[TALL][N] = {};
    fetched<N, VEC> f;
    int64_t first = tile_pixel(tiles);
    int col = (int)(blockIdx.x % tiles) * tile<N>::cols;
    step_place at = {first_tap(a, first), 0, 0, 0};
    int steps = (a.kt - at.i) * a.kh * a.kw * (((int)a.in + SPAN - 1) / SPAN);
    find_places(places, a, first);
    __syncthreads();
    if (steps > 0) {
        fetch_step(f, a, places, at, col);
        keep_step(t, 0, f);
    }
    for (int i = 0; i < steps; i++) {
        __syncthreads(); /* this step is there for all, and the last one is done with */
        next_step(at, a, SPAN);
        if (i + 1 < steps)
            fetch_step(f, a, places, at, col);
        multiply_step(sum, t, i % 2);
        if (i + 1 < steps)
            keep_step(t, 1 - i % 2, f);
    }
    put_sums(a, places, col, sum);
}

template <int N, int VEC> static cudaError_t launch(const cuda_device *d, const conv_args *a) {
    int64_t tiles = ceil_div(a->out, tile<N>::cols);
    int64_t blocks = ceil_div(out_pixels(*a), ROWS) * tiles;
    conv_tile<N, VEC><<<(unsigned)blocks, TILE_THREADS, 0, d->stream>>>(*a, tiles);
    return cudaGetLastError();
}

template <int VEC> static cudaError_t launch_for(const cuda_device *d, const conv_args *a) {
    return a->out <= 16   ? launch<1, VEC>(d, a)
           : a->out <= 64 ? launch<4, VEC>(d, a)
                          : launch<8, VEC>(d, a);
}

cudaError_t wan_cuda_conv_f32(const cuda_device *d, const conv_args *a) {
    uintptr_t all = (uintptr_t)a->x | (uintptr_t)a->past | (uintptr_t)a->weight;
    return a->in % 4 == 0 && all % 16 == 0 ? launch_for<4>(d, a) : launch_for<1>(d, a);
}
