/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"
#include "pipeline/job.h"
#include "pipeline/precision.h"
#include "pipeline/steps.h"
#include "pipeline/synthetic.h"
#include "pipeline/vram.h"

#define TOKENS                                                                                     \
    14 /* of the prompt: "a lovely cat walking on the grass in the sun, cinematic" and the end */

typedef struct bench_run {
    wan_model *m;
    const bench_options *o;
    json_t *stages;
    double seconds;        /* of all stages together */
    uint64_t peak, active; /* resident: at most, and after the run */
    device_peak limit[2];  /* of this machine: products; convolutions */
    int64_t shape[4];
    watcher w;
} bench_run;

typedef struct clocks {
    double wall, cpu; /* cpu: user and system, of all threads */
} clocks;

static clocks now(void) {
    struct timespec t;
    struct rusage u;
    clock_gettime(CLOCK_MONOTONIC, &t);
    getrusage(RUSAGE_SELF, &u);
    return (clocks){(double)t.tv_sec + 1e-9 * (double)t.tv_nsec,
                    (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                        1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec)};
}

/* ----------------------------------------------------------------------------------------------------------
 * files */

static wan_status make_folder(const char *path, error *err) {
    char made[4096];
    size_t n = strlen(path);
    if (n >= sizeof made)
        return wan_fail(err, WAN_E_USAGE, "%s: the path is too long", path);
    memcpy(made, path, n + 1);
    for (char *p = made + 1; p <= made + n; p++) {
        if (*p != '/' && *p)
            continue;
        char end = *p;
        *p = '\0';
        if (mkdir(made, 0777) && errno != EEXIST)
            return wan_fail(err, WAN_E_OUTPUT, "%s: %s", made, strerror(errno));
        *p = end;
    }
    return WAN_OK;
}

static wan_status cache_folder(char *out, size_t size, error *err) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = cache && *cache == '/' ? snprintf(out, size, "%s/wan", cache)
            : home && *home        ? snprintf(out, size, "%s/.cache/wan", home)
                                   : snprintf(out, size, "/tmp/wan-cache-%u", (unsigned)getuid());
    return (size_t)n < size ? WAN_OK
                            : wan_fail(err, WAN_E_USAGE, "the cache folder's path is too long");
}

wan_status wan_bench_files(const char *kind, dtype type, int layers, char *folder, size_t size,
                           error *err) {
    static const char *const file[PARTS] = {"dit", "umt5", "Wan2.2_VAE"};
    const char *ending = type == WAN_F8_E4M3 || type == WAN_I8 ? "safetensors" : "gguf";
    char cache[3000], path[4096];
    if (strcmp(kind, "ti2v-5b"))
        return wan_fail(err, WAN_E_USAGE, "synthetic model %s: there is ti2v-5b", kind);
    if (cache_folder(cache, sizeof cache, err))
        return err ? err->code : WAN_E_USAGE;
    if ((size_t)snprintf(folder, size, "%s/synthetic-%s-%s-%d", cache, kind, wan_dtype(type)->name,
                         layers) >= size)
        return wan_fail(err, WAN_E_USAGE, "%s: the path is too long", cache);
    if (make_folder(folder, err))
        return err ? err->code : WAN_E_OUTPUT;
    for (int p = 0; p < PARTS; p++) {
        synthetic s = {
            .type = type, .layers = layers, .text_layers = layers, .seed = (uint64_t)p + 1};
        struct stat st;
        snprintf(path, sizeof path, "%s/%s.%s", folder, file[p], ending);
        if (stat(path, &st) && wan_synthetic_write(path, (part)p, &s, err))
            return err ? err->code : WAN_E_OUTPUT;
    }
    return WAN_OK;
}

/* ---------------------------------------------------------------------------------------------------------
 * stages */

/* Numbers of no meaning in [-1, 1], the same each time. */
static float *invent(int64_t n, error *err) {
    float *x = malloc((size_t)n * sizeof *x);
    uint64_t state = 88172645463325252u;
    if (!x)
        wan_fail(err, WAN_E_MEMORY, "out of memory for %lld numbers", (long long)n);
    for (int64_t i = 0; x && i < n; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        x[i] = (float)(state >> 40) * 0x1p-23f - 1;
    }
    return x;
}

static wan_status bench_text(bench_run *r, cost *only, error *err) {
    int32_t ids[TOKENS];
    text_states states;
    for (int i = 0; i < TOKENS; i++)
        ids[i] = i + 1;
    wan_status status = wan_run_text(r->m, ids, TOKENS, only ? NULL : &states, &r->w, only, err);
    if (!status && !only)
        wan_text_states_free(&states);
    return status;
}

static wan_status bench_encode(bench_run *r, cost *only, error *err) {
    int64_t n = 3 * (int64_t)r->o->width * r->o->height;
    float *pixels = only ? NULL : invent(n, err),
          *latents = only ? NULL : invent(r->shape[0] * r->shape[2] * r->shape[3], err);
    wan_status status = err->code;
    if (!status)
        status =
            wan_run_encode(r->m, pixels, 1, r->o->height, r->o->width, latents, &r->w, only, err);
    free(pixels);
    free(latents);
    return status;
}

/* A picture's first frame and, with four steps, the Turbo sampler: the job people run. */
static wan_status bench_dit(bench_run *r, cost *only, error *err) {
    const int64_t *s = r->shape;
    text_states text = {NULL, TOKENS, r->m->facts.text_dim};
    noise_generator g;
    wan_noise_seed(&g, 1);
    denoise d = {.sampler = r->o->steps == 4 ? WAN_SAMPLER_TURBO : WAN_SAMPLER_EULER,
                 .steps = r->o->steps,
                 .shift = 5,
                 .guidance = 1,
                 .text = &text,
                 .generator = &g};
    float *first = NULL, known = 0;
    memcpy(d.shape, s, sizeof d.shape);
    d.first = &known; /* a plan only asks whether there is one */
    if (!only) {
        text.rows = invent(TOKENS * text.dim, err);
        d.x = invent(s[0] * s[1] * s[2] * s[3], err);
        d.first = first = invent(s[0] * s[2] * s[3], err);
    }
    wan_status status = err->code;
    if (!status)
        status = wan_run_denoise(r->m, &d, &r->w, only, err);
    free(text.rows);
    free(d.x);
    free(first);
    return status;
}

static wan_status bench_decode(bench_run *r, cost *only, error *err) {
    const int64_t *s = r->shape;
    float *latents = only ? NULL : invent(s[0] * s[1] * s[2] * s[3], err);
    wan_status status = err->code;
    if (!status)
        status = wan_run_decode(r->m, latents, s, wan_decode_group(r->m, s), true, NULL, NULL,
                                &r->w, only, err);
    free(latents);
    return status;
}

static const struct {
    const char *name;
    unsigned need;
    bool conv; /* its work is convolutions */
    wan_status (*run)(bench_run *r, cost *only, error *err);
} stages[] = {
    {"text", NEED_TEXT, false, bench_text},
    {"encode", NEED_VAE, true, bench_encode},
    {"dit", NEED_DIT, false, bench_dit},
    {"decode", NEED_VAE, true, bench_decode},
};

#define STAGES (sizeof stages / sizeof stages[0])

static bool wanted(const bench_options *o, size_t i) {
    return !strcmp(o->stage, "all") || !strcmp(o->stage, stages[i].name);
}

/* Figures of one stage, first run and repetitions. */
typedef struct measured {
    cost cost;
    double first, wall[1000], cpu[1000];
    uint64_t peak; /* resident at most while it ran */
    int runs;
} measured;

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(const double *x, int n) {
    double sorted[1000];
    memcpy(sorted, x, (size_t)n * sizeof *x);
    qsort(sorted, (size_t)n, sizeof *sorted, by_size);
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

static wan_status run_once(bench_run *r, size_t i, measured *m, error *err) {
    wan_memory_peak_restart();
    clocks a = now();
    if (stages[i].run(r, NULL, err))
        return err->code;
    clocks b = now();
    uint64_t peak = wan_memory_peak();
    if (m->peak < peak)
        m->peak = peak;
    if (m->runs == 0)
        m->first = b.wall - a.wall;
    int at = m->runs > 0 && r->o->repeat > 0 ? m->runs - 1 : 0; /* the first does not count */
    m->wall[at] = b.wall - a.wall;
    m->cpu[at] = b.cpu - a.cpu;
    m->runs++;
    return WAN_OK;
}

/* Seconds that the machine's arithmetic or its memory takes at least, whichever is more; 0: not
 * known. */
static double floor_seconds(const bench_run *r, size_t i, const cost *c) {
    const device_peak *limit = &r->limit[stages[i].conv];
    double arithmetic = limit->flops > 0 ? c->flops / limit->flops : 0;
    double traffic = limit->bytes > 0 ? c->bytes / limit->bytes : 0;
    return arithmetic > traffic ? arithmetic : traffic;
}

static void add_stage(bench_run *r, size_t i, const measured *m) {
    int n = m->runs > 1 ? m->runs - 1 : 1;
    double cpu = median(m->cpu, n), wall = median(m->wall, n);
    double least = floor_seconds(r, i, &m->cost);
    json_t *s =
        json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I}", "name", stages[i].name,
                  "seconds", wall, "first_seconds", m->first, "cpu_seconds", cpu, "flops",
                  m->cost.flops, "bytes", m->cost.bytes, "gflops_per_cpu_second",
                  cpu > 0 ? m->cost.flops / cpu * 1e-9 : 0.0, "peak_bytes", (json_int_t)m->peak,
                  "planned_bytes", (json_int_t)(m->cost.scratch + m->cost.own));
    if (least > 0) {
        json_object_set_new(s, "floor_seconds", json_real(least));
        json_object_set_new(s, "fraction_of_floor", json_real(wall > 0 ? least / wall : 0));
    }
    r->seconds += wall;
    json_array_append_new(r->stages, s);
}

/* After the run, so that what this takes is in no stage's figures. */
static void measure_limits(bench_run *r) {
    const wan_model *m = r->m;
    bool with_conv[2] = {false};
    for (size_t i = 0; i < STAGES; i++)
        with_conv[stages[i].conv] |= wanted(r->o, i);
    if (!m->be->peak || !m->device)
        return;
    /* int8 is for matrix products; convolutions then take the next narrower numbers there are. */
    precision p[2] = {m->precision,
                      m->precision == WAN_PRECISION_INT8 ? WAN_PRECISION_BF16 : m->precision};
    for (int i = 0; i < 2; i++)
        if (with_conv[i])
            r->limit[i] =
                i && with_conv[0] && p[0] == p[1] ? r->limit[0] : m->be->peak(m->device, p[i]);
}

/* Whether each stage, alone on the device, would be whole there. */
static wan_status fit_stages(void *arg, bool *whole, error *err) {
    bench_run *r = arg;
    const size_t none[PARTS] = {0};
    *whole = true;
    for (size_t i = 0; i < STAGES && *whole; i++) {
        cost c = {0};
        vram_fit fit;
        if (!wanted(r->o, i))
            continue;
        if (stages[i].run(r, &c, err) ||
            wan_vram_fit(r->m, wan_part_needed(stages[i].need), c.scratch, none, &fit, err))
            return err->code;
        *whole = fit.fits && !fit.streamed;
    }
    return WAN_OK;
}

/* All stages in the order of a job, and again as often as asked: what a stage finds loaded is what
 * the others left. */
static wan_status run_stages(bench_run *r, error *err) {
    measured *m = calloc(STAGES, sizeof *m);
    if (!m)
        return wan_fail(err, WAN_E_MEMORY, "out of memory for the figures");
    r->peak = wan_memory_peak();
    wan_vram_settle(r->m, fit_stages, r, err);
    for (int n = 0; n <= r->o->repeat && !err->code; n++)
        for (size_t i = 0; i < STAGES && !err->code; i++) {
            if (!wanted(r->o, i))
                continue;
            if (n == 0 && r->o->began)
                r->o->began(r->o->began_user, stages[i].name);
            if (n == 0 && stages[i].run(r, &m[i].cost, err))
                break;
            run_once(r, i, &m[i], err);
        }
    r->active = wan_memory_resident();
    if (!err->code)
        measure_limits(r);
    for (size_t i = 0; i < STAGES && !err->code; i++) {
        if (wanted(r->o, i))
            add_stage(r, i, &m[i]);
        if (r->peak < m[i].peak)
            r->peak = m[i].peak;
    }
    free(m);
    return err->code;
}

static wan_status set_shape(bench_run *r, error *err) {
    const model_facts *f = &r->m->facts;
    const bench_options *o = r->o;
    int spatial = f->spatial ? f->spatial : 16, temporal = f->temporal ? f->temporal : 4;
    int gx = spatial * (f->grid_x ? f->grid_x : 2), gy = spatial * (f->grid_y ? f->grid_y : 2);
    if (o->width % gx || o->height % gy || (o->frames - 1) % temporal)
        return wan_fail(err, WAN_E_GRID,
                        "%d x %d, %d frames: must be multiples of %d and %d, and %dn + 1", o->width,
                        o->height, o->frames, gx, gy, temporal);
    const int64_t shape[4] = {f->channels, (o->frames - 1) / temporal + 1, o->height / spatial,
                              o->width / spatial};
    memcpy(r->shape, shape, sizeof shape);
    return WAN_OK;
}

static uint64_t model_bytes(const wan_model *m) {
    uint64_t bytes = 0;
    for (int p = 0; p < PARTS; p++)
        bytes += m->store[p] ? wan_store_bytes(m->store[p]) : 0;
    return bytes;
}

static json_t *result(const bench_run *r, double load_seconds) {
    const wan_model *m = r->m;
    json_t *out = json_pack("{s:s, s:s, s:i, s:f, s:O, s:f, s:I, s:I, s:I}", "device", m->be->name,
                            "precision", wan_precision_name(m->precision), "threads", m->threads,
                            "load_seconds", load_seconds, "stages", r->stages, "job_seconds",
                            r->seconds, "model_bytes", (json_int_t)model_bytes(m), "active_bytes",
                            (json_int_t)r->active, "peak_rss", (json_int_t)r->peak);
    if (out && m->device && m->be->held_most)
        json_object_set_new(
            out, "peak_vram",
            json_integer((json_int_t)(m->be->held_most(m->device) + m->be->context)));
    return out;
}

json_t *wan_bench(const wan_model_options *model, const bench_options *o, error *err) {
    error local = {0};
    bench_run r = {
        .o = o, .stages = json_array(), .w = {.cancelled = o->cancelled, .user = o->cancel_user}};
    unsigned need = 0;
    json_t *out = NULL;
    clocks a = now();
    for (size_t i = 0; i < STAGES; i++)
        need |= wanted(o, i) ? stages[i].need : 0;
    if (!need)
        wan_fail(&local, WAN_E_USAGE, "stage %s: there are text, encode, dit, decode and all",
                 o->stage);
    else if ((r.m = wan_model_begin(model, &local)))
        wan_model_require(r.m, need, &local);
    clocks b = now();
    if (!local.code)
        set_shape(&r, &local);
    if (!local.code)
        run_stages(&r, &local);
    if (!local.code)
        out = result(&r, b.wall - a.wall);
    json_decref(r.stages);
    wan_model_close(r.m);
    if (local.code)
        wan_fail(err, local.code, "%s", local.message);
    return out;
}
