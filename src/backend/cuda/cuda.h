/* SPDX-License-Identifier: Apache-2.0 */
/* cuda.h - what the files of the CUDA backend share.
 * Everything runs on one stream of one device, in the order in which the ops are called; an op
 * returns before its work is done.  No CUDA type leaves this folder.  Compiles as C11 and as C++17.
 *
 * Types: at precision f32 every activation is WAN_F32 and products are exact f32 (no TF32).  At bf16
 * (and fp8) an activation `t` is WAN_F32 or WAN_BF16 as t.type says, sums are kept in f32, and
 * matrix operands are rounded to bf16 (fp8).  In the autoencoder WAN_F16 takes the place of
 * WAN_BF16: 8 times finer, and its numbers stay far from 65504, where stores saturate.  Vectors
 * (gains, biases, modulation, tables) are always f32. */
#ifndef WAN_BACKEND_CUDA_CUDA_H
#define WAN_BACKEND_CUDA_CUDA_H

#include <cuda_runtime.h>

#ifdef __cplusplus
extern "C" { /* of the C headers, too */
#endif

#include "backend/backend.h"

typedef struct cuda_lt cuda_lt;           /* lt.c: cuBLASLt, loaded at run time */

typedef struct cuda_device {
    int ordinal;
    int sm;          /* compute capability, 90 for 9.0 */
    int multiprocessors;
    precision precision;
    cudaStream_t stream;
    cuda_lt *lt; /* NULL: cuBLASLt was not found */
} cuda_device;

static inline cuda_device *wan_cuda_device(compute *c) {
    return (cuda_device *)c->device;
}

/* Puts "cuda: <what>: <reason>" into c->err unless e is cudaSuccess; false then. */
bool wan_cuda_ok(compute *c, cudaError_t e, const char *what);
/* After a launch: the last error of this thread. */
bool wan_cuda_launched(compute *c, const char *what);

/* The device address of a weight (l->weight, l->scale, a bias, a conv's weight), good on the
 * stream for kernels launched before the next call for another weight that is streamed.  NULL and
 * c->err if it could not be brought. */
void *wan_cuda_weight(compute *c, tensor w);

/* Work space of the op that runs now, from the arena: as many bytes as the op's *_workspace
 * function said.  256-byte aligned. */
static inline void *wan_cuda_workspace(compute *c) {
    return c->workspace;
}

/* ------------------------------------------------------------------------------- the ops
 * As in backend.h. linear.cu, norm.cu, elementwise.cu, attention.cu, conv.cu, frames.cu */
void wan_cuda_linear(compute *c, tensor dst, tensor x, const linear *l, activation act);
size_t wan_cuda_linear_workspace(const compute *c, tensor dst, tensor x, const linear *l);
void wan_cuda_attention(compute *c, tensor dst, tensor q, tensor k, tensor v, const attention *a);
size_t wan_cuda_attention_workspace(const compute *c, tensor q, tensor k, const attention *a);

void wan_cuda_add(compute *c, tensor x, tensor y);
void wan_cuda_add_gated(compute *c, tensor x, tensor y, by_frame gate);
void wan_cuda_mul(compute *c, tensor x, tensor y);
void wan_cuda_activate(compute *c, tensor dst, tensor x, activation act);
void wan_cuda_rows(compute *c, tensor dst, const linear *table, tensor ids);
void wan_cuda_add_vector(compute *c, tensor dst, tensor x, tensor v);
void wan_cuda_patchify(compute *c, tensor dst, tensor x, const int64_t patch[3]);
void wan_cuda_unpatchify(compute *c, tensor dst, tensor x, const int64_t patch[3]);
void wan_cuda_layer_norm(compute *c, tensor dst, tensor x, tensor gain, tensor bias, float eps);
void wan_cuda_norm_modulate(compute *c, tensor dst, tensor x, by_frame shift, by_frame scale,
                            float eps);
void wan_cuda_rms_norm(compute *c, tensor dst, tensor x, tensor gain, float eps);
void wan_cuda_qk_norm_rope(compute *c, tensor x, tensor gain, float eps, int heads, const rope *r);

void wan_cuda_conv3d(compute *c, tensor dst, tensor x, const conv *w, const history *past,
                     int time_stride, bool add);
void wan_cuda_conv3d_norm(compute *c, tensor dst, tensor x, const conv *w, const history *past,
                          tensor gain, float code);
void wan_cuda_conv2d(compute *c, tensor dst, tensor x, const conv *w, resample r, bool add);
size_t wan_cuda_conv_workspace(const compute *c, tensor dst, tensor x, const conv *w, resample r);
void wan_cuda_pixel_norm(compute *c, tensor dst, tensor x, tensor gain, bool silu);
void wan_cuda_pixel_codes(compute *c, tensor dst, tensor x, tensor gain, float code);
void wan_cuda_dup_up(compute *c, tensor dst, tensor x, int ft, int fs, int drop);
void wan_cuda_avg_down(compute *c, tensor dst, tensor x, int ft, int fs, int pad);
void wan_cuda_copy(compute *c, tensor dst, tensor src);
void wan_cuda_pixels_in(compute *c, tensor dst, tensor pixels, int64_t from, int p);
void wan_cuda_pixels_out(compute *c, tensor pixels, int64_t from, tensor x, int p);
void wan_cuda_pixels_u8(compute *c, tensor dst, tensor pixels);
void wan_cuda_latents_in(compute *c, tensor dst, tensor latents, int64_t from, tensor mean,
                         tensor inv_std);
void wan_cuda_latents_out(compute *c, tensor latents, int64_t from, tensor x, tensor mean,
                          tensor inv_std);

/* ------------------------------------------------------------------------------- pieces
 * unpack.cu: `rows` rows of `cols` numbers of a stored type, with the scales of struct linear (all
 * device addresses; the struct's tensors already hold device addresses), into bf16 or f32. */
void wan_cuda_unpack(compute *c, void *dst, dtype to, const linear *l);

/* pack.cu: a convolution's weight as stored (device memory, `channels_last` or not, any plain float
 * type) into [kt*kh*kw][out][in] of f32, bf16 or f16: how every conv weight lies after `place`.  Or
 * of WAN_F8_E4M3, in a multiple of 4, with a scale f32 [out] behind (and room to
 * read as many as a multiple of 256). */
cudaError_t wan_cuda_pack_conv(void *dst, dtype to, const void *src, tensor stored,
                               bool channels_last, cudaStream_t stream);

/* One convolution, a matrix product over pixels: dst row (t, y, x) = sum over taps (i, j, l) of
 * W[tap] . x[t * time_stride + i - before][y * stride + j - top][x * stride + l - left].  Frames below 0 come from
 * `past` (the last `held` of its `before` frames; those before them are zero), pixels outside are
 * zero. */
typedef struct conv_args {
    const void *x;    /* [frames_in, height, width, in] */
    const void *past; /* [before, height, width, in], or NULL: zeros */
    const void *weight; /* [kt*kh*kw][out][in], packed */
    const float *bias;  /* [out] or NULL */
    void *dst;          /* see out_h... */
    int64_t frames_in, height, width, in, out;
    int64_t frames_out;
    int kt, kh, kw;
    int before, held;   /* frames in front of x[0]; how many of them are real */
    int time_stride;
    int top, left;      /* zero pixels thought above and to the left */
    int stride;         /* in space: 1, or 2 (dst is height / 2 x width / 2) */
    /* Where (t, y, x, o) goes: dst + ((t * split + o / (out / split)) * dst_h + y * step + off_y) *
     * dst_w + x * step + off_x) * (out / split) + o % (out / split).  step 1, off 0, split 1 but for
     * the phases of a doubled image (step 2) and temporal doubling (split 2). */
    int64_t dst_h, dst_w;
    int step, off_y, off_x, split;
    bool add;   /* dst += */
    dtype type; /* of x, past, weight and dst: WAN_F32, WAN_BF16 or WAN_F16; or WAN_F8_E4M3, dst f16 */
    /* Of WAN_F8_E4M3: a sum of codes counts scale[o] * unit.  Readable up to a multiple of 256. */
    const float *scale;
    float unit;
    /* Not NULL: dst is `code` times the norm with these gains and SiLU, of the same type as x (code
     * 1 unless those are codes).  conv_sm90.cu only, 256 outputs, split 1, step 1, no add. */
    const float *gain;
    float code;
} conv_args;

/* conv_sm90.cu: f16, or codes of e4m3; false where type, shape or device is not for it (the generic
 * kernel then runs). */
bool wan_cuda_conv_sm90(const cuda_device *d, const conv_args *a, cudaError_t *e);
/* conv.cu: any shape and type but codes. */
cudaError_t wan_cuda_conv_any(const cuda_device *d, const conv_args *a);

/* attention_sm90.cu: bf16, head_dim 128, one or more heads, no bias; false where the shape is not
 * for it. attention.cu has the rest. q, dst [n, heads * d], k, v [m, heads * d]; the last key
 * counts last_key_count times. */
typedef struct attention_args {
    const void *q, *k, *v;
    void *dst;
    int64_t n, m;
    int heads, head_dim;
    float scale;
    int64_t last_key_count;
    const float *bias; /* f32 [heads, 2 * reach - 1] at [key - query + reach - 1], or NULL */
    int64_t reach;
    void *workspace; /* as much as wan_cuda_attention_workspace said; not for sm90 */
} attention_args;
bool wan_cuda_attention_sm90(const cuda_device *d, const attention_args *a, cudaError_t *e);
/* `type` of q, k, v and dst: WAN_F32, WAN_BF16 or WAN_F16. */
cudaError_t wan_cuda_attention_any(const cuda_device *d, const attention_args *a, dtype type);

#ifdef __cplusplus
}
#endif
#endif
