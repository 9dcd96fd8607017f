/* SPDX-License-Identifier: Apache-2.0 */
#include "weights/bind.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/quants.h"

#define NAME_ROOM 512

typedef struct owned {
    void *p;
    size_t bytes;
} owned;

struct binder {
    const store *s;
    compute *c;
    bool *asked; /* of each stored tensor */
    owned *mine; /* device memory: vectors, placed copies */
    size_t count, room, bytes;
    size_t placed, streamable, largest; /* of weights the device copies */
};

binder *wan_binder_open(const store *s, compute *c, error *err) {
    binder *b = calloc(1, sizeof *b);
    if (b)
        b->asked = calloc(wan_store_count(s) + 1, sizeof *b->asked);
    if (!b || !b->asked) {
        wan_fail(err, WAN_E_MEMORY, "%s: no memory to bind it", wan_store_path(s));
        free(b);
        return NULL;
    }
    b->s = s;
    b->c = c;
    return b;
}

void wan_binder_close(binder *b) {
    if (!b)
        return;
    for (size_t i = 0; b->c->note && i < wan_store_count(b->s); i++)
        if (!b->asked[i] && !wan_store_at(b->s, i)->companion)
            b->c->note(b->c->note_user, wan_store_at(b->s, i)->source, false);
    for (size_t i = 0; i < b->count; i++)
        b->c->be->free(b->c->device, b->mine[i].p, b->mine[i].bytes);
    free(b->mine);
    free(b->asked);
    free(b);
}

/* Room for one more first, so that memory just taken is never lost. */
static wan_status reserve(binder *b, error *err) {
    if (b->count < b->room)
        return WAN_OK;
    size_t room = b->room ? 2 * b->room : 256;
    owned *mine = realloc(b->mine, room * sizeof *mine);
    if (!mine)
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory to bind it", wan_store_path(b->s));
    b->mine = mine;
    b->room = room;
    return WAN_OK;
}

static void own(binder *b, void *p, size_t bytes) {
    b->mine[b->count++] = (owned){p, bytes};
}

/* `like` in device memory of ours, filled from the host. */
static wan_status upload(binder *b, const void *values, tensor like, tensor *out, error *err) {
    size_t bytes = wan_bytes(like);
    wan_status s = reserve(b, err);
    if (s != WAN_OK)
        return s;
    void *p = b->c->be->alloc(b->c->device, bytes ? bytes : 1, err);
    if (!p)
        return WAN_E_MEMORY;
    own(b, p, bytes ? bytes : 1);
    b->c->be->upload(b->c->device, p, values, bytes);
    *out = like;
    out->data = p;
    return WAN_OK;
}

wan_status wan_bind_values(binder *b, const float *values, int rank, const int64_t *dim,
                           tensor *out, error *err) {
    tensor t = wan_tensor(WAN_F32, rank, dim, (void *)(uintptr_t)values);
    b->bytes += wan_bytes(t);
    if (wan_is_dry(b->c)) {
        *out = t;
        return WAN_OK;
    }
    return upload(b, values, t, out, err);
}

/* ------------------------------------------------------------------------------------------------------
 * finding */

static wan_status compose(const binder *b, const char *prefix, const char *name, const char *suffix,
                          char text[NAME_ROOM], error *err) {
    if (snprintf(text, NAME_ROOM, "%s%s%s", prefix, name, suffix) >= NAME_ROOM)
        return wan_fail(err, WAN_E_INTERNAL, "%s: the name %s%s%s is too long",
                        wan_store_path(b->s), prefix, name, suffix);
    return WAN_OK;
}

static const stored *ask(binder *b, const char *name) {
    const stored *t = wan_store_find(b->s, name);
    if (t)
        b->asked[t - wan_store_at(b->s, 0)] = true;
    return t;
}

/* In an inspection a missing weight is noted and thought to be there. */
static wan_status missing(const binder *b, const char *name, tensor want, tensor *out, error *err) {
    char text[128];
    if (wan_is_dry(b->c) && b->c->note) {
        b->c->note(b->c->note_user, name, true);
        *out = want;
        out->data = b->c->scratch.base; /* an address that nobody reads */
        return WAN_OK;
    }
    return wan_fail(err, WAN_E_SHAPE, "%s: has no tensor %s, the model needs it as %s",
                    wan_store_path(b->s), name, wan_shape_text(want, text, sizeof text));
}

static wan_status wrong_shape(const stored *t, tensor want, const char *more, error *err) {
    char have[128], need[128];
    return wan_fail(err, WAN_E_SHAPE, "%s: %s is %s, the model needs %s%s", t->file, t->source,
                    wan_shape_text(t->t, have, sizeof have),
                    wan_shape_text(want, need, sizeof need), more);
}

static wan_status wrong_type(const stored *t, const char *use, error *err) {
    return wan_fail(err, WAN_E_TYPE, "%s: %s is stored as %s, which this build cannot use for %s",
                    t->file, t->source, wan_dtype(t->t.type)->name, use);
}

/* ------------------------------------------------------------------------------------------------------
 * vectors */

/* Equal but for axes of length 1, which writers add and drop. */
static bool same_but_ones(tensor a, tensor b) {
    int i = 0, j = 0;
    for (;;) {
        while (i < a.rank && a.dim[i] == 1)
            i++;
        while (j < b.rank && b.dim[j] == 1)
            j++;
        if (i == a.rank || j == b.rank)
            return i == a.rank && j == b.rank;
        if (a.dim[i++] != b.dim[j++])
            return false;
    }
}

/* Any number is a float to a vector, but whole ones say that something else is meant. */
static bool is_number(dtype t) {
    return wan_can_dequantise(t) && t != WAN_I8 && t != WAN_MLX_8 && t != WAN_MLX_4;
}

/* All of t as `want`, in memory of ours. */
static wan_status convert(binder *b, const stored *t, tensor want, tensor *out, error *err) {
    if (!is_number(t->t.type))
        return wrong_type(t, "a vector", err);
    b->bytes += wan_bytes(want);
    if (wan_is_dry(b->c)) {
        *out = want; /* an address that nobody reads */
        out->data = t->t.data;
        return WAN_OK;
    }
    float *values = malloc(wan_bytes(want) + 1);
    if (!values)
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory to convert %s", t->file, t->source);
    wan_stored_read(t, values, 0, wan_elements(t->t));
    wan_status s = upload(b, values, want, out, err);
    free(values);
    return s;
}

static wan_status bind_vector(binder *b, const char *name, tensor want, bool optional, tensor *out,
                              error *err) {
    const stored *t = ask(b, name);
    if (!t)
        return optional ? WAN_OK : missing(b, name, want, out, err);
    if (!same_but_ones(t->t, want))
        return wrong_shape(t, want, "", err);
    return convert(b, t, want, out, err);
}

/* -----------------------------------------------------------------------------------------------------
 * matrices */

/* [a, b], or [a, ...] whose trailing axes multiply to b, or the same with the two slowest axes
 * folded into one. */
static bool fits_matrix(tensor t, int64_t a, int64_t b) {
    if (t.rank < 2 || wan_elements(t) != a * b)
        return false;
    return t.dim[0] == a || (t.rank > 2 && a > 0 && t.dim[0] % a == 0);
}

static bool fits_conv(tensor t, int64_t a, int64_t b, tensor *as) {
    *as = t;
    if (t.rank >= 4 && t.dim[0] == a && t.dim[1] == b)
        return true;
    /* A GGUF of at most four axes has out and in folded. */
    if (t.rank != 4 || a <= 0 || b <= 0 || t.dim[0] != a * b)
        return false;
    *as = wan_reshape(t, 5, (int64_t[]){a, b, t.dim[1], t.dim[2], t.dim[3]});
    return true;
}

static void count_placed(binder *b, size_t bytes, weight_use use) {
    size_t from = b->c->planned->stream_from;
    b->placed += bytes;
    if (use != WAN_USE_MATRIX || !from || bytes < from)
        return;
    b->streamable += bytes;
    b->largest = bytes > b->largest ? bytes : b->largest;
}

static wan_status put(binder *b, const stored *t, tensor as, weight_use use, tensor *out,
                      error *err) {
    const backend *be = b->c->planned;
    *out = as;
    if (be->placed_type)
        out->type = be->placed_type(b->c->precision, as, use);
    if (be->placed_type && use != WAN_USE_TABLE)
        count_placed(b, wan_bytes(*out), use);
    if (wan_is_dry(b->c))
        return WAN_OK;
    wan_status s = reserve(b, err);
    if (s != WAN_OK)
        return s;
    error why = {0};
    *out = b->c->be->place(b->c->device, as, use, &why);
    if (why.code != WAN_OK)
        return wan_fail(err, why.code, "%s: %s: %s", t->file, t->source, why.message);
    if (out->data != as.data) {
        own(b, out->data, wan_bytes(*out));
        if (!be->placed_type)
            b->bytes += wan_bytes(*out);
    }
    return WAN_OK;
}

/* A kernel used as a matrix whose channels lie last: the one place where bytes must be moved. */
static wan_status put_in_order(binder *b, const stored *t, tensor want, tensor *out, error *err) {
    size_t size = (size_t)wan_dtype(t->t.type)->bytes;
    int64_t in = t->t.dim[1], taps = want.dim[1] / in, n = wan_elements(want);
    *out = want;
    out->type = t->t.type;
    out->data = t->t.data;
    b->bytes += wan_bytes(*out);
    if (wan_is_dry(b->c))
        return WAN_OK;
    char *values = malloc(wan_bytes(*out) + 1);
    if (!values)
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory to convert %s", t->file, t->source);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = i % (in * taps), from = i - at + at % taps * in + at / taps;
        memcpy(values + (size_t)i * size, (const char *)t->t.data + (size_t)from * size, size);
    }
    wan_status s = upload(b, values, *out, out, err);
    free(values);
    return s;
}

/* The scales of codes: of rows as floats, of groups as they are stored. */
static wan_status bind_scales(binder *b, const stored *t, linear *l, error *err) {
    if (!t->scale)
        return WAN_OK;
    if (t->offset) {
        wan_status s = put(b, t->scale, t->scale->t, WAN_USE_MATRIX, &l->group_scale, err);
        return s == WAN_OK ? put(b, t->offset, t->offset->t, WAN_USE_MATRIX, &l->group_offset, err)
                           : s;
    }
    int64_t n = wan_elements(t->scale->t);
    return convert(b, t->scale, wan_tensor(WAN_F32, 1, &n, NULL), &l->scale, err);
}

static wan_status bind_matrix(binder *b, const stored *t, tensor want, weight_use use, linear *l,
                              error *err) {
    const dtype_info *d = wan_dtype(t->t.type);
    if (!d->weight)
        return wrong_type(t, "a weight", err);
    if (t->t.type == WAN_I8 && !t->scale)
        return wrong_type(t, "a weight without a scale (weight_scale or scale_weight)", err);
    if (!fits_matrix(t->t, want.dim[0], want.dim[1]))
        return wrong_shape(t, want, "", err);
    if (want.dim[1] % d->block)
        return wan_fail(err, WAN_E_TYPE, "%s: %s has rows of %lld, %s stores %d at a time", t->file,
                        t->source, (long long)want.dim[1], d->name, d->block);
    wan_status s = t->channels_last
                       ? put_in_order(b, t, want, &l->weight, err)
                       : put(b, t, wan_reshape(t->t, 2, want.dim), use, &l->weight, err);
    return s == WAN_OK ? bind_scales(b, t, l, err) : s;
}

static weight_use use_of(bool of_norm, bool last) {
    if (of_norm)
        return last ? WAN_USE_CONV_OF_NORM_CHANNELS_LAST : WAN_USE_CONV_OF_NORM;
    return last ? WAN_USE_CONV_CHANNELS_LAST : WAN_USE_CONV;
}

static wan_status bind_kernel(binder *b, const stored *t, tensor want, bool of_norm, conv *k,
                              error *err) {
    if (wan_dtype(t->t.type)->block != 1 || !is_number(t->t.type))
        return wrong_type(t, "a convolution", err);
    if (t->scale)
        return wrong_type(t, "a convolution, with a scale", err);
    tensor as;
    if (!fits_conv(t->t, want.dim[0], want.dim[1], &as))
        return wrong_shape(t, want, " and a kernel", err);
    k->channels_last = t->channels_last;
    wan_status s = put(b, t, as, use_of(of_norm, k->channels_last), &k->weight, err);
    k->code = of_norm && b->c->planned->placed_type && k->weight.type == WAN_F8_E4M3 ? 1 : 0;
    return s;
}

/* ---------------------------------------------------------------------------------------------------------
 * rows */

static wan_status bind_weight(binder *b, const char *prefix, const binding *r, tensor want,
                              void *field, error *err) {
    char name[NAME_ROOM];
    linear *l = field;
    conv *k = field;
    bool of_norm = r->kind == BIND_CONV_OF_NORM, is_conv = of_norm || r->kind == BIND_CONV;
    wan_status s = compose(b, prefix, r->name, ".weight", name, err);
    if (s != WAN_OK)
        return s;
    const stored *t = ask(b, name);
    if (!t && r->optional)
        return WAN_OK;
    if (!t)
        s = missing(b, name, want, is_conv ? &k->weight : &l->weight, err);
    else
        s = is_conv
                ? bind_kernel(b, t, want, of_norm, k, err)
                : bind_matrix(b, t, want,
                              t->scale || r->kind != BIND_TABLE ? WAN_USE_MATRIX : WAN_USE_TABLE, l,
                              err);
    if (!is_conv)
        l->bits = r->kind == BIND_LINEAR_16                              ? 16
                  : r->kind == BIND_EXACT || r->kind == BIND_EXACT_PLAIN ? 32
                                                                         : 0;
    if (s != WAN_OK || r->kind == BIND_EXACT_PLAIN || r->kind == BIND_TABLE)
        return s;
    tensor *bias = is_conv ? &k->bias : &l->bias;
    s = compose(b, prefix, r->name, ".bias", name, err);
    return s == WAN_OK
               ? bind_vector(b, name, wan_tensor(WAN_F32, 1, want.dim, NULL), false, bias, err)
               : s;
}

static wan_status bind_row(binder *b, const char *prefix, const binding *r, const int64_t *sizes,
                           void *field, error *err) {
    int64_t dim[2] = {sizes[r->a], sizes[r->b]};
    if (r->kind != BIND_VECTOR && r->kind != BIND_BARE)
        return bind_weight(b, prefix, r, wan_tensor(WAN_F32, 2, dim, NULL), field, err);
    char name[NAME_ROOM];
    wan_status s = compose(b, prefix, r->name, r->kind == BIND_VECTOR ? ".weight" : "", name, err);
    tensor want = wan_tensor(WAN_F32, dim[1] ? 2 : 1, dim, NULL);
    return s == WAN_OK ? bind_vector(b, name, want, r->optional, field, err) : s;
}

wan_status wan_bind(binder *b, const char *prefix, const binding *rows, size_t count,
                    const int64_t *sizes, void *base, error *err) {
    assert(sizes[0] == 0);
    for (size_t i = 0; i < count; i++) {
        wan_status s = bind_row(b, prefix, &rows[i], sizes, (char *)base + rows[i].offset, err);
        if (s != WAN_OK)
            return s;
    }
    return WAN_OK;
}

size_t wan_binder_unused(const binder *b, char *text, size_t size) {
    size_t n = 0, at = 0;
    if (size)
        text[0] = '\0';
    for (size_t i = 0; i < wan_store_count(b->s); i++) {
        if (b->asked[i] || wan_store_at(b->s, i)->companion)
            continue;
        const char *name = wan_store_at(b->s, i)->source;
        size_t need = strlen(name) + (at ? 2 : 0);
        if (at + need + 1 <= size)
            at += (size_t)snprintf(text + at, size - at, "%s%s", at ? ", " : "", name);
        n++;
    }
    return n;
}

size_t wan_binder_bytes(const binder *b) {
    return b->bytes;
}

size_t wan_binder_placed(const binder *b) {
    return b->placed;
}

size_t wan_binder_streamable(const binder *b, size_t *largest) {
    *largest = b->largest;
    return b->streamable;
}
