/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/inspect.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "model/dit.h"
#include "model/dit_config.h"
#include "model/umt5.h"
#include "model/vae22.h"
#include "weights/layout.h"

static void note(void *user, const char *weight, bool missing) {
    json_array_append_new(json_object_get(user, missing ? "missing" : "unexpected"),
                          json_string(weight));
}

static json_t *count_types(const store *s) {
    json_t *types = json_object();
    for (size_t i = 0; i < wan_store_count(s); i++) {
        const tensor t = wan_store_at(s, i)->t;
        json_t *row = json_object_get(types, wan_dtype(t.type)->name);
        if (!row) {
            row = json_pack("{s:I, s:I}", "tensors", (json_int_t)0, "bytes", (json_int_t)0);
            json_object_set_new(types, wan_dtype(t.type)->name, row);
        }
        json_integer_set(json_object_get(row, "tensors"),
                         json_integer_value(json_object_get(row, "tensors")) + 1);
        json_integer_set(json_object_get(row, "bytes"),
                         json_integer_value(json_object_get(row, "bytes")) +
                             (json_int_t)wan_bytes(t));
    }
    return types;
}

/* dit.md 1: what a transformer of these numbers is called. */
static void name_transformer(const store *s, json_t *out) {
    static const struct {
        const char *name;
        int64_t dim, ffn, layers, channels;
    } known[] = {
        {"Wan2.2 TI2V-5B", 3072, 14336, 30, 48},
        {"Wan2.1 T2V-1.3B", 1536, 8960, 30, 16},
        {"Wan T2V-14B (Wan2.1, or one expert of Wan2.2 A14B)", 5120, 13824, 40, 16},
    };
    dit_config g;
    if (wan_dit_config_read(&g, s, NULL))
        return;
    const char *name = "Wan2.2 TI2V architecture, other widths";
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (g.dim == known[i].dim && g.ffn == known[i].ffn && g.layers == known[i].layers &&
            g.in_channels == known[i].channels)
            name = known[i].name;
    json_object_set_new(out, "variant", json_string(name));
    json_object_set_new(out, "config",
                        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "dim", (json_int_t)g.dim,
                                  "heads", (json_int_t)g.heads, "layers", (json_int_t)g.layers,
                                  "ffn_dim", (json_int_t)g.ffn, "channels",
                                  (json_int_t)g.in_channels, "text_dim", (json_int_t)g.text_dim));
}

/* Binds the part on a dry compute that takes notes instead of failing at the first missing weight.
 */
static void bind_part(const store *s, part p, json_t *out) {
    error err = {0};
    compute dry = wan_compute_dry();
    dry.note = note;
    dry.note_user = out;
    if (p == PART_DIT) {
        wan_dit_close(wan_dit_open(s, &dry, &err));
        name_transformer(s, out);
    } else if (p == PART_TEXT) {
        umt5 *t = wan_umt5_open(s, &dry, &err);
        if (t)
            json_object_set_new(out, "config",
                                json_pack("{s:I, s:I}", "dim", (json_int_t)wan_umt5_dim(t),
                                          "vocabulary", (json_int_t)wan_umt5_vocab(t)));
        json_object_set_new(out, "variant", json_string("UMT5 encoder"));
        wan_umt5_close(t);
    } else {
        vae22 *v = wan_vae22_open(s, &dry, &err);
        if (v)
            json_object_set_new(out, "config",
                                json_pack("{s:I, s:i, s:i}", "channels",
                                          (json_int_t)wan_vae22_channels(v), "spatial",
                                          wan_vae22_spatial(v), "temporal", wan_vae22_temporal(v)));
        json_object_set_new(out, "variant", json_string("Wan2.2 VAE"));
        wan_vae22_close(v);
    }
    if (err.code)
        json_object_set_new(out, "problem", json_string(err.message));
}

static json_t *describe(const store *s, part p) {
    json_t *out =
        json_pack("{s:s, s:s, s:s, s:I, s:I}", "part", wan_part_name(p), "path", wan_store_path(s),
                  "layout", wan_store_layout(s), "tensors", (json_int_t)wan_store_count(s), "bytes",
                  (json_int_t)wan_store_bytes(s));
    json_object_set_new(out, "types", count_types(s));
    json_object_set_new(out, "missing", json_array());
    json_object_set_new(out, "unexpected", json_array());
    bind_part(s, p, out);
    return out;
}

/* A file or component folder: every kind of part that it can be opened as, more than one only for a
 * whole model. */
static bool try_part(const char *path, json_t *parts, error *first) {
    for (int p = 0; p < PARTS; p++) {
        error err = {0};
        store *s = wan_store_open(path, (part)p, &err);
        if (s)
            json_array_append_new(parts, describe(s, (part)p));
        wan_store_close(s);
        if (p == 0)
            *first = err;
    }
    return json_array_size(parts) > 0;
}

static void describe_folder(const char *path, json_t *out) {
    char found[4096];
    json_t *parts = json_object_get(out, "parts"), *absent = json_array();
    for (int p = 0; p < PARTS; p++) {
        error err = {0};
        store *s = NULL;
        if (!wan_layout_find(path, (part)p, found, sizeof found, &err))
            s = wan_store_open(found, (part)p, &err);
        if (s)
            json_array_append_new(parts, describe(s, (part)p));
        else
            json_array_append_new(absent, json_pack("{s:s, s:s}", "part", wan_part_name((part)p),
                                                    "why", err.message));
        wan_store_close(s);
    }
    error err = {0};
    if (!wan_layout_find_tokenizer(path, found, sizeof found, &err))
        json_object_set_new(out, "tokenizer", json_string(found));
    else
        json_array_append_new(absent,
                              json_pack("{s:s, s:s}", "part", "tokenizer", "why", err.message));
    json_object_set_new(out, "absent", absent);
}

json_t *wan_inspect(const char *path, wan_error *err) {
    struct stat st;
    error why = {0};
    if (stat(path, &st)) {
        wan_fail(err, WAN_E_IO, "%s: %s", path, strerror(errno));
        return NULL;
    }
    json_t *out = json_pack("{s:s, s:[]}", "path", path, "parts");
    if (!out) {
        wan_fail(err, WAN_E_TEXT, "%s: the path is not UTF-8", path);
        return NULL;
    }
    json_t *parts = json_object_get(out, "parts");
    if (S_ISDIR(st.st_mode))
        describe_folder(path, out);
    if (!json_array_size(parts) && !try_part(path, parts, &why)) {
        wan_fail(err, why.code, "%s", why.message);
        json_decref(out);
        return NULL;
    }
    return out;
}
