/* SPDX-License-Identifier: Apache-2.0 */
/* Attention with the logits in memory: exact f32, f16 (the autoencoder's one head of 1024),
 * and bf16 heads too wide for registers.  For a piece of heads and queries: logits (f32), softmax
 * of each row in place, product with the values.  It costs three passes over a matrix that mostly
 * stays in L2; a head of 1024 does 4096 flops for each of its numbers.
 *
 * Products of bf16 and f16: tiles of 128 x 128 x 32 by 8 warps (64 x 32 each) with mma.m16n8k16 and
 * four buffers filled by cp.async.  Products of f32: tiles of 128 x 128 x 16 by 256 threads with 8
 * x 8 sums each, plain fused multiply-adds.  Ends are filled with zeros, any shape goes. */
#include "backend/cuda/attention_wide.h"

#include "backend/cuda/mma.cuh"

namespace {

constexpr int Threads = 256;
constexpr int Side = 128; /* of a tile of results */
constexpr int64_t PieceBytes = 128 << 20;
constexpr int64_t LeastQueries = 256, MostQueries = 4096; /* of a piece */

/* c[row][col] = sum over k of a[row][k] b[col][k], or b[k][col] where `Values`; for each head. */
template <class T> struct product {
    const T *a, *b;
    int64_t lda, ldb, a_head, b_head; /* numbers from row to row, head to head */
    int64_t rows, cols;
    int64_t a_depth, b_depth; /* columns of a; beyond the latter b is zero */
    bool a_packed, b_packed;  /* 16-byte addresses */
    /* Logits: scaled, with bias, into f32. */
    float *logits;
    int64_t ldc, c_head;
    float scale; /* of values, too */
    float log_count;
    const float *bias; /* of head 0, at key = query = row 0 */
    int64_t bias_head;
    /* Values */
    T *dst;
    int64_t ldd;
};

/* What weights of f16 are multiplied by, so that small ones keep their digits. */
template <class T> constexpr float WeightScale = std::is_same_v<T, f16> ? 32768.0f : 1.0f;

/* Two neighbours in a row; col is even, and so is ldc: padding may be written. */
template <bool Values, class T>
__device__ __forceinline__ void put(const product<T> &p, int64_t row, int64_t col, float x,
                                    float y) {
    if (row >= p.rows || col >= p.cols)
        return;
    if (Values) {
        T *to = p.dst + row * p.ldd + blockIdx.z * p.cols + col;
        from_float(to, x * p.scale);
        if (col + 1 < p.cols)
            from_float(to + 1, y * p.scale);
        return;
    }
    float v[2] = {x * p.scale, y * p.scale};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (p.bias && col + i < p.cols)
            v[i] += p.bias[blockIdx.z * p.bias_head + col + i - row];
        if (col + i == p.cols - 1)
            v[i] += p.log_count;
    }
    *(float2 *)(p.logits + blockIdx.z * p.c_head + row * p.ldc + col) = make_float2(v[0], v[1]);
}

/* ------------------------------------------------------------------------- bf16 and f16 */

constexpr int Depth = 32; /* of a step */
constexpr int Stages = 4;
constexpr int PitchK = Depth + 8;            /* of a tile with k along its rows */
constexpr int PitchN = Side + 8;             /* of one with columns along its rows */
constexpr int TileBytes = Side * PitchK * 2; /* [128][40], no less than [32][136] */

/* A tile of x at (row, column); numbers outside [rows, columns] are zero. */
template <int Rows, int Columns, int Pitch, class T>
__device__ __forceinline__ void bring_tile(T *to, const T *x, int64_t ld, int64_t row, int64_t rows,
                                           int64_t column, int64_t columns, bool packed) {
    if (packed) {
#pragma unroll
        for (int i = threadIdx.x; i < Rows * Columns / 8; i += Threads) {
            int64_t r = row + i / (Columns / 8), c = column + i % (Columns / 8) * 8;
            bool there = r < rows && c < columns;
            copy_16(shared_address(to + i / (Columns / 8) * Pitch + i % (Columns / 8) * 8),
                    there ? x + r * ld + c : x, there);
        }
        return;
    }
    for (int i = threadIdx.x; i < Rows * Columns; i += Threads) {
        int64_t r = row + i / Columns, c = column + i % Columns;
        to[i / Columns * Pitch + i % Columns] = r < rows && c < columns ? x[r * ld + c] : T(0.0f);
    }
}

template <bool Values, class T>
__device__ __forceinline__ void bring_step(uint8_t *memory, const product<T> &p, int64_t step) {
    T *a = (T *)(memory + step % Stages * 2 * TileBytes), *b = a + TileBytes / 2;
    const int64_t row = (int64_t)blockIdx.y * Side, col = (int64_t)blockIdx.x * Side;
    const int64_t k = step * Depth;
    bring_tile<Side, Depth, PitchK>(a, p.a + blockIdx.z * p.a_head, p.lda, row, p.rows, k,
                                    p.a_depth, p.a_packed);
    const T *from = p.b + blockIdx.z * p.b_head;
    if (Values)
        bring_tile<Depth, Side, PitchN>(b, from, p.ldb, k, p.b_depth, col, p.cols, p.b_packed);
    else
        bring_tile<Side, Depth, PitchK>(b, from, p.ldb, col, p.cols, k, p.b_depth, p.b_packed);
}

/* One step of a warp's 64 rows (from `row`) and 32 columns (from `col`) of the block's tile. */
template <bool Values, class T>
__device__ __forceinline__ void multiply(float (&c)[4][4][4], const T *a, const T *b, int row,
                                         int col) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < Depth; k += 16) {
        uint32_t x[4][4], y[2][4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            load_matrices(
                x[i], shared_address(a + (row + 16 * i + lane % 16) * PitchK + k + lane / 16 * 8));
#pragma unroll
        for (int i = 0; i < 2; i++)
            if (Values)
                load_transposed(y[i], shared_address(b + (k + lane % 16) * PitchN + col + 16 * i +
                                                     lane / 16 * 8));
            else
                load_matrices(
                    y[i], shared_address(b + (col + 16 * i + lane / 16 * 8 + lane % 8) * PitchK +
                                         k + lane / 8 % 2 * 8));
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                mma<T>(c[i][j], x[i], y[j / 2][j % 2 * 2], y[j / 2][j % 2 * 2 + 1]);
    }
}

/* Grid: tiles of columns, of rows, heads. */
template <bool Values, class T>
__global__ __launch_bounds__(Threads, 2) void product_kernel(const product<T> p) {
    extern __shared__ __align__(16) uint8_t memory[];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int row = warp / 4 * 64, col = warp % 4 * 32;
    const int64_t steps = (p.a_depth + Depth - 1) / Depth;
    float c[4][4][4] = {};
    for (int i = 0; i < Stages - 1; i++) {
        if (i < steps)
            bring_step<Values>(memory, p, i);
        copies_commit();
    }
    for (int64_t i = 0; i < steps; i++) {
        copies_wait<Stages - 2>();
        __syncthreads(); /* step i is there, the buffer of i - 1 is free */
        if (i + Stages - 1 < steps)
            bring_step<Values>(memory, p, i + Stages - 1);
        copies_commit();
        const T *a = (const T *)(memory + i % Stages * 2 * TileBytes);
        multiply<Values>(c, a, a + TileBytes / 2, row, col);
    }
    const int64_t r = (int64_t)blockIdx.y * Side + row + lane / 4;
    const int64_t q = (int64_t)blockIdx.x * Side + col + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            put<Values>(p, r + 16 * i, q + 8 * j, c[i][j][0], c[i][j][1]);
            put<Values>(p, r + 16 * i + 8, q + 8 * j, c[i][j][2], c[i][j][3]);
        }
}

template <bool Values, class T>
cudaError_t multiply_all(const cuda_device *d, const product<T> &p, dim3 grid) {
    const int bytes = Stages * 2 * TileBytes;
    cudaError_t e = cudaFuncSetAttribute(product_kernel<Values, T>,
                                         cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (e != cudaSuccess)
        return e;
    product_kernel<Values, T><<<grid, Threads, bytes, d->stream>>>(p);
    return cudaGetLastError();
}

/* ------------------------------------------------------------------------- f32 */

constexpr int DepthF = 16;
constexpr int PitchF = Side + 4;

/* Each thread's 8 numbers of a tile: of a, and of b with its k along the row, thread t has k t % 16
 * and rows t / 16, + 16 ...; of values, column t % 128 and k t / 128, + 2 ... */
template <bool Values>
__device__ __forceinline__ void fetch(float (&x)[8], float (&y)[8], const product<float> &p,
                                      int64_t k) {
    const float *a = p.a + blockIdx.z * p.a_head, *b = p.b + blockIdx.z * p.b_head;
    const int t = threadIdx.x;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int64_t at = k + t % DepthF, row = (int64_t)blockIdx.y * Side + t / DepthF + 16 * i;
        x[i] = row < p.rows && at < p.a_depth ? a[row * p.lda + at] : 0;
        int64_t col = (int64_t)blockIdx.x * Side + (Values ? t % Side : t / DepthF + 16 * i);
        if (Values)
            at = k + t / Side + 2 * i;
        bool there = col < p.cols && at < p.b_depth;
        y[i] = there ? b[Values ? at * p.ldb + col : col * p.ldb + at] : 0;
    }
}

template <bool Values>
__device__ __forceinline__ void keep(float (*a)[PitchF], float (*b)[PitchF], const float (&x)[8],
                                     const float (&y)[8]) {
    const int t = threadIdx.x;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        a[t % DepthF][t / DepthF + 16 * i] = x[i];
        if (Values)
            b[t / Side + 2 * i][t % Side] = y[i];
        else
            b[t % DepthF][t / DepthF + 16 * i] = y[i];
    }
}

/* A thread has rows 4 * (t / 16) + 0..3 and 64 more, columns 4 * (t % 16) + 0..3 and 64 more. */
template <bool Values>
__global__ __launch_bounds__(Threads) void product_kernel_f32(const product<float> p) {
    __shared__ __align__(16) float a[DepthF][PitchF], b[DepthF][PitchF];
    const int ty = threadIdx.x / 16 * 4, tx = threadIdx.x % 16 * 4;
    float c[8][8] = {}, x[8], y[8];
    fetch<Values>(x, y, p, 0);
    for (int64_t k = 0; k < p.a_depth; k += DepthF) {
        __syncthreads();
        keep<Values>(a, b, x, y);
        __syncthreads();
        if (k + DepthF < p.a_depth)
            fetch<Values>(x, y, p, k + DepthF);
#pragma unroll
        for (int i = 0; i < DepthF; i++) {
            float4 r[4] = {*(float4 *)&a[i][ty], *(float4 *)&a[i][ty + 64], *(float4 *)&b[i][tx],
                           *(float4 *)&b[i][tx + 64]};
            const float u[8] = {r[0].x, r[0].y, r[0].z, r[0].w, r[1].x, r[1].y, r[1].z, r[1].w};
            const float v[8] = {r[2].x, r[2].y, r[2].z, r[2].w, r[3].x, r[3].y, r[3].z, r[3].w};
#pragma unroll
            for (int m = 0; m < 8; m++)
#pragma unroll
                for (int n = 0; n < 8; n++)
                    c[m][n] = fmaf(u[m], v[n], c[m][n]);
        }
    }
#pragma unroll
    for (int m = 0; m < 8; m++)
#pragma unroll
        for (int n = 0; n < 8; n += 2)
            put<Values>(p, (int64_t)blockIdx.y * Side + ty + m % 4 + m / 4 * 64,
                        (int64_t)blockIdx.x * Side + tx + n % 4 + n / 4 * 64, c[m][n], c[m][n + 1]);
}

template <bool Values>
cudaError_t multiply_all(const cuda_device *d, const product<float> &p, dim3 grid) {
    product_kernel_f32<Values><<<grid, Threads, 0, d->stream>>>(p);
    return cudaGetLastError();
}

/* ------------------------------------------------------------------------- softmax */

template <bool Max> __device__ __forceinline__ float all_threads(float x) {
    __shared__ float part[Threads / 32];
    for (int i = 16; i > 0; i /= 2) {
        float y = __shfl_xor_sync(~0u, x, i);
        x = Max ? fmaxf(x, y) : x + y;
    }
    __syncthreads(); /* the last use of part is over */
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = x;
    __syncthreads();
    x = part[0];
    for (int i = 1; i < Threads / 32; i++)
        x = Max ? fmaxf(x, part[i]) : x + part[i];
    return x;
}

/* A block a row: f32 logits become weights of type T in the same place, from its beginning, zeros
 * up to `stride`.  What is written lies at or before what was read. Grid: queries, heads. */
template <class T>
__global__ __launch_bounds__(Threads) void softmax_kernel(float *logits, int64_t m,
                                                          int64_t stride) {
    float *row = logits + ((int64_t)blockIdx.y * gridDim.x + blockIdx.x) * stride;
    T *to = (T *)row;
    float top = -INFINITY, sum = 0;
    for (int64_t i = threadIdx.x; i < m; i += Threads)
        top = fmaxf(top, row[i]);
    top = all_threads<true>(top);
    for (int64_t i = threadIdx.x; i < m; i += Threads)
        sum += expf(row[i] - top);
    sum = all_threads<false>(sum);
    for (int64_t i = 0; i < stride; i += Threads) {
        int64_t at = i + threadIdx.x;
        float x = at < m ? expf(row[at] - top) / sum * WeightScale<T> : 0;
        __syncthreads();
        if (at < stride)
            from_float(to + at, x);
    }
}

/* ------------------------------------------------------------------------- pieces */

bool aligned(const void *p) {
    return (uintptr_t)p % 16 == 0;
}

dim3 tiles(int64_t cols, int64_t rows, int64_t heads) {
    return dim3((unsigned)((cols + Side - 1) / Side), (unsigned)((rows + Side - 1) / Side),
                (unsigned)heads);
}

/* Heads [head, head + heads), queries [first, first + queries). */
template <class T>
cudaError_t run_piece(const cuda_device *d, const attention_args *a, const wide_piece &w,
                      int64_t head, int64_t heads, int64_t first, int64_t queries) {
    const int64_t size = a->head_dim, width = a->heads * size, skip = head * size;
    const int64_t fold = sizeof(float) / sizeof(T);
    product<T> p = {};
    p.a = (const T *)a->q + first * width + skip;
    p.b = (const T *)a->k + skip;
    p.lda = p.ldb = width;
    p.a_head = p.b_head = size;
    p.rows = queries;
    p.cols = a->m;
    p.a_depth = p.b_depth = size;
    p.a_packed = size * sizeof(T) % 16 == 0 && aligned(a->q);
    p.b_packed = size * sizeof(T) % 16 == 0 && aligned(a->k);
    p.logits = (float *)a->workspace;
    p.ldc = w.stride;
    p.c_head = queries * w.stride;
    p.scale = a->scale;
    p.log_count = a->last_key_count > 1 ? logf((float)a->last_key_count) : 0;
    p.bias_head = 2 * a->reach - 1;
    p.bias = a->bias ? a->bias + head * p.bias_head + a->reach - 1 - first : NULL;
    cudaError_t e = multiply_all<false>(d, p, tiles(p.cols, p.rows, heads));
    if (e != cudaSuccess)
        return e;
    softmax_kernel<T><<<dim3((unsigned)queries, (unsigned)heads), Threads, 0, d->stream>>>(
        p.logits, a->m, w.stride);
    if ((e = cudaGetLastError()) != cudaSuccess)
        return e;
    p.a = (const T *)a->workspace;
    p.b = (const T *)a->v + skip;
    p.lda = w.stride * fold;
    p.a_head = p.c_head * fold;
    p.cols = size;
    p.a_depth = w.stride;
    p.b_depth = a->m;
    p.a_packed = true;
    p.b_packed = size * sizeof(T) % 16 == 0 && aligned(a->v);
    p.scale = 1 / WeightScale<T>;
    p.dst = (T *)a->dst + first * width + skip;
    p.ldd = width;
    return multiply_all<true>(d, p, tiles(p.cols, p.rows, heads));
}

template <class T> cudaError_t run(const cuda_device *d, const attention_args *a) {
    wide_piece w = wan_cuda_wide_piece(a->n, a->m, a->heads);
    for (int64_t head = 0; head < a->heads; head += w.heads)
        for (int64_t first = 0; first < a->n; first += w.queries) {
            int64_t heads = head + w.heads < a->heads ? w.heads : a->heads - head;
            int64_t queries = first + w.queries < a->n ? w.queries : a->n - first;
            cudaError_t e = run_piece<T>(d, a, w, head, heads, first, queries);
            if (e != cudaSuccess)
                return e;
        }
    return cudaSuccess;
}

} // namespace

wide_piece wan_cuda_wide_piece(int64_t n, int64_t m, int64_t heads) {
    wide_piece w;
    w.stride = (m + 7) / 8 * 8;
    int64_t row = w.stride * (int64_t)sizeof(float), most = PieceBytes / (row + 1) / Side * Side;
    w.queries = most < LeastQueries ? LeastQueries : most > MostQueries ? MostQueries : most;
    if (w.queries > n)
        w.queries = n;
    w.heads = row * w.queries > 0 ? PieceBytes / (row * w.queries) : heads;
    if (w.heads > heads)
        w.heads = heads;
    if (w.heads < 1)
        w.heads = 1;
    w.bytes = (size_t)(w.heads * w.queries * row);
    return w;
}

cudaError_t wan_cuda_attention_wide(const cuda_device *d, const attention_args *a, dtype type) {
    return type == WAN_BF16 ? run<bf16>(d, a) : type == WAN_F16 ? run<f16>(d, a) : run<float>(d, a);
}
