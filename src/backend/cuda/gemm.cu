/* SPDX-License-Identifier: Apache-2.0 */
/* Matrix products without a library, for machines that have none: bf16 on the tensor cores that all
 * GPUs since compute capability 8.0 have (mma.sync), and exact f32.
 *
 * bf16: a block of BM x BN results, warps of WM x WN, 32 columns of x and w at a time through a
 * ring of STAGES tiles filled by cp.async.  A tile row is 64 bytes, 4 chunks of 16; chunk c of row
 * r lies at c ^ (r / 2 % 4), so that the 8 rows of an ldmatrix and the 2 rows that 8 threads write
 * touch all banks once.  128 x 128 has two blocks on a multiprocessor, 128 x 256 reads less per
 * product and 64 x 64 fills the chip when the result is small.  Blocks walk GROUP tile rows at a
 * time, so that what they read stays in L2.  Rows or addresses that 16-byte copies do not fit go
 * through registers, one number at a time.
 *
 * f32: 128 x 128 results, 8 x 8 a thread in two halves each way, 8 columns at a time; the next ones
 * are on their way in registers meanwhile. */
#include "backend/cuda/product.h"
#include "backend/cuda/mma.cuh"

enum { BK = 32, GROUP = 16, LANES = 4 /* of a tile row: chunks */ };

typedef struct gemm_job {
    const void *x, *w;
    void *dst;
    const float *bias;
    int64_t rows, out, in;
    activation act;
    bool half, wide; /* dst is bf16; its rows take 8 numbers at once */
    uint32_t tile_rows, tile_cols;
} gemm_job;

/* Which tile this block has. */
DEVICE void place_of(const gemm_job &j, uint32_t &row, uint32_t &col) {
    uint32_t group = blockIdx.x / (GROUP * j.tile_cols), in = blockIdx.x % (GROUP * j.tile_cols);
    uint32_t first = group * GROUP, size = min((uint32_t)GROUP, j.tile_rows - first);
    row = first + in % size;
    col = in / size;
}

/* ---------------------------------------------------------------------------------------- bf16 */

/* Byte of chunk `chunk` of row `row` in a tile. */
DEVICE uint32_t chunk_at(int row, int chunk) {
    return (uint32_t)(row * BK * 2 + ((chunk ^ (row >> 1 & 3)) << 4));
}

/* Rows [first, first + HEIGHT), columns [k0, k0 + BK) of a matrix of `rows` rows; zeros outside. */
template <int HEIGHT, int THREADS, bool WIDE_ROWS>
DEVICE void fill(uint32_t tile, const bf16 *m, int64_t rows, int64_t in, int64_t first,
                 int64_t k0) {
#pragma unroll
    for (int i = threadIdx.x; i < HEIGHT * LANES; i += THREADS) {
        int r = i / LANES, chunk = i % LANES;
        int64_t row = first + r, k = k0 + chunk * 8;
        uint32_t to = tile + chunk_at(r, chunk);
        if (WIDE_ROWS) {
            bool real = row < rows && k < in;
            copy_16(to, real ? m + row * in + k : m, real);
        } else {
            float v[WIDE] = {};
            if (row < rows && k < in)
                load_some(v, m + row * in + k, (int)min((int64_t)WIDE, in - k));
            asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to),
                         "r"(pack_pair(v[0], v[1])), "r"(pack_pair(v[2], v[3])),
                         "r"(pack_pair(v[4], v[5])), "r"(pack_pair(v[6], v[7]))
                         : "memory");
        }
    }
}

/* One tile of x (at `a`) times one of w (at `b`); the warp's results begin at rows m, columns n. */
template <int WM, int WN>
DEVICE void tile_product(float (&sum)[WM / 16][WN / 8][4], uint32_t a, uint32_t b, int m, int n) {
    int lane = threadIdx.x % WARP;
#pragma unroll
    for (int k = 0; k < BK / 8; k += 2) {
        uint32_t x[WM / 16][4], w[WN / 16][4];
#pragma unroll
        for (int i = 0; i < WM / 16; i++)
            load_matrices(x[i], a + chunk_at(m + 16 * i + lane % 16, k + lane / 16));
#pragma unroll
        for (int i = 0; i < WN / 16; i++)
            load_matrices(w[i],
                          b + chunk_at(n + 16 * i + lane % 8 + lane / 16 * 8, k + lane / 8 % 2));
#pragma unroll
        for (int i = 0; i < WM / 16; i++)
#pragma unroll
            for (int o = 0; o < WN / 8; o++)
                mma<bf16>(sum[i][o], x[i], w[o / 2][o % 2 * 2], w[o / 2][o % 2 * 2 + 1]);
    }
}

/* Bias, activation, and out; of bf16's accuracy, as what comes in. */
DEVICE void put_wide(const gemm_job &j, int64_t row, int64_t col, float (&v)[WIDE]) {
    int count = (int)min((int64_t)WIDE, j.out - col);
    if (row >= j.rows || count <= 0)
        return;
    if (j.bias) {
        float bias[WIDE];
        load_some(bias, j.bias + col, count);
#pragma unroll
        for (int i = 0; i < WIDE; i++)
            v[i] += bias[i];
    }
    if (j.act != WAN_NONE) {
#pragma unroll
        for (int i = 0; i < WIDE; i++)
            v[i] = j.act == WAN_GELU_TANH ? gelu_tanh<bf16>(v[i]) : silu<bf16>(v[i]);
    }
    if (j.half) {
        bf16 *to = (bf16 *)j.dst + row * j.out + col;
        if (j.wide)
            store_wide(to, v);
        else
            store_some(to, v, count);
    } else {
        store_some((float *)j.dst + row * j.out + col, v, count);
    }
}

/* A warp's results by way of its own shared memory, 16 rows at a time: there they become rows of 8
 * numbers a thread, and one piece of code does the rest.  The pitch keeps stores off each other's
 * banks. */
template <int WM, int WN>
DEVICE void put_results(const gemm_job &j, float (&sum)[WM / 16][WN / 8][4], float *slab,
                        int64_t row, int64_t col) {
    constexpr int pitch = WN + 8, chunks = WN / WIDE;
    int lane = threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < WM / 16; i++) {
#pragma unroll
        for (int o = 0; o < WN / 8; o++) {
            float *to = slab + lane / 4 * pitch + o * 8 + lane % 4 * 2;
            *reinterpret_cast<float2 *>(to) = make_float2(sum[i][o][0], sum[i][o][1]);
            *reinterpret_cast<float2 *>(to + 8 * pitch) = make_float2(sum[i][o][2], sum[i][o][3]);
        }
        __syncwarp();
#pragma unroll 1
        for (int at = lane; at < 16 * chunks; at += WARP) {
            float v[WIDE];
            load_wide(v, slab + at / chunks * pitch + at % chunks * WIDE);
            put_wide(j, row + 16 * i + at / chunks, col + at % chunks * WIDE, v);
        }
        __syncwarp();
    }
}

template <int BM, int BN, int WM, int WN> struct warps {
    static constexpr int across = BN / WN, threads = BM / WM * across * WARP;
};

template <int BM, int BN, int WM, int WN, int STAGES, bool WIDE_ROWS>
static __global__ void __launch_bounds__(warps<BM, BN, WM, WN>::threads,
                                         BM *BN <= 128 * 128 ? 2 : 1) gemm_bf16(const gemm_job j) {
    extern __shared__ __align__(128) uint8_t tiles[];
    constexpr int threads = warps<BM, BN, WM, WN>::threads, bytes = (BM + BN) * BK * 2;
    const bf16 *x = (const bf16 *)j.x, *w = (const bf16 *)j.w;
    uint32_t tile_row, tile_col, ring = shared_address(tiles);
    place_of(j, tile_row, tile_col);
    int64_t m0 = (int64_t)tile_row * BM, n0 = (int64_t)tile_col * BN;
    int warp = threadIdx.x / WARP;
    int m = warp / warps<BM, BN, WM, WN>::across * WM,
        n = warp % warps<BM, BN, WM, WN>::across * WN;
    float sum[WM / 16][WN / 8][4] = {};
    int steps = (int)((j.in + BK - 1) / BK);
    auto load = [&](int step) {
        uint32_t at = ring + step % STAGES * bytes;
        if (step < steps) {
            fill<BM, threads, WIDE_ROWS>(at, x, j.rows, j.in, m0, (int64_t)step * BK);
            fill<BN, threads, WIDE_ROWS>(at + BM * BK * 2, w, j.out, j.in, n0, (int64_t)step * BK);
        }
        copies_commit(); /* empty ones keep the count */
    };
    for (int step = 0; step < STAGES - 1; step++)
        load(step);
    for (int step = 0; step < steps; step++) {
        copies_wait<STAGES - 2>();
        __syncthreads(); /* this tile is there for all; the one before is done with by all */
        load(step + STAGES - 1);
        uint32_t at = ring + step % STAGES * bytes;
        tile_product<WM, WN>(sum, at, at + BM * BK * 2, m, n);
    }
    copies_wait<0>();
    __syncthreads(); /* the ring is free */
    constexpr int slab = 16 * (WN + 8);
    static_assert(slab * 4 * threads / WARP <= STAGES * bytes, "slabs fit the ring");
    put_results<WM, WN>(j, sum, reinterpret_cast<float *>(tiles) + warp * slab, m0 + m, n0 + n);
}

template <int BM, int BN, int WM, int WN, int STAGES, bool WIDE_ROWS>
static cudaError_t launch_bf16(gemm_job j, cudaStream_t stream) {
    auto kernel = gemm_bf16<BM, BN, WM, WN, STAGES, WIDE_ROWS>;
    int bytes = STAGES * (BM + BN) * BK * 2;
    cudaError_t e =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    j.tile_rows = (uint32_t)ceil_div(j.rows, BM);
    j.tile_cols = (uint32_t)ceil_div(j.out, BN);
    if (e)
        return e;
    kernel<<<j.tile_rows * j.tile_cols, warps<BM, BN, WM, WN>::threads, bytes, stream>>>(j);
    return cudaGetLastError();
}

/* ----------------------------------------------------------------------------------------- f32 */

enum { F_TILE = 128, F_K = 8, F_THREADS = 256, F_PITCH = F_TILE + 4 };

/* Four columns of a row (NULL: there is none), zeros outside. */
template <bool WIDE_ROWS> DEVICE float4 four(const float *row, int k, int in) {
    float4 v = make_float4(0, 0, 0, 0);
    if (!row || k >= in)
        return v;
    if (WIDE_ROWS)
        return *reinterpret_cast<const float4 *>(row + k);
    v.x = row[k];
    v.y = k + 1 < in ? row[k + 1] : 0;
    v.z = k + 2 < in ? row[k + 2] : 0;
    v.w = k + 3 < in ? row[k + 3] : 0;
    return v;
}

DEVICE void stand_up(float (*tile)[F_PITCH], int row, int k, float4 v) {
    tile[k][row] = v.x;
    tile[k + 1][row] = v.y;
    tile[k + 2][row] = v.z;
    tile[k + 3][row] = v.w;
}

/* 8 numbers of a tile column: 4 from each half. */
DEVICE void two_halves(float (&v)[8], const float *column, int at) {
    float4 a = *reinterpret_cast<const float4 *>(column + at);
    float4 b = *reinterpret_cast<const float4 *>(column + at + F_TILE / 2);
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
    v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

template <bool WIDE_ROWS>
static __global__ void __launch_bounds__(F_THREADS, 2) gemm_f32(const gemm_job j) {
    __shared__ __align__(16) float a[2][F_K][F_PITCH], b[2][F_K][F_PITCH];
    const float *x = (const float *)j.x, *w = (const float *)j.w;
    uint32_t tile_row, tile_col;
    place_of(j, tile_row, tile_col);
    int64_t m0 = (int64_t)tile_row * F_TILE, n0 = (int64_t)tile_col * F_TILE;
    int row = threadIdx.x / 2, k = threadIdx.x % 2 * 4;
    int down = threadIdx.x / 16 * 4, across = threadIdx.x % 16 * 4;
    float sum[8][8] = {};
    int in = (int)j.in;
    x = m0 + row < j.rows ? x + (m0 + row) * j.in : NULL;
    w = n0 + row < j.out ? w + (n0 + row) * j.in : NULL;
    float4 next_x = four<WIDE_ROWS>(x, k, in), next_w = four<WIDE_ROWS>(w, k, in);
    for (int k0 = 0, turn = 0; k0 < in; k0 += F_K, turn ^= 1) {
        stand_up(a[turn], row, k, next_x);
        stand_up(b[turn], row, k, next_w);
        __syncthreads(); /* the other tile is written only after this, the next time round */
        next_x = four<WIDE_ROWS>(x, k0 + F_K + k, in);
        next_w = four<WIDE_ROWS>(w, k0 + F_K + k, in);
#pragma unroll
        for (int i = 0; i < F_K; i++) {
            float p[8], q[8];
            two_halves(p, a[turn][i], down);
            two_halves(q, b[turn][i], across);
#pragma unroll
            for (int r = 0; r < 8; r++)
#pragma unroll
                for (int c = 0; c < 8; c++)
                    sum[r][c] = fmaf(p[r], q[c], sum[r][c]);
        }
    }
#pragma unroll
    for (int r = 0; r < 8; r++) {
        int64_t to = m0 + down + r % 4 + r / 4 * (F_TILE / 2);
#pragma unroll
        for (int c = 0; c < 8; c++) {
            int64_t col = n0 + across + c % 4 + c / 4 * (F_TILE / 2);
            if (to < j.rows && col < j.out)
                ((float *)j.dst)[to * j.out + col] = sum[r][c] + (j.bias ? j.bias[col] : 0);
        }
    }
}

static cudaError_t launch_f32(gemm_job j, bool wide, cudaStream_t stream) {
    j.tile_rows = (uint32_t)ceil_div(j.rows, F_TILE);
    j.tile_cols = (uint32_t)ceil_div(j.out, F_TILE);
    unsigned blocks = j.tile_rows * j.tile_cols;
    if (wide)
        gemm_f32<true><<<blocks, F_THREADS, 0, stream>>>(j);
    else
        gemm_f32<false><<<blocks, F_THREADS, 0, stream>>>(j);
    return cudaGetLastError();
}

/* The largest tile that leaves no multiprocessor idle. */
static gemm_tile best_tile(const product *p, int multiprocessors) {
    if (ceil_div(p->rows, 128) * ceil_div(p->out, 256) >= 2 * multiprocessors)
        return GEMM_256;
    return ceil_div(p->rows, 128) * ceil_div(p->out, 128) >= multiprocessors ? GEMM_128 : GEMM_64;
}

static gemm_job job_of(const product *p) {
    gemm_job j = {};
    j.x = p->x;
    j.w = p->w;
    j.dst = p->dst;
    j.bias = p->bias;
    j.rows = p->rows;
    j.out = p->out;
    j.in = p->in;
    j.half = p->result == WAN_BF16;
    j.wide = p->out % WIDE == 0 && aligned_16(p->dst);
    return j;
}

cudaError_t wan_cuda_gemm(const product *p, gemm_tile tile, int multiprocessors,
                          cudaStream_t stream) {
    gemm_job j = job_of(p);
    bool aligned = aligned_16(p->x) && aligned_16(p->w);
    if (p->operand == WAN_F32) { /* the activation, exact, comes after */
        unfinished left = {false, false, p->act != WAN_NONE};
        cudaError_t e = launch_f32(j, aligned && p->in % 4 == 0, stream);
        return e ? e : wan_cuda_finish(p, left, stream);
    }
    j.act = p->act;
    if (!aligned || p->in % 8)
        return launch_bf16<64, 64, 32, 32, 4, false>(j, stream);
    if (tile == GEMM_AUTO)
        tile = best_tile(p, multiprocessors);
    return tile == GEMM_256   ? launch_bf16<128, 256, 64, 64, 3, true>(j, stream)
           : tile == GEMM_128 ? launch_bf16<128, 128, 64, 32, 4, true>(j, stream)
                              : launch_bf16<64, 64, 32, 32, 4, true>(j, stream);
}
