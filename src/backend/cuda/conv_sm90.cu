/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions in f16 on Hopper: a matrix product over pixels without an image of columns.
 *
 * A tile is 128 MW pixels by N outputs.  Its sum runs over steps of 64 input channels of one tap.
 * One thread, the producer, asks the copy engine for the two operands of a step; they land in a
 * ring of stages in shared memory.  Two warpgroups of consumers multiply half of the pixels each,
 * sums in registers, and store them straight from there, so that one may store while the other
 * multiplies and the producer is already at the next tile.  Blocks stay and take tile after tile.
 *
 * Why these tiles: 128 x 256 needs 48 KiB per 1024 cycles of the matrix unit, which is more than
 * the L2 cache gives to all multiprocessors at once.  So two blocks form a cluster, one above the
 * other in pixels: each brings its pixels and half of the weights, which go to both.  256 x 160 is
 * for the encoder's widths, the narrow ones for the head and the latents.
 *
 * Pixels: a tap's operand is 128 MW pixels one after another in (t, y, x), read through an im2col
 * tensor map: the copy engine walks over row and frame ends, and outside the image gives zeros.
 * Frames of x and frames of `past` have a map each.  A tile that lies over the seam sees the tap
 * twice, each time with zeros where the other map has the pixels; a tap of which no frame is there
 * is left out.  Channels are the outer loop and taps the inner one, so that a tile's pixels are
 * still in the L2 cache when the next tap wants them.
 * (With boxes, used in the test only: a tile is a rectangle of one frame and the maps are plain.)
 */
#include <cuda_fp16.h>

#include "backend/cuda/cuda.h"
#include "backend/cuda/sm90.cuh"

#define STEP 64 /* input channels; 128 bytes, a swizzled row */
#define ROW_BYTES 128
#define THREADS 384
#define MAX_TAPS 3 /* in time */
#define GROUP 16   /* clusters of pixels whose tiles are done together, for the L2 cache */
#define CONSUMER_WARPS 8

/* A tap in time, in one map: frame t of dst sees frame t + shift of the map. */
typedef struct source {
    int map, tap, shift, count;
} source;

typedef struct conv_job {
    CUtensorMap weight, x[3]; /* x: every frame or the even ones, the odd ones, past */
    source sources[2 * MAX_TAPS];
    int n_sources, taps, kw, chunks;  /* taps of one source, chunks of STEP channels */
    int pixels, plane, height, width; /* of dst as this call fills it */
    int clusters, n_tiles;            /* tiles: clusters of pixels x groups of outputs */
    int stride, top, left;
    int box_shift, boxes_x, boxes_y; /* boxes of 1 << box_shift pixels wide; boxes_x 0: none */
    __half *dst;              /* its first pixel */
    const float *bias;
    int out, channels; /* outputs; of one frame of dst, the others go `part` further on */
    int64_t part, frame;
    int row, col;
    bool add;
} conv_job;

/* Where a block's tile is. */
typedef struct place {
    int tile, out;   /* which of the tiles of pixels; first output */
    int t, y, x;     /* first pixel */
    int first, last; /* frames of the whole cluster's pixels */
} place;

template <int ROWS, int N, int CLUSTER>
static __device__ __forceinline__ place place_of(const conv_job &j, int index, int rank) {
    int span = GROUP * j.n_tiles, group = index / span * GROUP;
    int size = min(GROUP, j.clusters - group), r = index % span;
    int tile = (group + r % size) * CLUSTER;
    place p;
    p.tile = tile + rank;
    p.out = r / size * N;
    if (j.boxes_x) {
        int boxes = j.boxes_x * j.boxes_y, box = p.tile % boxes;
        p.t = p.tile / boxes;
        p.y = box / j.boxes_x * (ROWS >> j.box_shift);
        p.x = box % j.boxes_x << j.box_shift;
        p.first = tile / boxes;
        p.last = (tile + CLUSTER - 1) / boxes;
        return p;
    }
    int pixel = p.tile * ROWS;
    p.t = pixel / j.plane;
    p.y = pixel % j.plane / j.width;
    p.x = pixel % j.plane % j.width;
    p.first = tile * ROWS / j.plane;
    p.last = (min((tile + CLUSTER) * ROWS, j.pixels) - 1) / j.plane;
    return p;
}

static __device__ __forceinline__ bool is_seen(const source &s, const place &p) {
    return p.last + s.shift >= 0 && p.first + s.shift < s.count;
}

/* Where pixel `row` of a tile goes; NULL: nowhere. */
template <int ROWS>
static __device__ __forceinline__ __half *pixel_at(const conv_job &j, const place &p,
                                                          int row) {
    int t, y, x;
    if (j.boxes_x) {
        t = p.t;
        y = p.y + (row >> j.box_shift);
        x = p.x + (row & ((1 << j.box_shift) - 1));
        if (y >= j.height || x >= j.width || t * j.plane >= j.pixels)
            return NULL;
    } else {
        unsigned i = (unsigned)(p.tile * ROWS + row), in_frame;
        if (i >= (unsigned)j.pixels)
            return NULL;
        t = (int)(i / (unsigned)j.plane);
        in_frame = i - (unsigned)(t * j.plane);
        y = (int)(in_frame / (unsigned)j.width);
        x = (int)in_frame - y * j.width;
    }
    return j.dst + t * j.frame + y * (int64_t)j.row + x * (int64_t)j.col;
}

/* ------------------------------------------------------------------------------------- storing */

static __device__ __forceinline__ float low(uint32_t pair) {
    return __low2float(*(__half2 *)&pair);
}

static __device__ __forceinline__ float high(uint32_t pair) {
    return __high2float(*(__half2 *)&pair);
}

/* Into the range of f16; a NaN stays one. */
static __device__ __forceinline__ float in_range(float v) {
    asm("min.NaN.f32 %0, %0, 0f477fe000;\n\tmax.NaN.f32 %0, %0, 0fc77fe000;" : "+f"(v));
    return v;
}

static __device__ __forceinline__ uint32_t pair_of(float a, float b) {
    __half2 v = __floats2half2_rn(in_range(a), in_range(b));
    return *(uint32_t *)&v;
}

/* Among four lanes: v[i] of lane q and v[q] of lane i change places. */
static __device__ __forceinline__ void transpose4(uint32_t (&v)[4], int q) {
#pragma unroll
    for (int bit = 1; bit <= 2; bit *= 2) {
        bool upper = q & bit;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i & bit)
                continue;
            uint32_t got = __shfl_xor_sync(0xffffffffu, upper ? v[i] : v[i + bit], bit);
            v[i] = upper ? got : v[i];
            v[i + bit] = upper ? v[i + bit] : got;
        }
    }
}

/* Rows of whole groups of 8 outputs.  Four lanes hold two neighbours each of four such groups;
 * after a transposition each has one group, 16 bytes, and together they store 64 bytes of a row.
 * What dst holds comes the other way, a few groups ahead. */
template <bool ADD, int MW, int N>
static __device__ __forceinline__ void store_wide(const conv_job &j, const float (&acc)[MW][N / 2],
                                                  __half *const (&to)[2 * MW], int out,
                                                  int q) {
    const int ahead = 4 / MW, groups = N / 32;
#pragma unroll
    for (int first = 0; first < groups; first += ahead) {
        uint4 old[ahead][2 * MW];
#pragma unroll
        for (int g = first; ADD && g < first + ahead && g < groups; g++) {
            int o = out + 32 * g + 8 * q;
            int64_t at = o < j.channels ? o : o + j.part;
#pragma unroll
            for (int r = 0; r < 2 * MW; r++) {
                old[g - first][r] = make_uint4(0, 0, 0, 0);
                if (to[r] && o < j.out)
                    old[g - first][r] = *(const uint4 *)(to[r] + at);
            }
        }
#pragma unroll
        for (int g = first; g < first + ahead && g < groups; g++) {
            float2 bias[4];
#pragma unroll
            for (int b = 0; b < 4; b++) {
                int o = out + 32 * g + 8 * b;
                bias[b] = make_float2(0, 0);
                if (j.bias && o < j.out)
                    bias[b] = __ldg((const float2 *)(j.bias + o + 2 * q));
            }
            int o = out + 32 * g + 8 * q;
            int64_t at = o < j.channels ? o : o + j.part;
#pragma unroll
            for (int r = 0; r < 2 * MW; r++) {
                uint32_t v[4] = {0, 0, 0, 0};
                if (ADD) {
                    uint4 w = old[g - first][r];
                    v[0] = w.x, v[1] = w.y, v[2] = w.z, v[3] = w.w;
                    transpose4(v, q);
                }
#pragma unroll
                for (int b = 0; b < 4; b++) {
                    const float *d = &acc[r / 2][16 * g + 4 * b + 2 * (r % 2)];
                    float s0 = d[0] + bias[b].x, s1 = d[1] + bias[b].y;
                    v[b] = ADD ? pair_of(s0 + low(v[b]), s1 + high(v[b])) : pair_of(s0, s1);
                }
                transpose4(v, q);
                if (to[r] && o < j.out)
                    *(uint4 *)(to[r] + at) = make_uint4(v[0], v[1], v[2], v[3]);
            }
        }
    }
}

/* Any number of outputs, one by one. */
template <int MW, int N>
static __device__ __forceinline__ void store_each(const conv_job &j, const float (&acc)[MW][N / 2],
                                                  __half *const (&to)[2 * MW], int out,
                                                  int q) {
#pragma unroll
    for (int b = 0; b < N / 8; b++)
#pragma unroll
        for (int r = 0; r < 2 * MW; r++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                int o = out + 8 * b + 2 * q + e;
                if (!to[r] || o >= j.out)
                    continue;
                __half *at = to[r] + (o < j.channels ? o : o + j.part);
                float sum = acc[r / 2][4 * b + 2 * (r % 2) + e];
                sum += j.bias ? __ldg(j.bias + o) : 0.f;
                sum += j.add ? __half2float(*at) : 0.f;
                *at = __float2half_rn(in_range(sum));
            }
}

template <int MW, int N>
static __device__ __forceinline__ void store(const conv_job &j, const float (&acc)[MW][N / 2],
                                             __half *const (&to)[2 * MW], int out, int q) {
    if constexpr (N <= 64)
        if (N < 32 || j.channels % 8) {
            store_each<MW, N>(j, acc, to, out, q);
            return;
        }
    if constexpr (N >= 32) {
        if (j.add)
            store_wide<true, MW, N>(j, acc, to, out, q);
        else
            store_wide<false, MW, N>(j, acc, to, out, q);
    }
}

/* -------------------------------------------------------------------------------------- kernel */

/* A tile's steps, in the order in which producer and consumers take the stages. */
template <int MW, int N, int CLUSTER, int STAGES> struct ring {
    static const int ROWS = 128 * MW, A_BYTES = ROWS * ROW_BYTES, B_BYTES = N * ROW_BYTES;
    static const int STAGE = A_BYTES + B_BYTES;
    static const int SHARED = 1024 + STAGES * STAGE + 16 * STAGES;
    uint32_t base;
    int stage;
    uint32_t phase;

    __device__ __forceinline__ uint32_t a() const { return base + stage * STAGE; }
    __device__ __forceinline__ uint32_t b() const { return a() + A_BYTES; }
    __device__ __forceinline__ uint32_t full(int s) const { return base + STAGES * STAGE + 16 * s; }
    __device__ __forceinline__ uint32_t empty(int s) const { return full(s) + 8; }
    __device__ __forceinline__ void next() {
        if (++stage == STAGES) {
            stage = 0;
            phase ^= 1;
        }
    }
};

template <int MW, int N, int CLUSTER, int STAGES>
static __device__ __forceinline__ void produce(const conv_job &j, ring<MW, N, CLUSTER, STAGES> r,
                                               int rank) {
    typedef ring<MW, N, CLUSTER, STAGES> R;
    const int share = N / CLUSTER; /* of the weight's rows this block brings */
    for (int i = blockIdx.x / CLUSTER; i < j.clusters * j.n_tiles; i += gridDim.x / CLUSTER) {
        place p = place_of<R::ROWS, N, CLUSTER>(j, i, rank);
        int w = p.x * j.stride - j.left, h = p.y * j.stride - j.top;
        for (int c = 0; c < j.chunks * STEP; c += STEP)
            for (int s = 0; s < j.n_sources; s++) {
                const source &from = j.sources[s];
                if (!is_seen(from, p))
                    continue;
                for (int tap = 0, right = 0, down = 0; tap < j.taps; tap++, r.next()) {
                    uint32_t full = r.full(r.stage);
                    barrier_wait(r.empty(r.stage), r.phase ^ 1);
                    barrier_expect(full, R::STAGE);
                    if (j.boxes_x)
                        load_box4(r.a(), &j.x[from.map], full, c, w + right, h + down,
                                  p.t + from.shift);
                    else
                        load_pixels(r.a(), &j.x[from.map], full, c, w, h, p.t + from.shift, right,
                                    down);
                    int row = from.tap * j.taps + tap;
                    if (CLUSTER == 1)
                        load_box3(r.b(), &j.weight, full, c, p.out, row);
                    else
                        load_box3_all(r.b() + rank * share * ROW_BYTES, &j.weight, full, c,
                                      p.out + rank * share, row, (1 << CLUSTER) - 1);
                    if (++right == j.kw) {
                        right = 0;
                        down++;
                    }
                }
            }
    }
}

/* This warp is done with a stage: tells the producers of all blocks that write there. */
template <int CLUSTER> static __device__ __forceinline__ void release(uint32_t empty, int lane) {
    if (CLUSTER == 1 && lane == 0)
        barrier_arrive(empty);
    if (CLUSTER > 1 && lane < CLUSTER)
        barrier_arrive_at(empty, (uint32_t)lane);
}

template <int MW, int N, int CLUSTER, int STAGES>
static __device__ __forceinline__ void
multiply(float (&acc)[MW][N / 2], int steps, ring<MW, N, CLUSTER, STAGES> &r, int group, int lane) {
#pragma unroll
    for (int m = 0; m < MW; m++)
#pragma unroll
        for (int i = 0; i < N / 2; i++)
            acc[m][i] = 0.f;
    int before = 0;
    for (int k = 0; k < steps; k++) {
        barrier_wait(r.full(r.stage), r.phase);
        uint64_t a = matrix_at(r.a() + group * MW * 64 * ROW_BYTES), b = matrix_at(r.b());
        products_begin();
#pragma unroll
        for (int c = 0; c < STEP / 16; c++)
#pragma unroll
            for (int m = 0; m < MW; m++)
                add_products(acc[m], a + 2 * c + m * (64 * ROW_BYTES / 16), b + 2 * c);
        products_commit();
        /* The step before this one is over once only this one is under way. */
        products_wait<1>();
        if (k)
            release<CLUSTER>(r.empty(before), lane);
        before = r.stage;
        r.next();
    }
    products_wait<0>();
#pragma unroll
    for (int m = 0; m < MW; m++)
        hold(acc[m]);
    if (steps)
        release<CLUSTER>(r.empty(before), lane);
}

template <int MW, int N, int CLUSTER, int STAGES>
static __device__ __forceinline__ void consume(const conv_job &j, ring<MW, N, CLUSTER, STAGES> r,
                                               int rank) {
    const int ROWS = 128 * MW;
    int group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4;
    int lane = threadIdx.x % 32, q = lane % 4;
    for (int i = blockIdx.x / CLUSTER; i < j.clusters * j.n_tiles; i += gridDim.x / CLUSTER) {
        place p = place_of<ROWS, N, CLUSTER>(j, i, rank);
        __half *to[2 * MW];
#pragma unroll
        for (int h = 0; h < 2 * MW; h++) {
            to[h] =
                pixel_at<ROWS>(j, p, (group * MW + h / 2) * 64 + warp * 16 + h % 2 * 8 + lane / 4);
            /* Four lanes ask for a line each of what will be added. */
            int o = p.out + 64 * q;
            if (j.add && 64 * q < N && to[h] && o < j.out)
                asm volatile(
                    "prefetch.global.L2 [%0];" ::"l"(to[h] + (o < j.channels ? o : o + j.part)));
        }
        int seen = 0;
        for (int s = 0; s < j.n_sources; s++)
            seen += is_seen(j.sources[s], p);
        float acc[MW][N / 2];
        multiply(acc, seen * j.taps * j.chunks, r, group, lane);
        store<MW, N>(j, acc, to, p.out, q);
    }
}

template <int MW, int N, int CLUSTER, int STAGES>
static __global__ void __launch_bounds__(THREADS, 1)
    conv_kernel(const __grid_constant__ conv_job j) {
    extern __shared__ uint8_t shared[];
    typedef ring<MW, N, CLUSTER, STAGES> R;
    R r = {(shared_address(shared) + 1023) & ~1023u, 0, 0};
    int rank = CLUSTER == 1 ? 0 : (int)cluster_rank();
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            barrier_init(r.full(s), 1);
            barrier_init(r.empty(s), CONSUMER_WARPS * CLUSTER);
        }
        barrier_init_fence();
    }
    if (CLUSTER == 1)
        __syncthreads();
    else
        cluster_sync();
    if (threadIdx.x < 128) {
        registers_down<40>();
        if (threadIdx.x == 0)
            produce<MW, N, CLUSTER, STAGES>(j, r, rank);
    } else {
        registers_up<232>();
        consume<MW, N, CLUSTER, STAGES>(j, r, rank);
    }
    /* No block may leave while the other still writes to it. */
    if (CLUSTER > 1)
        cluster_sync();
}

/* ---------------------------------------------------------------------------------------- host */

typedef struct variant {
    int rows, outs, cluster, shared;
    double speed; /* of the matrix unit, as measured, the fastest 1 */
    void (*kernel)(const conv_job);
} variant;

#define VARIANT(mw, n, cluster, stages, speed)                                                     \
    {                                                                                              \
        128 * mw, n, cluster, ring<mw, n, cluster, stages>::SHARED, speed,                         \
            conv_kernel<mw, n, cluster, stages>                                                    \
    }
static const variant variants[] = {
    VARIANT(1, 256, 2, 4, 1.0),  VARIANT(1, 256, 1, 4, 0.92), VARIANT(2, 128, 2, 4, 0.97),
    VARIANT(1, 128, 2, 6, 0.85), VARIANT(2, 160, 2, 4, 0.97), VARIANT(2, 64, 2, 5, 0.6),
    VARIANT(2, 16, 1, 6, 0.15),
};
#define VARIANTS (int)(sizeof variants / sizeof *variants)

/* The driver's functions, found at run time so that nothing links with libcuda. */
typedef struct encoders {
    decltype(&cuTensorMapEncodeTiled) tiled;
    decltype(&cuTensorMapEncodeIm2col) im2col;
} encoders;

static void *driver_function(const char *name) {
    void *f = NULL;
    cudaDriverEntryPointQueryResult found;
    cudaError_t e = cudaGetDriverEntryPointByVersion(name, &f, 12000, cudaEnableDefault, &found);
    return e == cudaSuccess && found == cudaDriverEntryPointSuccess ? f : NULL;
}

static const encoders *find_encoders(void) {
    static const encoders found = {
        (decltype(&cuTensorMapEncodeTiled))driver_function("cuTensorMapEncodeTiled"),
        (decltype(&cuTensorMapEncodeIm2col))driver_function("cuTensorMapEncodeIm2col")};
    return found.tiled && found.im2col ? &found : NULL;
}

static int64_t ceil_of(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* `frames` frames from `first` on, each `step` frames after the one before. */
static bool map_pixels(const encoders *f, CUtensorMap *map, const conv_args *a, const variant *v,
                       const conv_job *j, const void *first, int64_t frames, int step) {
    cuuint64_t row = (cuuint64_t)a->in * 2;
    cuuint64_t size[4] = {(cuuint64_t)a->in, (cuuint64_t)a->width, (cuuint64_t)a->height,
                          (cuuint64_t)frames};
    cuuint64_t pitch[3] = {row, row * a->width, row * a->width * a->height * step};
    cuuint32_t stride[4] = {1, (cuuint32_t)a->stride, (cuuint32_t)a->stride, 1};
    if (j->boxes_x) {
        cuuint32_t box[4] = {STEP, 1u << j->box_shift, (cuuint32_t)v->rows >> j->box_shift, 1};
        return f->tiled(map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 4, (void *)first, size, pitch, box,
                        stride, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                        CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
    }
    /* The first tap walks over a box of as many places as dst has pixels. */
    int lower[2] = {-a->left, -a->top};
    int upper[2] = {(int)((j->width - 1) * a->stride + 1 - a->left - a->width),
                    (int)((j->height - 1) * a->stride + 1 - a->top - a->height)};
    return f->im2col(map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 4, (void *)first, size, pitch, lower,
                     upper, STEP, (cuuint32_t)v->rows, stride, CU_TENSOR_MAP_INTERLEAVE_NONE,
                     CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                     CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

static bool map_weight(const encoders *f, CUtensorMap *map, const conv_args *a, const variant *v) {
    cuuint64_t size[3] = {(cuuint64_t)a->in, (cuuint64_t)a->out,
                          (cuuint64_t)(a->kt * a->kh * a->kw)};
    cuuint64_t pitch[2] = {size[0] * 2, size[0] * size[1] * 2};
    cuuint32_t box[3] = {STEP, (cuuint32_t)(v->outs / v->cluster), 1}, stride[3] = {1, 1, 1};
    return f->tiled(map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 3, (void *)a->weight, size, pitch, box,
                    stride, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                    CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                    CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

static void add_source(conv_job *j, int map, int tap, int64_t shift, int64_t count) {
    j->sources[j->n_sources++] = (source){map, tap, (int)shift, (int)count};
}

/* Tap i of frame t sees frame t * time_stride + i - before of x, or of past where that is below 0.
 * With a stride of 2, even and odd frames of x are tensors of their own. */
static bool map_sources(const encoders *f, conv_job *j, const conv_args *a, const variant *v) {
    int ts = a->time_stride;
    int64_t plane = a->height * a->width * a->in * 2; /* bytes */
    int held = a->past ? a->held : 0;
    for (int i = 0; i < ts; i++)
        if (a->frames_in > i && !map_pixels(f, &j->x[i], a, v, j, (const char *)a->x + i * plane,
                                            ceil_of(a->frames_in - i, ts), ts))
            return false;
    if (held && !map_pixels(f, &j->x[2], a, v, j,
                            (const char *)a->past + (a->before - held) * plane, held, 1))
        return false;
    for (int i = 0; i < a->kt; i++) {
        int from = i - a->before, odd = from & (ts - 1);
        if (held && ts == 1)
            add_source(j, 2, i, from + held, held);
        if (held && ts == 2 && odd) /* held is 1 */
            add_source(j, 2, i, (from + 1) / 2, 1);
        if (a->frames_in > odd)
            add_source(j, odd, i, (from - odd) / ts, ceil_of(a->frames_in - odd, ts));
    }
    return true;
}

/* The width of boxes, a power of two, that needs the fewest. */
static void choose_boxes(conv_job *j, const variant *v) {
    int64_t best = INT64_MAX;
    for (int s = 3; s <= 7; s++) {
        int64_t x = ceil_of(j->width, 1 << s), y = ceil_of(j->height, v->rows >> s);
        if (x * y >= best)
            continue;
        best = x * y;
        j->box_shift = s;
        j->boxes_x = (int)x;
        j->boxes_y = (int)y;
    }
}

static bool fill_job(conv_job *j, const conv_args *a, const variant *v, bool boxes) {
    const encoders *f = find_encoders();
    *j = conv_job();
    j->height = (int)(a->height / a->stride);
    j->width = (int)(a->width / a->stride);
    j->plane = j->height * j->width;
    j->pixels = (int)(a->frames_out * j->plane);
    if (boxes)
        choose_boxes(j, v);
    int64_t tiles = boxes ? a->frames_out * j->boxes_x * j->boxes_y : ceil_of(j->pixels, v->rows);
    j->clusters = (int)ceil_of(tiles, v->cluster);
    j->n_tiles = (int)ceil_of(a->out, v->outs);
    j->taps = a->kh * a->kw;
    j->kw = a->kw;
    j->chunks = (int)ceil_of(a->in, STEP);
    j->stride = a->stride;
    j->top = a->top;
    j->left = a->left;
    j->out = (int)a->out;
    j->channels = (int)(a->out / a->split);
    j->part = (a->dst_h * a->dst_w - 1) * j->channels;
    j->frame = a->split * a->dst_h * a->dst_w * j->channels;
    j->row = (int)(a->step * a->dst_w * j->channels);
    j->col = a->step * j->channels;
    j->dst = (__half *)a->dst + (a->off_y * a->dst_w + a->off_x) * j->channels;
    j->bias = a->bias;
    j->add = a->add;
    return f && map_weight(f, &j->weight, a, v) && map_sources(f, j, a, v);
}

static bool is_aligned(const void *p, uintptr_t to) {
    return (uintptr_t)p % to == 0;
}

/* What the kernels take. */
static bool fits(const cuda_device *d, const conv_args *a) {
    int64_t pixels = a->frames_out * a->height * a->width;
    return d->sm == 90 && a->in % 8 == 0 && a->out % a->split == 0 && a->split <= 2 &&
           a->kt <= MAX_TAPS && a->stride <= 2 && a->height >= a->stride && a->width >= a->stride &&
           (a->time_stride == 1 || (a->time_stride == 2 && a->held <= 1)) && pixels > 0 &&
           pixels < INT32_MAX - 1024 && a->top < 128 && a->left < 128 && is_aligned(a->x, 16) &&
           is_aligned(a->past, 16) && is_aligned(a->weight, 16) && is_aligned(a->dst, 16) &&
           is_aligned(a->bias, 8);
}

static bool variant_fits(const variant *v, const conv_args *a) {
    bool wide = a->out / a->split % 8 == 0;
    return (wide || v->outs <= 64) && (v->outs != 16 || a->out <= 16);
}

/* All tiles cost the same, so the time is that of the rounds that the multiprocessors need, each
 * as long as its tile is large: what is lost is outputs past the last, and idle blocks at the end.
 */
static const variant *choose(const cuda_device *d, const conv_args *a) {
    const variant *best = NULL;
    double least = 0;
    int64_t pixels = a->frames_out * (a->height / a->stride) * (a->width / a->stride);
    for (const variant *v = variants; v < variants + VARIANTS; v++) {
        if (!variant_fits(v, a))
            continue;
        int64_t tiles = ceil_of(ceil_of(pixels, v->rows), v->cluster) * ceil_of(a->out, v->outs);
        int64_t rounds = ceil_of(tiles, d->multiprocessors / v->cluster);
        double time = (double)rounds * v->rows * v->outs / v->speed;
        if (!best || time < least) {
            best = v;
            least = time;
        }
    }
    return best;
}

/* False: no tensor map could be made. */
static bool launch(const cuda_device *d, const conv_args *a, const variant *v, bool boxes,
                   cudaError_t *e) {
    conv_job j;
    if (!fill_job(&j, a, v, boxes))
        return false;
    *e = cudaFuncSetAttribute((const void *)v->kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              v->shared);
    if (*e != cudaSuccess)
        return true;
    int64_t tiles = (int64_t)j.clusters * j.n_tiles, room = d->multiprocessors / v->cluster;
    cudaLaunchAttribute cluster;
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {(unsigned)v->cluster, 1, 1};
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)((tiles < room ? tiles : room) * v->cluster));
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = (size_t)v->shared;
    config.stream = d->stream;
    config.attrs = &cluster;
    config.numAttrs = 1;
    void *args[] = {&j};
    *e = cudaLaunchKernelExC(&config, (const void *)v->kernel, args);
    return true;
}

extern "C" bool wan_cuda_conv_sm90(const cuda_device *d, const conv_args *a, cudaError_t *e) {
    return fits(d, a) && launch(d, a, choose(d, a), false, e);
}
