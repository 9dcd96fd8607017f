/* SPDX-License-Identifier: Apache-2.0 */
#include "weights/codes.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json_file.h"
#include "tensor/quants.h"

#define NAME_ROOM 512

typedef struct join {
    stored *items;
    const lookup *names;
    const char *level;
} join;

/* The tensor beside X.weight whose name ends in `suffix` instead, or NULL. */
static stored *beside(const join *j, const stored *weight, const char *suffix) {
    char name[NAME_ROOM];
    int base = (int)(strlen(weight->name) - strlen("weight"));
    if (snprintf(name, sizeof name, "%.*s%s", base, weight->name, suffix) >= NAME_ROOM)
        return NULL;
    size_t at = wan_lookup_find(j->names, name);
    return at == WAN_NOT_FOUND ? NULL : &j->items[at];
}

static bool is_float(dtype t) {
    return t == WAN_F32 || t == WAN_F16 || t == WAN_BF16 || t == WAN_F64;
}

/* ------------------------------------------------------------------------------------------------
 * ComfyUI's notes */

static wan_status check_format(const json_t *note, const char *file, const char *layer,
                               error *err) {
    static const char *const read[] = {"float8_e4m3fn", "float8_e5m2", "int8_tensorwise"};
    const char *format = json_string_value(json_object_get(note, "format"));
    const json_t *rotated = json_object_get(note, "convrot");
    if (rotated && !json_is_false(rotated) && !json_is_null(rotated))
        return wan_fail(err, WAN_E_TYPE, "%s: %s is rotated (convrot), which is not read", file,
                        layer);
    for (size_t i = 0; format && i < sizeof read / sizeof *read; i++)
        if (!strcmp(format, read[i]))
            return WAN_OK;
    return wan_fail(err, WAN_E_TYPE,
                    "%s: %s has the format %s; float8_e4m3fn, float8_e5m2 and int8_tensorwise are "
                    "read",
                    file, layer, format ? format : "(none)");
}

static wan_status check_note(const stored *note, error *err) {
    if (note->t.type != WAN_U8)
        return wan_fail(err, WAN_E_TYPE, "%s: %s is %s, not U8", note->file, note->source,
                        wan_dtype(note->t.type)->name);
    json_t *j = wan_json_parse(note->t.data, wan_bytes(note->t), 8, note->file, note->source, err);
    if (!j)
        return WAN_E_FORMAT;
    wan_status s = check_format(j, note->file, note->source, err);
    json_decref(j);
    return s;
}

static wan_status check_metadata(const char *formats, const char *path, error *err) {
    json_t *j =
        wan_json_parse(formats, strlen(formats), 8, path, "its _quantization_metadata", err);
    if (!j)
        return WAN_E_FORMAT;
    wan_status s = WAN_OK;
    const char *layer;
    json_t *note;
    json_object_foreach(json_object_get(j, "layers"), layer, note) {
        if (s == WAN_OK)
            s = check_format(note, path, layer, err);
    }
    json_decref(j);
    return s;
}

/* Scales of scales belong to formats of 4 bits, which are not read. */
static wan_status refuse_two_levels(const join *j, const stored *w, error *err) {
    static const char *const suffix[] = {"weight_scale_2", "weight_global_scale"};
    for (size_t i = 0; i < sizeof suffix / sizeof *suffix; i++) {
        const stored *s = beside(j, w, suffix[i]);
        if (s)
            return wan_fail(err, WAN_E_TYPE, "%s: %s belongs to nvfp4 weights, which are not read",
                            s->file, s->source);
    }
    return WAN_OK;
}

/* ------------------------------------------------------------------------------------------------
 * scales of rows */

/* One for all, or one for each row, with an axis of length 1 or without. */
static bool scales_rows(tensor scale, tensor weight) {
    if (wan_elements(scale) == 1)
        return true;
    return weight.rank > 0 && wan_elements(scale) == weight.dim[0] &&
           (scale.rank == 1 || scale.rank == 2) && scale.dim[0] == weight.dim[0];
}

static wan_status join_rows(const join *j, stored *w, error *err) {
    static const char *const aside[] = {"scale_input", "input_scale"}; /* for activations */
    stored *scale = beside(j, w, "weight_scale"), *old = beside(j, w, "scale_weight");
    stored *note = beside(j, w, "comfy_quant");
    for (size_t i = 0; i < sizeof aside / sizeof *aside; i++) {
        stored *s = beside(j, w, aside[i]);
        if (s)
            s->companion = true;
    }
    if (note) {
        note->companion = true;
        if (check_note(note, err) != WAN_OK)
            return err->code;
    }
    if (scale && old)
        return wan_fail(err, WAN_E_FORMAT, "%s: %s has two scales, %s and %s", w->file, w->source,
                        scale->source, old->source);
    scale = scale ? scale : old;
    if (!scale)
        return WAN_OK;
    char have[128], need[128];
    if (!is_float(scale->t.type))
        return wan_fail(err, WAN_E_TYPE, "%s: %s is %s; scales are F32, F16, BF16 or F64",
                        scale->file, scale->source, wan_dtype(scale->t.type)->name);
    if (!scales_rows(scale->t, w->t))
        return wan_fail(err, WAN_E_SHAPE,
                        "%s: %s is %s: neither one scale nor one for each row of %s, %s",
                        scale->file, scale->source, wan_shape_text(scale->t, have, sizeof have),
                        w->source, wan_shape_text(w->t, need, sizeof need));
    scale->companion = true;
    w->scale = scale;
    return WAN_OK;
}

/* ------------------------------------------------------------------------------------------------
 * MLX */

/* Bits of a code from how many words and groups a row has: group * bits is known, and the package
 * says the bits or has groups of 64. */
static int code_bits(int64_t product, const char *level) {
    int bits = level ? (int)strtol(level, NULL, 10) : 0;
    if (bits == 4 || bits == 8) {
        int64_t group = product / bits;
        if (product % bits == 0 && (group == 32 || group == 64 || group == 128))
            return bits;
    }
    return product == 8 * 64 ? 8 : product == 4 * 64 ? 4 : 0;
}

static wan_status join_groups(const join *j, stored *w, error *err) {
    stored *scale = beside(j, w, "scales"), *offset = beside(j, w, "biases");
    char a[128], b[128];
    if (!scale && !offset)
        return WAN_OK;
    if (!scale || !offset || w->t.type != WAN_U32 || w->t.rank != 2)
        return wan_fail(err, WAN_E_FORMAT, "%s: %s is half of an MLX weight: %s", w->file,
                        w->source,
                        !scale    ? "it has no scales"
                        : !offset ? "it has no biases"
                                  : "its codes are not a U32 matrix");
    int64_t rows = w->t.dim[0], words = w->t.dim[1];
    if (rows < 1 || words < 1 || words > INT32_MAX)
        return wan_fail(err, WAN_E_SHAPE, "%s: %s is %s, not a matrix of codes", w->file, w->source,
                        wan_shape_text(w->t, a, sizeof a));
    if (!is_float(scale->t.type) || scale->t.type != offset->t.type)
        return wan_fail(err, WAN_E_TYPE, "%s: %s and %s are %s and %s, not one float type", w->file,
                        scale->source, offset->source, wan_dtype(scale->t.type)->name,
                        wan_dtype(offset->t.type)->name);
    if (!wan_same_shape(scale->t, offset->t) || scale->t.rank != 2 || scale->t.dim[0] != rows ||
        scale->t.dim[1] < 1)
        return wan_fail(err, WAN_E_SHAPE, "%s: %s is %s and its biases %s, for %lld rows", w->file,
                        scale->source, wan_shape_text(scale->t, a, sizeof a),
                        wan_shape_text(offset->t, b, sizeof b), (long long)rows);
    int64_t groups = scale->t.dim[1];
    int bits = 32 * words % groups ? 0 : code_bits(32 * words / groups, j->level);
    if (!bits)
        return wan_fail(err, WAN_E_TYPE,
                        "%s: %s has %lld words and %lld groups in a row; codes of 8 and 4 bits in "
                        "groups of 32, 64 or 128 are read",
                        w->file, w->source, (long long)words, (long long)groups);
    int64_t columns = 32 * words / bits;
    w->t = wan_tensor(bits == 8 ? WAN_MLX_8 : WAN_MLX_4, 2, (int64_t[]){rows, columns}, w->t.data);
    w->scale = scale;
    w->offset = offset;
    scale->companion = offset->companion = true;
    return WAN_OK;
}

/* ---------------------------------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

wan_status wan_codes_join(stored *items, size_t count, const lookup *names, const char *level,
                          const char *formats, const char *path, error *err) {
    error local = {0};
    join j = {items, names, level};
    if (formats)
        check_metadata(formats, path, &local);
    for (size_t i = 0; i < count && local.code == WAN_OK; i++) {
        stored *w = &items[i];
        if (!strcmp(w->name, "scaled_fp8"))
            w->companion = true;
        if (!ends_with(w->name, ".weight"))
            continue;
        if (refuse_two_levels(&j, w, &local) == WAN_OK && join_rows(&j, w, &local) == WAN_OK)
            join_groups(&j, w, &local);
    }
    return local.code ? wan_fail(err, local.code, "%s", local.message) : WAN_OK;
}

/* ------------------------------------------------------------------------------------------------
 * reading */

static float number_at(const stored *s, int64_t i) {
    float v;
    const char *src = (const char *)s->t.data + i * wan_dtype(s->t.type)->bytes;
    wan_dequantise(s->t.type, &v, src, 1);
    return v;
}

/* In memory a channel lies behind the kernel's taps. */
static void read_channels_last(const stored *s, float *dst, int64_t from, int64_t n) {
    int64_t row = wan_elements(s->t) / s->t.dim[0], in = s->t.dim[1], taps = row / in;
    for (int64_t i = from; i < from + n; i++) {
        int64_t at = i % row, channel = at / taps, tap = at % taps;
        *dst++ = number_at(s, i - at + tap * in + channel);
    }
}

void wan_stored_read(const stored *s, float *dst, int64_t from, int64_t n) {
    const dtype_info *d = wan_dtype(s->t.type);
    assert(from % d->block == 0 && from + n <= wan_elements(s->t));
    if (n == 0)
        return;
    if (s->channels_last)
        read_channels_last(s, dst, from, n);
    else
        wan_dequantise(s->t.type, dst, (const char *)s->t.data + from / d->block * d->bytes, n);
    if (!s->scale)
        return;
    int64_t scales = wan_elements(s->scale->t), size = wan_elements(s->t) / scales, run;
    for (int64_t i = 0; i < n; i += run) {
        int64_t at = (from + i) / size;
        float scale = number_at(s->scale, at), plus = s->offset ? number_at(s->offset, at) : 0;
        run = size - (from + i) % size;
        run = run < n - i ? run : n - i;
        for (int64_t e = i; e < i + run; e++)
            dst[e] = s->offset ? dst[e] * scale + plus : dst[e] * scale;
    }
}
