/* SPDX-License-Identifier: Apache-2.0 */
/* Ops that touch each number once: bound by memory.  A thread moves 8 numbers, two 16-byte
 * transfers of f32 or one of bf16, so that full multiprocessors have more loads in flight than the
 * memory needs; what is not aligned goes one number at a time.  Where columns matter a block is a
 * stretch of a row, and the vectors that all rows share come from L1. */
#include "backend/cuda/vector.cuh"

enum { FLAT_THREADS = 256, ROW_THREADS = 384 /* 3072 / 8 */ };

/* What becomes of x; `with` is the other operand. */
struct sum_op {
    __device__ float operator()(float x, float with) const { return x + with; }
};
struct product_op {
    __device__ float operator()(float x, float with) const { return x * with; }
};

/* --------------------------------------------------------------------------- number by number */

/* x = f(x, y); n numbers, 8 a thread where both are aligned. */
template <bool ALIGNED, class X, class Y, class F>
static __global__ void __launch_bounds__(FLAT_THREADS)
    combine_flat(X *__restrict__ x, const Y *__restrict__ y, int64_t n, F f) {
    int64_t at = ((int64_t)blockIdx.x * FLAT_THREADS + threadIdx.x) * WIDE;
    float a[WIDE], b[WIDE];
    if (at >= n)
        return;
    int some = (int)(n - at < WIDE ? n - at : WIDE);
    if (ALIGNED && some == WIDE) {
        load_wide(a, x + at);
        load_wide(b, y + at);
    } else {
        load_some(a, x + at, some);
        load_some(b, y + at, some);
    }
#pragma unroll
    for (int i = 0; i < WIDE; i++)
        a[i] = f(a[i], b[i]);
    if (ALIGNED && some == WIDE)
        store_wide(x + at, a);
    else
        store_some(x + at, a, some);
}

static unsigned flat_blocks(int64_t n) {
    return (unsigned)ceil_div(n, FLAT_THREADS * WIDE);
}

template <class F> static void combine(compute *c, tensor x, tensor y, F f, const char *what) {
    cudaStream_t stream = wan_cuda_device(c)->stream;
    int64_t n = wan_elements(x);
    bool aligned = aligned_16(x.data) && aligned_16(y.data);
    if (n == 0)
        return;
    with_types(x, y, [&](auto *to, auto *from) {
        if (aligned)
            combine_flat<true><<<flat_blocks(n), FLAT_THREADS, 0, stream>>>(to, from, n, f);
        else
            combine_flat<false><<<flat_blocks(n), FLAT_THREADS, 0, stream>>>(to, from, n, f);
    });
    wan_cuda_launched(c, what);
}

void wan_cuda_add(compute *c, tensor x, tensor y) {
    combine(c, x, y, sum_op(), "add");
}

void wan_cuda_mul(compute *c, tensor x, tensor y) {
    combine(c, x, y, product_op(), "mul");
}

template <class Y> DEVICE float activated(float x, activation act) {
    return act == WAN_SILU ? silu<Y>(x) : act == WAN_GELU_TANH ? gelu_tanh<Y>(x) : x;
}

template <bool ALIGNED, class Y, class X>
static __global__ void __launch_bounds__(FLAT_THREADS)
    activate_flat(Y *__restrict__ dst, const X *__restrict__ x, int64_t n, activation act) {
    int64_t at = ((int64_t)blockIdx.x * FLAT_THREADS + threadIdx.x) * WIDE;
    float v[WIDE];
    if (at >= n)
        return;
    int some = (int)(n - at < WIDE ? n - at : WIDE);
    if (ALIGNED && some == WIDE)
        load_wide(v, x + at);
    else
        load_some(v, x + at, some);
#pragma unroll
    for (int i = 0; i < WIDE; i++)
        v[i] = activated<Y>(v[i], act);
    if (ALIGNED && some == WIDE)
        store_wide(dst + at, v);
    else
        store_some(dst + at, v, some);
}

void wan_cuda_activate(compute *c, tensor dst, tensor x, activation act) {
    cudaStream_t stream = wan_cuda_device(c)->stream;
    int64_t n = wan_elements(x);
    bool aligned = aligned_16(x.data) && aligned_16(dst.data);
    if (n == 0)
        return;
    with_types(dst, x, [&](auto *to, auto *from) {
        if (aligned)
            activate_flat<true><<<flat_blocks(n), FLAT_THREADS, 0, stream>>>(to, from, n, act);
        else
            activate_flat<false><<<flat_blocks(n), FLAT_THREADS, 0, stream>>>(to, from, n, act);
    });
    wan_cuda_launched(c, "activate");
}

/* ---------------------------------------------------------------------------------- row by row */

/* One stretch of a row; x may be dst.  GATED: dst = x + y * v, else dst = x + v (y is not read). */
template <int STEP, bool GATED, class D, class X, class Y>
static __global__ void __launch_bounds__(ROW_THREADS)
    add_rows(D *dst, const X *x, const Y *y, frame_rows v, int dim) {
    int at = (blockIdx.y * ROW_THREADS + threadIdx.x) * STEP;
    int64_t row = blockIdx.x, from = row * dim + at;
    float a[WIDE], b[WIDE], g[WIDE];
    if (at >= dim)
        return;
    if (STEP == WIDE) {
        load_wide(a, x + from);
        if (GATED)
            load_wide(b, y + from);
        load_wide(g, frame_row(v, (uint32_t)row) + at);
    } else {
        load_some(a, x + from, 1);
        if (GATED)
            load_some(b, y + from, 1);
        load_some(g, frame_row(v, (uint32_t)row) + at, 1);
    }
#pragma unroll
    for (int i = 0; i < STEP; i++)
        a[i] = GATED ? a[i] + b[i] * g[i] : a[i] + g[i];
    if (STEP == WIDE)
        store_wide(dst + from, a);
    else
        store_some(dst + from, a, 1);
}

template <int STEP> static dim3 row_blocks(int64_t rows, int64_t dim) {
    return dim3((unsigned)rows, (unsigned)ceil_div(dim, ROW_THREADS * STEP));
}

void wan_cuda_add_gated(compute *c, tensor x, tensor y, by_frame gate) {
    cudaStream_t stream = wan_cuda_device(c)->stream;
    frame_rows g = rows_of(gate);
    int64_t rows = x.dim[0], dim = x.dim[1];
    bool wide = wide_rows(x, dim) && wide_rows(y, dim) && wide_rows(g);
    if (rows * dim == 0)
        return;
    with_types(x, y, [&](auto *to, auto *from) {
        if (wide)
            add_rows<WIDE, true><<<row_blocks<WIDE>(rows, dim), ROW_THREADS, 0, stream>>>(
                to, to, from, g, (int)dim);
        else
            add_rows<1, true>
                <<<row_blocks<1>(rows, dim), ROW_THREADS, 0, stream>>>(to, to, from, g, (int)dim);
    });
    wan_cuda_launched(c, "add_gated");
}

void wan_cuda_add_vector(compute *c, tensor dst, tensor x, tensor v) {
    cudaStream_t stream = wan_cuda_device(c)->stream;
    frame_rows g = one_row(v);
    int64_t rows = x.dim[0], dim = x.dim[1];
    bool wide = wide_rows(x, dim) && wide_rows(dst, dim) && wide_rows(g);
    if (rows * dim == 0)
        return;
    with_types(dst, x, [&](auto *to, auto *from) {
        if (wide)
            add_rows<WIDE, false><<<row_blocks<WIDE>(rows, dim), ROW_THREADS, 0, stream>>>(
                to, from, from, g, (int)dim);
        else
            add_rows<1, false>
                <<<row_blocks<1>(rows, dim), ROW_THREADS, 0, stream>>>(to, from, from, g, (int)dim);
    });
    wan_cuda_launched(c, "add_vector");
}

/* ------------------------------------------------------------------------------------- patches */

/* How latents [C, F, h, w] and tokens correspond: a token is a patch of `cells` latent pixels. */
typedef struct patches {
    int64_t channels, plane; /* plane: numbers of one channel */
    int patch[3], size[3], grid[3];
    int cells;
    int64_t numbers;
} patches;

static patches patches_of(tensor latents, const int64_t patch[3]) {
    patches p = {};
    p.channels = latents.dim[0];
    p.plane = 1;
    p.cells = 1;
    for (int i = 0; i < 3; i++) {
        p.patch[i] = (int)patch[i];
        p.size[i] = (int)latents.dim[i + 1];
        p.grid[i] = p.size[i] / p.patch[i];
        p.plane *= p.size[i];
        p.cells *= p.patch[i];
    }
    p.numbers = p.channels * p.plane;
    return p;
}

/* Where cell `cell` of a token lies in a channel's plane. */
DEVICE int64_t patch_element(const patches &p, uint32_t token, int cell) {
    int column = token % p.grid[2] * p.patch[2] + cell % p.patch[2];
    int row = token / p.grid[2] % p.grid[1] * p.patch[1] + cell / p.patch[2] % p.patch[1];
    int frame = token / p.grid[2] / p.grid[1] * p.patch[0] + cell / p.patch[2] / p.patch[1];
    return ((int64_t)frame * p.size[1] + row) * p.size[2] + column;
}

/* Number i of the tokens; the channel is the slower index within a token if `in`, else the faster.
 */
DEVICE int64_t latent_of(const patches &p, int64_t i, bool in) {
    int width = (int)p.channels * p.cells, rest = (int)(i % width);
    uint32_t token = (uint32_t)(i / width);
    int channel = in ? rest / p.cells : rest % (int)p.channels;
    int cell = in ? rest % p.cells : rest / (int)p.channels;
    return channel * p.plane + patch_element(p, token, cell);
}

template <class T>
static __global__ void __launch_bounds__(FLAT_THREADS)
    latents_to_tokens(T *tokens, const float *latents, const patches p) {
    int64_t i = (int64_t)blockIdx.x * FLAT_THREADS + threadIdx.x;
    if (i < p.numbers)
        from_float(tokens + i, latents[latent_of(p, i, true)]);
}

template <class T>
static __global__ void __launch_bounds__(FLAT_THREADS)
    tokens_to_latents(float *latents, const T *tokens, const patches p) {
    int64_t i = (int64_t)blockIdx.x * FLAT_THREADS + threadIdx.x;
    if (i < p.numbers)
        latents[latent_of(p, i, false)] = to_float(tokens[i]);
}

void wan_cuda_patchify(compute *c, tensor dst, tensor x, const int64_t patch[3]) {
    cudaStream_t stream = wan_cuda_device(c)->stream;
    patches p = patches_of(x, patch);
    unsigned blocks = (unsigned)ceil_div(p.numbers, FLAT_THREADS);
    if (p.numbers == 0)
        return;
    with_type(dst, [&](auto *to) {
        latents_to_tokens<<<blocks, FLAT_THREADS, 0, stream>>>(to, (const float *)x.data, p);
    });
    wan_cuda_launched(c, "patchify");
}

void wan_cuda_unpatchify(compute *c, tensor dst, tensor x, const int64_t patch[3]) {
    cudaStream_t stream = wan_cuda_device(c)->stream;
    patches p = patches_of(dst, patch);
    unsigned blocks = (unsigned)ceil_div(p.numbers, FLAT_THREADS);
    if (p.numbers == 0)
        return;
    with_type(x, [&](auto *from) {
        tokens_to_latents<<<blocks, FLAT_THREADS, 0, stream>>>((float *)dst.data, from, p);
    });
    wan_cuda_launched(c, "unpatchify");
}
