/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/precision.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sample/noise.h"

enum { ROWS = 48, OUTPUTS = 192 }; /* of a product that is tried: more would say the same */

static const char *const names[] = {[WAN_PRECISION_F32] = "f32",
                                    [WAN_PRECISION_BF16] = "bf16",
                                    [WAN_PRECISION_INT8] = "int8",
                                    [WAN_PRECISION_FP8] = "fp8"};
enum { COUNT = sizeof names / sizeof names[0] };

const char *wan_precision_name(precision p) {
    return names[p];
}

const char *wan_precision_faster(const wan_model *m) {
    precision list[4];
    if (!m->be->by_speed || m->be->by_speed(list) < 2 || list[0] == m->precision)
        return NULL;
    return names[list[0]];
}

wan_status wan_precision_choose(wan_model *m, const char *name, error *err) {
    m->precision = m->be->best;
    m->settle = name && !strcmp(name, "auto") && m->be->by_speed;
    if (!name || !strcmp(name, "auto"))
        return WAN_OK;
    for (unsigned p = 0; p < COUNT; p++)
        if (!strcmp(name, names[p]) && m->be->precisions >> p & 1) {
            m->precision = (precision)p;
            return WAN_OK;
        }
    char have[64] = "";
    for (unsigned p = 0; p < COUNT; p++)
        if (m->be->precisions >> p & 1) {
            size_t at = strlen(have);
            snprintf(have + at, sizeof have - at, "%s%s", at ? ", " : "", names[p]);
        }
    return wan_fail(err, WAN_E_USAGE, "precision %s: device %s computes in %s", name, m->be->name,
                    have);
}

/* ----------------------------------------------------------------------------------------- looking
 */

static linear first_outputs(const linear *l) {
    linear first = *l;
    int64_t n = l->weight.dim[0] < OUTPUTS ? l->weight.dim[0] : OUTPUTS;
    first.weight = wan_slice(l->weight, 0, n);
    first.bias = (tensor){0}; /* it would only hide the error */
    if (l->scale.data && l->scale.dim[0] > 1)
        first.scale = wan_slice(l->scale, 0, n);
    if (l->group_scale.data)
        first.group_scale = wan_slice(l->group_scale, 0, n);
    if (l->group_offset.data)
        first.group_offset = wan_slice(l->group_offset, 0, n);
    return first;
}

/* ||a - b|| / ||b||; a number that is none makes it infinite. */
static double distance(const float *a, const float *b, int64_t n) {
    double off = 0, all = 0;
    for (int64_t i = 0; i < n; i++) {
        off += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        all += (double)b[i] * b[i];
    }
    double ratio = off > 0 ? sqrt(off / all) : 0;
    return isfinite(off) ? ratio : INFINITY;
}

typedef struct candidates {
    precision list[4]; /* fastest first, f32 last */
    int count;
    double worst[4];
} candidates;

static wan_status try_matrix(compute *c, const linear *whole, noise_generator *noise,
                             candidates *t) {
    size_t mark = wan_mark(c);
    linear l = first_outputs(whole);
    int64_t n = l.weight.dim[0], k = l.weight.dim[1];
    tensor x = wan_new(c, WAN_F32, WAN_DIMS(ROWS, k));
    if (wan_ready(c)) {
        float *host = malloc(wan_bytes(x));
        if (!host)
            return wan_fail(&c->err, WAN_E_MEMORY, "out of memory for %lld numbers",
                            (long long)(ROWS * k));
        wan_noise_draw(noise, host, ROWS * k);
        wan_upload(c, x, host);
        free(host);
    }
    precision before = c->precision;
    c->precision = WAN_PRECISION_F32;
    tensor exact = wan_linear_f32(c, x, &l, WAN_NONE);
    for (int i = 0; i < t->count - 1; i++) {
        size_t one = wan_mark(c);
        c->precision = t->list[i];
        tensor y = wan_linear_f32(c, x, &l, WAN_NONE);
        /* A backend with a list by speed computes in the host's memory. */
        if (wan_ready(c))
            t->worst[i] = fmax(t->worst[i], distance(y.data, exact.data, ROWS * n));
        wan_release(c, one);
    }
    c->precision = before;
    wan_release(c, mark);
    return c->err.code;
}

static wan_status try_all(wan_model *m, compute *c, candidates *t, error *err) {
    dit *d = wan_model_dit(m, wan_is_dry(c), err);
    noise_generator noise;
    wan_noise_seed(&noise, 0);
    for (int i = 0; d && !c->err.code; i++) {
        const linear *l = wan_dit_sample(d, i);
        if (!l)
            break;
        try_matrix(c, l, &noise, t);
    }
    if (d && c->err.code)
        wan_fail(err, c->err.code, "%s", c->err.message);
    return err->code;
}

static wan_status look(wan_model *m, candidates *t, error *err) {
    compute c = wan_compute_plan(m->be, WAN_PRECISION_F32);
    if (try_all(m, &c, t, err) || wan_model_device(m, err) ||
        wan_compute_on(&c, m->be, m->device, WAN_PRECISION_F32, c.scratch.peak, err))
        return err->code;
    try_all(m, &c, t, err);
    wan_compute_close(&c);
    wan_model_rest(m, PART_DIT);
    return err->code;
}

static void take(wan_model *m, precision p) {
    m->precision = m->dry.c.precision = m->alive.c.precision = p;
}

wan_status wan_precision_settle(wan_model *m, error *err) {
    candidates t = {0};
    error local = {0};
    if (!m->settle)
        return WAN_OK;
    m->settle = false;
    t.count = m->be->by_speed(t.list);
    if (t.count < 2) {
        wan_log(m->log, WAN_LOG_INFO, "precision f32: nothing is faster on this machine");
        return WAN_OK;
    }
    if (wan_model_require(m, NEED_DIT, &local) || look(m, &t, &local))
        return wan_fail(err, local.code, "--precision auto looks at the transformer: %s",
                        local.message);
    int i = 0;
    while (i < t.count - 1 && !(t.worst[i] <= WAN_PRECISION_BOUND)) {
        wan_log(m->log, WAN_LOG_INFO, "precision %s: products are up to %.2g off, %.2g is allowed",
                names[t.list[i]], t.worst[i], WAN_PRECISION_BOUND);
        i++;
    }
    take(m, t.list[i]);
    if (i < t.count - 1)
        wan_log(m->log, WAN_LOG_INFO,
                "precision %s: products of this model are %.2g off, %.2g is allowed",
                names[t.list[i]], t.worst[i], WAN_PRECISION_BOUND);
    else
        wan_log(m->log, WAN_LOG_INFO, "precision f32");
    return WAN_OK;
}
