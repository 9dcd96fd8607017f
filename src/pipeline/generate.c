/* SPDX-License-Identifier: Apache-2.0 */
/* A prompt, perhaps a picture, and out come frames: the stages in order, and what they will cost.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "base/resize.h"
#include "pipeline/job.h"
#include "pipeline/steps.h"
#include "pipeline/vram.h"

enum { TEXT, ENCODE, DENOISE, DECODE, STAGES };

static const char *const stage_name[STAGES] = {"text", "encode", "denoise", "decode"};

/* A job under way. */
typedef struct run {
    wan_model *m;
    job job;
    const wan_callbacks *cb;
    watcher w;
    int stage;
    cost cost[STAGES];
    vram_fit fit[STAGES]; /* on a device with memory of its own */
    size_t streamed;
    int misfit; /* the first stage that does not fit, or STAGES */
    double began, seconds[STAGES];
    int32_t ids[2][WAN_TEXT_LEN]; /* prompt, negative prompt */
    int count[2];
    text_states text[2];
    float *first;   /* latents of the picture [C, h, w] */
    float *latents; /* [C, F, h, w] */
} run;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* -------------------------------------------------------------------------------------------------------
 * progress */

/* Operations done say how long the rest takes; stages that have not begun are assumed to run at the
 * rate so far. */
static double seconds_left(const run *r, double stage_share) {
    double done = 0, all = 0;
    for (int s = 0; s < STAGES; s++) {
        all += r->cost[s].flops;
        done += s < r->stage    ? r->cost[s].flops
                : s == r->stage ? r->cost[s].flops * stage_share
                                : 0;
    }
    /* The text is so little work that it says nothing about the rest. */
    return done > 0.01 * all ? (now() - r->began) * (all - done) / done : -1;
}

static int report(void *owner, int done, int total) {
    run *r = owner;
    if (!r->cb->progress)
        return 0;
    wan_progress p = {stage_name[r->stage], done, total,
                      seconds_left(r, total ? (double)done / total : 0)};
    return r->cb->progress(r->cb->user, &p);
}

static wan_status begin_stage(run *r, int stage, int total, error *err) {
    r->stage = stage;
    if (report(r, 0, total))
        return wan_fail(err, WAN_E_CANCELLED, "cancelled");
    return WAN_OK;
}

/* ---------------------------------------------------------------------------------------------------------
 * stages */

static wan_status tokenize(run *r, error *err) {
    const char *prompt[2] = {r->job.p.prompt, r->job.p.negative ? r->job.p.negative : ""};
    for (int i = 0; i < 1 + r->job.guided; i++) {
        int dropped = 0;
        if (wan_tokenize(r->m->tok, prompt[i], r->ids[i], &r->count[i], &dropped, err))
            return err->code;
        if (dropped)
            wan_log(r->m->log, WAN_LOG_WARN,
                    "the %s is longer than %d tokens: the last %d were cut off",
                    i ? "negative prompt" : "prompt", WAN_TEXT_LEN, dropped);
    }
    return WAN_OK;
}

static wan_status encode_text(run *r, error *err) {
    int passes = 1 + r->job.guided;
    wan_status status = begin_stage(r, TEXT, passes, err);
    for (int i = 0; i < passes && !status; i++) {
        status = wan_run_text(r->m, r->ids[i], r->count[i], &r->text[i], &r->w, NULL, err);
        if (!status && report(r, i + 1, passes))
            status = wan_fail(err, WAN_E_CANCELLED, "cancelled");
    }
    return status;
}

/* The picture, stretched to the clip's size, as pixels [3, 1, H, W] in [-1, 1]: 2 (u8 / 255) - 1 in
 * float32. */
static float *image_pixels(const run *r, error *err) {
    const wan_params *p = &r->job.p;
    const wan_image *image = p->image;
    size_t n = (size_t)p->width * (size_t)p->height;
    uint8_t *stretched = NULL;
    const uint8_t *rgb = image->rgb;
    if (image->width != p->width || image->height != p->height) {
        stretched = malloc(3 * n);
        if (!stretched || wan_resize_lanczos(image->rgb, image->width, image->height, stretched,
                                             p->width, p->height, err)) {
            wan_fail(err, WAN_E_MEMORY, "out of memory for a picture of %d x %d", p->width,
                     p->height);
            free(stretched);
            return NULL;
        }
        rgb = stretched;
    }
    float *pixels = malloc(3 * n * sizeof *pixels);
    if (!pixels)
        wan_fail(err, WAN_E_MEMORY, "out of memory for a picture of %d x %d", p->width, p->height);
    for (size_t i = 0; pixels && i < n; i++)
        for (size_t c = 0; c < 3; c++)
            pixels[c * n + i] = 2.0f * ((float)rgb[3 * i + c] / 255.0f) - 1.0f;
    free(stretched);
    return pixels;
}

static wan_status encode_image(run *r, error *err) {
    if (!r->job.p.image)
        return WAN_OK;
    if (begin_stage(r, ENCODE, 1, err))
        return err->code;
    const int64_t *shape = r->job.shape;
    float *pixels = image_pixels(r, err);
    r->first = malloc((size_t)(shape[0] * shape[2] * shape[3]) * sizeof(float));
    if (pixels && !r->first)
        wan_fail(err, WAN_E_MEMORY, "out of memory for the first frame's latents");
    if (!err->code)
        wan_run_encode(r->m, pixels, 1, r->job.p.height, r->job.p.width, r->first, &r->w, NULL,
                       err);
    free(pixels);
    if (!err->code && report(r, 1, 1))
        wan_fail(err, WAN_E_CANCELLED, "cancelled");
    return err->code;
}

static denoise denoise_of(run *r, noise_generator *g) {
    const job *j = &r->job;
    denoise d = {.sampler = j->p.sampler,
                 .steps = j->p.steps,
                 .shift = j->p.shift,
                 .guidance = j->guided ? j->p.guidance : 1,
                 .text = &r->text[0],
                 .negative = j->guided ? &r->text[1] : NULL,
                 .first = r->first,
                 .x = r->latents,
                 .generator = g};
    memcpy(d.shape, j->shape, sizeof d.shape);
    return d;
}

static wan_status denoise_latents(run *r, error *err) {
    if (begin_stage(r, DENOISE, r->job.p.steps, err))
        return err->code;
    const int64_t *shape = r->job.shape;
    int64_t n = shape[0] * shape[1] * shape[2] * shape[3];
    r->latents = malloc((size_t)n * sizeof *r->latents);
    if (!r->latents)
        return wan_fail(err, WAN_E_MEMORY, "out of memory for %lld latents", (long long)n);
    noise_generator g;
    wan_noise_seed(&g, r->job.p.seed);
    wan_noise_draw(&g, r->latents,
                   n); /* also with given noise: Turbo's later draws follow the first */
    if (r->job.p.noise)
        memcpy(r->latents, r->job.p.noise, (size_t)n * sizeof *r->latents);
    denoise d = denoise_of(r, &g);
    if (wan_run_denoise(r->m, &d, &r->w, NULL, err))
        return err->code;
    if (r->cb->latents && r->cb->latents(r->cb->user, r->latents, shape))
        return wan_fail(err, WAN_E_CANCELLED, "cancelled");
    return WAN_OK;
}

static wan_status show_frames(void *user, const void *rgb, int64_t first, int64_t n, error *err) {
    const run *r = user;
    const wan_params *p = &r->job.p;
    if (r->cb->frames && r->cb->frames(r->cb->user, rgb, (int)first, (int)n, p->width, p->height))
        return wan_fail(err, WAN_E_CANCELLED, "cancelled");
    return WAN_OK;
}

static wan_status decode_frames(run *r, error *err) {
    if (begin_stage(r, DECODE, (int)r->job.shape[1], err))
        return err->code;
    return wan_run_decode(r->m, r->latents, r->job.shape, r->job.decode_group, true, show_frames, r,
                          &r->w, NULL, err);
}

/* -----------------------------------------------------------------------------------------------------------
 * plan */

/* Fills r->cost by running every stage dry. */
static wan_status count_costs(run *r, error *err) {
    const job *j = &r->job;
    wan_status status = WAN_OK;
    memset(r->cost, 0, sizeof r->cost);
    for (int i = 0; i < 1 + j->guided && !status; i++) {
        cost one = {0};
        status = wan_run_text(r->m, r->ids[i], r->count[i], NULL, NULL, &one, err);
        r->text[i] = (text_states){NULL, r->count[i], r->m->facts.text_dim};
        double flops = r->cost[TEXT].flops + one.flops;
        if (one.scratch > r->cost[TEXT].scratch)
            r->cost[TEXT] = one;
        r->cost[TEXT].flops = flops;
    }
    if (!status && j->p.image)
        status = wan_run_encode(r->m, NULL, 1, j->p.height, j->p.width, NULL, NULL,
                                &r->cost[ENCODE], err);
    denoise d = denoise_of(r, NULL);
    if (!status)
        status = wan_run_denoise(r->m, &d, NULL, &r->cost[DENOISE], err);
    if (!status)
        status = wan_run_decode(r->m, NULL, j->shape, j->decode_group, true, NULL, NULL, NULL,
                                &r->cost[DECODE], err);
    return status;
}

static const part part_of[STAGES] = {
    [TEXT] = PART_TEXT, [ENCODE] = PART_VAE, [DENOISE] = PART_DIT, [DECODE] = PART_VAE};

/* Costs, and how each stage would fit, the stages before it having left their weights. */
static wan_status fit_stages(void *arg, bool *whole, error *err) {
    run *r = arg;
    size_t resident[PARTS];
    memcpy(resident, r->m->resident, sizeof resident);
    r->misfit = STAGES;
    r->streamed = 0;
    r->job.decode_group = wan_decode_group(r->m, r->job.shape);
    if (count_costs(r, err))
        return err->code;
    for (int s = 0; s < STAGES; s++) {
        vram_fit *f = &r->fit[s];
        if (s == ENCODE && !r->job.p.image)
            continue;
        if (wan_vram_fit(r->m, part_of[s], r->cost[s].scratch, resident, f, err))
            return err->code;
        for (int p = 0; p < PARTS && f->alone; p++)
            resident[p] = 0;
        resident[part_of[s]] = f->resident;
        r->streamed += f->streamed;
        if (!f->fits && r->misfit == STAGES)
            r->misfit = s;
    }
    *whole = r->misfit == STAGES && !r->streamed;
    return WAN_OK;
}

static wan_status settle_costs(run *r, error *err) {
    if (wan_vram_settle(r->m, fit_stages, r, err) || r->misfit == STAGES)
        return err->code;
    return wan_vram_refuse(r->m, part_of[r->misfit], &r->fit[r->misfit], err);
}

/* What outlives a stage on the host, and what is only there while the picture is encoded or a group
 * shown. */
static uint64_t held_bytes(const run *r) {
    const job *j = &r->job;
    uint64_t latents =
        (uint64_t)(j->shape[0] * j->shape[1] * j->shape[2] * j->shape[3]) * sizeof(float);
    uint64_t text =
        (uint64_t)(r->count[0] + r->count[1]) * (uint64_t)r->m->facts.text_dim * sizeof(float);
    uint64_t first = j->p.image ? latents / (uint64_t)j->shape[1] : 0;
    return latents + text + first;
}

static uint64_t picture_bytes(const run *r) {
    uint64_t n = (uint64_t)r->job.p.width * (uint64_t)r->job.p.height;
    return r->job.p.image ? n * (3 + 3 * sizeof(float)) : 0;
}

static void make_plan(const run *r, wan_plan *plan) {
    const wan_model *m = r->m;
    *plan = (wan_plan){.text_weights = wan_store_bytes(m->store[PART_TEXT]),
                       .dit_weights = wan_store_bytes(m->store[PART_DIT]),
                       .vae_weights = wan_store_bytes(m->store[PART_VAE]),
                       .decode_group = r->job.decode_group};
    uint64_t held = held_bytes(r), total[STAGES];
    for (int s = 0; s < STAGES; s++)
        total[s] = (m->be->own_memory ? 0 : r->cost[s].scratch) + r->cost[s].own + held;
    plan->text_scratch = total[TEXT];
    plan->encode_scratch = r->job.p.image ? total[ENCODE] + picture_bytes(r) : 0;
    plan->dit_scratch = total[DENOISE];
    plan->decode_scratch = total[DECODE];
    plan->fixed = wan_memory_resident() + wan_compute_fixed_bytes(m->be, m->threads);
    const uint64_t stage[STAGES] = {plan->text_weights + plan->text_scratch,
                                    r->job.p.image ? plan->vae_weights + plan->encode_scratch : 0,
                                    plan->dit_weights + plan->dit_scratch,
                                    plan->vae_weights + plan->decode_scratch};
    const vram_fit *f = r->fit;
    plan->device_text = f[TEXT].peak;
    plan->device_encode = f[ENCODE].peak;
    plan->device_dit = f[DENOISE].peak;
    plan->device_decode = f[DECODE].peak;
    plan->device_streamed = r->streamed;
    for (int s = 0; s < STAGES; s++)
        if (f[s].peak > plan->device_peak)
            plan->device_peak = f[s].peak;
    for (int s = 0; s < STAGES; s++) {
        plan->flops += r->cost[s].flops;
        if (plan->fixed + stage[s] > plan->peak)
            plan->peak = plan->fixed + stage[s];
    }
}

/* -----------------------------------------------------------------------------------------------------------
 * doors */

static wan_status run_begin(run *r, wan_model *m, const wan_params *p, const wan_callbacks *cb,
                            error *err) {
    static const wan_callbacks silent = {0};
    *r = (run){.m = m, .cb = cb ? cb : &silent, .began = now()};
    r->w =
        (watcher){.cancelled = r->cb->cancelled, .user = r->cb->user, .step = report, .owner = r};
    if (wan_model_require(m, NEED_ALL, err) || wan_job_begin(&r->job, m, p, err) ||
        tokenize(r, err))
        return err->code;
    return settle_costs(r, err);
}

static void run_end(run *r) {
    wan_text_states_free(&r->text[0]);
    wan_text_states_free(&r->text[1]);
    free(r->first);
    free(r->latents);
    free(r);
}

wan_status wan_job_plan(wan_model *m, const wan_params *p, wan_plan *plan, wan_error *err) {
    error local = {0};
    run *r = malloc(sizeof *r);
    if (!r)
        return wan_fail(err, WAN_E_MEMORY, "out of memory for a job");
    if (!run_begin(r, m, p, NULL, &local))
        make_plan(r, plan);
    run_end(r);
    return local.code ? wan_fail(err, local.code, "%s", local.message) : WAN_OK;
}

wan_status wan_generate(wan_model *m, const wan_params *p, const wan_callbacks *callbacks,
                        double seconds[4], wan_error *err) {
    static wan_status (*const body[STAGES])(run *, error *) = {encode_text, encode_image,
                                                               denoise_latents, decode_frames};
    error local = {0};
    run *r = malloc(sizeof *r);
    if (!r)
        return wan_fail(err, WAN_E_MEMORY, "out of memory for a job");
    run_begin(r, m, p, callbacks, &local);
    r->began = now();
    for (int s = 0; s < STAGES && !local.code; s++) {
        double began = now();
        body[s](r, &local);
        r->seconds[s] = now() - began;
    }
    if (seconds)
        memcpy(seconds, r->seconds, sizeof r->seconds);
    run_end(r);
    return local.code ? wan_fail(err, local.code, "%s", local.message) : WAN_OK;
}
