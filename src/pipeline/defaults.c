/* SPDX-License-Identifier: Apache-2.0 */
/* What a model wants when the caller says nothing: its own defaults.json (beside it, or one folder
 * up), else the scheduler's config of a diffusers folder, else the release the files look like
 * (sampling.md 4.1, 4.3, 7.1). */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/model.h"
#include "sample/solver.h"

/* The official program's negative prompt, sample_neg_prompt of wan/configs/shared_config.py. */
static const char official_negative[] =
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低"
    "质量，"
    "JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，"
    "形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走";

static bool contains_turbo(const char *path) {
    for (; path && *path; path++)
        if (!strncasecmp(path, "turbo", 5))
            return true;
    return false;
}

/* JSON of root/NAME, or NULL when there is no such file; a file that is there but damaged is an
 * error. */
static json_t *read_json(const char *folder, const char *name, error *err) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "re");
    if (!f)
        return NULL;
    json_error_t why;
    json_t *j = json_loadf(f, JSON_REJECT_DUPLICATES, &why);
    fclose(f);
    if (!j)
        wan_fail(err, WAN_E_FORMAT, "%s: line %d: %s", path, why.line, why.text);
    else if (!json_is_object(j)) {
        wan_fail(err, WAN_E_FORMAT, "%s: not a JSON object", path);
        json_decref(j);
        j = NULL;
    }
    return j;
}

static wan_status take_int(const json_t *j, const char *key, int *out, error *err) {
    const json_t *v = json_object_get(j, key);
    if (!v)
        return WAN_OK;
    if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > 1000000)
        return wan_fail(err, WAN_E_FORMAT,
                        "defaults.json: %s must be a whole number from 1 to 1000000", key);
    *out = (int)json_integer_value(v);
    return WAN_OK;
}

static wan_status take_number(const json_t *j, const char *key, double *out, error *err) {
    const json_t *v = json_object_get(j, key);
    if (!v)
        return WAN_OK;
    if (!json_is_number(v) || !(json_number_value(v) > 0) || json_number_value(v) > 1e6)
        return wan_fail(err, WAN_E_FORMAT,
                        "defaults.json: %s must be a number above 0, at most 1000000", key);
    *out = json_number_value(v);
    return WAN_OK;
}

static wan_status take_text(const json_t *j, const char *key, char **out, error *err) {
    const json_t *v = json_object_get(j, key);
    if (!v)
        return WAN_OK;
    if (!json_is_string(v))
        return wan_fail(err, WAN_E_FORMAT, "defaults.json: %s must be a string", key);
    free(*out);
    *out = strdup(json_string_value(v));
    return *out ? WAN_OK : wan_fail(err, WAN_E_MEMORY, "out of memory for %s", key);
}

static wan_status take_defaults(model_defaults *d, const json_t *j, error *err) {
    wan_status s = take_int(j, "width", &d->width, err);
    s = s ? s : take_int(j, "height", &d->height, err);
    s = s ? s : take_int(j, "frames", &d->frames, err);
    s = s ? s : take_int(j, "steps", &d->steps, err);
    s = s ? s : take_number(j, "fps", &d->fps, err);
    s = s ? s : take_number(j, "guidance", &d->guidance, err);
    s = s ? s : take_number(j, "shift", &d->shift, err);
    s = s ? s : take_text(j, "negative_prompt", &d->negative, err);
    s = s ? s : take_text(j, "prompt", &d->prompt, err);
    const json_t *sampler = json_object_get(j, "sampler");
    if (!s && sampler) {
        error why = {0};
        d->sampler =
            wan_sampler_find(json_is_string(sampler) ? json_string_value(sampler) : "", &why);
        if (why.code)
            s = wan_fail(err, WAN_E_FORMAT, "defaults.json: %s", why.message);
    }
    return s;
}

static void take_scheduler(model_defaults *d, const json_t *j) {
    const json_t *shift = json_object_get(j, "flow_shift");
    if (!shift)
        shift = json_object_get(j, "shift");
    if (json_is_number(shift) && json_number_value(shift) > 0)
        d->shift = json_number_value(shift);
    const char *name = json_string_value(json_object_get(j, "_class_name"));
    if (name && !strcmp(name, "FlowMatchEulerDiscreteScheduler"))
        d->sampler = WAN_SAMPLER_EULER;
}

/* The folder above `root`, textually; false when there is none to name. */
static bool folder_above(const char *root, char *out, size_t size) {
    char real[4096];
    if (strlen(root) >= sizeof real || !realpath(root, real))
        return false;
    char *slash = strrchr(real, '/');
    if (!slash || slash == real)
        return false;
    *slash = '\0';
    return (size_t)snprintf(out, size, "%s", real) < size;
}

/* What a file that holds a whole model says (convert.c). */
static json_t *embedded(const wan_model *m, error *err) {
    const char *text = NULL;
    json_error_t why;
    for (int p = 0; p < PARTS && !text; p++)
        text = m->store[p] ? wan_store_meta(m->store[p], "wan.defaults") : NULL;
    json_t *j = text ? json_loads(text, JSON_REJECT_DUPLICATES, &why) : NULL;
    if (text && !j)
        wan_fail(err, WAN_E_FORMAT, "metadata wan.defaults: %s", why.text);
    return j;
}

wan_status wan_defaults_read(wan_model *m, error *err) {
    model_defaults *d = &m->defaults;
    bool turbo = contains_turbo(m->root) || contains_turbo(m->path[PART_DIT]);
    free(d->negative);
    free(d->prompt);
    *d = (model_defaults){.width = 1280,
                          .height = 704,
                          .frames = 121,
                          .steps = 50,
                          .fps = 24,
                          .guidance = 5,
                          .shift = 5,
                          .sampler = WAN_SAMPLER_UNIPC_OFFICIAL};
    d->negative = strdup(official_negative);
    if (!d->negative)
        return wan_fail(err, WAN_E_MEMORY, "out of memory for the defaults");
    if (turbo) {
        d->steps = 4;
        d->guidance = 1;
        d->sampler = WAN_SAMPLER_TURBO;
    }
    if (!m->root)
        return WAN_OK;
    error local = {0};
    json_t *j = turbo ? NULL : read_json(m->root, "scheduler/scheduler_config.json", &local);
    if (j) {
        d->sampler = WAN_SAMPLER_UNIPC;
        take_scheduler(d, j);
        json_decref(j);
    }
    j = local.code ? NULL : embedded(m, &local);
    if (!j && !local.code)
        j = read_json(m->root, "defaults.json", &local);
    char above[4096];
    if (!j && !local.code && folder_above(m->root, above, sizeof above))
        j = read_json(above, "defaults.json", &local);
    if (j && !local.code)
        take_defaults(d, j, &local);
    json_decref(j);
    return local.code ? wan_fail(err, local.code, "%s: %s", m->root, local.message) : WAN_OK;
}
