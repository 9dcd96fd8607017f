/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/vram.h"

#include <stdint.h>

/* What a limit must leave: the driver hands memory out in pieces, and pieces that a part which left
 * shared with one that stays are held on.  211 MiB were seen. */
#define PIECES ((size_t)320 << 20)

/* Weights of part p and what of them can pass through. */
typedef struct part_bytes {
    size_t all, streamable, largest;
} part_bytes;

static wan_status bytes_of(wan_model *m, part p, part_bytes *b, error *err) {
    *b = (part_bytes){.all = wan_model_placed(m, p, err)};
    if (err->code)
        return err->code;
    b->streamable = p == PART_DIT    ? wan_dit_streamable(m->dry.dit, &b->largest)
                    : p == PART_TEXT ? wan_umt5_streamable(m->dry.text, &b->largest)
                                     : wan_vae22_streamable(m->dry.vae, &b->largest);
    return WAN_OK;
}

/* Stages can be cut more finely so many times. */
#define FINEST 4

wan_status wan_vram_settle(wan_model *m, vram_attempt attempt, void *arg, error *err) {
    for (m->pieces = 0;; m->pieces++) {
        bool whole = false;
        if (attempt(arg, &whole, err))
            return err->code;
        if (whole || m->pieces == FINEST)
            return WAN_OK;
    }
}

void wan_vram_cut(const wan_model *m, compute *c) {
    for (int i = 0; i < m->pieces; i++) {
        c->tokens_together /= 3;
        c->pixels_together /= 4;
    }
}

/* What may be used in all. */
static size_t allowance(const wan_model *m) {
    if (m->max_vram)
        return m->max_vram > PIECES ? m->max_vram - PIECES : 1;
    if (!m->device || !m->be->available)
        return SIZE_MAX;
    return m->be->available(m->device) + m->be->context;
}

wan_status wan_vram_fit(wan_model *m, part p, size_t scratch, const size_t resident[PARTS],
                        vram_fit *fit, error *err) {
    part_bytes b;
    *fit = (vram_fit){.fits = true};
    if (!m->be->own_memory)
        return WAN_OK;
    if (bytes_of(m, p, &b, err))
        return err->code;
    size_t most = allowance(m), others = 0, base = m->be->context + scratch;
    size_t slots = (size_t)m->be->stream_slots * b.largest;
    for (int i = 0; i < PARTS; i++)
        others += i == (int)p ? 0 : resident[i];
    fit->resident = b.all;
    fit->stay = b.streamable;
    fit->least = base + b.all;
    if (b.streamable > slots)
        fit->least = base + b.all - b.streamable + slots;
    if (base + b.all + others <= most) {
        fit->peak = base + b.all + others;
        return WAN_OK;
    }
    fit->alone = true;
    fit->peak = base + b.all;
    if (fit->peak <= most)
        return WAN_OK;
    if (fit->least > most) {
        fit->fits = false;
        fit->peak = fit->least;
        return WAN_OK;
    }
    fit->slots = slots;
    fit->stay = most - fit->least; /* pieces do not fill it to the byte: a little less will */
    fit->streamed = b.streamable - fit->stay;
    fit->resident = b.all - fit->streamed;
    fit->peak = most;
    return WAN_OK;
}

wan_status wan_vram_refuse(const wan_model *m, part p, const vram_fit *fit, error *err) {
    return wan_fail(err, WAN_E_MEMORY,
                    "%s: the %s needs at least %zu MiB of device memory for this job, %zu MiB may "
                    "be used",
                    m->be->name, wan_part_name(p), (fit->least >> 20) + 1, allowance(m) >> 20);
}

wan_status wan_vram_apply(wan_model *m, part p, size_t scratch, error *err) {
    vram_fit fit;
    if (!m->be->own_memory)
        return WAN_OK;
    if (wan_vram_fit(m, p, scratch, m->resident, &fit, err))
        return err->code;
    if (!fit.fits)
        return wan_vram_refuse(m, p, &fit, err);
    for (int i = 0; i < PARTS && fit.alone; i++)
        if (i != (int)p)
            wan_model_leave(m, (part)i);
    /* What was bound with another share would not be what the plan says. */
    if (m->resident[p] && m->resident[p] != fit.resident)
        wan_model_leave(m, p);
    if (m->max_vram && m->be->trim)
        m->be->trim(m->device); /* or holes of the stage before would count as ours */
    if (m->be->limit)
        m->be->limit(m->device, fit.streamed ? fit.stay : SIZE_MAX);
    m->resident[p] = fit.resident;
    return WAN_OK;
}
