/* SPDX-License-Identifier: Apache-2.0 */
#include "sample/schedule.h"

#include <math.h>
#include <string.h>

#include "sample/solver.h"

/* [0] the student was trained on these four pairs; [1] what the published program makes of the same
 * list of times: nearest levels of a table with shift 8, times rounded to bfloat16 (750 becomes
 * 752). */
static const struct {
    float sigma[WAN_TURBO_STEPS], timestep[WAN_TURBO_STEPS];
} turbo_pairs[] = {
    {{1.0f, 0.9375f, 0.8333333f, 0.625f}, {1000.0f, 936.0f, 832.0f, 624.0f}},
    {{1.0f, 0.75025767f, 0.49971864f, 0.25000003f}, {1000.0f, 752.0f, 500.0f, 250.0f}},
};

static double warp(double shift, double sigma) {
    return shift * sigma / (1.0 + (shift - 1.0) * sigma);
}

/* The same in float32, as a table that was kept in float32 holds it. */
static float warp_single(double shift, float sigma) {
    return (float)shift * sigma / (1.0f + (float)(shift - 1.0) * sigma);
}

/* Level i before the last warp: u of the specification, evenly spaced as numpy's linspace computes
 * it. */
static double plain_level(wan_sampler which, int steps, double shift, int i) {
    double first = 1.0, last = 0.0, unit = 1.0;
    int gaps = steps;
    switch (which) {
    case WAN_SAMPLER_UNIPC:
        last = 1.0 / 1000.0;
        break;
    case WAN_SAMPLER_UNIPC_OFFICIAL:
        first = 0.9990000128746033; /* 1 - 1/1000 in float32 */
        break;
    case WAN_SAMPLER_EULER:
        /* Spaced in times, between the ends of a table that is warped already: the low end is
         * warped twice. */
        unit = 1000.0;
        first = unit * warp_single(shift, 1.0f);
        last = unit * warp_single(shift, 1.0f / 1000.0f);
        gaps = steps - 1;
        break;
    default:
        break;
    }
    return (gaps ? first + i * ((last - first) / gaps) : first) / unit;
}

static wan_status check(wan_sampler which, int steps, double shift, error *err) {
    if (which < WAN_SAMPLER_UNIPC || which > WAN_SAMPLER_TURBO_PUBLISHED)
        return wan_fail(err, WAN_E_USAGE, "sampler %d does not exist", (int)which);
    bool turbo = wan_sampler_is_turbo(which);
    if (turbo && steps != WAN_TURBO_STEPS)
        return wan_fail(err, WAN_E_USAGE, "sampler %s takes exactly %d steps, not %d",
                        wan_sampler_name(which), (int)WAN_TURBO_STEPS, steps);
    if (steps < 1 || steps > WAN_STEPS_MAX)
        return wan_fail(err, WAN_E_USAGE, "steps must be between 1 and %d, not %d",
                        (int)WAN_STEPS_MAX, steps);
    if (!turbo && !(shift > 0.0 && isfinite(shift)))
        return wan_fail(err, WAN_E_USAGE, "shift must be greater than 0, not %g", shift);
    return WAN_OK;
}

wan_status wan_schedule_fill(wan_sampler which, int steps, double shift, float *sigmas,
                             float *timesteps, error *err) {
    wan_status status = check(which, steps, shift, err);
    if (status != WAN_OK)
        return status;
    sigmas[steps] = 0.0f;
    if (wan_sampler_is_turbo(which)) {
        int row = which == WAN_SAMPLER_TURBO_PUBLISHED;
        memcpy(sigmas, turbo_pairs[row].sigma, sizeof turbo_pairs[row].sigma);
        memcpy(timesteps, turbo_pairs[row].timestep, sizeof turbo_pairs[row].timestep);
        return WAN_OK;
    }
    for (int i = 0; i < steps; i++) {
        double sigma = warp(shift, plain_level(which, steps, shift, i));
        if (which == WAN_SAMPLER_UNIPC && i == 0 && fabs(sigma - 1.0) < 1e-6)
            sigma -= 1e-6; /* log(1 - sigma) stays finite */
        sigmas[i] = (float)sigma;
        timesteps[i] =
            which == WAN_SAMPLER_EULER ? 1000.0f * sigmas[i] : (float)trunc(1000.0 * sigma);
    }
    for (int i = 0; i < steps; i++)
        if (!(sigmas[i] > sigmas[i + 1]))
            return wan_fail(
                err, WAN_E_USAGE,
                "shift %g is too %s for %d steps: noise level %d is %.9g, level %d is %.9g", shift,
                shift > 1.0 ? "large" : "small", steps, i, (double)sigmas[i], i + 1,
                (double)sigmas[i + 1]);
    return WAN_OK;
}
