/* SPDX-License-Identifier: Apache-2.0 */
/* softmax(q k^T) v on Hopper for --precision fp8: as attention_sm90.cu, whose comment comes first,
 * with logits from integers of 8 bits and, with `Values8`, values and weights in E4M3.
 *
 * Queries: a scale for each row of a head, its largest magnitude at 127, made where they are used:
 * a warpgroup reads its bf16 tile out of shared memory once and holds the codes in 16 registers as
 * the wgmma's first operand; the tile's memory is free again before the first product.
 * Keys: a scale for each tile, from attention_8bit_pack.cu, after their mean was taken away: that
 * adds the same to all logits of a query, which the softmax does not see, and channels with a
 * common part would else take the bits.  Neither scale costs anything in a logit: both go into the
 * factor that it has anyway.
 * E4M3 in place of the integers would be three times as far off (random normal q and k: 3.7 % of
 * the result against 1.1 %; with bf16's 0.3 %), for one conversion less a logit.
 *
 * Sums of 128 products of 127^2 are whole numbers below 2^21, exact in float.
 *
 * With Values8 weights are 2^8 at the top, so that those 2^-14 of it still have all their bits; a
 * lazy reference may lag by 2^0.75 only, 448 being the end.  The accumulators of a logit row do
 * not lie as the operand of 8 bits wants them; but keys may come in any order, and values were
 * packed in the one that fits (attention_8bit_pack.cu).
 *
 * Shared memory: a tile of keys is one block of 128 bytes a row.  Values in E4M3 are K-major:
 * blocks of [128 columns][64 keys] with the 64-byte swizzle (SBO 512). */
#include "backend/cuda/attention_8bit.cuh"
#include "backend/cuda/attention_8bit.h"
#include "backend/cuda/attention_tile.cuh"

namespace {
namespace eight {

template <int Keys_, int Stages_, bool Values8_> struct shape {
    static constexpr int Groups = 2;
    static constexpr int Rows = 64 * Groups;
    static constexpr int Keys = Keys_;
    static constexpr int Stages = Stages_;
    static constexpr bool Values8 = Values8_;
    static constexpr int Weights = Values8 ? Keys / 8 : Keys / 4; /* registers of a thread */
    static constexpr float Lift = Values8 ? 8 : 0;
    static constexpr float Slack = Values8 ? 0.75f : 8;
    static constexpr int Threads = 128 * (Groups + 1);
    static constexpr int ProducerRegisters = 24, ConsumerRegisters = 240;
    /* Offsets in shared memory, from a multiple of 1024 */
    static constexpr int Queries = Rows * Head * 2;
    static constexpr int KeyTile = Keys * Head;
    static constexpr int ValueTile = Keys * Head * (Values8 ? 1 : 2);
    static constexpr int Key = Queries;
    static constexpr int Value = Key + Stages * KeyTile;
    static constexpr int Barriers = Value + Stages * ValueTile;
    static constexpr int Bytes = Barriers + 8 * (2 + 4 * Stages) + 1024;
    static_assert(Keys % (Values8 ? 64 : 16) == 0 && Keys <= 224 && Bytes <= 227 * 1024, "tile");
};

struct job {
    uint16_t *dst;
    int n, width;
    int query_tiles, tiles; /* of one head, of all */
    int key_tiles;
    int last;            /* index of the last key in the last tile */
    float scale;         /* of a logit, times log2 e */
    const float *k_unit; /* [heads, key_tiles] */
    const float *v_unit; /* [heads], of E4M3 */
};

/* ------------------------------------------------------------------------- operands */

__device__ __forceinline__ float load_unit(const float *p) {
    float x;
    asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(x) : "l"(p));
    return x;
}

/* Codes of the two rows of a thread, and what a step of each is worth in a logit.  Of sixteen
 * columns the four at 4 * (lane % 4): eight bytes of a swizzled block. */
template <class S>
__device__ __forceinline__ void load_queries(uint32_t (&q)[16], float (&unit)[2], uint32_t from,
                                             float scale) {
    const int lane = threadIdx.x % 32, row = lane / 4, t = lane % 4;
    uint32_t x[2][8][2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float most = 1e-15f;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            uint32_t at = from + i / 4 * S::Rows * 128 + (row + 8 * r) * 128 +
                          (((2 * (i % 4) + t / 2) ^ row) << 4) + 8 * (t % 2);
            asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];"
                         : "=r"(x[r][i][0]), "=r"(x[r][i][1])
                         : "r"(at)
                         : "memory");
#pragma unroll
            for (int e = 0; e < 2; e++) {
                most = larger(most, fabsf(low_half(x[r][i][e])));
                most = larger(most, fabsf(high_half(x[r][i][e])));
            }
        }
        most = larger(most, __shfl_xor_sync(~0u, most, 1));
        most = larger(most, __shfl_xor_sync(~0u, most, 2));
        float by = 127 / most;
        unit[r] = most / 127 * scale;
#pragma unroll
        for (int i = 0; i < 8; i++)
            q[4 * (i / 2) + 2 * (i % 2) + r] = four_integers(x[r][i][0], x[r][i][1], by);
    }
}

/* The operand's four bytes are two of one eight columns and two of the next. */
template <class S>
__device__ __forceinline__ void pack_weights(uint32_t (&p)[S::Weights], float (&s)[S::Keys / 2]) {
    if constexpr (S::Values8) {
#pragma unroll
        for (int i = 0; i < S::Weights; i++) {
            int x = 8 * (i / 2) + 2 * (i % 2);
            p[i] = four_e4m3(s[x], s[x + 1], s[x + 4], s[x + 5]);
        }
    } else {
        pack_all(p, s);
    }
}

/* ------------------------------------------------------------------------- matrix products */

template <int n> __device__ __forceinline__ void hold(int (&d)[n]) {
#pragma unroll
    for (int i = 0; i < n; i++)
        asm volatile("" : "+r"(d[i])::"memory");
}

template <class S>
__device__ __forceinline__ void issue_logits(int (&x)[S::Keys / 2], const uint32_t (&q)[16],
                                             uint32_t k) {
    uint64_t b = matrix_at(k);
    mma_s8<S::Keys>::first(x, q, b);
#pragma unroll
    for (int i = 1; i < Head / 32; i++)
        mma_s8<S::Keys>::add(x, q + 4 * i, b + i * 32 / 16);
    products_commit();
}

template <class S>
__device__ __forceinline__ void issue_values(float (&o)[64], const uint32_t (&p)[S::Weights],
                                             uint32_t v) {
    if constexpr (S::Values8) {
        uint64_t b = half_matrix_at(v);
#pragma unroll
        for (int i = 0; i < S::Keys / 32; i++)
            mma_e4m3(o, p + 4 * i, b + (i / 2 * Head * 64 + i % 2 * 32) / 16);
    } else {
        uint64_t b = values_at(v, S::Keys * 128);
#pragma unroll
        for (int i = 0; i < S::Keys / 16; i++)
            mma_registers(o, p + 4 * i, b + i * 2048 / 16);
    }
    products_commit();
}

/* ------------------------------------------------------------------------- softmax */

/* What a step of an integer logit is worth in the exponent; not so small that -inf times it is no
 * number. */
__device__ __forceinline__ void units(float (&unit)[2], const float (&q)[2], float k) {
    unit[0] = larger(q[0] * k, 1e-30f);
    unit[1] = larger(q[1] * k, 1e-30f);
}

/* Logits become weights; `top` is in the exponent's own unit, since that of logits changes with
 * the tile.  In the first tile keys after the `last` count nothing. */
template <class S, bool First>
__device__ __forceinline__ void softmax(float (&s)[S::Keys / 2], const int (&x)[S::Keys / 2],
                                        float (&top)[2], float (&sum)[2], float (&factor)[2],
                                        const float (&unit)[2], int last) {
    constexpr int N = S::Keys / 2;
#pragma unroll
    for (int i = 0; i < N; i++)
        s[i] = __int2float_rn(x[i]);
    if (First && last < S::Keys - 1) {
        int column = 2 * (threadIdx.x % 4);
#pragma unroll
        for (int i = 0; i < N; i++)
            s[i] = 8 * (i / 4) + (i & 1) + column > last ? -INFINITY : s[i];
    }
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
        a = fmaxf(a, __shfl_xor_sync(~0u, a, 2)) * unit[r];
        if (!First) {
            a = a - top[r] <= S::Slack ? top[r] : a;
            factor[r] = exp_2(top[r] - a);
        }
        top[r] = a;
        float shift = S::Lift - a, y = 0, z = 0;
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            s[i + 2 * r] = exp_2(fmaf(s[i + 2 * r], unit[r], shift));
            s[i + 2 * r + 1] = exp_2(fmaf(s[i + 2 * r + 1], unit[r], shift));
            y += s[i + 2 * r];
            z += s[i + 2 * r + 1];
        }
        sum[r] = First ? y + z : fmaf(sum[r], factor[r], y + z);
    }
}

/* ------------------------------------------------------------------------- the two roles */

template <class S> __device__ __forceinline__ int first_query(const job &j, int tile) {
    return tile % j.query_tiles * S::Rows;
}

__device__ __forceinline__ void release(uint32_t bar) {
    if (threadIdx.x % 32 == 0)
        barrier_arrive(bar);
}

template <class S>
__device__ __forceinline__ void bring_values(uint32_t to, const CUtensorMap *v, uint32_t bar,
                                             int tile, int head) {
    barrier_expect(bar, S::ValueTile);
    if (S::Values8)
        load_box3(to, v, bar, 0, head * Head, tile * (S::Keys / 64));
    else
        load_box3(to, v, bar, 0, tile * S::Keys, 2 * head);
}

/* One thread.  The order is that in which the consumers wait: k k v k v ... v. */
template <class S>
__device__ __forceinline__ void produce(const job &j, uint32_t base, const CUtensorMap *q,
                                        const CUtensorMap *k, const CUtensorMap *v) {
    barriers bar = {base + S::Barriers};
    ring<S::Stages> key, value;
    uint32_t parity = 0;
    for (int t = blockIdx.x; t < j.tiles; t += gridDim.x) {
        int head = t / j.query_tiles;
        barrier_wait(bar.q_empty(), parity ^ 1);
        parity ^= 1;
        barrier_expect(bar.q_full(), S::Queries);
        load_box3(base, q, bar.q_full(), 0, first_query<S>(j, t), 2 * head);
        for (int i = j.key_tiles; i >= 0; i--) {
            if (i > 0) {
                barrier_wait(bar.k_empty(key.at), key.parity ^ 1);
                barrier_expect(bar.k_full(key.at), S::KeyTile);
                load_box3(base + S::Key + key.at * S::KeyTile, k, bar.k_full(key.at), 0,
                          (i - 1) * S::Keys, head);
                key.step();
            }
            if (i < j.key_tiles) {
                barrier_wait(bar.v_empty(value.at), value.parity ^ 1);
                bring_values<S>(base + S::Value + value.at * S::ValueTile, v, bar.v_full(value.at),
                                i, head);
                value.step();
            }
        }
    }
}

/* Logits are there when all but `Later` groups of products are done. */
template <class S, int Later>
__device__ __forceinline__ void finish_logits(int (&x)[S::Keys / 2], uint32_t base,
                                              ring<S::Stages> &key) {
    barriers bar = {base + S::Barriers};
    products_wait<Later>();
    hold(x);
    release(bar.k_empty(key.at));
    key.step();
}

/* Of the ragged tile; the product with its values follows. */
template <class S>
__device__ __forceinline__ void
first_weights(uint32_t (&p)[S::Weights], float (&top)[2], float (&sum)[2], const uint32_t (&q)[16],
              const float (&unit)[2], int last, uint32_t base, ring<S::Stages> &key) {
    barriers bar = {base + S::Barriers};
    float s[S::Keys / 2], factor[2];
    int x[S::Keys / 2];
    barrier_wait(bar.k_full(key.at), key.parity);
    products_begin();
    issue_logits<S>(x, q, base + S::Key + key.at * S::KeyTile);
    finish_logits<S, 0>(x, base, key);
    softmax<S, true>(s, x, top, sum, factor, unit, last);
    pack_weights<S>(p, s);
}

/* Of the weights that were made last. */
template <class S>
__device__ __forceinline__ void begin_values(float (&o)[64], const uint32_t (&p)[S::Weights],
                                             const float (&factor)[2], uint32_t base,
                                             const ring<S::Stages> &value) {
    barriers bar = {base + S::Barriers};
    rescale<true>(o, factor);
    barrier_wait(bar.v_full(value.at), value.parity);
    ::hold(o);
    products_begin();
    issue_values<S>(o, p, base + S::Value + value.at * S::ValueTile);
}

template <class S> __device__ __forceinline__ void consume(const job &j, uint32_t base, int group) {
    constexpr int N = S::Keys / 2;
    barriers bar = {base + S::Barriers};
    ring<S::Stages> key, value;
    uint32_t parity = 0;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    float s[N], o[64];
    int x[N];
    uint32_t p[S::Weights], q[16];
    float top[2], sum[2], factor[2], q_unit[2], unit[2];
    if (group == S::Groups - 1)
        turn_give(0);
    for (int t = blockIdx.x; t < j.tiles; t += gridDim.x) {
        const int head = t / j.query_tiles;
        const float *k_unit = j.k_unit + head * j.key_tiles;
        float step = load_unit(k_unit + j.key_tiles - 1);
        factor[0] = factor[1] = 1;
        barrier_wait(bar.q_full(), parity);
        load_queries<S>(q, q_unit, base + (group * 64 + warp * 16) * 128, j.scale);
        __syncwarp();
        release(bar.q_empty());
        parity ^= 1;
        units(unit, q_unit, step);
        first_weights<S>(p, top, sum, q, unit, j.last, base, key);
#pragma unroll
        for (int i = 0; i < 64; i++)
            o[i] = 0;
#pragma unroll 1
        for (int i = j.key_tiles - 1; i > 0; i--) {
            step = load_unit(k_unit + i - 1);
            barrier_wait(bar.k_full(key.at), key.parity);
            turn_wait(group);
            products_begin();
            issue_logits<S>(x, q, base + S::Key + key.at * S::KeyTile);
            begin_values<S>(o, p, factor, base, value);
            turn_give(group + 1 == S::Groups ? 0 : group + 1);
            finish_logits<S, 1>(x, base, key);
            units(unit, q_unit, step);
            softmax<S, false>(s, x, top, sum, factor, unit, 0);
            ::hold(s);
            finish_first(sum[0] + sum[1], base);
            products_wait<0>();
            ::hold(o);
            ::hold(s);
            release(bar.v_empty(value.at));
            value.step();
            pack_weights<S>(p, s);
        }
        begin_values<S>(o, p, factor, base, value);
        products_wait<0>();
        ::hold(o);
        release(bar.v_empty(value.at));
        value.step();
        store(j.dst + head * Head, j.n, j.width,
              first_query<S>(j, t) + group * 64 + warp * 16 + lane / 4, o, sum,
              S::Values8 ? load_unit(j.v_unit + head) : 1);
    }
    if (group == 0)
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
            barrier_init(bar.k_empty(i), S::Groups * 4);
            barrier_init(bar.v_empty(i), S::Groups * 4);
        }
        barrier_init_fence();
    }
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
}

/* ------------------------------------------------------------------------- launch */

/* Keys [heads, tokens, 128] as {128, tokens, heads}, a tile of one head. */
bool map_keys(encode_tiled f, CUtensorMap *map, const void *data, int64_t tokens, int heads,
              int rows) {
    cuuint64_t dims[3] = {Head, (cuuint64_t)tokens, (cuuint64_t)heads};
    cuuint64_t strides[2] = {Head, (cuuint64_t)tokens * Head};
    cuuint32_t box[3] = {Head, (cuuint32_t)rows, 1}, steps[3] = {1, 1, 1};
    return f(map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 3, (void *)data, dims, strides, box, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

/* Values [heads * 128, keys] as {64, heads * 128, keys / 64}, a tile of one head. */
bool map_values(encode_tiled f, CUtensorMap *map, const void *data, int64_t keys, int heads,
                int rows) {
    cuuint64_t dims[3] = {64, (cuuint64_t)heads * Head, (cuuint64_t)keys / 64};
    cuuint64_t strides[2] = {(cuuint64_t)keys, 64};
    cuuint32_t box[3] = {64, Head, (cuuint32_t)rows / 64}, steps[3] = {1, 1, 1};
    return f(map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 3, (void *)data, dims, strides, box, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_64B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

template <class S> cudaError_t launch(const cuda_device *d, const attention_args *a) {
    encode_tiled encode;
    packed_keys x = wan_cuda_packed_keys(a->m, a->heads, S::Keys, S::Values8, a->workspace);
    cudaError_t e = find_encoder(&encode);
    if (e == cudaSuccess)
        e = wan_cuda_pack_keys(&x, a, d->stream);
    if (e == cudaSuccess)
        e = cudaFuncSetAttribute(attention_kernel<S>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 S::Bytes);
    if (e != cudaSuccess)
        return e;
    CUtensorMap q, k, v;
    bool mapped = map_rows(encode, &q, a->q, a->n, a->heads, S::Rows, 2) &&
                  map_keys(encode, &k, x.k, a->m, a->heads, S::Keys);
    mapped =
        mapped && (S::Values8 ? map_values(encode, &v, x.v, x.tiles * S::Keys, a->heads, S::Keys)
                              : map_rows(encode, &v, a->v, a->m, a->heads, S::Keys, 2));
    if (!mapped)
        return cudaErrorInvalidValue;
    job j;
    j.dst = (uint16_t *)a->dst;
    j.n = (int)a->n;
    j.width = a->heads * Head;
    j.query_tiles = (int)((a->n + S::Rows - 1) / S::Rows);
    j.tiles = j.query_tiles * a->heads;
    j.key_tiles = (int)x.tiles;
    j.last = (int)(a->m - 1 - (x.tiles - 1) * S::Keys);
    j.scale = a->scale * Log2e;
    j.k_unit = x.k_unit;
    j.v_unit = x.v_unit;
    int blocks = j.tiles < d->multiprocessors ? j.tiles : d->multiprocessors;
    attention_kernel<S><<<blocks, S::Threads, S::Bytes, d->stream>>>(j, q, k, v);
    return cudaGetLastError();
}

/* Values in E4M3 too: 8 % faster at 27,280 keys (10.88 ms against 11.83, packing included), and
 * three times as far off (3.8 % of the result of random numbers against 1.2 %), which wan-check
 * (tests/kernels/reference.c) does not expect. */
constexpr bool ChosenValues8 = false;

template <bool Values8> struct choice;
template <> struct choice<false> { typedef shape<176, 2, false> type; };
template <> struct choice<true> { typedef shape<128, 3, true> type; };
typedef choice<ChosenValues8>::type chosen;

/* Where it is worth the packing and the error (tests/kernels/reference.c knows).  On an H100, 24
 * heads, as many queries as keys, packing included, against bf16: 4,725 keys 0.387 ms (0.031 of it
 * packing) and 0.395, 27,280 keys 11.83 ms (0.13) and 13.57.  Packing costs by the key, what it
 * saves comes with each pair; queries may be a piece of the clip's. */
constexpr int64_t FewestKeys = 8192, FewestQueries = 4096;

/* As wan_cuda_attention_sm90 does, and no key that counts more than once. */
bool fits(const cuda_device *d, const attention_args *a) {
    return d->sm == 90 && wan_cuda_attention_8bit_bytes(a->n, a->m, a->heads, a->head_dim) > 0 &&
           !a->bias && a->last_key_count == 1 && a->scale > 0 && aligned(a->q) && aligned(a->k) &&
           aligned(a->v) && aligned(a->dst) && aligned(a->workspace);
}

} // namespace eight
} // namespace

size_t wan_cuda_attention_8bit_bytes(int64_t n, int64_t m, int heads, int head_dim) {
    typedef eight::chosen S;
    if (head_dim != Head || heads >= 1024 || n < eight::FewestQueries || n >= 1 << 22 ||
        m < eight::FewestKeys || m >= 1 << 22)
        return 0;
    return wan_cuda_packed_keys(m, heads, S::Keys, S::Values8, NULL).bytes;
}

bool wan_cuda_attention_8bit(const cuda_device *d, const attention_args *a, cudaError_t *e) {
    if (!eight::fits(d, a))
        return false;
    *e = eight::launch<eight::chosen>(d, a);
    return true;
}
