/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/convert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "io/mapfile.h"
#include "io/outfolder.h"
#include "model/dit_config.h"
#include "pipeline/conversion.h"
#include "tensor/quantise.h"
#include "text/spiece_write.h"
#include "weights/layout.h"
#include "weights/names.h"

#define DROP_BYTES ((uint64_t)256 << 20) /* of mapped files that may be in memory */
#define COPY_BYTES ((size_t)32 << 20)

/* Where bytes go: the one or the other. */
typedef struct sink {
    gguf_writer *gguf;
    outfile *file;
} sink;

static wan_status put(sink *k, const void *data, size_t size, error *err) {
    return k->gguf ? wan_gguf_write_data(k->gguf, data, size, err)
                   : wan_outfile_write(k->file, data, size, err);
}

/* ------------------------------------------------------------------------------------------------
 * tensors */

typedef struct block {
    conversion *c;
    const stored *s;
    dtype to;
    bool scaled;
    int64_t row, rows, cols;
    error err[64]; /* of each worker */
} block;

static void repack_scaled(block *b, int64_t r, float *values, int worker) {
    wan_stored_read(b->s, values, (b->row + r) * b->cols, b->cols);
    wan_quantise_rows(b->to, b->c->packed + r * b->cols, &b->c->scale[b->row + r], values, 1,
                      b->cols, &b->err[worker]);
}

static void repack(void *arg, int64_t from, int64_t to, int worker) {
    block *b = arg;
    float *values = b->c->values + (int64_t)worker * CONVERT_VALUES;
    const dtype_info *z = wan_dtype(b->to);
    size_t out = wan_bytes(wan_tensor(b->to, 1, &b->cols, NULL));
    for (int64_t r = from; r < to; r++) {
        if (b->scaled) {
            repack_scaled(b, r, values, worker);
            continue;
        }
        /* A row longer than the space goes piece by piece: whole blocks of every type. */
        for (int64_t k = 0; k < b->cols; k += CONVERT_VALUES) {
            int64_t n = b->cols - k < CONVERT_VALUES ? b->cols - k : CONVERT_VALUES;
            wan_stored_read(b->s, values, (b->row + r) * b->cols + k, n);
            wan_quantise(b->to, b->c->packed + (size_t)r * out + (size_t)(k / z->block * z->bytes),
                         values, n, &b->err[worker]);
        }
    }
}

/* Counts what was read, gives pages back, and looks whether to stop. */
static wan_status tell(conversion *c, const entry *e, size_t bytes, error *err) {
    c->done += bytes;
    c->since_drop += bytes;
    if (c->since_drop >= DROP_BYTES) {
        wan_store_drop_pages(c->m->store[e->part]);
        c->since_drop = 0;
    }
    if (c->o->progress)
        c->o->progress(c->o->progress_user, e->name, c->done, c->total);
    if (c->o->cancelled && c->o->cancelled(c->o->cancel_user))
        return wan_fail(err, WAN_E_CANCELLED, "cancelled");
    return WAN_OK;
}

static wan_status write_as_stored(conversion *c, const entry *e, sink *k, error *err) {
    size_t bytes = wan_bytes(e->s->t);
    for (size_t at = 0; at < bytes; at += COPY_BYTES) {
        size_t n = bytes - at < COPY_BYTES ? bytes - at : COPY_BYTES;
        if (put(k, (const char *)e->s->t.data + at, n, err) || tell(c, e, n, err))
            return err->code;
    }
    return WAN_OK;
}

static wan_status make_room(conversion *c, const entry *e, size_t packed, int64_t rows,
                            error *err) {
    if (packed > c->packed_room) {
        free(c->packed);
        c->packed = malloc(packed);
        c->packed_room = c->packed ? packed : 0;
    }
    free(c->scale);
    c->scale = e->scales ? malloc((size_t)rows * sizeof *c->scale + 1) : NULL;
    return c->packed && (c->scale || !e->scales)
               ? WAN_OK
               : wan_fail(err, WAN_E_MEMORY, "no memory to convert %s", e->s->source);
}

static wan_status write_repacked(conversion *c, const entry *e, sink *k, error *err) {
    const stored *s = e->s;
    int64_t cols = s->t.rank ? s->t.dim[s->t.rank - 1] : 1;
    int64_t rows = cols ? wan_elements(s->t) / cols : 0;
    tensor one = wan_tensor(e->t.type, 1, &cols, NULL),
           from = wan_tensor(s->t.type, 1, &cols, NULL);
    int64_t step = CONVERT_VALUES * (int64_t)wan_team_threads(c->team) / (cols ? cols : 1);
    step = step < 1 ? 1 : step;
    if (e->scales && cols > CONVERT_VALUES)
        return wan_fail(err, WAN_E_SHAPE, "%s: %s has rows of %lld values, at most %d get a scale",
                        s->file, s->source, (long long)cols, CONVERT_VALUES);
    if (make_room(c, e, wan_bytes(one) * (size_t)step, rows, err))
        return err->code;
    for (int64_t r = 0; r < rows; r += step) {
        block b = {.c = c,
                   .s = s,
                   .to = e->t.type,
                   .scaled = e->scales,
                   .row = r,
                   .rows = rows - r < step ? rows - r : step,
                   .cols = cols};
        wan_team_run(c->team, b.rows, 1 + 16384 / (cols ? cols : 1), repack, &b);
        for (size_t i = 0; i < sizeof b.err / sizeof b.err[0]; i++)
            if (b.err[i].code)
                return wan_fail(err, b.err[i].code, "%s: %s: %s", s->file, s->source,
                                b.err[i].message);
        if (put(k, c->packed, wan_bytes(one) * (size_t)b.rows, err) ||
            tell(c, e, wan_bytes(from) * (size_t)b.rows, err))
            return err->code;
    }
    return WAN_OK;
}

/* Scales lie in front of their codes, where their alignment is theirs, but are known only after
 * them: zeros until then. */
static wan_status write_zeros(entry *e, sink *k, error *err) {
    static const char zero[4096];
    size_t left = wan_bytes(e->t);
    e->at = wan_outfile_size(k->file);
    for (size_t n; left; left -= n) {
        n = left < sizeof zero ? left : sizeof zero;
        if (put(k, zero, n, err))
            return err->code;
    }
    return WAN_OK;
}

static wan_status write_entry(conversion *c, entry *e, sink *k, error *err) {
    if (e->bytes)
        return put(k, e->bytes, wan_bytes(e->t), err);
    if (!e->s)
        return write_zeros(e, k, err);
    if (e->as_it_is)
        return write_as_stored(c, e, k, err);
    if (write_repacked(c, e, k, err) || !e->scales)
        return err->code;
    const entry *s = &c->entry[e->scales];
    return wan_outfile_patch(k->file, c->scale, wan_bytes(s->t), s->at, err);
}

/* ------------------------------------------------------------------------------------------------
 * one file */

static wan_status write_gguf(conversion *c, const char *path, error *err) {
    sink k = {.gguf = wan_gguf_write_open(path, err)};
    if (!k.gguf)
        return err->code;
    wan_convert_gguf_metadata(c, k.gguf, err);
    for (size_t i = 1; i < c->entries; i++)
        wan_gguf_write_tensor(k.gguf, c->entry[i].name, c->entry[i].t);
    for (size_t i = 1; i < c->entries && !err->code; i++)
        write_entry(c, &c->entry[i], &k, err);
    if (err->code)
        wan_gguf_write_abort(k.gguf);
    else
        wan_gguf_write_commit(k.gguf, err);
    return err->code;
}

/* Wide elements first, so that every tensor is aligned; otherwise file order. */
static int by_width(const void *a, const void *b) {
    const entry *p = *(entry *const *)a, *q = *(entry *const *)b;
    int w = wan_dtype(p->t.type)->bytes, v = wan_dtype(q->t.type)->bytes;
    return w != v ? v - w : (p > q) - (p < q);
}

/* Entries of one part, or of all (PARTS), under `name` each. */
static wan_status write_safetensors(conversion *c, part which, const char *path, char **name,
                                    const char *const *meta, error *err) {
    entry **order = calloc(c->entries + 1, sizeof *order);
    named_tensor *list = calloc(c->entries + 1, sizeof *list);
    size_t n = 0;
    sink k = {0};
    if (!order || !list)
        wan_fail(err, WAN_E_MEMORY, "%s: no memory for its header", path);
    for (size_t i = 1; i < c->entries && !err->code; i++)
        if (which == PARTS || c->entry[i].part == which)
            order[n++] = &c->entry[i];
    if (!err->code) {
        qsort(order, n, sizeof *order, by_width);
        for (size_t i = 0; i < n; i++)
            list[i] =
                (named_tensor){name ? name[order[i] - c->entry] : order[i]->name, order[i]->t};
        k.file = wan_safetensors_begin(path, list, n, meta, err);
    }
    for (size_t i = 0; k.file && i < n && !err->code; i++)
        write_entry(c, order[i], &k, err);
    if (k.file && err->code)
        wan_outfile_abort(k.file);
    else if (k.file)
        wan_outfile_commit(k.file, err);
    free(order);
    free(list);
    return err->code;
}

static wan_status write_combined(conversion *c, const char *path, error *err) {
    json_t *strings = wan_convert_strings(c), *value;
    const char *key, *meta[2 * 32 + 1] = {"format", "pt"};
    char heads[32];
    size_t n = 2;
    dit_config g;
    if (c->m->store[PART_DIT] && !wan_dit_config_read(&g, c->m->store[PART_DIT], err)) {
        snprintf(heads, sizeof heads, "%lld", (long long)g.heads);
        json_object_set_new(strings, "wan.attention.head_count", json_string(heads));
    }
    json_object_foreach(strings, key, value) {
        if (n + 2 < sizeof meta / sizeof meta[0]) {
            meta[n++] = key;
            meta[n++] = json_string_value(value);
        }
    }
    if (!err->code)
        write_safetensors(c, PARTS, path, NULL, meta, err);
    json_decref(strings);
    return err->code;
}

/* ------------------------------------------------------------------------------------------------
 * a folder */

static wan_status write_bytes(const outfolder *f, const char *name, const void *bytes, size_t size,
                              error *err) {
    char path[4096];
    if (wan_outfolder_place(f, name, path, sizeof path, err))
        return err->code;
    outfile *file = wan_outfile_open(path, err);
    if (!file)
        return err->code;
    if (wan_outfile_write(file, bytes, size, err))
        wan_outfile_abort(file);
    else
        wan_outfile_commit(file, err);
    return err->code;
}

/* Takes over j; NULL has its error already or is out of memory. */
static wan_status write_json(const outfolder *f, const char *name, json_t *j, error *err) {
    char *text = j ? json_dumps(j, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    if (!text)
        wan_fail(err, WAN_E_MEMORY, "no memory for %s", name);
    else
        write_bytes(f, name, text, strlen(text), err);
    free(text);
    json_decref(j);
    return err->code;
}

static wan_status write_part(conversion *c, part p, const outfolder *f, error *err) {
    static const char *const folder[PARTS] = {"transformer", "text_encoder", "vae"};
    static const char *const file[PARTS] = {"diffusion_pytorch_model", "model",
                                            "diffusion_pytorch_model"};
    static const size_t prefix[PARTS] = {0, sizeof "text_encoder." - 1, sizeof "vae." - 1};
    const store *source = c->m->store[p];
    const char *licence = c->o->licence ? c->o->licence : wan_store_meta(source, "general.license");
    const char *const meta[] = {"format", "pt", licence ? "general.license" : NULL, licence, NULL};
    char path[4096], place[100], theirs[700];
    char **name = calloc(c->entries, sizeof *name);
    for (size_t i = 1; name && i < c->entries && !err->code; i++)
        if (c->entry[i].part == p) {
            wan_name_diffusers(c->entry[i].name + prefix[p], p, theirs, sizeof theirs);
            if (!(name[i] = strdup(theirs)))
                wan_fail(err, WAN_E_MEMORY, "no memory for the names of the new files");
        }
    if (!name)
        wan_fail(err, WAN_E_MEMORY, "no memory for the names of the new files");
    snprintf(place, sizeof place, "%s/%s.safetensors", folder[p], file[p]);
    if (!err->code && !wan_outfolder_place(f, place, path, sizeof path, err))
        write_safetensors(c, p, path, name, meta, err);
    snprintf(place, sizeof place, "%s/config.json", folder[p]);
    if (!err->code)
        write_json(f, place, wan_convert_config(source, p, err), err);
    for (size_t i = 1; name && i < c->entries; i++)
        free(name[i]);
    free(name);
    return err->code;
}

/* The tokenizer's other spellings, for programs that read those, if they lie beside it. */
static wan_status copy_tokenizer(const conversion *c, const outfolder *f, error *err) {
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json",
                                        "special_tokens_map.json"};
    char room[4096], from[4096], place[64];
    const char *beside = wan_convert_tokenizer(c, room);
    if (!c->spiece.size ||
        write_bytes(f, "tokenizer/spiece.model", c->spiece.s, c->spiece.size, err))
        return err->code;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && !err->code; i++) {
        mapfile map;
        if (!wan_layout_beside(beside, names[i], from, sizeof from) ||
            wan_map_open(&map, from, err))
            continue;
        snprintf(place, sizeof place, "tokenizer/%s", names[i]);
        write_bytes(f, place, map.data, map.size, err);
        wan_map_close(&map);
    }
    return err->code;
}

static wan_status write_folder(conversion *c, const char *path, error *err) {
    outfolder *f = wan_outfolder_open(path, err);
    if (!f)
        return err->code;
    for (int p = 0; p < PARTS && !err->code; p++)
        if (c->m->store[p])
            write_part(c, (part)p, f, err);
    if (!err->code && !copy_tokenizer(c, f, err) &&
        !write_json(f, "defaults.json", wan_convert_defaults(c), err) &&
        !write_json(f, "scheduler/scheduler_config.json", wan_convert_scheduler(c), err))
        write_json(f, "model_index.json", wan_convert_index(c), err);
    if (err->code)
        wan_outfolder_abort(f);
    else
        wan_outfolder_commit(f, err);
    return err->code;
}

/* ------------------------------------------------------------------------------------------------
 * door */

/* Every part there is; that one is missing is no fault, that one is damaged is. */
static wan_status open_parts(wan_model *m, error *err) {
    static const unsigned bit[PARTS] = {
        [PART_DIT] = NEED_DIT, [PART_TEXT] = NEED_TEXT, [PART_VAE] = NEED_VAE};
    int found = 0;
    for (int p = 0; p < PARTS; p++) {
        error why = {0};
        if (!wan_model_require(m, bit[p], &why))
            found++;
        else if (why.code == WAN_E_IO || why.code == WAN_E_PARTS)
            wan_log(m->log, WAN_LOG_WARN, "no %s in the new file: %s", wan_part_name((part)p),
                    why.message);
        else
            return wan_fail(err, why.code, "%s", why.message);
    }
    return found ? wan_defaults_read(m, err)
                 : wan_fail(err, WAN_E_IO, "%s: no part of a model is there",
                            m->root ? m->root : "the model");
}

static wan_status read_tokenizer(conversion *c, error *err) {
    char room[4096];
    const char *path = wan_convert_tokenizer(c, room);
    if (!path)
        wan_log(c->m->log, WAN_LOG_WARN,
                "the model has no tokenizer: the new file has none either");
    return path && c->kind != PACKAGE_GGUF ? wan_spiece_bytes(path, &c->spiece, err) : WAN_OK;
}

/* The size is known before anything is written. */
static wan_status check_space(const conversion *c, const char *out, error *err) {
    char folder[4096];
    const char *slash = strrchr(out, '/');
    struct statvfs fs;
    uint64_t needs = 0;
    for (size_t i = 1; i < c->entries; i++)
        needs += wan_bytes(c->entry[i].t);
    int n = !slash || slash == out ? 1 : (int)(slash - out);
    if ((size_t)snprintf(folder, sizeof folder, "%.*s", n, slash ? out : ".") >= sizeof folder ||
        statvfs(folder, &fs) != 0)
        return WAN_OK;
    uint64_t left = (uint64_t)fs.f_bavail * fs.f_frsize;
    return left >= needs
               ? WAN_OK
               : wan_fail(err, WAN_E_SPACE, "%s: it takes %llu bytes, the disk has %llu free", out,
                          (unsigned long long)needs, (unsigned long long)left);
}

static wan_status prepare(conversion *c, const char *out, error *err) {
    int threads = c->m->threads < 64 ? c->m->threads : 64;
    c->kind = wan_package_of(out);
    if (wan_package_check(c->kind, out, c->o->recipe, err) ||
        (c->o->rules && !(c->rules = wan_rules_open(c->o->rules, err))) || open_parts(c->m, err) ||
        read_tokenizer(c, err) || wan_convert_plan(c, err) || check_space(c, out, err))
        return err->code;
    if (c->foreign)
        wan_log(c->m->log, WAN_LOG_WARN,
                "%zu tensors have a type that the new file cannot hold; they become F16",
                c->foreign);
    c->team = wan_team_open(threads, err);
    c->values = malloc((size_t)threads * CONVERT_VALUES * sizeof *c->values);
    return c->team && !c->values
               ? wan_fail(err, WAN_E_MEMORY, "no memory for %d blocks of rows", threads)
               : err->code;
}

wan_status wan_convert(wan_model *m, const char *out, const convert_options *o, error *err) {
    error local = {0};
    conversion c = {.m = m, .o = o};
    if (!prepare(&c, out, &local)) {
        if (c.kind == PACKAGE_GGUF)
            write_gguf(&c, out, &local);
        else if (c.kind == PACKAGE_SAFETENSORS)
            write_combined(&c, out, &local);
        else
            write_folder(&c, out, &local);
    }
    wan_team_close(c.team);
    wan_rules_close(c.rules);
    wan_convert_plan_free(&c);
    free(c.values);
    free(c.packed);
    free(c.scale);
    return local.code ? wan_fail(err, local.code, "%s", local.message) : WAN_OK;
}
