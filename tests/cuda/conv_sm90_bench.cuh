/* SPDX-License-Identifier: Apache-2.0 */
/* conv_sm90_bench.cuh - the part of conv_sm90_test.cu that times. */
typedef struct pool {
    void *x[2], *weight[2]; /* of f16, of codes */
    number *dst;
    float *bias, *scale;
    int64_t nx, nw, nd;
} pool;

/* Median ms of one call, the card at work for `budget` ms before and as long meanwhile; buffers
 * change from call to call where they would fit the cache. */
static double time_one(const cuda_device *d, conv_args a, const pool &p, const variant *v,
                       double budget) {
    int64_t frame = a.height * a.width * a.in, x = frame * (a.frames_in + a.before);
    int64_t w = (a.in * a.out * a.kt * a.kh * a.kw + 15) / 16 * 16;
    int64_t out = (a.frames_out * a.dst_h * a.dst_w * a.out + 7) / 8 * 8;
    int coded = a.type == WAN_F8_E4M3;
    if (x > p.nx || w > p.nw || out > p.nd)
        return 0;
    static cudaEvent_t e[401];
    static bool made;
    for (int i = 0; i < 401 && !made; i++)
        CHECK(cudaEventCreate(&e[i]));
    made = true;
    a.held = a.before;
    a.bias = p.bias;
    a.scale = coded ? p.scale : NULL;
    a.unit = 1e-6f;
    double guess = flops(a) / 600e9; /* ms */
    int runs = (int)std::min(400., std::max(10., budget / guess)), warm = runs;
    for (int i = 0; i < warm + runs; i++) {
        void *from = number_at(p.x[coded], i % (p.nx / x) * x, a.type);
        a.past = a.before ? from : NULL;
        a.x = number_at(from, frame * a.before, a.type);
        a.weight = number_at(p.weight[coded], i % (p.nw / w) * w, a.type);
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

/* Both types in turns, at the power limit. */
static void bench_types(const cuda_device *d, const pool &p, int round) {
    shape normed = cube("L3 res 256 norm", 6, 240, 240, 256, 256, 3, 3, 2, false);
    normed.norm = true;
    const shape list[] = {
        normed,
        cube("L0 res 1024", 8, 30, 30, 1024, 1024, 3, 3, 2, false),
        cube("L1 res 1024", 16, 60, 60, 1024, 1024, 3, 3, 2, false),
        cube("L2 res 512", 21, 120, 120, 512, 512, 3, 3, 2, false),
        cube("L2 res 512 add", 21, 120, 120, 512, 512, 3, 3, 2, true),
        cube("L3 res 256", 6, 240, 240, 256, 256, 3, 3, 2, false),
        cube("L3 res 256 add", 6, 240, 240, 256, 256, 3, 3, 2, true),
    };
    for (const shape &s : list)
        for (dtype type : {WAN_F16, WAN_F8_E4M3}) {
            conv_args a = args_of(s, type);
            a.gain = s.norm ? p.scale : NULL;
            a.code = 8;
            for (const variant *v = variants; v < variants + VARIANTS; v++)
                if (variant_fits(v, &a) && v->outs != 160) {
                    double ms = time_one(d, a, p, v, 60);
                    printf("TYPES %s round %d %-16s %3dx%-3d %8.3f ms %6.1f TFLOP/s%s\n",
                           name_of(type), round, s.name, v->rows, v->outs, ms, flops(a) / ms / 1e9,
                           v == choose(d, &a) ? " chosen" : "");
                }
            if (type == WAN_F16 || s.norm)
                continue;
            double ms = time_one(d, a, p, &in_one_piece, 60);
            printf("TYPES %s round %d %-16s in one piece %8.3f ms %6.1f TFLOP/s\n", name_of(type),
                   round, s.name, ms, flops(a) / ms / 1e9);
        }
}

typedef struct layer {
    shape s;          /* of one piece; height and width are the latent's factor */
    int total, count; /* frames in all; such layers */
} layer;

typedef struct sums {
    double chosen, best, work;
} sums;

/* Times one shape with the variants that make sense; counts it `weight` times. */
static void bench_shape(const cuda_device *d, const pool &p, const shape &s, dtype type,
                        double weight, sums *sum) {
    conv_args a = args_of(s, type);
    const variant *chosen = choose(d, &a);
    double least = 0, ours = 0;
    for (const variant *v = variants; v < variants + VARIANTS; v++) {
        if (!variant_fits(v, &a) || (a.out <= 16 && v->outs > 16) ||
            (v->outs == 160 && a.out % 160))
            continue;
        double ms = time_one(d, a, p, v, 40);
        printf("BENCH %s %-26s %3dx%-3d %8.3f ms %6.1f TFLOP/s%s\n", name_of(type), s.name, v->rows,
               v->outs, ms, flops(a) / ms / 1e9, v == chosen ? " chosen" : "");
        if (!least || ms < least)
            least = ms;
        if (v == chosen)
            ours = ms;
    }
    sum->chosen += ours * weight;
    sum->best += least * weight;
    sum->work += flops(a) * weight;
}

/* The decoder of vae.md 8.1.  Pieces as a level is likely to be cut.  In codes are residual blocks.
 */
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
    sums sum[2] = {};
    for (layer &l : list) {
        double weight = l.count * (double)l.total / l.s.frames;
        bool block = strstr(l.s.name, "res") != NULL;
        l.s.height *= h;
        l.s.width *= w;
        sums once = {};
        bench_shape(d, p, l.s, WAN_F16, weight, &once);
        for (int coded = 0; coded < 2; coded++)
            if (coded && block)
                bench_shape(d, p, l.s, WAN_F8_E4M3, weight, &sum[1]);
            else
                sum[coded] = sums{sum[coded].chosen + once.chosen, sum[coded].best + once.best,
                                  sum[coded].work + once.work};
    }
    for (int coded = 0; coded < 2; coded++)
        printf("DECODE %s %lldx%lldx%d pieces %d %d %d %d: %.1f TFLOP; as chosen %.1f ms %.1f "
               "TFLOP/s; best of each %.1f ms %.1f TFLOP/s\n",
               coded ? "f8 " : "f16", (long long)w * 16, (long long)h * 16, t2, p0, p1, p2, p3,
               sum[coded].work / 1e12, sum[coded].chosen, sum[coded].work / sum[coded].chosen / 1e9,
               sum[coded].best, sum[coded].work / sum[coded].best / 1e9);
}

static void bench_others(const cuda_device *d, const pool &p) {
    sums none = {};
    bench_shape(d, p, cube("matrix 8192x8192x8192", 1, 1, 8192, 8192, 8192, 1, 1, 0, false),
                WAN_F16, 1, &none);
    bench_shape(d, p, cube("encoder 160, 1 frame", 1, 240, 240, 160, 160, 3, 3, 2, false), WAN_F16,
                1, &none);
    bench_shape(d, p, cube("encoder 320, 1 frame", 1, 120, 120, 320, 320, 3, 3, 2, false), WAN_F16,
                1, &none);
    bench_shape(d, p, cube("encoder 640, 1 frame", 1, 60, 60, 640, 640, 3, 3, 2, false), WAN_F16, 1,
                &none);
    /* What a call costs the host. */
    conv_args a = args_of(cube("", 1, 4, 4, 64, 64, 3, 3, 2, false), WAN_F16);
    a.x = a.past = p.x[0];
    a.weight = p.weight[0];
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

static void make_pool(pool *p) {
    p->nx = 700ll << 20;
    p->nw = 120ll << 20;
    p->nd = 700ll << 20;
    for (int coded = 0; coded < 2; coded++) {
        dtype type = coded ? WAN_F8_E4M3 : WAN_F16;
        CHECK(cudaMalloc(&p->x[coded], p->nx * size_of(type)));
        CHECK(cudaMalloc(&p->weight[coded], p->nw * size_of(type)));
        fill<<<2048, 256>>>(p->x[coded], type, p->nx, 1, coded ? 14.f : 1.f, PLAIN);
        fill<<<2048, 256>>>(p->weight[coded], type, p->nw, 2, coded ? 448.f : 0.02f, PLAIN);
    }
    CHECK(cudaMalloc(&p->dst, p->nd * 2));
    CHECK(cudaMalloc(&p->bias, 65536));
    CHECK(cudaMalloc(&p->scale, 65536));
    CHECK(cudaMemset(p->bias, 0, 65536));
    CHECK(cudaMemset(p->dst, 0, p->nd * 2));
    fill_f32<<<16, 256>>>(p->scale, 16384, 3, 0.f, 1.f);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
}

static void bench(const cuda_device *d) {
    pool p = {};
    make_pool(&p);
    static const int pieces480[] = {8, 16, 21, 6}, pieces704[] = {3, 6, 6, 2};
    for (int round = 0; round < 2; round++)
        bench_types(d, p, round);
    bench_decoder(d, p, 30, 30, 21, pieces480);
    bench_decoder(d, p, 44, 80, 31, pieces704);
    bench_others(d, p);
}
