/* SPDX-License-Identifier: Apache-2.0 */
/* conv_sm90.cuh - convolutions in f16 or e4m3 on Hopper: a matrix product over pixels without an
 * image of columns.
 *
 * A tile is 128 MW pixels by N outputs.  Its sum runs over steps of 128 bytes of input channels of
 * one tap: 64 of f16, 128 of e4m3.  One thread, the producer, asks the copy engine for pixels and
 * weights; they land in two rings of stages in shared memory.  Two warpgroups of consumers multiply
 * half of the pixels each, sums in registers, and store them straight from there, so that one may
 * store while the other multiplies and the producer is already at the next tile.  Blocks stay and
 * take tile after tile.
 *
 * Pixels: a tap's operand is pixels one after another in (t, y, x), read through an im2col tensor
 * map: the copy engine walks over row and frame ends, and outside the image gives zeros.  With a
 * stride of 1, a column of zeros is thought to the right of every row: what is left of the first
 * pixel and right of the last one.  Then the taps of a kernel's row are the same pixels, one
 * further each, and one stage serves all of them: the matrix unit starts at another row of it.  The
 * sums in the thought column are thrown away. Frames of x and frames of `past` have a map each.  A
 * tile that lies over the seam sees the tap twice, each time with zeros where the other map has the
 * pixels; a tap of which no frame is there is left out.  Channels are the outer loop and taps the
 * inner one, so that a tile's pixels are still in the L2 cache when the next tap wants them. What
 * dst holds and is to be added comes by the copy engine too, as stages behind the weights.
 *
 * Why these tiles: the matrix unit takes what it multiplies from shared memory, which gives 128
 * bytes a cycle.  For 64 x 256 pixels and outputs it takes 80 of them; 128 x 256 pixels and weights
 * coming in are 48 more, or 38 with pixels used three times.  Two blocks in a cluster, each
 * bringing half of the weights for both, take less from the L2 cache, and power is what limits
 * this.
 *
 * e4m3: the matrix unit keeps of each product what is above 2^-13 of the sum so far, and cuts the
 * rest off.  So sums are put aside and begin anew after the 27 taps of 128 channels.  There is no
 * room for 128 more registers; two of f16 share one, in units of 2^12 codes.  They fit: the codes
 * of a pixel have a length of about 448 at most (wan_code_scale), those of a weight lie within 448,
 * so that sums stay below 27 * 448 * 448 * sqrt(1024), 2^12 times 42336.
 */
#ifndef WAN_BACKEND_CUDA_CONV_SM90_CUH
#define WAN_BACKEND_CUDA_CONV_SM90_CUH

#include "backend/cuda/conv_sm90_store.cuh"

/* Stages in the order in which producer and consumers take them. */
template <int STAGES, int BYTES> struct ring {
    uint32_t base, barriers;
    int stage;
    uint32_t phase;

    __device__ __forceinline__ uint32_t at() const { return base + stage * BYTES; }
    __device__ __forceinline__ uint32_t full(int s) const { return barriers + 16 * s; }
    __device__ __forceinline__ uint32_t empty(int s) const { return full(s) + 8; }
    __device__ __forceinline__ void next() {
        if (++stage == STAGES) {
            stage = 0;
            phase ^= 1;
        }
    }
    __device__ __forceinline__ void begin(int arrivals) const {
        for (int s = 0; s < STAGES; s++) {
            barrier_init(full(s), 1);
            barrier_init(empty(s), arrivals);
        }
    }
    /* The producer's: a free stage, that will be full with so many bytes. */
    __device__ __forceinline__ uint32_t fill(int bytes) const {
        barrier_wait(empty(stage), phase ^ 1);
        barrier_expect(full(stage), bytes);
        return full(stage);
    }
    __device__ __forceinline__ void wait() const { barrier_wait(full(stage), phase); }
};

/* A and B: stages of pixels and of weights. */
template <class T, int M, int OUTS, int C, int A, int B> struct tile {
    typedef T number;
    static const int STEP = ROW_BYTES / sizeof(T);   /* input channels */
    static const bool PARTS = std::is_same_v<T, f8>; /* of sums, put aside one by one */
    static const bool NORM = false;                  /* stores what a norm makes of it */
    typedef f16 result;
    static const int MW = M, N = OUTS, CLUSTER = C;
    static const int ROWS = 64 * GROUPS * M;
    static const int A_BYTES = (ROWS + 8) * ROW_BYTES, B_BYTES = N * ROW_BYTES;
    static const int B_ALL = B * B_BYTES, RINGS = B_ALL + A * A_BYTES, BARRIERS = 16 * B;
    static const int SHARED = 1024 + RINGS + 16 * (A + B);
    typedef ring<A, A_BYTES> pixel_ring;
    typedef ring<B, B_BYTES> weight_ring;
};

/* Stores what the next convolution of that type multiplies. */
template <class T, int... shape> struct normed : tile<T, shape...> {
    static const bool NORM = true;
    typedef T result;
};

/* What dst holds, a stage for 64 pixels. */
template <class T>
static __device__ __forceinline__ void bring_old(const conv_job &j, const place &p,
                                                 typename T::weight_ring &b) {
    for (int block = 0; block < T::ROWS; block += 64, b.next()) {
        uint32_t full = b.fill(T::B_BYTES);
        pixel at = pixel_of(j, p.first_pixel + block);
        for (int o = 0; o < T::N; o += OLD_STEP)
            load_pixels(b.at() + o * 128, &j.old, full, p.out + o, at.x, at.y, at.t, 0, 0);
    }
}

template <class T>
static __device__ __forceinline__ void produce(const conv_job &j, typename T::pixel_ring a,
                                               typename T::weight_ring b, int rank) {
    const int CLUSTER = T::CLUSTER, share = T::N / CLUSTER; /* of the weight's rows */
    for (int i = blockIdx.x / CLUSTER; i < j.clusters * j.n_tiles; i += gridDim.x / CLUSTER) {
        place p = place_of<T::ROWS, T::N, CLUSTER>(j, i, rank);
        pixel at = pixel_of(j, p.first_pixel - (j.together > 1 ? j.left : 0));
        int w = j.together > 1 ? at.x : at.x * j.stride - j.left, h = at.y * j.stride - j.top;
        for (int c = 0; c < j.chunks * T::STEP; c += T::STEP)
            for (int s = 0; s < j.n_sources; s++) {
                const source &from = j.sources[s];
                if (!is_seen(from, p))
                    continue;
                int row = from.tap * j.kh * j.kw;
                for (int down = 0; down < j.kh; down++)
                    for (int right = 0; right < j.kw; right += j.together, a.next()) {
                        uint32_t full = a.fill(j.pixel_bytes);
                        load_pixels(a.at(), &j.x[from.map], full, c, w, h, at.t + from.shift, right,
                                    down);
                        for (int tap = 0; tap < j.together; tap++, row++, b.next()) {
                            full = b.fill(T::B_BYTES);
                            if (CLUSTER == 1)
                                load_box3(b.at(), &j.weight, full, c, p.out, row);
                            else
                                load_box3_all(b.at() + rank * share * ROW_BYTES, &j.weight, full, c,
                                              p.out + rank * share, row, (1 << CLUSTER) - 1);
                        }
                    }
            }
        if (T::N >= OLD_STEP && j.fetch)
            bring_old<T>(j, p, b);
    }
}

/* This warp is done with a stage: tells the producers of all blocks that write there. */
template <int CLUSTER> static __device__ __forceinline__ void release(uint32_t empty, int lane) {
    if (CLUSTER == 1 && lane == 0)
        barrier_arrive(empty);
    if (CLUSTER > 1 && lane < CLUSTER)
        barrier_arrive_at(empty, (uint32_t)lane);
}

/* acc = the products of `loads` stages of pixels, 1 or more, each with `together` of weights.  Two
 * steps are under way at any time: a stage is given back when the step after its last one has
 * begun.
 */
template <class T>
static __device__ __forceinline__ void multiply(float (&acc)[T::MW][T::N / 2], int loads,
                                                const conv_job &j, typename T::pixel_ring &a,
                                                typename T::weight_ring &b, int group, int lane) {
    int a_before = 0, b_before = 0;
    for (int load = 0; load < loads; load++) {
        a.wait();
        uint64_t left = matrix_at(a.at() + group * T::MW * 64 * ROW_BYTES);
        for (int tap = 0; tap < j.together; tap++, left += ROW_BYTES / 16) {
            b.wait();
            uint64_t right = matrix_at(b.at());
            products_begin();
#pragma unroll
            for (int c = 0; c < ROW_BYTES / 32; c++)
#pragma unroll
                for (int m = 0; m < T::MW; m++)
                    add_products<typename T::number>(acc[m],
                                                     left + 2 * c + m * (64 * ROW_BYTES / 16),
                                                     right + 2 * c, c | load | tap);
            products_commit();
            products_wait<1>();
            if (load || tap)
                release<T::CLUSTER>(b.empty(b_before), lane);
            if (load && !tap)
                release<1>(a.empty(a_before), lane);
            b_before = b.stage;
            b.next();
        }
        a_before = a.stage;
        a.next();
    }
    products_wait<0>();
#pragma unroll
    for (int m = 0; m < T::MW; m++)
        hold(acc[m]);
    release<T::CLUSTER>(b.empty(b_before), lane);
    release<1>(a.empty(a_before), lane);
}

/* aside += acc */
template <int MW, int N>
static __device__ __forceinline__ void put_aside(uint32_t (&aside)[MW][N / 4],
                                                 const float (&acc)[MW][N / 2]) {
#pragma unroll
    for (int m = 0; m < MW; m++)
#pragma unroll
        for (int i = 0; i < N / 4; i++) {
            float low, high;
            unpack_pair<f16>(low, high, aside[m][i]);
            __half2 sum = __floats2half2_rn(fmaf(acc[m][2 * i], 1.f / ASIDE, low),
                                            fmaf(acc[m][2 * i + 1], 1.f / ASIDE, high));
            aside[m][i] = *(uint32_t *)&sum;
        }
}

/* acc = (aside + acc) as numbers, with the bias.  There are as many scales as tiles have outputs.
 */
template <int MW, int N>
static __device__ __forceinline__ void take_back(const conv_job &j, float (&acc)[MW][N / 2],
                                                 const uint32_t (&aside)[MW][N / 4], int out,
                                                 int q) {
    const float *at = j.scale + out + 2 * q, *more = j.bias ? j.bias : j.scale;
    float unit = j.unit * ASIDE, has = j.bias ? 1 : 0;
#pragma unroll
    for (int b = 0; b < N / 8; b++) {
        float2 scale = *(const float2 *)(at + 8 * b);
        float2 bias = *(const float2 *)(more + min(out + 8 * b, j.out - 8) + 2 * q);
#pragma unroll
        for (int r = 0; r < 2 * MW; r++) {
            float low, high, *d = &acc[r / 2][4 * b + 2 * (r % 2)];
            unpack_pair<f16>(low, high, aside[r / 2][2 * b + r % 2]);
            d[0] = fmaf(d[0], 1.f / ASIDE, low) * (scale.x * unit) + bias.x * has;
            d[1] = fmaf(d[1], 1.f / ASIDE, high) * (scale.y * unit) + bias.y * has;
        }
    }
}

/* The sums of a tile; `loads` stages of pixels for each step of channels. */
template <class T>
static __device__ __forceinline__ void
sum_up(const conv_job &j, float (&acc)[T::MW][T::N / 2], int loads, typename T::pixel_ring &a,
       typename T::weight_ring &b, const place &p, int group, int lane) {
    if constexpr (std::is_same_v<typename T::number, f8>) {
        int parts = T::PARTS ? j.chunks : 1, each = T::PARTS ? loads : loads * j.chunks;
        uint32_t aside[T::MW][T::N / 4] = {};
        for (int i = 0; i < parts; i++) {
            if (T::PARTS && i > 0)
                put_aside<T::MW, T::N>(aside, acc);
            multiply<T>(acc, each, j, a, b, group, lane);
        }
        take_back<T::MW, T::N>(j, acc, aside, p.out, lane % 4);
    } else {
        multiply<T>(acc, loads * j.chunks, j, a, b, group, lane);
    }
}

/* Every group waits for every stage, so that all agree on whose turn a barrier is at. */
template <class T>
static __device__ __forceinline__ void add_old(float (&acc)[T::MW][T::N / 2],
                                               typename T::weight_ring &b, int group, int lane) {
    int row = threadIdx.x / 32 % 4 * 16 + lane / 4;
    for (int g = 0; g < GROUPS; g++)
#pragma unroll
        for (int m = 0; m < T::MW; m++, b.next()) {
            b.wait();
            uint32_t from = b.at() + row * 64 + lane % 4 * 4;
#pragma unroll
            for (int i = 0; i < T::N / 8 && g == group; i++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    uint32_t v, turned = (i % 4 ^ row / 2 % 4) * 16;
                    asm volatile("ld.shared.u32 %0, [%1];"
                                 : "=r"(v)
                                 : "r"(from + turned + i / 4 * 4096 + h * 512)
                                 : "memory");
                    float low, high;
                    unpack_pair<f16>(low, high, v);
                    acc[m][4 * i + 2 * h] += low;
                    acc[m][4 * i + 2 * h + 1] += high;
                }
            __syncwarp();
            release<T::CLUSTER>(b.empty(b.stage), lane);
        }
}

template <class T>
static __device__ __forceinline__ void consume(const conv_job &j, typename T::pixel_ring a,
                                               typename T::weight_ring b, int rank) {
    const int CLUSTER = T::CLUSTER, MW = T::MW;
    int group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4;
    int lane = threadIdx.x % 32, loads = j.kh * (j.kw / j.together);
    for (int i = blockIdx.x / CLUSTER; i < j.clusters * j.n_tiles; i += gridDim.x / CLUSTER) {
        place p = place_of<T::ROWS, T::N, CLUSTER>(j, i, rank);
        int seen = 0; /* 1 at least: the last tap sees the frame itself */
        for (int s = 0; s < j.n_sources; s++)
            seen += is_seen(j.sources[s], p);
        float acc[MW][T::N / 2] = {};
        sum_up<T>(j, acc, seen * loads, a, b, p, group, lane);
        if constexpr (T::N >= OLD_STEP && !T::NORM)
            if (j.fetch)
                add_old<T>(acc, b, group, lane);
        typename T::result *to[2 * MW];
#pragma unroll
        for (int h = 0; h < 2 * MW; h++)
            to[h] = target_of<typename T::result>(j, p.first_pixel + (group * MW + h / 2) * 64 +
                                                         warp * 16 + h % 2 * 8 + lane / 4);
        if constexpr (T::N < OLD_STEP) {
            store_each<MW, T::N>(j, acc, to, p.out, lane % 4);
            continue;
        } else {
            if constexpr (!std::is_same_v<typename T::number, f8>)
                add_bias<MW, T::N>(j, acc, p.out, lane % 4);
            if constexpr (T::NORM)
                normalise<MW, T::N>(j, acc, lane % 4);
            store_wide<MW, T::N>(j, acc, to, p.out, lane % 4);
        }
    }
}

template <class T>
static __global__ void __launch_bounds__(THREADS, 1)
    conv_kernel(const __grid_constant__ conv_job j) {
    extern __shared__ uint8_t shared[];
    uint32_t base = (shared_address(shared) + 1023) & ~1023u;
    typename T::weight_ring b = {base, base + T::RINGS, 0, 0};
    typename T::pixel_ring a = {base + T::B_ALL, base + T::RINGS + T::BARRIERS, 0, 0};
    int rank = T::CLUSTER == 1 ? 0 : (int)cluster_rank();
    if (threadIdx.x == 0) {
        a.begin(4 * GROUPS);
        b.begin(4 * GROUPS * T::CLUSTER);
        barrier_init_fence();
    }
    if (T::CLUSTER == 1)
        __syncthreads();
    else
        cluster_sync();
    if (threadIdx.x < 128) {
        registers_down<40>();
        if (threadIdx.x == 0)
            produce<T>(j, a, b, rank);
    } else {
        registers_up<232>();
        consume<T>(j, a, b, rank);
    }
    /* No block may leave while the other still writes to it. */
    if (T::CLUSTER > 1)
        cluster_sync();
}

#endif
