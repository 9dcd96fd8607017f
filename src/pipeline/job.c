/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/job.h"

#include <math.h>
#include <string.h>

#include "sample/solver.h"

/* Positions the rotary tables were made for, per axis (dit.md 2.5). */
#define MOST_POSITIONS 1024
#define DECODE_GROUP_MOST 8

void wan_params_init(wan_params *p) {
    memset(p, 0, sizeof *p);
    p->guidance = p->shift = -1;
}

/* Size of a clip that continues a picture: the model's own area in the picture's proportions
 * (sampling.md 5.2). */
static void size_from_image(const wan_image *image, double area, int grid_w, int grid_h, int *width,
                            int *height) {
    double ratio = (double)image->width / image->height;
    double w = sqrt(area * ratio), h = area / w;
    double w1 = floor(w / grid_w) * grid_w, h1 = w1 > 0 ? floor(area / w1 / grid_h) * grid_h : 0;
    double h2 = floor(h / grid_h) * grid_h, w2 = h2 > 0 ? floor(area / h2 / grid_w) * grid_w : 0;
    double off1 = w1 > 0 && h1 > 0 ? fmax(ratio / (w1 / h1), w1 / h1 / ratio) : INFINITY;
    double off2 = w2 > 0 && h2 > 0 ? fmax(ratio / (w2 / h2), w2 / h2 / ratio) : INFINITY;
    if (isinf(off1) && isinf(off2))
        return;
    *width = (int)(off1 < off2 ? w1 : w2);
    *height = (int)(off1 < off2 ? h1 : h2);
}

static wan_status check_side(const char *what, int value, int grid, error *err) {
    if (value > 0 && value % grid == 0 && value / grid <= MOST_POSITIONS)
        return WAN_OK;
    int below = value / grid * grid;
    if (value > grid * MOST_POSITIONS)
        return wan_fail(err, WAN_E_GRID, "%s %d: the most is %d", what, value,
                        grid * MOST_POSITIONS);
    if (below <= 0)
        return wan_fail(err, WAN_E_GRID, "%s %d: must be a multiple of %d; the nearest is %d", what,
                        value, grid, grid);
    return wan_fail(err, WAN_E_GRID, "%s %d: must be a multiple of %d; the nearest are %d and %d",
                    what, value, grid, below, below + grid);
}

static wan_status check_grid(const job *j, const wan_model *m, error *err) {
    const wan_params *p = &j->p;
    if (check_side("width", p->width, m->facts.spatial * m->facts.grid_x, err) ||
        check_side("height", p->height, m->facts.spatial * m->facts.grid_y, err))
        return WAN_E_GRID;
    int t = m->facts.temporal;
    if (p->frames < 1 || (p->frames - 1) % t) {
        int below = p->frames < 1 ? 1 : (p->frames - 1) / t * t + 1;
        return wan_fail(err, WAN_E_GRID, "%d frames: must be %dn + 1; the nearest are %d and %d",
                        p->frames, t, below, below + t);
    }
    if ((p->frames - 1) / t + 1 > MOST_POSITIONS)
        return wan_fail(err, WAN_E_GRID, "%d frames: the most is %d", p->frames,
                        t * (MOST_POSITIONS - 1) + 1);
    return WAN_OK;
}

static wan_status check_values(const job *j, error *err) {
    const wan_params *p = &j->p;
    if (!p->prompt)
        return wan_fail(err, WAN_E_USAGE, "no prompt was given");
    if (p->steps < 1 || p->steps > 1000)
        return wan_fail(err, WAN_E_USAGE, "%d steps: must be 1 to 1000", p->steps);
    if (!isfinite(p->guidance) || p->guidance > 1000)
        return wan_fail(err, WAN_E_USAGE, "guidance %g: must be 0 to 1000", p->guidance);
    if (!isfinite(p->shift) || !(p->shift > 0) || p->shift > 1000)
        return wan_fail(err, WAN_E_USAGE, "shift %g: must be above 0, at most 1000", p->shift);
    if (!isfinite(p->fps) || !(p->fps > 0) || p->fps > 1000)
        return wan_fail(err, WAN_E_USAGE, "%g frames a second: must be above 0, at most 1000",
                        p->fps);
    if (p->image && (!p->image->rgb || p->image->width < 1 || p->image->height < 1))
        return wan_fail(err, WAN_E_IMAGE, "the first picture is %d x %d pixels", p->image->width,
                        p->image->height);
    return WAN_OK;
}

static void fill_defaults(wan_params *p, const wan_model *m) {
    const model_defaults *d = &m->defaults;
    int grid_w = m->facts.spatial * m->facts.grid_x, grid_h = m->facts.spatial * m->facts.grid_y;
    if (!p->width && !p->height && p->image && p->image->width > 0 && p->image->height > 0) {
        p->width = d->width;
        p->height = d->height;
        size_from_image(p->image, (double)d->width * d->height, grid_w, grid_h, &p->width,
                        &p->height);
    }
    p->width = p->width ? p->width : d->width;
    p->height = p->height ? p->height : d->height;
    p->frames = p->frames ? p->frames : d->frames;
    p->fps = p->fps > 0 ? p->fps : d->fps;
    p->sampler = p->sampler ? p->sampler : d->sampler;
    p->shift = p->shift >= 0 ? p->shift : d->shift;
    p->negative = p->negative ? p->negative : d->negative;
    if (wan_sampler_is_turbo(p->sampler)) { /* distilled: four steps, no guidance (sampling.md 7) */
        p->steps = p->steps ? p->steps : 4;
        p->guidance = p->guidance >= 0 ? p->guidance : 1;
    }
    p->steps = p->steps ? p->steps : d->steps;
    p->guidance = p->guidance >= 0 ? p->guidance : d->guidance;
}

int wan_decode_group(const wan_model *m, const int64_t shape[4]) {
    int64_t group = (m->be->latents_together >> m->pieces) / (shape[2] * shape[3]);
    return (int)(group < 1 ? 1 : group > DECODE_GROUP_MOST ? DECODE_GROUP_MOST : group);
}

wan_status wan_job_begin(job *j, const wan_model *m, const wan_params *p, error *err) {
    *j = (job){.p = *p};
    fill_defaults(&j->p, m);
    wan_status status = check_values(j, err);
    if (!status)
        status = check_grid(j, m, err);
    if (status)
        return status;
    if (wan_sampler_is_turbo(j->p.sampler)) {
        if (j->p.guidance > 1)
            return wan_fail(err, WAN_E_USAGE,
                            "sampler %s runs without guidance: guidance %g must be 1",
                            wan_sampler_name(j->p.sampler), j->p.guidance);
        if (j->p.steps != 4)
            return wan_fail(err, WAN_E_USAGE, "sampler %s has exactly 4 steps, not %d",
                            wan_sampler_name(j->p.sampler), j->p.steps);
    }
    j->guided = j->p.guidance > 1;
    j->shape[0] = m->facts.channels;
    j->shape[1] = (j->p.frames - 1) / m->facts.temporal + 1;
    j->shape[2] = j->p.height / m->facts.spatial;
    j->shape[3] = j->p.width / m->facts.spatial;
    j->decode_group = wan_decode_group(m, j->shape);
    return WAN_OK;
}

wan_status wan_job_resolve(const wan_model *m, const wan_params *p, wan_params *resolved,
                           wan_error *err) {
    job j;
    wan_status status = wan_job_begin(&j, m, p, err);
    if (!status)
        *resolved = j.p;
    return status;
}
