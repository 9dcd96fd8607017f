/* SPDX-License-Identifier: Apache-2.0 */
/* solver.h - the denoising loop's arithmetic: schedules and solvers of sampling.md 2, 3 and 7.
 * A solver owns its history; latents belong to the caller.  Not thread-safe. */
#ifndef WAN_SAMPLE_SOLVER_H
#define WAN_SAMPLE_SOLVER_H

#include "base/error.h"

typedef struct solver solver;

/* steps >= 1 (Turbo: exactly 4), shift > 0; n values in a latent.  WAN_E_USAGE otherwise. */
solver *wan_solver_open(wan_sampler which, int steps, double shift, int64_t n, error *err);
void wan_solver_close(solver *s);
int wan_solver_steps(const solver *s);
const float *wan_solver_sigmas(const solver *s);    /* [steps + 1] */
const float *wan_solver_timesteps(const solver *s); /* [steps], what the network is told */
/* True for the Turbo samplers: each step but the last adds fresh noise, and guidance is not used.
 */
bool wan_solver_renoises(const solver *s);

/* Step i (0, 1, ... in order): x[n] from velocity[n], in place.  The Turbo samplers return the
 * clean estimate. */
void wan_solver_step(solver *s, int i, float *x, const float *velocity);
/* Turbo, after step i but not the last: x = (1 - sigma) x + sigma noise at the next level. */
void wan_solver_renoise(const solver *s, int i, float *x, const float *noise);

/* Bytes of history a solver holds for n values. */
size_t wan_solver_bytes(wan_sampler which, int64_t n);
const char *wan_sampler_name(wan_sampler which);
/* Distilled profiles: four steps, no guidance, fresh noise after each step but the last. */
bool wan_sampler_is_turbo(wan_sampler which);
/* WAN_SAMPLER_DEFAULT and an error for an unknown name. */
wan_sampler wan_sampler_find(const char *name, error *err);

#endif
