/* SPDX-License-Identifier: Apache-2.0 */
#include "io/gguf.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "io/gguf_value.h"
#include "io/lookup.h"
#include "io/mapfile.h"
#include "io/shape.h"
#include "io/utf8.h"

/* Fewest bytes that a record can take; they bound every count before anything is allocated. */
#define KV_BYTES 13u
#define TENSOR_BYTES 25u
#define KV_LIMIT 65536u
#define TENSOR_LIMIT 1048576u
#define KEY_LIMIT 65535u
#define NAME_LIMIT 127u
#define DIMS_LIMIT 8u
#define ALIGNMENT_LIMIT 65536u

struct gguf {
    mapfile map; /* empty when the bytes are the caller's */
    const uint8_t *bytes;
    uint64_t size, at; /* at: next byte to read while opening */
    char *path;
    gguf_value *meta;
    size_t meta_count;
    named_tensor *tensor;
    uint64_t *offset; /* of each tensor, from the data section */
    size_t count;
    uint64_t alignment;
    lookup keys, names;
};

static wan_status truncated(const gguf *g, const char *what, uint64_t need, error *err) {
    return wan_fail(err, WAN_E_FORMAT,
                    "%s: %s at byte %llu needs %llu bytes, %llu are left: truncated?", g->path,
                    what, (unsigned long long)g->at, (unsigned long long)need,
                    (unsigned long long)(g->size - g->at));
}

static wan_status read_number(gguf *g, int bytes, const char *what, uint64_t *out, error *err) {
    if (g->size - g->at < (uint64_t)bytes)
        return truncated(g, what, (uint64_t)bytes, err);
    *out = wan_gguf_little(g->bytes + g->at, bytes);
    g->at += (uint64_t)bytes;
    return WAN_OK;
}

static wan_status skip_string(gguf *g, const char *what, error *err) {
    uint64_t n = 0;
    wan_status s = read_number(g, 8, what, &n, err);
    if (s != WAN_OK)
        return s;
    if (n > g->size - g->at)
        return truncated(g, what, n, err);
    g->at += n;
    return WAN_OK;
}

/* A name of ours to keep: text, 1 to `limit` bytes.  The caller frees it. */
static wan_status read_name(gguf *g, const char *what, uint64_t limit, char **out, error *err) {
    uint64_t n = 0, begin = g->at;
    wan_status s = read_number(g, 8, what, &n, err);
    if (s != WAN_OK)
        return s;
    if (n == 0 || n > limit)
        return wan_fail(
            err, WAN_E_FORMAT, "%s: %s at byte %llu has %llu bytes, 1 to %llu are allowed", g->path,
            what, (unsigned long long)begin, (unsigned long long)n, (unsigned long long)limit);
    if (n > g->size - g->at)
        return truncated(g, what, n, err);
    const char *text = (const char *)g->bytes + g->at;
    if (!wan_utf8_plain(text, (size_t)n))
        return wan_fail(err, WAN_E_FORMAT, "%s: %s at byte %llu is not text", g->path, what,
                        (unsigned long long)begin);
    *out = strndup(text, (size_t)n);
    if (!*out)
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory for its names", g->path);
    g->at += n;
    return WAN_OK;
}

/* Proves that `count` elements of v->type lie in the file from here, and steps over them. */
static wan_status skip_elements(gguf *g, const gguf_value *v, error *err) {
    int each = wan_gguf_type_size(v->type);
    uint64_t least = each ? (uint64_t)each : 8;
    if (v->count > (g->size - g->at) / least)
        return wan_fail(
            err, WAN_E_FORMAT, "%s: %s has %llu elements, %llu bytes are left: truncated?", g->path,
            v->key, (unsigned long long)v->count, (unsigned long long)(g->size - g->at));
    for (uint64_t i = 0; i < v->count && v->type == GGUF_STRING; i++) {
        wan_status s = skip_string(g, v->key, err);
        if (s != WAN_OK)
            return s;
    }
    for (uint64_t i = 0; i < v->count && v->type == GGUF_BOOL; i++)
        if (v->at[i] > 1)
            return wan_fail(err, WAN_E_FORMAT, "%s: %s is a bool of %d, only 0 and 1 are", g->path,
                            v->key, v->at[i]);
    if (each)
        g->at += v->count * (uint64_t)each;
    return WAN_OK;
}

static wan_status read_type(gguf *g, const char *key, gguf_type *type, error *err) {
    uint64_t t = 0;
    wan_status s = read_number(g, 4, key, &t, err);
    if (s != WAN_OK)
        return s;
    if (t >= GGUF_TYPES)
        return wan_fail(err, WAN_E_FORMAT, "%s: %s is of the unknown type %llu", g->path, key,
                        (unsigned long long)t);
    *type = (gguf_type)t;
    return WAN_OK;
}

static wan_status read_value(gguf *g, gguf_value *v, error *err) {
    wan_status s = read_type(g, v->key, &v->type, err);
    v->count = 1;
    v->array = s == WAN_OK && v->type == GGUF_ARRAY;
    if (v->array) {
        s = read_type(g, v->key, &v->type, err);
        if (s == WAN_OK && v->type == GGUF_ARRAY)
            s = wan_fail(err, WAN_E_FORMAT, "%s: %s is an array of arrays, which GGUF has not",
                         g->path, v->key);
        if (s == WAN_OK)
            s = read_number(g, 8, v->key, &v->count, err);
    }
    v->at = g->bytes + g->at;
    return s == WAN_OK ? skip_elements(g, v, err) : s;
}

static wan_status read_meta(gguf *g, uint64_t count, error *err) {
    if (count > KV_LIMIT || count > (g->size - g->at) / KV_BYTES)
        return wan_fail(
            err, WAN_E_FORMAT,
            "%s: claims %llu metadata entries; %llu bytes follow and at most %u are read", g->path,
            (unsigned long long)count, (unsigned long long)(g->size - g->at), KV_LIMIT);
    g->meta = calloc((size_t)count + 1, sizeof *g->meta);
    if (!g->meta)
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory for its metadata", g->path);
    for (uint64_t i = 0; i < count; i++) {
        gguf_value *v = &g->meta[i];
        char *key = NULL;
        wan_status s = read_name(g, "a metadata key", KEY_LIMIT, &key, err);
        v->key = key;
        g->meta_count += key != NULL;
        if (s == WAN_OK)
            s = wan_lookup_add(&g->keys, key, (size_t)i, err);
        if (s == WAN_OK)
            s = read_value(g, v, err);
        if (s != WAN_OK)
            return s;
    }
    const char *twice = wan_lookup_sort(&g->keys);
    if (twice)
        return wan_fail(err, WAN_E_FORMAT, "%s: metadata %s occurs twice", g->path, twice);
    return WAN_OK;
}

static wan_status read_alignment(gguf *g, error *err) {
    const gguf_value *v = wan_gguf_meta(g, "general.alignment");
    g->alignment = 32;
    if (!v)
        return WAN_OK;
    int64_t a = 0;
    if (v->array || v->type != GGUF_U32)
        return wan_fail(err, WAN_E_FORMAT, "%s: general.alignment is %s%s, must be u32", g->path,
                        v->array ? "an array of " : "", wan_gguf_type_name(v->type));
    if (!wan_gguf_integer(v, 0, &a) || a < 1 || a > (int64_t)ALIGNMENT_LIMIT || (a & (a - 1)))
        return wan_fail(err, WAN_E_FORMAT,
                        "%s: general.alignment is %lld, must be a power of two up to %u", g->path,
                        (long long)wan_gguf_little(v->at, 4), ALIGNMENT_LIMIT);
    g->alignment = (uint64_t)a;
    return WAN_OK;
}

static bool find_dtype(uint64_t id, dtype *type) {
    /* Absent numbers were taken back by ggml or are unknown; WAN_F32 is 0, hence the one more. */
    static const unsigned char of[] = {
        [0] = WAN_F32 + 1,     [1] = WAN_F16 + 1,      [2] = WAN_Q4_0 + 1,
        [3] = WAN_Q4_1 + 1,    [6] = WAN_Q5_0 + 1,     [7] = WAN_Q5_1 + 1,
        [8] = WAN_Q8_0 + 1,    [9] = WAN_Q8_1 + 1,     [10] = WAN_Q2_K + 1,
        [11] = WAN_Q3_K + 1,   [12] = WAN_Q4_K + 1,    [13] = WAN_Q5_K + 1,
        [14] = WAN_Q6_K + 1,   [15] = WAN_Q8_K + 1,    [16] = WAN_IQ2_XXS + 1,
        [17] = WAN_IQ2_XS + 1, [18] = WAN_IQ3_XXS + 1, [19] = WAN_IQ1_S + 1,
        [20] = WAN_IQ4_NL + 1, [21] = WAN_IQ3_S + 1,   [22] = WAN_IQ2_S + 1,
        [23] = WAN_IQ4_XS + 1, [24] = WAN_I8 + 1,      [25] = WAN_I16 + 1,
        [26] = WAN_I32 + 1,    [27] = WAN_I64 + 1,     [28] = WAN_F64 + 1,
        [29] = WAN_IQ1_M + 1,  [30] = WAN_BF16 + 1,    [34] = WAN_TQ1_0 + 1,
        [35] = WAN_TQ2_0 + 1,  [39] = WAN_MXFP4 + 1,   [40] = WAN_NVFP4 + 1,
        [41] = WAN_Q1_0 + 1,
    };
    if (id >= sizeof of || !of[id])
        return false;
    *type = (dtype)(of[id] - 1);
    return true;
}

/* The file lists the fastest axis first; ours is the other way round. */
static wan_status read_dims(gguf *g, const char *name, raw_shape *shape, error *err) {
    uint64_t rank = 0;
    wan_status s = read_number(g, 4, name, &rank, err);
    if (s != WAN_OK)
        return s;
    if (rank > DIMS_LIMIT)
        return wan_fail(err, WAN_E_FORMAT, "%s: %s has %llu axes, at most %u are read", g->path,
                        name, (unsigned long long)rank, DIMS_LIMIT);
    *shape = (raw_shape){.rank = (int)rank};
    for (int i = 0; i < shape->rank; i++) {
        uint64_t d = 0;
        s = read_number(g, 8, name, &d, err);
        if (s != WAN_OK)
            return s;
        if (d < 1 || d > INT64_MAX)
            return wan_fail(err, WAN_E_FORMAT, "%s: axis %d of %s has the length %llu", g->path, i,
                            name, (unsigned long long)d);
        shape->dim[shape->rank - 1 - i] = (int64_t)d;
    }
    return WAN_OK;
}

/* comfy.gguf.orig_shape.NAME: the shape before a converter folded it for the sake of blocks. */
static wan_status original_shape(const gguf *g, const char *name, raw_shape *shape, error *err) {
    char key[sizeof "comfy.gguf.orig_shape." + NAME_LIMIT];
    strcat(strcpy(key, "comfy.gguf.orig_shape."), name);
    const gguf_value *v = wan_gguf_meta(g, key);
    if (!v)
        return WAN_OK;
    raw_shape was = {.rank = (int)(v->count < WAN_RAW_RANK ? v->count : WAN_RAW_RANK)};
    int64_t n = 1, have = 1;
    bool good = v->array && v->count >= 1 && v->count <= DIMS_LIMIT;
    for (int i = 0; i < was.rank && good; i++)
        good = wan_gguf_integer(v, (uint64_t)i, &was.dim[i]) && was.dim[i] >= 1 &&
               !__builtin_mul_overflow(n, was.dim[i], &n);
    for (int i = 0; i < shape->rank && good; i++)
        good = !__builtin_mul_overflow(have, shape->dim[i], &have);
    if (!good || n != have)
        return wan_fail(err, WAN_E_FORMAT,
                        "%s: %s does not fit the tensor: %lld elements, stored are %lld", g->path,
                        key, (long long)n, (long long)have);
    *shape = was;
    return WAN_OK;
}

static wan_status read_tensor(gguf *g, named_tensor *out, uint64_t *offset, error *err) {
    char *name = NULL;
    wan_status s = read_name(g, "a tensor name", NAME_LIMIT, &name, err);
    out->name = name;
    raw_shape shape;
    uint64_t id = 0, bytes = 0;
    dtype type = WAN_F32;
    if (s == WAN_OK)
        s = read_dims(g, name, &shape, err);
    if (s == WAN_OK)
        s = read_number(g, 4, name, &id, err);
    if (s == WAN_OK)
        s = read_number(g, 8, name, offset, err);
    if (s != WAN_OK)
        return s;
    if (!find_dtype(id, &type))
        return wan_fail(err, WAN_E_TYPE, "%s: %s is of the unknown type %llu", g->path, name,
                        (unsigned long long)id);
    s = original_shape(g, name, &shape, err);
    if (s == WAN_OK)
        s = wan_shape_bytes(&shape, type, g->path, name, &bytes, err);
    if (s == WAN_OK)
        s = wan_shape_fold(&shape, g->path, name, err);
    int64_t row = s == WAN_OK && shape.rank ? shape.dim[shape.rank - 1] : 1;
    if (s == WAN_OK && row % wan_dtype(type)->block)
        s = wan_fail(err, WAN_E_FORMAT, "%s: %s has rows of %lld, %s stores %d at a time", g->path,
                     name, (long long)row, wan_dtype(type)->name, wan_dtype(type)->block);
    if (s == WAN_OK)
        out->t = wan_tensor(type, shape.rank, shape.dim, NULL);
    return s;
}

static wan_status read_tensors(gguf *g, uint64_t count, error *err) {
    if (count > TENSOR_LIMIT || count > (g->size - g->at) / TENSOR_BYTES)
        return wan_fail(err, WAN_E_FORMAT,
                        "%s: claims %llu tensors; %llu bytes follow and at most %u are read",
                        g->path, (unsigned long long)count, (unsigned long long)(g->size - g->at),
                        TENSOR_LIMIT);
    g->tensor = calloc((size_t)count + 1, sizeof *g->tensor);
    g->offset = calloc((size_t)count + 1, sizeof *g->offset);
    if (!g->tensor || !g->offset)
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory for its %llu tensors", g->path,
                        (unsigned long long)count);
    for (uint64_t i = 0; i < count; i++) {
        g->count = (size_t)i + 1; /* so that close frees a name already read */
        wan_status s = read_tensor(g, &g->tensor[i], &g->offset[i], err);
        if (s == WAN_OK)
            s = wan_lookup_add(&g->names, g->tensor[i].name, (size_t)i, err);
        if (s != WAN_OK)
            return s;
    }
    const char *twice = wan_lookup_sort(&g->names);
    if (twice)
        return wan_fail(err, WAN_E_FORMAT, "%s: tensor %s occurs twice", g->path, twice);
    return WAN_OK;
}

/* Every range inside the file, aligned; addresses are given out only after that. */
static wan_status place_tensors(gguf *g, error *err) {
    uint64_t start = (g->at + g->alignment - 1) / g->alignment * g->alignment;
    uint64_t room = start < g->size ? g->size - start : 0;
    for (size_t i = 0; i < g->count; i++) {
        named_tensor *n = &g->tensor[i];
        uint64_t from = g->offset[i], bytes = wan_bytes(n->t);
        if (from % g->alignment)
            return wan_fail(err, WAN_E_FORMAT, "%s: %s begins at byte %llu, not a multiple of %llu",
                            g->path, n->name, (unsigned long long)from,
                            (unsigned long long)g->alignment);
        if (bytes > room || from > room - bytes)
            return wan_fail(err, WAN_E_FORMAT,
                            "%s: %s has %llu bytes from byte %llu of the data, the file has %llu: "
                            "truncated?",
                            g->path, n->name, (unsigned long long)bytes, (unsigned long long)from,
                            (unsigned long long)room);
        n->t.data = (void *)(uintptr_t)(g->bytes + start + from);
    }
    return WAN_OK;
}

static int by_address(const void *a, const void *b) {
    const named_tensor *x = *(const named_tensor *const *)a, *y = *(const named_tensor *const *)b;
    uintptr_t p = (uintptr_t)x->t.data, q = (uintptr_t)y->t.data;
    return (p > q) - (p < q);
}

static wan_status check_overlap(const gguf *g, error *err) {
    const named_tensor **order = calloc(g->count + 1, sizeof *order);
    if (!order)
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory for its tensors", g->path);
    for (size_t i = 0; i < g->count; i++)
        order[i] = &g->tensor[i];
    if (g->count > 1)
        qsort(order, g->count, sizeof *order, by_address);
    wan_status s = WAN_OK;
    for (size_t i = 1; i < g->count && s == WAN_OK; i++)
        if ((const char *)order[i - 1]->t.data + wan_bytes(order[i - 1]->t) >
            (const char *)order[i]->t.data)
            s = wan_fail(err, WAN_E_FORMAT, "%s: %s and %s lie on the same bytes", g->path,
                         order[i - 1]->name, order[i]->name);
    free(order);
    return s;
}

static wan_status read_all(gguf *g, error *err) {
    uint64_t version = 0, tensors = 0, metas = 0;
    if (g->size < 4 || memcmp(g->bytes, "GGUF", 4))
        return wan_fail(err, WAN_E_FORMAT, "%s: is not a GGUF file", g->path);
    g->at = 4;
    wan_status s = read_number(g, 4, "the version", &version, err);
    if (s != WAN_OK)
        return s;
    if ((version & 0xffff) == 0)
        return wan_fail(err, WAN_E_FORMAT,
                        "%s: is a big-endian GGUF file, only little-endian is read", g->path);
    if (version != 2 && version != 3)
        return wan_fail(err, WAN_E_FORMAT, "%s: is GGUF version %llu, only 2 and 3 are read",
                        g->path, (unsigned long long)version);
    s = read_number(g, 8, "the number of tensors", &tensors, err);
    if (s == WAN_OK)
        s = read_number(g, 8, "the number of metadata entries", &metas, err);
    if (s == WAN_OK)
        s = read_meta(g, metas, err);
    if (s == WAN_OK)
        s = read_alignment(g, err);
    if (s == WAN_OK)
        s = read_tensors(g, tensors, err);
    if (s == WAN_OK)
        s = place_tensors(g, err);
    return s == WAN_OK ? check_overlap(g, err) : s;
}

gguf *wan_gguf_open_bytes(const void *bytes, size_t size, const char *name, error *err) {
    gguf *g = calloc(1, sizeof *g);
    if (!g || !(g->path = strdup(name))) {
        free(g);
        wan_fail(err, WAN_E_MEMORY, "%s: no memory to open it", name);
        return NULL;
    }
    g->bytes = bytes;
    g->size = size;
    if (read_all(g, err) == WAN_OK)
        return g;
    wan_gguf_close(g);
    return NULL;
}

gguf *wan_gguf_open(const char *path, error *err) {
    mapfile map;
    if (wan_map_open(&map, path, err) != WAN_OK)
        return NULL;
    gguf *g = wan_gguf_open_bytes(map.data, map.size, path, err);
    if (g)
        g->map = map;
    else
        wan_map_close(&map);
    return g;
}

void wan_gguf_close(gguf *g) {
    if (!g)
        return;
    for (size_t i = 0; i < g->meta_count; i++)
        free((char *)(uintptr_t)g->meta[i].key);
    for (size_t i = 0; i < g->count; i++)
        free((char *)(uintptr_t)g->tensor[i].name);
    wan_lookup_free(&g->keys);
    wan_lookup_free(&g->names);
    free(g->meta);
    free(g->tensor);
    free(g->offset);
    free(g->path);
    wan_map_close(&g->map);
    free(g);
}

size_t wan_gguf_count(const gguf *g) {
    return g->count;
}

const named_tensor *wan_gguf_at(const gguf *g, size_t i) {
    return i < g->count ? &g->tensor[i] : NULL;
}

const named_tensor *wan_gguf_find(const gguf *g, const char *name) {
    size_t i = wan_lookup_find(&g->names, name);
    return i == WAN_NOT_FOUND ? NULL : &g->tensor[i];
}

size_t wan_gguf_meta_count(const gguf *g) {
    return g->meta_count;
}

const gguf_value *wan_gguf_meta_at(const gguf *g, size_t i) {
    return i < g->meta_count ? &g->meta[i] : NULL;
}

const gguf_value *wan_gguf_meta(const gguf *g, const char *key) {
    size_t i = wan_lookup_find(&g->keys, key);
    return i == WAN_NOT_FOUND ? NULL : &g->meta[i];
}

void wan_gguf_drop_pages(const gguf *g) {
    wan_map_drop(&g->map);
}
