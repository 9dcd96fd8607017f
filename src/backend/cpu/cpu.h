/* SPDX-License-Identifier: Apache-2.0 */
/* cpu.h - what the files of the CPU backend share: the device, its work space, and the ops each
 * file defines.  A device belongs to one compute.  Ops spread their work over its team; a worker
 * owns its piece of the work space while it runs a piece of an op, and nothing in it outlives the
 * op.  No result depends on the number of threads: a value is always summed by one worker, in an
 * order that shapes alone decide. */
#ifndef WAN_BACKEND_CPU_CPU_H
#define WAN_BACKEND_CPU_CPU_H

#include <assert.h>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "base/team.h"

/* Work space of one thread, 64-byte aligned. */
#define CPU_WORK_BYTES ((size_t)2 << 20)

typedef struct cpu_device {
    int threads;
    team *team;
    cpu_kernels k;
    char *work; /* threads * CPU_WORK_BYTES */
} cpu_device;

static inline const cpu_device *wan_cpu_device(const compute *c) {
    return c->device;
}

/* The piece of a worker. */
static inline void *wan_cpu_work(const cpu_device *d, int thread) {
    assert(thread >= 0 && thread < d->threads);
    return d->work + (size_t)thread * CPU_WORK_BYTES;
}

/* At the end of a piece that called tiles. */
static inline void wan_cpu_rest(const cpu_device *d) {
    if (d->k.rest)
        d->k.rest();
}

/* Items of `each` numbers that make a piece of work worth handing over. */
static inline int64_t wan_cpu_grain(int64_t each) {
    return each < 16384 ? 16384 / (each > 0 ? each : 1) : 1;
}

/* The precision of what has no 8-bit form: in int8 bf16, where that is faster than f32. */
static inline precision wan_cpu_without_int8(precision p, const cpu_kernels *k) {
    if (p != WAN_PRECISION_INT8)
        return p;
    return k->fast_bf16 ? WAN_PRECISION_BF16 : WAN_PRECISION_F32;
}

/* A device that may use only the sets in `have`: for checks. */
void *wan_cpu_open(int threads, unsigned have, error *err);

/* n elements (whole blocks) of any weight type to f32; src may be unaligned. */
void wan_cpu_unpack(const cpu_kernels *k, dtype type, float *dst, const void *src, int64_t n);
/* Columns [from, from + n), whole blocks, of a row of a weight with its scales. */
void wan_cpu_unpack_row(const cpu_kernels *k, const linear *l, float *dst, int64_t row,
                        int64_t from, int64_t n);
/* x = act(x + bias); bias may be NULL. */
void wan_cpu_finish(const cpu_kernels *k, float *x, const float *bias, int64_t n, activation act);

/* peak.c */
device_peak wan_cpu_peak(void *device, precision p);

/* linear.c, attention.c */
size_t wan_cpu_linear_space(const compute *c, tensor dst, tensor x, const linear *l);
void wan_cpu_linear(compute *c, tensor dst, tensor x, const linear *l, activation act);
void wan_cpu_linear_add(compute *c, tensor x, tensor sums, tensor y, const linear *l,
                        const by_frame *gate);
void wan_cpu_attention(compute *c, tensor dst, tensor q, tensor k, tensor v, const attention *a);

/* norm.c */
void wan_cpu_layer_norm(compute *c, tensor dst, tensor x, tensor gain, tensor bias, float eps);
void wan_cpu_norm_modulate(compute *c, tensor dst, tensor x, by_frame shift, by_frame scale,
                           float eps);
void wan_cpu_rms_norm(compute *c, tensor dst, tensor x, tensor gain, float eps);
void wan_cpu_qk_norm_rope(compute *c, tensor x, tensor gain, float eps, int heads, const rope *r);

/* elementwise.c */
void wan_cpu_add(compute *c, tensor x, tensor y);
void wan_cpu_add_gated(compute *c, tensor x, tensor y, by_frame gate);
void wan_cpu_mul(compute *c, tensor x, tensor y);
void wan_cpu_activate(compute *c, tensor dst, tensor x, activation act);
void wan_cpu_rows(compute *c, tensor dst, const linear *table, tensor ids);
void wan_cpu_add_vector(compute *c, tensor dst, tensor x, tensor v);
void wan_cpu_patchify(compute *c, tensor dst, tensor x, const int64_t patch[3]);
void wan_cpu_unpatchify(compute *c, tensor dst, tensor x, const int64_t patch[3]);
/* The modulation columns of token t. */
const float *wan_cpu_frame_row(by_frame m, int64_t token);
/* x += y * gate; gate may be NULL (1). */
void wan_cpu_add_row(float *x, const float *y, const float *gate, int64_t n);

/* conv.c */
dtype wan_cpu_conv_input(precision p);
void wan_cpu_conv3d(compute *c, tensor dst, tensor x, const conv *w, const history *past,
                    int time_stride, bool add);
void wan_cpu_conv2d(compute *c, tensor dst, tensor x, const conv *w, resample r, bool add);

/* frames.c */
void wan_cpu_pixel_norm(compute *c, tensor dst, tensor x, tensor gain, bool silu);
void wan_cpu_dup_up(compute *c, tensor dst, tensor x, int ft, int fs, int drop);
void wan_cpu_avg_down(compute *c, tensor dst, tensor x, int ft, int fs, int pad);
void wan_cpu_copy(compute *c, tensor dst, tensor src);
void wan_cpu_pixels_in(compute *c, tensor dst, tensor pixels, int64_t from, int p);
void wan_cpu_pixels_out(compute *c, tensor pixels, int64_t from, tensor x, int p);
void wan_cpu_pixels_u8(compute *c, tensor dst, tensor pixels);
void wan_cpu_latents_in(compute *c, tensor dst, tensor latents, int64_t from, tensor mean,
                        tensor inv_std);
void wan_cpu_latents_out(compute *c, tensor latents, int64_t from, tensor x, tensor mean,
                         tensor inv_std);

#endif
