/* SPDX-License-Identifier: Apache-2.0 */
/* conv_sm90_test - checks every variant of the Hopper convolution against a plain kernel in f32,
 * and times them on the layers of the Wan2.2 decoder.  Alone: the CUDA runtime and one source file.
 *
 *   conv_sm90_test [--small] [--bench] [--seed N]
 *
 * --small: tiny shapes, for compute-sanitizer.  Ends with "N passed, N failed". */
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "backend/cuda/conv_sm90.cu"

typedef f16 number;

static void check_cuda(cudaError_t e, const char *what, int line) {
    if (e == cudaSuccess)
        return;
    printf("FAIL line %d: %s: %s\n", line, what, cudaGetErrorString(e));
    printf("0 passed, 1 failed\n");
    exit(1);
}
#define CHECK(x) check_cuda(x, #x, __LINE__)

/* ------------------------------------------------------------------------------------- devices */

static __device__ uint32_t hash(uint32_t x) {
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ x >> 16;
}

/* Uniform in [-scale, scale]; if nasty, some zeros, denormals and large values among them. */
static __global__ void fill(number *p, int64_t n, uint32_t seed, float scale, bool nasty) {
    for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < n; i += gridDim.x * 256ll) {
        uint32_t h = hash((uint32_t)i * 2654435761u ^ hash(seed + (uint32_t)(i >> 32)));
        float v = ((float)(h >> 8) / 8388608.f - 1.f) * scale;
        uint32_t kind = hash(h) % 512;
        if (nasty && kind < 40)
            v = kind < 32 ? 0.f : kind < 36 ? 1e-6f : v * 50.f;
        from_float(p + i, v);
    }
}

static __global__ void fill_f32(float *p, int64_t n, uint32_t seed, float scale) {
    for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < n; i += gridDim.x * 256ll)
        p[i] = ((float)(hash((uint32_t)i ^ hash(seed)) >> 8) / 8388608.f - 1.f) * scale;
}

/* The formula of conv_args, one thread an output.  What it does not write stays as it is. */
static __global__ void reference(conv_args a, const number *before_add, float *ref, int64_t oh,
                                 int64_t ow) {
    int64_t all = a.frames_out * oh * ow * a.out, parts = a.out / a.split;
    for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < all; i += gridDim.x * 256ll) {
        int64_t o = i % a.out, x = i / a.out % ow, y = i / a.out / ow % oh, t = i / a.out / ow / oh;
        float sum = a.bias ? a.bias[o] : 0.f;
        for (int k = 0; k < a.kt * a.kh * a.kw; k++) {
            int64_t f = t * a.time_stride + k / (a.kh * a.kw) - a.before;
            int64_t sy = y * a.stride + k / a.kw % a.kh - a.top,
                    sx = x * a.stride + k % a.kw - a.left;
            if (sy < 0 || sy >= a.height || sx < 0 || sx >= a.width || f < -a.held ||
                f >= a.frames_in || (f < 0 && !a.past))
                continue;
            const number *frames = (const number *)(f < 0 ? a.past : a.x);
            const number *v =
                frames + (((f < 0 ? f + a.before : f) * a.height + sy) * a.width + sx) * a.in;
            const number *w = (const number *)a.weight + (k * a.out + o) * a.in;
            for (int64_t c = 0; c < a.in; c++)
                sum += to_float(v[c]) * to_float(w[c]);
        }
        int64_t at = (((t * a.split + o / parts) * a.dst_h + y * a.step + a.off_y) * a.dst_w +
                      x * a.step + a.off_x) *
                         parts +
                     o % parts;
        sum += a.add ? to_float(before_add[at]) : 0.f;
        if (!isnan(sum))
            sum = fminf(fmaxf(sum, -65504.f), 65504.f);
        ref[at] = sum;
    }
}

typedef struct verdict {
    double error, norm;
    unsigned long long wrong, touched, written;
    unsigned long long first_wrong;
} verdict;

/* ref of all ones bits: nobody may write there.  A NaN has to be one. */
static __global__ void compare(const number *out, const number *was, const float *ref, int64_t n,
                               float slack, verdict *v) {
    for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < n; i += gridDim.x * 256ll) {
        if (__float_as_uint(ref[i]) == 0xffffffffu) {
            if (__half_as_ushort(out[i]) != __half_as_ushort(was[i]))
                atomicAdd(&v->touched, 1ull);
            continue;
        }
        double got = to_float(out[i]), d = got - ref[i];
        atomicAdd(&v->written, 1ull);
        if (isnan(ref[i]) && isnan(got))
            continue;
        atomicAdd(&v->error, d * d);
        atomicAdd(&v->norm, (double)ref[i] * ref[i]);
        if (!(fabs(d) <= fabs(ref[i]) / 200 + slack)) {
            atomicAdd(&v->wrong, 1ull);
            atomicMin(&v->first_wrong, (unsigned long long)i);
        }
    }
}

/* --------------------------------------------------------------------------------------- cases */

typedef struct shape {
    const char *name;
    int64_t frames, height, width, in, out;
    int kt, kh, kw;
    int held;
    bool add;
    int time_stride, stride, split, phase; /* phase 0-3 of a doubled image, -1: none */
    bool no_past, no_bias;
} shape;

static shape cube(const char *name, int64_t t, int64_t h, int64_t w, int64_t in, int64_t out,
                  int kt, int k, int held, bool add) {
    return shape{name, t, h, w, in, out, kt, k, k, held, add, 1, 1, 1, -1, false, false};
}

static shape phase(const char *name, int64_t t, int64_t h, int64_t w, int64_t in, int64_t out,
                   int which, bool add) {
    shape s = cube(name, t, h, w, in, out, 1, 2, 0, add);
    s.phase = which;
    return s;
}

static shape time_up(const char *name, int64_t t, int64_t h, int64_t w, int64_t in, int64_t out,
                     int held) {
    shape s = cube(name, t, h, w, in, out, 3, 1, held, false);
    s.split = 2;
    return s;
}

static shape down(const char *name, int64_t t, int64_t h, int64_t w, int64_t in, int64_t out) {
    shape s = cube(name, t, h, w, in, out, 1, 3, 0, false);
    s.stride = 2;
    return s;
}

static shape time_down(const char *name, int64_t t, int64_t h, int64_t w, int64_t in, int64_t out,
                       int held, bool add) {
    shape s = cube(name, t, h, w, in, out, 3, 1, held, add);
    s.time_stride = 2;
    return s;
}

static conv_args args_of(const shape &s) {
    conv_args a = conv_args();
    a.frames_in = s.frames;
    a.height = s.height;
    a.width = s.width;
    a.in = s.in;
    a.out = s.out;
    a.kt = s.kt;
    a.kh = s.kh;
    a.kw = s.kw;
    a.before = s.kt == 1 ? 0 : s.time_stride == 2 ? 1 : 2;
    a.held = s.held;
    a.time_stride = s.time_stride;
    a.frames_out = (a.before + s.frames - s.kt) / s.time_stride + 1;
    a.stride = s.stride;
    a.top = s.stride == 2 ? 0 : s.kh / 2;
    a.left = s.stride == 2 ? 0 : s.kw / 2;
    a.step = 1;
    a.split = s.split;
    a.dst_h = s.height / s.stride;
    a.dst_w = s.width / s.stride;
    if (s.phase >= 0) {
        a.step = 2;
        a.off_y = s.phase / 2;
        a.off_x = s.phase % 2;
        a.top = 1 - a.off_y;
        a.left = 1 - a.off_x;
        a.dst_h *= 2;
        a.dst_w *= 2;
    }
    a.add = s.add;
    a.type = WAN_F16;
    return a;
}

static double flops(const conv_args &a) {
    return 2.0 * a.in * a.out * a.kt * a.kh * a.kw * a.frames_out * (a.height / a.stride) *
           (a.width / a.stride);
}

static int passed, failed;

static void run(const cuda_device *d, const conv_args *a, const variant *v) {
    cudaError_t e = cudaErrorUnknown;
    if (!launch(d, a, v, &e)) {
        printf("FAIL no tensor map\n");
        failed++;
        return;
    }
    CHECK(e);
    CHECK(cudaGetLastError());
}

/* Guarded buffers of one case. */
#define GUARD 1024
typedef struct buffers {
    number *x, *past, *weight, *dst, *was;
    float *bias, *ref;
    verdict *v;
    int64_t n; /* of dst, guards included */
} buffers;

static void judge(const char *name, const buffers &b, const variant *v) {
    verdict r;
    CHECK(cudaMemcpy(&r, b.v, sizeof r, cudaMemcpyDeviceToHost));
    double error = sqrt(r.error / (r.norm > 0 ? r.norm : 1));
    bool ok = error < 4e-3 && !r.wrong && !r.touched && r.written && r.norm > 0;
    printf("%s %-22s %3dx%-3d rel_err=%.2e", ok ? "OK  " : "FAIL", name, v->rows, v->outs, error);
    if (!ok)
        printf(" wrong=%llu of %llu, first at %lld, touched=%llu", r.wrong, r.written,
               (long long)r.first_wrong - GUARD, r.touched);
    printf("\n");
    ok ? passed++ : failed++;
}

static void compare_now(const buffers &b, float scale = 1) {
    CHECK(cudaMemset(b.v, 0, sizeof(verdict)));
    CHECK(cudaMemset(&b.v->first_wrong, 0xff, sizeof b.v->first_wrong));
    compare<<<512, 256>>>(b.dst, b.was, b.ref, b.n, 4e-3f * scale, b.v);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
}

/* `scale` of x; where it is above 1, a NaN is among them. */
static buffers prepare(const shape &s, conv_args *a, uint32_t seed, float scale = 1) {
    buffers b;
    int64_t frame = a->height * a->width * a->in, nx = frame * a->frames_in;
    int64_t np = frame * a->before, nw = a->out * a->in * a->kt * a->kh * a->kw;
    b.n = a->frames_out * a->dst_h * a->dst_w * a->out + 2 * GUARD;
    CHECK(cudaMalloc(&b.x, (nx + 2 * GUARD) * 2));
    CHECK(cudaMalloc(&b.past, (np + 2 * GUARD) * 2));
    CHECK(cudaMalloc(&b.weight, nw * 2));
    CHECK(cudaMalloc(&b.dst, b.n * 2));
    CHECK(cudaMalloc(&b.was, b.n * 2));
    CHECK(cudaMalloc(&b.ref, b.n * 4));
    CHECK(cudaMalloc(&b.bias, (a->out + 2) * 4));
    CHECK(cudaMalloc(&b.v, sizeof *b.v));
    /* NaN wherever nobody should read. */
    CHECK(cudaMemset(b.x, 0xff, (nx + 2 * GUARD) * 2));
    CHECK(cudaMemset(b.past, 0xff, (np + 2 * GUARD) * 2));
    fill<<<512, 256>>>(b.x + GUARD, nx, seed + 1, scale, scale == 1);
    if (scale > 1)
        CHECK(cudaMemset(b.x + GUARD + nx / 2, 0xff, 2));
    if (s.held)
        fill<<<512, 256>>>(b.past + GUARD + (a->before - s.held) * frame, s.held * frame, seed + 2,
                           1.f, true);
    fill<<<512, 256>>>(b.weight, nw, seed + 3, 1.f / sqrtf((float)(a->in * a->kh)), false);
    fill_f32<<<16, 256>>>(b.bias, a->out, seed + 4, 1.f);
    CHECK(cudaMemset(b.was, 0xff, b.n * 2));
    if (a->add)
        fill<<<512, 256>>>(b.was, b.n, seed + 5, 2.f, false);
    CHECK(cudaMemset(b.ref, 0xff, b.n * 4));
    a->x = b.x + GUARD;
    a->past = s.no_past || !a->before ? NULL : b.past + GUARD;
    a->weight = b.weight;
    a->bias = s.no_bias ? NULL : b.bias;
    a->dst = b.dst + GUARD;
    reference<<<2048, 256>>>(*a, b.was + GUARD, b.ref + GUARD, a->height / a->stride,
                             a->width / a->stride);
    CHECK(cudaGetLastError());
    return b;
}

static void discard(const buffers &b) {
    void *all[] = {b.x, b.past, b.weight, b.dst, b.was, b.ref, b.bias, b.v};
    for (void *p : all)
        CHECK(cudaFree(p));
}

static void check_shape(const cuda_device *d, const shape &s, uint32_t seed, float scale = 1) {
    conv_args a = args_of(s);
    buffers b = prepare(s, &a, seed, scale);
    for (const variant *v = variants; v < variants + VARIANTS; v++) {
        if (!variant_fits(v, &a))
            continue;
        CHECK(cudaMemcpy(b.dst, b.was, b.n * 2, cudaMemcpyDeviceToDevice));
        run(d, &a, v);
        CHECK(cudaStreamSynchronize(d->stream));
        compare_now(b, scale);
        judge(s.name, b, v);
    }
    discard(b);
}

/* The launcher itself, in a graph. */
static void check_graph(const cuda_device *d, uint32_t seed) {
    shape s = cube("graph", 2, 30, 30, 128, 256, 3, 3, 2, true);
    conv_args a = args_of(s);
    buffers b = prepare(s, &a, seed);
    CHECK(cudaMemcpy(b.dst, b.was, b.n * 2, cudaMemcpyDeviceToDevice));
    CHECK(cudaDeviceSynchronize());
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaError_t e = cudaErrorUnknown;
    CHECK(cudaStreamBeginCapture(d->stream, cudaStreamCaptureModeThreadLocal));
    bool taken = wan_cuda_conv_sm90(d, &a, &e);
    CHECK(cudaStreamEndCapture(d->stream, &graph));
    CHECK(taken ? e : cudaErrorNotSupported);
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    CHECK(cudaGraphLaunch(exec, d->stream));
    CHECK(cudaStreamSynchronize(d->stream));
    compare_now(b);
    judge(s.name, b, choose(d, &a));
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroy(graph));
    discard(b);
}

/* What is not for this kernel is refused, not got wrong. */
static void check_refusals(const cuda_device *d) {
    conv_args good = args_of(cube("", 2, 8, 8, 64, 64, 3, 3, 0, false)), a;
    static char some[64];
    good.x = good.weight = good.dst = (void *)((uintptr_t)some & ~(uintptr_t)15);
    int wrong = 0;
    cudaError_t e;
    a = good, a.in = 12, wrong += wan_cuda_conv_sm90(d, &a, &e);
    a = good, a.time_stride = 2, a.held = 2, wrong += wan_cuda_conv_sm90(d, &a, &e);
    a = good, a.x = (const char *)a.x + 2, wrong += wan_cuda_conv_sm90(d, &a, &e);
    a = good, a.out = 20, wrong += wan_cuda_conv_sm90(d, &a, &e);
    a = good, a.split = 2, a.add = true, wrong += wan_cuda_conv_sm90(d, &a, &e);
    a = good, a.type = WAN_F32, wrong += wan_cuda_conv_sm90(d, &a, &e);
    a = good, a.kt = 5, wrong += wan_cuda_conv_sm90(d, &a, &e);
    cuda_device other = *d;
    other.sm = 80;
    wrong += wan_cuda_conv_sm90(&other, &good, &e);
    printf("%s refusals\n", wrong ? "FAIL" : "OK  ");
    wrong ? failed++ : passed++;
}

static void check_all(const cuda_device *d, bool small, uint32_t seed) {
    std::vector<shape> list = {
        cube("one pixel", 1, 1, 1, 8, 8, 1, 1, 0, false),
        cube("3x3x3 tiny", 3, 5, 7, 16, 24, 3, 3, 0, false),
        cube("3x3x3 tiny held 2", 2, 6, 9, 72, 40, 3, 3, 2, true),
        cube("head 12", 2, 9, 13, 72, 12, 3, 3, 1, false),
        cube("head 12 add", 1, 9, 13, 64, 12, 3, 3, 2, true),
        time_up("time up tiny", 3, 5, 6, 64, 32, 1),
        time_down("time down tiny", 5, 5, 6, 64, 40, 1, true),
        phase("phase 1 tiny", 2, 5, 7, 64, 32, 1, false),
        down("down tiny", 2, 8, 10, 64, 48),
    };
    if (!small) {
        std::vector<shape> more = {
            cube("3x3x3 held 0", 5, 30, 30, 128, 256, 3, 3, 0, false),
            cube("3x3x3 held 1", 5, 30, 30, 128, 256, 3, 3, 1, false),
            cube("3x3x3 held 2", 5, 30, 30, 128, 256, 3, 3, 2, true),
            cube("3x3x3 one frame", 1, 30, 30, 64, 256, 3, 3, 2, false),
            cube("3x3x3 one frame held 0", 1, 30, 30, 64, 256, 3, 3, 0, true),
            cube("small frames", 40, 3, 5, 64, 160, 3, 3, 2, false),
            cube("small frames held 1", 40, 3, 5, 64, 160, 3, 3, 1, true),
            cube("3x3x3 44x80", 2, 44, 80, 96, 160, 3, 3, 2, false),
            cube("3x3x3 out 1024", 1, 17, 23, 256, 1024, 3, 3, 2, true),
            cube("1x1x1 48 to 48", 3, 30, 30, 48, 48, 1, 1, 0, false),
            cube("3x3x3 48 to 1024", 2, 30, 30, 48, 1024, 3, 3, 2, false),
            cube("1x1x1", 2, 60, 60, 512, 256, 1, 1, 0, true),
            cube("1x3x3", 3, 31, 29, 160, 160, 1, 3, 0, false),
            cube("matrix", 1, 1, 1003, 640, 1000, 1, 1, 0, false),
            cube("head", 4, 60, 60, 256, 12, 3, 3, 2, false),
            cube("head 3 odd", 2, 31, 33, 96, 3, 3, 3, 2, false),
            cube("encoder 320", 2, 30, 30, 320, 320, 3, 3, 2, true),
            cube("encoder 640", 1, 30, 30, 160, 640, 3, 3, 1, false),
            time_up("time up held 0", 4, 30, 30, 256, 512, 0),
            time_up("time up held 1", 4, 30, 30, 256, 512, 1),
            time_up("time up held 2", 5, 29, 31, 128, 320, 2),
            time_down("time down held 0", 9, 15, 15, 160, 160, 0, true),
            time_down("time down held 1", 8, 30, 30, 160, 320, 1, true),
            phase("phase 0", 3, 30, 30, 256, 256, 0, false),
            phase("phase 1", 3, 30, 30, 256, 256, 1, true),
            phase("phase 2", 3, 30, 30, 256, 256, 2, false),
            phase("phase 3", 3, 31, 29, 256, 512, 3, true),
            down("down", 3, 60, 60, 160, 160),
            down("down 30x44", 2, 30, 44, 128, 320),
        };
        shape bare = cube("no past, no bias", 3, 20, 20, 128, 256, 3, 3, 0, false);
        bare.no_past = bare.no_bias = true;
        more.push_back(bare);
        list.insert(list.end(), more.begin(), more.end());
    }
    for (const shape &s : list)
        check_shape(d, s, seed += 16);
    check_shape(d, cube("saturating, a NaN", 2, 9, 11, 128, 64, 3, 3, 2, true), seed += 16, 4e4f);
    check_graph(d, seed + 16);
    check_refusals(d);
}

#include "conv_sm90_bench.cuh"

int main(int argc, char **argv) {
    bool small = false, timed = false;
    uint32_t seed = 1;
    for (int i = 1; i < argc; i++) {
        small |= !strcmp(argv[i], "--small");
        timed |= !strcmp(argv[i], "--bench");
        if (!strcmp(argv[i], "--seed") && i + 1 < argc)
            seed = (uint32_t)atoi(argv[++i]);
    }
    cudaDeviceProp prop;
    CHECK(cudaGetDeviceProperties(&prop, 0));
    cuda_device d = cuda_device();
    d.sm = prop.major * 10 + prop.minor;
    d.multiprocessors = prop.multiProcessorCount;
    CHECK(cudaStreamCreate(&d.stream));
    printf("%s, sm_%d, %d multiprocessors\n", prop.name, d.sm, d.multiprocessors);
    check_all(&d, small, seed * 1000);
    if (timed)
        bench(&d);
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
