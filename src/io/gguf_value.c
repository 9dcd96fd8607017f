/* SPDX-License-Identifier: Apache-2.0 */
#include "io/gguf_value.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    int size; /* 0: not of one size */
} kinds[GGUF_TYPES] = {
    [GGUF_U8] = {"u8", 1},       [GGUF_I8] = {"i8", 1},     [GGUF_U16] = {"u16", 2},
    [GGUF_I16] = {"i16", 2},     [GGUF_U32] = {"u32", 4},   [GGUF_I32] = {"i32", 4},
    [GGUF_F32] = {"f32", 4},     [GGUF_BOOL] = {"bool", 1}, [GGUF_STRING] = {"string", 0},
    [GGUF_ARRAY] = {"array", 0}, [GGUF_U64] = {"u64", 8},   [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};

const char *wan_gguf_type_name(gguf_type t) {
    return t < GGUF_TYPES ? kinds[t].name : "unknown";
}

int wan_gguf_type_size(gguf_type t) {
    return kinds[t].size;
}

uint64_t wan_gguf_little(const uint8_t *p, int bytes) {
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static float as_f32(uint64_t bits) {
    uint32_t b = (uint32_t)bits;
    float f;
    memcpy(&f, &b, sizeof f);
    return f;
}

static double as_f64(uint64_t bits) {
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

static bool is_signed(gguf_type t) {
    return t == GGUF_I8 || t == GGUF_I16 || t == GGUF_I32 || t == GGUF_I64;
}

/* The bits of element i, sign extended where the type has a sign. */
static bool element(const gguf_value *v, uint64_t i, uint64_t *bits) {
    int n = wan_gguf_type_size(v->type);
    if (n == 0 || i >= v->count)
        return false;
    *bits = wan_gguf_little(v->at + i * (uint64_t)n, n);
    if (is_signed(v->type) && n < 8 && *bits >> (8 * n - 1))
        *bits |= UINT64_MAX << (8 * n);
    return true;
}

bool wan_gguf_number(const gguf_value *v, uint64_t i, double *out) {
    uint64_t bits;
    if (!element(v, i, &bits))
        return false;
    if (v->type == GGUF_F32)
        *out = (double)as_f32(bits);
    else if (v->type == GGUF_F64)
        *out = as_f64(bits);
    else
        *out = is_signed(v->type) ? (double)(int64_t)bits : (double)bits;
    return true;
}

bool wan_gguf_integer(const gguf_value *v, uint64_t i, int64_t *out) {
    uint64_t bits;
    if (!element(v, i, &bits))
        return false;
    if (v->type == GGUF_F32 || v->type == GGUF_F64) {
        double d = v->type == GGUF_F32 ? (double)as_f32(bits) : as_f64(bits);
        if (!(fabs(d) < 9007199254740992.0) || d != floor(d))
            return false;
        *out = (int64_t)d;
        return true;
    }
    if (!is_signed(v->type) && bits > INT64_MAX)
        return false;
    *out = (int64_t)bits;
    return true;
}

const char *wan_gguf_next_string(const uint8_t **at, size_t *length) {
    const uint8_t *p = *at;
    *length = (size_t)wan_gguf_little(p, 8);
    *at = p + 8 + *length;
    return (const char *)p + 8;
}
