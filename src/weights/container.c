/* SPDX-License-Identifier: Apache-2.0 */
#include "weights/container.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "io/gguf.h"
#include "io/lookup.h"
#include "io/shards.h"
#include "weights/names.h"

struct container {
    gguf *gguf;
    shards *set;
    safetensors **file; /* one file, or a numbered set without index; owned */
    char **path;
    size_t files;
    contained *item;
    size_t count, room;
    const char **names; /* of item, for the layout functions */
    lookup keys;        /* GGUF scalars as text */
    char **text;
    size_t texts;
};

static wan_status add(container *c, const char *name, const char *file, tensor t, error *err) {
    if (c->count == c->room) {
        size_t room = c->room ? 2 * c->room : 256;
        contained *item = realloc(c->item, room * sizeof *item);
        if (!item)
            return wan_fail(err, WAN_E_MEMORY, "%s: no memory for its tensors", file);
        c->item = item;
        c->room = room;
    }
    c->item[c->count++] = (contained){name, file, t};
    return WAN_OK;
}

/* Tensors of one safetensors file; of a set only those the index maps to this file. */
static wan_status add_file(container *c, const safetensors *s, const char *path, size_t number,
                           error *err) {
    wan_status st = WAN_OK;
    for (size_t i = 0; i < wan_safetensors_count(s) && st == WAN_OK; i++) {
        const named_tensor *n = wan_safetensors_at(s, i);
        if (c->set && wan_shard_index_find(wan_shards_index(c->set), n->name) != number)
            continue;
        st = add(c, n->name, path, n->t, err);
    }
    return st;
}

static wan_status open_set(container *c, const char *index, error *err) {
    c->set = wan_shards_open(index, err);
    wan_status st = c->set ? WAN_OK : WAN_E_FORMAT;
    for (size_t i = 0; st == WAN_OK && i < wan_shards_files(c->set); i++)
        st = add_file(c, wan_shards_file(c->set, i), wan_shards_path(c->set, i), i, err);
    return st;
}

static wan_status open_files(container *c, size_t count, const char *path, error *err) {
    c->file = calloc(count, sizeof(safetensors *));
    c->path = calloc(count, sizeof *c->path);
    if (!c->file || !c->path)
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory to open it", path);
    return WAN_OK;
}

static wan_status open_file(container *c, const char *path, error *err) {
    char *copy = strdup(path);
    safetensors *s = copy ? wan_safetensors_open(path, err) : NULL;
    if (!s) {
        free(copy);
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory to open it", path);
    }
    c->path[c->files] = copy;
    c->file[c->files++] = s;
    return add_file(c, s, copy, 0, err);
}

/* model-00002-of-00005.safetensors: through the index if there is one, otherwise all five. */
static wan_status open_numbered(container *c, const char *path, size_t stem, int of, error *err) {
    char *name = NULL;
    if (asprintf(&name, "%.*s.safetensors.index.json", (int)stem, path) < 0)
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory to open it", path);
    bool indexed = access(name, F_OK) == 0;
    wan_status st = indexed ? open_set(c, name, err) : open_files(c, (size_t)of, path, err);
    free(name);
    for (int i = 1; !indexed && i <= of && st == WAN_OK; i++) {
        if (asprintf(&name, "%.*s-%05d-of-%05d.safetensors", (int)stem, path, i, of) < 0)
            return wan_fail(err, WAN_E_MEMORY, "%s: no memory to open it", path);
        st = open_file(c, name, err);
        free(name);
    }
    return st;
}

/* Scalars as text, once, so that asking needs no memory. */
static wan_status render(container *c, const gguf_value *v, error *err) {
    int64_t whole;
    double number;
    char text[64];
    size_t n = 0;
    const uint8_t *at = v->at;
    const char *from = text;
    if (v->type == GGUF_STRING)
        from = wan_gguf_next_string(&at, &n);
    else if (v->type == GGUF_F32 && wan_gguf_number(v, 0, &number))
        n = (size_t)snprintf(text, sizeof text, "%.9g", number);
    else if (v->type == GGUF_F64 && wan_gguf_number(v, 0, &number))
        n = (size_t)snprintf(text, sizeof text, "%.17g", number);
    else if (wan_gguf_integer(v, 0, &whole))
        n = (size_t)snprintf(text, sizeof text, "%lld", (long long)whole);
    else if (wan_gguf_number(v, 0, &number))
        n = (size_t)snprintf(text, sizeof text, "%.0f", number);
    char *copy = strndup(from, n);
    if (!copy)
        return wan_fail(err, WAN_E_MEMORY, "no memory for %s", v->key);
    c->text[c->texts] = copy;
    return wan_lookup_add(&c->keys, v->key, c->texts++, err);
}

static wan_status open_gguf(container *c, const char *path, error *err) {
    c->gguf = wan_gguf_open(path, err);
    if (!c->gguf)
        return WAN_E_FORMAT;
    int64_t pieces = 0;
    const gguf_value *split = wan_gguf_meta(c->gguf, "split.count");
    if (split && wan_gguf_integer(split, 0, &pieces) && pieces > 1)
        return wan_fail(err, WAN_E_FORMAT,
                        "%s: is one of %lld pieces, which are not read: join them with "
                        "llama-gguf-split --merge",
                        path, (long long)pieces);
    wan_status st = open_files(c, 1, path, err);
    if (st == WAN_OK && !(c->path[0] = strdup(path)))
        st = wan_fail(err, WAN_E_MEMORY, "%s: no memory to open it", path);
    c->files = c->path && c->path[0];
    for (size_t i = 0; i < wan_gguf_count(c->gguf) && st == WAN_OK; i++) {
        const named_tensor *n = wan_gguf_at(c->gguf, i);
        st = add(c, n->name, c->path[0], n->t, err);
    }
    size_t metas = wan_gguf_meta_count(c->gguf);
    c->text = calloc(metas + 1, sizeof *c->text);
    if (st == WAN_OK && !c->text)
        st = wan_fail(err, WAN_E_MEMORY, "%s: no memory for its metadata", path);
    for (size_t i = 0; i < metas && st == WAN_OK; i++)
        if (!wan_gguf_meta_at(c->gguf, i)->array)
            st = render(c, wan_gguf_meta_at(c->gguf, i), err);
    wan_lookup_sort(&c->keys);
    return st;
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcasecmp(text + n - m, end);
}

/* What the file is, from its first bytes; anything unreadable is left to the reader, which says
 * why. */
static void first_bytes(const char *path, unsigned char magic[4]) {
    memset(magic, 0, 4);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return;
    if (read(fd, magic, 4) < 4)
        memset(magic, 0, 4);
    close(fd);
}

static wan_status refuse_pytorch(const char *path, error *err) {
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path, *dot = strrchr(name, '.');
    return wan_fail(err, WAN_E_FORMAT,
                    "%s: PyTorch files are not read.  Take the same weights as .safetensors or "
                    ".gguf, or convert it: python3 tools/pth2safetensors.py %s %.*s.safetensors",
                    path, path, (int)(dot ? dot - path : (long)strlen(path)), path);
}

static wan_status open_any(container *c, const char *path, error *err) {
    unsigned char magic[4];
    size_t stem;
    int number, of;
    first_bytes(path, magic);
    if (!memcmp(magic, "GGUF", 4) || ends_with(path, ".gguf"))
        return open_gguf(c, path, err);
    if (!memcmp(magic, "PK\3\4", 4) || ends_with(path, ".pth") || ends_with(path, ".pt") ||
        ends_with(path, ".ckpt"))
        return refuse_pytorch(path, err);
    if (ends_with(path, ".json"))
        return open_set(c, path, err);
    if (wan_shard_number(path, &stem, &number, &of) && number >= 1 && number <= of)
        return open_numbered(c, path, stem, of, err);
    wan_status st = open_files(c, 1, path, err);
    return st == WAN_OK ? open_file(c, path, err) : st;
}

container *wan_container_open(const char *path, error *err) {
    error why = {0}; /* ours: the code of a failure below must not be lost when err is NULL */
    container *c = calloc(1, sizeof *c);
    wan_status st = c ? open_any(c, path, &why) : WAN_E_MEMORY;
    if (st == WAN_OK) {
        c->names = calloc(c->count + 1, sizeof *c->names);
        st = c->names ? WAN_OK : WAN_E_MEMORY;
    }
    if (st == WAN_OK) {
        for (size_t i = 0; i < c->count; i++)
            c->names[i] = c->item[i].name;
        return c;
    }
    wan_fail(&why, st, "%s: no memory to open it", path);
    wan_fail(err, why.code, "%s", why.message);
    wan_container_close(c);
    return NULL;
}

static bool begins_with(const char *text, const char *start) {
    return !strncmp(text, start, strlen(start));
}

container *wan_container_open_part(const char *path, part which, error *err) {
    static const char *const prefix[PARTS] = {[PART_DIT] = "", [PART_TEXT] = "text_encoder.", [PART_VAE] = "vae."};
    container *c = wan_container_open(path, err);
    if (!c || !wan_container_meta(c, "wan.parts"))
        return c;
    size_t kept = 0;
    for (size_t i = 0; i < c->count; i++) {
        contained one = c->item[i];
        bool of_other = begins_with(one.name, prefix[PART_TEXT]) || begins_with(one.name, prefix[PART_VAE]);
        if (which == PART_DIT ? of_other : !begins_with(one.name, prefix[which]))
            continue;
        one.name += strlen(prefix[which]);
        c->names[kept] = one.name;
        c->item[kept++] = one;
    }
    c->count = kept;
    return c;
}

void wan_container_close(container *c) {
    if (!c)
        return;
    wan_gguf_close(c->gguf);
    wan_shards_close(c->set);
    for (size_t i = 0; c->file && i < c->files; i++)
        wan_safetensors_close(c->file[i]);
    for (size_t i = 0; c->path && i < c->files; i++)
        free(c->path[i]);
    for (size_t i = 0; i < c->texts; i++)
        free(c->text[i]);
    free(c->file);
    free(c->path);
    free(c->item);
    free(c->names);
    free(c->text);
    wan_lookup_free(&c->keys);
    free(c);
}

size_t wan_container_count(const container *c) {
    return c->count;
}

const contained *wan_container_at(const container *c, size_t i) {
    return i < c->count ? &c->item[i] : NULL;
}

bool wan_container_is_gguf(const container *c) {
    return c->gguf != NULL;
}

const char *wan_container_meta(const container *c, const char *key) {
    size_t at = wan_lookup_find(&c->keys, key);
    if (at != WAN_NOT_FOUND)
        return c->text[at];
    const char *value = NULL;
    for (size_t i = 0; c->set && !value && i < wan_shards_files(c->set); i++)
        value = wan_safetensors_meta(wan_shards_file(c->set, i), key);
    for (size_t i = 0; c->file && !value && i < c->files; i++)
        value = c->file[i] ? wan_safetensors_meta(c->file[i], key) : NULL;
    return value;
}

void wan_container_drop_pages(const container *c) {
    if (c->gguf)
        wan_gguf_drop_pages(c->gguf);
    for (size_t i = 0; c->set && i < wan_shards_files(c->set); i++)
        wan_safetensors_drop_pages(wan_shards_file(c->set, i));
    for (size_t i = 0; c->file && i < c->files; i++)
        if (c->file[i])
            wan_safetensors_drop_pages(c->file[i]);
}

part wan_container_part(const container *c) {
    part best = PARTS;
    size_t most = 0;
    for (int p = 0; p < PARTS; p++)
        for (int l = 0; l < LAYOUT_UNKNOWN; l++) {
            size_t hits = wan_layout_hits(c->names, c->count, (part)p, (layout)l);
            if (hits > most) {
                most = hits;
                best = (part)p;
            }
        }
    return best;
}

const char *wan_container_looks(const container *c) {
    static const char *const part_text[PARTS] = {"a transformer", "a text encoder", "a VAE"};
    part p = wan_container_part(c);
    if (p != PARTS)
        return part_text[p];
    for (size_t i = 0; i < c->count; i++)
        if (strstr(c->names[i], "lora_"))
            return "a LoRA";
    return "no part of a Wan model";
}
