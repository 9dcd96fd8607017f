/* SPDX-License-Identifier: Apache-2.0 */
/* job.h - a parameter's second hop: what was asked, resolved once against the model. */
#ifndef WAN_PIPELINE_JOB_H
#define WAN_PIPELINE_JOB_H

#include "pipeline/model.h"

typedef struct job {
    wan_params p;     /* every field final; text still belongs to the caller or to the model */
    int64_t shape[4]; /* of latents: C, F, h, w */
    bool guided;      /* a second, negative pass each step */
    int decode_group; /* latent frames decoded at a time */
} job;

/* Latent frames decoded at a time for latents of that shape: enough that small clips do not drown
 * in overhead, fewer the finer the model's stages are cut. */
int wan_decode_group(const wan_model *m, const int64_t shape[4]);

/* The model must be open with NEED_ALL. */
wan_status wan_job_begin(job *j, const wan_model *m, const wan_params *p, error *err);

#endif
