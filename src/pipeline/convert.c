/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/convert.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/team.h"
#include "io/gguf_write.h"
#include "model/dit_config.h"
#include "sample/solver.h"
#include "tensor/quantise.h"
#include "tensor/quants.h"
#include "text/spiece.h"
#include "weights/layout.h"

/* Values of a block of rows on their way through f32. */
#define ROWS_VALUES (1 << 20)

typedef struct conversion {
    wan_model *m;
    const convert_options *o;
    gguf_writer *w;
    team *team;
    uint64_t done, total; /* bytes read */
    float *values;        /* [threads, ROWS_VALUES] */
    char *packed;         /* the block in its new type */
    size_t packed_room;
} conversion;

static const char *const prefix[PARTS] = {"", "text_encoder.", "vae."};

static dtype new_type(const conversion *c, part p, const stored *s) {
    dtype t = strcasecmp(c->o->recipe, "keep") ? wan_recipe_type(c->o->recipe, p, s->name, s->t)
                                               : WAN_DTYPES;
    if (t != WAN_DTYPES)
        return t;
    /* GGUF has neither codes with scales beside them nor 8-bit floats. */
    bool codes = s->scale || s->t.type == WAN_F8_E4M3 || s->t.type == WAN_F8_E5M2;
    return codes ? WAN_F16 : s->t.type;
}

/* -------------------------------------------------------------------------------------------------------
 * metadata */

static void announce(conversion *c) {
    char name[600];
    for (int p = 0; p < PARTS; p++)
        for (size_t i = 0; c->m->store[p] && i < wan_store_count(c->m->store[p]); i++) {
            const stored *s = wan_store_at(c->m->store[p], i);
            if (s->companion)
                continue;
            tensor t = s->t;
            t.type = new_type(c, (part)p, s);
            snprintf(name, sizeof name, "%s%s", prefix[p], s->name);
            wan_gguf_write_tensor(c->w, name, t);
            c->total += wan_bytes(s->t);
        }
}

static wan_status write_tokenizer(conversion *c, const char *path, error *err) {
    static const int32_t kind_of[] = {[PIECE_PLAIN] = 1,
                                      [PIECE_UNKNOWN] = 2,
                                      [PIECE_CONTROL] = 3,
                                      [PIECE_ADDED] = 4,
                                      [PIECE_UNUSED] = 5};
    spiece s;
    if (wan_spiece_open(&s, path, err))
        return err->code;
    const char **text = calloc((size_t)s.count + 1, sizeof *text);
    float *score = calloc((size_t)s.count + 1, sizeof *score);
    int32_t *kind = calloc((size_t)s.count + 1, sizeof *kind);
    if (!text || !score || !kind)
        wan_fail(err, WAN_E_MEMORY, "%s: no memory to copy the tokenizer", path);
    for (int i = 0; !err->code && i < s.count; i++) {
        text[i] = s.pieces[i].text;
        score[i] = (float)s.pieces[i].score;
        kind[i] = kind_of[s.pieces[i].kind];
    }
    if (!err->code) {
        wan_gguf_write_string(c->w, "tokenizer.ggml.model", "t5");
        wan_gguf_write_strings(c->w, "tokenizer.ggml.tokens", text, (uint64_t)s.count);
        wan_gguf_write_f32s(c->w, "tokenizer.ggml.scores", score, (uint64_t)s.count);
        wan_gguf_write_i32s(c->w, "tokenizer.ggml.token_type", kind, (uint64_t)s.count);
        wan_gguf_write_bool(c->w, "tokenizer.ggml.add_space_prefix", true);
        wan_gguf_write_bool(c->w, "tokenizer.ggml.remove_extra_whitespaces", false);
        wan_gguf_write_u32(c->w, "tokenizer.ggml.eos_token_id", (uint32_t)s.eos);
        wan_gguf_write_u32(c->w, "tokenizer.ggml.padding_token_id", (uint32_t)s.pad);
        wan_gguf_write_u32(c->w, "tokenizer.ggml.unknown_token_id", (uint32_t)s.unk);
    }
    free(text);
    free(score);
    free(kind);
    wan_spiece_free(&s);
    return err->code;
}

/* latents_mean and latents_std of wherever the VAE's statistics are said, as the JSON text that our
 * VAE reads. */
static void write_statistics(conversion *c) {
    static const char *const key[] = {"latents_mean", "latents_std"};
    const store *s = c->m->store[PART_VAE];
    const json_t *config = wan_store_config(s), *inner = json_object_get(config, "vae");
    for (int i = 0; i < 2; i++) {
        const json_t *list = json_object_get(inner ? inner : config, key[i]);
        const char *meta = wan_store_meta(s, key[i]);
        char *text = json_is_array(list) ? json_dumps(list, JSON_REAL_PRECISION(9)) : NULL;
        if (text || meta)
            wan_gguf_write_string(c->w, key[i], text ? text : meta);
        free(text);
    }
}

static void write_defaults(conversion *c) {
    const model_defaults *d = &c->m->defaults;
    json_t *j =
        json_pack("{s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:s, s:s}", "width", d->width, "height",
                  d->height, "frames", d->frames, "steps", d->steps, "fps", d->fps, "guidance",
                  d->guidance, "shift", d->shift, "sampler", wan_sampler_name(d->sampler),
                  "negative_prompt", d->negative ? d->negative : "");
    if (d->prompt)
        json_object_set_new(j, "prompt", json_string(d->prompt));
    char *text = json_dumps(j, JSON_REAL_PRECISION(9));
    if (text)
        wan_gguf_write_string(c->w, "wan.defaults", text);
    free(text);
    json_decref(j);
}

/* The file's name without its folder. */
static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static wan_status write_metadata(conversion *c, error *err) {
    const store *const *s = (const store *const *)c->m->store;
    char parts[64], path[4096];
    snprintf(parts, sizeof parts, "%s%s%s", s[PART_DIT] ? "transformer " : "",
             s[PART_TEXT] ? "text_encoder " : "", s[PART_VAE] ? "vae " : "");
    wan_gguf_write_string(c->w, "general.architecture", "wan");
    const store *first = s[PART_DIT] ? s[PART_DIT] : s[PART_TEXT] ? s[PART_TEXT] : s[PART_VAE];
    const char *licence = c->o->licence ? c->o->licence : wan_store_meta(first, "general.license");
    if (licence) /* weights have a licence of their own, which nobody can guess */
        wan_gguf_write_string(c->w, "general.license", licence);
    wan_gguf_write_u32(c->w, "general.base_model.count", 1);
    wan_gguf_write_string(c->w, "general.base_model.0.name",
                          c->o->base_model ? c->o->base_model : base_name(wan_store_path(first)));
    wan_gguf_write_u32(c->w, "general.quantization_version", 2);
    wan_gguf_write_string(c->w, "wan.parts", parts);
    wan_gguf_write_string(c->w, "wan.recipe", c->o->recipe);
    dit_config g;
    if (s[PART_DIT] && !wan_dit_config_read(&g, s[PART_DIT], err))
        wan_gguf_write_u32(c->w, "wan.attention.head_count", (uint32_t)g.heads);
    if (s[PART_VAE])
        write_statistics(c);
    write_defaults(c);
    error none = {0};
    const char *spiece_path = c->m->tokenizer_path;
    if (!spiece_path && c->m->root &&
        !wan_layout_find_tokenizer(c->m->root, path, sizeof path, &none))
        spiece_path = path;
    if (spiece_path)
        return write_tokenizer(c, spiece_path, err);
    wan_log(c->m->log, WAN_LOG_WARN, "the model has no tokenizer: the new file has none either");
    return err->code;
}

/* -----------------------------------------------------------------------------------------------------------
 * data */

typedef struct block {
    conversion *c;
    const stored *s;
    dtype to;
    int64_t row, rows, cols;
    error err[64]; /* of each worker */
} block;

static void repack(void *arg, int64_t from, int64_t to, int worker) {
    block *b = arg;
    float *values = b->c->values + (int64_t)worker * ROWS_VALUES;
    const dtype_info *z = wan_dtype(b->to);
    size_t out = wan_bytes(wan_tensor(b->to, 1, &b->cols, NULL));
    for (int64_t r = from; r < to; r++) {
        /* A row longer than the space goes piece by piece; pieces are whole blocks of every type.
         */
        for (int64_t k = 0; k < b->cols; k += ROWS_VALUES) {
            int64_t n = b->cols - k < ROWS_VALUES ? b->cols - k : ROWS_VALUES;
            wan_stored_read(b->s, values, (b->row + r) * b->cols + k, n);
            wan_quantise(b->to, b->c->packed + (size_t)r * out + (size_t)(k / z->block * z->bytes),
                         values, n, &b->err[worker]);
        }
    }
}

static wan_status tell(conversion *c, const stored *s, size_t bytes, error *err) {
    c->done += bytes;
    if (c->o->progress)
        c->o->progress(c->o->progress_user, s->name, c->done, c->total);
    if (c->o->cancelled && c->o->cancelled(c->o->cancel_user))
        return wan_fail(err, WAN_E_CANCELLED, "cancelled");
    return WAN_OK;
}

static wan_status write_as_stored(conversion *c, const stored *s, error *err) {
    size_t bytes = wan_bytes(s->t), step = (size_t)32 << 20;
    for (size_t at = 0; at < bytes; at += step) {
        size_t n = bytes - at < step ? bytes - at : step;
        if (wan_gguf_write_data(c->w, (const char *)s->t.data + at, n, err) || tell(c, s, n, err))
            return err->code;
    }
    return WAN_OK;
}

static wan_status write_repacked(conversion *c, const stored *s, dtype to, error *err) {
    int64_t cols = s->t.rank ? s->t.dim[s->t.rank - 1] : 1;
    int64_t rows = cols ? wan_elements(s->t) / cols : 0;
    tensor one = wan_tensor(to, 1, &cols, NULL), source = wan_tensor(s->t.type, 1, &cols, NULL);
    int64_t step = ROWS_VALUES * (int64_t)wan_team_threads(c->team) / (cols ? cols : 1);
    step = step < 1 ? 1 : step;
    if (wan_bytes(one) * (size_t)step > c->packed_room) {
        free(c->packed);
        c->packed_room = wan_bytes(one) * (size_t)step;
        c->packed = malloc(c->packed_room);
        if (!c->packed) {
            c->packed_room = 0;
            return wan_fail(err, WAN_E_MEMORY, "no memory to convert %s", s->source);
        }
    }
    for (int64_t r = 0; r < rows; r += step) {
        block b = {.c = c,
                   .s = s,
                   .to = to,
                   .row = r,
                   .rows = rows - r < step ? rows - r : step,
                   .cols = cols};
        wan_team_run(c->team, b.rows, 1 + 16384 / (cols ? cols : 1), repack, &b);
        for (size_t i = 0; i < sizeof b.err / sizeof b.err[0]; i++)
            if (b.err[i].code)
                return wan_fail(err, b.err[i].code, "%s: %s: %s", s->file, s->source,
                                b.err[i].message);
        if (wan_gguf_write_data(c->w, c->packed, wan_bytes(one) * (size_t)b.rows, err) ||
            tell(c, s, wan_bytes(source) * (size_t)b.rows, err))
            return err->code;
    }
    return WAN_OK;
}

static wan_status write_tensors(conversion *c, error *err) {
    for (int p = 0; p < PARTS; p++) {
        const store *s = c->m->store[p];
        for (size_t i = 0; s && i < wan_store_count(s); i++) {
            const stored *t = wan_store_at(s, i);
            if (t->companion)
                continue;
            dtype to = new_type(c, (part)p, t);
            bool as_it_is = to == t->t.type && !t->channels_last;
            if (!as_it_is && (!wan_can_dequantise(t->t.type) || !wan_can_quantise(to)))
                return wan_fail(err, WAN_E_TYPE, "%s: %s is %s, which cannot be converted", t->file,
                                t->source, wan_dtype(t->t.type)->name);
            if (as_it_is ? write_as_stored(c, t, err) : write_repacked(c, t, to, err))
                return err->code;
            if (i % 16 == 15)
                wan_store_drop_pages(s);
        }
        if (s)
            wan_store_drop_pages(s);
    }
    return WAN_OK;
}

/* -----------------------------------------------------------------------------------------------------------
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

static bool known_recipe(const char *name) {
    for (const char *const *n = wan_recipe_names(); *n; n++)
        if (!strcasecmp(*n, name))
            return true;
    return false;
}

wan_status wan_convert(wan_model *m, const char *out, const convert_options *o, error *err) {
    error local = {0};
    conversion c = {.m = m, .o = o};
    int threads = m->threads < 64 ? m->threads : 64;
    if (!known_recipe(o->recipe))
        return wan_fail(
            err, WAN_E_USAGE,
            "type %s: no such recipe; there are keep, q8_0, q6_k, q5_k_m, q4_k_m, ... bf16",
            o->recipe);
    if (!open_parts(m, &local)) {
        c.team = wan_team_open(threads, &local);
        c.values = malloc((size_t)threads * ROWS_VALUES * sizeof *c.values);
        if (c.team && !c.values)
            wan_fail(&local, WAN_E_MEMORY, "no memory for %d blocks of rows", threads);
    }
    c.w = local.code ? NULL : wan_gguf_write_open(out, &local);
    if (c.w) {
        write_metadata(&c, &local);
        announce(&c);
        if (!local.code && !write_tensors(&c, &local))
            wan_gguf_write_commit(c.w, &local);
        else
            wan_gguf_write_abort(c.w);
    }
    wan_team_close(c.team);
    free(c.values);
    free(c.packed);
    return local.code ? wan_fail(err, local.code, "%s", local.message) : WAN_OK;
}
