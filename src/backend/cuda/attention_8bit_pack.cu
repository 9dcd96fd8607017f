/* SPDX-License-Identifier: Apache-2.0 */
/* Keys and values in 8 bits, bound by memory: a block takes a tile of one head, 16 threads to a row
 * and 8 numbers to a thread, keeps it in registers while its largest magnitude is found, and writes
 * one byte a number.
 *
 * The mean that keys lose is that of 128 of them, evenly spread: any vector will do as long as all
 * keys of a head lose the same, and each block can afford to find this one by itself.
 * Values have one scale a head, so the largest of each tile comes first; the pass that packs them
 * turns the tile round in shared memory, four keys to a word. */
#include "backend/cuda/attention_8bit.cuh"
#include "backend/cuda/attention_8bit.h"
#include "backend/cuda/vector.cuh"

namespace {

enum { Head = 128, Threads = 256, Lanes = Head / WIDE, Pass = Threads / Lanes, Samples = 128 };

constexpr float Smallest = 1e-15f; /* of a largest magnitude: what is below counts as this */

struct job {
    const bf16 *k, *v;
    int64_t width; /* of a row */
    packed_keys x;
};

DEVICE float block_most(float v) {
    __shared__ float shared[Threads / WARP];
#pragma unroll
    for (int lane = WARP / 2; lane > 0; lane /= 2)
        v = larger(v, __shfl_xor_sync(~0u, v, lane));
    if (threadIdx.x % WARP == 0)
        shared[threadIdx.x / WARP] = v;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < Threads / WARP; i++)
        v = larger(v, shared[i]);
    return v;
}

/* ------------------------------------------------------------------------- keys */

/* k at the thread's first column. */
DEVICE void mean_key(float (&mean)[WIDE], const bf16 *k, int64_t m, int64_t width) {
    __shared__ __align__(16) float shared[Pass][Head];
    const int column = threadIdx.x % Lanes * WIDE;
    float v[WIDE];
#pragma unroll
    for (int e = 0; e < WIDE; e++)
        mean[e] = 0;
#pragma unroll
    for (int i = 0; i < Samples / Pass; i++) {
        load_wide(v, k + (i * Pass + threadIdx.x / Lanes) * m / Samples * width);
#pragma unroll
        for (int e = 0; e < WIDE; e++)
            mean[e] += v[e];
    }
    store_wide(&shared[threadIdx.x / Lanes][column], mean);
    __syncthreads();
#pragma unroll
    for (int e = 0; e < WIDE; e++)
        mean[e] = 0;
#pragma unroll
    for (int i = 0; i < Pass; i++) {
        load_wide(v, &shared[i][column]);
#pragma unroll
        for (int e = 0; e < WIDE; e++)
            mean[e] += v[e] * (1.0f / Samples);
    }
}

DEVICE uint32_t four_integers(const float *v, float by) {
    uint32_t low = __byte_perm(rounded(v[0], by), rounded(v[1], by), 0x0040);
    uint32_t high = __byte_perm(rounded(v[2], by), rounded(v[3], by), 0x0040);
    return __byte_perm(low, high, 0x5410);
}

DEVICE void load_pairs(float (&v)[WIDE], const uint4 &x) {
    unpack_pair<bf16>(v[0], v[1], x.x);
    unpack_pair<bf16>(v[2], v[3], x.y);
    unpack_pair<bf16>(v[4], v[5], x.z);
    unpack_pair<bf16>(v[6], v[7], x.w);
}

template <int Keys> DEVICE void pack_tile(const job &j, int tile, int head) {
    const int column = threadIdx.x % Lanes * WIDE;
    const int64_t first = (int64_t)tile * Keys + threadIdx.x / Lanes;
    const bf16 *k = j.k + head * Head + column;
    uint4 x[Keys / Pass]; /* as they are: half the registers */
    float v[WIDE], mean[WIDE], most = Smallest;
#pragma unroll
    for (int i = 0; i < Keys / Pass; i++)
        if (first + i * Pass < j.x.m)
            x[i] = *(const uint4 *)(k + (first + i * Pass) * j.width);
    mean_key(mean, k, j.x.m, j.width);
#pragma unroll
    for (int i = 0; i < Keys / Pass; i++) {
        if (first + i * Pass >= j.x.m)
            continue;
        load_pairs(v, x[i]);
#pragma unroll
        for (int e = 0; e < WIDE; e++)
            most = larger(most, fabsf(v[e] - mean[e]));
    }
    most = block_most(most);
    if (threadIdx.x == 0) /* NaN for an infinite key, whose tile cannot be told */
        j.x.k_unit[head * j.x.tiles + tile] = most / 127 + 0 * most;
    const float by = 127 / most;
    int8_t *to = j.x.k + head * j.x.m * Head + column;
#pragma unroll
    for (int i = 0; i < Keys / Pass; i++) {
        if (first + i * Pass >= j.x.m)
            continue;
        load_pairs(v, x[i]);
#pragma unroll
        for (int e = 0; e < WIDE; e++)
            v[e] -= mean[e];
        *(uint2 *)(to + (first + i * Pass) * Head) =
            make_uint2(four_integers(v, by), four_integers(v + 4, by));
    }
}

/* ------------------------------------------------------------------------- values */

template <int Keys> DEVICE void most_of_tile(const job &j, int tile, int head) {
    const int64_t first = (int64_t)tile * Keys + threadIdx.x / Lanes;
    const bf16 *v = j.v + head * Head + threadIdx.x % Lanes * WIDE;
    float most = Smallest, x[WIDE];
#pragma unroll
    for (int i = 0; i < Keys / Pass; i++)
        if (first + i * Pass < j.x.m) {
            load_wide(x, v + (first + i * Pass) * j.width);
#pragma unroll
            for (int e = 0; e < WIDE; e++)
                most = larger(most, fabsf(x[e]));
        }
    most = block_most(most);
    if (threadIdx.x == 0)
        j.x.v_most[head * j.x.tiles + tile] = most;
}

/* Grid: heads (what lies side by side is read together), tiles, keys and largest values. */
template <int Keys> __global__ void __launch_bounds__(Threads) pack_keys(const job j) {
    if (blockIdx.z == 0)
        pack_tile<Keys>(j, blockIdx.y, blockIdx.x);
    else
        most_of_tile<Keys>(j, blockIdx.y, blockIdx.x);
}

template <int Keys> __global__ void __launch_bounds__(Threads) pack_values(const job j) {
    __shared__ uint32_t turned[Head][Keys / 4 + 1];
    const int tile = blockIdx.y, head = blockIdx.x, column = threadIdx.x % Lanes * WIDE;
    const bf16 *v = j.v + head * Head + column;
    float most = Smallest;
    for (int64_t i = threadIdx.x; i < j.x.tiles; i += Threads)
        most = larger(most, j.x.v_most[head * j.x.tiles + i]);
    most = block_most(most);
    if (tile == 0 && threadIdx.x == 0)
        j.x.v_unit[head] = most / 448;
    const float by = 448 / most;
#pragma unroll
    for (int i = 0; i < Keys / 4 / Pass; i++) {
        const int word = i * Pass + threadIdx.x / Lanes;
        const int64_t first =
            (int64_t)tile * Keys + word / 8 * 32 + word / 4 % 2 * 16 + word % 4 * 2;
        float x[4][WIDE] = {};
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int64_t row = first + e % 2 + e / 2 * 8;
            if (row < j.x.m)
                load_wide(x[e], v + row * j.width);
        }
#pragma unroll
        for (int c = 0; c < WIDE; c++)
            turned[column + c][word] =
                four_e4m3(x[0][c] * by, x[1][c] * by, x[2][c] * by, x[3][c] * by);
    }
    __syncthreads();
    uint8_t *to = j.x.v + (int64_t)head * Head * j.x.tiles * Keys + (int64_t)tile * Keys;
    for (int i = threadIdx.x; i < Head * Keys / 16; i += Threads) {
        int row = i / (Keys / 16), at = i % (Keys / 16);
        const uint32_t *w = turned[row] + 4 * at;
        *(uint4 *)(to + row * j.x.tiles * Keys + 16 * at) = make_uint4(w[0], w[1], w[2], w[3]);
    }
}

template <int Keys> cudaError_t launch(const job &j, cudaStream_t stream) {
    dim3 grid((unsigned)j.x.heads, (unsigned)j.x.tiles);
    dim3 both(grid.x, grid.y, j.x.v ? 2 : 1);
    pack_keys<Keys><<<both, Threads, 0, stream>>>(j);
    if constexpr (Keys % 64 == 0)
        if (j.x.v)
            pack_values<Keys><<<grid, Threads, 0, stream>>>(j);
    return cudaGetLastError();
}

char *take(size_t *total, char *space, size_t bytes) {
    char *p = space ? space + *total : NULL;
    *total += (bytes + 255) / 256 * 256;
    return p;
}

} // namespace

packed_keys wan_cuda_packed_keys(int64_t m, int heads, int keys, bool with_values, void *space) {
    packed_keys x = {};
    size_t total = 0, h = (size_t)heads;
    char *p = (char *)space;
    x.m = m;
    x.keys = keys;
    x.heads = heads;
    x.tiles = ceil_div(m, keys);
    x.k = (int8_t *)take(&total, p, h * (size_t)m * Head);
    x.k_unit = (float *)take(&total, p, h * (size_t)x.tiles * sizeof(float));
    if (with_values) {
        x.v = (uint8_t *)take(&total, p, h * (size_t)(x.tiles * keys) * Head);
        x.v_unit = (float *)take(&total, p, h * sizeof(float));
        x.v_most = (float *)take(&total, p, h * (size_t)x.tiles * sizeof(float));
    }
    x.bytes = total;
    return x;
}

cudaError_t wan_cuda_pack_keys(const packed_keys *x, const attention_args *a, cudaStream_t stream) {
    job j = {(const bf16 *)a->k, (const bf16 *)a->v, (int64_t)a->heads * Head, *x};
    switch (x->keys) {
    case 128:
        return launch<128>(j, stream);
    case 176:
        return launch<176>(j, stream);
    default:
        return cudaErrorInvalidValue;
    }
}
