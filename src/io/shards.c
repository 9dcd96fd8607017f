/* SPDX-License-Identifier: Apache-2.0 */
#include "io/shards.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json_file.h"
#include "io/lookup.h"
#include "io/mapfile.h"
#include "io/utf8.h"

#define INDEX_LIMIT (32u << 20)
#define INDEX_DEPTH 8
#define FILES_LIMIT 10000u

struct shard_index {
    char *path;
    json_t *root; /* names point into it */
    const char **tensor;
    size_t *where;
    size_t tensors;
    const char **file;
    size_t files;
};

bool wan_shard_name_ok(const char *name) {
    size_t n = strlen(name);
    return n > 0 && n <= 255 && name[0] != '.' && !strpbrk(name, "/\\:") && wan_utf8_plain(name, n);
}

static wan_status read_map(shard_index *x, json_t *map, error *err) {
    size_t n = json_object_size(map);
    x->tensor = calloc(n + 1, sizeof *x->tensor);
    x->where = calloc(n + 1, sizeof *x->where);
    x->file = calloc(n + 1, sizeof *x->file);
    if (!x->tensor || !x->where || !x->file)
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory for %zu names", x->path, n);
    const char *name;
    json_t *value;
    json_object_foreach(map, name, value) {
        const char *file = json_string_value(value);
        if (!*name || !wan_utf8_plain(name, strlen(name)))
            return wan_fail(err, WAN_E_FORMAT, "%s: a tensor's name in weight_map is %s", x->path,
                            *name ? "not text" : "empty");
        if (!file)
            return wan_fail(err, WAN_E_FORMAT, "%s: %s is not mapped to a file name", x->path,
                            name);
        if (!wan_shard_name_ok(file))
            return wan_fail(err, WAN_E_FORMAT,
                            "%s: %s is mapped to '%s', which is not a plain file name", x->path,
                            name, file);
        x->tensor[x->tensors++] = name;
        x->file[x->files++] = file;
    }
    return WAN_OK;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* x->file holds one name for each tensor; leaves each file once, and in `where` its position. */
static wan_status number_files(shard_index *x, json_t *map, error *err) {
    if (x->files > 1)
        qsort(x->file, x->files, sizeof *x->file, by_text);
    size_t n = 0;
    for (size_t i = 0; i < x->files; i++)
        if (n == 0 || strcmp(x->file[n - 1], x->file[i]))
            x->file[n++] = x->file[i];
    x->files = n;
    if (n > FILES_LIMIT)
        return wan_fail(err, WAN_E_FORMAT, "%s: names %zu files, at most %u are opened", x->path, n,
                        FILES_LIMIT);
    for (size_t i = 0; i < x->tensors; i++) {
        const char *file = json_string_value(json_object_get(map, x->tensor[i]));
        const char **at = bsearch(&file, x->file, n, sizeof *x->file, by_text);
        x->where[i] = (size_t)(at - x->file);
    }
    return WAN_OK;
}

shard_index *wan_shard_index_parse(const char *text, size_t size, const char *path, error *err) {
    shard_index *x = calloc(1, sizeof *x);
    if (!x || !(x->path = strdup(path))) {
        free(x);
        wan_fail(err, WAN_E_MEMORY, "%s: no memory to read it", path);
        return NULL;
    }
    x->root = wan_json_parse(text, size, INDEX_DEPTH, path, "the index", err);
    json_t *map = json_object_get(x->root, "weight_map");
    wan_status s = x->root ? WAN_OK : WAN_E_FORMAT;
    if (s == WAN_OK && (!json_is_object(map) || json_object_size(map) == 0))
        s = wan_fail(err, WAN_E_FORMAT, "%s: has no weight_map", path);
    if (s == WAN_OK)
        s = read_map(x, map, err);
    if (s == WAN_OK)
        s = number_files(x, map, err);
    if (s == WAN_OK)
        return x;
    wan_shard_index_close(x);
    return NULL;
}

shard_index *wan_shard_index_read(const char *path, error *err) {
    mapfile m;
    if (wan_map_open(&m, path, err) != WAN_OK)
        return NULL;
    shard_index *x = NULL;
    if (m.size > INDEX_LIMIT)
        wan_fail(err, WAN_E_FORMAT, "%s: %zu bytes of index, at most %u are sane", path, m.size,
                 INDEX_LIMIT);
    else
        x = wan_shard_index_parse((const char *)m.data, m.size, path, err);
    wan_map_close(&m);
    return x;
}

void wan_shard_index_close(shard_index *x) {
    if (!x)
        return;
    free(x->tensor);
    free(x->where);
    free(x->file);
    json_decref(x->root);
    free(x->path);
    free(x);
}

size_t wan_shard_index_files(const shard_index *x) {
    return x->files;
}

const char *wan_shard_index_file(const shard_index *x, size_t i) {
    return i < x->files ? x->file[i] : NULL;
}

size_t wan_shard_index_tensors(const shard_index *x) {
    return x->tensors;
}

const char *wan_shard_index_tensor(const shard_index *x, size_t i) {
    return i < x->tensors ? x->tensor[i] : NULL;
}

size_t wan_shard_index_where(const shard_index *x, size_t i) {
    return i < x->tensors ? x->where[i] : WAN_NOT_FOUND;
}

size_t wan_shard_index_find(const shard_index *x, const char *name) {
    const char *file =
        json_string_value(json_object_get(json_object_get(x->root, "weight_map"), name));
    if (!file)
        return WAN_NOT_FOUND;
    const char **at = bsearch(&file, x->file, x->files, sizeof *x->file, by_text);
    return (size_t)(at - x->file);
}

wan_status wan_shard_index_check(const shard_index *x,
                                 bool (*has)(void *user, size_t file, const char *name), void *user,
                                 error *err) {
    for (size_t i = 0; i < x->tensors; i++)
        if (!has(user, x->where[i], x->tensor[i]))
            return wan_fail(err, WAN_E_FORMAT, "%s: %s should be in %s, but is not", x->path,
                            x->tensor[i], x->file[x->where[i]]);
    return WAN_OK;
}

struct shards {
    shard_index *index;
    safetensors **file;
    char **path;
    size_t files;
};

static bool file_has(void *user, size_t file, const char *name) {
    const shards *s = user;
    return wan_safetensors_find(s->file[file], name) != NULL;
}

static char *beside(const char *path, const char *name) {
    const char *slash = strrchr(path, '/');
    int folder = slash ? (int)(slash - path) + 1 : 0;
    char *joined = NULL;
    return asprintf(&joined, "%.*s%s", folder, path, name) < 0 ? NULL : joined;
}

static wan_status open_files(shards *s, const shard_index *x, const char *path, error *err) {
    s->file = calloc(x->files, sizeof(safetensors *));
    s->path = calloc(x->files, sizeof *s->path);
    if (!s->file || !s->path)
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory for %zu files", path, x->files);
    for (; s->files < x->files; s->files++) {
        char *file = s->path[s->files] = beside(path, x->file[s->files]);
        if (!file)
            return wan_fail(err, WAN_E_MEMORY, "%s: no memory for %zu files", path, x->files);
        error why = {0};
        s->file[s->files] = wan_safetensors_open(file, &why);
        if (!s->file[s->files]) {
            free(file);
            return wan_fail(err, why.code, "%s (a part of %s)", why.message, path);
        }
    }
    return wan_shard_index_check(x, file_has, s, err);
}

shards *wan_shards_open(const char *index_path, error *err) {
    shards *s = calloc(1, sizeof *s);
    if (!s) {
        wan_fail(err, WAN_E_MEMORY, "%s: no memory to open it", index_path);
        return NULL;
    }
    s->index = wan_shard_index_read(index_path, err);
    if (s->index && open_files(s, s->index, index_path, err) == WAN_OK)
        return s;
    wan_shards_close(s);
    return NULL;
}

void wan_shards_close(shards *s) {
    if (!s)
        return;
    for (size_t i = 0; i < s->files; i++) {
        wan_safetensors_close(s->file[i]);
        free(s->path[i]);
    }
    free(s->file);
    free(s->path);
    wan_shard_index_close(s->index);
    free(s);
}

const shard_index *wan_shards_index(const shards *s) {
    return s->index;
}

size_t wan_shards_files(const shards *s) {
    return s->files;
}

const safetensors *wan_shards_file(const shards *s, size_t i) {
    return i < s->files ? s->file[i] : NULL;
}

const char *wan_shards_path(const shards *s, size_t i) {
    return i < s->files ? s->path[i] : NULL;
}

/* "-ddddd-of-ddddd" before the ending */
bool wan_shard_number(const char *name, size_t *stem, int *number, int *of) {
    const char *end = strstr(name, ".safetensors");
    size_t tail = strlen("-00001-of-00002");
    if (!end || end[strlen(".safetensors")] || (size_t)(end - name) < tail)
        return false;
    const char *p = end - tail;
    static const char shape[] = "-#####-of-#####";
    for (size_t i = 0; i < tail; i++)
        if (shape[i] == '#' ? p[i] < '0' || p[i] > '9' : p[i] != shape[i])
            return false;
    *stem = (size_t)(p - name);
    *number = atoi(p + 1);
    *of = atoi(p + 10);
    return true;
}
