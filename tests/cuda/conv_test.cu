/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions by the kernels of any shape, through the ops, against one thread per number that
 * goes through the taps in double. */
#include <cuda_fp16.h>

#include <cuda_fp16.h>

#include "check.cuh"

static compute c;
static bool small;

/* conv_sm90.cu is not linked: all goes to the kernels under test. */
extern "C" bool wan_cuda_conv_sm90(const cuda_device *, const conv_args *, cudaError_t *) {
    return false;
}

/* What an op means, in the words of conv_ops.h rather than of conv_args. */
struct meaning {
    const void *x, *past, *w, *bias;
    int64_t T, H, W, in, out, frames, oh, ow, channels; /* channels of dst */
    int kt, kh, kw, before, held, time_stride, step;    /* step 2: stride 2 */
    dtype type;                                         /* of x and past */
    bool twice;                                         /* the image is doubled */
};

static __device__ double number(const void *p, int64_t i, dtype type) {
    if (type == WAN_F32)
        return ((const float *)p)[i];
    uint16_t h = ((const uint16_t *)p)[i];
    return type == WAN_BF16 ? __uint_as_float((uint32_t)h << 16)
                            : __half2float(__ushort_as_half(h));
}

/* w is packed [tap][out][in], f32. */
static __global__ void naive(double *dst, meaning m) {
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x, n = i;
    if (i >= m.frames * m.oh * m.ow * m.out)
        return;
    int64_t o = n % m.out, x = n / m.out % m.ow, y = n / m.out / m.ow % m.oh,
            t = n / m.out / m.ow / m.oh;
    double sum = m.bias ? ((const float *)m.bias)[o] : 0;
    for (int a = 0; a < m.kt; a++)
        for (int b = 0; b < m.kh; b++)
            for (int e = 0; e < m.kw; e++) {
                int64_t f = t * m.time_stride + a - m.before, row, col;
                if (m.step == 2)
                    row = 2 * y + b, col = 2 * x + e;
                else
                    row = y + b - m.kh / 2, col = x + e - m.kw / 2;
                int64_t H = m.twice ? 2 * m.H : m.H, W = m.twice ? 2 * m.W : m.W;
                if (row < 0 || row >= H || col < 0 || col >= W)
                    continue;
                if (m.twice)
                    row /= 2, col /= 2;
                const void *from = m.x;
                if (f < 0) {
                    if (!m.past || f < -m.held)
                        continue;
                    from = m.past;
                    f += m.before;
                }
                const float *w =
                    (const float *)m.w + (((a * m.kh + b) * m.kw + e) * m.out + o) * m.in;
                for (int64_t k = 0; k < m.in; k++)
                    sum += number(from, ((f * m.H + row) * m.W + col) * m.in + k, m.type) * w[k];
            }
    /* channel o of frame t is channel o % C of frame t * (out / C) + o / C */
    int64_t split = m.out / m.channels;
    dst[(((t * split + o / m.channels) * m.oh + y) * m.ow + x) * m.channels + o % m.channels] = sum;
}

static std::vector<double> run_naive(const meaning &m) {
    int64_t n = m.frames * m.oh * m.ow * m.out;
    double *d;
    std::vector<double> want((size_t)n);
    CUDA(cudaMalloc(&d, (size_t)n * 8));
    naive<<<(unsigned)((n + 127) / 128), 128>>>(d, m);
    CUDA(cudaGetLastError());
    CUDA(cudaMemcpy(want.data(), d, (size_t)n * 8, cudaMemcpyDeviceToHost));
    CUDA(cudaFree(d));
    return want;
}

struct conv_case {
    dtype type;
    int64_t T, H, W, in, out;
    int kt, kh, kw;
    int before, held; /* before < 0: no history */
    int time_stride, split;
    resample r;
    bool flat; /* conv2d */
    bool bias, add;
};

static array *packed(const conv_case &k, dtype type) {
    array *w = new array(type, (int64_t)k.kt * k.kh * k.kw * k.out * k.in);
    return &w->fill(1 / sqrtf((float)(k.kt * k.kh * k.kw * k.in)));
}

static void check(const conv_case &k) {
    bool past_there = k.before >= 0;
    int before = k.flat ? 0 : past_there ? k.before : k.kt - 1;
    int64_t frames = k.flat ? k.T : (before + k.T - k.kt) / k.time_stride + 1;
    int64_t oh = k.r == WAN_UP2 ? 2 * k.H : k.r == WAN_DOWN2 ? k.H / 2 : k.H;
    int64_t ow = k.r == WAN_UP2 ? 2 * k.W : k.r == WAN_DOWN2 ? k.W / 2 : k.W;
    int64_t channels = k.out / k.split;
    array x(k.type, k.T * k.H * k.W * k.in), bias(WAN_F32, k.out), wide(WAN_F32, 1);
    array past(k.type, (past_there ? before : 1) * k.H * k.W * k.in);
    array dst(k.type, frames * oh * ow * k.out);
    array *w = packed(k, k.type), w32(WAN_F32, w->n);
    x.fill(), bias.fill(0.3f), past.fill();
    w32.v = w->v;
    w32.send();
    if (k.add)
        dst.fill();
    meaning m = {x.at,
                 past_there ? past.at : NULL,
                 w32.at,
                 k.bias ? bias.at : NULL,
                 k.T,
                 k.H,
                 k.W,
                 k.in,
                 k.out,
                 frames,
                 oh,
                 ow,
                 channels,
                 k.kt,
                 k.kh,
                 k.kw,
                 before,
                 k.held,
                 k.time_stride,
                 k.r == WAN_DOWN2 ? 2 : 1,
                 k.type,
                 k.r == WAN_UP2};
    std::vector<double> want = run_naive(m);
    for (size_t i = 0; i < want.size() && k.add; i++)
        want[i] += dst.v[i];
    c.precision = k.type == WAN_F32 ? WAN_PRECISION_F32 : WAN_PRECISION_BF16;
    conv w_op = {};
    w_op.weight =
        k.flat ? w->as({k.out, k.in, k.kh, k.kw}) : w->as({k.out, k.in, k.kt, k.kh, k.kw});
    if (k.bias)
        w_op.bias = bias.as({k.out});
    tensor to = dst.as({frames * k.split, oh, ow, channels}), from = x.as({k.T, k.H, k.W, k.in});
    size_t space = wan_cuda_conv_workspace(&c, to, from, &w_op, k.r);
    CUDA(cudaMalloc(&c.workspace, space + 256));
    CUDA(cudaMemset(c.workspace, 0xff, space + 256));
    history h = {};
    if (past_there) {
        h.frames = past.as({before, k.H, k.W, k.in});
        h.held = k.held;
    }
    if (k.flat)
        wan_cuda_conv2d(&c, to, from, &w_op, k.r, k.add);
    else
        wan_cuda_conv3d(&c, to, from, &w_op, past_there ? &h : NULL, k.time_stride, k.add);
    /* bf16, f16: the result's rounding, and of summed weights in phases */
    double most =
        k.type == WAN_F32 ? 3e-6 : (k.r == WAN_UP2 ? 5e-3 : 3e-3) / (k.type == WAN_F16 ? 8 : 1);
    expect(text("conv%s %s %lldx%lldx%lld %lld->%lld k%d%d%d before %d held %d stride %d split %d "
                "r%d%s%s",
                k.flat ? "2d" : "3d", name_of(k.type), (long long)k.T, (long long)k.H,
                (long long)k.W, (long long)k.in, (long long)k.out, k.kt, k.kh, k.kw, k.before,
                k.held, k.time_stride, k.split, k.r, k.bias ? " bias" : "", k.add ? " add" : ""),
           dst, want, most);
    CUDA(cudaFree(c.workspace));
    c.workspace = NULL;
    delete w;
}

static void checks() {
    static const int64_t channels[][2] = {{12, 160}, {48, 48},  {48, 130}, {160, 160}, {256, 12},
                                          {1, 1},    {3, 5},    {7, 129},  {40, 17},   {8, 64},
                                          {36, 65},  {96, 256}, {20, 16}};
    for (dtype t : {WAN_F16, WAN_BF16, WAN_F32}) {
        for (auto ch : channels) {
            bool some = ch[0] % 3;
            check({t, 2, 7, 9, ch[0], ch[1], 3, 3, 3, -1, 0, 1, 1, WAN_SAME, false, true, false});
            check({t, 3, 5, 11, ch[0], ch[1], 3, 3, 3, 2, 1, 1, 1, WAN_SAME, false, some, true});
            check({t, 2, 6, 7, ch[0], ch[1], 1, 1, 1, -1, 0, 1, 1, WAN_SAME, false, true, false});
            check({t, 2, 6, 7, ch[0], ch[1], 1, 1, 1, -1, 0, 1, 1, WAN_SAME, true, some, true});
            check({t, 2, 6, 7, ch[0], ch[1], 1, 3, 3, -1, 0, 1, 1, WAN_SAME, true, true, false});
            check({t, 2, 6, 7, ch[0], ch[1], 1, 3, 3, -1, 0, 1, 1, WAN_UP2, true, true, some});
            check({t, 2, 6, 8, ch[0], ch[1], 1, 3, 3, -1, 0, 1, 1, WAN_DOWN2, true, true, !some});
            check({t, 2, 7, 5, ch[0], ch[1], 1, 3, 3, -1, 0, 1, 1, WAN_DOWN2, true, false, false});
        }
        for (int held = 0; held <= 2; held++) {
            check({t, 4, 6, 5, 64, 128, 3, 1, 1, 2, held, 1, 2, WAN_SAME, false, true, false});
            check({t, 4, 6, 5, 10, 20, 3, 1, 1, 2, held, 1, 2, WAN_SAME, false, true, false});
            check({t, 1, 6, 5, 32, 32, 3, 3, 3, 2, held, 1, 1, WAN_SAME, false, true, false});
        }
        check({t, 4, 6, 5, 64, 64, 3, 1, 1, 1, 1, 2, 1, WAN_SAME, false, true, true});
        check({t, 4, 6, 5, 6, 6, 3, 1, 1, 1, 0, 2, 1, WAN_SAME, false, true, true});
        check({t, 1, 1, 1, 16, 16, 3, 3, 3, -1, 0, 1, 1, WAN_SAME, false, true, false});
        check({t, 1, 1, 300, 16, 24, 3, 3, 3, -1, 0, 1, 1, WAN_SAME, false, true, false});
        check({t, 1, 300, 1, 16, 24, 1, 3, 3, -1, 0, 1, 1, WAN_UP2, true, true, false});
        if (!small)
            check({t, 3, 22, 40, 512, 256, 3, 3, 3, 2, 2, 1, 1, WAN_SAME, false, true, true});
    }
}

static void bench_case(const char *what, const conv_case &k, int times) {
    int64_t frames = k.T, oh = k.r == WAN_UP2 ? 2 * k.H : k.r == WAN_DOWN2 ? k.H / 2 : k.H;
    int64_t ow = k.r == WAN_UP2 ? 2 * k.W : k.r == WAN_DOWN2 ? k.W / 2 : k.W;
    bool half = k.type != WAN_F32;
    size_t size = half ? 2 : 4, taps = (size_t)k.kt * k.kh * k.kw;
    char *x = random_memory((size_t)(k.T * k.H * k.W * k.in) * size, half);
    char *past = random_memory((size_t)(2 * k.H * k.W * k.in) * size, half);
    char *y = random_memory((size_t)(frames * oh * ow * k.out) * size, half);
    char *w = random_memory(taps * (size_t)(k.out * k.in) * size, half);
    auto view = [&](char *p, std::vector<int64_t> dim) {
        tensor t = {};
        t.type = k.type;
        t.rank = (int)dim.size();
        for (int i = 0; i < t.rank; i++)
            t.dim[i] = dim[i];
        t.data = p;
        return t;
    };
    conv op = {};
    op.weight =
        k.flat ? view(w, {k.out, k.in, k.kh, k.kw}) : view(w, {k.out, k.in, k.kt, k.kh, k.kw});
    tensor from = view(x, {k.T, k.H, k.W, k.in}), to = view(y, {frames, oh, ow, k.out});
    history h = {view(past, {2, k.H, k.W, k.in}), 2};
    c.precision = half ? WAN_PRECISION_BF16 : WAN_PRECISION_F32;
    CUDA(cudaMalloc(&c.workspace, wan_cuda_conv_workspace(&c, to, from, &op, k.r) + 256));
    double ms = time_of(
        [&](int) {
            if (k.flat)
                wan_cuda_conv2d(&c, to, from, &op, k.r, k.add);
            else
                wan_cuda_conv3d(&c, to, from, &op, k.kt == 3 ? &h : NULL, 1, k.add);
        },
        times);
    double flops = 2.0 * (k.r == WAN_UP2 ? 4 : taps) * frames * oh * ow * k.in * k.out;
    printf("BENCH %-34s %s %9.3f ms %7.1f TFLOP/s\n", what, name_of(k.type), ms, flops / ms * 1e-9);
    for (char *p : {x, past, y, w})
        CUDA(cudaFree(p));
    CUDA(cudaFree(c.workspace));
    c.workspace = NULL;
}

static void bench() {
    for (dtype t : {WAN_F16, WAN_BF16, WAN_F32}) {
        int f = t == WAN_F32 ? 1 : 4, n = t == WAN_F32 ? 5 : 20;
        bench_case("1024->1024 3x3x3 44x80",
                   {t, 4, 44, 80, 1024, 1024, 3, 3, 3, 2, 2, 1, 1, WAN_SAME, false, false, true},
                   n);
        bench_case("256->256 3x3x3 352x640",
                   {t, f, 352, 640, 256, 256, 3, 3, 3, 2, 2, 1, 1, WAN_SAME, false, false, true},
                   n);
        bench_case("256->12 3x3x3 352x640",
                   {t, f, 352, 640, 256, 12, 3, 3, 3, 2, 2, 1, 1, WAN_SAME, false, false, false},
                   n);
        bench_case("12->160 3x3x3 352x640",
                   {t, f, 352, 640, 12, 160, 3, 3, 3, 2, 2, 1, 1, WAN_SAME, false, false, false},
                   n);
        bench_case("48->1024 3x3x3 44x80",
                   {t, 4, 44, 80, 48, 1024, 3, 3, 3, 2, 2, 1, 1, WAN_SAME, false, false, false}, n);
        bench_case("512->512 up2 176x320",
                   {t, f, 176, 320, 512, 512, 1, 3, 3, 2, 2, 1, 1, WAN_UP2, true, false, true}, n);
        bench_case("1024->512 1x1 176x320",
                   {t, f, 176, 320, 1024, 512, 1, 1, 1, 2, 2, 1, 1, WAN_SAME, false, false, false},
                   n);
    }
}

int main(int n, char **arg) {
    small = n > 1 && !strcmp(arg[1], "--small");
    c = open_compute(WAN_PRECISION_BF16);
    checks();
    if (n > 1 && !strcmp(arg[1], "--bench") && !failures)
        bench();
    return finish();
}
