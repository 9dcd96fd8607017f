/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/conversion.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "tensor/quantise.h"
#include "tensor/quants.h"

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcasecmp(text + n - m, end);
}

package wan_package_of(const char *path) {
    return ends_with(path, ".gguf")          ? PACKAGE_GGUF
           : ends_with(path, ".safetensors") ? PACKAGE_SAFETENSORS
                                             : PACKAGE_FOLDER;
}

/* GGUF has neither codes with scales beside them nor 8-bit floats; safetensors has no blocks. */
static bool holds(package kind, dtype t) {
    bool codes = t == WAN_F8_E4M3 || t == WAN_F8_E5M2 || t == WAN_I8;
    return kind == PACKAGE_GGUF ? !codes : wan_dtype(t)->block == 1;
}

static const char *kind_name(package kind) {
    return kind == PACKAGE_GGUF ? "GGUF" : "safetensors";
}

wan_status wan_package_check(package kind, const char *path, const char *recipe, error *err) {
    dtype t;
    int64_t side[2] = {1024, 1024};
    tensor one = wan_tensor(WAN_F32, 2, side, NULL);
    if (!strcasecmp(recipe, "keep"))
        return WAN_OK;
    t = wan_recipe_type(recipe, PART_DIT, "blocks.0.self_attn.q.weight", one);
    if (t == WAN_DTYPES)
        return wan_fail(err, WAN_E_USAGE,
                        "type %s: no such recipe; there are keep, q8_0, q6_k, q5_k_m, q4_k_m, "
                        "... bf16, fp8, int8",
                        recipe);
    if (!holds(kind, t))
        return wan_fail(err, WAN_E_USAGE, "%s: %s has no type %s; it has keep, f32, f16, bf16%s",
                        path, kind_name(kind), recipe,
                        kind == PACKAGE_GGUF ? ", q8_0, q4_k_m and so on (fp8 and int8 go into "
                                               ".safetensors or a folder)"
                                             : ", fp8 and int8 (the others go into .gguf)");
    return WAN_OK;
}

/* ------------------------------------------------------------------------------------------------
 * types */

/* Codes with a scale for each row, or one for all, lie in safetensors as they do everywhere. */
static bool may_stay(package kind, const stored *s) {
    bool scaled = s->scale != NULL;
    return holds(kind, s->t.type) &&
           !(scaled && (kind == PACKAGE_GGUF || s->offset || !ends_with(s->name, ".weight")));
}

static wan_status check_rule(package kind, const stored *s, const char *name, dtype t, error *err) {
    const dtype_info *d = wan_dtype(t);
    char shape[128];
    if (!holds(kind, t))
        return wan_fail(err, WAN_E_USAGE, "--recipe: %s cannot be %s, which %s does not have", name,
                        d->name, kind_name(kind));
    if (t == WAN_F32 || t == WAN_F16 || t == WAN_BF16)
        return WAN_OK;
    if (s->t.rank != 2 || !ends_with(name, ".weight"))
        return wan_fail(err, WAN_E_USAGE, "--recipe: %s is %s; only matrices can be %s", name,
                        wan_shape_text(s->t, shape, sizeof shape), d->name);
    if (s->t.dim[1] % d->block)
        return wan_fail(err, WAN_E_USAGE,
                        "--recipe: %s has rows of %lld values, no multiple of the %d of a %s block",
                        name, (long long)s->t.dim[1], d->block, d->name);
    return WAN_OK;
}

static wan_status new_type(conversion *c, part p, const stored *s, const char *name, dtype *to,
                           error *err) {
    if (wan_rules_find(c->rules, name, to)) {
        if (*to != WAN_DTYPES && check_rule(c->kind, s, name, *to, err))
            return WAN_E_USAGE;
    } else {
        *to = wan_recipe_type(c->o->recipe, p, s->name, s->t);
    }
    if (*to == WAN_DTYPES) {
        *to = may_stay(c->kind, s) ? s->t.type : WAN_F16;
        c->foreign += *to != s->t.type;
    }
    return WAN_OK;
}

/* ------------------------------------------------------------------------------------------------
 * entries */

static entry *add(conversion *c, part p, const char *name, const stored *s, tensor t, error *err) {
    if (c->entries + 1 >= c->room) {
        size_t room = c->room ? 2 * c->room : 1024;
        entry *grown = realloc(c->entry, room * sizeof *grown);
        if (!grown) {
            wan_fail(err, WAN_E_MEMORY, "no memory for the names of the new file");
            return NULL;
        }
        c->entry = grown;
        c->room = room;
    }
    char *copy = strdup(name);
    if (!copy) {
        wan_fail(err, WAN_E_MEMORY, "no memory for the names of the new file");
        return NULL;
    }
    c->entries += !c->entries; /* [0] stays free */
    t.data = NULL;
    entry *e = &c->entry[c->entries++];
    *e = (entry){.name = copy, .part = p, .s = s, .t = t};
    return e;
}

/* NAME.weight's scales are called NAME.weight_scale. */
static wan_status add_scales(conversion *c, size_t codes, error *err) {
    char name[700];
    const entry e = c->entry[codes];
    snprintf(name, sizeof name, "%s_scale", e.name);
    const stored *kept = e.as_it_is ? e.s->scale : NULL;
    tensor t = kept ? kept->t : wan_tensor(WAN_F32, WAN_DIMS(e.t.dim[0], 1), NULL);
    entry *s = add(c, e.part, name, kept, t, err);
    if (!s)
        return WAN_E_MEMORY;
    s->as_it_is = kept != NULL;
    c->total += kept ? wan_bytes(kept->t) : 0;
    if (!kept)
        c->entry[codes].scales = c->entries - 1;
    return WAN_OK;
}

static wan_status add_stored(conversion *c, part p, const stored *s, error *err) {
    static const char *const prefix[PARTS] = {"", "text_encoder.", "vae."};
    char name[600];
    dtype to;
    snprintf(name, sizeof name, "%s%s", prefix[p], s->name);
    if (new_type(c, p, s, name, &to, err))
        return err->code;
    bool as_it_is = to == s->t.type && !s->channels_last;
    if (!as_it_is && (!wan_can_dequantise(s->t.type) || !(wan_can_quantise(to) || to == WAN_I8)))
        return wan_fail(err, WAN_E_TYPE, "%s: %s is %s, which cannot be converted", s->file,
                        s->source, wan_dtype(s->t.type)->name);
    tensor t = s->t;
    t.type = to;
    entry *e = add(c, p, name, s, t, err);
    if (!e)
        return WAN_E_MEMORY;
    e->as_it_is = as_it_is;
    c->total += wan_bytes(s->t);
    bool codes = to == WAN_F8_E4M3 || to == WAN_F8_E5M2 || to == WAN_I8;
    if (as_it_is ? s->scale != NULL : codes)
        return add_scales(c, c->entries - 1, err);
    return WAN_OK;
}

wan_status wan_convert_plan(conversion *c, error *err) {
    for (int p = 0; p < PARTS; p++)
        for (size_t i = 0; c->m->store[p] && i < wan_store_count(c->m->store[p]); i++) {
            const stored *s = wan_store_at(c->m->store[p], i);
            if (s->companion || !strcmp(s->name, "spiece_model"))
                continue;
            if (add_stored(c, (part)p, s, err))
                return err->code;
        }
    if (c->kind == PACKAGE_SAFETENSORS && c->spiece.size) {
        int64_t n = (int64_t)c->spiece.size;
        entry *e = add(c, PART_TEXT, "text_encoder.spiece_model", NULL,
                       wan_tensor(WAN_U8, 1, &n, NULL), err);
        if (!e)
            return WAN_E_MEMORY;
        e->bytes = c->spiece.s;
    }
    const char *unused = wan_rules_unused(c->rules);
    if (unused)
        return wan_fail(err, WAN_E_USAGE,
                        "--recipe: no tensor is called %.120s (wan inspect lists the names)",
                        unused);
    return WAN_OK;
}

void wan_convert_plan_free(conversion *c) {
    for (size_t i = 1; i < c->entries; i++)
        free(c->entry[i].name);
    free(c->entry);
    free(c->spiece.s);
}
