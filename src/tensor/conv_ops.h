/* SPDX-License-Identifier: Apache-2.0 */
/* conv_ops.h - the video autoencoder's vocabulary.
 * Activations are [T, H, W, C] of c->act (f32, or bf16 where a backend has it), planes of pixels
 * and latents f32: channels last, so that a pixel is a row and a convolution a matrix product.
 * Norms make what convolutions multiply, of c->conv_in; a convolution rounds other inputs to it.
 * Formulas: ../shared/spec/vae.md 1, 2, 4. */
#ifndef WAN_TENSOR_CONV_OPS_H
#define WAN_TENSOR_CONV_OPS_H

#include "tensor/compute.h"

typedef struct conv {
    tensor weight; /* [out, in, kt, kh, kw] or [out, in, kh, kw], as stored, any plain float type */
    tensor bias;   /* f32 [out], or no tensor */
    bool channels_last; /* in memory a weight is [out, kt, kh, kw, in] */
    float code; /* above 0: weight and inputs are codes of WAN_F8_E4M3, inputs so many times their
                   value; see wan_pixel_norm_for */
} conv;

/* The largest power of two for which no result of a norm over so many channels, with gains up to
 * `gain`, passes what E4M3 can hold: a result is at most sqrt(channels) * gain, which is what one
 * channel gets if all others are zero.  An ordinary one is then around 448 / sqrt(channels), 14 or
 * more, and codes are as exact down to a thousandth of that: half a sixteenth at most, 2.6 percent
 * in the mean.  Nothing is measured while a model runs, nothing saturates. */
float wan_code_scale(int64_t channels, float gain);

/* What a 2-D convolution does to the size: nearest x2 before it, or stride 2 with one zero column
 * right and one zero row at the bottom. */
typedef enum resample { WAN_SAME, WAN_UP2, WAN_DOWN2 } resample;

/* The input frames just before those of the next call, so that a clip can come in pieces.
 * At the start of a clip none is held: zero frames are thought in front, which is the causal
 * padding, and never read. */
typedef struct history {
    tensor frames; /* [k, H, W, in], latest last; no tensor: nothing is kept, every call starts
                      a clip */
    int64_t held;  /* that many, the last ones, are there */
} history;

/* `frames` from scratch and nothing held. */
history wan_history_begin(compute *c, int64_t k, int64_t h, int64_t w, int64_t in);
/* The kt - 1 frames of h x w that `of` has to keep of its inputs. */
history wan_history_for(compute *c, const conv *of, int64_t h, int64_t w);

/* Causal in time, zero padded in space: x [T, H, W, in] -> [T, H, W, out].  `past` has kt - 1
 * frames and moves on; NULL where kt = 1, or at a clip that comes in one piece. */
tensor wan_conv3d(compute *c, tensor x, const conv *w, history *past);
/* sum += the same; sum may not overlap x. */
void wan_conv3d_add(compute *c, tensor sum, tensor x, const conv *w, history *past);

/* Temporal upsampling (vae.md 4.2, 2), kernel 3x1x1 to 2C channels: each frame becomes two.  A
 * clip's first frame passes through as one and is no context to the others: [T, H, W, C] -> [2T -
 * first, H, W, C]. */
tensor wan_frames_up(compute *c, tensor x, const conv *w, history *past, bool first);
/* sum += temporal downsampling (vae.md 4.2, 3), kernel 3x1x1, stride 2.  A clip's first frame
 * passes through: [first + 2K, H, W, C] -> [first + K, H, W, C].  `past` has one frame. */
void wan_frames_down_add(compute *c, tensor sum, tensor x, const conv *w, history *past,
                         bool first);

/* Per frame: kernel 3x3 or 1x1 (WAN_SAME), 3x3 (others). */
tensor wan_conv2d(compute *c, tensor x, const conv *w, resample r);
void wan_conv2d_add(compute *c, tensor sum, tensor x, const conv *w, resample r);

/* x / max(|x|, 1e-12) * sqrt(C) * gain, over the channels of each pixel; then SiLU if asked. */
tensor wan_pixel_norm(compute *c, tensor x, tensor gain, bool silu);
/* The same in x's memory, of which a narrower result takes the front. */
tensor wan_pixel_norm_in_place(compute *c, tensor x, tensor gain, bool silu);
/* With SiLU, as what `next` multiplies: codes where it has codes; else in x's memory if x may go.
 */
tensor wan_pixel_norm_for(compute *c, tensor x, tensor gain, const conv *next, bool may_go);
/* The same of what wan_conv3d makes, in one go where a backend can. */
tensor wan_conv3d_normed(compute *c, tensor x, const conv *w, history *past, tensor gain,
                         const conv *next);

/* The DupUp shortcut (vae.md 2.3) to `out` channels: factors ft in time and fs in space; a clip's
 * first frame gives one, not ft. */
tensor wan_dup_up(compute *c, tensor x, int64_t out, int ft, int fs, bool first);
/* The AvgDown shortcut (vae.md 2.4) to `out` channels; ft - 1 zero frames are thought before a
 * clip's first. */
tensor wan_avg_down(compute *c, tensor x, int64_t out, int ft, int fs, bool first);
/* dst = src, shapes equal; they may overlap. */
void wan_copy(compute *c, tensor dst, tensor src);

/* Pixels [3, T, H, W], frames [from, from + count) -> [count, H/p, W/p, 3*p*p], column offset the
 * slow index within a channel (vae.md 2.2). */
tensor wan_pixels_in(compute *c, tensor pixels, int64_t from, int64_t count, int p);
/* The inverse, clamped to [-1, 1]: [T, h, w, 3*p*p] -> frames [from, from + T) of pixels [3, ...,
 * h*p, w*p]. */
void wan_pixels_out(compute *c, tensor pixels, int64_t from, tensor x, int p);
/* Pixels f32 [3, T, H, W] in [-1, 1] -> u8 [T, H, W, 3] by truncation, floor(clamp(x / 2 + 1/2, 0,
 * 1) * 255) in f32, as diffusers writes clips (golden/README.md); a NaN gives 0. */
tensor wan_pixels_u8(compute *c, tensor pixels);
/* Latents: planes [C, F, h, w], frames [from, from + count) -> [count, h, w, C] with z / inv_std +
 * mean. */
tensor wan_latents_in(compute *c, tensor latents, int64_t from, int64_t count, tensor mean,
                      tensor inv_std);
/* And back: the first C of x's channels, (x - mean) * inv_std -> frames [from, from + T) of latents
 * [C, F, h, w]. */
void wan_latents_out(compute *c, tensor latents, int64_t from, tensor x, tensor mean,
                     tensor inv_std);

/* What a backend does; shapes are checked and results allocated before.  The dst of a convolution
 * never overlaps its input; `add` keeps what dst holds. */
typedef struct conv_ops {
    /* Frames past->frames (the last past->held of them) lie in front of x, zero frames in front of
     * those: dst frame t sees kt frames from t * time_stride on, counted from past->frames' first
     * (past NULL: from kt - 1 zero frames). A dst of fewer channels than w has gets the rest in
     * further frames: channel o of frame t is channel o % C of frame t * (out / C) + o / C. */
    void (*conv3d)(compute *c, tensor dst, tensor x, const conv *w, const history *past,
                   int time_stride, bool add);
    /* dst = `code` times the norm with SiLU of that, WAN_F8_E4M3 or (code 1) a plain type.  NULL
     * where conv_norms of struct backend is. */
    void (*conv3d_norm)(compute *c, tensor dst, tensor x, const conv *w, const history *past,
                        tensor gain, float code);
    void (*conv2d)(compute *c, tensor dst, tensor x, const conv *w, resample r, bool add);
    /* dst may lie where x does */
    void (*pixel_norm)(compute *c, tensor dst, tensor x, tensor gain, bool silu);
    /* With SiLU, `code` times as large, to WAN_F8_E4M3 apart from x.  NULL where `place` makes no
     * codes. */
    void (*pixel_codes)(compute *c, tensor dst, tensor x, tensor gain, float code);
    void (*dup_up)(compute *c, tensor dst, tensor x, int ft, int fs, int drop);
    void (*avg_down)(compute *c, tensor dst, tensor x, int ft, int fs, int pad);
    void (*copy)(compute *c, tensor dst, tensor src); /* may overlap */
    void (*pixels_in)(compute *c, tensor dst, tensor pixels, int64_t from, int p);
    void (*pixels_out)(compute *c, tensor pixels, int64_t from, tensor x, int p);
    void (*pixels_u8)(compute *c, tensor dst, tensor pixels);
    void (*latents_in)(compute *c, tensor dst, tensor latents, int64_t from, tensor mean,
                       tensor inv_std);
    void (*latents_out)(compute *c, tensor latents, int64_t from, tensor x, tensor mean,
                        tensor inv_std);
} conv_ops;

#endif
