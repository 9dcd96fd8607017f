/* SPDX-License-Identifier: Apache-2.0 */
/* conv_sm90_bench.cuh - the part of conv_sm90_test.cu that times. */
typedef struct pool {
    number *x, *weight, *dst;
    float *bias;
    int64_t nx, nw, nd;
} pool;

/* Median ms of one call, the card at work for `budget` ms before and as long meanwhile; buffers
 * change from call to call where they would fit the cache. */
static double time_one(const cuda_device *d, conv_args a, const pool &p, const variant *v,
                       double budget) {
    int64_t frame = a.height * a.width * a.in, x = frame * (a.frames_in + a.before);
    int64_t w = (a.in * a.out * a.kt * a.kh * a.kw + 7) / 8 * 8;
    int64_t out = (a.frames_out * a.dst_h * a.dst_w * a.out + 7) / 8 * 8;
    if (x > p.nx || w > p.nw || out > p.nd)
        return 0;
    static cudaEvent_t e[401];
    static bool made;
    for (int i = 0; i < 401 && !made; i++)
        CHECK(cudaEventCreate(&e[i]));
    made = true;
    a.held = a.before;
    a.bias = p.bias;
    double guess = flops(a) / 600e9; /* ms */
    int runs = (int)std::min(400., std::max(10., budget / guess)), warm = runs;
    for (int i = 0; i < warm + runs; i++) {
        a.past = a.before ? p.x + i % (p.nx / x) * x : NULL;
        a.x = p.x + i % (p.nx / x) * x + frame * a.before;
        a.weight = p.weight + i % (p.nw / w) * w;
        a.dst = p.dst + i % (p.nd / out) * out;
        if (i >= warm)
            CHECK(cudaEventRecord(e[i - warm], d->stream));
        run(d, &a, v);
    }
    CHECK(cudaEventRecord(e[runs], d->stream));
    CHECK(cudaStreamSynchronize(d->stream));
    std::vector<float> ms(runs);
    for (int i = 0; i < runs; i++)
        CHECK(cudaEventElapsedTime(&ms[i], e[i], e[i + 1]));
    std::sort(ms.begin(), ms.end());
    return ms[runs / 2];
}

typedef struct layer {
    shape s;          /* of one piece; height and width are the latent's factor */
    int total, count; /* frames in all; such layers */
} layer;

typedef struct sums {
    double chosen, best, work;
} sums;

/* Times one shape with the variants that make sense; counts it `weight` times. */
static void bench_shape(const cuda_device *d, const pool &p, const shape &s, double weight,
                        sums *sum) {
    conv_args a = args_of(s);
    const variant *chosen = choose(d, &a);
    double least = 0, ours = 0;
    for (const variant *v = variants; v < variants + VARIANTS; v++) {
        if (!variant_fits(v, &a) || (a.out <= 16 && v->outs > 16) ||
            (v->outs == 160 && a.out % 160))
            continue;
        double ms = time_one(d, a, p, v, 40);
        printf("BENCH %-26s %3dx%-3d %8.3f ms %6.1f TFLOP/s%s\n", s.name, v->rows, v->outs, ms,
               flops(a) / ms / 1e9, v == chosen ? " chosen" : "");
        if (!least || ms < least)
            least = ms;
        if (v == chosen)
            ours = ms;
    }
    sum->chosen += ours * weight;
    sum->best += least * weight;
    sum->work += flops(a) * weight;
}

/* The decoder of vae.md 8.1.  Pieces as a level is likely to be cut. */
static void bench_decoder(const cuda_device *d, const pool &p, int64_t h, int64_t w, int latents,
                          const int piece[4]) {
    int t0 = latents, t1 = 2 * t0 - 1, t2 = 2 * t1 - 1;
    int p0 = piece[0], p1 = piece[1], p2 = piece[2], p3 = piece[3];
    std::vector<layer> list = {
        {cube("L0 conv1 48-1024", p0, 1, 1, 48, 1024, 3, 3, 2, false), t0, 1},
        {cube("L0 res 1024", p0, 1, 1, 1024, 1024, 3, 3, 2, false), t0, 5},
        {cube("L0 res 1024 add", p0, 1, 1, 1024, 1024, 3, 3, 2, true), t0, 5},
        {cube("L0 qkv 1024-3072", p0, 1, 1, 1024, 3072, 1, 1, 0, false), t0, 1},
        {cube("L0 proj 1024", p0, 1, 1, 1024, 1024, 1, 1, 0, true), t0, 1},
        {time_up("L0 time 1024-2048", p0, 1, 1, 1024, 2048, 2), t0 - 1, 1},
        {phase("up0 phase 1024", 2 * p0, 1, 1, 1024, 1024, 1, true), t1, 4},
        {cube("L1 res 1024", p1, 2, 2, 1024, 1024, 3, 3, 2, false), t1, 3},
        {cube("L1 res 1024 add", p1, 2, 2, 1024, 1024, 3, 3, 2, true), t1, 3},
        {time_up("L1 time 1024-2048", p1, 2, 2, 1024, 2048, 2), t1 - 1, 1},
        {phase("up1 phase 1024", p1, 2, 2, 1024, 1024, 1, true), t2, 4},
        {cube("L2 res 1024-512", p2, 4, 4, 1024, 512, 3, 3, 2, false), t2, 1},
        {cube("L2 res 512", p2, 4, 4, 512, 512, 3, 3, 2, false), t2, 2},
        {cube("L2 res 512 add", p2, 4, 4, 512, 512, 3, 3, 2, true), t2, 3},
        {cube("L2 short 1024-512", p2, 4, 4, 1024, 512, 1, 1, 0, false), t2, 1},
        {phase("up2 phase 512", p2, 4, 4, 512, 512, 1, true), t2, 4},
        {cube("L3 res 512-256", p3, 8, 8, 512, 256, 3, 3, 2, false), t2, 1},
        {cube("L3 res 256", p3, 8, 8, 256, 256, 3, 3, 2, false), t2, 2},
        {cube("L3 res 256 add", p3, 8, 8, 256, 256, 3, 3, 2, true), t2, 3},
        {cube("L3 short 512-256", p3, 8, 8, 512, 256, 1, 1, 0, false), t2, 1},
        {cube("L3 head 12", p3, 8, 8, 256, 12, 3, 3, 2, false), t2, 1},
    };
    sums sum = {};
    for (layer &l : list) {
        l.s.height *= h;
        l.s.width *= w;
        bench_shape(d, p, l.s, l.count * (double)l.total / l.s.frames, &sum);
    }
    printf(
        "DECODE %lldx%lldx%d pieces %d %d %d %d: %.1f TFLOP; as chosen %.1f ms %.1f TFLOP/s; best "
        "of each %.1f ms %.1f TFLOP/s\n",
        (long long)w * 16, (long long)h * 16, t2, p0, p1, p2, p3, sum.work / 1e12, sum.chosen,
        sum.work / sum.chosen / 1e9, sum.best, sum.work / sum.best / 1e9);
}

static void bench_others(const cuda_device *d, const pool &p) {
    sums none = {};
    bench_shape(d, p, cube("matrix 8192x8192x8192", 1, 1, 8192, 8192, 8192, 1, 1, 0, false), 1,
                &none);
    bench_shape(d, p, cube("encoder 160, 1 frame", 1, 240, 240, 160, 160, 3, 3, 2, false), 1,
                &none);
    bench_shape(d, p, cube("encoder 320, 1 frame", 1, 120, 120, 320, 320, 3, 3, 2, false), 1,
                &none);
    bench_shape(d, p, cube("encoder 640, 1 frame", 1, 60, 60, 640, 640, 3, 3, 2, false), 1, &none);
    /* What a call costs the host. */
    conv_args a = args_of(cube("", 1, 4, 4, 64, 64, 3, 3, 2, false));
    a.x = a.past = p.x;
    a.weight = p.weight;
    a.dst = p.dst;
    cudaError_t e = cudaSuccess;
    wan_cuda_conv_sm90(d, &a, &e);
    CHECK(cudaStreamSynchronize(d->stream));
    auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < 400; i++)
        wan_cuda_conv_sm90(d, &a, &e);
    auto took = std::chrono::steady_clock::now() - start;
    CHECK(e);
    CHECK(cudaStreamSynchronize(d->stream));
    printf("BENCH host %.2f us a call\n",
           std::chrono::duration<double, std::micro>(took).count() / 400);
}

static void draw(const pool &p) {
    fill<<<2048, 256>>>(p.x, p.nx, 1, 1.f, false);
    fill<<<2048, 256>>>(p.weight, p.nw, 2, 0.02f, false);
    CHECK(cudaMemset(p.dst, 0, p.nd * 2));
    CHECK(cudaDeviceSynchronize());
}

static void bench(const cuda_device *d) {
    pool p = {};
    p.nx = 800ll << 20;
    p.nw = 120ll << 20;
    p.nd = 700ll << 20;
    CHECK(cudaMalloc(&p.x, p.nx * 2));
    CHECK(cudaMalloc(&p.weight, p.nw * 2));
    CHECK(cudaMalloc(&p.dst, p.nd * 2));
    CHECK(cudaMalloc(&p.bias, 65536));
    CHECK(cudaMemset(p.bias, 0, 65536));
    static const int pieces480[] = {8, 16, 21, 6}, pieces704[] = {3, 6, 6, 2};
    draw(p);
    bench_decoder(d, p, 30, 30, 21, pieces480);
    bench_decoder(d, p, 44, 80, 31, pieces704);
    bench_others(d, p);
}
