/* SPDX-License-Identifier: Apache-2.0 */
#include "sample/solver.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sample/schedule.h"

enum { HISTORY = 3 }; /* buffers of n values that UniPC needs, the others fewer */

struct solver {
    wan_sampler which;
    int steps;
    int64_t n;
    float *sigmas, *timesteps;
    int done;             /* steps taken */
    int order;            /* of the step before */
    float *clean, *older; /* clean estimates of the last step and the one before it */
    float *start;         /* what the last step began from, after correction */
    float *memory;        /* behind the three */
};

static const char *const sampler_names[] = {
    [WAN_SAMPLER_DEFAULT] = "default",
    [WAN_SAMPLER_UNIPC] = "unipc",
    [WAN_SAMPLER_UNIPC_OFFICIAL] = "unipc-official",
    [WAN_SAMPLER_EULER] = "euler",
    [WAN_SAMPLER_DPMPP] = "dpm++",
    [WAN_SAMPLER_TURBO] = "turbo",
    [WAN_SAMPLER_TURBO_PUBLISHED] = "turbo-published",
};

const char *wan_sampler_name(wan_sampler which) {
    assert((size_t)which < sizeof sampler_names / sizeof sampler_names[0]);
    return sampler_names[which];
}

wan_sampler wan_sampler_find(const char *name, error *err) {
    for (int i = WAN_SAMPLER_UNIPC; i <= WAN_SAMPLER_TURBO_PUBLISHED; i++)
        if (!strcmp(name, sampler_names[i]))
            return (wan_sampler)i;
    wan_fail(err, WAN_E_USAGE,
             "unknown sampler '%s'; there are unipc, unipc-official, euler, dpm++, turbo and "
             "turbo-published",
             name);
    return WAN_SAMPLER_DEFAULT;
}

static bool corrects(wan_sampler which) {
    return which == WAN_SAMPLER_UNIPC || which == WAN_SAMPLER_UNIPC_OFFICIAL;
}

static int history(wan_sampler which) {
    return corrects(which) ? HISTORY : which == WAN_SAMPLER_DPMPP ? 1 : 0;
}

size_t wan_solver_bytes(wan_sampler which, int64_t n) {
    return (size_t)history(which) * (size_t)n * sizeof(float);
}

solver *wan_solver_open(wan_sampler which, int steps, double shift, int64_t n, error *err) {
    assert(n > 0);
    float sigmas[WAN_STEPS_MAX + 1], timesteps[WAN_STEPS_MAX];
    if (wan_schedule_fill(which, steps, shift, sigmas, timesteps, err) != WAN_OK)
        return NULL;
    size_t levels = (size_t)steps;
    size_t bytes = wan_solver_bytes(which, n);
    solver *s = calloc(1, sizeof *s);
    float *table = malloc((2 * levels + 1) * sizeof *table);
    float *memory = bytes ? malloc(bytes) : NULL;
    if (!s || !table || (bytes && !memory)) {
        wan_fail(err, WAN_E_MEMORY, "no memory for a sampler's history of %zu bytes", bytes);
        free(memory);
        free(table);
        free(s);
        return NULL;
    }
    *s = (solver){.which = which, .steps = steps, .n = n, .memory = memory};
    s->sigmas = memcpy(table, sigmas, (levels + 1) * sizeof *table);
    s->timesteps = memcpy(table + levels + 1, timesteps, levels * sizeof *table);
    s->clean = memory;
    if (corrects(which)) {
        s->older = memory + n;
        s->start = memory + 2 * n;
    }
    return s;
}

void wan_solver_close(solver *s) {
    if (!s)
        return;
    free(s->sigmas); /* the timesteps lie behind them */
    free(s->memory);
    free(s);
}

int wan_solver_steps(const solver *s) {
    return s->steps;
}

const float *wan_solver_sigmas(const solver *s) {
    return s->sigmas;
}

const float *wan_solver_timesteps(const solver *s) {
    return s->timesteps;
}

bool wan_sampler_is_turbo(wan_sampler which) {
    return which == WAN_SAMPLER_TURBO || which == WAN_SAMPLER_TURBO_PUBLISHED;
}

bool wan_solver_renoises(const solver *s) {
    return wan_sampler_is_turbo(s->which);
}

/* Half the logarithm of the signal-to-noise ratio at level i: minus infinity at sigma 1, infinity
 * at sigma 0. */
static double lambda(const solver *s, int i) {
    double sigma = s->sigmas[i];
    return log1p(-sigma) - log(sigma);
}

/* Weights of a step, which is linear in everything it reads. */
typedef struct weights {
    double x, now, clean, older;
} weights;

/* From level i to i + 1 by the exponential integrator on clean estimates (sampling.md 3.1 and 3.2:
 * the predictor of UniPC and the step of DPM++ 2M are the same).  The last level has lambda =
 * infinity, which leaves exactly `now`. */
static weights predictor(const solver *s, int i, int order) {
    double h = lambda(s, i + 1) - lambda(s, i);
    double gain = -(1.0 - (double)s->sigmas[i + 1]) * expm1(-h);
    double slope = 0.0;
    if (order == 2)
        slope = 0.5 * h / (lambda(s, i) - lambda(s, i - 1));
    return (weights){(double)s->sigmas[i + 1] / (double)s->sigmas[i], gain * (1.0 + slope),
                     -gain * slope, 0.0};
}

/* The step from i - 1 to i again, now that the network has been asked at i (bh2, of the order the
 * step had). */
static weights corrector(const solver *s, int i, int order) {
    double h = lambda(s, i) - lambda(s, i - 1);
    double phi = expm1(-h);
    double gain = -(1.0 - (double)s->sigmas[i]) * phi;
    double now = 0.5, older = 0.0;
    if (order == 2) {
        double r = (lambda(s, i - 2) - lambda(s, i - 1)) / h;
        double g1 = -phi / h - 1.0;
        double g2 = -g1 / h - 0.5;
        double b1 = g1 / phi, b2 = 2.0 * g2 / phi;
        double rho = (b1 - b2) / (1.0 - r);
        now = b1 - rho;
        older = rho / r;
    }
    return (weights){(double)s->sigmas[i] / (double)s->sigmas[i - 1], gain * now,
                     gain * (1.0 - now - older), gain * older};
}

static void step_unipc(solver *s, int i, float *x, const float *velocity) {
    int order = i == 0 || i == s->steps - 1 ? 1 : 2;
    weights p = predictor(s, i, order);
    weights c = {0};
    if (i > 0)
        c = corrector(s, i, s->order);
    /* Unused history has weight zero but must not be read: it was never written. */
    bool has_clean = i > 0, has_older = i > 1;
    double sigma = s->sigmas[i];
    for (int64_t j = 0; j < s->n; j++) {
        double now = x[j] - sigma * velocity[j];
        double clean = has_clean ? s->clean[j] : 0.0;
        double older = has_older ? s->older[j] : 0.0;
        double begin = x[j];
        if (has_clean)
            begin = c.x * s->start[j] + c.now * now + c.clean * clean + c.older * older;
        x[j] = (float)(p.x * begin + p.now * now + p.clean * clean);
        s->start[j] = (float)begin;
        s->older[j] = (float)clean;
        s->clean[j] = (float)now;
    }
    s->order = order;
}

static void step_dpmpp(solver *s, int i, float *x, const float *velocity) {
    int order = i == 0 || i == s->steps - 1 ? 1 : 2;
    weights p = predictor(s, i, order);
    double sigma = s->sigmas[i];
    for (int64_t j = 0; j < s->n; j++) {
        double now = x[j] - sigma * velocity[j];
        double clean = order == 2 ? s->clean[j] : 0.0;
        x[j] = (float)(p.x * x[j] + p.now * now + p.clean * clean);
        s->clean[j] = (float)now;
    }
}

/* x += change * velocity: Euler, and Turbo's jump all the way to sigma 0. */
static void step_straight(const solver *s, double change, float *x, const float *velocity) {
    for (int64_t j = 0; j < s->n; j++)
        x[j] = (float)(x[j] + change * velocity[j]);
}

void wan_solver_step(solver *s, int i, float *x, const float *velocity) {
    assert(i == s->done && i < s->steps);
    if (corrects(s->which))
        step_unipc(s, i, x, velocity);
    else if (s->which == WAN_SAMPLER_DPMPP)
        step_dpmpp(s, i, x, velocity);
    else if (s->which == WAN_SAMPLER_EULER)
        step_straight(s, (double)s->sigmas[i + 1] - (double)s->sigmas[i], x, velocity);
    else
        step_straight(s, -(double)s->sigmas[i], x, velocity);
    s->done++;
}

void wan_solver_renoise(const solver *s, int i, float *x, const float *noise) {
    assert(wan_solver_renoises(s) && i + 1 < s->steps);
    double sigma = s->sigmas[i + 1];
    for (int64_t j = 0; j < s->n; j++)
        x[j] = (float)((1.0 - sigma) * x[j] + sigma * noise[j]);
}
