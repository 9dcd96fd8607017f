/* SPDX-License-Identifier: Apache-2.0 */
/* The autoencoder's ops against sums written down from vae.md 1, 2 and 4, whole clips at a time;
 * the ops get the same clips in pieces. */
#include "check.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backend/cpu/cpu.h"

static const dtype types[] = {WAN_F32, WAN_F16, WAN_BF16, WAN_F8_E4M3};

/* For each type that convolutions multiply: a CPU has two. */
static void each_input(check *t, void (*cases)(check *t)) {
    compute *c = t->c;
    cases(t);
    if (!t->k)
        return;
    c->precision = WAN_PRECISION_BF16;
    c->conv_in = WAN_BF16;
    cases(t);
    c->precision = WAN_PRECISION_F32;
    c->conv_in = WAN_F32;
}

/* Frames as they come or, if `narrow`, of the type that is multiplied; *host is what is multiplied
 * in both cases. */
static tensor new_input(check *t, const int64_t dim[4], fill how, bool narrow, float **host) {
    tensor x = new_act(t, 4, dim, how, host);
    round_floats(t->c->conv_in, *host, wan_elements(x));
    return narrow && t->c->conv_in != x.type ? new_from(t, t->c->conv_in, 4, dim, *host) : x;
}

static float *rounded(check *t, const float *x, int64_t n) {
    float *r = host_alloc(t, sizeof *r * (size_t)n);
    memcpy(r, x, sizeof *r * (size_t)n);
    round_floats(t->c->conv_in, r, n);
    return r;
}

/* Host pixels [t, h, w, c]; zero outside. */
typedef struct image {
    const float *at;
    int64_t t, h, w, c;
} image;

static double pixel(const image *x, int64_t t, int64_t y, int64_t col, int64_t c) {
    if (t < 0 || t >= x->t || y < 0 || y >= x->h || col < 0 || col >= x->w)
        return 0;
    return x->at[((t * x->h + y) * x->w + col) * x->c + c];
}

/* Output (t, y, x) sees input from (t * time_step - before, y * step - pad, x * step - pad) on, in
 * an image whose pixels are doubled if `twice`. */
typedef struct geometry {
    int64_t t, h, w, time_step, before, step, pad;
    bool twice;
} geometry;

typedef struct result {
    double *want, *tol;
    int64_t n;
} result;

static result new_result(check *t, int64_t n) {
    size_t bytes = sizeof(double) * (size_t)n;
    return (result){host_alloc(t, bytes), host_alloc(t, bytes), n};
}

typedef struct weights {
    conv conv;
    const float *w, *bias;
} weights;

/* The numbers are what is multiplied, unless taps are `summed` first. */
static weights new_conv(check *t, dtype type, int rank, const int64_t *dim, bool with_bias,
                        bool summed) {
    weights r = {.conv = {.channels_last = random_int(t, 2)}};
    float *w, *b;
    r.conv.weight = new_kernel(t, type, rank, dim, r.conv.channels_last, &w);
    if (!summed)
        round_floats(t->c->conv_in, w, wan_elements(r.conv.weight));
    r.conv.bias = new_f32(t, WAN_DIMS(dim[0]), NORMAL, &b);
    if (!with_bias)
        r.conv.bias = (tensor){0};
    r.w = w;
    r.bias = with_bias ? b : NULL;
    return r;
}

static double conv_at(const image *x, const weights *w, const geometry *g, const int64_t at[4],
                      double start, double *tol) {
    const tensor *s = &w->conv.weight;
    int64_t kt = s->rank == 5 ? s->dim[2] : 1, k = s->dim[s->rank - 1], o = at[3],
            half = g->twice ? 2 : 1;
    double sum = start + (w->bias ? w->bias[o] : 0);
    double magnitude = fabs(start) + (w->bias ? fabs(w->bias[o]) : 0);
    for (int64_t tap = 0; tap < kt * k * k; tap++) {
        int64_t t = at[0] * g->time_step - g->before + tap / (k * k);
        int64_t y = at[1] * g->step - g->pad + tap / k % k,
                col = at[2] * g->step - g->pad + tap % k;
        if (y < 0 || col < 0) /* / would round them to 0 */
            continue;
        for (int64_t i = 0; i < x->c; i++) {
            double p =
                pixel(x, t, y / half, col / half, i) * w->w[(o * x->c + i) * kt * k * k + tap];
            sum += p;
            magnitude += fabs(p);
        }
    }
    *tol = tol_dot(kt * k * k * x->c, magnitude) + 1000 * FLT_MIN;
    return sum;
}

/* All outputs, channels last, on top of `start` (NULL: zeros). */
static result reference(check *t, const image *x, const weights *w, const geometry *g,
                        const float *start) {
    int64_t out = w->conv.weight.dim[0];
    result r = new_result(t, g->t * g->h * g->w * out);
    for (int64_t i = 0; i < r.n; i++) {
        const int64_t at[4] = {i / (out * g->w * g->h), i / (out * g->w) % g->h, i / out % g->w,
                               i % out};
        r.want[i] = conv_at(x, w, g, at, start ? start[i] : 0, &r.tol[i]);
    }
    return r;
}

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* ----------------------------------------------------------------------------------- over time */

typedef struct shape {
    int64_t t, h, w, in, out;
} shape;

static const shape shapes[] = {
    {1, 1, 1, 1, 1},    {2, 1, 3, 3, 5},    {3, 5, 7, 4, 17},   {5, 3, 2, 33, 16},
    {4, 6, 5, 129, 19}, {2, 4, 9, 300, 40}, {3, 2, 2, 520, 70}, {1, 13, 11, 128, 65},
    {2, 1, 1, 257, 3},  {2, 7, 1, 24, 130},
};

/* The clip in pieces of `most` frames, into `dst`; add: on top of what is there. */
static void conv3d_pieces(check *t, tensor dst, tensor x, const conv *w, int64_t most, bool add) {
    int64_t kt = w->weight.dim[2];
    history past = {0};
    if (kt > 1 && most < x.dim[0])
        past = wan_history_begin(t->c, kt - 1, x.dim[1], x.dim[2], x.dim[3]);
    for (int64_t from = 0, n; from < x.dim[0]; from += n) {
        n = least(most, x.dim[0] - from);
        tensor piece = wan_slice(x, from, n), to = wan_slice(dst, from, n);
        if (add)
            wan_conv3d_add(t->c, to, piece, w, &past);
        else
            wan_copy(t->c, to, wan_conv3d(t->c, piece, w, &past));
    }
}

static void conv3d_case(check *t, const shape *s, dtype type, int64_t kt, int64_t k, fill how,
                        bool add) {
    size_t mark = wan_mark(t->c);
    float *hx, *start;
    char what[96];
    bool narrow = random_int(t, 2);
    tensor x = new_input(t, (int64_t[]){s->t, s->h, s->w, s->in}, how, narrow, &hx);
    weights w = new_conv(t, type, WAN_DIMS(s->out, s->in, kt, k, k), s->in % 2, false);
    image in = {hx, s->t, s->h, s->w, s->in};
    geometry g = {s->t, s->h, s->w, 1, kt - 1, 1, k / 2, false};
    tensor first = new_act(t, WAN_DIMS(s->t, s->h, s->w, s->out), NORMAL, &start);
    result r = reference(t, &in, &w, &g, add ? start : NULL);
    float *whole = NULL;
    for (int64_t most = s->t; most > 0; most--) {
        size_t inner = wan_mark(t->c);
        guard_begin(t, wan_bytes(first));
        tensor y = wan_new(t->c, t->c->act, 4, first.dim);
        wan_copy(t->c, y, first);
        guard_begin(t, 0); /* the pieces' own results lie behind it */
        conv3d_pieces(t, y, x, &w.conv, most, add);
        guard_end(t, y);
        snprintf(what, sizeof what,
                 "conv3d %s %s [%lld, %lld, %lld, %lld] -> %lld, kernel %lld, %lld, pieces of %lld",
                 wan_dtype(type)->name, wan_dtype(x.type)->name, (long long)s->t, (long long)s->h,
                 (long long)s->w, (long long)s->in, (long long)s->out, (long long)kt, (long long)k,
                 (long long)most);
        float *got = values(t, y);
        expect_near(t, what, y, r.want, r.tol);
        if (whole && t->k)
            expect_equal(t, what, got, whole, r.n);
        else
            whole = got;
        wan_release(t->c, inner);
    }
    wan_release(t->c, mark);
}

static void conv3d_cases(check *t) {
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (size_t type = 0; type < COUNT(types); type++)
            conv3d_case(t, &shapes[i], types[type], 3, 3, i % 3 == 2 ? MIXED : NORMAL,
                        (i + type) % 2);
    for (size_t i = 0; i < COUNT(shapes); i++) {
        conv3d_case(t, &shapes[i], WAN_F16, 1, 1, NORMAL, i % 2);
        conv3d_case(t, &shapes[i], WAN_F32, 3, 1, NORMAL, i % 2);
    }
    for (fill how = ZERO; how < FILLS; how++)
        conv3d_case(t, &shapes[3], WAN_F32, 3, 3, how, false);
}

CHECK(conv3d) {
    each_input(t, conv3d_cases);
}

static void frames_up_case(check *t, const shape *s, dtype type) {
    size_t mark = wan_mark(t->c);
    int64_t n = s->in, frame = s->h * s->w * n;
    float *hx;
    tensor x = new_act(t, WAN_DIMS(s->t, s->h, s->w, n), NORMAL, &hx);
    weights w = new_conv(t, type, WAN_DIMS(2 * n, n, 3, 1, 1), true, false);
    image rest = {rounded(t, hx + frame, (s->t - 1) * frame), s->t - 1, s->h, s->w, n};
    geometry g = {s->t - 1, s->h, s->w, 1, 2, 1, 0, false};
    result u = reference(t, &rest, &w, &g, NULL), r = new_result(t, (2 * s->t - 1) * frame);
    for (int64_t i = 0; i < r.n; i++) {
        int64_t k = i / frame, at = i % frame, half = (k - 1) % 2;
        int64_t from = ((k - 1) / 2 * s->h * s->w + at / n) * 2 * n + half * n + at % n;
        r.want[i] = k ? u.want[from] : hx[i];
        r.tol[i] = k ? u.tol[from] : 0;
    }
    for (int64_t most = s->t; most > 0; most--) {
        size_t inner = wan_mark(t->c);
        tensor all = wan_new(t->c, t->c->act, WAN_DIMS(2 * s->t - 1, s->h, s->w, n));
        history past = wan_history_begin(t->c, 2, s->h, s->w, n);
        for (int64_t from = 0, at = 0; from < s->t; from += most) {
            tensor y = wan_frames_up(t->c, wan_slice(x, from, least(most, s->t - from)), &w.conv,
                                     &past, from == 0);
            wan_copy(t->c, wan_slice(all, at, y.dim[0]), y);
            at += y.dim[0];
        }
        expect_near(t, "frames up", all, r.want, r.tol);
        wan_release(t->c, inner);
    }
    wan_release(t->c, mark);
}

static void frames_up_cases(check *t) {
    for (size_t i = 0; i < COUNT(shapes); i++)
        frames_up_case(t, &shapes[i], types[i % 3]);
}

CHECK(frames_up) {
    each_input(t, frames_up_cases);
}

static void frames_down_case(check *t, const shape *s, dtype type) {
    size_t mark = wan_mark(t->c);
    int64_t n = s->in, frame = s->h * s->w * n, frames = 2 * s->t + 1;
    float *hx, *start;
    tensor x = new_act(t, WAN_DIMS(frames, s->h, s->w, n), NORMAL, &hx);
    tensor first = new_act(t, WAN_DIMS(s->t + 1, s->h, s->w, n), NORMAL, &start);
    weights w = new_conv(t, type, WAN_DIMS(n, n, 3, 1, 1), true, false);
    image in = {rounded(t, hx, frames * frame), frames, s->h, s->w, n};
    geometry g = {s->t + 1, s->h, s->w, 2, 2, 1, 0, false};
    result r = reference(t, &in, &w, &g, start);
    for (int64_t i = 0; i < frame; i++) {
        r.want[i] = (double)hx[i] + start[i];
        r.tol[i] = 0x1p-23 * fabs(r.want[i]);
    }
    for (int64_t most = s->t; most > 0;
         most--) { /* pairs in a piece; the first piece has the first frame, too */
        size_t inner = wan_mark(t->c);
        tensor y = wan_new(t->c, t->c->act, 4, first.dim);
        wan_copy(t->c, y, first);
        history past = wan_history_begin(t->c, 1, s->h, s->w, n);
        wan_frames_down_add(t->c, wan_slice(y, 0, most), wan_slice(x, 0, 2 * most - 1), &w.conv,
                            &past, true);
        for (int64_t from = most; from <= s->t; from += most) {
            int64_t pairs = least(most, s->t + 1 - from);
            wan_frames_down_add(t->c, wan_slice(y, from, pairs),
                                wan_slice(x, 2 * from - 1, 2 * pairs), &w.conv, &past, false);
        }
        expect_near(t, "frames down", y, r.want, r.tol);
        wan_release(t->c, inner);
    }
    wan_release(t->c, mark);
}

static void frames_down_cases(check *t) {
    for (size_t i = 0; i < COUNT(shapes); i++)
        frames_down_case(t, &shapes[i], types[i % 3]);
}

CHECK(frames_down) {
    each_input(t, frames_down_cases);
}

/* ------------------------------------------------------------------------------ inside frames */

static void conv2d_case(check *t, const shape *s, dtype type, int64_t k, resample how, bool add) {
    if (how == WAN_DOWN2 && (s->h < 2 || s->w < 2))
        return;
    size_t mark = wan_mark(t->c);
    float *hx, *start;
    char what[96];
    /* What rounding takes would lie behind the result, where nothing is to be written. */
    bool narrow = !add || random_int(t, 2);
    tensor x = new_input(t, (int64_t[]){s->t, s->h, s->w, s->in}, NORMAL, narrow, &hx);
    weights w = new_conv(t, type, WAN_DIMS(s->out, s->in, k, k), s->in % 2 == 0, how == WAN_UP2);
    image in = {hx, s->t, s->h, s->w, s->in};
    geometry g = {s->t, s->h, s->w, 1, 0, 1, k / 2, how == WAN_UP2};
    if (how == WAN_UP2) {
        g.h *= 2;
        g.w *= 2;
    } else if (how == WAN_DOWN2) {
        g.h /= 2;
        g.w /= 2;
        g.step = 2;
        g.pad = 0;
    }
    tensor first = new_act(t, WAN_DIMS(g.t, g.h, g.w, s->out), NORMAL, &start);
    result r = reference(t, &in, &w, &g, add ? start : NULL);
    guard_begin(t, wan_bytes(first));
    tensor y;
    if (add) {
        y = wan_new(t->c, t->c->act, 4, first.dim);
        wan_copy(t->c, y, first);
        guard_begin(t, 0); /* work space lies behind it */
        wan_conv2d_add(t->c, y, x, &w.conv, how);
    } else {
        y = wan_conv2d(t->c, x, &w.conv, how);
    }
    guard_end(t, y);
    /* Weights of doubled pixels are summed first, and the sums rounded to 16 bits. */
    double unit = unit_of(t->c->conv_in);
    double terms = (8 + 2 * sqrt((double)(k * k * s->in))) * 0x1p-24;
    for (int64_t i = 0; how == WAN_UP2 && i < wan_elements(y); i++)
        r.tol[i] *= 1 + unit / terms;
    snprintf(what, sizeof what,
             "conv2d %s %s [%lld, %lld, %lld, %lld] -> %lld, kernel %lld, resample %d",
             wan_dtype(type)->name, wan_dtype(x.type)->name, (long long)s->t, (long long)s->h,
             (long long)s->w, (long long)s->in, (long long)s->out, (long long)k, (int)how);
    expect_near(t, what, y, r.want, r.tol);
    wan_release(t->c, mark);
}

static void conv2d_cases(check *t) {
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (int how = WAN_SAME; how <= WAN_DOWN2; how++) {
            conv2d_case(t, &shapes[i], types[i % 3], 3, (resample)how, (i + (size_t)how) % 2);
            if (how == WAN_SAME)
                conv2d_case(t, &shapes[i], types[(i + 1) % 3], 1, WAN_SAME, i % 2);
        }
}

CHECK(conv2d) {
    each_input(t, conv2d_cases);
}

/* The same bits from any number of threads. */
static void conv_threads_cases(check *t) {
    static const shape some[] = {{2, 9, 7, 24, 40}, {2, 5, 6, 300, 150}};
    for (size_t i = 0; i < COUNT(some); i++) {
        const shape *s = &some[i];
        tensor x = new_act(t, WAN_DIMS(s->t, s->h, s->w, s->in), NORMAL, NULL);
        weights w = new_conv(t, WAN_BF16, WAN_DIMS(s->out, s->in, 3, 3, 3), true, false);
        weights up = new_conv(t, WAN_F16, WAN_DIMS(s->out, s->in, 3, 3), true, true);
        tensor y = wan_conv3d(t->c, x, &w.conv, NULL), u = wan_conv2d(t->c, x, &up.conv, WAN_UP2);
        for (int threads = 1; threads <= 7; threads += 2) {
            compute other = *t->c;
            other.device = wan_cpu_open(threads, t->have, &other.err);
            if (!other.device)
                return;
            tensor z = wan_conv3d(&other, x, &w.conv, NULL),
                   v = wan_conv2d(&other, x, &up.conv, WAN_UP2);
            expect_equal(t, "other number of threads", z.data, y.data, wan_elements(y));
            expect_equal(t, "other number of threads, doubled", v.data, u.data, wan_elements(u));
            other.be->close(other.device);
        }
    }
}

CHECK(conv_threads) {
    each_input(t, conv_threads_cases);
}

static void pixel_norm_case(check *t, const shape *s, fill how, bool silu, bool in_place) {
    size_t mark = wan_mark(t->c);
    int64_t n = s->in;
    float *hx, *hg;
    tensor g = new_f32(t, WAN_DIMS(n), NORMAL, &hg);
    guard_begin(t, sizeof(float) * (size_t)(s->t * s->h * s->w * n));
    tensor x = new_act(t, WAN_DIMS(s->t, s->h, s->w, n), how, &hx), y = x;
    result r = new_result(t, wan_elements(x));
    for (int64_t p = 0; p < r.n; p += n) {
        double squares = 0;
        for (int64_t i = 0; i < n; i++)
            squares += (double)hx[p + i] * hx[p + i];
        for (int64_t i = 0; i < n; i++) {
            double v = hx[p + i] / fmax(sqrt(squares), 1e-12) * sqrt((double)n) * hg[i];
            r.want[p + i] = silu ? v / (1 + exp(-v)) : v;
            r.tol[p + i] = 16 * 0x1p-24 * fabs(v) + 4 * 0x1p-24 * fmin(1, fabs(v)) + 100 * FLT_MIN;
        }
    }
    if (in_place) {
        y = wan_pixel_norm_in_place(t->c, x, g, silu);
    } else {
        guard_begin(t, wan_bytes(x));
        y = wan_pixel_norm(t->c, x, g, silu);
    }
    guard_end(t, in_place ? x : y);
    expect_near(t, silu ? "norm and silu" : "norm", y, r.want, r.tol);
    wan_release(t->c, mark);
}

static void pixel_norm_cases(check *t) {
    static const shape many = {2, 31, 29, 130, 0}; /* enough for pieces and waves of them */
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (fill how = NORMAL; how < FILLS; how++)
            for (int way = 0; way < 4; way++)
                pixel_norm_case(t, &shapes[i], how, way % 2, way / 2);
    for (int way = 0; way < 4; way++)
        pixel_norm_case(t, &many, NORMAL, way % 2, way / 2);
    size_t mark = wan_mark(t->c);
    tensor x = new_act(t, WAN_DIMS(1, 120, 120, 256), NORMAL, NULL),
           g = new_f32(t, WAN_DIMS(256), NORMAL, NULL), y = x;
    y.type = t->c->conv_in;
    char label[64];
    snprintf(label, sizeof label, "pixel_norm and silu, 120x120x256 %s", wan_dtype(y.type)->name);
    for (bench b = bench_begin(t, label, 0, (double)wan_bytes(x) + (double)wan_bytes(y));
         bench_next(&b);) {
        size_t inner = wan_mark(t->c);
        wan_pixel_norm(t->c, x, g, true);
        wan_release(t->c, inner);
    }
    wan_release(t->c, mark);
}

CHECK(pixel_norm) {
    each_input(t, pixel_norm_cases);
}

/* ----------------------------------------------------------------------------------- shortcuts */

static void dup_up_case(check *t, const shape *s, int64_t out, int ft, bool first) {
    size_t mark = wan_mark(t->c);
    int64_t drop = first ? ft - 1 : 0, repeats = out * ft * 4 / s->in, at = 0;
    float *hx;
    tensor x = new_act(t, WAN_DIMS(s->t, s->h, s->w, s->in), NORMAL, &hx);
    image in = {hx, s->t, s->h, s->w, s->in};
    result r = new_result(t, (s->t * ft - drop) * s->h * s->w * 4 * out);
    for (int64_t n = drop; n < s->t * ft; n++)
        for (int64_t y = 0; y < 2 * s->h; y++)
            for (int64_t col = 0; col < 2 * s->w; col++)
                for (int64_t o = 0; o < out; o++, at++) {
                    int64_t flat = ((o * ft + n % ft) * 2 + y % 2) * 2 + col % 2;
                    r.want[at] = pixel(&in, n / ft, y / 2, col / 2, flat / repeats);
                    r.tol[at] = 0;
                }
    guard_begin(t, sizeof(float) * (size_t)r.n);
    tensor y = wan_dup_up(t->c, x, out, ft, 2, first);
    guard_end(t, y);
    expect_near(t, "dup up", y, r.want, r.tol);
    wan_release(t->c, mark);
}

CHECK(dup_up) {
    static const struct {
        int64_t in, out;
    } channels[] = {{1, 1}, {4, 1}, {2, 3}, {8, 8}, {16, 4}, {8, 4}, {6, 3}, {28, 14}, {5, 10}};
    for (size_t i = 0; i < COUNT(channels); i++)
        for (int way = 0; way < 4; way++) {
            shape s = {1 + way, 3, 2 + (int64_t)i % 3, channels[i].in, 0};
            int ft = 1 + way % 2;
            if (channels[i].out * ft * 4 % s.in == 0)
                dup_up_case(t, &s, channels[i].out, ft, way / 2);
        }
}

static void avg_down_case(check *t, const shape *s, int ft, int fs, bool first) {
    size_t mark = wan_mark(t->c);
    int64_t pad = first ? ft - 1 : 0, frames = s->t * ft - pad,
            group = s->in * ft * fs * fs / s->out, at = 0;
    float *hx;
    tensor x = new_act(t, WAN_DIMS(frames, s->h * fs, s->w * fs, s->in), NORMAL, &hx);
    image in = {hx, frames, s->h * fs, s->w * fs, s->in};
    result r = new_result(t, s->t * s->h * s->w * s->out);
    for (; at < r.n; at++) {
        int64_t o = at % s->out, col = at / s->out % s->w, y = at / s->out / s->w % s->h;
        int64_t k = at / s->out / s->w / s->h;
        double sum = 0, magnitude = 0;
        for (int64_t f = o * group; f < (o + 1) * group; f++) {
            int64_t ix = f % fs, iy = f / fs % fs, it = f / fs / fs % ft, c = f / fs / fs / ft;
            double v = pixel(&in, k * ft + it - pad, y * fs + iy, col * fs + ix, c);
            sum += v;
            magnitude += fabs(v);
        }
        r.want[at] = sum / (double)group;
        r.tol[at] = tol_dot(group, magnitude / (double)group);
    }
    guard_begin(t, sizeof(float) * (size_t)r.n);
    tensor y = wan_avg_down(t->c, x, s->out, ft, fs, first);
    guard_end(t, y);
    expect_near(t, "average down", y, r.want, r.tol);
    wan_release(t->c, mark);
}

CHECK(avg_down) {
    static const struct {
        int64_t in, out;
    } channels[] = {{1, 1}, {1, 4}, {3, 2}, {8, 8}, {4, 8}, {160, 320}, {14, 7}, {12, 6}};
    for (size_t i = 0; i < COUNT(channels); i++)
        for (int way = 0; way < 8; way++) {
            shape s = {1 + way % 3, 2, 1 + (int64_t)i % 3, channels[i].in, channels[i].out};
            int ft = 1 + way % 2, fs = 1 + way / 2 % 2;
            if (s.in * ft * fs * fs % s.out == 0)
                avg_down_case(t, &s, ft, fs, way / 4);
        }
}

static void copy_case(check *t, int64_t n, int64_t from, int64_t to) {
    size_t mark = wan_mark(t->c);
    float *was;
    tensor all = new_f32(t, WAN_DIMS(n + from + to), NORMAL, &was);
    wan_copy(t->c, wan_slice(all, to, n), wan_slice(all, from, n));
    float *want = host_alloc(t, wan_bytes(all));
    memcpy(want, was, wan_bytes(all));
    memmove(want + to, was + from, sizeof *want * (size_t)n);
    expect_equal(t, "copy", values(t, all), want, wan_elements(all));
    wan_release(t->c, mark);
}

CHECK(copy) {
    static const int64_t sizes[] = {1, 1000, 200003}; /* the last in pieces */
    for (size_t i = 0; i < COUNT(sizes); i++) {
        int64_t n = sizes[i];
        copy_case(t, n, n, 0);
        copy_case(t, n, 0, n + 5);
        copy_case(t, n, 1, 0); /* over itself */
        copy_case(t, n, 0, n / 2);
    }
}

/* --------------------------------------------------------------------------------- in and out */

CHECK(pixels_in_out) {
    for (int p = 1; p <= 3; p++) {
        size_t mark = wan_mark(t->c);
        int64_t frames = 3, h = 2, w = 3, channels = 3 * p * p, from = 1, count = 2;
        float *hp, *hx, *hold;
        tensor pixels = new_f32(t, WAN_DIMS(3, frames, h * p, w * p), NORMAL, &hp);
        float *want = host_alloc(t, sizeof(float) * (size_t)(count * h * w * channels));
        for (int64_t i = 0; i < count * h * w * channels; i++) {
            int64_t c = i % channels, x = i / channels % w, y = i / channels / w % h,
                    f = i / channels / w / h;
            int64_t row = y * p + c % p,
                    col = x * p + c / p % p; /* the column's offset is the slow index */
            want[i] = hp[((c / (p * p) * frames + from + f) * h * p + row) * w * p + col];
        }
        tensor in = wan_pixels_in(t->c, pixels, from, count, p);
        round_floats(in.type, want, wan_elements(in));
        expect_equal(t, "pixels in", values(t, in), want, wan_elements(in));
        tensor x = new_act(t, WAN_DIMS(count, h, w, channels), NORMAL, &hx);
        tensor out = new_f32(t, WAN_DIMS(3, frames, h * p, w * p), NORMAL, &hold);
        for (int64_t i = 0; i < count * h * w * channels; i++) {
            int64_t c = i % channels, col = i / channels % w, y = i / channels / w % h,
                    f = i / channels / w / h;
            hold[((c / (p * p) * frames + from + f) * h * p + y * p + c % p) * w * p + col * p +
                 c / p % p] = fminf(1, fmaxf(-1, hx[i]));
        }
        wan_pixels_out(t->c, out, from, x, p);
        expect_equal(t, "pixels out", values(t, out), hold, wan_elements(out));
        wan_release(t->c, mark);
    }
}

CHECK(latents_in_out) {
    int64_t z = 5, frames = 4, h = 3, w = 2, from = 1, count = 2, size = h * w;
    float *hl, *hm, *hs, *hx, *hold;
    tensor latents = new_f32(t, WAN_DIMS(z, frames, h, w), NORMAL, &hl);
    tensor mean = new_f32(t, WAN_DIMS(z), NORMAL, &hm), inv = new_f32(t, WAN_DIMS(z), NORMAL, &hs);
    float *want = host_alloc(t, sizeof(float) * (size_t)(count * size * z));
    for (int64_t i = 0; i < count * size * z; i++) {
        volatile float quotient =
            hl[(i % z * frames + from + i / z / size) * size + i / z % size] / hs[i % z];
        want[i] = quotient + hm[i % z];
    }
    tensor in = wan_latents_in(t->c, latents, from, count, mean, inv);
    round_floats(in.type, want, wan_elements(in));
    expect_equal(t, "latents in", values(t, in), want, wan_elements(in));
    tensor x = new_act(t, WAN_DIMS(count, h, w, 2 * z), NORMAL, &hx);
    tensor out = new_f32(t, WAN_DIMS(z, frames, h, w), NORMAL, &hold);
    for (int64_t i = 0; i < count * size; i++)
        for (int64_t c = 0; c < z; c++) {
            volatile float less = hx[i * 2 * z + c] - hm[c];
            hold[(c * frames + from + i / size) * size + i % size] = less * hs[c];
        }
    wan_latents_out(t->c, out, from, x, mean, inv);
    expect_equal(t, "latents out", values(t, out), hold, wan_elements(out));
}

/* --------------------------------------------------------------------------------------- speed */

static void bench_conv(check *t, int64_t frames, int64_t n, int64_t in, int64_t out, resample how,
                       bool flat) {
    if (!t->bench)
        return;
    size_t mark = wan_mark(t->c);
    char label[80];
    float *hw;
    tensor x = new_input(t, (int64_t[]){frames, n, n, in}, NORMAL, true, &hw);
    conv w = {.weight = flat ? new_kernel(t, WAN_BF16, WAN_DIMS(out, in, 3, 3), false, &hw)
                             : new_kernel(t, WAN_BF16, WAN_DIMS(out, in, 3, 3, 3), false, &hw)};
    snprintf(label, sizeof label, "conv%s %s [%lld, %lld, %lld, %lld] -> %lld%s",
             flat ? "2d" : "3d", wan_dtype(x.type)->name, (long long)frames, (long long)n,
             (long long)n, (long long)in, (long long)out,
             how == WAN_UP2     ? ", up"
             : how == WAN_DOWN2 ? ", down"
                                : "");
    compute dry = wan_compute_plan(t->c->planned, t->c->precision);
    flat ? wan_conv2d(&dry, x, &w, how) : wan_conv3d(&dry, x, &w, NULL);
    size_t inner = wan_mark(t->c);
    for (bench b = bench_begin(t, label, dry.done.flops, dry.done.bytes); bench_next(&b);) {
        wan_release(t->c, inner);
        flat ? wan_conv2d(t->c, x, &w, how) : wan_conv3d(t->c, x, &w, NULL);
    }
    wan_release(t->c, mark);
}

static void conv_speeds(check *t) {
    if (t->k && t->k->gemm_tile == t->twin->gemm_tile) { /* a smaller one, so that it ends */
        bench_conv(t, 1, 32, 128, 128, WAN_SAME, false);
        return;
    }
    bench_conv(t, 4, 30, 1024, 1024, WAN_SAME, false);
    bench_conv(t, 4, 120, 256, 256, WAN_SAME, false);
    bench_conv(t, 4, 128, 256, 256, WAN_SAME, false);
    bench_conv(t, 4, 64, 512, 512, WAN_SAME, false);
    bench_conv(t, 1, 128, 256, 12, WAN_SAME, false);
    bench_conv(t, 1, 30, 1024, 1024, WAN_UP2, true);
    bench_conv(t, 1, 240, 160, 160, WAN_DOWN2, true);
    bench_conv(t, 4, 64, 24, 24, WAN_SAME, false);
    bench_conv(t, 4, 32, 48, 48, WAN_SAME, false);
    bench_conv(t, 4, 16, 96, 96, WAN_SAME, false);
    if (t->k)
        return;
    bench_conv(t, 21, 30, 1024, 1024, WAN_SAME, false);
    bench_conv(t, 8, 60, 1024, 1024, WAN_SAME, false);
    bench_conv(t, 8, 120, 512, 512, WAN_SAME, false);
    bench_conv(t, 8, 240, 256, 256, WAN_SAME, false);
    bench_conv(t, 8, 60, 1024, 1024, WAN_UP2, true);
}

CHECK(conv_speed) {
    each_input(t, conv_speeds);
}
