/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/job.h"
#include "pipeline/steps.h"

#define MOST_RESULTS                                                                               \
    1200 /* tensors in an output: two per step of the longest schedule, or one per block */

/* Results collect here until the stage is over; names and data are owned. */
struct stage_results {
    named_tensor t[MOST_RESULTS];
    char name[MOST_RESULTS][32];
    size_t count;
};

/* A stage at work. */
typedef struct stage_run {
    wan_model *m;
    const stage_options *o;
    const safetensors *in;
    stage_results *out;
    watcher w;
} stage_run;

/* --------------------------------------------------------------------------------------------------------
 * results */

/* Memory for one more result, or NULL. */
static void *result(stage_results *r, const char *name, dtype type, int rank, const int64_t *dim,
                    error *err) {
    if (r->count == MOST_RESULTS) {
        wan_fail(err, WAN_E_USAGE, "more than %d results in one file", MOST_RESULTS);
        return NULL;
    }
    tensor t = wan_tensor(type, rank, dim, NULL);
    t.data = malloc(wan_bytes(t) + 1);
    if (!t.data) {
        wan_fail(err, WAN_E_MEMORY, "out of memory for the result %s of %zu bytes", name,
                 wan_bytes(t));
        return NULL;
    }
    snprintf(r->name[r->count], sizeof r->name[0], "%s", name);
    r->t[r->count] = (named_tensor){r->name[r->count], t};
    r->count++;
    return t.data;
}

void wan_stage_free(stage_results *r) {
    for (size_t i = 0; r && i < r->count; i++)
        free(r->t[i].t.data);
    free(r);
}

size_t wan_stage_count(const stage_results *r) {
    return r->count;
}

const named_tensor *wan_stage_at(const stage_results *r, size_t i) {
    return &r->t[i];
}

const named_tensor *wan_stage_find(const stage_results *r, const char *name) {
    for (size_t i = 0; i < r->count; i++)
        if (!strcmp(r->t[i].name, name))
            return &r->t[i];
    return NULL;
}

static void keep_trace(void *user, compute *c, const char *name, tensor t) {
    void *to = result(user, name, t.type, t.rank, t.dim, &c->err);
    if (to)
        wan_download(c, to, t);
}

/* ---------------------------------------------------------------------------------------------------------
 * inputs */

/* A tensor of the input file; dim[i] = 0 takes any size and tells it, otherwise the size must
 * match. */
static wan_status input(const stage_run *s, const char *name, dtype type, int rank, int64_t *dim,
                        const void **data, error *err) {
    if (!s->in)
        return wan_fail(err, WAN_E_USAGE, "this stage needs an input file (--in) with tensor %s",
                        name);
    const named_tensor *t = wan_safetensors_find(s->in, name);
    if (!t)
        return wan_fail(err, WAN_E_SHAPE, "input: tensor %s is missing", name);
    char got[128], want[128] = "[";
    bool fits = t->t.rank == rank;
    for (int i = 0; i < rank; i++) {
        size_t at = strlen(want);
        if (dim[i])
            snprintf(want + at, sizeof want - at, "%s%lld", i ? ", " : "", (long long)dim[i]);
        else
            snprintf(want + at, sizeof want - at, "%sany", i ? ", " : "");
        fits = fits && (dim[i] ? t->t.dim[i] == dim[i] : t->t.dim[i] > 0);
    }
    if (!fits)
        return wan_fail(err, WAN_E_SHAPE, "input: tensor %s has shape %s, expected %s]", name,
                        wan_shape_text(t->t, got, sizeof got), want);
    if (t->t.type != type)
        return wan_fail(err, WAN_E_TYPE, "input: tensor %s is %s, expected %s", name,
                        wan_dtype(t->t.type)->name, wan_dtype(type)->name);
    for (int i = 0; i < rank; i++)
        dim[i] = t->t.dim[i];
    *data = t->t.data;
    return WAN_OK;
}

/* states [512, text_dim]: the rows up to the last that is not all zero are real. */
static wan_status input_states(const stage_run *s, const char *name, text_states *out, error *err) {
    int64_t dim[2] = {WAN_TEXT_LEN, s->m->facts.text_dim};
    const void *data;
    if (input(s, name, WAN_F32, 2, dim, &data, err))
        return err->code;
    size_t bytes = (size_t)(dim[0] * dim[1]) * sizeof(float);
    out->rows = malloc(bytes);
    if (!out->rows)
        return wan_fail(err, WAN_E_MEMORY, "out of memory for %s", name);
    memcpy(out->rows, data, bytes);
    out->dim = dim[1];
    for (out->count = dim[0]; out->count > 0; out->count--)
        for (int64_t i = 0; i < dim[1]; i++)
            if (out->rows[(out->count - 1) * dim[1] + i] != 0)
                return WAN_OK;
    return WAN_OK;
}

/* A copy that is aligned; the map promises nothing. */
static float *aligned(const void *data, int64_t n, error *err) {
    float *copy = malloc((size_t)n * sizeof *copy + 1);
    if (!copy)
        wan_fail(err, WAN_E_MEMORY, "out of memory for %lld input values", (long long)n);
    else
        memcpy(copy, data, (size_t)n * sizeof *copy);
    return copy;
}

static wan_status check_patch(const stage_run *s, const char *name, const int64_t shape[4],
                              error *err) {
    const model_facts *f = &s->m->facts;
    if (shape[2] % f->grid_y || shape[3] % f->grid_x)
        return wan_fail(err, WAN_E_GRID,
                        "input: %s is %lld x %lld latents, not a multiple of the patch %d x %d",
                        name, (long long)shape[3], (long long)shape[2], f->grid_x, f->grid_y);
    if (shape[1] > 1024 || shape[2] / f->grid_y > 1024 || shape[3] / f->grid_x > 1024)
        return wan_fail(err, WAN_E_GRID,
                        "input: %s has %lld x %lld x %lld latents, more than 1024 positions", name,
                        (long long)shape[1], (long long)shape[2], (long long)shape[3]);
    return WAN_OK;
}

/* ---------------------------------------------------------------------------------------------------------
 * stages */

static wan_status stage_tokens(stage_run *s, error *err) {
    int count = 0, dropped = 0;
    if (!s->o->prompt)
        return wan_fail(err, WAN_E_USAGE, "stage tokens needs a prompt (-p)");
    if (wan_model_require(s->m, NEED_TOKENIZER, err))
        return err->code;
    int32_t *ids = result(s->out, "ids", WAN_I32, WAN_DIMS(WAN_TEXT_LEN), err);
    int32_t *mask = result(s->out, "mask", WAN_I32, WAN_DIMS(WAN_TEXT_LEN), err);
    if (!ids || !mask || wan_tokenize(s->m->tok, s->o->prompt, ids, &count, &dropped, err))
        return err->code;
    for (int i = 0; i < WAN_TEXT_LEN; i++)
        mask[i] = i < count;
    if (dropped)
        wan_log(s->m->log, WAN_LOG_WARN,
                "the prompt is longer than %d tokens: the last %d were cut off", WAN_TEXT_LEN,
                dropped);
    return WAN_OK;
}

static wan_status stage_text(stage_run *s, error *err) {
    const void *id_data, *mask_data;
    int32_t ids[WAN_TEXT_LEN], mask[WAN_TEXT_LEN];
    int64_t count = 0;
    if (input(s, "ids", WAN_I32, 1, (int64_t[]){WAN_TEXT_LEN}, &id_data, err) ||
        input(s, "mask", WAN_I32, 1, (int64_t[]){WAN_TEXT_LEN}, &mask_data, err) ||
        wan_model_require(s->m, NEED_TEXT, err))
        return err->code;
    memcpy(ids, id_data, sizeof ids);
    memcpy(mask, mask_data, sizeof mask);
    for (int i = 0; i < WAN_TEXT_LEN; i++) {
        if (mask[i] != 0 && mask[i] != 1)
            return wan_fail(err, WAN_E_SHAPE, "input: mask[%d] is %d, expected 0 or 1", i, mask[i]);
        if (mask[i] && count != i)
            return wan_fail(err, WAN_E_SHAPE, "input: mask has a gap: mask[%d] is 1 after a 0", i);
        count += mask[i];
    }
    if (!count)
        return wan_fail(err, WAN_E_SHAPE,
                        "input: mask is all zero, at least one token must be real");
    text_states states;
    if (wan_run_text(s->m, ids, count, &states, &s->w, NULL, err))
        return err->code;
    float *rows = result(s->out, "states", WAN_F32, WAN_DIMS(WAN_TEXT_LEN, states.dim), err);
    if (rows) {
        memset(rows, 0, (size_t)(WAN_TEXT_LEN * states.dim) * sizeof *rows);
        memcpy(rows, states.rows, (size_t)(count * states.dim) * sizeof *rows);
    }
    wan_text_states_free(&states);
    return err->code;
}

static wan_status stage_encode(stage_run *s, error *err) {
    int64_t dim[4] = {3, 0, 0, 0};
    const void *data;
    if (input(s, "pixels", WAN_F32, 4, dim, &data, err) || wan_model_require(s->m, NEED_VAE, err))
        return err->code;
    const model_facts *f = &s->m->facts;
    if ((dim[1] - 1) % f->temporal)
        return wan_fail(err, WAN_E_GRID, "input: pixels has %lld frames, expected %dn + 1",
                        (long long)dim[1], f->temporal);
    if (dim[2] % f->spatial || dim[3] % f->spatial)
        return wan_fail(err, WAN_E_GRID, "input: pixels is %lld x %lld, expected multiples of %d",
                        (long long)dim[3], (long long)dim[2], f->spatial);
    float *pixels = aligned(data, dim[0] * dim[1] * dim[2] * dim[3], err);
    float *latents = result(s->out, "latents", WAN_F32,
                            WAN_DIMS(f->channels, (dim[1] - 1) / f->temporal + 1,
                                     dim[2] / f->spatial, dim[3] / f->spatial),
                            err);
    if (pixels && latents)
        wan_run_encode(s->m, pixels, dim[1], dim[2], dim[3], latents, &s->w, NULL, err);
    free(pixels);
    return err->code;
}

static wan_status stage_dit(stage_run *s, error *err) {
    if (wan_model_require(s->m, NEED_DIT, err))
        return err->code;
    int64_t dim[4] = {s->m->facts.channels, 0, 0, 0};
    const void *x_data, *t_data;
    text_states text = {0};
    if (input(s, "x", WAN_F32, 4, dim, &x_data, err) || check_patch(s, "x", dim, err) ||
        input(s, "timestep", WAN_F32, 1, &dim[1], &t_data, err) ||
        input_states(s, "states", &text, err)) {
        wan_text_states_free(&text);
        return err->code;
    }
    float *x = aligned(x_data, dim[0] * dim[1] * dim[2] * dim[3], err),
          *t = aligned(t_data, dim[1], err);
    float *velocity = result(s->out, "velocity", WAN_F32, 4, dim, err);
    if (s->o->trace) {
        s->w.trace = keep_trace;
        s->w.trace_user = s->out;
    }
    if (x && t && velocity)
        wan_run_dit(s->m, x, dim, t, &text, velocity, &s->w, NULL, err);
    free(x);
    free(t);
    wan_text_states_free(&text);
    return err->code;
}

typedef struct collect {
    float *pixels;
    int64_t frames, plane; /* of the whole clip; of one frame */
} collect;

static wan_status collect_pixels(void *user, const void *group, int64_t first, int64_t n,
                                 error *err) {
    (void)err;
    collect *to = user;
    const float *pixels = group;
    for (int64_t c = 0; c < 3; c++)
        memcpy(to->pixels + (c * to->frames + first) * to->plane, pixels + c * n * to->plane,
               (size_t)(n * to->plane) * sizeof *pixels);
    return WAN_OK;
}

static wan_status stage_decode(stage_run *s, error *err) {
    if (wan_model_require(s->m, NEED_VAE, err))
        return err->code;
    const model_facts *f = &s->m->facts;
    int64_t dim[4] = {f->channels, 0, 0, 0};
    const void *data;
    if (input(s, "latents", WAN_F32, 4, dim, &data, err))
        return err->code;
    int64_t frames = f->temporal * (dim[1] - 1) + 1, height = f->spatial * dim[2],
            width = f->spatial * dim[3];
    float *latents = aligned(data, dim[0] * dim[1] * dim[2] * dim[3], err);
    collect to = {result(s->out, "pixels", WAN_F32, WAN_DIMS(3, frames, height, width), err),
                  frames, height * width};
    if (latents && to.pixels)
        wan_run_decode(s->m, latents, dim, wan_decode_group(s->m, dim), false, collect_pixels, &to,
                       &s->w, NULL, err);
    free(latents);
    return err->code;
}

static wan_status stage_noise(stage_run *s, error *err) {
    if (!s->o->has_shape)
        return wan_fail(err, WAN_E_USAGE, "stage noise needs a shape (--shape C,F,h,w)");
    int64_t n = 1;
    for (int i = 0; i < 4; i++) {
        if (s->o->shape[i] < 1 || s->o->shape[i] > (INT64_C(1) << 33) / n)
            return wan_fail(err, WAN_E_USAGE,
                            "shape: %lld in place %d, expected at least 1 and 2^33 values in all",
                            (long long)s->o->shape[i], i + 1);
        n *= s->o->shape[i];
    }
    float *noise = result(s->out, "noise", WAN_F32, 4, s->o->shape, err);
    if (!noise)
        return err->code;
    noise_generator g;
    wan_noise_seed(&g, s->o->seed);
    wan_noise_draw(&g, noise, n);
    return WAN_OK;
}

static wan_status keep_step(void *user, int i, const float *latents, error *err) {
    stage_run *s = user;
    const tensor noise = wan_safetensors_find(s->in, "noise")->t;
    char name[32];
    snprintf(name, sizeof name, "latents.%d", i);
    float *to = result(s->out, name, WAN_F32, 4, noise.dim, err);
    if (to)
        memcpy(to, latents, wan_bytes(noise));
    return err->code;
}

static wan_status keep_schedule(stage_run *s, const denoise *d, error *err) {
    solver *sol = wan_solver_open(d->sampler, d->steps, d->shift, 1, err);
    if (!sol)
        return err->code;
    int steps = wan_solver_steps(sol);
    float *sigmas = result(s->out, "sigmas", WAN_F32, WAN_DIMS(steps + 1), err);
    float *times = result(s->out, "timesteps", WAN_F32, WAN_DIMS(steps), err);
    if (sigmas && times) {
        memcpy(sigmas, wan_solver_sigmas(sol), (size_t)(steps + 1) * sizeof(float));
        memcpy(times, wan_solver_timesteps(sol), (size_t)steps * sizeof(float));
    }
    wan_solver_close(sol);
    return err->code;
}

/* The options over the model's defaults, as a job resolves them. */
static wan_status sample_settings(const stage_run *s, denoise *d, error *err) {
    if (wan_defaults_read(s->m, err))
        return err->code;
    const model_defaults *m = &s->m->defaults;
    d->sampler = s->o->sampler ? s->o->sampler : m->sampler;
    bool turbo = wan_sampler_is_turbo(d->sampler);
    d->steps = s->o->steps ? s->o->steps : turbo ? 4 : m->steps;
    d->shift = s->o->shift > 0 ? s->o->shift : m->shift;
    d->guidance = s->o->guidance >= 0 ? s->o->guidance : turbo ? 1 : m->guidance;
    if (turbo && d->guidance > 1)
        return wan_fail(err, WAN_E_USAGE, "sampler %s runs without guidance: guidance %g must be 1",
                        wan_sampler_name(d->sampler), d->guidance);
    return WAN_OK;
}

static wan_status stage_sample(stage_run *s, error *err) {
    if (wan_model_require(s->m, NEED_DIT, err))
        return err->code;
    text_states text = {0}, negative = {0};
    float *first = NULL, *renoise = NULL;
    const void *noise = NULL, *first_data = NULL, *renoise_data = NULL;
    noise_generator g;
    denoise d = {.text = &text, .generator = &g};
    int64_t *dim = d.shape;
    dim[0] = s->m->facts.channels;
    if (sample_settings(s, &d, err) || input(s, "noise", WAN_F32, 4, dim, &noise, err) ||
        check_patch(s, "noise", dim, err) || input_states(s, "states", &text, err))
        goto done;
    int64_t n = dim[0] * dim[1] * dim[2] * dim[3], one = n / dim[1];
    if (d.guidance > 1 && input_states(s, "negative", &negative, err))
        goto done;
    d.negative = d.guidance > 1 ? &negative : NULL;
    if (wan_safetensors_find(s->in, "first")) {
        if (input(s, "first", WAN_F32, 4, (int64_t[]){dim[0], 1, dim[2], dim[3]}, &first_data,
                  err) ||
            !(first = aligned(first_data, one, err)))
            goto done;
        d.first = first;
    }
    bool turbo = wan_sampler_is_turbo(d.sampler);
    if (turbo && d.steps > 1 && wan_safetensors_find(s->in, "renoise")) {
        if (input(s, "renoise", WAN_F32, 5,
                  (int64_t[]){d.steps - 1, dim[0], dim[1], dim[2], dim[3]}, &renoise_data, err) ||
            !(renoise = aligned(renoise_data, n * (d.steps - 1), err)))
            goto done;
        d.renoise = renoise;
    }
    d.x = result(s->out, "latents", WAN_F32, 4, dim, err);
    if (!d.x || keep_schedule(s, &d, err))
        goto done;
    wan_noise_seed(&g, s->o->seed);
    wan_noise_draw(&g, d.x, n); /* draw 1 is the noise that came in; re-noising goes on from 2 */
    memcpy(d.x, noise, (size_t)n * sizeof(float));
    if (s->o->trace) {
        d.after = keep_step;
        d.after_user = s;
    }
    wan_run_denoise(s->m, &d, &s->w, NULL, err);
done:
    free(first);
    free(renoise);
    wan_text_states_free(&text);
    wan_text_states_free(&negative);
    return err->code;
}

/* -----------------------------------------------------------------------------------------------------------
 * door */

const char *const wan_stage_names[] = {"tokens", "text",  "encode", "dit",
                                       "decode", "noise", "sample", NULL};

stage_results *wan_stage_compute(wan_model *m, const char *stage, const stage_options *o,
                                 const safetensors *in, error *err) {
    static wan_status (*const body[])(stage_run *, error *) = {
        stage_tokens, stage_text, stage_encode, stage_dit, stage_decode, stage_noise, stage_sample};
    size_t i = 0;
    error local = {0};
    while (wan_stage_names[i] && strcmp(wan_stage_names[i], stage))
        i++;
    stage_run s = {.m = m, .o = o, .in = in, .out = calloc(1, sizeof(stage_results))};
    s.w = (watcher){.cancelled = o->cancelled, .user = o->cancel_user};
    if (!wan_stage_names[i])
        wan_fail(&local, WAN_E_USAGE,
                 "stage %s: there are tokens, text, encode, dit, decode, noise and sample", stage);
    else if (!m && strcmp(stage, "noise"))
        wan_fail(&local, WAN_E_USAGE, "stage %s needs a model (-m)", stage);
    else if (!s.out)
        wan_fail(&local, WAN_E_MEMORY, "out of memory for the results of a stage");
    else
        body[i](&s, &local);
    if (!local.code)
        return s.out;
    wan_fail(err, local.code, "%s", local.message);
    wan_stage_free(s.out);
    return NULL;
}

wan_status wan_stage_run(wan_model *m, const char *stage, const stage_options *o,
                         const safetensors *in, const char *out_path, error *err) {
    error local = {0};
    stage_results *r = wan_stage_compute(m, stage, o, in, &local);
    if (r)
        wan_safetensors_write(out_path, r->t, r->count, (const char *const[]){"stage", stage, NULL},
                              &local);
    wan_stage_free(r);
    return local.code ? wan_fail(err, local.code, "%s", local.message) : WAN_OK;
}
