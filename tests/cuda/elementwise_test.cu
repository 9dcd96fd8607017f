/* SPDX-License-Identifier: Apache-2.0 */
/* Norms, elementwise ops and ops on frames against sums written down here, in double; with --bench
 * their share of copy bandwidth at the model's sizes.  (--small: the checks, which are small.) */
#include "check.cuh"

#include "base/fp8.h"

#include "backend/cuda/norm.cu" /* their kernels, with other numbers of threads, for the bench */
#include "backend/cuda/pixel_norm.cu"

static compute c;

static const dtype both[2] = {WAN_F32, WAN_BF16}, every[3] = {WAN_F32, WAN_BF16, WAN_F16};

/* f for every pair of types that meets. */
template <class F> static void each_types(F f) {
    for (dtype a : every)
        for (dtype b : every)
            if (a == b || a == WAN_F32 || b == WAN_F32)
                f(a, b);
}

/* ----------------------------------------------------------------------------------- norms */

static void layer_norm_case(int64_t rows, int64_t dim, dtype to, dtype from, float offset,
                            int shift) {
    array x(from, rows * dim, shift), gain(WAN_F32, dim), bias(WAN_F32, dim), y(to, rows * dim);
    std::vector<double> want((size_t)(rows * dim));
    x.fill(1, offset), gain.fill(0.2f, 1), bias.fill(0.2f);
    for (int64_t r = 0; r < rows; r++) {
        double mean = 0, var = 0;
        for (int64_t i = 0; i < dim; i++)
            mean += x.v[r * dim + i] / (double)dim;
        for (int64_t i = 0; i < dim; i++)
            var += (x.v[r * dim + i] - mean) * (x.v[r * dim + i] - mean) / (double)dim;
        for (int64_t i = 0; i < dim; i++)
            want[r * dim + i] =
                (x.v[r * dim + i] - mean) / sqrt(var + 1e-6) * gain.v[i] + bias.v[i];
    }
    wan_cuda_layer_norm(&c, y.as({rows, dim}), x.as({rows, dim}), gain.as({dim}), bias.as({dim}),
                        1e-6f);
    /* half an ulp of the mean is what f32 can do */
    double most = tolerance(to) + fabs(offset) * 6e-8;
    expect(text("layer_norm %lldx%lld %s<-%s mean %g shift %d", (long long)rows, (long long)dim,
                name_of(to), name_of(from), offset, shift),
           y, want, most);
}

static by_frame modulation(const array &rows, int64_t distinct, int64_t width, int64_t at,
                           const numbers &frames, int64_t each) {
    by_frame m;
    m.rows = rows.as({distinct, width});
    m.at = at;
    m.row_of_frame = frames.as();
    m.tokens_per_frame = each;
    return m;
}

static void modulate_case(int64_t frames, int64_t each, int64_t dim, dtype to, dtype from,
                          int64_t at) {
    int64_t rows = frames * each, width = 6 * dim + at;
    array x(from, rows * dim), table(WAN_F32, 2 * width), y(to, rows * dim), sum(to, rows * dim);
    std::vector<int32_t> row;
    std::vector<double> want((size_t)(rows * dim)), added(want);
    for (int64_t f = 0; f < frames; f++)
        row.push_back(f > 0);
    numbers row_of_frame(row);
    x.fill(2, 0.5f), table.fill(0.3f), sum.fill();
    for (int64_t r = 0; r < rows; r++) {
        const float *t = &table.v[row[r / each] * width + at];
        double mean = 0, var = 0;
        for (int64_t i = 0; i < dim; i++)
            mean += x.v[r * dim + i] / (double)dim;
        for (int64_t i = 0; i < dim; i++)
            var += (x.v[r * dim + i] - mean) * (x.v[r * dim + i] - mean) / (double)dim;
        for (int64_t i = 0; i < dim; i++) {
            want[r * dim + i] =
                (x.v[r * dim + i] - mean) / sqrt(var + 1e-6) * (1 + t[dim + i]) + t[i];
            added[r * dim + i] = sum.v[r * dim + i] + (double)x.v[r * dim + i] * t[2 * dim + i];
        }
    }
    auto part = [&](int64_t i) {
        return modulation(table, 2, width, at + i * dim, row_of_frame, each);
    };
    std::string what = text("%lldx%lldx%lld %s<-%s at %lld", (long long)frames, (long long)each,
                            (long long)dim, name_of(to), name_of(from), (long long)at);
    wan_cuda_norm_modulate(&c, y.as({rows, dim}), x.as({rows, dim}), part(0), part(1), 1e-6f);
    expect("norm_modulate " + what, y, want, tolerance(to));
    wan_cuda_add_gated(&c, sum.as({rows, dim}), x.as({rows, dim}), part(2));
    expect("add_gated " + what, sum, added, tolerance(to));
}

static void rms_case(int64_t rows, int64_t dim, dtype to, dtype from, int shift) {
    array x(from, rows * dim, shift), gain(WAN_F32, dim), y(to, rows * dim);
    std::vector<double> want((size_t)(rows * dim));
    x.fill(3), gain.fill(0.2f, 1);
    for (int64_t r = 0; r < rows; r++) {
        double sum = 0;
        for (int64_t i = 0; i < dim; i++)
            sum += (double)x.v[r * dim + i] * x.v[r * dim + i];
        for (int64_t i = 0; i < dim; i++)
            want[r * dim + i] = x.v[r * dim + i] / sqrt(sum / dim + 1e-6) * gain.v[i];
    }
    wan_cuda_rms_norm(&c, y.as({rows, dim}), x.as({rows, dim}), gain.as({dim}), 1e-6f);
    expect(text("rms_norm %lldx%lld %s<-%s shift %d", (long long)rows, (long long)dim, name_of(to),
                name_of(from), shift),
           y, want, tolerance(to));
}

static void qk_case(std::vector<int64_t> grid, std::vector<int64_t> pairs, int heads, dtype type,
                    bool turns) {
    int64_t head = 2 * (pairs[0] + pairs[1] + pairs[2]), dim = head * heads;
    int64_t rows = grid[0] * grid[1] * grid[2];
    array x(type, rows * dim), gain(WAN_F32, dim);
    array t0(WAN_F32, grid[0] * pairs[0] * 2), t1(WAN_F32, grid[1] * pairs[1] * 2),
        t2(WAN_F32, grid[2] * pairs[2] * 2);
    array *table[3] = {&t0, &t1, &t2};
    std::vector<double> want((size_t)(rows * dim));
    rope r;
    x.fill(3), gain.fill(0.2f, 1);
    for (int i = 0; i < 3; i++) {
        table[i]->fill();
        r.grid[i] = grid[i];
        r.pairs[i] = pairs[i];
        r.table[i] = table[i]->as({grid[i], pairs[i], 2});
    }
    for (int64_t n = 0; n < rows; n++) {
        int64_t at[3] = {n / (grid[1] * grid[2]), n / grid[2] % grid[1], n % grid[2]};
        double sum = 0;
        for (int64_t i = 0; i < dim; i++)
            sum += (double)x.v[n * dim + i] * x.v[n * dim + i];
        for (int64_t i = 0; i < dim; i += 2) {
            int64_t p = i % head / 2, axis = p < pairs[0] ? 0 : p < pairs[0] + pairs[1] ? 1 : 2;
            p -= axis > 0 ? pairs[0] : 0;
            p -= axis > 1 ? pairs[1] : 0;
            const float *t = &table[axis]->v[(at[axis] * pairs[axis] + p) * 2];
            double a = x.v[n * dim + i] / sqrt(sum / dim + 1e-6) * gain.v[i];
            double b = x.v[n * dim + i + 1] / sqrt(sum / dim + 1e-6) * gain.v[i + 1];
            want[n * dim + i] = turns ? a * t[0] - b * t[1] : a;
            want[n * dim + i + 1] = turns ? b * t[0] + a * t[1] : b;
        }
    }
    wan_cuda_qk_norm_rope(&c, x.as({rows, dim}), gain.as({dim}), 1e-6f, heads, turns ? &r : NULL);
    expect(text("qk_norm_rope %lld rows, %d heads of %lld %s %s", (long long)rows, heads,
                (long long)head, name_of(type), turns ? "turned" : "plain"),
           x, want, tolerance(type));
}

static void pixel_case(int64_t pixels, int64_t n, dtype to, dtype from, bool silu, bool in_place) {
    array x(from, pixels * n), gain(WAN_F32, n), y(to, pixels * n);
    std::vector<double> want((size_t)(pixels * n));
    x.fill(3), gain.fill(0.2f, 1);
    std::fill(x.v.begin(), x.v.begin() + n, 0.0f); /* a pixel of zeros */
    x.send();
    for (int64_t p = 0; p < pixels; p++) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++)
            sum += (double)x.v[p * n + i] * x.v[p * n + i];
        for (int64_t i = 0; i < n; i++) {
            double v = x.v[p * n + i] / fmax(sqrt(sum), 1e-12) * sqrt((double)n) * gain.v[i];
            want[p * n + i] = silu ? v / (1 + exp(-v)) : v;
        }
    }
    const array &dst = in_place ? x : y;
    wan_cuda_pixel_norm(&c, dst.as({1, 1, pixels, n}), x.as({1, 1, pixels, n}), gain.as({n}), silu);
    expect(text("pixel_norm %lldx%lld %s<-%s%s%s", (long long)pixels, (long long)n,
                name_of(dst.type), name_of(from), silu ? " silu" : "", in_place ? " in place" : ""),
           dst, want, tolerance(dst.type));
}

/* Codes are bytes in an array of f32.  Each is within a sixteenth, or half of the smallest, of what
 * it stands for. */
static void codes_case(int64_t pixels, int64_t n, float most_gain) {
    array x(WAN_F16, pixels * n), gain(WAN_F32, n), y(WAN_F32, pixels * n / 4);
    x.fill(3), gain.fill(0.2f * most_gain, most_gain);
    float code = exp2f(floorf(log2f(448 / (sqrtf((float)n) * 2 * most_gain))));
    tensor codes = y.as({1, 1, pixels, n});
    codes.type = WAN_F8_E4M3;
    wan_cuda_pixel_codes(&c, codes, x.as({1, 1, pixels, n}), gain.as({n}), code);
    std::vector<float> got = y.fetch();
    const uint8_t *at = (const uint8_t *)got.data();
    double off = 0, all = 0;
    int64_t wrong = 0;
    for (int64_t p = 0; p < pixels; p++) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++)
            sum += (double)x.v[p * n + i] * x.v[p * n + i];
        for (int64_t i = 0; i < n; i++) {
            double v = x.v[p * n + i] / sqrt(sum) * sqrt((double)n) * gain.v[i];
            double want = v / (1 + exp(-v)) * code;
            double d = wan_f8_e4m3_to_float(at[p * n + i]) - want;
            off += d * d, all += want * want;
            wrong += !(fabs(d) <= fabs(want) * (1.001 / 16) + 0x1p-10);
        }
    }
    report(
        !wrong && off < all / 900 && y.guards_hold(),
        text("pixel_codes %lldx%lld gain %g", (long long)pixels, (long long)n, most_gain).c_str(),
        sqrt(off / all));
}

static void norms() {
    for (int64_t n : {1024, 640, 512, 256, 160, 48, 16, 1280})
        for (float most : {1.0f, 0.02f, 40.0f})
            codes_case(37, n, most);
    static const int64_t shape[][2] = {{5, 3072}, {3, 5120}, {7, 4096}, {3, 1024}, {2, 2048},
                                       {1, 1},    {3, 7},    {4, 100},  {9, 8},    {2, 6144}};
    each_types([](dtype to, dtype from) {
        for (int64_t n : {1024, 640, 512, 320, 256, 160, 48, 12, 5, 1280}) {
            pixel_case(37, n, to, from, n % 64 != 0, false);
            pixel_case(6, n, to, from, true, false);
        }
        if (to == WAN_F16 || from == WAN_F16) /* tokens are not */
            return;
        for (auto s : shape) {
            layer_norm_case(s[0], s[1], to, from, 0.1f, 0);
            rms_case(s[0], s[1], to, from, 0);
        }
        layer_norm_case(3, 3072, to, from, 0, 1);
        rms_case(3, 3072, to, from, 3);
        modulate_case(3, 5, 3072, to, from, 0);
        modulate_case(2, 3, 1536, to, from, 3);
        modulate_case(2, 7, 20, to, from, 0);
    });
    layer_norm_case(3, 3072, WAN_F32, WAN_F32, 1000, 0);
    layer_norm_case(3, 3072, WAN_BF16, WAN_F32, -5000, 0);
    for (dtype t : every) {
        pixel_case(19, 256, t, t, true, true);
        pixel_case(19, 7, t, t, true, true);
    }
    for (dtype t : both)
        for (bool turns : {true, false}) {
            qk_case({2, 3, 4}, {22, 21, 21}, 24, t, turns);
            qk_case({1, 3, 5}, {22, 21, 21}, 40, t, turns);
            qk_case({2, 2, 3}, {2, 2, 2}, 5, t, turns);
            qk_case({1, 2, 3}, {3, 3, 2}, 4, t, turns);
            qk_case({2, 2, 3}, {1, 0, 0}, 1, t, turns);
        }
}

/* ------------------------------------------------------------------------------- elementwise */

static double act_of(double x, activation a) {
    if (a == WAN_SILU)
        return x / (1 + exp(-x));
    if (a == WAN_GELU_TANH)
        return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979) * (x + 0.044715 * x * x * x)));
    return x;
}

static void flat_case(int64_t n, dtype to, dtype from, int shift) {
    array x(to, n), y(from, n, shift), m(to, n), a(to, n);
    std::vector<double> sum((size_t)n), product(sum), want(sum);
    std::string what =
        text("%lld %s<-%s shift %d", (long long)n, name_of(to), name_of(from), shift);
    x.fill(), m.fill(), y.fill(4);
    for (int64_t i = 0; i < n; i++) {
        sum[i] = (double)x.v[i] + y.v[i];
        product[i] = (double)m.v[i] * y.v[i];
    }
    wan_cuda_add(&c, x.as({n}), y.as({n}));
    expect("add " + what, x, sum, tolerance(to));
    wan_cuda_mul(&c, m.as({n}), y.as({n}));
    expect("mul " + what, m, product, tolerance(to));
    y.fill(4);
    for (activation act : {WAN_NONE, WAN_SILU, WAN_GELU_TANH}) {
        y.v[0] = act ? -1e30f : -1, y.v[n / 2] = -90, y.v[n - 1] = n > 4000 ? 90 : 9;
        y.send();
        for (int64_t i = 0; i < n; i++)
            want[i] = act_of(y.v[i], act);
        wan_cuda_activate(&c, a.as({n}), y.as({n}), act);
        expect(text("activate %d ", act) + what, a, want, tolerance(to));
    }
}

static void add_vector_case(int64_t rows, int64_t dim, dtype to, dtype from) {
    array x(from, rows * dim), v(WAN_F32, dim), y(to, rows * dim);
    std::vector<double> want((size_t)(rows * dim));
    x.fill(), v.fill();
    for (int64_t i = 0; i < rows * dim; i++)
        want[i] = (double)x.v[i] + v.v[i % dim];
    wan_cuda_add_vector(&c, y.as({rows, dim}), x.as({rows, dim}), v.as({dim}));
    expect(text("add_vector %lldx%lld %s<-%s", (long long)rows, (long long)dim, name_of(to),
                name_of(from)),
           y, want, tolerance(to));
}

static void patch_case(int64_t C, std::vector<int64_t> size, std::vector<int64_t> patch, dtype t) {
    int64_t plane = size[0] * size[1] * size[2], cells = patch[0] * patch[1] * patch[2];
    int64_t tokens = plane / cells;
    array latents(WAN_F32, C * plane), in(t, C * plane), back(WAN_F32, C * plane);
    std::vector<double> want_in((size_t)(C * plane)), want_back(want_in);
    latents.fill();
    int64_t token = 0;
    for (int64_t f = 0; f < size[0]; f += patch[0])
        for (int64_t y = 0; y < size[1]; y += patch[1])
            for (int64_t x = 0; x < size[2]; x += patch[2], token++)
                for (int64_t ch = 0; ch < C; ch++)
                    for (int64_t k = 0; k < cells; k++) {
                        int64_t df = k / (patch[1] * patch[2]), dy = k / patch[2] % patch[1];
                        int64_t at =
                            ch * plane + ((f + df) * size[1] + y + dy) * size[2] + x + k % patch[2];
                        want_in[(token * C + ch) * cells + k] = as_type(latents.v[at], t);
                        /* tokens as they stand after the first half, read channel fastest */
                        want_back[at] = (token * cells + k) * C + ch;
                    }
    wan_cuda_patchify(&c, in.as({tokens, C * cells}), latents.as({C, size[0], size[1], size[2]}),
                      patch.data());
    std::string what = text("C %lld, %lld tokens %s", (long long)C, (long long)tokens, name_of(t));
    expect("patchify " + what, in, want_in, 0);
    for (auto &v : want_back)
        v = want_in[(size_t)v];
    wan_cuda_unpatchify(&c, back.as({C, size[0], size[1], size[2]}), in.as({tokens, C * cells}),
                        patch.data());
    expect("unpatchify " + what, back, want_back, 0);
}

/* What f16 cannot hold: 8 numbers at once, and one by one. */
static void saturation_case(int shift) {
    const float from[8] = {1e6f, -1e6f, INFINITY, -INFINITY, NAN, 65519, -65520, 1e-9f};
    const double to[8] = {65504, -65504, 65504, -65504, NAN, 65504, -65504, 0};
    array x(WAN_F32, 11), y(WAN_F16, 11, shift);
    std::vector<double> want(11);
    for (int i = 0; i < 11; i++) {
        x.v[i] = from[i % 8];
        want[i] = to[i % 8];
    }
    x.send();
    wan_cuda_activate(&c, y.as({11}), x.as({11}), WAN_NONE);
    expect(text("activate 0, too large for f16, shift %d", shift), y, want, 0);
    std::vector<float> got = y.fetch();
    report(got[4] != got[4], "a NaN stays one", 0);
}

static void elementwise() {
    saturation_case(0);
    saturation_case(1);
    each_types([](dtype to, dtype from) {
        for (int64_t n : {1, 7, 8, 9, 2048, 4099, 100001})
            flat_case(n, to, from, 0);
        flat_case(1001, to, from, 1);
        add_vector_case(5, 3072, to, from);
        add_vector_case(3, 5000, to, from);
        add_vector_case(4, 13, to, from);
    });
    for (dtype t : every) {
        patch_case(48, {3, 4, 6}, {1, 2, 2}, t);
        patch_case(5, {4, 3, 6}, {2, 1, 3}, t);
    }
}

/* ------------------------------------------------------------------------------------ frames */

static void dup_case(int64_t in, int64_t out, int ft, int fs, bool first, dtype to, dtype from) {
    int64_t T = 3, H = 2, W = 5, drop = first ? ft - 1 : 0, r = out * ft * fs * fs / in;
    int64_t frames = T * ft - drop;
    array x(from, T * H * W * in), y(to, frames * H * fs * W * fs * out);
    std::vector<double> want((size_t)y.n);
    x.fill();
    for (int64_t t = 0; t < T * ft; t++)
        for (int64_t yy = 0; yy < H * fs && t >= drop; yy++)
            for (int64_t xx = 0; xx < W * fs; xx++)
                for (int64_t o = 0; o < out; o++) {
                    int64_t ch = (((o * ft + t % ft) * fs + yy % fs) * fs + xx % fs) / r;
                    want[(((t - drop) * H * fs + yy) * W * fs + xx) * out + o] =
                        as_type(x.v[((t / ft * H + yy / fs) * W + xx / fs) * in + ch], to);
                }
    wan_cuda_dup_up(&c, y.as({frames, H * fs, W * fs, out}), x.as({T, H, W, in}), ft, fs,
                    (int)drop);
    expect(text("dup_up %lld->%lld x%dx%d first %d %s<-%s", (long long)in, (long long)out, ft, fs,
                first, name_of(to), name_of(from)),
           y, want, 0);
}

static void avg_case(int64_t in, int64_t out, int ft, int fs, bool first, dtype to, dtype from) {
    int64_t pad = first ? ft - 1 : 0, T = 3 * ft - pad, H = 2 * fs + fs / 2, W = 5 * fs + fs / 2;
    int64_t oH = H / fs, oW = W / fs, g = in * ft * fs * fs / out;
    array x(from, T * H * W * in), y(to, 3 * oH * oW * out);
    std::vector<double> want((size_t)y.n);
    x.fill();
    for (int64_t i = 0; i < y.n; i++) {
        int64_t o = i % out, xx = i / out % oW, yy = i / out / oW % oH, t = i / out / oW / oH;
        for (int64_t f = o * g; f < (o + 1) * g; f++) {
            int64_t ix = f % fs, iy = f / fs % fs, it = f / fs / fs % ft, ch = f / fs / fs / ft;
            int64_t frame = t * ft + it - pad;
            if (frame >= 0)
                want[i] +=
                    x.v[((frame * H + yy * fs + iy) * W + xx * fs + ix) * in + ch] / (double)g;
        }
    }
    wan_cuda_avg_down(&c, y.as({3, oH, oW, out}), x.as({T, H, W, in}), ft, fs, (int)pad);
    expect(text("avg_down %lld->%lld /%d/%d first %d %s<-%s", (long long)in, (long long)out, ft, fs,
                first, name_of(to), name_of(from)),
           y, want, tolerance(to));
}

static void copy_case(int64_t n, int64_t from, int64_t to, int64_t count, dtype t) {
    array x(t, n);
    x.fill();
    std::vector<double> want(x.v.begin(), x.v.end());
    for (int64_t i = 0; i < count; i++)
        want[to + i] = x.v[from + i];
    tensor a = x.as({count}), b = x.as({count});
    a.data = x.at + (size_t)to * x.size;
    b.data = x.at + (size_t)from * x.size;
    wan_cuda_copy(&c, a, b);
    expect(text("copy %lld from %lld to %lld %s", (long long)count, (long long)from, (long long)to,
                name_of(t)),
           x, want, 0);
}

static void pixels_case(int64_t planes, int p, dtype t) {
    int64_t T = 4, count = 2, h = 3, w = 7, from = 1, C = planes * p * p;
    array image(WAN_F32, planes * T * h * p * w * p), x(t, count * h * w * C),
        out(WAN_F32, image.n);
    std::vector<double> in_want((size_t)x.n), out_want((size_t)image.n);
    image.fill(0.9f), out.fill();
    for (int64_t i = 0; i < image.n; i++)
        out_want[i] = out.v[i];
    for (int64_t n = 0; n < x.n; n++) {
        int64_t ch = n % C, px = n / C % w, py = n / C / w % h, f = n / C / w / h;
        int64_t plane = ch / (p * p), dx = ch / p % p, dy = ch % p;
        int64_t at = ((plane * T + from + f) * h * p + py * p + dy) * w * p + px * p + dx;
        in_want[n] = as_type(image.v[at], t);
        out_want[at] = fmin(1, fmax(-1, in_want[n]));
    }
    tensor planes_of = image.as({planes, T, h * p, w * p});
    wan_cuda_pixels_in(&c, x.as({count, h, w, C}), planes_of, from, p);
    expect(text("pixels_in %lld planes, p %d %s", (long long)planes, p, name_of(t)), x, in_want, 0);
    planes_of.data = out.at;
    wan_cuda_pixels_out(&c, planes_of, from, x.as({count, h, w, C}), p);
    expect(text("pixels_out %lld planes, p %d %s", (long long)planes, p, name_of(t)), out, out_want,
           0);
}

static void latents_case(int64_t C, int64_t channels, dtype t) {
    int64_t F = 4, count = 2, from = 1, h = 5, w = 3, size = h * w;
    array z(WAN_F32, C * F * size), mean(WAN_F32, C), inv(WAN_F32, C), x(t, count * size * C),
        y(t, count * size * channels), out(WAN_F32, C * F * size);
    std::vector<double> in_want((size_t)x.n), out_want((size_t)out.n);
    z.fill(), mean.fill(), inv.fill(0.2f, 1.5f), y.fill(), out.fill();
    for (int64_t i = 0; i < out.n; i++)
        out_want[i] = out.v[i];
    for (int64_t i = 0; i < count * size; i++)
        for (int64_t k = 0; k < C; k++) {
            int64_t at = (k * F + from) * size + i;
            in_want[i * C + k] = (double)z.v[at] / inv.v[k] + mean.v[k];
            out_want[at] = ((double)y.v[i * channels + k] - mean.v[k]) * inv.v[k];
        }
    wan_cuda_latents_in(&c, x.as({count, h, w, C}), z.as({C, F, h, w}), from, mean.as({C}),
                        inv.as({C}));
    expect(text("latents_in %lld %s", (long long)C, name_of(t)), x, in_want, tolerance(t));
    wan_cuda_latents_out(&c, out.as({C, F, h, w}), from, y.as({count, h, w, channels}),
                         mean.as({C}), inv.as({C}));
    expect(text("latents_out %lld of %lld %s", (long long)C, (long long)channels, name_of(t)), out,
           out_want, 1e-6);
}

static void frames() {
    each_types([](dtype to, dtype from) {
        for (bool first : {true, false}) {
            dup_case(1024, 1024, 2, 2, first, to, from);
            dup_case(64, 64, 2, 2, first, to, from);
            dup_case(64, 32, 1, 2, first, to, from);
            dup_case(16, 12, 2, 2, first, to, from);
            dup_case(12, 6, 1, 2, first, to, from);
            avg_case(160, 160, 1, 2, first, to, from);
            avg_case(64, 128, 2, 2, first, to, from);
            avg_case(64, 64, 1, 1, first, to, from);
            avg_case(12, 24, 2, 2, first, to, from);
            avg_case(6, 4, 1, 2, first, to, from);
        }
    });
    for (dtype t : every) {
        copy_case(1000, 400, 0, 400, t);  /* apart */
        copy_case(1000, 300, 0, 700, t);  /* down */
        copy_case(1000, 0, 300, 700, t);  /* up */
        copy_case(40000, 4, 0, 39996, t); /* by little */
        copy_case(40000, 0, 1, 39999, t);
        copy_case(100, 0, 0, 100, t);
        for (int p : {1, 2, 3}) {
            pixels_case(3, p, t);
            pixels_case(1, p, t);
        }
        latents_case(48, 96, t);
        latents_case(5, 5, t);
    }
}

/* ------------------------------------------------------------------------------------- bench */

static double copy_rate;

static void bench_line(const char *what, double ms, double bytes) {
    double rate = bytes / ms * 1e-6;
    printf("BENCH %-44s %8.4f ms %7.0f GB/s %4.0f %% of copy\n", what, ms, rate,
           100 * rate / copy_rate);
}

static tensor memory(char *pool, size_t *at, dtype type, std::vector<int64_t> dim) {
    tensor t;
    memset(&t, 0, sizeof t);
    t.type = type;
    t.rank = (int)dim.size();
    int64_t n = type == WAN_F32 ? 4 : 2;
    for (int i = 0; i < t.rank; i++)
        n *= t.dim[i] = dim[i];
    t.data = pool + *at;
    *at += (size_t)(n + 255) / 256 * 256;
    return t;
}

/* Two turns of operands from the pool. */
struct turn {
    tensor f, b, b2, f2;
};

template <int THREADS, int CHUNKS>
static void bench_threads(const turn *t, const norm_job &j, const rotation &r) {
    unsigned rows = (unsigned)j.rows;
    double n = (double)j.rows * j.dim;
    std::string how = text("%lldx%d, %d threads", (long long)j.rows, j.dim, THREADS);
    double ms = time_of([&](int i) {
        norm_rows<bf16, float, THREADS, CHUNKS>
            <<<rows, THREADS>>>((bf16 *)t[i % 2].b.data, (const float *)t[i % 2].f.data, j);
    });
    bench_line(("norm_modulate bf16<-f32 " + how).c_str(), ms, 6 * n);
    norm_job plain = j;
    plain.centre = false;
    ms = time_of([&](int i) {
        qk_norm_rope_rows<bf16, THREADS, CHUNKS>
            <<<rows, THREADS, r.head * 4>>>((bf16 *)t[i % 2].b.data, plain, r);
    });
    bench_line(("qk_norm_rope bf16 " + how).c_str(), ms, 4 * n);
    CUDA(cudaGetLastError());
}

template <int CHUNKS, int PIXELS> static void bench_pixels_of(tensor y, tensor x, tensor gain) {
    pixel_job j = {x.dim[0] * x.dim[1] * x.dim[2], (int)x.dim[3], (const float *)gain.data, true};
    double ms = time_of([&](int) {
        launch_pixels<CHUNKS, PIXELS>((f16 *)y.data, (const f16 *)x.data, j, the_device.stream);
    });
    CUDA(cudaGetLastError());
    bench_line(text("pixel_norm silu f16 %d ch, %d pixels a warp", j.channels, PIXELS).c_str(), ms,
               4.0 * j.pixels * j.channels);
}

static const size_t POOL = (size_t)6 << 30;

static void bench_rows(char *pool, int64_t rows) {
    const int64_t dim = 3072, frames = rows % 21 ? 31 : 21;
    turn t[2];
    size_t at = 0;
    for (auto &u : t) {
        u.f = memory(pool, &at, WAN_F32, {rows, dim});
        u.f2 = memory(pool, &at, WAN_F32, {rows, dim});
        u.b = memory(pool, &at, WAN_BF16, {rows, dim});
        u.b2 = memory(pool, &at, WAN_BF16, {rows, dim});
    }
    tensor table = memory(pool, &at, WAN_F32, {2, 6 * dim}), gain = table;
    gain.rank = 1, gain.dim[0] = dim;
    std::vector<int32_t> row((size_t)frames, 1);
    row[0] = 0;
    numbers row_of_frame(row);
    by_frame m = {};
    m.rows = table;
    m.row_of_frame = row_of_frame.as();
    m.tokens_per_frame = (rows + frames - 1) / frames;
    by_frame m2 = m;
    m2.at = dim;
    int64_t grid_w = 25;
    rope r;
    r.grid[0] = 1, r.grid[1] = (rows + grid_w - 1) / grid_w, r.grid[2] = grid_w;
    r.pairs[0] = 22, r.pairs[1] = r.pairs[2] = 21;
    for (int i = 0; i < 3; i++)
        r.table[i] = memory(pool, &at, WAN_F32, {r.grid[i], r.pairs[i], 2});
    if (at > POOL)
        exit((printf("FAIL pool\n"), 1));
    double n = (double)rows * dim;
    norm_job job = {rows, (int)dim, rows_of(m2), rows_of(m), 1, 1e-6f, true};
    bench_threads<384, 1>(t, job, rotation_of(&r, 128));
    bench_threads<192, 2>(t, job, rotation_of(&r, 128));
    bench_threads<128, 3>(t, job, rotation_of(&r, 128));
    bench_threads<96, 4>(t, job, rotation_of(&r, 128));
    bench_threads<64, 6>(t, job, rotation_of(&r, 128));
    bench_threads<32, 12>(t, job, rotation_of(&r, 128));
    auto line = [&](const char *what, double bytes, auto f) {
        double ms = time_of([&](int i) { f(t[i % 2]); });
        bench_line(text("%s %lldx%lld", what, (long long)rows, (long long)dim).c_str(), ms,
                   bytes * n);
    };
    line("norm_modulate bf16<-f32", 6,
         [&](turn &u) { wan_cuda_norm_modulate(&c, u.b, u.f, m, m2, 1e-6f); });
    line("norm_modulate bf16<-bf16", 4,
         [&](turn &u) { wan_cuda_norm_modulate(&c, u.b2, u.b, m, m2, 1e-6f); });
    line("layer_norm bf16<-f32", 6,
         [&](turn &u) { wan_cuda_layer_norm(&c, u.b, u.f, gain, gain, 1e-6f); });
    line("rms_norm bf16<-bf16", 4, [&](turn &u) { wan_cuda_rms_norm(&c, u.b2, u.b, gain, 1e-6f); });
    line("qk_norm_rope bf16", 4,
         [&](turn &u) { wan_cuda_qk_norm_rope(&c, u.b, gain, 1e-6f, 24, &r); });
    line("qk_norm_rope f32", 8,
         [&](turn &u) { wan_cuda_qk_norm_rope(&c, u.f2, gain, 1e-6f, 24, &r); });
    line("add_gated f32+=bf16", 10, [&](turn &u) { wan_cuda_add_gated(&c, u.f, u.b, m); });
    line("add f32+=bf16", 10, [&](turn &u) { wan_cuda_add(&c, u.f, u.b); });
    line("add bf16+=bf16", 6, [&](turn &u) { wan_cuda_add(&c, u.b2, u.b); });
    line("mul bf16", 6, [&](turn &u) { wan_cuda_mul(&c, u.b2, u.b); });
    line("activate gelu bf16", 4,
         [&](turn &u) { wan_cuda_activate(&c, u.b2, u.b, WAN_GELU_TANH); });
}

static void bench_pixels(char *pool) {
    for (int64_t n : {160, 256, 512, 1024}) {
        int64_t T = n <= 256 ? 16 : n == 512 ? 8 : 4, H = 240, W = 240;
        size_t at = 0;
        tensor x = memory(pool, &at, WAN_F16, {T, H, W, n}),
               y = memory(pool, &at, WAN_F16, {T, H, W, n});
        tensor gain = memory(pool, &at, WAN_F32, {n});
        double bytes = 4.0 * T * H * W * n;
        for (bool silu : {false, true})
            bench_line(text("pixel_norm%s f16 %lld ch", silu ? " silu" : "", (long long)n).c_str(),
                       time_of([&](int) { wan_cuda_pixel_norm(&c, y, x, gain, silu); }), bytes);
        tensor codes = y;
        codes.type = WAN_F8_E4M3;
        bench_line(text("pixel_codes %lld ch", (long long)n).c_str(),
                   time_of([&](int) { wan_cuda_pixel_codes(&c, codes, x, gain, 1); }),
                   bytes * 3 / 4);
        if (n <= 256) {
            bench_pixels_of<1, 1>(y, x, gain);
            bench_pixels_of<1, 2>(y, x, gain);
            bench_pixels_of<1, 8>(y, x, gain);
        } else if (n == 512) {
            bench_pixels_of<2, 1>(y, x, gain);
            bench_pixels_of<2, 4>(y, x, gain);
        } else {
            bench_pixels_of<4, 2>(y, x, gain);
        }
        bench_line(text("copy f16 %lld ch", (long long)n).c_str(),
                   time_of([&](int) { wan_cuda_copy(&c, y, x); }), bytes);
        int64_t out = n == 1024 ? 1024 : n / 2, ft = n == 1024 ? 2 : 1;
        tensor up = memory(pool, &at, WAN_F16, {T * ft, 2 * H, 2 * W, out});
        double up_bytes = 2.0 * T * H * W * (n + 4 * ft * out);
        if (at > POOL)
            exit((printf("FAIL pool\n"), 1));
        if (n > 160)
            bench_line(text("dup_up f16 %lld->%lld ch", (long long)n, (long long)out).c_str(),
                       time_of([&](int) { wan_cuda_dup_up(&c, up, x, (int)ft, 2, 0); }), up_bytes);
        tensor down = memory(pool, &at, WAN_F16,
                             {T / (int)(n > 160 ? 2 : 1), H / 2, W / 2, n * (n > 160 ? 2 : 1)});
        bench_line(text("avg_down f16 %lld ch", (long long)n).c_str(),
                   time_of([&](int) { wan_cuda_avg_down(&c, down, x, n > 160 ? 2 : 1, 2, 0); }),
                   2.0 * T * H * W * n * (n > 160 ? 1.25 : 1.25));
    }
    size_t at = 0;
    tensor pixels = memory(pool, &at, WAN_F32, {3, 32, 704, 1280});
    tensor x = memory(pool, &at, WAN_F16, {32, 352, 640, 12});
    double n = 3.0 * 32 * 704 * 1280;
    bench_line("pixels_out f16", time_of([&](int) { wan_cuda_pixels_out(&c, pixels, 0, x, 2); }),
               6 * n);
    bench_line("pixels_in f16", time_of([&](int) { wan_cuda_pixels_in(&c, x, pixels, 0, 2); }),
               6 * n);
}

static void bench() {
    char *pool = random_memory(POOL, true), *half = pool + POOL / 2;
    size_t bytes = (size_t)1 << 30;
    double ms = time_of([&](int i) {
        CUDA(cudaMemcpyAsync(i % 2 ? pool : half, i % 2 ? half : pool, bytes,
                             cudaMemcpyDeviceToDevice));
    });
    copy_rate = 2.0 * bytes / ms * 1e-6;
    bench_line("copy of 1 GiB", ms, 2.0 * bytes);
    bench_rows(pool, 4725);
    bench_rows(pool, 27280);
    bench_pixels(pool);
    CUDA(cudaFree(pool));
}

int main(int n, char **arg) {
    c = open_compute(WAN_PRECISION_BF16);
    norms();
    elementwise();
    frames();
    if (n > 1 && !strcmp(arg[1], "--bench") && !failures)
        bench();
    return finish();
}
