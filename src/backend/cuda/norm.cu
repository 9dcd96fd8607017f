/* SPDX-License-Identifier: Apache-2.0 */
/* Norms of rows, bound by memory: a row is read once, kept in registers, and written once.
 *
 * A block of 128 threads takes a row, each thread CHUNKS times 8 numbers: 3072 is 3 chunks, 5120 is
 * 5, and the rows that a multiprocessor then holds at once (10 to 16) keep more than enough loads
 * in flight.  Gains and modulations come from L1, where they stay.  The mean is taken off before
 * squares are summed, and then put right by what is left of it, so that a large mean costs no
 * accuracy. */
#include "backend/cuda/vector.cuh"

enum { NORM_THREADS = 128, MOST_CHUNKS = 5 };

/* What happens to a row: (x - mean) * scale * (plus + gain) + shift. */
typedef struct norm_job {
    int64_t rows;
    int dim;
    frame_rows gain, shift;
    float plus, eps;
    bool centre; /* or the mean counts as 0 */
} norm_job;

/* Sums of a and b over the block; `shared` has room for all warps and is used once. */
DEVICE float2 block_sum(float a, float b, float2 *shared) {
    a = warp_sum(a);
    b = warp_sum(b);
    if (threadIdx.x % WARP == 0)
        shared[threadIdx.x / WARP] = make_float2(a, b);
    __syncthreads();
    float2 sum = make_float2(0, 0);
    for (int i = 0; i < blockDim.x / WARP; i++) {
        sum.x += shared[i].x;
        sum.y += shared[i].y;
    }
    return sum;
}

typedef struct moments {
    float mean, scale;
} moments;

/* Of sums over x - mean and its square. */
DEVICE moments moments_of(const norm_job &j, float mean, float2 sum) {
    float n = (float)j.dim, off = j.centre ? sum.x / n : 0;
    float variance = fmaxf(sum.y / n - off * off, 0.0f);
    if (sum.y != sum.y)
        variance = sum.y; /* fmaxf drops NaN */
    return {mean + off, 1 / sqrtf(variance + j.eps)};
}

template <class Y>
DEVICE void norm_chunk(Y *to, const float (&x)[WIDE], const norm_job &j, moments m,
                       const float *gain, const float *shift) {
    float g[WIDE], s[WIDE] = {}, y[WIDE];
    load_wide(g, gain);
    if (shift)
        load_wide(s, shift);
#pragma unroll
    for (int i = 0; i < WIDE; i++)
        y[i] = (x[i] - m.mean) * m.scale * (j.plus + g[i]) + s[i];
    store_wide(to, y);
}

template <int THREADS, int CHUNKS, class T>
DEVICE moments read_row(float (&v)[CHUNKS][WIDE], const T *from, const norm_job &j,
                        float2 (*shared)[THREADS / WARP]) {
    float sum = 0, mean = 0, off = 0, squares = 0;
#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
        int at = (k * THREADS + threadIdx.x) * WIDE;
        if (at < j.dim)
            load_wide(v[k], from + at);
        else
            load_some(v[k], from, 0);
    }
    if (j.centre) {
#pragma unroll
        for (int k = 0; k < CHUNKS; k++)
#pragma unroll
            for (int i = 0; i < WIDE; i++)
                sum += v[k][i];
        mean = block_sum(sum, 0, shared[0]).x / (float)j.dim;
    }
#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
        if ((k * THREADS + threadIdx.x) * WIDE >= j.dim)
            break;
#pragma unroll
        for (int i = 0; i < WIDE; i++) {
            float x = v[k][i] - mean;
            off += x;
            squares += x * x;
        }
    }
    return moments_of(j, mean, block_sum(off, squares, shared[1]));
}

template <class Y, class X, int THREADS, int CHUNKS>
static __global__ void __launch_bounds__(THREADS, 1)
    norm_rows(Y *__restrict__ dst, const X *__restrict__ x, const norm_job j) {
    __shared__ float2 shared[2][THREADS / WARP];
    float v[CHUNKS][WIDE];
    uint32_t row = blockIdx.x;
    moments m = read_row<THREADS>(v, x + (int64_t)row * j.dim, j, shared);
    const float *gain = frame_row(j.gain, row);
    const float *shift = j.shift.rows ? frame_row(j.shift, row) : NULL;
    dst += (int64_t)row * j.dim;
#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
        int at = (k * THREADS + threadIdx.x) * WIDE;
        if (at < j.dim)
            norm_chunk(dst + at, v[k], j, m, gain + at, shift ? shift + at : NULL);
    }
}

/* Any length and alignment: reads the row again for each sum. */
template <class T>
DEVICE moments moments_any(const T *x, const norm_job &j, float2 (*shared)[NORM_THREADS / WARP]) {
    float sum = 0, mean = 0, off = 0, squares = 0;
    if (j.centre) {
        for (int i = threadIdx.x; i < j.dim; i += blockDim.x)
            sum += to_float(x[i]);
        mean = block_sum(sum, 0, shared[0]).x / (float)j.dim;
    }
    for (int i = threadIdx.x; i < j.dim; i += blockDim.x) {
        float v = to_float(x[i]) - mean;
        off += v;
        squares += v * v;
    }
    return moments_of(j, mean, block_sum(off, squares, shared[1]));
}

template <class Y, class X>
static __global__ void __launch_bounds__(NORM_THREADS)
    norm_any(Y *__restrict__ dst, const X *__restrict__ x, const norm_job j) {
    __shared__ float2 shared[2][NORM_THREADS / WARP];
    uint32_t row = blockIdx.x;
    const X *from = x + (int64_t)row * j.dim;
    moments m = moments_any(from, j, shared);
    const float *gain = frame_row(j.gain, row);
    const float *shift = j.shift.rows ? frame_row(j.shift, row) : NULL;
    dst += (int64_t)row * j.dim;
    for (int i = threadIdx.x; i < j.dim; i += blockDim.x)
        from_float(dst + i, (to_float(from[i]) - m.mean) * m.scale * (j.plus + gain[i]) +
                                (shift ? shift[i] : 0));
}

template <int CHUNKS, class Y, class X>
static void launch_rows(Y *dst, const X *x, const norm_job &j, cudaStream_t stream) {
    norm_rows<Y, X, NORM_THREADS, CHUNKS><<<(unsigned)j.rows, NORM_THREADS, 0, stream>>>(dst, x, j);
}

static void run_norm(compute *c, tensor dst, tensor x, const norm_job &j, const char *what) {
    cudaStream_t stream = wan_cuda_device(c)->stream;
    bool wide =
        wide_rows(x, j.dim) && wide_rows(dst, j.dim) && wide_rows(j.gain) && wide_rows(j.shift);
    int64_t chunks = wide ? ceil_div(j.dim, NORM_THREADS * WIDE) : 0;
    if (j.rows == 0 || j.dim == 0)
        return;
    with_token_types(dst, x, [&](auto *to, auto *from) {
        switch (chunks) {
        case 1:
            launch_rows<1>(to, from, j, stream);
            break;
        case 2:
            launch_rows<2>(to, from, j, stream);
            break;
        case 3:
            launch_rows<3>(to, from, j, stream);
            break;
        case 4:
            launch_rows<4>(to, from, j, stream);
            break;
        case MOST_CHUNKS:
            launch_rows<MOST_CHUNKS>(to, from, j, stream);
            break;
        default:
            norm_any<<<(unsigned)j.rows, NORM_THREADS, 0, stream>>>(to, from, j);
        }
    });
    wan_cuda_launched(c, what);
}

void wan_cuda_layer_norm(compute *c, tensor dst, tensor x, tensor gain, tensor bias, float eps) {
    norm_job j = {x.dim[0], (int)x.dim[1], one_row(gain), one_row(bias), 0, eps, true};
    run_norm(c, dst, x, j, "layer_norm");
}

void wan_cuda_norm_modulate(compute *c, tensor dst, tensor x, by_frame shift, by_frame scale,
                            float eps) {
    norm_job j = {x.dim[0], (int)x.dim[1], rows_of(scale), rows_of(shift), 1, eps, true};
    run_norm(c, dst, x, j, "norm_modulate");
}

void wan_cuda_rms_norm(compute *c, tensor dst, tensor x, tensor gain, float eps) {
    norm_job j = {x.dim[0], (int)x.dim[1], one_row(gain), {}, 0, eps, false};
    run_norm(c, dst, x, j, "rms_norm");
}

/* ----------------------------------------------------------------------------- norm and rotation
 */

typedef struct rotation {
    int head; /* numbers of a head; 0: nothing turns */
    int pairs[3];
    uint32_t rows, cols; /* of the grid */
    const float2 *table[3];
} rotation;

/* Cosine and sine of pair p of every head of a token. */
DEVICE float2 turn_of(const rotation &r, uint32_t token, int p) {
    uint32_t at[3] = {token / r.cols / r.rows, token / r.cols % r.rows, token % r.cols};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (p < r.pairs[i])
            return r.table[i][(int64_t)at[i] * r.pairs[i] + p];
        p -= r.pairs[i];
    }
    return r.table[2][(int64_t)at[2] * r.pairs[2] + p];
}

DEVICE void turn_pair(float &a, float &b, float cosine, float sine) {
    float x = a * cosine - b * sine;
    b = b * cosine + a * sine;
    a = x;
}

/* The turns of a token, the same for all heads, wait in shared memory: head / 2 pairs. */
template <class T, int THREADS, int CHUNKS>
static __global__ void __launch_bounds__(THREADS)
    qk_norm_rope_rows(T *x, const norm_job j, const rotation r) {
    extern __shared__ float4 turns[];
    __shared__ float2 shared[2][THREADS / WARP];
    float v[CHUNKS][WIDE], g[WIDE];
    uint32_t row = blockIdx.x;
    x += (int64_t)row * j.dim;
    for (int p = threadIdx.x; p < r.head / 2; p += THREADS)
        reinterpret_cast<float2 *>(turns)[p] = turn_of(r, row, p);
    moments m = read_row<THREADS>(v, x, j, shared); /* has a barrier */
#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
        int at = (k * THREADS + threadIdx.x) * WIDE;
        if (at >= j.dim)
            continue;
        load_wide(g, j.gain.rows + at);
#pragma unroll
        for (int i = 0; i < WIDE; i++)
            v[k][i] = v[k][i] * m.scale * g[i];
        for (int i = 0; i < WIDE / 4 && r.head; i++) {
            float4 t = turns[at % r.head / 4 + i];
            turn_pair(v[k][4 * i], v[k][4 * i + 1], t.x, t.y);
            turn_pair(v[k][4 * i + 2], v[k][4 * i + 3], t.z, t.w);
        }
        store_wide(x + at, v[k]);
    }
}

template <class T>
static __global__ void __launch_bounds__(NORM_THREADS)
    qk_norm_rope_any(T *x, const norm_job j, const rotation r) {
    __shared__ float2 shared[2][NORM_THREADS / WARP];
    uint32_t row = blockIdx.x;
    x += (int64_t)row * j.dim;
    moments m = moments_any(x, j, shared);
    int step = r.head ? 2 : 1;
    for (int i = threadIdx.x * step; i < j.dim; i += blockDim.x * step) {
        float a = to_float(x[i]) * m.scale * j.gain.rows[i];
        if (r.head) {
            float b = to_float(x[i + 1]) * m.scale * j.gain.rows[i + 1];
            float2 t = turn_of(r, row, i % r.head / 2);
            turn_pair(a, b, t.x, t.y);
            from_float(x + i + 1, b);
        }
        from_float(x + i, a);
    }
}

static rotation rotation_of(const rope *r, int64_t head) {
    rotation t = {};
    if (!r)
        return t;
    t.head = (int)head;
    t.rows = (uint32_t)r->grid[1];
    t.cols = (uint32_t)r->grid[2];
    for (int i = 0; i < 3; i++) {
        t.pairs[i] = (int)r->pairs[i];
        t.table[i] = (const float2 *)r->table[i].data;
    }
    return t;
}

template <int CHUNKS, class T>
static void launch_qk(T *x, const norm_job &j, const rotation &r, cudaStream_t stream) {
    qk_norm_rope_rows<T, NORM_THREADS, CHUNKS>
        <<<(unsigned)j.rows, NORM_THREADS, r.head * sizeof(float), stream>>>(x, j, r);
}

void wan_cuda_qk_norm_rope(compute *c, tensor x, tensor gain, float eps, int heads, const rope *r) {
    cudaStream_t stream = wan_cuda_device(c)->stream;
    norm_job j = {x.dim[0], (int)x.dim[1], one_row(gain), {}, 0, eps, false};
    rotation t = rotation_of(r, x.dim[1] / heads);
    bool wide = wide_rows(x, j.dim) && wide_rows(j.gain) && t.head % WIDE == 0 && t.head <= 8192;
    int64_t chunks = wide ? ceil_div(j.dim, NORM_THREADS * WIDE) : 0;
    if (j.rows == 0 || j.dim == 0)
        return;
    with_token_type(x, [&](auto *p) {
        switch (chunks) {
        case 1:
            launch_qk<1>(p, j, t, stream);
            break;
        case 2:
            launch_qk<2>(p, j, t, stream);
            break;
        case 3:
            launch_qk<3>(p, j, t, stream);
            break;
        case 4:
            launch_qk<4>(p, j, t, stream);
            break;
        case MOST_CHUNKS:
            launch_qk<MOST_CHUNKS>(p, j, t, stream);
            break;
        default:
            qk_norm_rope_any<<<(unsigned)j.rows, NORM_THREADS, 0, stream>>>(p, j, t);
        }
    });
    wan_cuda_launched(c, "qk_norm_rope");
}
