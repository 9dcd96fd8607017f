/* SPDX-License-Identifier: Apache-2.0 */
/* compute.h - where ops run: a backend, a scratch arena, and the first thing that went wrong.
 * Errors stick: after a failure every op still returns tensors of the right shape but touches no
 * memory, so model code runs straight through and the caller looks at c->err once.  One thread
 * drives a compute; the backend spreads the work.  The same code on a dry compute yields the plan:
 * peak scratch, operations and bytes. */
#ifndef WAN_TENSOR_COMPUTE_H
#define WAN_TENSOR_COMPUTE_H

#include "base/arena.h"
#include "base/error.h"
#include "tensor/tensor.h"

typedef struct backend backend;

/* Operands of matrix products and convolutions. */
typedef enum precision {
    WAN_PRECISION_F32,
    WAN_PRECISION_BF16,
    WAN_PRECISION_INT8,
    WAN_PRECISION_FP8
} precision;

typedef struct work {
    double flops; /* multiply-add = 2; of matrix products, convolutions and attention */
    double bytes; /* operands read once and results written once */
} work;

typedef struct compute {
    const backend *be;
    const backend *planned; /* be, or in a dry run the one the plan is for */
    void *device;           /* the backend's own, from be->open */
    bool owns_device;
    arena scratch; /* all tensors below come from here */
    precision precision;
    dtype act; /* of activations between ops: WAN_F32, or WAN_BF16 or WAN_F16 where a backend has it
                */
    dtype conv_in; /* of what convolutions multiply: act, or what a backend rounds it to */
    int64_t tokens_together;      /* that go through a transformer block in one piece */
    int64_t pixels_together;      /* that go through a level of the autoencoder, at least */
    void *workspace;              /* of the op that runs now, see backend.h */
    error err;                    /* sticky */
    work done;                    /* added up by every op */
    int (*cancelled)(void *user); /* polled before every op; may be NULL */
    void *cancel_user;
    /* Receives intermediate results while a stage is traced; may be NULL.  t may be read with
     * wan_download. */
    void (*trace)(void *user, struct compute *c, const char *name, tensor t);
    void *trace_user;
    /* Told, on a dry compute, of weights that a model wants and its file lacks (which then is no
     * error), and of those that nobody asked for; for `wan inspect`.  May be NULL. */
    void (*note)(void *user, const char *weight, bool missing);
    void *note_user;
} compute;

/* A dry backend has no memory and no kernels: for plans. */
const backend *wan_backend_dry(void);
/* "cpu", "cuda" or "cuda:N", or "auto" and NULL for the best there is, with the number of the
 * device.  NULL and an error when this build or this machine has no such thing. */
const backend *wan_backend_find(const char *name, int *ordinal, error *err);

/* Opens a device of its own with `threads` workers, in f32, and `scratch` bytes of arena.  On
 * failure nothing is left open. */
wan_status wan_compute_open(compute *c, const backend *be, int threads, size_t scratch, error *err);
/* The same on a device that is open already and stays so. */
wan_status wan_compute_on(compute *c, const backend *be, void *device, precision p, size_t scratch,
                          error *err);
/* A compute that only counts.  Needs no close. */
compute wan_compute_dry(void);
/* One that counts what `be` would need at that precision. */
compute wan_compute_plan(const backend *be, precision p);
void wan_compute_close(compute *c);
/* From here on activations are of the autoencoder's type: its numbers are small enough for f16,
 * whose rounding is eight times finer than bf16's. */
void wan_compute_f16(compute *c);
/* From here on operands are f32 where activations are: for a picture that a whole clip rests on. */
void wan_compute_exact(compute *c);

/* Work space the backend itself holds when open with that many threads. */
size_t wan_compute_fixed_bytes(const backend *be, int threads);
bool wan_is_dry(const compute *c);

/* False once something failed or the caller cancelled: kernels must not run. */
bool wan_ready(compute *c);

/* An uninitialised tensor from scratch; it lives until the arena is released below it. */
tensor wan_new(compute *c, dtype type, int rank, const int64_t *dim);
size_t wan_mark(const compute *c);
void wan_release(compute *c, size_t mark);

/* Host to device and back, as many bytes as the tensor has.  Both wait until the host memory may be
 * reused. */
void wan_upload(compute *c, tensor dst, const void *src);
void wan_download(compute *c, void *dst, tensor src);

/* Hands t to the tracer, if there is one.  `format` names it ("block.%d"). */
__attribute__((format(printf, 3, 4))) void wan_trace(compute *c, tensor t, const char *format, ...);

#endif
