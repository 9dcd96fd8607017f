/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/selftest.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/model.h"
#include "pipeline/stage.h"
#include "sample/solver.h"

typedef struct test_run {
    wan_model *m;
    selftest_line line;
    void *user;
    int failed;
} test_run;

static bool quantised(const store *s) {
    for (size_t i = 0; s && i < wan_store_count(s); i++)
        if (wan_dtype(wan_store_at(s, i)->t.type)->block > 1)
            return true;
    return false;
}

/* Options as the stage command takes them: ["--steps", "5", ...]. */
static wan_status read_options(const json_t *list, stage_options *o, const char *path, error *err) {
    *o = (stage_options){.shift = -1, .guidance = -1};
    for (size_t i = 0; i + 1 < json_array_size(list); i += 2) {
        const char *key = json_string_value(json_array_get(list, i));
        const char *value = json_string_value(json_array_get(list, i + 1));
        if (!key || !value)
            return wan_fail(err, WAN_E_FORMAT, "%s: option %zu of the reference is no string", path,
                            i);
        if (!strcmp(key, "-p"))
            o->prompt = value;
        else if (!strcmp(key, "--seed"))
            o->seed = strtoull(value, NULL, 10);
        else if (!strcmp(key, "--steps"))
            o->steps = atoi(value);
        else if (!strcmp(key, "--shift"))
            o->shift = strtod(value, NULL);
        else if (!strcmp(key, "--guidance"))
            o->guidance = strtod(value, NULL);
        else if (!strcmp(key, "--sampler") &&
                 (o->sampler = wan_sampler_find(value, err)) == WAN_SAMPLER_DEFAULT)
            return err->code;
        else if (!strcmp(key, "--shape"))
            o->has_shape = sscanf(value, "%ld,%ld,%ld,%ld", &o->shape[0], &o->shape[1],
                                  &o->shape[2], &o->shape[3]) == 4;
    }
    return WAN_OK;
}

/* Relative L2 distance of f32 tensors, or how many integers differ. */
static double distance(tensor got, tensor want) {
    int64_t n = wan_elements(got);
    double off = 0, norm = 0, count = 0;
    for (int64_t i = 0; i < n; i++) {
        if (got.type == WAN_I32) {
            int32_t a, b;
            memcpy(&a, (char *)got.data + 4 * i, 4);
            memcpy(&b, (char *)want.data + 4 * i, 4);
            count += a != b;
        } else {
            float a, b;
            memcpy(&a, (char *)got.data + 4 * i, 4);
            memcpy(&b, (char *)want.data + 4 * i, 4);
            off += ((double)a - b) * ((double)a - b);
            norm += (double)b * b;
        }
    }
    return got.type == WAN_I32 ? count : sqrt(off) / fmax(sqrt(norm), 1e-30);
}

static wan_status compare(test_run *t, const char *stage, const stage_results *got,
                          const safetensors *want, const json_t *tolerance, const char *kind,
                          error *err) {
    const char *name;
    const json_t *row;
    json_object_foreach((json_t *)tolerance, name, row) {
        const named_tensor *a = wan_stage_find(got, name), *b = wan_safetensors_find(want, name);
        if (!a || !b || !wan_same_shape(a->t, b->t) || a->t.type != b->t.type ||
            (a->t.type != WAN_F32 && a->t.type != WAN_I32))
            return wan_fail(err, WAN_E_FORMAT,
                            "reference of stage %s: tensor %s does not fit the stage's output",
                            stage, name);
        const json_t *allowed = json_is_object(row) ? json_object_get(row, kind) : row;
        if (!json_is_number(allowed))
            return wan_fail(err, WAN_E_FORMAT, "reference of stage %s: no %s tolerance for %s",
                            stage, kind, name);
        double off = distance(a->t, b->t), most = json_number_value(allowed);
        bool ok = off <= most; /* false for a NaN */
        t->failed += !ok;
        t->line(t->user, stage, name, off, most, ok);
    }
    return WAN_OK;
}

static wan_status run_file(test_run *t, const char *path, error *err) {
    safetensors *in = wan_safetensors_open(path, err);
    if (!in)
        return err->code;
    const char *stage = wan_safetensors_meta(in, "stage"),
               *args = wan_safetensors_meta(in, "options"),
               *allowed = wan_safetensors_meta(in, "tolerance");
    json_t *options = args ? json_loads(args, 0, NULL) : NULL,
           *tolerance = allowed ? json_loads(allowed, 0, NULL) : NULL;
    stage_options o;
    if (!stage || !json_is_array(options) || !json_is_object(tolerance))
        wan_fail(err, WAN_E_FORMAT,
                 "%s: no reference: its metadata must hold stage, options and tolerance", path);
    else if (!read_options(options, &o, path, err)) {
        stage_results *got = wan_stage_compute(t->m, stage, &o, in, err);
        if (got) {
            bool eight = quantised(t->m->store[PART_TEXT]) || quantised(t->m->store[PART_DIT]);
            compare(t, stage, got, in, tolerance, eight ? "q8" : "f32", err);
        }
        wan_stage_free(got);
    }
    json_decref(options);
    json_decref(tolerance);
    wan_safetensors_close(in);
    return err->code;
}

static int is_reference(const struct dirent *d) {
    size_t n = strlen(d->d_name);
    return n > 12 && !strcmp(d->d_name + n - 12, ".safetensors");
}

wan_status wan_selftest(wan_model *m, const char *folder, selftest_line line, void *user,
                        wan_error *err) {
    error local = {0};
    char own[4096], path[4400];
    test_run t = {.m = m, .line = line, .user = user};
    struct dirent **list = NULL;
    if (!folder) {
        snprintf(own, sizeof own, "%s/selftest", m->root ? m->root : ".");
        folder = own;
    }
    /* Which tolerance applies depends on how the weights are stored. */
    if (wan_model_require(m, NEED_ALL, err))
        return err ? err->code : WAN_E_INTERNAL;
    int n = scandir(folder, &list, is_reference, alphasort);
    if (n < 0)
        wan_fail(&local, WAN_E_IO, "%s: %s; references of a self-test are kept there", folder,
                 strerror(errno));
    else if (n == 0)
        wan_fail(&local, WAN_E_IO, "%s: no reference (*.safetensors) in it", folder);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, list[i]->d_name);
        if (!local.code)
            run_file(&t, path, &local);
        free(list[i]);
    }
    free(list);
    if (!local.code && t.failed)
        wan_fail(&local, WAN_E_SELFTEST, "%d results are further from the reference than allowed",
                 t.failed);
    return local.code ? wan_fail(err, local.code, "%s", local.message) : WAN_OK;
}
