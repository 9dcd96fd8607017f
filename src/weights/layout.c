/* SPDX-License-Identifier: Apache-2.0 */
#include "weights/layout.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "io/shards.h"
#include "weights/container.h"

#define PATH_ROOM 4096

static bool is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool join(const char *folder, int n, const char *relative, char *path, size_t size) {
    const char *slash = n > 0 && folder[n - 1] != '/' ? "/" : "";
    int need = snprintf(path, size, "%.*s%s%s", n, folder, slash, relative);
    return need >= 0 && (size_t)need < size;
}

static bool regular(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool wan_layout_beside(const char *file, const char *relative, char *path, size_t size) {
    const char *slash = strrchr(file, '/');
    int n = slash ? (int)(slash - file) + 1 : 0;
    return join(file, n, relative, path, size) && regular(path);
}

bool wan_layout_file(const char *root, const char *relative, char *path, size_t size) {
    if (!is_folder(root))
        return wan_layout_beside(root, relative, path, size);
    return join(root, (int)strlen(root), relative, path, size) && regular(path);
}

/* ----------------------------------------------------------------------------------------------
 * names in a folder */

typedef struct listing {
    const char *folder;
    char **name;
    size_t count, room;
} listing;

static void listing_free(listing *l) {
    for (size_t i = 0; i < l->count; i++)
        free(l->name[i]);
    free(l->name);
}

static wan_status listing_add(listing *l, const char *name, error *err) {
    if (l->count == l->room) {
        size_t room = l->room ? 2 * l->room : 64;
        char **grown = realloc(l->name, room * sizeof *grown);
        if (!grown)
            return wan_fail(err, WAN_E_MEMORY, "%s: no memory to list it", l->folder);
        l->name = grown;
        l->room = room;
    }
    if (!(l->name[l->count] = strdup(name)))
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory to list it", l->folder);
    l->count++;
    return WAN_OK;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static wan_status list(listing *l, const char *folder, error *err) {
    *l = (listing){.folder = folder};
    DIR *d = opendir(folder);
    if (!d)
        return wan_fail(err, errno == ENOMEM ? WAN_E_MEMORY : WAN_E_IO, "%s: %s", folder,
                        strerror(errno));
    wan_status s = WAN_OK;
    for (struct dirent *e; s == WAN_OK && (e = readdir(d));)
        if (e->d_name[0] != '.')
            s = listing_add(l, e->d_name, err);
    closedir(d);
    if (l->count > 1)
        qsort(l->name, l->count, sizeof *l->name, by_text);
    return s;
}

static bool listed(const listing *l, const char *name) {
    return l->count && bsearch(&name, l->name, l->count, sizeof *l->name, by_text);
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcasecmp(text + n - m, end);
}

static bool is_pytorch(const char *name) {
    return ends_with(name, ".pth") || ends_with(name, ".pt") || ends_with(name, ".ckpt");
}

/* Files that stand for a whole set of weights: shards only where no index speaks for them, and then
 * the first. */
static bool is_candidate(const listing *l, const char *name) {
    size_t stem;
    int number, of;
    if (ends_with(name, ".safetensors.index.json") || ends_with(name, ".gguf"))
        return true;
    if (!ends_with(name, ".safetensors"))
        return false;
    if (!wan_shard_number(name, &stem, &number, &of)) /* MLX packages number them plainly */
        return strspn(name, "0123456789") + strlen(".safetensors") != strlen(name) ||
               !listed(l, "model.safetensors.index.json");
    char index[512];
    snprintf(index, sizeof index, "%.*s.safetensors.index.json", (int)stem, name);
    return number == 1 && !listed(l, index);
}

static bool has_word(const char *name, const char *const *words) {
    for (; *words; words++)
        if (strcasestr(name, *words))
            return true;
    return false;
}

static bool fits_by_name(const char *name, part which) {
    static const char *const text[] = {"t5", "text_enc", "text-enc", NULL},
                             *const vae[] = {"vae", NULL},
                             *const dit[] = {"diffusion_pytorch_model",
                                             "transformer",
                                             "dit",
                                             "ti2v",
                                             "t2v",
                                             "i2v",
                                             "wan",
                                             NULL},
                             *const other[] = {"lora", "clip", "taew", NULL};
    if (has_word(name, other))
        return false;
    bool is_vae = has_word(name, vae), is_text = has_word(name, text);
    switch (which) {
    case PART_VAE:
        return is_vae;
    case PART_TEXT:
        return is_text && !is_vae;
    default:
        return has_word(name, dit) && !is_vae && !is_text;
    }
}

/* --------------------------------------------------------------------------------------------------------
 * the search */

typedef struct search {
    part which;
    bool own_folder; /* the folder is called after the part, so that a single file in it is the one
                      */
    char found[PATH_ROOM], second[PATH_ROOM]; /* files that fit, empty: none */
    char other[PATH_ROOM];                    /* one that does not, and what it is instead */
    const char *other_looks;
    error unread; /* why a candidate could not be opened */
} search;

static void found(search *s, const char *path) {
    char *slot = s->found[0] ? s->second : s->found;
    snprintf(slot, PATH_ROOM, "%s", path);
}

/* Looks at the tensors' names of the candidates, all or only those whose file name fits. */
static void look_inside(search *s, const listing *l, bool only_named) {
    for (size_t i = 0; i < l->count; i++) {
        char path[PATH_ROOM];
        if (!is_candidate(l, l->name[i]) || (only_named && !fits_by_name(l->name[i], s->which)) ||
            !join(l->folder, (int)strlen(l->folder), l->name[i], path, sizeof path))
            continue;
        container *c = wan_container_open_part(path, s->which, &s->unread);
        if (c && wan_container_part(c) == s->which) {
            found(s, path);
        } else if (c) {
            snprintf(s->other, sizeof s->other, "%s", path);
            s->other_looks = wan_container_looks(c);
        }
        wan_container_close(c);
    }
}

static wan_status nothing(const search *s, const listing *l, error *err) {
    const char *part_name = wan_part_name(s->which);
    if (s->unread.code != WAN_OK)
        return wan_fail(err, s->unread.code, "%s", s->unread.message);
    for (size_t i = 0; i < l->count; i++)
        if (is_pytorch(l->name[i]) && fits_by_name(l->name[i], s->which)) {
            char path[PATH_ROOM];
            join(l->folder, (int)strlen(l->folder), l->name[i], path, sizeof path);
            wan_container_close(wan_container_open(path, err)); /* refuses, and says the way out */
            return WAN_E_FORMAT;
        }
    if (s->other[0])
        return wan_fail(err, WAN_E_IO, "%s: holds no %s; %s looks like %s", l->folder, part_name,
                        s->other, s->other_looks);
    return wan_fail(err, WAN_E_IO, "%s: holds no %s (no .safetensors or .gguf file)", l->folder,
                    part_name);
}

/* How many candidates have a fitting name, or just how many; the last one's name. */
static size_t count_named(const listing *l, part which, bool any, const char **name) {
    size_t n = 0;
    for (size_t i = 0; i < l->count; i++)
        if (is_candidate(l, l->name[i]) && (any || fits_by_name(l->name[i], which))) {
            n++;
            *name = l->name[i];
        }
    return n;
}

static wan_status choose(search *s, const listing *l, error *err) {
    const char *name = NULL;
    size_t named = count_named(l, s->which, false, &name);
    if (named == 0 && s->own_folder && count_named(l, s->which, true, &name) == 1)
        named = 1;
    char path[PATH_ROOM];
    if (named == 1 && join(l->folder, (int)strlen(l->folder), name, path, sizeof path))
        found(s, path); /* opening it will say what is wrong with it, if anything is */
    else
        look_inside(s, l, named > 0);
    if (s->second[0])
        return wan_fail(err, WAN_E_USAGE, "%s and %s both look like the %s: name the one to use",
                        s->found, s->second, wan_part_name(s->which));
    return s->found[0] ? WAN_OK : nothing(s, l, err);
}

static wan_status search_folder(const char *folder, part which, bool own, char *path, size_t size,
                                error *err) {
    listing l;
    search s = {.which = which, .own_folder = own};
    wan_status st = list(&l, folder, err);
    if (st == WAN_OK)
        st = choose(&s, &l, err);
    if (st == WAN_OK && (size_t)snprintf(path, size, "%s", s.found) >= size)
        st = wan_fail(err, WAN_E_IO, "%s: its path is too long", s.found);
    listing_free(&l);
    return st;
}

/* What a file named by the user is, or has as its part `which`; one that cannot be read is never
 * passed over for another. */
static wan_status part_of_file(const char *file, part which, part *is, error *err) {
    error why = {0};
    container *c = wan_container_open_part(file, which, &why);
    if (!c)
        return wan_fail(err, why.code, "%s", why.message);
    *is = wan_container_part(c);
    wan_container_close(c);
    return WAN_OK;
}

static void folder_of(const char *path, char *folder, size_t size) {
    const char *slash = strrchr(path, '/');
    if (!slash)
        snprintf(folder, size, ".");
    else
        snprintf(folder, size, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

wan_status wan_layout_find(const char *root, part which, char *path, size_t size, error *err) {
    static const char *const below[PARTS][3] = {
        [PART_DIT] = {"transformer", "diffusion_models", NULL},
        [PART_TEXT] = {"text_encoder", "text_encoders", NULL},
        [PART_VAE] = {"vae", "VAE", NULL},
    };
    struct stat st;
    part is = PARTS;
    char folder[PATH_ROOM], inner[PATH_ROOM];
    if (stat(root, &st) != 0)
        return wan_fail(err, errno == ENOMEM ? WAN_E_MEMORY : WAN_E_IO, "%s: %s", root,
                        strerror(errno));
    if ((size_t)snprintf(folder, sizeof folder, "%s", root) >= sizeof folder ||
        strlen(root) >= size)
        return wan_fail(err, WAN_E_IO, "%s: its path is too long", root);
    if (!S_ISDIR(st.st_mode)) {
        wan_status s = part_of_file(root, which, &is, err);
        if (s != WAN_OK || is == which) {
            snprintf(path, size, "%s", root);
            return s;
        }
        folder_of(root, folder, sizeof folder);
    }
    for (const char *const *b = below[which]; *b; b++)
        if (join(folder, (int)strlen(folder), *b, inner, sizeof inner) && is_folder(inner))
            return search_folder(inner, which, true, path, size, err);
    return search_folder(folder, which, false, path, size, err);
}

/* A GGUF says which tokenizer it carries; ComfyUI puts the bytes of spiece.model into a tensor. */
static bool carries_tokenizer(const char *file) {
    error ignored = {0};
    container *c = wan_container_open_part(file, PART_TEXT, &ignored);
    bool yes = c && wan_container_meta(c, "tokenizer.ggml.model");
    for (size_t i = 0; c && !yes && i < wan_container_count(c); i++)
        yes = !strcmp(wan_container_at(c, i)->name, "spiece_model");
    wan_container_close(c);
    return yes;
}

wan_status wan_layout_find_tokenizer(const char *root, char *path, size_t size, error *err) {
    static const char *const places[] = {"tokenizer/spiece.model", "google/umt5-xxl/spiece.model",
                                         "spiece.model", "text_encoder/spiece.model"};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (wan_layout_file(root, places[i], path, size))
            return WAN_OK;
    error ignored = {0};
    if (wan_layout_find(root, PART_TEXT, path, size, &ignored) == WAN_OK && carries_tokenizer(path))
        return WAN_OK;
    return wan_fail(err, WAN_E_IO,
                    "%s: holds no tokenizer (tokenizer/, google/umt5-xxl/ or itself should have "
                    "spiece.model)",
                    root);
}
