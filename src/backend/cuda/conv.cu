/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions as ops see them, told to the kernels as conv_args.
 * Doubling the image before a 3x3 kernel is four 2x2 kernels, one for each parity of row and column
 * (vae.md 1): their weights, sums of one, two or four of the stored ones, are made in the work
 * space by each call, which costs a few percent of the smallest. */
#include "backend/cuda/gather.cuh"

enum { THREADS = 256, PHASES = 4, PHASE_TAPS = 4 };

/* Of a doubled image's 3 taps, those that meet the same pixel: tap p of parity `odd` sums taps
 * [from, from + count). */
DEVICE void taps_of(int odd, int p, int &from, int &count) {
    from = p == 0 ? 0 : odd ? 2 : 1;
    count = p == odd ? 1 : 2;
}

/* dst [phase][2 x 2 taps][out, in] from [3 x 3 taps][out, in]; a thread takes one (out, in). */
template <class T>
static __global__ void __launch_bounds__(THREADS)
    sum_phases(T *__restrict__ dst, const T *__restrict__ weight, int64_t pairs) {
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    float w[9];
    if (i >= pairs)
        return;
#pragma unroll
    for (int t = 0; t < 9; t++)
        w[t] = to_float(weight[t * pairs + i]);
#pragma unroll
    for (int k = 0; k < PHASES * PHASE_TAPS; k++) {
        int phase = k / PHASE_TAPS, y, x, down, across;
        float sum = 0;
        taps_of(phase / 2, k % PHASE_TAPS / 2, y, down);
        taps_of(phase % 2, k % 2, x, across);
#pragma unroll
        for (int a = 0; a < 2; a++)
#pragma unroll
            for (int b = 0; b < 2; b++)
                if (a < down && b < across)
                    sum += w[(y + a) * 3 + x + b];
        from_float(dst + k * pairs + i, sum);
    }
}

static size_t number_bytes(const compute *c) {
    return c->precision == WAN_PRECISION_F32 ? sizeof(float) : sizeof(f16);
}

size_t wan_cuda_conv_workspace(const compute *c, tensor dst, tensor x, const conv *w, resample r) {
    (void)dst;
    (void)x;
    if (r != WAN_UP2)
        return 0;
    return PHASES * PHASE_TAPS * (size_t)(w->weight.dim[0] * w->weight.dim[1]) * number_bytes(c);
}

/* What all convolutions have in common; false where the tensors' types do not fit together. */
static bool begin(compute *c, conv_args *a, tensor dst, tensor x, const conv *w, bool add,
                  const float *gain = NULL) {
    bool codes = w->code > 0 && x.type == WAN_F8_E4M3;
    if (dst.type != (codes && !gain ? WAN_F16 : x.type) || x.type != w->weight.type) {
        wan_fail(&c->err, WAN_E_TYPE, "cuda: no convolution of %s by %s into %s",
                 wan_dtype(x.type)->name, wan_dtype(w->weight.type)->name,
                 wan_dtype(dst.type)->name);
        return false;
    }
    *a = {};
    a->x = x.data;
    a->bias = w->bias.data ? (const float *)wan_cuda_weight(c, w->bias) : NULL;
    a->weight = wan_cuda_weight(c, w->weight);
    if (codes) {
        a->scale = (const float *)((const char *)a->weight + wan_bytes(w->weight));
        a->unit = 1 / w->code;
    }
    a->dst = dst.data;
    a->frames_in = x.dim[0];
    a->height = x.dim[1];
    a->width = x.dim[2];
    a->in = x.dim[3];
    a->out = w->weight.dim[0];
    a->kt = 1;
    a->kh = (int)w->weight.dim[w->weight.rank - 2];
    a->kw = (int)w->weight.dim[w->weight.rank - 1];
    a->time_stride = a->stride = a->step = a->split = 1;
    a->dst_h = dst.dim[1];
    a->dst_w = dst.dim[2];
    a->add = add;
    a->type = x.type;
    a->gain = gain;
    return !c->err.code;
}

cudaError_t wan_cuda_conv_any(const cuda_device *d, const conv_args *a) {
    if (a->frames_in > MOST_PLACES || a->height > MOST_PLACES || a->width > MOST_PLACES)
        return cudaErrorInvalidValue;
    if (a->type == WAN_F8_E4M3 || a->gain) /* only for Hopper, and for shapes that it takes */
        return cudaErrorNotSupported;
    return a->type == WAN_F32 ? wan_cuda_conv_f32(d, a) : wan_cuda_conv_half(d, a);
}

static void run(compute *c, const conv_args *a) {
    const cuda_device *d = wan_cuda_device(c);
    cudaError_t e = cudaSuccess;
    if (a->frames_out * a->dst_h * a->dst_w == 0)
        return;
    if (!wan_cuda_conv_sm90(d, a, &e))
        e = wan_cuda_conv_any(d, a);
    wan_cuda_ok(c, e, "convolution");
}

static void over_time(compute *c, conv_args *a, tensor dst, const conv *w, const history *past,
                      int time_stride) {
    a->kt = (int)w->weight.dim[2];
    a->before = a->kt - 1;
    if (past) {
        a->past = past->frames.data;
        a->before = (int)past->frames.dim[0];
        a->held = (int)past->held;
    }
    a->time_stride = time_stride;
    a->frames_out = (a->before + a->frames_in - a->kt) / time_stride + 1;
    a->top = a->kh / 2;
    a->left = a->kw / 2;
    a->split = (int)(a->out / dst.dim[3]);
    run(c, a);
}

void wan_cuda_conv3d(compute *c, tensor dst, tensor x, const conv *w, const history *past,
                     int time_stride, bool add) {
    conv_args a;
    if (begin(c, &a, dst, x, w, add))
        over_time(c, &a, dst, w, past, time_stride);
}

void wan_cuda_conv3d_norm(compute *c, tensor dst, tensor x, const conv *w, const history *past,
                          tensor gain, float code) {
    conv_args a;
    if (!begin(c, &a, dst, x, w, false, (const float *)gain.data))
        return;
    a.code = code;
    over_time(c, &a, dst, w, past, 1);
}

static void run_phases(compute *c, conv_args *a) {
    cudaStream_t stream = wan_cuda_device(c)->stream;
    int64_t pairs = a->out * a->in;
    unsigned blocks = (unsigned)ceil_div(pairs, THREADS);
    size_t each = PHASE_TAPS * (size_t)pairs * (size_t)wan_dtype(a->type)->bytes;
    char *sums = (char *)wan_cuda_workspace(c);
    if (a->type == WAN_F16)
        sum_phases<<<blocks, THREADS, 0, stream>>>((f16 *)sums, (const f16 *)a->weight, pairs);
    else if (a->type == WAN_BF16)
        sum_phases<<<blocks, THREADS, 0, stream>>>((bf16 *)sums, (const bf16 *)a->weight, pairs);
    else
        sum_phases<<<blocks, THREADS, 0, stream>>>((float *)sums, (const float *)a->weight, pairs);
    if (!wan_cuda_launched(c, "sum_phases"))
        return;
    a->kh = a->kw = a->step = 2;
    for (int phase = 0; phase < PHASES && !c->err.code; phase++) {
        a->weight = sums + phase * each;
        a->off_y = phase / 2;
        a->off_x = phase % 2;
        a->top = 1 - a->off_y; /* rows above first, or this one first */
        a->left = 1 - a->off_x;
        run(c, a);
    }
}

void wan_cuda_conv2d(compute *c, tensor dst, tensor x, const conv *w, resample r, bool add) {
    conv_args a;
    if (!begin(c, &a, dst, x, w, add))
        return;
    a.frames_out = a.frames_in;
    if (r == WAN_UP2) {
        run_phases(c, &a);
        return;
    }
    a.stride = r == WAN_DOWN2 ? 2 : 1;
    a.top = r == WAN_DOWN2 ? 0 : a.kh / 2;
    a.left = r == WAN_DOWN2 ? 0 : a.kw / 2;
    run(c, &a);
}
