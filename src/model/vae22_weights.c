/* SPDX-License-Identifier: Apache-2.0 */
#include "model/vae22_weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* A binding, and the kernel if it is a convolution. */
typedef struct conv_binding {
    binding row;
    int kt, k; /* [out, in, kt, k, k]; kt 0: [out, in, k, k] */
} conv_binding;

/* Symbols of the binding tables. */
enum { S_NONE, S_IN, S_OUT, S_FIRST, S_MID, S_3MID, S_LAST, S_2Z, S_Z, S_COUNT };

/* clang-format off */
#define AT(field) offsetof(vae22_weights, field)
static const conv_binding top_rows[] = {
    { { "conv1", AT(quant),      BIND_CONV, S_2Z, S_2Z, false }, 1, 1 },
    { { "conv2", AT(post_quant), BIND_CONV, S_Z,  S_Z,  false }, 1, 1 },
};
#undef AT
#define AT(field) offsetof(vae22_side_weights, field)
static const conv_binding side_rows[] = {
    { { "conv1",               AT(conv1),            BIND_CONV, S_FIRST, S_IN,   false }, 3, 3 },
    { { "middle.1.norm.gamma", AT(attention.norm),   BIND_BARE, S_MID,   S_NONE, false }, 0, 0 },
    { { "middle.1.to_qkv",     AT(attention.to_qkv), BIND_CONV, S_3MID,  S_MID,  false }, 0, 1 },
    { { "middle.1.proj",       AT(attention.proj),   BIND_CONV, S_MID,   S_MID,  false }, 0, 1 },
    { { "head.0.gamma",        AT(head_norm),        BIND_BARE, S_LAST,  S_NONE, false }, 0, 0 },
    { { "head.2",              AT(head),             BIND_CONV, S_OUT,   S_LAST, false }, 3, 3 },
};
#undef AT
#define AT(field) offsetof(res_block, field)
static const conv_binding block_rows[] = {
    { { "residual.0.gamma", AT(norm1),    BIND_BARE, S_IN,  S_NONE, false }, 0, 0 },
    { { "residual.2",       AT(conv1),    BIND_CONV_OF_NORM, S_OUT, S_IN, false }, 3, 3 },
    { { "residual.3.gamma", AT(norm2),    BIND_BARE, S_OUT, S_NONE, false }, 0, 0 },
    { { "residual.6",       AT(conv2),    BIND_CONV_OF_NORM, S_OUT, S_OUT, false }, 3, 3 },
    { { "shortcut",         AT(shortcut), BIND_CONV, S_OUT, S_IN,   false }, 1, 1 },
};
#undef AT
#define AT(field) offsetof(vae22_level_weights, field)
static const conv_binding resample_row = { { "resample",  AT(resample),  BIND_CONV, S_OUT, S_IN, false }, 0, 3 };
static const conv_binding time_row =     { { "time_conv", AT(time_conv), BIND_CONV, S_OUT, S_IN, false }, 3, 1 };
#undef AT
/* clang-format on */

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

typedef struct opening {
    binder *b;
    const store *s;
    const vae22_config *g;
    error *err;
    bool exact; /* no codes: in the encoder, whose result conditions a whole clip */
} opening;

static wan_status check_conv(const opening *o, const char *prefix, const conv_binding *row,
                             const conv *w) {
    const int64_t *k = w->weight.dim + (row->kt ? 3 : 2);
    int rank = row->kt ? 5 : 4;
    char shape[128], name[160];
    snprintf(name, sizeof name, "%s%s.weight", prefix, row->row.name);
    const stored *t = wan_store_find(o->s, name);
    const char *file = t ? t->file : wan_store_path(o->s), *source = t ? t->source : name;
    if (w->weight.rank != rank || k[0] != row->k || k[1] != row->k ||
        (row->kt && w->weight.dim[2] != row->kt))
        return wan_fail(
            o->err, WAN_E_SHAPE,
            "%s: %s has shape %s, expected a kernel of %d x %d x %d (time, rows, columns)", file,
            source, wan_shape_text(w->weight, shape, sizeof shape), row->kt ? row->kt : 1, row->k,
            row->k);
    return WAN_OK;
}

static wan_status bind_rows(const opening *o, const char *prefix, const conv_binding *rows,
                            size_t count, const int64_t *sizes, void *base) {
    wan_status status = WAN_OK;
    for (size_t i = 0; !status && i < count; i++) {
        binding row = rows[i].row;
        bool of_norm = row.kind == BIND_CONV_OF_NORM;
        if (of_norm && o->exact)
            row.kind = BIND_CONV;
        status = wan_bind(o->b, prefix, &row, 1, sizes, base, o->err);
        if (!status && (of_norm || row.kind == BIND_CONV))
            status = check_conv(o, prefix, &rows[i],
                                (const conv *)((const char *)base + rows[i].row.offset));
    }
    return status;
}

/* What the codes of w's inputs count, from the gains of their norm. */
static wan_status set_code(const opening *o, const char *prefix, const char *gain, conv *w) {
    char name[160];
    snprintf(name, sizeof name, "%s%s", prefix, gain);
    const stored *t = w->code > 0 ? wan_store_find(o->s, name) : NULL;
    if (!t)
        return WAN_OK;
    int64_t n = w->weight.dim[1];
    float *gains = malloc((size_t)n * sizeof *gains), most = 0;
    if (!gains)
        return wan_fail(o->err, WAN_E_MEMORY, "%s: no memory to look at %s", t->file, t->source);
    wan_stored_read(t, gains, 0, n);
    for (int64_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(gains[i]));
    free(gains);
    w->code = wan_code_scale(n, most);
    return WAN_OK;
}

static wan_status bind_block(const opening *o, const char *prefix, int64_t in, int64_t out,
                             res_block *b) {
    const int64_t sizes[S_COUNT] = {[S_IN] = in, [S_OUT] = out};
    wan_status status =
        bind_rows(o, prefix, block_rows, COUNT(block_rows) - (in == out ? 1 : 0), sizes, b);
    if (!status)
        status = set_code(o, prefix, block_rows[0].row.name, &b->conv1);
    if (!status)
        status = set_code(o, prefix, block_rows[2].row.name, &b->conv2);
    return status;
}

/* `list` names the list of levels, and again the list of blocks inside one. */
static wan_status bind_level(const opening *o, const char *where, const char *list, int i,
                             const vae22_side *d, vae22_level_weights *l) {
    const vae22_level *g = &d->level[i];
    bool up = d == &o->g->decoder;
    const int64_t square[S_COUNT] = {[S_IN] = g->out, [S_OUT] = g->out};
    const int64_t time[S_COUNT] = {[S_IN] = g->out, [S_OUT] = up ? 2 * g->out : g->out};
    char prefix[96];
    wan_status status = WAN_OK;
    for (int j = 0; !status && j < d->blocks; j++) {
        snprintf(prefix, sizeof prefix, "%s.%s.%d.%s.%d.", where, list, i, list, j);
        status = bind_block(o, prefix, j ? g->out : g->in, g->out, &l->block[j]);
    }
    snprintf(prefix, sizeof prefix, "%s.%s.%d.", where, list, i);
    if (!status && g->resample)
        status = bind_rows(o, prefix, &resample_row, 1, square, l);
    if (!status && g->temporal)
        status = bind_rows(o, prefix, &time_row, 1, time, l);
    return status;
}

static wan_status bind_side(const opening *o, const char *where, const char *list,
                            const vae22_side *d, vae22_side_weights *w) {
    bool up = d == &o->g->decoder;
    int64_t last = d->level[d->levels - 1].out, mid = up ? d->first : last;
    const int64_t sizes[S_COUNT] = {[S_IN] = d->in,     [S_OUT] = d->out, [S_FIRST] = d->first,
                                    [S_3MID] = 3 * mid, [S_MID] = mid,    [S_LAST] = last};
    char prefix[32];
    snprintf(prefix, sizeof prefix, "%s.", where);
    wan_status status = bind_rows(o, prefix, side_rows, COUNT(side_rows), sizes, w);
    for (int i = 0; !status && i < 2; i++) {
        snprintf(prefix, sizeof prefix, "%s.middle.%d.", where, 2 * i);
        status = bind_block(o, prefix, mid, mid, &w->middle[i]);
    }
    for (int i = 0; !status && i < d->levels; i++)
        status = bind_level(o, where, list, i, d, &w->level[i]);
    return status;
}

static wan_status bind_statistics(const opening *o, vae22_weights *w) {
    int64_t z = o->g->z;
    float *values = malloc((size_t)(2 * z) * sizeof *values);
    if (!values)
        return wan_fail(o->err, WAN_E_MEMORY, "%s: out of memory for the VAE",
                        wan_store_path(o->s));
    wan_status status = wan_vae22_statistics(o->s, z, values, values + z, o->err);
    if (!status)
        status = wan_bind_values(o->b, values, WAN_DIMS(z), &w->mean, o->err);
    if (!status)
        status = wan_bind_values(o->b, values + z, WAN_DIMS(z), &w->inv_std, o->err);
    free(values);
    return status;
}

wan_status wan_vae22_weights_bind(vae22_weights *w, binder *b, const store *s,
                                  const vae22_config *g, error *err) {
    opening o = {.b = b, .s = s, .g = g, .err = err, .exact = true};
    const int64_t sizes[S_COUNT] = {[S_Z] = g->z, [S_2Z] = 2 * g->z};
    wan_status status = bind_rows(&o, "", top_rows, COUNT(top_rows), sizes, w);
    if (!status)
        status = bind_side(&o, "encoder", "downsamples", &g->encoder, &w->encoder);
    o.exact = false;
    if (!status)
        status = bind_side(&o, "decoder", "upsamples", &g->decoder, &w->decoder);
    return status ? status : bind_statistics(&o, w);
}
