/* SPDX-License-Identifier: Apache-2.0 */
/* stage.h - one stage alone, on tensors of a file: ../shared/spec/stages.md, docs/stages.md. */
#ifndef WAN_PIPELINE_STAGE_H
#define WAN_PIPELINE_STAGE_H

#include "io/safetensors.h"
#include "wan.h"

typedef struct stage_options {
    const char *prompt; /* tokens */
    uint64_t seed;      /* noise; Turbo's re-noise */
    int64_t shape[4];   /* noise: C, F, h, w */
    bool has_shape;
    wan_sampler sampler; /* sample; DEFAULT, 0 and negative values: the model's own */
    int steps;
    double shift, guidance;
    bool trace; /* dit, sample: intermediate tensors too */
    int (*cancelled)(void *user);
    void *cancel_user;
} stage_options;

/* Names of the stages, NULL at the end. */
extern const char *const wan_stage_names[];

/* What a stage answered; owns names and data. */
typedef struct stage_results stage_results;
size_t wan_stage_count(const stage_results *r);
const named_tensor *wan_stage_at(const stage_results *r, size_t i);
const named_tensor *wan_stage_find(const stage_results *r, const char *name);
void wan_stage_free(stage_results *r);

/* `in` may be NULL for tokens and noise.  Opens the parts of the model that the stage needs and no
 * others; noise needs no model at all (m may be NULL).  NULL on failure. */
stage_results *wan_stage_compute(wan_model *m, const char *stage, const stage_options *o,
                                 const safetensors *in, error *err);
/* The same, into a file that appears only when complete. */
wan_status wan_stage_run(wan_model *m, const char *stage, const stage_options *o,
                         const safetensors *in, const char *out_path, error *err);

#endif
