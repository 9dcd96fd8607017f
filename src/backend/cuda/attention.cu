/* SPDX-License-Identifier: Apache-2.0 */
/* softmax(q k^T + bias) v: which kernel, and the one for bf16 heads of up to 128 on any device from
 * compute capability 8.0.
 *
 * A block of 4 warps has 64 queries, 16 a warp, and walks over tiles of 64 keys that cp.async
 * brings into two buffers, one ahead.  Products are mma.m16n8k16; logits, weights and results stay
 * in registers.  Heads are padded with zeros to a multiple of 16, rows in shared memory by 16
 * bytes, so that the eight rows that ldmatrix reads lie in different banks.  Where rows or heads do
 * not start at 16-byte addresses, plain loads of single numbers fill the same tiles. */
#include "backend/cuda/attention_8bit.h"
#include "backend/cuda/attention_wide.h"
#include "backend/cuda/mma.cuh"

namespace {

constexpr int Rows = 64; /* queries, and keys of a tile */
constexpr int Threads = 128;
constexpr float Log2e = 1.4426950408889634f;

struct job {
    const bf16 *q, *k, *v;
    bf16 *dst;
    const float *bias; /* of head 0, at key - query = 0; or NULL */
    int64_t bias_stride;
    int64_t n, m, width;
    int size;    /* of a head */
    bool packed; /* everything starts at 16-byte addresses */
    float scale, log_count;
};

/* ------------------------------------------------------------------------- pieces */

/* Rows [from, from + 64) of one head into a tile; zeros past the end and past the head. */
template <int Head>
__device__ __forceinline__ void bring_tile(bf16 *to, const job &j, const bf16 *x, int64_t from,
                                           int64_t rows) {
    constexpr int Pitch = Head + 8;
    if (j.packed) {
        for (int i = threadIdx.x; i < Rows * Head / 8; i += Threads) {
            int row = i / (Head / 8), column = i % (Head / 8) * 8;
            bool there = from + row < rows && column < j.size;
            copy_16(shared_address(to + row * Pitch + column),
                    there ? x + (from + row) * j.width + column : x, there);
        }
        return;
    }
    for (int i = threadIdx.x; i < Rows * Head; i += Threads) {
        int row = i / Head, column = i % Head;
        bool there = from + row < rows && column < j.size;
        to[row * Pitch + column] =
            there ? x[(from + row) * j.width + column] : __float2bfloat16(0.0f);
    }
}

/* ------------------------------------------------------------------------- one tile of keys
 * Of a 16 x 8 product a thread has x[0], x[1] in row lane / 4 and x[2], x[3] eight rows below, at
 * the columns 2 * (lane % 4) and the next. */

template <int Head>
__device__ __forceinline__ void logits(float (&s)[Rows / 8][4], const uint32_t (&q)[Head / 16][4],
                                       const bf16 *k) {
    const int lane = threadIdx.x % 32;
    const uint32_t base =
        shared_address(k + (lane / 16 * 8 + lane % 8) * (Head + 8) + lane / 8 % 2 * 8);
#pragma unroll
    for (int i = 0; i < Rows / 16; i++) {
#pragma unroll
        for (int e = 0; e < 4; e++)
            s[2 * i][e] = s[2 * i + 1][e] = 0;
#pragma unroll
        for (int d = 0; d < Head / 16; d++) {
            uint32_t b[4];
            load_matrices(b, base + 2 * (16 * i * (Head + 8) + 16 * d));
            mma<bf16>(s[2 * i], q[d], b[0], b[1]);
            mma<bf16>(s[2 * i + 1], q[d], b[2], b[3]);
        }
    }
}

/* Scales by log2 e too; bias, the last key's count, -inf past the end. */
__device__ __forceinline__ void finish_logits(float (&s)[Rows / 8][4], const job &j, int64_t query,
                                              int64_t key) {
    const bool edge = key + Rows >= j.m;
#pragma unroll
    for (int i = 0; i < Rows / 8; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int64_t at = key + 8 * i + 2 * (threadIdx.x % 4) + e % 2, row = query + e / 2 * 8;
            float x = s[i][e] * j.scale;
            if (j.bias && at < j.m && row < j.n)
                x += j.bias[blockIdx.y * j.bias_stride + at - row];
            if (edge)
                x = at >= j.m ? -INFINITY : at == j.m - 1 ? x + j.log_count : x;
            s[i][e] = x * Log2e;
        }
}

__device__ __forceinline__ void softmax(float (&s)[Rows / 8][4], float (&top)[2], float (&sum)[2],
                                        float (&factor)[2]) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float a = top[r];
#pragma unroll
        for (int i = 0; i < Rows / 8; i++)
            a = fmaxf(a, fmaxf(s[i][2 * r], s[i][2 * r + 1]));
        a = fmaxf(a, __shfl_xor_sync(~0u, a, 1));
        a = fmaxf(a, __shfl_xor_sync(~0u, a, 2));
        factor[r] = exp2f(top[r] - a);
        top[r] = a;
        float total = 0;
#pragma unroll
        for (int i = 0; i < Rows / 8; i++) {
            s[i][2 * r] = exp2f(s[i][2 * r] - a);
            s[i][2 * r + 1] = exp2f(s[i][2 * r + 1] - a);
            total += s[i][2 * r] + s[i][2 * r + 1];
        }
        sum[r] = sum[r] * factor[r] + total;
    }
}

template <int Head>
__device__ __forceinline__ void add_values(float (&o)[Head / 8][4], const float (&s)[Rows / 8][4],
                                           const bf16 *v) {
    const int lane = threadIdx.x % 32;
    const uint32_t base =
        shared_address(v + (lane / 8 % 2 * 8 + lane % 8) * (Head + 8) + lane / 16 * 8);
#pragma unroll
    for (int i = 0; i < Rows / 16; i++) {
        const uint32_t a[4] = {pack_pair(s[2 * i][0], s[2 * i][1]),
                               pack_pair(s[2 * i][2], s[2 * i][3]),
                               pack_pair(s[2 * i + 1][0], s[2 * i + 1][1]),
                               pack_pair(s[2 * i + 1][2], s[2 * i + 1][3])};
#pragma unroll
        for (int d = 0; d < Head / 16; d++) {
            uint32_t b[4];
            load_transposed(b, base + 2 * (16 * i * (Head + 8) + 16 * d));
            mma<bf16>(o[2 * d], a, b[0], b[1]);
            mma<bf16>(o[2 * d + 1], a, b[2], b[3]);
        }
    }
}

template <int Head>
__device__ __forceinline__ void store(const job &j, bf16 *dst, int64_t query,
                                      const float (&o)[Head / 8][4], float (&sum)[2]) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float all = sum[r];
        all += __shfl_xor_sync(~0u, all, 1);
        all += __shfl_xor_sync(~0u, all, 2);
        if (query + 8 * r >= j.n)
            continue;
        bf16 *to = dst + (query + 8 * r) * j.width;
#pragma unroll
        for (int i = 0; i < Head / 8; i++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                int column = 8 * i + 2 * (threadIdx.x % 4) + e;
                if (column < j.size)
                    to[column] = __float2bfloat16(o[i][2 * r + e] / all);
            }
    }
}

/* Grid: tiles of queries, heads. */
template <int Head> __global__ __launch_bounds__(Threads) void attention_kernel(const job j) {
    constexpr int Tile = Rows * (Head + 8);
    extern __shared__ __align__(16) bf16 memory[];
    bf16 *key = memory, *value = memory + 2 * Tile;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t first = (int64_t)blockIdx.x * Rows, head = (int64_t)blockIdx.y * j.size;
    const int64_t query = first + 16 * warp + lane / 4;
    uint32_t q[Head / 16][4];
    float o[Head / 8][4] = {}, s[Rows / 8][4];
    float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, factor[2];

    bring_tile<Head>(value, j, j.q + head, first, j.n); /* for a moment */
    copies_commit();
    bring_tile<Head>(key, j, j.k + head, 0, j.m);
    copies_wait<0>();
    __syncthreads();
#pragma unroll
    for (int d = 0; d < Head / 16; d++)
        load_matrices(q[d], shared_address(value + (16 * warp + lane % 16) * (Head + 8) + 16 * d +
                                           lane / 16 * 8));
    __syncthreads();
    bring_tile<Head>(value, j, j.v + head, 0, j.m);
    copies_commit();
    for (int64_t i = 0; i * Rows < j.m; i++) {
        int now = i % 2 * Tile, then = Tile - now;
        copies_wait<0>();
        __syncthreads(); /* this tile is there, the other buffers are free */
        if ((i + 1) * Rows < j.m) {
            bring_tile<Head>(key + then, j, j.k + head, (i + 1) * Rows, j.m);
            bring_tile<Head>(value + then, j, j.v + head, (i + 1) * Rows, j.m);
        }
        copies_commit();
        logits<Head>(s, q, key + now);
        finish_logits(s, j, query, i * Rows);
        softmax(s, top, sum, factor);
#pragma unroll
        for (int d = 0; d < Head / 8; d++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                o[d][e] *= factor[e / 2];
        add_values<Head>(o, s, value + now);
    }
    store<Head>(j, j.dst + head, query, o, sum);
}

/* ------------------------------------------------------------------------- launch */

template <int Head> cudaError_t launch(const cuda_device *d, const job &j, int heads) {
    const int bytes = 4 * Rows * (Head + 8) * (int)sizeof(bf16);
    cudaError_t e = cudaFuncSetAttribute(attention_kernel<Head>,
                                         cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (e != cudaSuccess)
        return e;
    dim3 grid((unsigned)((j.n + Rows - 1) / Rows), (unsigned)heads);
    attention_kernel<Head><<<grid, Threads, bytes, d->stream>>>(j);
    return cudaGetLastError();
}

bool aligned(const void *p) {
    return (uintptr_t)p % 16 == 0;
}

cudaError_t attention_small(const cuda_device *d, const attention_args *a) {
    job j;
    j.q = (const bf16 *)a->q;
    j.k = (const bf16 *)a->k;
    j.v = (const bf16 *)a->v;
    j.dst = (bf16 *)a->dst;
    j.bias = a->bias ? a->bias + a->reach - 1 : NULL;
    j.bias_stride = 2 * a->reach - 1;
    j.n = a->n;
    j.m = a->m;
    j.size = a->head_dim;
    j.width = (int64_t)a->heads * a->head_dim;
    j.packed = a->head_dim % 8 == 0 && aligned(a->q) && aligned(a->k) && aligned(a->v);
    j.scale = a->scale;
    j.log_count = a->last_key_count > 1 ? logf((float)a->last_key_count) : 0;
    if (a->head_dim <= 16)
        return launch<16>(d, j, a->heads);
    if (a->head_dim <= 32)
        return launch<32>(d, j, a->heads);
    if (a->head_dim <= 64)
        return launch<64>(d, j, a->heads);
    return launch<128>(d, j, a->heads);
}

/* Exact f32, f16 and wide heads put logits into memory. */
bool is_wide(int head_dim, dtype type) {
    return type != WAN_BF16 || head_dim > 128;
}

} // namespace

cudaError_t wan_cuda_attention_any(const cuda_device *d, const attention_args *a, dtype type) {
    if (a->n == 0)
        return cudaSuccess;
    return is_wide(a->head_dim, type) ? wan_cuda_attention_wide(d, a, type) : attention_small(d, a);
}

/* At precision fp8 large products take operands of 8 bits, where the last key is one as any other.
 * A plan asks before there is a device: on others than Hopper the space is not used. */
static size_t bytes_8bit(const compute *c, tensor q, tensor k, const attention *a) {
    if (c->precision != WAN_PRECISION_FP8 || q.type != WAN_BF16 || a->bias.data ||
        a->last_key_count != 1)
        return 0;
    return wan_cuda_attention_8bit_bytes(q.dim[0], k.dim[0], a->heads, (int)(q.dim[1] / a->heads));
}

size_t wan_cuda_attention_workspace(const compute *c, tensor q, tensor k, const attention *a) {
    if (!is_wide((int)(q.dim[1] / a->heads), q.type))
        return bytes_8bit(c, q, k, a);
    return wan_cuda_wide_piece(q.dim[0], k.dim[0], a->heads).bytes;
}

void wan_cuda_attention(compute *c, tensor dst, tensor q, tensor k, tensor v, const attention *a) {
    const cuda_device *d = wan_cuda_device(c);
    attention_args args;
    args.q = q.data;
    args.k = k.data;
    args.v = v.data;
    args.dst = dst.data;
    args.n = q.dim[0];
    args.m = k.dim[0];
    args.heads = a->heads;
    args.head_dim = (int)(q.dim[1] / a->heads);
    args.scale = a->scale;
    args.last_key_count = a->last_key_count;
    args.bias = (const float *)a->bias.data;
    args.reach = a->bias.data ? (a->bias.dim[1] + 1) / 2 : 0;
    args.workspace = wan_cuda_workspace(c);
    cudaError_t e = cudaSuccess;
    bool done = bytes_8bit(c, q, k, a) > 0 && wan_cuda_attention_8bit(d, &args, &e);
    done = done || (q.type == WAN_BF16 && wan_cuda_attention_sm90(d, &args, &e));
    if (!done)
        e = wan_cuda_attention_any(d, &args, q.type);
    wan_cuda_ok(c, e, "attention");
}
