/* SPDX-License-Identifier: Apache-2.0 */
/* What a converted file says beside its tensors. */
#include "pipeline/conversion.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/dit_config.h"
#include "sample/solver.h"
#include "text/spiece.h"
#include "weights/layout.h"

const char *wan_convert_tokenizer(const conversion *c, char room[4096]) {
    error none = {0};
    if (c->m->tokenizer_path)
        return c->m->tokenizer_path;
    return c->m->root && !wan_layout_find_tokenizer(c->m->root, room, 4096, &none) ? room : NULL;
}

json_t *wan_convert_defaults(const conversion *c) {
    const model_defaults *d = &c->m->defaults;
    json_t *j =
        json_pack("{s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:s, s:s}", "width", d->width, "height",
                  d->height, "frames", d->frames, "steps", d->steps, "fps", d->fps, "guidance",
                  d->guidance, "shift", d->shift, "sampler", wan_sampler_name(d->sampler),
                  "negative_prompt", d->negative ? d->negative : "");
    if (d->prompt)
        json_object_set_new(j, "prompt", json_string(d->prompt));
    return j;
}

static void set(json_t *out, const char *key, const char *value) {
    if (value)
        json_object_set_new(out, key, json_string(value));
}

static void set_json(json_t *out, const char *key, const json_t *value) {
    char *text = value ? json_dumps(value, JSON_REAL_PRECISION(9)) : NULL;
    set(out, key, text);
    free(text);
}

/* latents_mean and latents_std of wherever the VAE's statistics are said, as the JSON text that our
 * VAE reads. */
static void set_statistics(json_t *out, const store *s) {
    static const char *const key[] = {"latents_mean", "latents_std"};
    const json_t *config = wan_store_config(s), *inner = json_object_get(config, "vae");
    for (int i = 0; i < 2; i++) {
        const json_t *list = json_object_get(inner ? inner : config, key[i]);
        set(out, key[i], wan_store_meta(s, key[i]));
        if (json_is_array(list))
            set_json(out, key[i], list);
    }
}

/* The file's name without its folder. */
static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

json_t *wan_convert_strings(const conversion *c) {
    const store *const *s = (const store *const *)c->m->store;
    const store *first = s[PART_DIT] ? s[PART_DIT] : s[PART_TEXT] ? s[PART_TEXT] : s[PART_VAE];
    char parts[64];
    json_t *out = json_object(), *defaults = wan_convert_defaults(c);
    snprintf(parts, sizeof parts, "%s%s%s", s[PART_DIT] ? "transformer " : "",
             s[PART_TEXT] ? "text_encoder " : "", s[PART_VAE] ? "vae " : "");
    set(out, "general.architecture", "wan");
    /* Weights have a licence of their own, which nobody can guess. */
    set(out, "general.license",
        c->o->licence ? c->o->licence : wan_store_meta(first, "general.license"));
    const char *base = wan_store_meta(first, "general.base_model.0.name");
    set(out, "general.base_model.0.name",
        c->o->base_model ? c->o->base_model
        : base           ? base
                         : base_name(wan_store_path(first)));
    set(out, "wan.parts", parts);
    set(out, "wan.recipe", c->o->recipe);
    if (s[PART_VAE])
        set_statistics(out, s[PART_VAE]);
    set_json(out, "wan.defaults", defaults);
    json_decref(defaults);
    return out;
}

static wan_status write_tokenizer(gguf_writer *w, const char *path, error *err) {
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
        wan_gguf_write_string(w, "tokenizer.ggml.model", "t5");
        wan_gguf_write_strings(w, "tokenizer.ggml.tokens", text, (uint64_t)s.count);
        wan_gguf_write_f32s(w, "tokenizer.ggml.scores", score, (uint64_t)s.count);
        wan_gguf_write_i32s(w, "tokenizer.ggml.token_type", kind, (uint64_t)s.count);
        wan_gguf_write_bool(w, "tokenizer.ggml.add_space_prefix", true);
        wan_gguf_write_bool(w, "tokenizer.ggml.remove_extra_whitespaces", false);
        wan_gguf_write_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)s.eos);
        wan_gguf_write_u32(w, "tokenizer.ggml.padding_token_id", (uint32_t)s.pad);
        wan_gguf_write_u32(w, "tokenizer.ggml.unknown_token_id", (uint32_t)s.unk);
    }
    free(text);
    free(score);
    free(kind);
    wan_spiece_free(&s);
    return err->code;
}

wan_status wan_convert_gguf_metadata(const conversion *c, gguf_writer *w, error *err) {
    char room[4096];
    const char *key, *path = wan_convert_tokenizer(c, room);
    json_t *strings = wan_convert_strings(c), *value;
    json_object_foreach(strings, key, value) {
        wan_gguf_write_string(w, key, json_string_value(value));
    }
    json_decref(strings);
    wan_gguf_write_u32(w, "general.base_model.count", 1);
    wan_gguf_write_u32(w, "general.quantization_version", 2);
    dit_config g;
    const store *transformer = c->m->store[PART_DIT];
    if (transformer && !wan_dit_config_read(&g, transformer, err))
        wan_gguf_write_u32(w, "wan.attention.head_count", (uint32_t)g.heads);
    return err->code || !path ? err->code : write_tokenizer(w, path, err);
}
