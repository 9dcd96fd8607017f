/* SPDX-License-Identifier: Apache-2.0 */
/* check.cuh - for test programs of CUDA kernels that stand alone: arrays on both sides with guards
 * around them, comparison, timing, and stand-ins for what device.c provides. */
#ifndef WAN_TESTS_CUDA_CHECK_CUH
#define WAN_TESTS_CUDA_CHECK_CUH

#include <algorithm>
#include <cstdarg>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <vector>

#include "backend/cuda/cuda.h"
extern "C" {
#include "base/half.h"
}

static int failures, cases;

#define CUDA(call)                                                                                 \
    do {                                                                                           \
        cudaError_t cuda_error = (call);                                                           \
        if (cuda_error != cudaSuccess) {                                                           \
            printf("FAIL %s:%d %s: %s\n", __FILE__, __LINE__, #call,                               \
                   cudaGetErrorString(cuda_error));                                                \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* ------------------------------------------------------------------------------ stand-ins */

extern "C" bool wan_cuda_ok(compute *, cudaError_t e, const char *what) {
    if (e == cudaSuccess)
        return true;
    printf("FAIL %s: %s\n", what, cudaGetErrorString(e));
    failures++;
    return false;
}

extern "C" bool wan_cuda_launched(compute *c, const char *what) {
    return wan_cuda_ok(c, cudaGetLastError(), what);
}

extern "C" void *wan_cuda_weight(compute *, tensor w) {
    return w.data;
}

static cuda_device the_device;

static compute open_compute(precision p) {
    compute c;
    cudaDeviceProp props;
    memset(&c, 0, sizeof c);
    CUDA(cudaGetDeviceProperties(&props, 0));
    the_device.sm = 10 * props.major + props.minor;
    the_device.multiprocessors = props.multiProcessorCount;
    the_device.precision = p;
    c.precision = p;
    c.act = p == WAN_PRECISION_F32 ? WAN_F32 : WAN_BF16;
    c.device = &the_device;
    return c;
}

/* ---------------------------------------------------------------------------------- numbers */

static uint64_t state = 88172645463325252ull;

static uint64_t random_bits() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545F4914F6CDD1Dull >> 11;
}

static double uniform() {
    return (double)(random_bits() & 0xffffffff) / 4294967296.0;
}

static float normal() {
    return (float)(sqrt(-2 * log(uniform() + 1e-12)) * cos(6.283185307179586 * uniform()));
}

/* Half floats saturate, as on the device. */
static uint16_t narrow(float v, dtype type) {
    if (type == WAN_BF16)
        return wan_brain_from_float(v);
    return wan_half_from_float(v > 65504 ? 65504 : v < -65504 ? -65504 : v);
}

static float widen(uint16_t v, dtype type) {
    return type == WAN_BF16 ? wan_brain_to_float(v) : wan_half_to_float(v);
}

static float as_type(float v, dtype type) {
    return type == WAN_F32 ? v : widen(narrow(v, type), type);
}

enum { GUARD = 256 };

/* An array on the device, `shift` numbers off its alignment, between guards. */
struct array {
    dtype type;
    int64_t n;
    size_t size; /* of a number */
    char *base = NULL, *at = NULL;
    std::vector<float> v; /* as the device has them */

    array(dtype type_, int64_t n_, int shift = 0)
        : type(type_), n(n_), size(type_ == WAN_F32 ? 4 : 2), v((size_t)n_) {
        CUDA(cudaMalloc(&base, bytes() + 2 * GUARD + 64));
        CUDA(cudaMemset(base, 0xff, bytes() + 2 * GUARD + 64));
        at = base + GUARD + shift * (int)size;
    }
    array(const array &) = delete;
    ~array() { cudaFree(base); }
    size_t bytes() const { return (size_t)n * size; }

    array &send() {
        std::vector<uint16_t> half((size_t)n);
        for (int64_t i = 0; i < n; i++) {
            v[i] = as_type(v[i], type);
            half[i] = narrow(v[i], type);
        }
        CUDA(cudaMemcpy(at, type != WAN_F32 ? (void *)half.data() : (void *)v.data(), bytes(),
                        cudaMemcpyHostToDevice));
        return *this;
    }
    array &fill(float scale = 1, float offset = 0) {
        for (auto &x : v)
            x = offset + scale * normal();
        return send();
    }
    std::vector<float> fetch() const {
        std::vector<float> got((size_t)n);
        std::vector<uint16_t> half((size_t)n);
        CUDA(cudaDeviceSynchronize());
        CUDA(cudaMemcpy(type != WAN_F32 ? (void *)half.data() : (void *)got.data(), at, bytes(),
                        cudaMemcpyDeviceToHost));
        for (int64_t i = 0; i < n && type != WAN_F32; i++)
            got[i] = widen(half[i], type);
        return got;
    }
    bool guards_hold() const {
        std::vector<unsigned char> all(bytes() + 2 * GUARD + 64);
        CUDA(cudaMemcpy(all.data(), base, all.size(), cudaMemcpyDeviceToHost));
        for (size_t i = 0; i < all.size(); i++)
            if ((base + i < at || base + i >= at + bytes()) && all[i] != 0xff)
                return false;
        return true;
    }
    tensor as(std::vector<int64_t> dim) const {
        tensor t;
        memset(&t, 0, sizeof t);
        t.type = type;
        t.rank = (int)dim.size();
        for (int i = 0; i < t.rank; i++)
            t.dim[i] = dim[i];
        t.data = at;
        return t;
    }
};

/* i32 on the device. */
struct numbers {
    int32_t *at;
    int64_t n;
    numbers(const std::vector<int32_t> &v) : n((int64_t)v.size()) {
        CUDA(cudaMalloc(&at, v.size() * 4));
        CUDA(cudaMemcpy(at, v.data(), v.size() * 4, cudaMemcpyHostToDevice));
    }
    ~numbers() { cudaFree(at); }
    tensor as() const {
        tensor t;
        memset(&t, 0, sizeof t);
        t.type = WAN_I32;
        t.rank = 1;
        t.dim[0] = n;
        t.data = at;
        return t;
    }
};

static void report(bool ok, const char *what, double off) {
    cases++;
    failures += !ok;
    printf("%s %s rel_err=%.3g\n", ok ? "OK" : "FAIL", what, off);
}

/* ||got - want|| / ||want||; `most` 0: equal. NaN must be where NaN is wanted. */
static void expect(const std::string &what, const array &got, const std::vector<double> &want,
                   double most) {
    std::vector<float> g = got.fetch();
    double off = 0, all = 0;
    int64_t worst = -1;
    for (size_t i = 0; i < want.size(); i++) {
        if (want[i] != want[i] && g[i] != g[i])
            continue;
        double d = g[i] == want[i] ? 0 : fabs(g[i] - want[i]);
        if (!(d <= 1e300) && worst < 0)
            worst = (int64_t)i;
        off += d * d;
        all += isfinite(want[i]) ? want[i] * want[i] : 0;
    }
    off = sqrt(off) / fmax(sqrt(all), 1e-30);
    bool ok = off <= most && got.guards_hold();
    report(ok, what.c_str(), off);
    if (!ok && worst >= 0)
        printf("     first wrong: [%lld] is %g, not %g\n", (long long)worst, g[worst], want[worst]);
    else if (!ok) {
        int shown = 0;
        for (size_t i = 0; i < want.size() && shown < 3; i++)
            if (fabs(g[i] - want[i]) > 0.02 * fabs(want[i]) + 1e-4 && ++shown)
                printf("     [%zu] is %g, not %g\n", i, g[i], want[i]);
        if (!got.guards_hold())
            printf("     wrote outside\n");
    }
}

/* Rounding once, at worst half of the last place of the smallest significand. */
static double tolerance(dtype out) {
    return 1e-6 + (out == WAN_BF16 ? 1.0 / 256 : out == WAN_F16 ? 1.0 / 2048 : 0);
}

static const char *name_of(dtype t) {
    return t == WAN_BF16 ? "bf16" : t == WAN_F16 ? "f16" : "f32";
}

static std::string text(const char *format, ...) __attribute__((format(printf, 1, 2)));
static std::string text(const char *format, ...) {
    char line[256];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    return line;
}

/* ----------------------------------------------------------------------------------- timing */

/* Median milliseconds of f(turn), warm. */
template <class F> static double time_of(F f, int times = 20) {
    cudaEvent_t from, to;
    std::vector<float> ms;
    CUDA(cudaEventCreate(&from));
    CUDA(cudaEventCreate(&to));
    for (int i = 0; i < times + 3; i++) {
        float t;
        CUDA(cudaEventRecord(from, the_device.stream));
        f(i);
        CUDA(cudaEventRecord(to, the_device.stream));
        CUDA(cudaEventSynchronize(to));
        CUDA(cudaEventElapsedTime(&t, from, to));
        if (i >= 3)
            ms.push_back(t);
    }
    CUDA(cudaEventDestroy(from));
    CUDA(cudaEventDestroy(to));
    std::sort(ms.begin(), ms.end());
    return ms[ms.size() / 2];
}

static __global__ void fill_random(uint32_t *at, size_t n, bool bf16s) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        uint32_t x = (uint32_t)i * 2654435761u ^ (uint32_t)(i >> 32);
        x ^= x >> 15;
        x *= 2246822519u;
        x ^= x >> 13;
        /* within (-2, 2), any mantissa */
        at[i] = bf16s ? (x & 0x807f807f) | 0x3f003f00 | (x >> 9 & 0x00800080)
                      : (x & 0x80ffffff) | 0x3f000000;
    }
}

/* Device memory with random numbers, so large that turns do not meet in the cache. */
static char *random_memory(size_t bytes, bool bf16s) {
    char *p;
    CUDA(cudaMalloc(&p, bytes));
    fill_random<<<1024, 256>>>((uint32_t *)p, bytes / 4, bf16s);
    CUDA(cudaGetLastError());
    CUDA(cudaDeviceSynchronize());
    return p;
}

static int finish() {
    CUDA(cudaDeviceSynchronize());
    printf("%s: %d of %d cases failed\n", failures ? "FAIL" : "OK", failures, cases);
    return failures != 0;
}

#endif
