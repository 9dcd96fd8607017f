/* SPDX-License-Identifier: Apache-2.0 */
#include "weights/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/json_file.h"
#include "io/lookup.h"
#include "weights/codes.h"
#include "weights/container.h"
#include "weights/layout.h"
#include "weights/names.h"

struct store {
    part which;
    char *path;
    container *c;
    layout spelling;
    stored *item;
    char **name; /* ours, owned */
    size_t count;
    lookup names;
    json_t *config;
};

static wan_status check_part(store *s, error *err) {
    size_t n = wan_container_count(s->c);
    const char **names = calloc(n + 1, sizeof *names);
    if (!names)
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory for its names", s->path);
    for (size_t i = 0; i < n; i++)
        names[i] = wan_container_at(s->c, i)->name;
    s->spelling = wan_layout_detect(names, n, s->which);
    free(names);
    part looks = wan_container_part(s->c);
    if (s->spelling != LAYOUT_UNKNOWN && looks == s->which)
        return WAN_OK;
    return wan_fail(err, looks == PARTS ? WAN_E_FORMAT : WAN_E_PARTS,
                    "%s: is wanted as the %s, but looks like %s", s->path, wan_part_name(s->which),
                    wan_container_looks(s->c));
}

/* A text encoder may hold its embedding under both Hugging Face names; the second one keeps its
 * own. */
static bool is_twin(const char *source) {
    return !strcmp(source, "encoder.embed_tokens.weight");
}

static bool has_source(const store *s, const char *name) {
    for (size_t i = 0; i < wan_container_count(s->c); i++)
        if (!strcmp(wan_container_at(s->c, i)->name, name))
            return true;
    return false;
}

/* MLX keeps a kernel's channels last; shown are the dimensions that everybody else has. */
static void see_kernel(stored *s) {
    int last = s->t.rank - 1;
    if (s->t.rank < 4 || wan_dtype(s->t.type)->block != 1)
        return;
    int64_t in = s->t.dim[last];
    memmove(s->t.dim + 2, s->t.dim + 1, (size_t)(last - 1) * sizeof *s->t.dim);
    s->t.dim[1] = in;
    s->channels_last = true;
}

static wan_status name_items(store *s, error *err) {
    size_t n = wan_container_count(s->c);
    s->item = calloc(n + 1, sizeof *s->item);
    s->name = calloc(n + 1, sizeof *s->name);
    if (!s->item || !s->name)
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory for its names", s->path);
    for (; s->count < n; s->count++) {
        const contained *c = wan_container_at(s->c, s->count);
        size_t room = strlen(c->name) + 64;
        char *ours = s->name[s->count] = malloc(room);
        if (!ours)
            return wan_fail(err, WAN_E_MEMORY, "%s: no memory for its names", s->path);
        wan_name_translate(c->name, s->which, s->spelling, ours, room);
        if (is_twin(c->name) && has_source(s, "shared.weight"))
            snprintf(ours, room, "%s", c->name);
        s->item[s->count] = (stored){.name = ours, .source = c->name, .file = c->file, .t = c->t};
        if (s->spelling == LAYOUT_MLX)
            see_kernel(&s->item[s->count]);
        wan_status st = wan_lookup_add(&s->names, ours, s->count, err);
        if (st != WAN_OK) {
            s->count++;
            return st;
        }
    }
    const char *twice = wan_lookup_sort(&s->names);
    if (twice)
        return wan_fail(err, WAN_E_FORMAT, "%s: holds %s twice", s->path, twice);
    return wan_codes_join(s->item, s->count, &s->names, wan_store_meta(s, "quantization_level"),
                          wan_store_meta(s, "_quantization_metadata"), s->path, err);
}

/* One folder up lies anything; take it only if it is a model's. */
static json_t *config_above(const char *path) {
    char name[4096];
    error ignored = {0};
    if (!wan_layout_beside(path, "../config.json", name, sizeof name))
        return NULL;
    json_t *config = wan_json_load(name, &ignored);
    if (json_is_string(json_object_get(config, "_class_name")) ||
        json_is_string(json_object_get(config, "model_type")))
        return config;
    json_decref(config);
    return NULL;
}

static wan_status read_config(store *s, error *err) {
    char name[4096];
    if (wan_layout_beside(s->path, "config.json", name, sizeof name)) {
        s->config = wan_json_load(name, err);
        return s->config ? WAN_OK : WAN_E_FORMAT;
    }
    if (s->spelling != LAYOUT_DIFFUSERS)
        s->config = config_above(s->path);
    return WAN_OK;
}

store *wan_store_open(const char *path, part which, error *err) {
    char file[4096];
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        if (wan_layout_find(path, which, file, sizeof file, err) != WAN_OK)
            return NULL;
        path = file;
    }
    store *s = calloc(1, sizeof *s);
    if (!s || !(s->path = strdup(path))) {
        free(s);
        wan_fail(err, WAN_E_MEMORY, "%s: no memory to open it", path);
        return NULL;
    }
    s->which = which;
    s->c = wan_container_open_part(path, which, err);
    if (s->c && check_part(s, err) == WAN_OK && name_items(s, err) == WAN_OK &&
        read_config(s, err) == WAN_OK)
        return s;
    wan_store_close(s);
    return NULL;
}

void wan_store_close(store *s) {
    if (!s)
        return;
    json_decref(s->config);
    wan_lookup_free(&s->names);
    for (size_t i = 0; s->name && i < s->count; i++)
        free(s->name[i]);
    free(s->name);
    free(s->item);
    wan_container_close(s->c);
    free(s->path);
    free(s);
}

const stored *wan_store_find(const store *s, const char *name) {
    size_t i = wan_lookup_find(&s->names, name);
    return i == WAN_NOT_FOUND ? NULL : &s->item[i];
}

size_t wan_store_count(const store *s) {
    return s->count;
}

const stored *wan_store_at(const store *s, size_t i) {
    return i < s->count ? &s->item[i] : NULL;
}

const char *wan_store_path(const store *s) {
    return s->path;
}

const char *wan_store_layout(const store *s) {
    if (wan_container_is_gguf(s->c))
        return "gguf";
    return s->spelling == LAYOUT_MLX         ? "mlx"
           : s->spelling == LAYOUT_DIFFUSERS ? "diffusers"
                                             : "original";
}

uint64_t wan_store_bytes(const store *s) {
    uint64_t n = 0;
    for (size_t i = 0; i < s->count; i++)
        n += wan_bytes(s->item[i].t);
    return n;
}

const json_t *wan_store_config(const store *s) {
    return s->config;
}

const char *wan_store_meta(const store *s, const char *key) {
    return wan_container_meta(s->c, key);
}

void wan_store_drop_pages(const store *s) {
    wan_container_drop_pages(s->c);
}
