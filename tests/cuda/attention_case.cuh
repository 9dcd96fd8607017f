/* SPDX-License-Identifier: Apache-2.0 */
/* attention_case.cuh - a problem for an attention kernel: inputs, the plain kernel in f64, what is
 * wrong with a result, and how long it took.  The kernels are included before. */
#ifndef WAN_TESTS_CUDA_ATTENTION_CASE_CUH
#define WAN_TESTS_CUDA_ATTENTION_CASE_CUH

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define CHECK(call)                                                                                \
    do {                                                                                           \
        cudaError_t e_ = (call);                                                                   \
        if (e_ != cudaSuccess) {                                                                   \
            printf("FAIL %s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(e_));     \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

extern "C" bool wan_cuda_ok(compute *c, cudaError_t e, const char *what) {
    (void)c;
    if (e != cudaSuccess)
        printf("FAIL %s: %s\n", what, cudaGetErrorString(e));
    return e == cudaSuccess;
}

static cuda_device device;
static unsigned seed = 1;
static int failures, cases;

/* ------------------------------------------------------------------------- buffers */

static __device__ uint32_t mix(uint32_t x) {
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ x >> 16;
}

template <class T> static __device__ T number(float x);
template <> __device__ float number<float>(float x) {
    return x;
}
template <> __device__ __nv_bfloat16 number<__nv_bfloat16>(float x) {
    return __float2bfloat16(x);
}
template <> __device__ __half number<__half>(float x) {
    return __float2half(x);
}

/* Normal numbers; some zeros, some tiny, a few large.  Beyond `count`, NaN. */
template <class T>
static __global__ void draw(T *x, int64_t count, int64_t all, float size, bool nasty, unsigned s) {
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < all;
         i += (int64_t)gridDim.x * blockDim.x) {
        uint32_t a = mix((uint32_t)i ^ mix(s)), b = mix(a + 0x9e3779b9u + (uint32_t)(i >> 32));
        float u = ((a >> 8) + 0.5f) / 16777216.0f, v = (b >> 8) / 16777216.0f;
        float y = size * sqrtf(-2 * logf(u)) * cospif(2 * v);
        if (nasty && (b & 63) < 3)
            y = (b & 63) == 0 ? 0 : (b & 63) == 1 ? 1e-39f : 4 * y;
        x[i] = i < count ? number<T>(y) : number<T>(__int_as_float(0x7fffffff));
    }
}

/* The same for all rows. */
static __global__ void add_common(__nv_bfloat16 *x, int64_t count, int64_t width, float size) {
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * blockDim.x) {
        uint32_t a = mix((uint32_t)(i % width));
        if (a % 8 == 0)
            x[i] = __float2bfloat16((float)x[i] + (a & 8 ? size : -size));
    }
}

static const size_t Guard = 65536;

static char *new_buffer(size_t bytes, int fill) {
    char *p;
    CHECK(cudaMalloc(&p, bytes + 2 * Guard));
    CHECK(cudaMemset(p, fill, bytes + 2 * Guard));
    return p + Guard;
}

static void drop(void *p) {
    CHECK(cudaFree((char *)p - Guard));
}

static bool guards_hold(const char *p, size_t bytes, int fill) {
    std::vector<unsigned char> g(2 * Guard);
    CHECK(cudaMemcpy(g.data(), p - Guard, Guard, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(g.data() + Guard, p + bytes, Guard, cudaMemcpyDeviceToHost));
    for (unsigned char c : g)
        if (c != (unsigned char)fill)
            return false;
    return true;
}

template <class T> static __global__ void count_unwritten(const T *x, int64_t n, int *count) {
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i < n && isnan((float)x[i]))
        atomicAdd(count, 1);
}

/* ------------------------------------------------------------------------- reference */

/* A block for one of `samples` queries and a head. */
template <class T>
static __global__ void reference(const T *q, const T *k, const T *v, float *dst, double *logits,
                                 attention_args a, int samples) {
    int64_t row = samples > 1 ? (int64_t)blockIdx.x * (a.n - 1) / (samples - 1) : 0;
    int64_t width = (int64_t)a.heads * a.head_dim, skip = (int64_t)blockIdx.y * a.head_dim;
    double *s = logits + ((int64_t)blockIdx.y * samples + blockIdx.x) * a.m;
    __shared__ double top, sum;
    for (int64_t j = threadIdx.x; j < a.m; j += blockDim.x) {
        double x = 0;
        for (int i = 0; i < a.head_dim; i++)
            x += (double)(float)q[row * width + skip + i] * (float)k[j * width + skip + i];
        x *= a.scale;
        if (a.bias)
            x += a.bias[blockIdx.y * (2 * a.reach - 1) + j - row + a.reach - 1];
        if (j == a.m - 1)
            x += log((double)a.last_key_count);
        s[j] = x;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        top = -INFINITY;
        for (int64_t j = 0; j < a.m; j++)
            top = fmax(top, s[j]);
    }
    __syncthreads();
    for (int64_t j = threadIdx.x; j < a.m; j += blockDim.x)
        s[j] = exp(s[j] - top);
    __syncthreads();
    if (threadIdx.x == 0) {
        sum = 0;
        for (int64_t j = 0; j < a.m; j++)
            sum += s[j];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < a.head_dim; i += blockDim.x) {
        double x = 0;
        for (int64_t j = 0; j < a.m; j++)
            x += s[j] * (float)v[j * width + skip + i];
        dst[blockIdx.x * width + skip + i] = (float)(x / sum);
    }
}

/* ------------------------------------------------------------------------- a problem */

struct problem {
    int64_t n, m;
    int heads, size;
    int64_t last_key_count;
    float spread; /* of the logits */
    bool bias;
    dtype type;
    size_t space; /* bytes of work space; 0: as the backend says */
    float common; /* of the same size in every key, by column */
    double most;  /* error allowed; 0: as the type says */
    bool plain;   /* numbers are just normal */
    precision at; /* that the backend is asked for its work space with */
};

struct setup {
    attention_args a;
    void *q, *k, *v, *dst, *bias, *space;
    size_t bytes, space_bytes;
};

static size_t type_bytes(dtype t) {
    return t == WAN_F32 ? 4 : 2;
}

static const char *type_name(dtype t) {
    return t == WAN_BF16 ? "bf16" : t == WAN_F16 ? "f16" : "f32";
}

static void draw_any(void *x, dtype t, int64_t count, int64_t all, float size, bool nasty) {
    seed = seed * 1664525u + 1013904223u;
    if (t == WAN_BF16)
        draw<<<512, 256>>>((__nv_bfloat16 *)x, count, all, size, nasty, seed);
    else if (t == WAN_F16)
        draw<<<512, 256>>>((__half *)x, count, all, size, nasty, seed);
    else
        draw<<<512, 256>>>((float *)x, count, all, size, nasty, seed);
    CHECK(cudaGetLastError());
}

static setup prepare(const problem &p, bool nasty) {
    setup s = {};
    int64_t width = (int64_t)p.heads * p.size, extra = (int64_t)(Guard / type_bytes(p.type));
    size_t es = type_bytes(p.type);
    s.q = new_buffer(p.n * width * es, 0xff);
    s.k = new_buffer(p.m * width * es, 0xff);
    s.v = new_buffer(p.m * width * es, 0xff);
    s.bytes = p.n * width * es;
    s.dst = new_buffer(s.bytes, 0xff);
    draw_any(s.q, p.type, p.n * width, p.n * width + extra, p.spread, nasty);
    draw_any(s.k, p.type, p.m * width, p.m * width + extra, 1, nasty);
    draw_any(s.v, p.type, p.m * width, p.m * width + extra, 1, nasty);
    if (p.common != 0)
        add_common<<<512, 256>>>((__nv_bfloat16 *)s.k, p.m * width, width, p.common);
    CHECK(cudaGetLastError());
    attention_args &a = s.a;
    a.q = s.q;
    a.k = s.k;
    a.v = s.v;
    a.dst = s.dst;
    a.n = p.n;
    a.m = p.m;
    a.heads = p.heads;
    a.head_dim = p.size;
    a.scale = p.bias ? 1 : 1 / sqrtf((float)p.size);
    a.last_key_count = p.last_key_count;
    if (p.bias) {
        a.reach = std::max(p.n, p.m) + 5;
        int64_t count = p.heads * (2 * a.reach - 1);
        s.bias = new_buffer(count * 4, 0xff);
        draw_any(s.bias, WAN_F32, count, count, 3, false);
        a.bias = (const float *)s.bias;
    }
    int64_t dims[2] = {p.n, width}, kdims[2] = {p.m, width};
    tensor q = {p.type, 2, {dims[0], dims[1]}, s.q}, k = {p.type, 2, {kdims[0], kdims[1]}, s.k};
    attention how = {};
    how.heads = p.heads;
    how.last_key_count = p.last_key_count;
    compute c = {};
    c.precision = p.at;
    s.space_bytes = p.space;
    if (!p.space)
        s.space_bytes = wan_cuda_attention_workspace(&c, q, k, &how);
    s.space = new_buffer(s.space_bytes, 0xa5);
    a.workspace = s.space;
    return s;
}

static void release(const setup &s) {
    drop(s.q);
    drop(s.k);
    drop(s.v);
    drop(s.dst);
    drop(s.space);
    if (s.bias)
        drop(s.bias);
}

typedef cudaError_t (*runner)(const attention_args *a, dtype t);

template <class T> static double error_of(const setup &s, const problem &p, int samples) {
    int64_t width = (int64_t)p.heads * p.size;
    float *ref;
    double *logits;
    CHECK(cudaMalloc(&ref, samples * width * 4));
    CHECK(cudaMalloc(&logits, (size_t)samples * p.heads * p.m * 8));
    reference<T><<<dim3(samples, p.heads), 128>>>((const T *)s.q, (const T *)s.k, (const T *)s.v,
                                                  ref, logits, s.a, samples);
    CHECK(cudaGetLastError());
    std::vector<float> want(samples * width);
    std::vector<T> got(p.n * width);
    CHECK(cudaMemcpy(want.data(), ref, want.size() * 4, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(got.data(), s.dst, s.bytes, cudaMemcpyDeviceToHost));
    CHECK(cudaFree(ref));
    CHECK(cudaFree(logits));
    double difference = 0, norm = 0;
    for (int i = 0; i < samples; i++) {
        int64_t row = samples > 1 ? (int64_t)i * (p.n - 1) / (samples - 1) : 0;
        for (int64_t j = 0; j < width; j++) {
            double x = want[i * width + j], y = (float)got[row * width + j];
            difference += (x - y) * (x - y);
            norm += x * x;
        }
    }
    return sqrt(difference / norm);
}

static int unwritten(const setup &s, dtype t) {
    int *count, n = 0;
    int64_t all = s.bytes / type_bytes(t);
    CHECK(cudaMalloc(&count, 4));
    CHECK(cudaMemset(count, 0, 4));
    unsigned blocks = (unsigned)((all + 255) / 256);
    if (t == WAN_BF16)
        count_unwritten<<<blocks, 256>>>((const __nv_bfloat16 *)s.dst, all, count);
    else if (t == WAN_F16)
        count_unwritten<<<blocks, 256>>>((const __half *)s.dst, all, count);
    else
        count_unwritten<<<blocks, 256>>>((const float *)s.dst, all, count);
    CHECK(cudaMemcpy(&n, count, 4, cudaMemcpyDeviceToHost));
    CHECK(cudaFree(count));
    return n;
}

static void check(const char *name, const problem &p, runner run) {
    setup s = prepare(p, p.spread < 4 && !p.plain);
    CHECK(cudaDeviceSynchronize());
    cudaError_t e = run(&s.a, p.type);
    if (e == cudaSuccess)
        e = cudaDeviceSynchronize();
    bool ok = e == cudaSuccess;
    double error = NAN;
    int missing = 0;
    bool guards = true;
    if (ok) {
        int samples = (int)std::min<int64_t>(p.n, p.n > 1000 ? 61 : 1000);
        error = p.type == WAN_BF16  ? error_of<__nv_bfloat16>(s, p, samples)
                : p.type == WAN_F16 ? error_of<__half>(s, p, samples)
                                    : error_of<float>(s, p, samples);
        missing = unwritten(s, p.type);
        guards = guards_hold((char *)s.dst, s.bytes, 0xff) &&
                 guards_hold((char *)s.space, s.space_bytes, 0xa5);
    }
    /* bf16: results and weights rounded to 2^-9; f16: to 2^-12; f32: logits of 80 have errors of
     * some 1e-5. */
    double most = p.type == WAN_BF16 ? 4e-3 : p.type == WAN_F16 ? 5e-4 : p.spread > 4 ? 5e-5 : 1e-5;
    if (p.most > 0)
        most = p.most;
    ok = ok && error <= most && missing == 0 && guards;
    cases++;
    failures += !ok;
    printf("%s %s %s n=%lld m=%lld heads=%d size=%d last=%lld spread=%g%s rel_err=%.2e",
           ok ? "OK" : "FAIL", name, type_name(p.type), (long long)p.n, (long long)p.m, p.heads,
           p.size, (long long)p.last_key_count, p.spread, p.bias ? " bias" : "", error);
    if (p.most > 0)
        printf(" of %.2e", most);
    if (missing)
        printf(" unwritten=%d", missing);
    if (!guards)
        printf(" GUARD");
    if (e != cudaSuccess)
        printf(" %s", cudaGetErrorString(e));
    printf("\n");
    fflush(stdout);
    if (e != cudaSuccess)
        exit(1); /* nothing runs after that */
    release(s);
}

/* ------------------------------------------------------------------------- runners */

static cudaError_t run_any(const attention_args *a, dtype t) {
    return wan_cuda_attention_any(&device, a, t);
}

/* As the backend is called. */
static cudaError_t run_at(const attention_args *a, dtype t, precision p) {
    int64_t width = (int64_t)a->heads * a->head_dim;
    compute c = {};
    c.device = &device;
    c.precision = p;
    c.workspace = a->workspace;
    tensor q = {t, 2, {a->n, width}, (void *)a->q}, dst = {t, 2, {a->n, width}, a->dst};
    tensor k = {t, 2, {a->m, width}, (void *)a->k}, v = {t, 2, {a->m, width}, (void *)a->v};
    attention how = {};
    how.heads = a->heads;
    how.scale = a->scale;
    how.last_key_count = a->last_key_count;
    if (a->bias) {
        tensor bias = {WAN_F32, 2, {a->heads, 2 * a->reach - 1}, (void *)a->bias};
        how.bias = bias;
    }
    wan_cuda_attention(&c, dst, q, k, v, &how);
    return cudaGetLastError();
}

static cudaError_t run_op(const attention_args *a, dtype t) {
    return run_at(a, t, t == WAN_F32 ? WAN_PRECISION_F32 : WAN_PRECISION_BF16);
}

static cudaError_t run_op_fp8(const attention_args *a, dtype t) {
    return run_at(a, t, WAN_PRECISION_FP8);
}

template <class S> static cudaError_t run_shape(const attention_args *a, dtype t) {
    (void)t;
    return launch<S>(&device, a);
}

struct variant {
    const char *name;
    runner run;
};

/* ------------------------------------------------------------------------- checks */

static problem wide_head(int64_t n, int64_t m, int heads, int64_t last, float spread) {
    problem p = {n, m, heads, 128, last, spread, false, WAN_BF16};
    return p;
}

/* The same bits twice, and from a graph. */
static void check_again(const char *name, const problem &p, runner run) {
    setup s = prepare(p, true);
    std::vector<char> first(s.bytes), then(s.bytes);
    CHECK(run(&s.a, p.type));
    CHECK(cudaMemcpy(first.data(), s.dst, s.bytes, cudaMemcpyDeviceToHost));
    CHECK(cudaMemset(s.dst, 0xff, s.bytes));
    bool same = true;
    for (int i = 0; i < 5; i++) {
        CHECK(run(&s.a, p.type));
        CHECK(cudaMemcpy(then.data(), s.dst, s.bytes, cudaMemcpyDeviceToHost));
        same = same && first == then;
    }
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CHECK(cudaStreamCreate(&stream));
    CHECK(cudaMemset(s.dst, 0xff, s.bytes));
    CHECK(cudaDeviceSynchronize());
    device.stream = stream;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    CHECK(run(&s.a, p.type));
    CHECK(cudaStreamEndCapture(stream, &graph));
    device.stream = 0;
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    CHECK(cudaGraphLaunch(exec, stream));
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaMemcpy(then.data(), s.dst, s.bytes, cudaMemcpyDeviceToHost));
    bool captured = first == then;
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaStreamDestroy(stream));
    release(s);
    cases++;
    failures += !(same && captured);
    printf("%s %s again%s%s\n", same && captured ? "OK" : "FAIL", name, same ? "" : " DIFFERS",
           captured ? "" : " GRAPH");
}

/* ------------------------------------------------------------------------- bench */

static void bench(const char *name, const problem &p, runner run, int times) {
    enum { Sets = 3 };
    setup s[Sets];
    size_t bytes = (size_t)(2 * p.n + 2 * p.m) * p.heads * p.size * type_bytes(p.type);
    int sets = bytes < ((size_t)150 << 20) ? Sets : 1;
    for (int i = 0; i < sets; i++)
        s[i] = prepare(p, false);
    std::vector<cudaEvent_t> event(times + 1);
    for (cudaEvent_t &e : event)
        CHECK(cudaEventCreate(&e));
    for (int i = 0; i < 3; i++)
        CHECK(run(&s[i % sets].a, p.type));
    CHECK(cudaEventRecord(event[0]));
    for (int i = 0; i < times; i++) {
        CHECK(run(&s[i % sets].a, p.type));
        CHECK(cudaEventRecord(event[i + 1]));
    }
    CHECK(cudaDeviceSynchronize());
    std::vector<float> ms(times);
    for (int i = 0; i < times; i++)
        CHECK(cudaEventElapsedTime(&ms[i], event[i], event[i + 1]));
    std::sort(ms.begin(), ms.end());
    double flops = 4.0 * p.n * p.m * p.heads * p.size;
    printf(
        "BENCH %s %s n=%lld m=%lld heads=%d size=%d %.4f ms (%.4f..%.4f) %.1f TFLOP/s %.0f GB/s\n",
        name, type_name(p.type), (long long)p.n, (long long)p.m, p.heads, p.size, ms[times / 2],
        ms[0], ms[times - 1], flops / ms[times / 2] * 1e-9, bytes / ms[times / 2] * 1e-6);
    fflush(stdout);
    for (cudaEvent_t &e : event)
        CHECK(cudaEventDestroy(e));
    for (int i = 0; i < sets; i++)
        release(s[i]);
}

#endif
