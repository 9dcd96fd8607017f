/* SPDX-License-Identifier: Apache-2.0 */
/* The device of a model, and its parts bound: once for plans, once for real. */
#include "pipeline/model.h"

wan_status wan_model_device(wan_model *m, error *err) {
    if (m->device)
        return WAN_OK;
    const device_options o = {
        .threads = m->threads, .precision = m->precision, .ordinal = m->ordinal, .log = m->log};
    m->device = m->be->open(&o, err);
    if (!m->device)
        return err->code ? err->code : WAN_E_DEVICE;
    return wan_compute_on(&m->alive.c, m->be, m->device, m->precision, 0, err);
}

static bound_parts *parts(wan_model *m, bool dry, error *err) {
    if (dry) {
        if (!m->dry.c.be)
            m->dry.c = wan_compute_plan(m->be, m->precision);
        return &m->dry;
    }
    return wan_model_device(m, err) ? NULL : &m->alive;
}

dit *wan_model_dit(wan_model *m, bool dry, error *err) {
    bound_parts *b = parts(m, dry, err);
    if (b && !b->dit)
        b->dit = wan_dit_open(m->store[PART_DIT], &b->c, err);
    return b ? b->dit : NULL;
}

umt5 *wan_model_text(wan_model *m, bool dry, error *err) {
    bound_parts *b = parts(m, dry, err);
    if (b && !b->text)
        b->text = wan_umt5_open(m->store[PART_TEXT], &b->c, err);
    return b ? b->text : NULL;
}

vae22 *wan_model_vae(wan_model *m, bool dry, error *err) {
    bound_parts *b = parts(m, dry, err);
    if (b && !b->vae)
        b->vae = wan_vae22_open(m->store[PART_VAE], &b->c, err);
    return b ? b->vae : NULL;
}

size_t wan_model_placed(wan_model *m, part p, error *err) {
    dit *d = p == PART_DIT ? wan_model_dit(m, true, err) : NULL;
    umt5 *t = p == PART_TEXT ? wan_model_text(m, true, err) : NULL;
    vae22 *v = p == PART_VAE ? wan_model_vae(m, true, err) : NULL;
    return d ? wan_dit_placed(d) : t ? wan_umt5_placed(t) : v ? wan_vae22_placed(v) : 0;
}

static void close_part(bound_parts *b, part p) {
    if (p == PART_DIT) {
        wan_dit_close(b->dit);
        b->dit = NULL;
    } else if (p == PART_TEXT) {
        wan_umt5_close(b->text);
        b->text = NULL;
    } else if (p == PART_VAE) {
        wan_vae22_close(b->vae);
        b->vae = NULL;
    }
}

void wan_model_leave(wan_model *m, part p) {
    close_part(&m->alive, p);
    m->resident[p] = 0;
}

void wan_model_rest(wan_model *m, part p) {
    if (!m->be->own_memory)
        wan_model_leave(m, p);
}

void wan_model_unbind(wan_model *m) {
    for (int p = 0; p < PARTS; p++) {
        close_part(&m->alive, (part)p);
        close_part(&m->dry, (part)p);
    }
    wan_compute_close(&m->alive.c);
    if (m->device)
        m->be->close(m->device);
    m->device = NULL;
}
