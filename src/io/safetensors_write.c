/* SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "io/safetensors.h"

static json_t *describe(const named_tensor *n, uint64_t *at) {
    json_t *shape = json_array();
    for (int i = 0; i < n->t.rank; i++)
        json_array_append_new(shape, json_integer(n->t.dim[i]));
    uint64_t from = *at;
    *at += wan_bytes(n->t);
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", wan_dtype(n->t.type)->name, "shape", shape,
                     "data_offsets", (json_int_t)from, (json_int_t)*at);
}

static json_t *describe_all(const named_tensor *tensors, size_t count, const char *const *meta) {
    json_t *root = json_object();
    if (meta && meta[0]) {
        json_t *m = json_object();
        for (; meta[0] && meta[1]; meta += 2)
            if (json_object_set_new(m, meta[0], json_string(meta[1])) != 0)
                goto failed;
        if (json_object_set_new(root, "__metadata__", m) != 0)
            goto failed;
    }
    uint64_t at = 0;
    for (size_t i = 0; i < count; i++)
        if (json_object_get(root, tensors[i].name) ||
            json_object_set_new(root, tensors[i].name, describe(&tensors[i], &at)) != 0)
            goto failed;
    return root;
failed:
    json_decref(root);
    return NULL;
}

/* Length, JSON, spaces up to a multiple of 8. */
static wan_status write_header(outfile *f, const char *text, error *err) {
    size_t n = strlen(text), padded = (n + 7) / 8 * 8;
    uint8_t length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)((uint64_t)padded >> (8 * i));
    wan_status s = wan_outfile_write(f, length, sizeof length, err);
    if (s == WAN_OK)
        s = wan_outfile_write(f, text, n, err);
    if (s == WAN_OK)
        s = wan_outfile_write(f, "       ", padded - n, err);
    return s;
}

outfile *wan_safetensors_begin(const char *path, const named_tensor *tensors, size_t count,
                               const char *const *meta, error *err) {
    for (size_t i = 0; i < count; i++)
        if (wan_dtype(tensors[i].t.type)->block != 1) {
            wan_fail(err, WAN_E_TYPE, "%s: safetensors cannot hold %s, which is %s", path,
                     tensors[i].name, wan_dtype(tensors[i].t.type)->name);
            return NULL;
        }
    json_t *root = describe_all(tensors, count, meta);
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    if (!text) {
        wan_fail(err, WAN_E_OUTPUT,
                 "%s: a tensor name or metadata is not UTF-8, or a name occurs twice", path);
        return NULL;
    }
    outfile *f = wan_outfile_open(path, err);
    if (f && write_header(f, text, err) != WAN_OK) {
        wan_outfile_abort(f);
        f = NULL;
    }
    free(text);
    return f;
}

wan_status wan_safetensors_write(const char *path, const named_tensor *tensors, size_t count,
                                 const char *const *meta, error *err) {
    outfile *f = wan_safetensors_begin(path, tensors, count, meta, err);
    if (!f)
        return err ? err->code : WAN_E_OUTPUT;
    wan_status s = WAN_OK;
    for (size_t i = 0; i < count && s == WAN_OK; i++)
        s = wan_outfile_write(f, tensors[i].t.data, wan_bytes(tensors[i].t), err);
    if (s == WAN_OK)
        return wan_outfile_commit(f, err);
    wan_outfile_abort(f);
    return s;
}
