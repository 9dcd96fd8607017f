/* SPDX-License-Identifier: Apache-2.0 */
/* wan generate: everything that can be refused is refused first, then the job runs, then the clip
 * gets its name. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/memory.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/plan.h"
#include "cli/settings.h"
#include "io/safetensors.h"
#include "media/picture.h"
#include "pipeline/job.h"
#include "pipeline/precision.h"

/* One clip in the making.  Owns what is not in the invocation. */
typedef struct session {
    invocation *v;
    request asked; /* resolved: what the clip is made with */
    char demo[4096], name[64];
    wan_model *model;
    picture picture;
    wan_image image;
    float *noise;
    char *settings;
    memory_plan plan;
    output_spec spec;
    output *out;
    double seconds[4];
    error fault; /* of a callback: the library only learns that it failed */
} session;

/* ------------------------------------------------------------------------------------------------
 * what was asked */

static wan_status check_asked(session *s, error *err) {
    request *r = &s->asked;
    if (!r->clip.prompt)
        return wan_fail(err, WAN_E_USAGE, "generate needs a prompt: -p \"what the clip shows\"");
    if (!r->seed_given) {
        uint32_t seed;
        if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
            return wan_fail(err, WAN_E_INTERNAL, "the system gave no random seed");
        r->clip.seed = seed;
        r->seed_given = true;
    }
    if (!r->output) {
        snprintf(s->name, sizeof s->name, "wan-%" PRIu64 ".mp4", r->clip.seed);
        r->output = s->name;
    }
    bool to_stdout = strcmp(r->output, "-") == 0;
    if (to_stdout && (r->json || r->dry_run))
        return wan_fail(err, WAN_E_USAGE, "%s and -o - both write to standard output",
                        r->json ? "--json" : "--dry-run");
    if (to_stdout)
        s->v->report->result = stderr;
    return wan_output_kind(r->output, err);
}

static wan_status read_picture(session *s, error *err) {
    const char *path = s->asked.image;
    if (!path)
        return WAN_OK;
    if (wan_picture_open(path, &s->picture, err) != WAN_OK)
        return err->code;
    if (s->picture.transparent)
        wan_report_log(s->v->report, WAN_LOG_WARN,
                       "the picture has transparent parts; transparency is ignored");
    if (s->picture.profile)
        wan_report_log(s->v->report, WAN_LOG_WARN,
                       "the picture has a colour profile other than sRGB; it is ignored");
    s->image = (wan_image){s->picture.rgb, s->picture.width, s->picture.height};
    s->asked.clip.image = &s->image;
    return WAN_OK;
}

/* Own noise must be exactly the job's latents; the map promises no alignment, so it is copied. */
static wan_status read_noise(session *s, const int64_t shape[4], error *err) {
    const char *path = s->asked.noise;
    if (!path)
        return WAN_OK;
    safetensors *file = wan_safetensors_open(path, err);
    if (!file)
        return err->code;
    const named_tensor *n = wan_safetensors_find(file, "noise");
    tensor want = wan_tensor(WAN_F32, 4, shape, NULL);
    char a[96], b[96];
    if (!n)
        wan_fail(err, WAN_E_SHAPE, "%s: no tensor noise in it", path);
    else if (n->t.type != WAN_F32)
        wan_fail(err, WAN_E_TYPE, "%s: noise is %s, it must be F32", path,
                 wan_dtype(n->t.type)->name);
    else if (!wan_same_shape(n->t, want))
        wan_fail(err, WAN_E_SHAPE, "%s: noise is %s, this clip needs %s", path,
                 wan_shape_text(n->t, a, sizeof a), wan_shape_text(want, b, sizeof b));
    else if (!(s->noise = malloc(wan_bytes(want))))
        wan_fail(err, WAN_E_MEMORY, "no memory for %zu bytes of noise", wan_bytes(want));
    else
        memcpy(s->noise, n->t.data, wan_bytes(want));
    wan_safetensors_close(file);
    s->asked.clip.noise = s->noise;
    return err->code;
}

/* Asks the model for everything that was not said, so that the settings are complete. */
static wan_status resolve(session *s, error *err) {
    request *r = &s->asked;
    job resolved;
    if (r->fps.num)
        r->clip.fps = wan_rate_value(r->fps);
    if (wan_job_begin(&resolved, s->model, &r->clip, err) != WAN_OK ||
        read_noise(s, resolved.shape, err) != WAN_OK)
        return err->code;
    resolved.p.noise = s->noise;
    r->clip = resolved.p;
    if (!r->fps.num)
        r->fps = wan_rate_of(r->clip.fps);
    s->settings = wan_settings_text(r);
    if (!s->settings)
        return wan_fail(err, WAN_E_MEMORY, "no memory for the settings");
    s->spec = (output_spec){.path = r->output,
                            .width = r->clip.width,
                            .height = r->clip.height,
                            .frames = r->clip.frames,
                            .fps = r->fps,
                            .crf = r->crf,
                            .settings = r->no_metadata ? NULL : s->settings};
    memcpy(s->spec.shape, resolved.shape, sizeof resolved.shape);
    return WAN_OK;
}

static wan_status prepare(session *s, error *err) {
    wan_model_options options;
    uint64_t before = wan_memory_resident();
    if (check_asked(s, err) != WAN_OK || wan_model_choose(s->v, s->demo, &options, err) != WAN_OK)
        return err->code;
    s->model = wan_model_open(&options, err);
    if (!s->model || read_picture(s, err) != WAN_OK || resolve(s, err) != WAN_OK)
        return err->code;
    return wan_memory_plan(s->model, &s->asked.clip, wan_output_memory(&s->spec),
                           before + s->picture.peak, &s->plan, err);
}

/* ------------------------------------------------------------------------------------------------------
 * the work */

static int on_progress(void *user, const wan_progress *p) {
    session *s = user;
    wan_report_progress(s->v->report, p);
    return wan_interrupted(NULL);
}

static int on_latents(void *user, const float *latents, const int64_t shape[4]) {
    session *s = user;
    (void)shape;
    return wan_output_latents(s->out, latents, &s->fault) != WAN_OK;
}

static int on_frames(void *user, const uint8_t *rgb, int first, int count, int width, int height) {
    session *s = user;
    (void)first, (void)width, (void)height;
    return wan_output_frames(s->out, rgb, count, &s->fault) != WAN_OK;
}

static wan_status make_clip(session *s, error *err) {
    const wan_callbacks callbacks = {.user = s,
                                     .progress = on_progress,
                                     .cancelled = wan_interrupted,
                                     .frames = on_frames,
                                     .latents = on_latents};
    if (!s->asked.overwrite && wan_output_fresh(s->asked.output, s->spec.frames, err) != WAN_OK)
        return err->code;
    s->out = wan_output_open(&s->spec, err);
    if (!s->out)
        return err->code;
    error stopped = {0};
    wan_generate(s->model, &s->asked.clip, &callbacks, s->seconds, &stopped);
    if (s->fault.code != WAN_OK)
        stopped = s->fault;
    else if (stopped.code == WAN_OK && wan_interrupted(NULL))
        wan_fail(&stopped, WAN_E_CANCELLED, "stopped");
    if (stopped.code != WAN_OK) {
        *err = stopped;
        return err->code;
    }
    output *out = s->out;
    s->out = NULL;
    return wan_output_commit(out, err);
}

/* -------------------------------------------------------------------------------------------------------
 * the end */

static void report_event(session *s) {
    const double *t = s->seconds;
    wan_report_seeded(
        s->v->report, s->asked.clip.seed,
        json_pack("{s:s, s:o, s:o, s:{s:f, s:f, s:f, s:f, s:f}, s:I, s:I}", "event", "done",
                  "output", wan_report_text(s->asked.output), "settings",
                  wan_settings_json(&s->asked), "seconds", "text", t[0], "encode", t[1], "denoise",
                  t[2], "decode", t[3], "total", t[0] + t[1] + t[2] + t[3], "peak_rss",
                  (json_int_t)wan_memory_peak(), "plan_peak", (json_int_t)s->plan.peak));
}

static void report_done(session *s) {
    report *to = s->v->report;
    const request *r = &s->asked;
    wan_report_clear(to);
    report_event(s);
    if (to->json || to->quiet)
        return;
    char time[32], peak[32], plan[32], fps[PARAM_TEXT_MAX];
    const double *t = s->seconds;
    char *again = wan_settings_command(r, s->v->program, r->output);
    const char *faster = r->model.precision ? NULL : wan_precision_faster(s->model);
    wan_report_plain(to->result, strcmp(r->output, "-") == 0 ? "standard output" : r->output);
    fprintf(to->result, ": %d frames of %dx%d at %s a second, seed %" PRIu64 ", made in %s\n",
            r->clip.frames, r->clip.width, r->clip.height,
            wan_param_text(r, wan_param_find("fps", FOR_GENERATE), fps), r->clip.seed,
            wan_report_seconds(t[0] + t[1] + t[2] + t[3], time));
    fprintf(to->result, "memory: %s at most, %s planned\n",
            wan_report_bytes(wan_memory_peak(), peak), wan_report_bytes(s->plan.peak, plan));
    if (faster)
        fprintf(to->result, "speed:  this machine is faster in %s: --precision auto\n", faster);
    if (again)
        fprintf(to->result, "again:  %s -y\n", again);
    free(again);
}

static void session_close(session *s) {
    wan_output_abort(s->out);
    wan_picture_close(&s->picture);
    wan_model_close(s->model);
    free(s->noise);
    free(s->settings);
    free(s);
}

wan_status wan_command_generate(invocation *v, error *err) {
    session *s = calloc(1, sizeof *s);
    if (!s)
        return wan_fail(err, WAN_E_MEMORY, "no memory to begin with");
    s->v = v;
    s->asked = v->r;
    if (prepare(s, err) == WAN_OK) {
        if (s->asked.dry_run)
            wan_plan_print(v->report, &s->asked, s->spec.shape, &s->plan);
        else if (make_clip(s, err) == WAN_OK)
            report_done(s);
    }
    session_close(s);
    return err->code;
}
