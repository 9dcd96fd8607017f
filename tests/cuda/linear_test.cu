/* SPDX-License-Identifier: Apache-2.0 */
/* linear_test - checks every way that the CUDA backend multiplies matrices against plain sums in
 * f64, and times them on the shapes of TI2V-5B.  linear_test.sh builds it.
 *
 *   linear_test [--small] [--bench] [--seed N]
 *
 * --small: tiny shapes, for compute-sanitizer.  --bench: times, after a few checks.  Ends with
 * "N passed, N failed". */
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <unistd.h>

#include "backend/cuda/decode.cuh"
#include "backend/cuda/lt.h"
#include "backend/cuda/product.h"

static int passed, failed;
static double worst; /* error over what is allowed */
static uint32_t seed = 1;

#define CHECK(x)                                                                                   \
    do {                                                                                           \
        cudaError_t e_ = (x);                                                                      \
        if (e_) {                                                                                  \
            printf("FAIL line %d: %s: %s\n", __LINE__, #x, cudaGetErrorString(e_));                \
            printf("%d passed, %d failed\n", passed, failed + 1);                                  \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* ------------------------------------------------------------- what the rest of the backend gives
 */

extern "C" bool wan_cuda_ok(compute *c, cudaError_t e, const char *what) {
    if (e)
        wan_fail(&c->err, WAN_E_DEVICE, "cuda: %s: %s", what, cudaGetErrorString(e));
    return !e;
}
extern "C" bool wan_cuda_launched(compute *c, const char *what) {
    return wan_cuda_ok(c, cudaGetLastError(), what);
}
extern "C" void *wan_cuda_weight(compute *, tensor w) {
    return w.data;
}

static cuda_device device;
static cuda_lt *library;

/* ------------------------------------------------------------------------------------- numbers */

static __device__ uint32_t hash(uint32_t x) {
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

static __device__ uint32_t draw(int64_t i, uint32_t s) {
    return hash((uint32_t)i * 2654435761u ^ hash(s + (uint32_t)(i >> 32)));
}

/* Like a normal distribution, of deviation 1. */
static __device__ float normal(int64_t i, uint32_t s) {
    uint32_t h = draw(i, s), g = hash(h);
    float sum = (float)(h & 0xffff) + (float)(h >> 16) + (float)(g & 0xffff) + (float)(g >> 16);
    return (sum / 65536 - 2) * 1.7320508f;
}

/* Odd rows are small, some numbers zero, denormal or large. */
static __device__ float number(int64_t i, int64_t cols, uint32_t s, bool nasty) {
    float v = normal(i, s);
    uint32_t kind = hash(draw(i, s)) % 512;
    if (!nasty)
        return v;
    if (i / cols % 2)
        v *= 0.01f;
    return kind < 32 ? 0 : kind < 36 ? 1e-39f : kind == 40 ? 20 * v : v;
}

template <class T>
static __global__ void fill_floats(T *p, int64_t n, int64_t cols, uint32_t s, float by,
                                   bool nasty) {
    for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < n; i += gridDim.x * 256ll)
        p[i] = (T)(number(i, cols, s, nasty) * by);
}

/* Blocks of codes: random bytes, and `halves` f16 scales at `at` of about `by`. */
static __global__ void fill_blocks(uint8_t *p, int64_t bytes, int block, int at, int halves,
                                   float by, uint32_t s) {
    for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < bytes; i += gridDim.x * 256ll) {
        int in = (int)(i % block);
        if (in >= at && in < at + 2 * halves) {
            __half h = __float2half(by * (1 + (draw(i / block, s) & 255) / 256.f));
            p[i] = (uint8_t)(__half_as_ushort(h) >> 8 * ((in - at) % 2));
        } else {
            p[i] = (uint8_t)draw(i, s);
            if (block == 1 && (p[i] & 0x7f) >= 0x78) /* E4M3: no NaN, little that is huge */
                p[i] ^= 0x40;
        }
    }
}

static unsigned grid(int64_t n) {
    return (unsigned)std::min<int64_t>((n + 255) / 256, 4096);
}

static void fill_tensor(tensor t, uint32_t s, float by, bool nasty) {
    int64_t n = wan_elements(t), bytes = (int64_t)wan_bytes(t), cols = t.dim[t.rank - 1];
    uint8_t *p = (uint8_t *)t.data;
    const dtype_info *d = wan_dtype(t.type);
    switch (t.type) {
    case WAN_F32:
        fill_floats<<<grid(n), 256>>>((float *)p, n, cols, s, by, nasty);
        break;
    case WAN_BF16:
        fill_floats<<<grid(n), 256>>>((bf16 *)p, n, cols, s, by, nasty);
        break;
    case WAN_F16:
        fill_floats<<<grid(n), 256>>>((__half *)p, n, cols, s, by, nasty);
        break;
    case WAN_Q8_0:
        fill_blocks<<<grid(bytes), 256>>>(p, bytes, d->bytes, 0, 1, by / 64, s);
        break;
    case WAN_Q4_K:
        fill_blocks<<<grid(bytes), 256>>>(p, bytes, d->bytes, 0, 2, by / 400, s);
        break;
    default:
        fill_blocks<<<grid(bytes), 256>>>(p, bytes, 1, 0, 0, 0, s);
    }
    CHECK(cudaGetLastError());
}

/* ----------------------------------------------------------------------------------- reference */

enum { TILE = 16 };

/* dst[i, o] = act(sum + bias) for the rows listed, in f64. */
template <class X>
static __global__ void reference(double *dst, const X *x, const float *w, const float *bias,
                                 const int *list, int count, int64_t out, int64_t in, int act) {
    __shared__ float a[TILE][TILE + 1], b[TILE][TILE + 1];
    int64_t o = blockIdx.x * (int64_t)TILE + threadIdx.x,
            wo = blockIdx.x * (int64_t)TILE + threadIdx.y;
    int i = blockIdx.y * TILE + threadIdx.y;
    double sum = 0;
    for (int64_t k0 = 0; k0 < in; k0 += TILE) {
        int64_t k = k0 + threadIdx.x;
        a[threadIdx.y][threadIdx.x] = i < count && k < in ? to_float(x[list[i] * in + k]) : 0;
        b[threadIdx.y][threadIdx.x] = wo < out && k < in ? w[wo * in + k] : 0;
        __syncthreads();
        for (int t = 0; t < TILE; t++)
            sum += (double)a[threadIdx.y][t] * b[threadIdx.x][t];
        __syncthreads();
    }
    if (i >= count || o >= out)
        return;
    sum += bias ? bias[o] : 0;
    if (act == WAN_GELU_TANH)
        sum = 0.5 * sum * (1 + tanh(0.7978845608028654 * (sum + 0.044715 * sum * sum * sum)));
    if (act == WAN_SILU)
        sum = sum / (1 + exp(-sum));
    dst[i * out + o] = sum;
}

typedef struct distance {
    double error, norm, most;   /* squares; largest |error| / (rms + |ref|) */
    unsigned long long strange; /* NaN where the reference has none, or the other way round */
} distance;

static __device__ void raise_to(double *at, double v) {
    atomicMax((unsigned long long *)at, (unsigned long long)__double_as_longlong(v));
}

template <class Y>
static __global__ void compare(distance *d, const Y *dst, const double *ref, const int *list,
                               int count, int64_t out, double rms) {
    for (int64_t at = blockIdx.x * 256ll + threadIdx.x; at < count * out; at += gridDim.x * 256ll) {
        double want = ref[at], got = to_float(dst[list[at / out] * out + at % out]);
        if (isnan(got) != isnan(want))
            atomicAdd(&d->strange, 1ull);
        if (isnan(got) || isnan(want))
            continue;
        double off = got - want;
        atomicAdd(&d->error, off * off);
        atomicAdd(&d->norm, want * want);
        if (rms > 0)
            raise_to(&d->most, fabs(off) / (rms + fabs(want)));
    }
}

template <class Y>
static __global__ void count_nan(unsigned long long *n, const Y *p, int64_t size) {
    for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < size; i += gridDim.x * 256ll)
        if (isnan(to_float(p[i])))
            atomicAdd(n, 1ull);
}

/* ----------------------------------------------------------------------------------- one case */

template <class T> struct held { /* device memory that goes with the scope */
    T *p = NULL;
    explicit held(size_t n) { CHECK(cudaMalloc(&p, std::max<size_t>(n, 1) * sizeof(T))); }
    ~held() { cudaFree(p); }
    held(const held &) = delete;
};

typedef enum engine { OWN, LIBRARY_FIRST, LIBRARY_TIMED, LIBRARY_PLAIN_SCALES } engine;
static const char *const engine_name[] = {"own", "lt", "lt-timed", "lt-unscaled"};

typedef struct shape_case {
    int64_t rows, out, in;
    dtype x, dst, w;
    int scale; /* 0: none, 1: one, 2: each row */
    bool bias;
    activation act;
    precision p;
    bool nan_row;
} shape_case;

static tensor make(dtype t, int64_t rows, int64_t cols, void *p) {
    int64_t dim[] = {rows, cols};
    return wan_tensor(t, 2, dim, p);
}
static tensor vector_of(int64_t n, void *p) {
    return wan_tensor(WAN_F32, 1, &n, p);
}

static void use(engine e) {
    device.lt = e == OWN ? NULL : library;
    if (library)
        wan_cuda_lt_choose(library, e == LIBRARY_TIMED ? LT_ALL_TIMED : LT_FIRST,
                           e != LIBRARY_PLAIN_SCALES && device.sm == 90, false);
}

static std::vector<int> rows_to_check(int64_t rows) {
    std::vector<int> list;
    for (int64_t i = 0; i < rows; i++)
        if (rows <= 320 || i < 64 || i >= rows - 64 || (i * 2654435761u >> 7) % (rows / 128) == 0)
            list.push_back((int)i);
    return list;
}

static double rounding(const shape_case &s) {
    bool exact = s.x == WAN_BF16 && s.w == WAN_BF16 && !s.scale && s.dst == WAN_F32 &&
                 s.act != WAN_GELU_TANH; /* cuBLASLt's is approximate */
    if (s.p == WAN_PRECISION_F32)
        return 1e-5;
    return exact ? 1e-4 : 6e-3;
}

static void report(const char *name, const distance &d, double allowed, double most, bool guards,
                   unsigned long long holes) {
    double rel = sqrt(d.error / (d.norm > 0 ? d.norm : 1));
    bool ok = rel <= allowed && d.most <= most && !d.strange && guards && !holes;
    ok ? passed++ : failed++;
    worst = std::max(worst, rel / allowed);
    if (!ok || getenv("VERBOSE"))
        printf("%s %s rel_err=%.2e most=%.2e%s", ok ? "OK" : "FAIL", name, rel, d.most,
               ok ? "\n" : "");
    if (!ok)
        printf(" allowed=%.0e/%.0e strange=%llu unwritten=%llu guards=%d\n", allowed, most,
               d.strange, holes, guards);
}

static distance measure(tensor dst, const double *ref, const std::vector<int> &list,
                        const int *list_d) {
    held<distance> d(1);
    distance h = {};
    int n = (int)list.size();
    for (int round = 0; round < 2; round++) {
        double rms = round ? sqrt(h.norm / ((double)n * dst.dim[1])) : 0;
        CHECK(cudaMemset(d.p, 0, sizeof h));
        if (dst.type == WAN_BF16)
            compare<<<512, 256>>>(d.p, (bf16 *)dst.data, ref, list_d, n, dst.dim[1], rms);
        else
            compare<<<512, 256>>>(d.p, (float *)dst.data, ref, list_d, n, dst.dim[1], rms);
        CHECK(cudaGetLastError());
        CHECK(cudaMemcpy(&h, d.p, sizeof h, cudaMemcpyDeviceToHost));
    }
    return h;
}

enum { GUARD = 4096 };

static bool intact(const void *p, size_t bytes) {
    std::vector<uint8_t> h(bytes);
    CHECK(cudaMemcpy(h.data(), p, bytes, cudaMemcpyDeviceToHost));
    for (uint8_t b : h)
        if (b != 0xa5)
            return false;
    return true;
}

/* E4M3 codes and scales back to numbers. */
static __global__ void codes_back(float *dst, const uint8_t *codes, const float *scale, int64_t n,
                                  int64_t cols) {
    for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < n; i += gridDim.x * 256ll)
        dst[i] = e4m3(codes[i]) * scale[i / cols];
}

static void through_codes(float *dst, const void *src, dtype t, int64_t rows, int64_t cols,
                          tensor by) {
    held<uint8_t> codes((size_t)(rows * cols));
    held<float> scale((size_t)rows);
    CHECK(wan_cuda_quantise_rows(codes.p, scale.p, src, t, rows, cols, (const float *)by.data,
                                 by.dim[0] > 1, 0));
    codes_back<<<grid(rows * cols), 256>>>(dst, codes.p, scale.p, rows * cols, cols);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
}

static void poison_row(tensor x, int64_t row) {
    size_t bytes = wan_bytes(x) / (size_t)x.dim[0];
    CHECK(cudaMemset((char *)x.data + (size_t)row * bytes, 0xff, bytes));
}

/* All memory of a case, and its product. */
static void run_case(const shape_case &s, engine e) {
    static uint32_t turn;
    uint32_t salt = seed * 1000003u + turn++ * 7919u;
    const dtype_info *wt = wan_dtype(s.w);
    size_t w_bytes = (size_t)(s.out * s.in / wt->block * wt->bytes);
    size_t d_bytes = (size_t)(s.rows * s.out) * (s.dst == WAN_BF16 ? 2 : 4);
    held<float> x_mem((size_t)(s.rows * s.in)), bias((size_t)s.out), scale((size_t)s.out);
    held<uint8_t> w_mem(w_bytes), dst_mem(d_bytes + 2 * GUARD);
    held<float> w_float((size_t)(s.out * s.in));
    tensor x = make(s.x, s.rows, s.in, x_mem.p),
           dst = make(s.dst, s.rows, s.out, dst_mem.p + GUARD);
    linear l = {};
    compute c = {};
    float size = 1 / sqrtf((float)s.in);
    l.weight = make(s.w, s.out, s.in, w_mem.p);
    if (s.bias)
        l.bias = vector_of(s.out, bias.p);
    if (s.scale)
        l.scale = vector_of(s.scale == 1 ? 1 : s.out, scale.p);
    fill_tensor(x, salt, 1, !s.nan_row && s.p != WAN_PRECISION_FP8);
    fill_tensor(l.weight, salt + 1, size, false);
    fill_tensor(vector_of(s.out, bias.p), salt + 2, 0.5f, false);
    fill_tensor(vector_of(s.out, scale.p), salt + 3, size / 16, false);
    if (s.nan_row)
        poison_row(x, s.rows / 2);

    device.precision = c.precision = s.p;
    c.device = &device;
    use(e);
    wan_cuda_unpack(&c, w_float.p, WAN_F32, &l); /* has its own test */
    size_t room = wan_cuda_linear_workspace(&c, dst, x, &l);
    held<uint8_t> work(room + GUARD);
    CHECK(cudaMemset(work.p, 0xff, room));
    CHECK(cudaMemset(work.p + room, 0xa5, GUARD));
    CHECK(cudaMemset(dst_mem.p, 0xa5, d_bytes + 2 * GUARD));
    CHECK(cudaMemset(dst.data, 0xff, d_bytes));
    CHECK(cudaDeviceSynchronize());
    c.workspace = work.p;
    wan_cuda_linear(&c, dst, x, &l, s.act);
    CHECK(cudaDeviceSynchronize());

    std::vector<int> list = rows_to_check(s.rows);
    int n = (int)list.size();
    held<int> list_d(list.size());
    held<double> ref(list.size() * (size_t)s.out);
    held<unsigned long long> holes_d(1);
    unsigned long long holes = 0;
    CHECK(cudaMemcpy(list_d.p, list.data(), list.size() * sizeof(int), cudaMemcpyHostToDevice));
    CHECK(cudaMemset(holes_d.p, 0, sizeof holes));
    dim3 blocks((unsigned)((s.out + TILE - 1) / TILE), (unsigned)((n + TILE - 1) / TILE));
    dim3 threads(TILE, TILE);
    auto sum_up = [&](auto *px) {
        reference<<<blocks, threads>>>(ref.p, px, w_float.p, (const float *)l.bias.data, list_d.p,
                                       n, s.out, s.in, s.act);
        CHECK(cudaGetLastError());
        CHECK(cudaDeviceSynchronize());
    };
    char name[256];
    snprintf(name, sizeof name, "%s %s %s->%s w=%s%s %lldx%lldx%lld%s act=%d", engine_name[e],
             s.p == WAN_PRECISION_F32    ? "f32"
             : s.p == WAN_PRECISION_BF16 ? "bf16"
                                         : "fp8",
             wan_dtype(s.x)->name, wan_dtype(s.dst)->name, wt->name,
             s.scale == 2 ? "*each"
             : s.scale    ? "*one"
                          : "",
             (long long)s.rows, (long long)s.out, (long long)s.in, s.bias ? " bias" : "",
             (int)s.act);
    if (c.err.code) {
        printf("FAIL %s: %s\n", name, c.err.message);
        failed++;
        return;
    }
    if (s.dst == WAN_BF16)
        count_nan<<<512, 256>>>(holes_d.p, (bf16 *)dst.data, s.rows * s.out);
    else
        count_nan<<<512, 256>>>(holes_d.p, (float *)dst.data, s.rows * s.out);
    CHECK(cudaMemcpy(&holes, holes_d.p, sizeof holes, cudaMemcpyDeviceToHost));
    if (s.nan_row) /* that row and no more */
        holes = holes == (unsigned long long)s.out ? 0 : holes + 1;
    bool guards = intact(dst_mem.p, GUARD) && intact((char *)dst.data + d_bytes, GUARD) &&
                  intact(work.p + room, GUARD);
    bool fp8 = s.p == WAN_PRECISION_FP8 && s.rows >= 256 && s.in % 16 == 0 && s.out % 16 == 0 &&
               device.lt && device.sm >= 89;
    if (s.x == WAN_BF16)
        sum_up((const bf16 *)x.data);
    else
        sum_up((const float *)x.data);
    distance d = measure(dst, ref.p, list, list_d.p);
    report(name, d, fp8 ? 6e-2 : rounding(s),
           fp8                        ? 0.4
           : s.p == WAN_PRECISION_F32 ? 1e-4
                                      : 0.03,
           guards, holes);
    if (!fp8 || s.nan_row)
        return;
    /* The same codes, exactly summed. */
    held<float> x_float((size_t)(s.rows * s.in));
    through_codes(x_float.p, x.data, s.x, s.rows, s.in, tensor{});
    if (s.w != WAN_F8_E4M3) {
        held<bf16> half((size_t)(s.out * s.in));
        bool direct = wan_cuda_quantises(s.w);
        if (!direct)
            wan_cuda_unpack(&c, half.p, WAN_BF16, &l);
        CHECK(cudaDeviceSynchronize());
        through_codes(w_float.p, direct ? l.weight.data : half.p, direct ? s.w : WAN_BF16, s.out,
                      s.in, direct ? l.scale : tensor{});
    }
    sum_up(x_float.p);
    std::string exact = std::string(name) + " (codes)";
    report(exact.c_str(), measure(dst, ref.p, list, list_d.p), 6e-3, 0.03, true, 0);
}

/* -------------------------------------------------------------------------------------- checks */

static void check_shapes(engine e, bool small) {
    static const int64_t rows[] = {1, 7, 16, 17, 128, 129, 300};
    static const int64_t sizes[][2] = {{128, 256}, {77, 131}, {203, 1000}, {1, 8}, {320, 33}};
    for (int64_t m : rows)
        for (auto &n : sizes)
            for (int k = 0; k < 4; k++) {
                if (small && (m > 129 || n[1] > 256))
                    continue;
                dtype x = k & 1 ? WAN_F32 : WAN_BF16, d = k & 2 ? WAN_F32 : WAN_BF16;
                run_case({m, n[0], n[1], x, d, WAN_BF16, 0, true, k ? WAN_GELU_TANH : WAN_SILU,
                          WAN_PRECISION_BF16, false},
                         e);
            }
}

static void check_weights(engine e, bool small) {
    static const struct {
        dtype t;
        int scale;
    } w[] = {{WAN_F32, 0},     {WAN_F16, 0},  {WAN_BF16, 0},    {WAN_BF16, 2},
             {WAN_Q8_0, 0},    {WAN_Q4_K, 0}, {WAN_F8_E4M3, 0}, {WAN_F8_E4M3, 1},
             {WAN_F8_E4M3, 2}, {WAN_I8, 1},   {WAN_Q8_0, 2}};
    static const int64_t rows[] = {1, 5, 13, 129, 400};
    for (auto &one : w)
        for (int64_t m : rows)
            for (int p = 0; p < 3; p++) {
                precision q = p == 0   ? WAN_PRECISION_F32
                              : p == 1 ? WAN_PRECISION_BF16
                                       : WAN_PRECISION_FP8;
                dtype act = p ? WAN_BF16 : WAN_F32;
                if ((small && m > 129) || (p == 2 && m < 400))
                    continue;
                run_case({m, 320, 512, act, act, one.t, one.scale, m != 5, WAN_NONE, q, false}, e);
            }
}

static void check_acts(engine e) {
    for (int act = 0; act < 3; act++)
        for (int bias = 0; bias < 2; bias++)
            for (int p = 0; p < 3; p++)
                for (int k = 0; k < 4; k++) {
                    precision q = p == 0   ? WAN_PRECISION_F32
                                  : p == 1 ? WAN_PRECISION_BF16
                                           : WAN_PRECISION_FP8;
                    dtype x = k & 1 ? WAN_F32 : WAN_BF16, d = k & 2 ? WAN_F32 : WAN_BF16;
                    if (p == 0 && k != 3)
                        continue;
                    run_case(
                        {264, 192, 256, x, d, WAN_BF16, 0, bias != 0, (activation)act, q, false},
                        e);
                }
}

static void check_large(engine e) {
    run_case({4725, 3072, 3072, WAN_BF16, WAN_BF16, WAN_BF16, 0, true, WAN_GELU_TANH,
              WAN_PRECISION_BF16, false},
             e);
    run_case({4725, 3072, 3072, WAN_F32, WAN_F32, WAN_Q8_0, 0, true, WAN_NONE, WAN_PRECISION_BF16,
              false},
             e);
    run_case({4725, 1024, 3072, WAN_BF16, WAN_BF16, WAN_Q8_0, 0, true, WAN_NONE, WAN_PRECISION_FP8,
              false},
             e);
    run_case({1000, 768, 14336, WAN_BF16, WAN_F32, WAN_BF16, 0, true, WAN_NONE, WAN_PRECISION_FP8,
              false},
             e);
    run_case(
        {515, 256, 17408, WAN_F32, WAN_BF16, WAN_Q4_K, 0, true, WAN_NONE, WAN_PRECISION_FP8, false},
        e);
    run_case({1001, 1536, 2048, WAN_F32, WAN_F32, WAN_F32, 0, true, WAN_GELU_TANH,
              WAN_PRECISION_F32, false},
             e);
}

static void check_nan(engine e) {
    for (int p = 0; p < 3; p++)
        for (int64_t m : {3, 40, 300})
            run_case({m, 192, 256, p ? WAN_BF16 : WAN_F32, p ? WAN_BF16 : WAN_F32, WAN_BF16, 0,
                      true, WAN_NONE,
                      p == 0   ? WAN_PRECISION_F32
                      : p == 1 ? WAN_PRECISION_BF16
                               : WAN_PRECISION_FP8,
                      true},
                     e);
}

/* Every tile of the own product on sizes about its edges. */
static void check_tiles(void) {
    static const int64_t rows[] = {1, 64, 127, 128, 129, 257}, outs[] = {8, 64, 120, 256, 264};
    for (int tile = GEMM_64; tile < GEMM_TILES; tile++)
        for (int64_t m : rows)
            for (int64_t n : outs) {
                int64_t in = 8 * (1 + (m + n) % 40);
                held<bf16> x((size_t)(m * in)), w((size_t)(n * in));
                held<float> wf((size_t)(n * in)), dst((size_t)(m * n));
                held<double> ref((size_t)(m * n));
                fill_tensor(make(WAN_BF16, m, in, x.p), seed + 5, 1, true);
                fill_tensor(make(WAN_BF16, n, in, w.p), seed + 6, 1, true);
                fill_floats<<<64, 256>>>(wf.p, n * in, in, seed + 6, 1, true);
                CHECK(wan_cuda_round(w.p, wf.p, n * in, 0));
                tensor wt = make(WAN_BF16, n, in, w.p);
                linear l = {};
                compute c = {};
                l.weight = wt;
                c.device = &device;
                CHECK(cudaDeviceSynchronize());
                wan_cuda_unpack(&c, wf.p, WAN_F32, &l);
                CHECK(cudaMemset(dst.p, 0xff, (size_t)(m * n) * 4));
                CHECK(cudaDeviceSynchronize());
                product p = {};
                p.rows = m, p.out = n, p.in = in, p.operand = WAN_BF16, p.result = WAN_F32;
                p.x = x.p, p.w = w.p, p.dst = dst.p;
                CHECK(wan_cuda_gemm(&p, (gemm_tile)tile, device.multiprocessors, device.stream));
                std::vector<int> list = rows_to_check(m);
                held<int> list_d(list.size());
                CHECK(cudaMemcpy(list_d.p, list.data(), list.size() * 4, cudaMemcpyHostToDevice));
                dim3 blocks((unsigned)((n + 15) / 16), (unsigned)((m + 15) / 16)), threads(16, 16);
                reference<<<blocks, threads>>>(ref.p, x.p, wf.p, (const float *)NULL, list_d.p,
                                               (int)m, n, in, 0);
                CHECK(cudaDeviceSynchronize());
                char name[96];
                snprintf(name, sizeof name, "tile %d %lldx%lldx%lld", tile, (long long)m,
                         (long long)n, (long long)in);
                report(name, measure(make(WAN_F32, m, n, dst.p), ref.p, list, list_d.p), 1e-5, 1e-4,
                       true, 0);
            }
}

static void expect(bool ok, const char *what) {
    ok ? passed++ : failed++;
    printf("%s %s\n", ok ? "OK" : "FAIL", what);
}

/* The file of choices: found again, and harmless when damaged. */
static void check_file(void) {
    error err = {};
    int timed = 0, remembered = 0;
    shape_case s = {300, 512,  512,      WAN_BF16,           WAN_BF16, WAN_BF16,
                    0,   true, WAN_NONE, WAN_PRECISION_BF16, false};
    auto again = [&](const char *what, bool from_file) {
        wan_cuda_lt_close(library);
        device.lt = library = wan_cuda_lt_open(&device, &err);
        if (!library)
            return;
        use(LIBRARY_TIMED);
        run_case(s, LIBRARY_TIMED);
        wan_cuda_lt_count(library, &timed, &remembered);
        expect((from_file ? remembered : timed) == 1, what);
    };
    std::string folder = std::string(getenv("XDG_CACHE_HOME")) + "/wan/";
    std::string file = "ls " + folder + "cublaslt-*";
    again("the first time, algorithms are timed", false);
    again("the second time, the file knows", true);
    expect(!system(file.c_str()), "the file is there");
    for (const char *how : {"head -c 100 /dev/urandom >", "printf 'wan cublaslt choices 1\\n1 2' >",
                            "head -c 100000 /dev/zero >", "echo >>"}) {
        std::string damage = "for f in " + folder + "cublaslt-*; do " + how + " $f; done";
        expect(!system(damage.c_str()), how);
        again("a damaged file counts as empty", false);
        again("and was written anew", true);
    }
}

/* --------------------------------------------------------------------------------------- bench */

template <class F> static double time_of(int runs, F f) {
    std::vector<cudaEvent_t> at(2 * (size_t)runs);
    std::vector<float> ms((size_t)runs);
    for (auto &e : at)
        CHECK(cudaEventCreate(&e));
    for (int i = 0; i < 3; i++)
        f(i);
    for (int i = 0; i < runs; i++) {
        CHECK(cudaEventRecord(at[2 * i], device.stream));
        f(i);
        CHECK(cudaEventRecord(at[2 * i + 1], device.stream));
    }
    CHECK(cudaStreamSynchronize(device.stream));
    for (int i = 0; i < runs; i++)
        CHECK(cudaEventElapsedTime(&ms[i], at[2 * i], at[2 * i + 1]));
    for (auto &e : at)
        cudaEventDestroy(e);
    std::sort(ms.begin(), ms.end());
    return ms[runs / 2];
}

typedef struct bench_shape {
    int64_t rows, out, in;
    activation act;
} bench_shape;

static void line(const bench_shape &b, const char *what, double ms, double bytes) {
    double flops = 2.0 * b.rows * b.out * b.in;
    printf("BENCH %lldx%lldx%lld %-34s %8.4f ms %7.1f TFLOP/s %7.1f GB/s\n", (long long)b.rows,
           (long long)b.out, (long long)b.in, what, ms, bytes ? 0 : flops / ms * 1e-9,
           bytes / ms * 1e-6);
}

/* Memory of a shape, for all variants; few rows rotate among weights that L2 cannot hold. */
struct bench_room {
    bench_shape b;
    int64_t copies;
    held<bf16> x, dst;
    held<float> bias;
    held<bf16> w;
    held<uint8_t> q8, work;
    explicit bench_room(bench_shape s)
        : b(s), copies(s.rows <= 64 ? 6 : 1), x((size_t)(s.rows * s.in)),
          dst((size_t)(s.rows * s.out)), bias((size_t)s.out), w((size_t)(copies * s.out * s.in)),
          q8((size_t)(copies * s.out * s.in / 32 * 34)),
          work((size_t)(2 * (s.out + s.rows) * s.in + (64 << 20) + 8 * (s.rows + s.out))) {
        fill_tensor(make(WAN_BF16, s.rows, s.in, x.p), 11, 1, false);
        fill_tensor(make(WAN_BF16, copies * s.out, s.in, w.p), 12, 0.02f, false);
        fill_tensor(make(WAN_Q8_0, copies * s.out, s.in, q8.p), 13, 0.02f, false);
        fill_tensor(vector_of(s.out, bias.p), 14, 0.1f, false);
        CHECK(cudaDeviceSynchronize());
    }
    linear weight(dtype t, int turn) {
        linear l = {};
        int64_t at = turn % copies * b.out * b.in;
        l.weight = make(t, b.out, b.in, t == WAN_BF16 ? (void *)(w.p + at) : q8.p + at / 32 * 34);
        l.bias = vector_of(b.out, bias.p);
        return l;
    }
};

static double time_linear(bench_room &r, dtype w, precision p) {
    const bench_shape &b = r.b;
    compute c = {};
    c.device = &device;
    c.workspace = r.work.p;
    c.precision = device.precision = p;
    return time_of(20, [&](int i) {
        linear l = r.weight(w, i);
        wan_cuda_linear(&c, make(WAN_BF16, b.rows, b.out, r.dst.p),
                        make(WAN_BF16, b.rows, b.in, r.x.p), &l, b.act);
        if (c.err.code) {
            printf("FAIL bench: %s\n", c.err.message);
            failed++;
            exit(1);
        }
    });
}

static product bench_product(bench_room &r, int turn) {
    product p = {};
    p.rows = r.b.rows, p.out = r.b.out, p.in = r.b.in;
    p.operand = p.result = WAN_BF16;
    p.x = r.x.p, p.w = r.weight(WAN_BF16, turn).weight.data, p.dst = r.dst.p;
    p.bias = r.bias.p, p.act = r.b.act;
    return p;
}

static void bench_pieces(bench_room &r) {
    const bench_shape &b = r.b;
    double numbers = (double)b.out * b.in, acts = (double)b.rows * b.in;
    held<float> scale((size_t)std::max(b.rows, b.out));
    held<bf16> unpacked((size_t)(b.out * b.in));
    compute c = {};
    c.device = &device;
    line(b, "unpack Q8_0 to bf16",
         time_of(20,
                 [&](int i) {
                     linear l = r.weight(WAN_Q8_0, i);
                     wan_cuda_unpack(&c, unpacked.p, WAN_BF16, &l);
                 }),
         numbers * (34 / 32. + 2));
    line(b, "weight Q8_0 to fp8",
         time_of(20,
                 [&](int i) {
                     wan_cuda_quantise_rows(r.work.p, scale.p, r.weight(WAN_Q8_0, i).weight.data,
                                            WAN_Q8_0, b.out, b.in, NULL, false, device.stream);
                 }),
         numbers * (34 / 32. + 1));
    line(b, "weight bf16 to fp8",
         time_of(20,
                 [&](int i) {
                     wan_cuda_quantise_rows(r.work.p, scale.p, r.weight(WAN_BF16, i).weight.data,
                                            WAN_BF16, b.out, b.in, NULL, false, device.stream);
                 }),
         numbers * 3);
    line(b, "activations bf16 to fp8",
         time_of(20,
                 [&](int) {
                     wan_cuda_quantise_rows(r.work.p, scale.p, r.x.p, WAN_BF16, b.rows, b.in, NULL,
                                            false, device.stream);
                 }),
         acts * 3);
    CHECK(cudaGetLastError());
}

/* The product alone on codes that are there already. */
static void bench_codes(bench_room &r, const char *what, bool vectors, bool exact) {
    const bench_shape &b = r.b;
    held<uint8_t> x((size_t)(b.rows * b.in)), w((size_t)(b.out * b.in)), work(LT_WORKSPACE);
    held<float> xs((size_t)b.rows), ws((size_t)b.out);
    held<bf16> bias((size_t)b.out);
    error err = {};
    CHECK(wan_cuda_quantise_rows(x.p, xs.p, r.x.p, WAN_BF16, b.rows, b.in, NULL, false, 0));
    CHECK(wan_cuda_quantise_rows(w.p, ws.p, r.w.p, WAN_BF16, b.out, b.in, NULL, false, 0));
    CHECK(wan_cuda_round(bias.p, r.bias.p, b.out, 0));
    CHECK(cudaDeviceSynchronize());
    product p = bench_product(r, 0);
    p.operand = WAN_F8_E4M3;
    p.x = x.p, p.w = w.p, p.x_scale = xs.p, p.w_scale = ws.p, p.bias_bf16 = bias.p;
    wan_cuda_lt_choose(library, LT_ALL_TIMED, vectors, exact);
    unfinished left = {};
    bool done = true;
    double ms = time_of(20, [&](int) {
        done = done && wan_cuda_lt_product(library, &p, work.p, &left, &err);
        if (done)
            CHECK(wan_cuda_finish(&p, left, device.stream));
    });
    char text[96];
    snprintf(text, sizeof text, "%s%s", what, left.scales ? " (finished apart)" : "");
    if (done)
        line(b, text, ms, 0);
    else
        printf("NOTE %s: no algorithm %s\n", what, err.message);
}

static void bench_few(bench_room &r) {
    const bench_shape &b = r.b;
    held<uint8_t> work(LT_WORKSPACE);
    double bytes = (double)b.out * b.in;
    line(b, "few rows, bf16", time_linear(r, WAN_BF16, WAN_PRECISION_BF16), 2 * bytes);
    line(b, "few rows, Q8_0", time_linear(r, WAN_Q8_0, WAN_PRECISION_BF16), bytes * 34 / 32);
    if (!library)
        return;
    for (lt_choice how : {LT_FIRST, LT_ALL_TIMED}) {
        error err = {};
        held<bf16> bias((size_t)b.out);
        wan_cuda_lt_choose(library, how, true, false);
        line(b, how == LT_FIRST ? "lt bf16 first" : "lt bf16 timed",
             time_of(20,
                     [&](int i) {
                         product p = bench_product(r, i);
                         unfinished left;
                         p.bias_bf16 = bias.p;
                         wan_cuda_lt_product(library, &p, work.p, &left, &err);
                     }),
             2 * bytes);
    }
}

static void bench_many(bench_room &r) {
    const bench_shape &b = r.b;
    if (library) {
        use(LIBRARY_FIRST);
        line(b, "lt bf16 first", time_linear(r, WAN_BF16, WAN_PRECISION_BF16), 0);
        use(LIBRARY_TIMED);
        line(b, "lt bf16 timed", time_linear(r, WAN_BF16, WAN_PRECISION_BF16), 0);
        line(b, "lt bf16 timed, Q8_0 stored", time_linear(r, WAN_Q8_0, WAN_PRECISION_BF16), 0);
        line(b, "lt fp8, bf16 stored, all of it", time_linear(r, WAN_BF16, WAN_PRECISION_FP8), 0);
        line(b, "lt fp8, Q8_0 stored, all of it", time_linear(r, WAN_Q8_0, WAN_PRECISION_FP8), 0);
        bench_codes(r, "lt fp8 codes", true, false);
        bench_codes(r, "lt fp8 codes, exact sums", true, true);
        bench_codes(r, "lt fp8 codes, no vectors", false, false);
    }
    for (int tile = GEMM_64; tile < GEMM_TILES; tile++) {
        char name[32];
        snprintf(name, sizeof name, "own bf16, tile %d", 32 << tile);
        line(b, name,
             time_of(20,
                     [&](int i) {
                         product p = bench_product(r, i);
                         CHECK(wan_cuda_gemm(&p, (gemm_tile)tile, device.multiprocessors,
                                             device.stream));
                     }),
             0);
    }
    bench_pieces(r);
}

static void bench_f32(void) {
    bench_shape b = {4725, 3072, 3072, WAN_NONE};
    held<float> x((size_t)(b.rows * b.in)), w((size_t)(b.out * b.in)),
        dst((size_t)(b.rows * b.out));
    held<uint8_t> work(LT_WORKSPACE);
    fill_tensor(make(WAN_F32, b.rows, b.in, x.p), 21, 1, false);
    fill_tensor(make(WAN_F32, b.out, b.in, w.p), 22, 0.02f, false);
    compute c = {};
    linear l = {};
    l.weight = make(WAN_F32, b.out, b.in, w.p);
    c.device = &device, c.workspace = work.p;
    device.precision = c.precision = WAN_PRECISION_F32;
    for (engine e : {OWN, LIBRARY_FIRST, LIBRARY_TIMED}) {
        use(e);
        if (e != OWN && !library)
            continue;
        line(b, (std::string("f32 ") + engine_name[e]).c_str(),
             time_of(20,
                     [&](int) {
                         wan_cuda_linear(&c, make(WAN_F32, b.rows, b.out, dst.p),
                                         make(WAN_F32, b.rows, b.in, x.p), &l, WAN_NONE);
                     }),
             0);
    }
}

static void bench(void) {
    static const bench_shape shape[] = {
        {14, 4096, 4096, WAN_NONE},          {14, 10240, 4096, WAN_NONE},
        {14, 4096, 10240, WAN_NONE},         {1, 18432, 3072, WAN_NONE},
        {4725, 3072, 3072, WAN_NONE},        {4725, 14336, 3072, WAN_GELU_TANH},
        {4725, 3072, 14336, WAN_NONE},       {27280, 3072, 3072, WAN_NONE},
        {27280, 14336, 3072, WAN_GELU_TANH}, {27280, 3072, 14336, WAN_NONE}};
    for (const bench_shape &b : shape) {
        bench_room r(b);
        if (b.rows <= FEW_ROWS)
            bench_few(r);
        else
            bench_many(r);
    }
    bench_f32();
}

/* ---------------------------------------------------------------------------------------- main */

static void open_device(void) {
    cudaDeviceProp props;
    error err = {};
    char text[1200];
    CHECK(cudaSetDevice(0));
    CHECK(cudaGetDeviceProperties(&props, 0));
    device.sm = 10 * props.major + props.minor;
    device.multiprocessors = props.multiProcessorCount;
    CHECK(cudaStreamCreate(&device.stream)); /* one that waits for the fills on stream 0 */
    wan_cuda_lt_describe(text, sizeof text);
    printf("%s; cuBLASLt: %s\n", props.name, text);
    library = wan_cuda_lt_open(&device, &err);
    if (!library)
        printf("NOTE %s\n", err.message);
}

int main(int argc, char **argv) {
    bool small = false, timed = false;
    for (int i = 1; i < argc; i++) {
        small |= !strcmp(argv[i], "--small");
        timed |= !strcmp(argv[i], "--bench");
        if (!strcmp(argv[i], "--seed") && i + 1 < argc)
            seed = (uint32_t)atoi(argv[++i]);
    }
    char folder[] = "/tmp/linear_test.XXXXXX";
    if (!mkdtemp(folder) || setenv("XDG_CACHE_HOME", folder, 1))
        return 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    open_device();
    for (int e = OWN; !timed && e <= (library ? LIBRARY_PLAIN_SCALES : OWN); e++) {
        if (small && e > LIBRARY_FIRST)
            continue;
        int before = passed + failed;
        worst = 0;
        if (e <= LIBRARY_FIRST)
            check_shapes((engine)e, small);
        check_weights((engine)e, small);
        check_acts((engine)e);
        check_nan((engine)e);
        if (!small)
            check_large((engine)e);
        printf("%s: %d checks, the largest error is %.2f of what is allowed\n", engine_name[e],
               passed + failed - before, worst);
    }
    if (!timed)
        check_tiles();
    if (library && !timed && !small)
        check_file();
    if (timed)
        bench();
    wan_cuda_lt_close(library);
    std::string clean = std::string("rm -rf ") + folder;
    if (system(clean.c_str()))
        printf("NOTE %s stays\n", folder);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
