/* SPDX-License-Identifier: Apache-2.0 */
/* steps.h - the four stages of a job on arrays in host memory.
 * Each stage is one function that runs twice: on a dry compute it yields the scratch it needs and
 * the work it is; then a compute of exactly that size is opened for it and closed after it.  So
 * memory is known before a stage starts and nothing of one stage is resident in the next. */
#ifndef WAN_PIPELINE_STEPS_H
#define WAN_PIPELINE_STEPS_H

#include "pipeline/model.h"
#include "sample/noise.h"
#include "sample/solver.h"

/* A prompt after the text encoder: the rows of real tokens, row-major. */
typedef struct text_states {
    float *rows; /* [count, dim], owned */
    int64_t count, dim;
} text_states;

/* Where a stage reports to; all may be NULL. */
typedef struct watcher {
    int (*cancelled)(void *user);
    void *user;
    /* `done` of `total` units; non-zero cancels. */
    int (*step)(void *owner, int done, int total);
    void *owner;
    void (*trace)(void *user, compute *c, const char *name, tensor t);
    void *trace_user;
} watcher;

/* What a stage costs. */
typedef struct cost {
    size_t scratch; /* arena */
    size_t own;     /* vectors and tables beside the map, host arrays */
    double flops, bytes;
} cost;

/* Every function below: with `only` set, fills *only from a dry run and touches nothing else. */

wan_status wan_run_text(wan_model *m, const int32_t *ids, int64_t count, text_states *out,
                        const watcher *w, cost *only, error *err);
void wan_text_states_free(text_states *t);

/* pixels [3, T, H, W] in [-1, 1] -> latents [C, F, h, w]. */
wan_status wan_run_encode(wan_model *m, const float *pixels, int64_t frames, int64_t height,
                          int64_t width, float *latents, const watcher *w, cost *only, error *err);

/* One forward pass of the transformer, as `wan stage dit` runs it. */
wan_status wan_run_dit(wan_model *m, const float *x, const int64_t shape[4], const float *timestep,
                       const text_states *text, float *velocity, const watcher *w, cost *only,
                       error *err);

typedef struct denoise {
    int64_t shape[4]; /* C, F, h, w */
    wan_sampler sampler;
    int steps;
    double shift, guidance;
    const text_states *text, *negative; /* negative may be NULL when guidance <= 1 */
    const float *first;                 /* [C, h, w]: the known first frame, or NULL */
    float *x;                           /* in: noise, out: latents, [C, F, h, w] */
    const float *renoise; /* [steps - 1, C, F, h, w] for Turbo, or NULL: draws of `generator` */
    noise_generator *generator;
    /* Latents after step i, the first frame in its place; may be NULL. */
    wan_status (*after)(void *user, int i, const float *latents, error *err);
    void *after_user;
} denoise;

wan_status wan_run_denoise(wan_model *m, const denoise *d, const watcher *w, cost *only,
                           error *err);

/* Decodes `group` latent frames at a time and hands out the n frames of each group in order: f32
 * pixels [3, n, H, W], or, for `bytes`, u8 [n, H, W, 3].  A device of its own goes on decoding
 * while the sink runs. */
typedef wan_status (*pixel_sink)(void *user, const void *pixels, int64_t first, int64_t n,
                                 error *err);
wan_status wan_run_decode(wan_model *m, const float *latents, const int64_t shape[4], int group,
                          bool bytes, pixel_sink sink, void *sink_user, const watcher *w,
                          cost *only, error *err);

#endif
