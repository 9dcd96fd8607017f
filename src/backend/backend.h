/* SPDX-License-Identifier: Apache-2.0 */
/* backend.h - one struct per kind of device.
 * Shapes are checked and results allocated by src/tensor before a function here is called; a
 * backend fills memory. Every pointer in `op` is set, except in the dry backend, whose functions
 * are never called.  A function that fails calls wan_fail(&c->err, ...) and returns. */
#ifndef WAN_BACKEND_BACKEND_H
#define WAN_BACKEND_BACKEND_H

#include "tensor/conv_ops.h"
#include "tensor/ops.h"

typedef struct backend_ops {
    /* ops.h; dst never overlaps an input unless the comment there says "in place" */
    void (*linear)(compute *c, tensor dst, tensor x, const linear *l, activation act);
    void (*add)(compute *c, tensor x, tensor y);
    void (*add_gated)(compute *c, tensor x, tensor y, by_frame gate);
    void (*layer_norm)(compute *c, tensor dst, tensor x, tensor gain, tensor bias, float eps);
    void (*norm_modulate)(compute *c, tensor dst, tensor x, by_frame shift, by_frame scale,
                          float eps);
    void (*rms_norm)(compute *c, tensor dst, tensor x, tensor gain, float eps);
    void (*qk_norm_rope)(compute *c, tensor x, tensor gain, float eps, int heads, const rope *r);
    void (*attention)(compute *c, tensor dst, tensor q, tensor k, tensor v, const attention *a);
    void (*mul)(compute *c, tensor x, tensor y);
    void (*activate)(compute *c, tensor dst, tensor x, activation act);
    void (*rows)(compute *c, tensor dst, const linear *table, tensor ids);
    void (*add_vector)(compute *c, tensor dst, tensor x, tensor v);
    void (*patchify)(compute *c, tensor dst, tensor x, const int64_t patch[3]);
    void (*unpatchify)(compute *c, tensor dst, tensor x, const int64_t patch[3]);
    conv_ops conv; /* conv_ops.h */
} backend_ops;

struct backend {
    const char *name;
    bool dry;
    /* Work space (pack buffers and the like) that open takes for that many threads. */
    size_t (*fixed_bytes)(int threads);
    void *(*open)(int threads, error *err);
    void (*close)(void *device);
    /* 64-byte aligned device memory; not cleared. */
    void *(*alloc)(void *device, size_t bytes, error *err);
    void (*free)(void *device, void *p, size_t bytes);
    void (*upload)(void *device, void *dst, const void *src, size_t bytes);
    void (*download)(void *device, void *dst, const void *src, size_t bytes);
    /* Makes a weight in host memory usable by ops: where the device reads host memory, the same
     * address. */
    tensor (*place)(void *device, tensor host, error *err);
    backend_ops op;
};

extern const backend wan_backend_cpu;

#endif
