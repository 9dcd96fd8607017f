/* SPDX-License-Identifier: Apache-2.0 */
/* softmax(q k^T) v on Hopper: bf16, heads of 128, wgmma and TMA.
 *
 * A block holds 64 queries for each of its consumer warpgroups (tile `Rows`) and walks over tiles
 * of `Keys` keys, from the last to the first, so that only the first step sees the ragged end.  One
 * thread of warpgroup 0 brings tiles through TMA into two rings, keys and values; the others hold
 * logits, weights and results in registers: Keys/2 + Keys/4 + 64 of the 240 each may have.
 *
 * A step issues the logits of the next tile BEFORE the product with the values of the current one;
 * the softmax of the former then runs beside the latter.  With `Turns` warpgroups also take turns
 * at issuing, so that the tensor cores work for one while the other is at its exponentials: these
 * take about half the time of the products (16 a clock against 4096 flops a clock).
 *
 * Blocks are persistent, one a multiprocessor, head after head, so that the keys and values of the
 * few heads in flight stay in L2 and the next queries come in under the last product and the store.
 *
 * Keys and values cost a byte of L2's bandwidth for every 2 * Rows flops, 5 TB/s at 650 TFLOP/s
 * with 128 queries: a `Cluster` of two blocks halves that, each bringing half of a tile to both.
 *
 * Shared memory, all with the 128-byte swizzle: a tile is two blocks of [rows][64 numbers], one TMA
 * box of a rank-3 map {64, rows, 2 * heads}.  Queries and keys are K-major operands (8 rows of 128
 * bytes: SBO 1024; k-step 16 is +32 bytes in a block).  Values are the MN-major B operand: 64
 * columns, then the other block (LBO = Keys * 128), 8 keys at SBO 1024; k-step 16 is +2048 bytes.
 * Past the ends TMA writes zeros; keys there get a logit of -inf, queries are not stored. */
#include "backend/cuda/attention_sm90.cuh"
#include "backend/cuda/attention_tile.cuh"
#include "backend/cuda/cuda.h"
#include "backend/cuda/sm90.cuh"

namespace {

constexpr float Slack = 8; /* see softmax */

/* ------------------------------------------------------------------------- shape of a block */

template <int Consumers, int Keys_, int Stages_, bool Turns_, bool Lazy_, int Cluster_ = 1>
struct shape {
    static constexpr int Groups = Consumers;
    static constexpr int Rows = 64 * Consumers;
    static constexpr int Keys = Keys_;
    static constexpr int Stages = Stages_;
    static constexpr bool Turns = Turns_;
    static constexpr bool Lazy = Lazy_;
    static constexpr int Cluster = Cluster_;
    static constexpr int Threads = 128 * (Consumers + 1);
    /* With the register file dealt out anew: 65,536 / 128 = 512 a thread of each warpgroup. */
    static constexpr int ProducerRegisters = Consumers == 2 ? 24 : 32;
    static constexpr int ConsumerRegisters = Consumers == 2 ? 240 : 160;
    /* Offsets in shared memory, from a multiple of 1024 */
    static constexpr int Tile = Keys * Head * 2;
    static constexpr int Key = Rows * Head * 2;
    static constexpr int Value = Key + Stages * Tile;
    static constexpr int Barriers = Value + Stages * Tile;
    static constexpr int Bytes = Barriers + 8 * (2 + 4 * Stages) + 1024;
    static_assert(Keys % 16 == 0 && Keys <= 256 && Bytes <= 227 * 1024, "tile");
};

struct job {
    uint16_t *dst;
    int n, width;           /* rows, and numbers in a row, of q and dst */
    int query_tiles, tiles; /* of one head, of all; those of a cluster are one */
    int key_tiles;
    int last;    /* index of the last key in the last tile */
    float scale; /* of a logit, times log2 e */
    float extra; /* added to the unscaled logit of the last key */
};

/* ------------------------------------------------------------------------- matrix products */

/* Logits of 64 queries and a tile of keys. */
template <class S>
__device__ __forceinline__ void issue_logits(float (&s)[S::Keys / 2], uint32_t q, uint32_t k) {
    uint64_t a = matrix_at(q), b = matrix_at(k);
#pragma unroll
    for (int i = 0; i < Head / 16; i++)
        mma_shared<S::Keys>::issue(s, a + ((i / 4) * S::Rows * 128 + (i % 4) * 32) / 16,
                                   b + ((i / 4) * S::Keys * 128 + (i % 4) * 32) / 16, i > 0);
    products_commit();
}

template <class S>
__device__ __forceinline__ void issue_values(float (&o)[64], const uint32_t (&p)[S::Keys / 4],
                                             uint32_t v) {
    uint64_t b = values_at(v, S::Keys * 128);
#pragma unroll
    for (int i = 0; i < S::Keys / 16; i++)
        mma_registers(o, p + 4 * i, b + i * 2048 / 16);
    products_commit();
}

template <int N> __device__ __forceinline__ void mask(float (&s)[N], int last, float extra) {
    int column = 2 * (threadIdx.x % 4);
#pragma unroll
    for (int i = 0; i < N; i++) {
        int at = 8 * (i / 4) + (i & 1) + column;
        s[i] = at > last ? -INFINITY : at == last ? s[i] + extra : s[i];
    }
}

/* Logits become weights 2^((s - top) * scale).  Lazily, `top` follows the true maximum only when
 * that has grown by 2^Slack: any reference near it gives the same quotient, and mostly there is
 * nothing to rescale. */
template <int N, bool Lazy, bool First>
__device__ __forceinline__ void softmax(float (&s)[N], float (&top)[2], float (&sum)[2],
                                        float (&factor)[2], float scale) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float a = s[2 * r], b = s[2 * r + 1];
#pragma unroll
        for (int i = 4; i < N; i += 4) {
            a = fmaxf(a, s[i + 2 * r]);
            b = fmaxf(b, s[i + 2 * r + 1]);
        }
        a = fmaxf(a, b);
        a = fmaxf(a, __shfl_xor_sync(~0u, a, 1));
        a = fmaxf(a, __shfl_xor_sync(~0u, a, 2));
        if (!First) {
            a = fmaxf(a, top[r]);
            if (Lazy && (a - top[r]) * scale <= Slack)
                a = top[r];
            factor[r] = exp_2((top[r] - a) * scale);
        }
        top[r] = a;
        float shift = a * scale, x = 0, y = 0;
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            s[i + 2 * r] = exp_2(fmaf(s[i + 2 * r], scale, -shift));
            s[i + 2 * r + 1] = exp_2(fmaf(s[i + 2 * r + 1], scale, -shift));
            x += s[i + 2 * r];
            y += s[i + 2 * r + 1];
        }
        sum[r] = First ? x + y : fmaf(sum[r], factor[r], x + y);
    }
}

/* ------------------------------------------------------------------------- the two roles */

/* Which tile a cluster has; its blocks take neighbouring queries of it. */
template <class S> __device__ __forceinline__ int first_tile() {
    return blockIdx.x / S::Cluster;
}

template <class S> __device__ __forceinline__ int first_query(const job &j, int tile) {
    int rank = S::Cluster > 1 ? blockIdx.x % S::Cluster : 0;
    return (tile % j.query_tiles * S::Cluster + rank) * S::Rows;
}

/* A tile of keys or values; in a cluster of two each block brings 64 columns, to both. */
template <class S>
__device__ __forceinline__ void bring(uint32_t to, const CUtensorMap *map, uint32_t bar, int row,
                                      int head) {
    barrier_expect(bar, S::Tile);
    if (S::Cluster == 1) {
        load_box3(to, map, bar, 0, row, 2 * head);
    } else {
        int rank = blockIdx.x % S::Cluster;
        load_box3_all(to + rank * S::Tile / 2, map, bar, 0, row, 2 * head + rank, 3);
    }
}

/* A warp has read a stage; each block that writes there wants to know. */
template <class S> __device__ __forceinline__ void release(uint32_t bar) {
    int lane = threadIdx.x % 32;
    if (S::Cluster == 1) {
        if (lane == 0)
            barrier_arrive(bar);
    } else if (lane < S::Cluster) {
        barrier_arrive_at(bar, lane);
    }
}

/* One thread.  The order is that in which the consumers wait: k k v k v ... v. */
template <class S>
__device__ __forceinline__ void produce(const job &j, uint32_t base, const CUtensorMap *q,
                                        const CUtensorMap *k, const CUtensorMap *v) {
    barriers bar = {base + S::Barriers};
    ring<S::Stages> key, value;
    uint32_t parity = 0;
    for (int t = first_tile<S>(); t < j.tiles; t += gridDim.x / S::Cluster) {
        int head = t / j.query_tiles;
        barrier_wait(bar.q_empty(), parity ^ 1);
        parity ^= 1;
        barrier_expect(bar.q_full(), S::Rows * Head * 2);
        load_box3(base, q, bar.q_full(), 0, first_query<S>(j, t), 2 * head);
        for (int i = j.key_tiles; i >= 0; i--) {
            if (i > 0) {
                barrier_wait(bar.k_empty(key.at), key.parity ^ 1);
                bring<S>(base + S::Key + key.at * S::Tile, k, bar.k_full(key.at), (i - 1) * S::Keys,
                         head);
                key.step();
            }
            if (i < j.key_tiles) {
                barrier_wait(bar.v_empty(value.at), value.parity ^ 1);
                bring<S>(base + S::Value + value.at * S::Tile, v, bar.v_full(value.at), i * S::Keys,
                         head);
                value.step();
            }
        }
    }
}

template <class S> __device__ __forceinline__ void consume(const job &j, uint32_t base, int group) {
    constexpr int N = S::Keys / 2;
    barriers bar = {base + S::Barriers};
    ring<S::Stages> key, value;
    uint32_t parity = 0;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const uint32_t q = base + group * 64 * 128;
    float s[N], o[64];
    uint32_t p[N / 2];
    float top[2], sum[2], factor[2];
    if (S::Turns && group == S::Groups - 1)
        turn_give(0);
    for (int t = first_tile<S>(); t < j.tiles; t += gridDim.x / S::Cluster) {
        factor[0] = factor[1] = 1;
        barrier_wait(bar.q_full(), parity);
        barrier_wait(bar.k_full(key.at), key.parity);
        products_begin();
        issue_logits<S>(s, q, base + S::Key + key.at * S::Tile);
        products_wait<0>();
        hold(s);
        release<S>(bar.k_empty(key.at));
        key.step();
        if (j.last < S::Keys - 1 || j.extra != 0)
            mask(s, j.last, j.extra);
        softmax<N, S::Lazy, true>(s, top, sum, factor, j.scale);
        pack_all(p, s);
#pragma unroll
        for (int i = 0; i < 64; i++)
            o[i] = 0;
#pragma unroll 1
        for (int i = j.key_tiles - 1; i > 0; i--) {
            barrier_wait(bar.k_full(key.at), key.parity);
            if (S::Turns)
                turn_wait(group);
            products_begin();
            issue_logits<S>(s, q, base + S::Key + key.at * S::Tile);
            rescale<S::Lazy>(o, factor);
            barrier_wait(bar.v_full(value.at), value.parity);
            hold(o);
            products_begin();
            issue_values<S>(o, p, base + S::Value + value.at * S::Tile);
            if (S::Turns)
                turn_give(group + 1 == S::Groups ? 0 : group + 1);
            products_wait<1>();
            hold(s);
            release<S>(bar.k_empty(key.at));
            key.step();
            softmax<N, S::Lazy, false>(s, top, sum, factor, j.scale);
            hold(s);
            finish_first(sum[0] + sum[1], q);
            products_wait<0>();
            hold(o);
            hold(s);
            release<S>(bar.v_empty(value.at));
            value.step();
            pack_all(p, s);
        }
        if (lane == 0)
            barrier_arrive(bar.q_empty());
        parity ^= 1;
        rescale<S::Lazy>(o, factor);
        barrier_wait(bar.v_full(value.at), value.parity);
        hold(o);
        products_begin();
        issue_values<S>(o, p, base + S::Value + value.at * S::Tile);
        products_wait<0>();
        hold(o);
        release<S>(bar.v_empty(value.at));
        value.step();
        store(j.dst + t / j.query_tiles * Head, j.n, j.width,
              first_query<S>(j, t) + group * 64 + warp * 16 + lane / 4, o, sum, 1);
    }
    if (S::Turns && group == 0)
        turn_wait(0); /* nothing is left pending */
}

template <class S>
__global__ __launch_bounds__(S::Threads,
                             1) void attention_kernel(const job j,
                                                      const __grid_constant__ CUtensorMap q,
                                                      const __grid_constant__ CUtensorMap k,
                                                      const __grid_constant__ CUtensorMap v) {
    extern __shared__ uint8_t memory[];
    const uint32_t base = (shared_address(memory) + 1023) & ~1023u;
    if (threadIdx.x == 0) {
        barriers bar = {base + S::Barriers};
        barrier_init(bar.q_full(), 1);
        barrier_init(bar.q_empty(), S::Groups * 4);
        for (int i = 0; i < S::Stages; i++) {
            barrier_init(bar.k_full(i), 1);
            barrier_init(bar.v_full(i), 1);
            barrier_init(bar.k_empty(i), S::Groups * 4 * S::Cluster);
            barrier_init(bar.v_empty(i), S::Groups * 4 * S::Cluster);
        }
        barrier_init_fence();
    }
    if (S::Cluster > 1)
        cluster_sync();
    else
        __syncthreads();
    /* The same in all lanes, and the compiler may know. */
    const int group = __shfl_sync(~0u, threadIdx.x / 128, 0);
    if (group == 0) {
        registers_down<S::ProducerRegisters>();
        if (threadIdx.x == 0)
            produce<S>(j, base, &q, &k, &v);
    } else {
        registers_up<S::ConsumerRegisters>();
        consume<S>(j, base, group - 1);
    }
    if (S::Cluster > 1)
        cluster_sync(); /* the other block may still write and arrive here */
}

/* ------------------------------------------------------------------------- launch */

template <class S> cudaError_t launch(const cuda_device *d, const attention_args *a) {
    encode_tiled encode;
    cudaError_t e = find_encoder(&encode);
    if (e != cudaSuccess)
        return e;
    CUtensorMap q, k, v;
    if (!map_rows(encode, &q, a->q, a->n, a->heads, S::Rows, 2) ||
        !map_rows(encode, &k, a->k, a->m, a->heads, S::Keys, 2 / S::Cluster) ||
        !map_rows(encode, &v, a->v, a->m, a->heads, S::Keys, 2 / S::Cluster))
        return cudaErrorInvalidValue;
    job j;
    j.dst = (uint16_t *)a->dst;
    j.n = (int)a->n;
    j.width = a->heads * Head;
    j.query_tiles = (int)((a->n + S::Rows * S::Cluster - 1) / (S::Rows * S::Cluster));
    j.tiles = j.query_tiles * a->heads;
    j.key_tiles = (int)((a->m + S::Keys - 1) / S::Keys);
    j.last = (int)(a->m - 1 - (int64_t)(j.key_tiles - 1) * S::Keys);
    j.scale = a->scale * Log2e;
    j.extra = a->last_key_count > 1 ? logf((float)a->last_key_count) / a->scale : 0;
    e = cudaFuncSetAttribute(attention_kernel<S>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             S::Bytes);
    if (e != cudaSuccess)
        return e;
    int most = d->multiprocessors / S::Cluster;
    cudaLaunchAttribute cluster;
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {S::Cluster, 1, 1};
    cudaLaunchConfig_t how = {};
    how.gridDim = dim3((unsigned)(S::Cluster * (j.tiles < most ? j.tiles : most)));
    how.blockDim = dim3(S::Threads);
    how.dynamicSmemBytes = S::Bytes;
    how.stream = d->stream;
    how.attrs = &cluster;
    how.numAttrs = 1;
    return cudaLaunchKernelEx(&how, attention_kernel<S>, j, q, k, v);
}

/* Rows and tiles are counted in int; -inf times a scale of 0 would be no number. */
bool fits(const cuda_device *d, const attention_args *a) {
    return d->sm == 90 && a->head_dim == Head && !a->bias && a->scale > 0 && a->n < (1 << 24) &&
           a->m > 0 && a->m < (1 << 24) && a->heads < 1024 && aligned(a->q) && aligned(a->k) &&
           aligned(a->v) && aligned(a->dst);
}

} // namespace

bool wan_cuda_attention_sm90(const cuda_device *d, const attention_args *a, cudaError_t *e) {
    if (!fits(d, a))
        return false;
    *e = a->n == 0 ? cudaSuccess : launch<shape<2, 176, 2, true, true>>(d, a);
    return true;
}
