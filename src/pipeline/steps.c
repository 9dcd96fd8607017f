/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/steps.h"

#include <stdlib.h>
#include <string.h>

#include "pipeline/precision.h"
#include "pipeline/vram.h"

/* One stage's body: runs on a dry or a real compute; host arrays are only touched on a real one. */
typedef wan_status (*body)(wan_model *m, compute *c, void *arg, size_t *own, error *err);

static wan_status settle(compute *c, wan_status status, error *err) {
    if (!status && c->err.code)
        status = wan_fail(err, c->err.code, "%s", c->err.message);
    return status;
}

/* Stands for a tracer in a dry run, so that what a trace needs is counted. */
static void look_away(void *user, compute *c, const char *name, tensor t) {
    (void)user;
    (void)c;
    (void)name;
    (void)t;
}

/* Dry first, for the size of the arena; then, unless only the cost was wanted, for real. */
static wan_status run_stage(wan_model *m, unsigned need, body b, void *arg, const watcher *w,
                            cost *only, error *err) {
    error local = {0};
    cost known = {0};
    if (wan_model_require(m, need, &local) || wan_precision_settle(m, &local))
        return wan_fail(err, local.code, "%s", local.message);
    compute c = wan_compute_plan(m->be, m->precision);
    wan_vram_cut(m, &c);
    c.trace = w && w->trace ? look_away : NULL;
    wan_status status = settle(&c, b(m, &c, arg, &known.own, &local), &local);
    known.scratch = c.scratch.peak;
    known.flops = c.done.flops;
    known.bytes = c.done.bytes;
    if (only)
        *only = known;
    if (!status && !only) {
        size_t own = 0;
        status = wan_model_device(m, &local);
        if (!status)
            status = wan_vram_apply(m, wan_part_needed(need), known.scratch, &local);
        if (!status)
            status = wan_compute_on(&c, m->be, m->device, m->precision, known.scratch, &local);
        if (!status) {
            wan_vram_cut(m, &c);
            c.cancelled = w ? w->cancelled : NULL;
            c.cancel_user = w ? w->user : NULL;
            c.trace = w ? w->trace : NULL;
            c.trace_user = w ? w->trace_user : NULL;
            status = settle(&c, b(m, &c, arg, &own, &local), &local);
            wan_compute_close(&c);
        }
        for (int p = 0; p < PARTS; p++)
            if (m->store[p]) {
                wan_model_rest(m, (part)p);
                wan_store_drop_pages(m->store[p]);
            }
    }
    return status ? wan_fail(err, local.code ? local.code : status, "%s", local.message) : WAN_OK;
}

static wan_status tell(const watcher *w, int done, int total, error *err) {
    if (w && w->step && w->step(w->owner, done, total))
        return wan_fail(err, WAN_E_CANCELLED, "cancelled");
    return WAN_OK;
}

/* -----------------------------------------------------------------------------------------------------------
 * text */

typedef struct text_arg {
    const int32_t *ids;
    int64_t count;
    text_states *out;
} text_arg;

static wan_status text_body(wan_model *m, compute *c, void *p, size_t *own, error *err) {
    text_arg *a = p;
    umt5 *t = wan_model_text(m, wan_is_dry(c), err);
    if (!t)
        return err->code;
    *own = wan_umt5_bytes(t);
    tensor states = wan_umt5_forward(t, c, a->ids, a->count);
    *own += wan_bytes(states);
    wan_status status = WAN_OK;
    if (!wan_is_dry(c)) {
        *a->out = (text_states){malloc(wan_bytes(states)), a->count, wan_umt5_dim(t)};
        if (!a->out->rows)
            status = wan_fail(err, WAN_E_MEMORY, "out of memory for %lld text states",
                              (long long)a->count);
        else
            wan_download(c, a->out->rows, states);
    }
    return status;
}

wan_status wan_run_text(wan_model *m, const int32_t *ids, int64_t count, text_states *out,
                        const watcher *w, cost *only, error *err) {
    text_arg a = {ids, count, out};
    if (out)
        *out = (text_states){0};
    wan_status status = run_stage(m, NEED_TEXT, text_body, &a, w, only, err);
    if (status && out)
        wan_text_states_free(out);
    return status;
}

void wan_text_states_free(text_states *t) {
    free(t->rows);
    *t = (text_states){0};
}

/* ---------------------------------------------------------------------------------------------------------
 * encode */

typedef struct encode_arg {
    const float *pixels;
    int64_t frames, height, width;
    float *latents;
} encode_arg;

static wan_status encode_body(wan_model *m, compute *c, void *p, size_t *own, error *err) {
    encode_arg *a = p;
    vae22 *v = wan_model_vae(m, wan_is_dry(c), err);
    if (!v)
        return err->code;
    *own = wan_vae22_bytes(v);
    wan_compute_f16(c);
    wan_compute_exact(c);
    tensor pixels = wan_new(c, WAN_F32, WAN_DIMS(3, a->frames, a->height, a->width));
    wan_upload(c, pixels, a->pixels);
    tensor latents = wan_vae22_encode(v, c, pixels);
    wan_download(c, a->latents, latents);
    return WAN_OK;
}

wan_status wan_run_encode(wan_model *m, const float *pixels, int64_t frames, int64_t height,
                          int64_t width, float *latents, const watcher *w, cost *only, error *err) {
    encode_arg a = {pixels, frames, height, width, latents};
    return run_stage(m, NEED_VAE, encode_body, &a, w, only, err);
}

/* --------------------------------------------------------------------------------------------------
 * one dit pass */

typedef struct dit_arg {
    const float *x;
    const int64_t *shape;
    const float *timestep;
    const text_states *text;
    float *velocity;
} dit_arg;

static wan_status dit_body(wan_model *m, compute *c, void *p, size_t *own, error *err) {
    dit_arg *a = p;
    dit *d = wan_model_dit(m, wan_is_dry(c), err);
    if (!d)
        return err->code;
    *own = wan_dit_bytes(d);
    dit_text *text = wan_dit_text_begin(d, c, a->text->rows, a->text->count, err);
    if (text) {
        tensor x = wan_new(c, WAN_F32, 4, a->shape);
        wan_upload(c, x, a->x);
        tensor v = wan_dit_forward(d, c, x, a->timestep, text);
        wan_download(c, a->velocity, v);
    }
    wan_dit_text_end(text);
    return err->code;
}

wan_status wan_run_dit(wan_model *m, const float *x, const int64_t shape[4], const float *timestep,
                       const text_states *text, float *velocity, const watcher *w, cost *only,
                       error *err) {
    dit_arg a = {x, shape, timestep, text, velocity};
    return run_stage(m, NEED_DIT, dit_body, &a, w, only, err);
}

/* ---------------------------------------------------------------------------------------------------------
 * decode */

typedef struct decode_arg {
    const float *latents;
    const int64_t *shape;
    int group;
    bool bytes;
    pixel_sink sink;
    void *sink_user;
    const watcher *w;
} decode_arg;

/* Groups on their way to the host: one, or two where the device can work on meanwhile. */
typedef struct outbox {
    wan_model *m;
    compute *c;
    decode_arg *a;
    int slots;
    void *host[2];
    size_t room[2];
    struct {
        int64_t first, frames;
        int done; /* latent frames so far */
    } sent[2];
    int64_t begun, ended;
} outbox;

static bool overlaps(const wan_model *m) {
    return m->be->download_begin != NULL;
}

static void give_back(outbox *o, int slot) {
    if (!overlaps(o->m))
        free(o->host[slot]);
    else if (o->host[slot])
        o->m->be->host_free(o->m->device, o->host[slot]);
    o->host[slot] = NULL;
}

static wan_status make_room(outbox *o, int slot, size_t bytes, error *err) {
    if (bytes <= o->room[slot])
        return WAN_OK;
    give_back(o, slot);
    o->room[slot] = bytes;
    o->host[slot] = overlaps(o->m) ? o->m->be->host_alloc(o->m->device, bytes, err) : malloc(bytes);
    if (!o->host[slot]) {
        o->room[slot] = 0;
        return wan_fail(err, WAN_E_MEMORY, "out of memory for %zu bytes of pixels", bytes);
    }
    return WAN_OK;
}

/* The oldest group still on its way goes to the sink. */
static wan_status take_out(outbox *o, error *err) {
    int slot = (int)(o->ended++ % o->slots);
    decode_arg *a = o->a;
    if (overlaps(o->m))
        o->m->be->download_end(o->m->device, slot);
    if (o->m->be->check && o->m->be->check(o->m->device, err))
        return err->code;
    if (a->sink &&
        a->sink(a->sink_user, o->host[slot], o->sent[slot].first, o->sent[slot].frames, err))
        return err->code;
    return tell(a->w, o->sent[slot].done, (int)a->shape[1], err);
}

static wan_status put_in(outbox *o, tensor out, int64_t first, int64_t frames, int64_t done,
                         error *err) {
    int slot = (int)(o->begun % o->slots);
    if (make_room(o, slot, wan_bytes(out), err))
        return err->code;
    o->sent[slot].first = first;
    o->sent[slot].frames = frames;
    o->sent[slot].done = (int)done;
    o->begun++;
    if (!overlaps(o->m))
        wan_download(o->c, o->host[slot], out);
    else if (wan_ready(o->c))
        o->m->be->download_begin(o->m->device, slot, o->host[slot], out.data, wan_bytes(out));
    return settle(o->c, WAN_OK, err);
}

static wan_status decode_groups(wan_model *m, compute *c, vae22_decoder *d, decode_arg *a,
                                tensor latents, size_t *own, error *err) {
    outbox o = {.m = m, .c = c, .a = a, .slots = overlaps(m) ? 2 : 1};
    size_t most = 0;
    int64_t frames = a->shape[1], shown = 0;
    wan_status status = WAN_OK;
    for (int64_t f = 0; f < frames && !status;) {
        int64_t n = a->group < frames - f ? a->group : frames - f;
        size_t mark = wan_mark(c);
        tensor out = wan_vae22_decode(d, c, latents, f, n);
        int64_t made = out.dim[1];
        if (a->bytes)
            out = wan_pixels_u8(c, out);
        most = wan_bytes(out) > most ? wan_bytes(out) : most;
        f += n;
        if (!wan_is_dry(c)) {
            status = put_in(&o, out, shown, made, f, err);
            if (!status && (o.begun - o.ended == o.slots || f == frames))
                status = take_out(&o, err);
        }
        wan_release(c, mark);
        shown += made;
    }
    while (!status && o.ended < o.begun)
        status = take_out(&o, err);
    for (; o.ended < o.begun; o.ended++) /* after a failure: nothing may still write into them */
        if (overlaps(m))
            m->be->download_end(m->device, (int)(o.ended % o.slots));
    for (int i = 0; i < o.slots; i++)
        give_back(&o, i);
    *own += most * (size_t)o.slots;
    return status;
}

static wan_status decode_body(wan_model *m, compute *c, void *p, size_t *own, error *err) {
    decode_arg *a = p;
    wan_status status = WAN_OK;
    vae22_decoder *d = NULL;
    vae22 *v = wan_model_vae(m, wan_is_dry(c), err);
    if (!v)
        return err->code;
    *own = wan_vae22_bytes(v);
    wan_compute_f16(c);
    tensor latents = wan_new(c, WAN_F32, 4, a->shape);
    wan_upload(c, latents, a->latents);
    d = wan_vae22_decode_begin(v, c, a->shape[1], a->shape[2], a->shape[3], err);
    if (!d)
        status = err->code ? err->code : settle(c, WAN_OK, err);
    else
        status = decode_groups(m, c, d, a, latents, own, err);
    wan_vae22_decode_end(d);
    return status;
}

wan_status wan_run_decode(wan_model *m, const float *latents, const int64_t shape[4], int group,
                          bool bytes, pixel_sink sink, void *sink_user, const watcher *w,
                          cost *only, error *err) {
    decode_arg a = {latents, shape, group, bytes, sink, sink_user, w};
    return run_stage(m, NEED_VAE, decode_body, &a, w, only, err);
}

/* --------------------------------------------------------------------------------------------------------
 * denoise */

typedef struct denoise_arg {
    const denoise *d;
    const watcher *w;
} denoise_arg;

/* Host arrays of a denoising loop. */
typedef struct loop {
    const denoise *d;
    solver *solver;
    int64_t n, plane; /* values in all latents; in one frame of one channel */
    float *input;     /* what the model sees */
    float *velocity, *negative;
    float *noise;    /* for after a Turbo step */
    float *timestep; /* [frames] */
    tensor x;        /* on the device */
} loop;

/* Puts the known first frame in its place. */
static void put_first(const loop *l, float *x) {
    const denoise *d = l->d;
    if (!d->first)
        return;
    for (int64_t ch = 0; ch < d->shape[0]; ch++)
        memcpy(x + ch * d->shape[1] * l->plane, d->first + ch * l->plane,
               (size_t)l->plane * sizeof *x);
}

static wan_status loop_open(loop *l, const denoise *d, compute *c, size_t *own, error *err) {
    *l = (loop){.d = d, .plane = d->shape[2] * d->shape[3]};
    l->n = d->shape[0] * d->shape[1] * l->plane;
    l->solver = wan_solver_open(d->sampler, d->steps, d->shift, l->n, err);
    if (!l->solver)
        return err->code;
    size_t bytes = (size_t)l->n * sizeof(float);
    bool guided = d->guidance > 1, draws = wan_solver_renoises(l->solver) && !d->renoise;
    int arrays = 2 + guided + draws;
    *own += wan_solver_bytes(d->sampler, l->n) + (size_t)arrays * bytes;
    l->timestep = calloc((size_t)d->shape[1], sizeof(float));
    if (!wan_is_dry(c)) {
        l->input = malloc(bytes);
        l->velocity = malloc(bytes);
        l->negative = guided ? malloc(bytes) : NULL;
        l->noise = draws ? malloc(bytes) : NULL;
    }
    if (!l->timestep || (!wan_is_dry(c) && (!l->input || !l->velocity || (guided && !l->negative) ||
                                            (draws && !l->noise))))
        return wan_fail(err, WAN_E_MEMORY, "out of memory for %d arrays of %lld latents", arrays,
                        (long long)l->n);
    return WAN_OK;
}

static void loop_close(loop *l) {
    wan_solver_close(l->solver);
    free(l->input);
    free(l->velocity);
    free(l->negative);
    free(l->noise);
    free(l->timestep);
}

/* Draws the noise for after the step in the meantime, if there is a meantime. */
static void forward(loop *l, dit *m, compute *c, const dit_text *text, float *velocity,
                    float *noise) {
    size_t mark = wan_mark(c);
    tensor x = wan_new(c, WAN_F32, 4, l->d->shape);
    wan_upload(c, x, l->input);
    tensor v = wan_dit_forward(m, c, x, l->timestep, text);
    if (noise)
        wan_noise_draw(l->d->generator, noise, l->n);
    wan_download(c, velocity, v);
    wan_release(c, mark);
}

/* v = u + guidance * (v - u), sampling.md 6. */
static void guide(float *v, const float *u, int64_t n, float guidance) {
    for (int64_t i = 0; i < n; i++)
        v[i] = u[i] + guidance * (v[i] - u[i]);
}

/* Fresh noise after a Turbo step. */
static void renoise(loop *l, int i) {
    const denoise *d = l->d;
    const float *noise = d->renoise ? d->renoise + i * l->n : l->noise;
    wan_solver_renoise(l->solver, i, d->x, noise);
    put_first(l, d->x);
}

static wan_status loop_step(loop *l, int i, dit *m, compute *c, const dit_text *text,
                            const dit_text *negative, error *err) {
    const denoise *d = l->d;
    bool turbo = wan_solver_renoises(l->solver), dry = wan_is_dry(c);
    float t = wan_solver_timesteps(l->solver)[i];
    for (int64_t f = 0; f < d->shape[1]; f++)
        l->timestep[f] = f == 0 && d->first ? 0 : t;
    if (!dry) {
        if (turbo)
            put_first(l, d->x);
        memcpy(l->input, d->x, (size_t)l->n * sizeof *d->x);
        put_first(l, l->input);
    }
    bool draws = turbo && !dry && i + 1 < d->steps && !d->renoise;
    forward(l, m, c, text, l->velocity, draws ? l->noise : NULL);
    if (negative)
        forward(l, m, c, negative, l->negative, NULL);
    if (dry)
        return WAN_OK;
    if (settle(c, WAN_OK, err))
        return err->code;
    if (negative)
        guide(l->velocity, l->negative, l->n, (float)d->guidance);
    wan_solver_step(l->solver, i, d->x, l->velocity);
    if (turbo) {
        put_first(l, d->x);
        if (i + 1 < d->steps)
            renoise(l, i);
    }
    if (!d->after)
        return WAN_OK;
    memcpy(l->input, d->x, (size_t)l->n * sizeof *d->x);
    put_first(l, l->input);
    return d->after(d->after_user, i, l->input, err);
}

static wan_status denoise_body(wan_model *m, compute *c, void *p, size_t *own, error *err) {
    denoise_arg *a = p;
    const denoise *d = a->d;
    loop l = {0};
    dit_text *text = NULL, *negative = NULL;
    dit *net = wan_model_dit(m, wan_is_dry(c), err);
    if (!net)
        return err->code;
    *own = wan_dit_bytes(net);
    wan_status status = loop_open(&l, d, c, own, err);
    if (!status)
        text = wan_dit_text_begin(net, c, d->text->rows, d->text->count, err);
    if (text && d->guidance > 1)
        negative = wan_dit_text_begin(net, c, d->negative->rows, d->negative->count, err);
    status = err->code;
    for (int i = 0; i < d->steps && !status; i++) {
        status = loop_step(&l, i, net, c, text, negative, err);
        if (!status && !wan_is_dry(c))
            status = tell(a->w, i + 1, d->steps, err);
    }
    if (!status && !wan_is_dry(c))
        put_first(&l, d->x);
    wan_dit_text_end(negative);
    wan_dit_text_end(text);
    loop_close(&l);
    return status;
}

wan_status wan_run_denoise(wan_model *m, const denoise *d, const watcher *w, cost *only,
                           error *err) {
    denoise_arg a = {d, w};
    return run_stage(m, NEED_DIT, denoise_body, &a, w, only, err);
}
