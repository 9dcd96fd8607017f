/* SPDX-License-Identifier: Apache-2.0 */
#include "io/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "io/json_file.h"
#include "io/lookup.h"
#include "io/mapfile.h"
#include "io/shape.h"
#include "io/utf8.h"

/* The reference allows 100 MB, which parsed would take gigabytes; real headers are below a
 * megabyte. */
#define HEADER_LIMIT (32u << 20)
#define HEADER_DEPTH 8

struct safetensors {
    mapfile map;         /* empty when the bytes are the caller's */
    const uint8_t *data; /* first byte after the header */
    uint64_t size;       /* bytes from there */
    char *path;
    json_t *root; /* names point into it */
    const char **meta_key;
    size_t meta_count;
    named_tensor *tensor; /* by position in the file */
    size_t count;
    lookup names;
};

static uint64_t read_u64(const uint8_t *p) {
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static bool find_dtype(const char *name, dtype *type) {
    static const dtype known[] = {
        WAN_F32,         WAN_F16,     WAN_BF16,    WAN_F64,  WAN_I8,      WAN_U8,
        WAN_I16,         WAN_I32,     WAN_I64,     WAN_BOOL, WAN_F8_E4M3, WAN_F8_E5M2,
        WAN_U16,         WAN_U32,     WAN_U64,     WAN_C64,  WAN_F8_E8M0, WAN_F8_E4M3FNUZ,
        WAN_F8_E5M2FNUZ, WAN_F6_E2M3, WAN_F6_E3M2, WAN_F4,
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!strcmp(wan_dtype(known[i])->name, name)) {
            *type = known[i];
            return true;
        }
    return false;
}

static wan_status read_shape(const safetensors *s, const char *name, const json_t *shape,
                             raw_shape *out, error *err) {
    if (!json_is_array(shape))
        return wan_fail(err, WAN_E_FORMAT, "%s: %s has no shape", s->path, name);
    size_t rank = json_array_size(shape);
    if (rank > WAN_RAW_RANK)
        return wan_fail(err, WAN_E_FORMAT, "%s: %s has %zu axes, at most %d are read", s->path,
                        name, rank, WAN_RAW_RANK);
    *out = (raw_shape){.rank = (int)rank};
    for (size_t i = 0; i < rank; i++) {
        const json_t *d = json_array_get(shape, i);
        if (!json_is_integer(d) || json_integer_value(d) < 0)
            return wan_fail(err, WAN_E_FORMAT, "%s: axis %zu of %s is not a count", s->path, i,
                            name);
        out->dim[i] = json_integer_value(d);
    }
    return WAN_OK;
}

/* The tensor's bytes: inside the data, as many as type and shape say. */
static wan_status place(const safetensors *s, const char *name, const json_t *offsets,
                        uint64_t need, void **data, error *err) {
    const json_t *b = json_array_get(offsets, 0), *e = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(b) || !json_is_integer(e))
        return wan_fail(err, WAN_E_FORMAT, "%s: %s has no pair of data_offsets", s->path, name);
    long long from = json_integer_value(b), to = json_integer_value(e);
    if (from < 0 || to < from)
        return wan_fail(err, WAN_E_FORMAT, "%s: %s lies at bytes %lld to %lld, which is no range",
                        s->path, name, from, to);
    if ((uint64_t)to > s->size)
        return wan_fail(err, WAN_E_FORMAT,
                        "%s: %s ends at byte %lld of the data, but the file has only %llu: "
                        "truncated?",
                        s->path, name, to, (unsigned long long)s->size);
    if ((uint64_t)(to - from) != need)
        return wan_fail(err, WAN_E_FORMAT,
                        "%s: %s has %lld bytes in the file, its type and shape need %llu", s->path,
                        name, to - from, (unsigned long long)need);
    *data = (void *)(uintptr_t)(s->data + from);
    return WAN_OK;
}

static wan_status read_tensor(const safetensors *s, const char *name, const json_t *o,
                              named_tensor *out, error *err) {
    if (!*name || !wan_utf8_plain(name, strlen(name)))
        return wan_fail(err, WAN_E_FORMAT, "%s: a tensor's name is %s", s->path,
                        *name ? "not text" : "empty");
    if (!json_is_object(o))
        return wan_fail(err, WAN_E_FORMAT, "%s: %s is not described by an object", s->path, name);
    const char *type_name = json_string_value(json_object_get(o, "dtype"));
    dtype type = WAN_F32;
    if (!type_name)
        return wan_fail(err, WAN_E_FORMAT, "%s: %s has no dtype", s->path, name);
    if (!find_dtype(type_name, &type))
        return wan_fail(err, WAN_E_TYPE, "%s: %s is of the unknown type %s", s->path, name,
                        type_name);
    raw_shape shape;
    uint64_t bytes = 0;
    void *data = NULL;
    wan_status st = read_shape(s, name, json_object_get(o, "shape"), &shape, err);
    if (st == WAN_OK)
        st = wan_shape_bytes(&shape, type, s->path, name, &bytes, err);
    if (st == WAN_OK)
        st = place(s, name, json_object_get(o, "data_offsets"), bytes, &data, err);
    if (st == WAN_OK)
        st = wan_shape_fold(&shape, s->path, name, err);
    if (st == WAN_OK)
        *out = (named_tensor){name, wan_tensor(type, shape.rank, shape.dim, data)};
    return st;
}

/* Where one ends the next begins; empty ones first, so that they do not look like overlaps. */
static int by_position(const void *a, const void *b) {
    const named_tensor *x = a, *y = b;
    uintptr_t p = (uintptr_t)x->t.data, q = (uintptr_t)y->t.data;
    if (p != q)
        return (p > q) - (p < q);
    size_t m = wan_bytes(x->t), n = wan_bytes(y->t);
    if (m != n)
        return (m > n) - (m < n);
    return strcmp(x->name, y->name);
}

static wan_status check_cover(const safetensors *s, error *err) {
    uint64_t at = 0;
    for (size_t i = 0; i < s->count; i++) {
        const named_tensor *n = &s->tensor[i];
        uint64_t from = (uint64_t)((const uint8_t *)n->t.data - s->data);
        if (from != at)
            return wan_fail(
                err, WAN_E_FORMAT,
                "%s: %s begins at byte %llu of the data, the one before it ends at %llu", s->path,
                n->name, (unsigned long long)from, (unsigned long long)at);
        at += wan_bytes(n->t);
    }
    if (at != s->size)
        return wan_fail(err, WAN_E_FORMAT,
                        "%s: the tensors end at byte %llu of the data, the file at %llu", s->path,
                        (unsigned long long)at, (unsigned long long)s->size);
    return WAN_OK;
}

static wan_status read_meta(safetensors *s, error *err) {
    json_t *meta = json_object_get(s->root, "__metadata__"), *value;
    if (!meta || json_is_null(meta))
        return WAN_OK;
    if (!json_is_object(meta))
        return wan_fail(err, WAN_E_FORMAT, "%s: __metadata__ is not an object", s->path);
    s->meta_key = calloc(json_object_size(meta) + 1, sizeof *s->meta_key);
    if (!s->meta_key)
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory for its metadata", s->path);
    const char *key;
    json_object_foreach(meta, key, value) {
        if (!json_is_string(value))
            return wan_fail(err, WAN_E_FORMAT, "%s: metadata %s is not a string", s->path, key);
        s->meta_key[s->meta_count++] = key;
    }
    return WAN_OK;
}

static wan_status read_tensors(safetensors *s, error *err) {
    s->tensor = calloc(json_object_size(s->root) + 1, sizeof *s->tensor);
    if (!s->tensor)
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory for its %zu tensors", s->path,
                        json_object_size(s->root));
    const char *name;
    json_t *o;
    json_object_foreach(s->root, name, o) {
        if (!strcmp(name, "__metadata__"))
            continue;
        wan_status st = read_tensor(s, name, o, &s->tensor[s->count], err);
        if (st != WAN_OK)
            return st;
        s->count++;
    }
    if (s->count > 1)
        qsort(s->tensor, s->count, sizeof *s->tensor, by_position);
    for (size_t i = 0; i < s->count; i++) {
        wan_status st = wan_lookup_add(&s->names, s->tensor[i].name, i, err);
        if (st != WAN_OK)
            return st;
    }
    wan_lookup_sort(&s->names); /* the JSON parser has refused duplicates */
    return check_cover(s, err);
}

static wan_status read_header(safetensors *s, const uint8_t *bytes, size_t size, error *err) {
    if (size < 8)
        return wan_fail(err, WAN_E_FORMAT,
                        "%s: has %zu bytes, a safetensors file begins with a length of 8", s->path,
                        size);
    uint64_t n = read_u64(bytes);
    if (n > HEADER_LIMIT)
        return wan_fail(err, WAN_E_FORMAT,
                        "%s: is not a safetensors file: its header would have %llu bytes, at most "
                        "%u are allowed",
                        s->path, (unsigned long long)n, HEADER_LIMIT);
    if (n > size - 8)
        return wan_fail(err, WAN_E_FORMAT,
                        "%s: its header has %llu bytes, but only %zu follow: truncated?", s->path,
                        (unsigned long long)n, size - 8);
    s->data = bytes + 8 + n;
    s->size = size - 8 - n;
    s->root = wan_json_parse((const char *)bytes + 8, (size_t)n, HEADER_DEPTH, s->path,
                             "its header", err);
    if (!s->root)
        return WAN_E_FORMAT;
    wan_status st = read_meta(s, err);
    return st == WAN_OK ? read_tensors(s, err) : st;
}

safetensors *wan_safetensors_open_bytes(const void *bytes, size_t size, const char *name,
                                        error *err) {
    safetensors *s = calloc(1, sizeof *s);
    if (!s || !(s->path = strdup(name))) {
        free(s);
        wan_fail(err, WAN_E_MEMORY, "%s: no memory to open it", name);
        return NULL;
    }
    if (read_header(s, bytes, size, err) == WAN_OK)
        return s;
    wan_safetensors_close(s);
    return NULL;
}

safetensors *wan_safetensors_open(const char *path, error *err) {
    mapfile map;
    if (wan_map_open(&map, path, err) != WAN_OK)
        return NULL;
    safetensors *s = wan_safetensors_open_bytes(map.data, map.size, path, err);
    if (s)
        s->map = map;
    else
        wan_map_close(&map);
    return s;
}

void wan_safetensors_close(safetensors *s) {
    if (!s)
        return;
    wan_lookup_free(&s->names);
    free(s->tensor);
    free(s->meta_key);
    json_decref(s->root);
    free(s->path);
    wan_map_close(&s->map);
    free(s);
}

size_t wan_safetensors_count(const safetensors *s) {
    return s->count;
}

const named_tensor *wan_safetensors_at(const safetensors *s, size_t i) {
    return i < s->count ? &s->tensor[i] : NULL;
}

const named_tensor *wan_safetensors_find(const safetensors *s, const char *name) {
    size_t i = wan_lookup_find(&s->names, name);
    return i == WAN_NOT_FOUND ? NULL : &s->tensor[i];
}

const char *wan_safetensors_meta(const safetensors *s, const char *key) {
    return json_string_value(json_object_get(json_object_get(s->root, "__metadata__"), key));
}

size_t wan_safetensors_meta_count(const safetensors *s) {
    return s->meta_count;
}

const char *wan_safetensors_meta_key(const safetensors *s, size_t i) {
    return i < s->meta_count ? s->meta_key[i] : NULL;
}

void wan_safetensors_drop_pages(const safetensors *s) {
    wan_map_drop(&s->map);
}
