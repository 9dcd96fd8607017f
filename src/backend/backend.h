/* SPDX-License-Identifier: Apache-2.0 */
/* backend.h - one struct per kind of device.
 * Shapes are checked and results allocated by src/tensor before a function here is called; a
 * backend fills memory. Every pointer in `op` is set, except in the dry backend, whose functions
 * are never called.  A function that fails calls wan_fail(&c->err, ...) and returns. */
#ifndef WAN_BACKEND_BACKEND_H
#define WAN_BACKEND_BACKEND_H

#include "base/log.h"
#include "tensor/conv_ops.h"
#include "tensor/ops.h"

typedef struct device_options {
    int threads;
    precision precision;
    int ordinal; /* which of several devices */
    logger log;  /* what was found and chosen */
} device_options;

/* What a device can do at most in a second: operations on registers alone, all threads together,
 * and bytes read and written by a copy through memory.  0: not known. */
typedef struct device_peak {
    double flops, bytes;
} device_peak;

/* What a weight is to the ops. */
typedef enum weight_use {
    WAN_USE_MATRIX,
    WAN_USE_TABLE,              /* of which few rows are read at a time */
    WAN_USE_CONV,               /* [out, in, kernel...] */
    WAN_USE_CONV_CHANNELS_LAST, /* in memory [out, kernel..., in] */
    /* The same for a convolution of what wan_pixel_norm_for makes, which may be placed as codes:
     * as WAN_F8_E4M3, see struct conv. */
    WAN_USE_CONV_OF_NORM,
    WAN_USE_CONV_OF_NORM_CHANNELS_LAST
} weight_use;

/* Of one op, from shapes and types alone, so that a plan knows it before there is a device. */
typedef struct workspace_sizes {
    size_t (*linear)(const compute *c, tensor dst, tensor x, const linear *l);
    size_t (*attention)(const compute *c, tensor q, tensor k, const attention *a);
    size_t (*conv)(const compute *c, tensor dst, tensor x, const conv *w, resample r);
} workspace_sizes;

typedef struct backend_ops {
    /* Activations are of type c->act or f32, vectors f32.
     * ops.h; dst never overlaps an input unless the comment there says "in place" */
    void (*linear)(compute *c, tensor dst, tensor x, const linear *l, activation act);
    /* x += gate * the product of y, which has room in `sums`; gate NULL: 1.  NULL: two ops do. */
    void (*linear_add)(compute *c, tensor x, tensor sums, tensor y, const struct linear *l,
                       const by_frame *gate);
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
    void (*rows)(compute *c, tensor dst, const struct linear *table, tensor ids);
    void (*add_vector)(compute *c, tensor dst, tensor x, tensor v);
    void (*patchify)(compute *c, tensor dst, tensor x, const int64_t patch[3]);
    void (*unpatchify)(compute *c, tensor dst, tensor x, const int64_t patch[3]);
    conv_ops conv; /* conv_ops.h */
} backend_ops;

struct backend {
    const char *name;
    bool dry;
    bool half_activations; /* bf16 between ops, f16 in the autoencoder, unless the precision is f32
                            */
    bool own_memory;       /* apart from the host's: weights are copied, and stay between jobs */
    unsigned precisions;   /* 1 << WAN_PRECISION_...: those it has */
    precision best;        /* what nothing said means */
    /* Those that pay on this machine, fastest first, f32 last; returns how many.  NULL: `best` is
     * the fastest worth having. */
    int (*by_speed)(precision list[4]);
    size_t context;           /* memory of its own that a device takes beside tensors, about */
    size_t stream_from;       /* weights of so many bytes can pass through instead of staying... */
    int stream_slots;         /* ...through so many slots of the size of the largest */
    int64_t tokens_together;  /* that go through a transformer block in one piece */
    int64_t pixels_together;  /* that go through a level of the autoencoder */
    int64_t latents_together; /* latent pixels that a decode step should have at least */
    /* Work space (pack buffers and the like) that open takes for that many threads. */
    size_t (*fixed_bytes)(int threads);
    void *(*open)(const device_options *o, error *err);
    void (*close)(void *device);
    /* 256-byte aligned device memory; not cleared. */
    void *(*alloc)(void *device, size_t bytes, error *err);
    void (*free)(void *device, void *p, size_t bytes);
    void (*upload)(void *device, void *dst, const void *src, size_t bytes);
    void (*download)(void *device, void *dst, const void *src, size_t bytes);
    /* The same in two halves, for host memory from host_alloc: the device may work on meanwhile,
     * and `dst` is there once the end call with the same slot (0 or 1) returns.  NULL where nothing
     * is gained; the others NULL too then. */
    void (*download_begin)(void *device, int slot, void *dst, const void *src, size_t bytes);
    void (*download_end)(void *device, int slot);
    void *(*host_alloc)(void *device, size_t bytes, error *err);
    void (*host_free)(void *device, void *p);
    /* What went wrong in calls that return nothing; NULL where nothing can. */
    wan_status (*check)(void *device, error *err);
    /* Makes a weight in host memory usable by ops: where the device reads host memory, the same
     * address.  Else a copy, to be given back by free with its bytes; a convolution's may lie in
     * another order and type, which only the ops know. */
    tensor (*place)(void *device, tensor host, weight_use use, error *err);
    /* From now on only `bytes` more of weights that can pass through stay.  NULL: all stay. */
    void (*limit)(void *device, size_t bytes);
    /* Gives what is kept for reuse back to the system; NULL: nothing is. */
    void (*trim)(void *device);
    /* Memory that could still be taken, counting what the device keeps for reuse; and the most it
     * has held so far, without its context.  NULL: it is the host's. */
    size_t (*available)(void *device);
    size_t (*held_most)(void *device);
    /* Measured when called, in some tenths of a second and 256 MiB.  NULL: not known. */
    device_peak (*peak)(void *device, precision p);
    /* Type of the convolutions' inputs. NULL: that of the activations. */
    dtype (*conv_input)(precision p);
    /* Type and so bytes of what place makes. NULL: place copies nothing. */
    dtype (*placed_type)(precision p, tensor host, weight_use use);
    workspace_sizes workspace; /* functions may be NULL: none is needed */
    /* op.conv.conv3d_norm takes w, from shapes and types alone.  NULL: none. */
    bool (*conv_norms)(const compute *c, const conv *w);
    backend_ops op;
};

extern const backend wan_backend_cpu;
/* The instruction sets this machine has kernels for, in words. */
void wan_backend_cpu_describe(char *text, size_t size);

/* What a plug-in's entry point returns; `abi` guards against one from another build. */
#define WAN_PLUGIN_ABI                                                                             \
    (sizeof(backend) * 1000003u + sizeof(compute) * 1009u + sizeof(device_options) + 1u)
typedef struct backend_plugin {
    size_t abi;
    const backend *be;
    /* Devices that can be used; 0 and the reason when there is none. */
    int (*count)(error *err);
    /* What was found, line by line, for `wan doctor`. */
    void (*describe)(void (*line)(void *user, const char *what, const char *is), void *user);
} backend_plugin;

/* The CUDA plug-in, loaded once for the process; NULL and the reason, with the places looked at.
 * registry.c */
const backend_plugin *wan_backend_cuda(error *err);

#endif
