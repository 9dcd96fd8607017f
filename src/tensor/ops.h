/* SPDX-License-Identifier: Apache-2.0 */
/* ops.h - the transformers' vocabulary.
 * Each call checks shapes, takes its result from scratch, counts work, and has the backend fill the
 * memory.  Names are the papers' words; what may be fused inside is the backend's business.
 * Activations are [tokens, dim] of c->act, which is f32 except on a backend that has bf16 ones;
 * what is read as an activation may always be f32 too (a residual stream). Tables, vectors and
 * modulations are f32. Formulas: ../shared/spec/dit.md 2, text.md 1.2. */
#ifndef WAN_TENSOR_OPS_H
#define WAN_TENSOR_OPS_H

#include "tensor/compute.h"

typedef enum activation { WAN_NONE, WAN_GELU_TANH, WAN_SILU } activation;

/* y = W x + b.  The weight is used as stored, whatever its type.  What it holds may be codes: a
 * number of row o in group g = i / group is code * scale[o], or code * group_scale[o, g] +
 * group_offset[o, g]. */
typedef struct linear {
    tensor weight;       /* [out, in] */
    tensor bias;         /* f32 [out], or no tensor */
    tensor scale;        /* f32 [1] for all rows or [out], or no tensor */
    tensor group_scale;  /* any plain float [out, in / group], or no tensor */
    tensor group_offset; /* the same type and shape */
    /* Bits of the operands of its products, at least: 0 for any; 16 where 8 would cost too much of
     * the accuracy of a CPU's int8 (fp8 is used all the same); 32 for little work on which all that
     * follows depends, never in 8 bits, on a CPU in f32. */
    int bits;
} linear;

/* One row of modulation for each distinct timestep, and which row each latent frame uses:
 * image-to-video has two rows, not one per token.  Token t belongs to frame t / tokens_per_frame.
 */
typedef struct by_frame {
    tensor rows; /* f32 [distinct, width] */
    int64_t at;  /* first of the `dim` columns used, so that six modulations share one table */
    tensor row_of_frame; /* i32 [frames] */
    int64_t tokens_per_frame;
} by_frame;

/* Rotary position embedding over a (frames, rows, columns) grid of tokens, columns fastest.  Pair i
 * of a head is (x[2i], x[2i+1]); the first pairs[0] pairs turn with the frame, then rows, then
 * columns. */
typedef struct rope {
    int64_t grid[3];
    int64_t pairs[3]; /* sum = head_dim / 2 */
    tensor table[3];  /* f32 [grid[i], pairs[i], 2]: cos, sin */
} rope;

typedef struct attention {
    int heads;
    float scale;            /* of q.k */
    int64_t last_key_count; /* the last key stands for this many equal ones (1: ordinary) */
    tensor bias; /* f32 [heads, 2 * reach - 1], added to the logit at [key - query + reach - 1]; or
                    none */
} attention;

/* [n, in] -> [n, out], then the activation. */
tensor wan_linear(compute *c, tensor x, const linear *l, activation act);
/* The same with an f32 result whatever the activations are. */
tensor wan_linear_f32(compute *c, tensor x, const linear *l, activation act);
/* The same into memory that is there already, [n, out]. */
void wan_linear_into(compute *c, tensor dst, tensor x, const linear *l, activation act);
/* A branch joins its residual stream: x += gate * (y W^T + b), all f32 from the product on.  gate
 * is that of the token's frame; NULL: 1. */
void wan_linear_add(compute *c, tensor x, tensor y, const linear *l, const by_frame *gate);
/* x += y. */
void wan_add(compute *c, tensor x, tensor y);
/* x += y * gate of the token's frame. */
void wan_add_gated(compute *c, tensor x, tensor y, by_frame gate);
/* (x - mean) / sqrt(var + eps) * gain + bias, population variance. */
tensor wan_layer_norm(compute *c, tensor x, tensor gain, tensor bias, float eps);
/* layer norm without gain and bias, then * (1 + scale) + shift of the token's frame. */
tensor wan_norm_modulate(compute *c, tensor x, by_frame shift, by_frame scale, float eps);
/* x * rsqrt(mean(x^2) + eps) * gain over the last axis. */
tensor wan_rms_norm(compute *c, tensor x, tensor gain, float eps);
tensor wan_rms_norm_f32(compute *c, tensor x, tensor gain, float eps);
/* In place: RMS norm over the whole row (all heads together), then rotation of each head unless r
 * is NULL. */
void wan_qk_norm_rope(compute *c, tensor x, tensor gain, float eps, int heads, const rope *r);
/* softmax(scale * q k^T + bias) v for each head: q [n, heads*d], k, v [m, heads*d] -> [n, heads*d].
 */
tensor wan_attention(compute *c, tensor q, tensor k, tensor v, const attention *a);
/* In place: x *= y (after an activation on x: the gated feed-forward of UMT5). */
void wan_mul(compute *c, tensor x, tensor y);
/* act(x), a new tensor of x's type. */
tensor wan_activate(compute *c, tensor x, activation act);
/* Rows of a table of any weight type: table [rows, dim], ids i32 [n] in range -> f32 [n, dim]. */
tensor wan_rows(compute *c, tensor table, tensor ids);
/* The same from a table of codes with scales; its bias is not used. */
tensor wan_embed(compute *c, const linear *table, tensor ids);
/* Every row of x [n, dim] plus the vector v [dim], a new tensor of x's type. */
tensor wan_add_vector(compute *c, tensor x, tensor v);
/* Latents [C, F, h, w] -> tokens [(F/pt)(h/ph)(w/pw), C*pt*ph*pw], channel slowest within a token.
 */
tensor wan_patchify(compute *c, tensor x, const int64_t patch[3]);
/* Tokens [n, pt*ph*pw*C], channel FASTEST within a token -> dst [C, F, h, w] (dit.md 2.7). */
void wan_unpatchify_into(compute *c, tensor dst, tensor x, const int64_t patch[3]);

#endif
