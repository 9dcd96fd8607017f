/* SPDX-License-Identifier: Apache-2.0 */
/* conv_ops.h - the video autoencoder's vocabulary.
 * Activations are f32 [T, H, W, C]: channels last, so that a pixel is a row and a convolution a matrix product.
 * Formulas: ../shared/spec/vae.md 1, 2, 4. */
#ifndef WAN_TENSOR_CONV_OPS_H
#define WAN_TENSOR_CONV_OPS_H

#include "tensor/compute.h"

typedef struct conv {
    tensor weight; /* [out, in, kt, kh, kw] or [out, in, kh, kw], as stored, any plain float type */
    tensor bias;   /* f32 [out], or no tensor */
} conv;

/* What a 2-D convolution does to the size: nearest x2 before it, or stride 2 with one zero column right and one zero
 * row at the bottom. */
typedef enum resample { WAN_SAME, WAN_UP2, WAN_DOWN2 } resample;

/* Convolution over time and space.  In time `history` [k, H, W, in] lies in front of x (zeros in it at the start of a
 * clip are the causal padding) and is afterwards updated to the last k input frames; space is zero padded to keep
 * H and W.  kt = 1 takes no history.  x [T, H, W, in] -> [(k + T - kt) / time_stride + 1, H, W, out]. */
tensor wan_conv3d(compute *c, tensor x, const conv *w, tensor history, int time_stride);
/* Per frame: kernel 3x3 or 1x1. */
tensor wan_conv2d(compute *c, tensor x, const conv *w, resample r);
/* x / max(|x|, 1e-12) * sqrt(C) * gain, over the channels of each pixel; then SiLU if asked. */
tensor wan_pixel_norm(compute *c, tensor x, tensor gain, bool silu);
/* Full attention inside each frame, one head, from qkv [T, H, W, 3C] -> [T, H, W, C]. */
tensor wan_frame_attention(compute *c, tensor qkv);
/* Frames of double channels become frames in pairs: [T, H, W, 2C] -> [2T, H, W, C] (vae.md 4.2, 2). */
tensor wan_split_frames(compute *c, tensor x);
/* Frames of a, then of b. */
tensor wan_join_frames(compute *c, tensor a, tensor b);
/* x += the DupUp shortcut of in: factors ft in time and fs in space, the first `drop` frames left out. */
void wan_add_dup_up(compute *c, tensor x, tensor in, int ft, int fs, int drop);
/* x += the AvgDown shortcut of in; `pad` zero frames are thought in front of it. */
void wan_add_avg_down(compute *c, tensor x, tensor in, int ft, int fs, int pad);
/* x += y, shapes equal. */
void wan_add_frames(compute *c, tensor x, tensor y);
/* Fills with zeros. */
void wan_clear(compute *c, tensor x);
/* Pixels [3, T, H, W] -> [T, H/p, W/p, 3*p*p], column offset the slow index within a channel (vae.md 2.2). */
tensor wan_pixels_in(compute *c, tensor pixels, int p);
/* The inverse, clamped to [-1, 1]: [T, h, w, 3*p*p] -> [3, T, h*p, w*p]. */
tensor wan_pixels_out(compute *c, tensor x, int p);
/* Latents: planes [C, F, h, w] of frames [from, from + count) -> [count, h, w, C] with z / inv_std + mean; and back, (z - mean) * inv_std.
 * mean and inv_std are f32 [C]. */
tensor wan_latents_in(compute *c, tensor latents, int64_t from, int64_t count, tensor mean, tensor inv_std);
tensor wan_latents_out(compute *c, tensor x, tensor mean, tensor inv_std);

typedef struct conv_ops {
    void (*conv3d)(compute *c, tensor dst, tensor x, const conv *w, tensor history, int time_stride);
    void (*conv2d)(compute *c, tensor dst, tensor x, const conv *w, resample r);
    void (*pixel_norm)(compute *c, tensor dst, tensor x, tensor gain, bool silu);
    void (*frame_attention)(compute *c, tensor dst, tensor qkv);
    void (*split_frames)(compute *c, tensor dst, tensor x);
    void (*join_frames)(compute *c, tensor dst, tensor a, tensor b);
    void (*add_dup_up)(compute *c, tensor x, tensor in, int ft, int fs, int drop);
    void (*add_avg_down)(compute *c, tensor x, tensor in, int ft, int fs, int pad);
    void (*clear)(compute *c, tensor x);
    void (*pixels_in)(compute *c, tensor dst, tensor pixels, int p);
    void (*pixels_out)(compute *c, tensor dst, tensor x, int p);
    void (*latents_in)(compute *c, tensor dst, tensor latents, int64_t from, tensor mean, tensor inv_std);
    void (*latents_out)(compute *c, tensor dst, tensor x, tensor mean, tensor inv_std);
} conv_ops;

#endif
