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

typedef f16 number; /* of dst */

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

static __device__ float value(const void *p, int64_t i, dtype type) {
    if (type == WAN_F16)
        return to_float(((const f16 *)p)[i]);
    __half_raw h = __nv_cvt_fp8_to_halfraw(((const uint8_t *)p)[i], __NV_E4M3);
    return __half2float(__half(h));
}

static int64_t size_of(dtype type) {
    return type == WAN_F16 ? 2 : 1;
}

static void *number_at(void *p, int64_t i, dtype type) {
    return (char *)p + i * size_of(type);
}

/* Of a draw: zeros, the smallest, and large values (f16 only: codes have no room above). */
enum fill_kind { PLAIN, NASTY, ONE_SIGN };

/* Uniform in [-scale, scale], or from 0 on. */
static __global__ void fill(void *p, dtype type, int64_t n, uint32_t seed, float scale,
                            fill_kind how) {
    for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < n; i += gridDim.x * 256ll) {
        uint32_t h = hash((uint32_t)i * 2654435761u ^ hash(seed + (uint32_t)(i >> 32)));
        float v = ((float)(h >> 8) / 8388608.f - 1.f) * scale;
        uint32_t kind = hash(h) % 512;
        if (how == NASTY && kind < 40)
            v = kind < 32 ? 0.f : kind < 36 ? type == WAN_F16 ? 1e-6f : 0.002f : v;
        if (how == NASTY && kind >= 36 && kind < 40 && type == WAN_F16)
            v *= 50.f;
        v = how == ONE_SIGN ? fabsf(v) : v;
        if (type == WAN_F16)
            from_float((f16 *)p + i, v);
        else
            from_float((f8 *)p + i, v);
    }
}

static __global__ void fill_f32(float *p, int64_t n, uint32_t seed, float scale, float from) {
    for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < n; i += gridDim.x * 256ll)
        p[i] = ((float)(hash((uint32_t)i ^ hash(seed)) >> 8) / 8388608.f - 1.f) * scale + from;
}

/* The formula of conv_args, one thread an output.  What it does not write stays as it is. */
static __global__ void reference(conv_args a, const number *before_add, float *ref, int64_t oh,
                                 int64_t ow) {
    int64_t all = a.frames_out * oh * ow * a.out, parts = a.out / a.split;
    for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < all; i += gridDim.x * 256ll) {
        int64_t o = i % a.out, x = i / a.out % ow, y = i / a.out / ow % oh, t = i / a.out / ow / oh;
        float sum = 0;
        for (int k = 0; k < a.kt * a.kh * a.kw; k++) {
            int64_t f = t * a.time_stride + k / (a.kh * a.kw) - a.before;
            int64_t sy = y * a.stride + k / a.kw % a.kh - a.top,
                    sx = x * a.stride + k % a.kw - a.left;
            if (sy < 0 || sy >= a.height || sx < 0 || sx >= a.width || f < -a.held ||
                f >= a.frames_in || (f < 0 && !a.past))
                continue;
            int64_t v = (((f < 0 ? f + a.before : f) * a.height + sy) * a.width + sx) * a.in;
            int64_t w = (k * a.out + o) * a.in;
            for (int64_t c = 0; c < a.in; c++)
                sum += value(f < 0 ? a.past : a.x, v + c, a.type) * value(a.weight, w + c, a.type);
        }
        sum = (a.scale ? sum * (a.scale[o] * a.unit) : sum) + (a.bias ? a.bias[o] : 0.f);
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

/* `code` times SiLU of the norm of each pixel. */
static __global__ void norm_reference(conv_args a, float *ref) {
    for (int64_t i = blockIdx.x; i < a.frames_out * a.dst_h * a.dst_w; i += gridDim.x) {
        float *y = ref + i * a.out, squares = 0;
        for (int64_t o = 0; o < a.out; o++)
            squares += y[o] * y[o];
        float scale = sqrtf((float)a.out) / fmaxf(sqrtf(squares), 1e-12f);
        for (int64_t o = 0; o < a.out; o++) {
            float v = y[o] * scale * a.gain[o];
            y[o] = v / (1 + expf(-v)) * a.code;
        }
    }
}

typedef struct verdict {
    double error, norm;
    unsigned long long wrong, touched, written;
    unsigned long long first_wrong;
} verdict;

/* ref of all ones bits: nobody may write there.  A NaN has to be one. */
static __global__ void compare(const void *out, const void *was, const float *ref, dtype type,
                               int64_t n, float slack, verdict *v) {
    int size = type == WAN_F16 ? 2 : 1;
    float part = type == WAN_F16 ? 1.f / 200 : 1.f / 15;
    for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < n; i += gridDim.x * 256ll) {
        if (__float_as_uint(ref[i]) == 0xffffffffu) {
            for (int64_t k = i * size; k < (i + 1) * size; k++)
                if (((const uint8_t *)out)[k] != ((const uint8_t *)was)[k])
                    atomicAdd(&v->touched, 1ull);
            continue;
        }
        double got = value(out, i, type), d = got - ref[i];
        atomicAdd(&v->written, 1ull);
        if (isnan(ref[i]) && isnan(got))
            continue;
        atomicAdd(&v->error, d * d);
        atomicAdd(&v->norm, (double)ref[i] * ref[i]);
        if (!(fabs(d) <= fabs(ref[i]) * part + slack)) {
            atomicAdd(&v->wrong, 1ull);
            atomicMin(&v->first_wrong, (unsigned long long)i);
        }
    }
}

#include "conv_sm90_shapes.cuh"

/* --------------------------------------------------------------------------------------- cases */

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
    void *x, *past, *weight;
    void *dst, *was;
    dtype result; /* of dst */
    float *bias, *scale, *ref;
    verdict *v;
    int64_t n; /* of dst, guards included */
} buffers;

static const char *name_of(dtype type) {
    return type == WAN_F16 ? "f16" : "f8 ";
}

/* `asked` false: only told. */
static void judge(const char *name, const buffers &b, const variant *v, bool asked = true) {
    verdict r;
    CHECK(cudaMemcpy(&r, b.v, sizeof r, cudaMemcpyDeviceToHost));
    double error = sqrt(r.error / (r.norm > 0 ? r.norm : 1));
    bool ok = error < (b.result == WAN_F16 ? 4e-3 : 3e-2) && !r.wrong && !r.touched && r.written &&
              r.norm > 0;
    printf("%s %-22s %s %3dx%-3d rel_err=%.2e",
           !asked ? "INFO"
           : ok   ? "OK  "
                  : "FAIL",
           name, name_of(v->type), v->rows, v->outs, error);
    if (!ok && asked)
        printf(" wrong=%llu of %llu, first at %lld, touched=%llu", r.wrong, r.written,
               (long long)r.first_wrong - GUARD, r.touched);
    printf("\n");
    if (asked)
        ok ? passed++ : failed++;
}

/* Sums of codes are cut at about 13 bits, 108 times each: errors that add up like a random walk. */
static void compare_now(const buffers &b, dtype type, float scale = 1) {
    float slack = type == WAN_F16 ? 4e-3f : b.result == WAN_F16 ? 21e-3f : 0.1f;
    CHECK(cudaMemset(b.v, 0, sizeof(verdict)));
    CHECK(cudaMemset(&b.v->first_wrong, 0xff, sizeof b.v->first_wrong));
    compare<<<512, 256>>>(b.dst, b.was, b.ref, b.result, b.n, slack * scale, b.v);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
}

/* `scale` of x; where it is above 1, a NaN is among them. */
static buffers prepare(const shape &s, conv_args *a, uint32_t seed, float scale = 1) {
    buffers b;
    int64_t frame = a->height * a->width * a->in, nx = frame * a->frames_in;
    int64_t np = frame * a->before, nw = a->out * a->in * a->kt * a->kh * a->kw;
    b.n = a->frames_out * a->dst_h * a->dst_w * a->out + 2 * GUARD;
    dtype type = a->type;
    /* Codes: pixels of a length of 448 at most, weights as large as codes go. */
    float most_x = type == WAN_F16 ? 1 : 448 / sqrtf((float)a->in),
          w = sqrtf((float)(a->in * a->kh));
    CHECK(cudaMalloc(&b.x, (nx + 2 * GUARD) * size_of(type)));
    CHECK(cudaMalloc(&b.past, (np + 2 * GUARD) * size_of(type)));
    CHECK(cudaMalloc(&b.weight, nw * size_of(type)));
    CHECK(cudaMalloc(&b.dst, b.n * 2));
    CHECK(cudaMalloc(&b.was, b.n * 2));
    CHECK(cudaMalloc(&b.ref, b.n * 4));
    CHECK(cudaMalloc(&b.bias, (a->out + 2) * 4));
    CHECK(cudaMalloc(&b.scale, (a->out + 256) * 4));
    b.result = s.norm ? type : WAN_F16;
    CHECK(cudaMalloc(&b.v, sizeof *b.v));
    /* NaN wherever nobody should read. */
    CHECK(cudaMemset(b.x, 0xff, (nx + 2 * GUARD) * size_of(type)));
    CHECK(cudaMemset(b.past, 0xff, (np + 2 * GUARD) * size_of(type)));
    a->x = number_at(b.x, GUARD, type);
    fill<<<512, 256>>>((void *)a->x, type, nx, seed + 1, type == WAN_F16 ? scale : most_x,
                       s.one_sign   ? ONE_SIGN
                       : scale == 1 ? NASTY
                                    : PLAIN);
    if (scale > 1)
        CHECK(cudaMemset((void *)number_at(b.x, GUARD + nx / 2, type), 0xff, size_of(type)));
    if (s.held)
        fill<<<512, 256>>>(number_at(b.past, GUARD + (a->before - s.held) * frame, type), type,
                           s.held * frame, seed + 2, most_x, s.one_sign ? ONE_SIGN : NASTY);
    fill<<<512, 256>>>(b.weight, type, nw, seed + 3, type == WAN_F16 ? 1 / w : 448,
                       s.one_sign ? ONE_SIGN : PLAIN);
    fill_f32<<<16, 256>>>(b.scale, a->out, seed + 6, 0.5f, 1.f);
    a->unit = scale / (most_x * 448 * w * (s.one_sign ? 27 : 1));
    a->scale = type == WAN_F16 ? NULL : b.scale;
    fill_f32<<<16, 256>>>(b.bias, a->out, seed + 4, 1.f, 0.f);
    CHECK(cudaMemset(b.was, 0xff, b.n * 2));
    if (a->add)
        fill<<<512, 256>>>(b.was, WAN_F16, b.n, seed + 5, 2.f, PLAIN);
    CHECK(cudaMemset(b.ref, 0xff, b.n * 4));
    a->past = s.no_past || !a->before ? NULL : number_at(b.past, GUARD, type);
    a->weight = b.weight;
    a->bias = s.no_bias ? NULL : b.bias;
    a->dst = number_at(b.dst, GUARD, b.result);
    a->gain = s.norm ? b.scale : NULL;
    a->code = type == WAN_F16 ? 1 : 8;
    reference<<<2048, 256>>>(*a, (number *)b.was + GUARD, b.ref + GUARD, a->height / a->stride,
                             a->width / a->stride);
    CHECK(cudaGetLastError());
    if (s.norm)
        norm_reference<<<256, 1>>>(*a, b.ref + GUARD);
    CHECK(cudaGetLastError());
    return b;
}

static void discard(const buffers &b) {
    void *all[] = {b.x, b.past, b.weight, b.dst, b.was, b.ref, b.bias, b.scale, b.v};
    for (void *p : all)
        CHECK(cudaFree(p));
}

static void check_with(const cuda_device *d, const char *name, const buffers &b, const conv_args *a,
                       const variant *v, float scale, bool asked) {
    CHECK(cudaMemcpy(b.dst, b.was, b.n * 2, cudaMemcpyDeviceToDevice));
    run(d, a, v);
    CHECK(cudaStreamSynchronize(d->stream));
    compare_now(b, a->type, scale);
    judge(name, b, v, asked);
}

/* What putting sums aside is good for. */
struct whole : tile<f8, 1, 256, 2, 4, 4> {
    static const bool PARTS = false;
};
static const variant in_one_piece = variant_of<whole>(1, 1);

static void check_shape(const cuda_device *d, const shape &s, uint32_t seed, float scale = 1) {
    for (dtype type : {WAN_F16, WAN_F8_E4M3}) {
        conv_args a = args_of(s, type);
        if (type == WAN_F8_E4M3 && (a.in % 16 || a.out % 8))
            continue;
        buffers b = prepare(s, &a, seed, scale);
        for (const variant *v = variants; v < variants + VARIANTS; v++)
            if (variant_fits(v, &a))
                check_with(d, s.name, b, &a, v, scale, type == WAN_F16 || !s.one_sign);
        if (type == WAN_F8_E4M3 && a.in >= 512)
            check_with(d, "the same in one piece", b, &a, &in_one_piece, scale, false);
        discard(b);
    }
}

/* The launcher itself, in a graph. */
static void check_graph(const cuda_device *d, uint32_t seed) {
    shape s = cube("graph", 2, 30, 30, 128, 256, 3, 3, 2, true);
    conv_args a = args_of(s, WAN_F16);
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
    compare_now(b, a.type);
    judge(s.name, b, choose(d, &a));
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroy(graph));
    discard(b);
}

/* What is not for this kernel is refused, not got wrong. */
static void check_refusals(const cuda_device *d) {
    conv_args good = args_of(cube("", 2, 8, 8, 64, 64, 3, 3, 0, false), WAN_F16), a;
    static const float scale[64] = {};
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
    good.type = WAN_F8_E4M3;
    a = good, wrong += wan_cuda_conv_sm90(d, &a, &e); /* no scales */
    good.scale = scale;
    a = good, a.in = 24, wrong += wan_cuda_conv_sm90(d, &a, &e);
    a = good, a.in = 2048, wrong += wan_cuda_conv_sm90(d, &a, &e);
    a = good, a.out = 12, wrong += wan_cuda_conv_sm90(d, &a, &e);
    good.type = WAN_F16;
    a = good, a.gain = scale, wrong += wan_cuda_conv_sm90(d, &a, &e); /* not 256 outputs */
    a = good, a.before = 3, wrong += wan_cuda_conv_sm90(d, &a, &e);
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
        more.push_back(cube("3x3x3 in 512", 2, 20, 20, 512, 256, 3, 3, 2, true));
        more.push_back(cube("3x3x3 in 1024", 2, 20, 20, 1024, 256, 3, 3, 2, false));
        shape positive = cube("one sign, in 1024", 2, 12, 12, 1024, 256, 3, 3, 2, false);
        positive.one_sign = true;
        more.push_back(positive);
        for (shape normed : {cube("norm", 3, 13, 17, 256, 256, 3, 3, 2, false),
                             cube("norm, one frame", 1, 30, 30, 64, 256, 3, 3, 0, false),
                             cube("norm, in 512", 5, 9, 40, 512, 256, 3, 3, 1, false)}) {
            normed.norm = true;
            more.push_back(normed);
        }
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
