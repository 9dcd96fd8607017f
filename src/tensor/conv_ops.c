/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/conv_ops.h"

#include <assert.h>
#include <math.h>

#include "backend/backend.h"

static void count(compute *c, double flops, double bytes) {
    c->done.flops += flops;
    c->done.bytes += bytes;
}

static bool is_planes(tensor t) {
    return t.type == WAN_F32 && t.rank == 4 && wan_elements(t) > 0;
}

static bool is_frames(const compute *c, tensor t) {
    return (t.type == WAN_F32 || t.type == c->act) && t.rank == 4 && wan_elements(t) > 0;
}

/* What w multiplies. */
static bool is_input(const compute *c, const conv *w, tensor t) {
    if (t.rank == 4 && w->code > 0)
        return t.type == WAN_F8_E4M3 && w->weight.type == WAN_F8_E4M3 && wan_elements(t) > 0;
    return is_frames(c, t) || (t.type == c->conv_in && t.rank == 4 && wan_elements(t) > 0);
}

/* dst = src, of any two types of frames. */
static void convert(compute *c, tensor dst, tensor src) {
    if (dst.type == src.type) {
        wan_copy(c, dst, src);
        return;
    }
    count(c, 0, (double)wan_bytes(src) + wan_bytes(dst));
    if (wan_ready(c))
        c->be->op.activate(c, dst, src, WAN_NONE);
}

/* x as a convolution multiplies it; the caller releases what that takes. */
static tensor rounded(compute *c, tensor x) {
    if (c->conv_in == c->act || x.type == c->conv_in)
        return x;
    tensor y = wan_new(c, c->conv_in, x.rank, x.dim);
    convert(c, y, x);
    return y;
}

/* Takes the op's work space; the caller releases it. */
static void workspace(compute *c, tensor dst, tensor x, const conv *w, resample r) {
    size_t bytes = c->planned->workspace.conv ? c->planned->workspace.conv(c, dst, x, w, r) : 0;
    c->workspace = bytes ? wan_new(c, WAN_U8, WAN_DIMS((int64_t)bytes)).data : NULL;
}

static bool is_conv(const conv *w, int rank, int64_t in) {
    const dtype_info *d = wan_dtype(w->weight.type);
    return w->weight.rank == rank && w->weight.dim[1] == in && d->weight && d->block == 1 &&
           (!w->bias.data ||
            (w->bias.type == WAN_F32 && wan_elements(w->bias) == w->weight.dim[0]));
}

static int64_t min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* ----------------------------------------------------------------------------------- over time */

history wan_history_begin(compute *c, int64_t k, int64_t h, int64_t w, int64_t in) {
    return (history){.frames = wan_new(c, c->conv_in, WAN_DIMS(k, h, w, in))};
}

history wan_history_for(compute *c, const conv *of, int64_t h, int64_t w) {
    dtype type = of->code > 0 ? WAN_F8_E4M3 : c->conv_in;
    int64_t in = of->weight.dim[1], kt = of->weight.dim[2];
    assert(of->weight.rank == 5);
    return (history){.frames = wan_new(c, type, WAN_DIMS(kt - 1, h, w, in))};
}

/* Moves on: the last frames of history and x become the history. */
static void remember(compute *c, history *past, tensor x) {
    if (!past || !past->frames.rank)
        return;
    int64_t k = past->frames.dim[0], n = min64(x.dim[0], k);
    if (n < k && past->held > 0)
        wan_copy(c, wan_slice(past->frames, 0, k - n), wan_slice(past->frames, n, k - n));
    convert(c, wan_slice(past->frames, k - n, n), wan_slice(x, x.dim[0] - n, n));
    past->held = min64(past->held + n, k);
}

/* Taps that meet a real frame, over all output frames. */
static double taps_in_time(int64_t out_frames, int64_t kt, int stride, int64_t before,
                           int64_t held) {
    double taps = 0;
    for (int64_t t = 0; t < out_frames; t++) {
        int64_t zeros = before - held - t * stride;
        taps += (double)(zeros <= 0 ? kt : zeros < kt ? kt - zeros : 0);
    }
    return taps;
}

/* What follows a convolution in the same op. */
typedef struct then_norm {
    tensor gain;
    float code;
} then_norm;

static void conv_over_time(compute *c, tensor dst, tensor x, const conv *w, history *past,
                           int stride, bool add, const then_norm *norm) {
    assert(is_input(c, w, x) && (norm || is_frames(c, dst)) && is_conv(w, 5, x.dim[3]));
    assert(dst.dim[1] == x.dim[1] && dst.dim[2] == x.dim[2]);
    size_t mark = wan_mark(c);
    x = rounded(c, x);
    const int64_t *k = w->weight.dim + 2;
    bool kept = past && past->frames.rank;
    int64_t before = kept ? past->frames.dim[0] : k[0] - 1, held = kept ? past->held : 0;
    if (kept)
        assert(past->frames.dim[1] == x.dim[1] && past->frames.dim[2] == x.dim[2] &&
               past->frames.dim[3] == x.dim[3] && held <= before);
    int64_t frames = (before + x.dim[0] - k[0]) / stride + 1, out = w->weight.dim[0];
    assert(frames * out == dst.dim[0] * dst.dim[3] && out % dst.dim[3] == 0);
    double pixels = (double)(x.dim[1] * x.dim[2]);
    count(c,
          2.0 * taps_in_time(frames, k[0], stride, before, held) * pixels * k[1] * k[2] * x.dim[3] *
              out,
          (double)wan_bytes(x) + wan_bytes(w->weight) + (add ? 2.0 : 1.0) * wan_bytes(dst));
    workspace(c, dst, x, w, WAN_SAME);
    if (wan_ready(c) && norm)
        c->be->op.conv.conv3d_norm(c, dst, x, w, kept ? past : NULL, norm->gain, norm->code);
    else if (wan_ready(c))
        c->be->op.conv.conv3d(c, dst, x, w, kept ? past : NULL, stride, add);
    remember(c, past, x);
    wan_release(c, mark);
}

tensor wan_conv3d(compute *c, tensor x, const conv *w, history *past) {
    tensor dst = wan_new(c, c->act, WAN_DIMS(x.dim[0], x.dim[1], x.dim[2], w->weight.dim[0]));
    conv_over_time(c, dst, x, w, past, 1, false, NULL);
    return dst;
}

void wan_conv3d_add(compute *c, tensor sum, tensor x, const conv *w, history *past) {
    assert(sum.dim[0] == x.dim[0] && sum.dim[3] == w->weight.dim[0]);
    conv_over_time(c, sum, x, w, past, 1, true, NULL);
}

tensor wan_frames_up(compute *c, tensor x, const conv *w, history *past, bool first) {
    int64_t skip = first ? 1 : 0, channels = x.dim[3];
    assert(is_frames(c, x) && w->weight.dim[0] == 2 * channels && w->weight.dim[2] == 3);
    tensor dst = wan_new(c, c->act, WAN_DIMS(2 * x.dim[0] - skip, x.dim[1], x.dim[2], channels));
    if (first)
        wan_copy(c, wan_slice(dst, 0, 1), wan_slice(x, 0, 1));
    if (x.dim[0] > skip)
        conv_over_time(c, wan_slice(dst, skip, dst.dim[0] - skip),
                       wan_slice(x, skip, x.dim[0] - skip), w, past, 1, false, NULL);
    return dst;
}

void wan_frames_down_add(compute *c, tensor sum, tensor x, const conv *w, history *past,
                         bool first) {
    int64_t skip = first ? 1 : 0, frames = (x.dim[0] - skip) / 2;
    assert(is_frames(c, x) && x.dim[0] == skip + 2 * frames && sum.dim[0] == skip + frames);
    assert(sum.dim[3] == x.dim[3] && w->weight.dim[0] == x.dim[3] && w->weight.dim[2] == 3);
    if (first) {
        tensor y = wan_slice(sum, 0, 1);
        count(c, 0, 3.0 * wan_bytes(y));
        if (wan_ready(c))
            c->be->op.add(c, y, wan_slice(x, 0, 1));
        /* The first frame, which passed, is what lies before the second: no more zero frames. */
        remember(c, past, wan_slice(x, 0, 1));
    }
    assert(frames == 0 || past->frames.rank); /* or the first frame would be forgotten */
    if (frames > 0)
        conv_over_time(c, wan_slice(sum, skip, frames), wan_slice(x, skip, 2 * frames), w, past, 2,
                       true, NULL);
}

/* ------------------------------------------------------------------------------ inside a frame */

static int64_t resized(int64_t n, resample r) {
    return r == WAN_UP2 ? 2 * n : r == WAN_DOWN2 ? n / 2 : n;
}

static void conv_in_frame(compute *c, tensor dst, tensor x, const conv *w, resample r, bool add) {
    assert(is_input(c, w, x) && is_frames(c, dst) && is_conv(w, 4, x.dim[3]));
    const int64_t *k = w->weight.dim + 2;
    assert(k[0] == k[1] && (k[0] == 3 || (k[0] == 1 && r == WAN_SAME)));
    assert(dst.dim[0] == x.dim[0] && dst.dim[3] == w->weight.dim[0]);
    assert(dst.dim[1] == resized(x.dim[1], r) && dst.dim[2] == resized(x.dim[2], r));
    size_t mark = wan_mark(c);
    x = rounded(c, x);
    /* On an image of doubled pixels the nine taps are four (vae.md 1, phase form). */
    double taps = r == WAN_UP2 ? 4.0 : (double)(k[0] * k[1]);
    count(c, 2.0 * taps * wan_elements(dst) * x.dim[3],
          (double)wan_bytes(x) + wan_bytes(w->weight) + (add ? 2.0 : 1.0) * wan_bytes(dst));
    workspace(c, dst, x, w, r);
    if (wan_ready(c))
        c->be->op.conv.conv2d(c, dst, x, w, r, add);
    wan_release(c, mark);
}

tensor wan_conv2d(compute *c, tensor x, const conv *w, resample r) {
    tensor dst =
        wan_new(c, c->act,
                WAN_DIMS(x.dim[0], resized(x.dim[1], r), resized(x.dim[2], r), w->weight.dim[0]));
    conv_in_frame(c, dst, x, w, r, false);
    return dst;
}

void wan_conv2d_add(compute *c, tensor sum, tensor x, const conv *w, resample r) {
    conv_in_frame(c, sum, x, w, r, true);
}

static void pixel_norm(compute *c, tensor dst, tensor x, tensor gain, bool silu) {
    assert(is_frames(c, x) && gain.type == WAN_F32 && wan_elements(gain) == x.dim[3]);
    count(c, 0, (double)wan_bytes(x) + wan_bytes(dst));
    if (wan_ready(c))
        c->be->op.conv.pixel_norm(c, dst, x, gain, silu);
}

tensor wan_pixel_norm(compute *c, tensor x, tensor gain, bool silu) {
    tensor dst = wan_new(c, c->conv_in, 4, x.dim);
    pixel_norm(c, dst, x, gain, silu);
    return dst;
}

tensor wan_pixel_norm_in_place(compute *c, tensor x, tensor gain, bool silu) {
    tensor dst = x;
    if (c->conv_in != c->act)
        dst.type = c->conv_in;
    assert(wan_bytes(dst) <= wan_bytes(x));
    pixel_norm(c, dst, x, gain, silu);
    return dst;
}

float wan_code_scale(int64_t channels, float gain) {
    float most = sqrtf((float)channels) * fminf(fmaxf(gain, 1e-20f), 1e20f);
    int above;
    frexpf(448 / most, &above); /* 448 / most < 2^above */
    return ldexpf(1, above - 1);
}

tensor wan_pixel_norm_for(compute *c, tensor x, tensor gain, const conv *next, bool may_go) {
    if (next->code <= 0)
        return may_go ? wan_pixel_norm_in_place(c, x, gain, true)
                      : wan_pixel_norm(c, x, gain, true);
    assert(is_frames(c, x) && gain.type == WAN_F32 && wan_elements(gain) == x.dim[3]);
    tensor dst = wan_new(c, WAN_F8_E4M3, 4, x.dim);
    count(c, 0, (double)wan_bytes(x) + wan_bytes(dst));
    if (wan_ready(c))
        c->be->op.conv.pixel_codes(c, dst, x, gain, next->code);
    return dst;
}

tensor wan_conv3d_normed(compute *c, tensor x, const conv *w, history *past, tensor gain,
                         const conv *next) {
    bool codes = next->code > 0;
    if (codes != (w->code > 0) || !c->planned->conv_norms || !c->planned->conv_norms(c, w))
        return wan_pixel_norm_for(c, wan_conv3d(c, x, w, past), gain, next, true);
    assert(gain.type == WAN_F32 && wan_elements(gain) == w->weight.dim[0]);
    const then_norm norm = {gain, codes ? next->code : 1};
    tensor dst = wan_new(c, codes ? WAN_F8_E4M3 : c->conv_in,
                         WAN_DIMS(x.dim[0], x.dim[1], x.dim[2], w->weight.dim[0]));
    conv_over_time(c, dst, x, w, past, 1, false, &norm);
    return dst;
}

/* ------------------------------------------------------------------------------ moving numbers */

tensor wan_dup_up(compute *c, tensor x, int64_t out, int ft, int fs, bool first) {
    int drop = first ? ft - 1 : 0;
    assert(is_frames(c, x) && out * ft * fs * fs % x.dim[3] == 0);
    tensor dst =
        wan_new(c, c->act, WAN_DIMS(x.dim[0] * ft - drop, x.dim[1] * fs, x.dim[2] * fs, out));
    count(c, 0, (double)wan_bytes(x) + wan_bytes(dst));
    if (wan_ready(c))
        c->be->op.conv.dup_up(c, dst, x, ft, fs, drop);
    return dst;
}

tensor wan_avg_down(compute *c, tensor x, int64_t out, int ft, int fs, bool first) {
    int pad = first ? ft - 1 : 0;
    assert(is_frames(c, x) && x.dim[3] * ft * fs * fs % out == 0 && (x.dim[0] + pad) % ft == 0);
    tensor dst =
        wan_new(c, c->act, WAN_DIMS((x.dim[0] + pad) / ft, x.dim[1] / fs, x.dim[2] / fs, out));
    count(c, 0, (double)wan_bytes(x) + wan_bytes(dst));
    if (wan_ready(c))
        c->be->op.conv.avg_down(c, dst, x, ft, fs, pad);
    return dst;
}

void wan_copy(compute *c, tensor dst, tensor src) {
    assert(dst.type == src.type && wan_same_shape(dst, src));
    count(c, 0, 2.0 * wan_bytes(src));
    if (wan_ready(c))
        c->be->op.conv.copy(c, dst, src);
}

tensor wan_pixels_in(compute *c, tensor pixels, int64_t from, int64_t count_, int p) {
    assert(is_planes(pixels) && pixels.dim[2] % p == 0 && pixels.dim[3] % p == 0);
    assert(from >= 0 && count_ > 0 && from + count_ <= pixels.dim[1]);
    tensor dst = wan_new(
        c, c->act, WAN_DIMS(count_, pixels.dim[2] / p, pixels.dim[3] / p, pixels.dim[0] * p * p));
    count(c, 0, 2.0 * wan_bytes(dst));
    if (wan_ready(c))
        c->be->op.conv.pixels_in(c, dst, pixels, from, p);
    return dst;
}

void wan_pixels_out(compute *c, tensor pixels, int64_t from, tensor x, int p) {
    assert(is_planes(pixels) && is_frames(c, x) && x.dim[3] == pixels.dim[0] * p * p);
    assert(pixels.dim[2] == x.dim[1] * p && pixels.dim[3] == x.dim[2] * p);
    assert(from >= 0 && from + x.dim[0] <= pixels.dim[1]);
    count(c, 0, 2.0 * wan_bytes(x));
    if (wan_ready(c))
        c->be->op.conv.pixels_out(c, pixels, from, x, p);
}

tensor wan_pixels_u8(compute *c, tensor pixels) {
    assert(is_planes(pixels) && pixels.dim[0] == 3);
    tensor dst = wan_new(c, WAN_U8, WAN_DIMS(pixels.dim[1], pixels.dim[2], pixels.dim[3], 3));
    count(c, 0, (double)wan_bytes(pixels) + wan_bytes(dst));
    if (wan_ready(c))
        c->be->op.conv.pixels_u8(c, dst, pixels);
    return dst;
}

static bool are_statistics(tensor mean, tensor inv_std, int64_t n) {
    return mean.type == WAN_F32 && wan_elements(mean) == n && inv_std.type == WAN_F32 &&
           wan_elements(inv_std) == n;
}

tensor wan_latents_in(compute *c, tensor latents, int64_t from, int64_t count_, tensor mean,
                      tensor inv_std) {
    assert(is_planes(latents) && are_statistics(mean, inv_std, latents.dim[0]));
    assert(from >= 0 && count_ > 0 && from + count_ <= latents.dim[1]);
    tensor dst =
        wan_new(c, c->act, WAN_DIMS(count_, latents.dim[2], latents.dim[3], latents.dim[0]));
    count(c, 0, 2.0 * wan_bytes(dst));
    if (wan_ready(c))
        c->be->op.conv.latents_in(c, dst, latents, from, mean, inv_std);
    return dst;
}

void wan_latents_out(compute *c, tensor latents, int64_t from, tensor x, tensor mean,
                     tensor inv_std) {
    assert(is_planes(latents) && is_frames(c, x) && are_statistics(mean, inv_std, latents.dim[0]));
    assert(x.dim[1] == latents.dim[2] && x.dim[2] == latents.dim[3] && x.dim[3] >= latents.dim[0]);
    assert(from >= 0 && from + x.dim[0] <= latents.dim[1]);
    count(c, 0, 2.0 * x.dim[0] * x.dim[1] * x.dim[2] * latents.dim[0] * sizeof(float));
    if (wan_ready(c))
        c->be->op.conv.latents_out(c, latents, from, x, mean, inv_std);
}
