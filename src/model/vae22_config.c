/* SPDX-License-Identifier: Apache-2.0 */
#include "model/vae22_config.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#define MOST 65536 /* channels; no real model comes near, and products stay inside int64_t */

/* ----------------------------------------------------------------------------- from the shapes */

/* The convolution whose weight has the name that the format spells; NULL if there is none. */
__attribute__((format(printf, 2, 3))) static const stored *find(const store *s, const char *format,
                                                                ...) {
    char name[96];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    return wan_store_find(s, name);
}

static wan_status channels_of(const store *s, const stored *t, const char *name, int64_t *out,
                              int64_t *in, error *err) {
    char shape[128];
    if (!t)
        return wan_fail(err, WAN_E_SHAPE, "%s: tensor %s is missing, so this is no Wan2.2 VAE",
                        wan_store_path(s), name);
    if (t->t.rank < 4 || t->t.dim[0] < 1 || t->t.dim[0] > MOST || t->t.dim[1] < 1 ||
        t->t.dim[1] > MOST)
        return wan_fail(err, WAN_E_SHAPE,
                        "%s: %s has shape %s, expected a convolution of 1 to %d channels", t->file,
                        t->source, wan_shape_text(t->t, shape, sizeof shape), MOST);
    *out = t->t.dim[0];
    *in = t->t.dim[1];
    return WAN_OK;
}

static wan_status read_channels(const store *s, const char *name, int64_t *out, int64_t *in,
                                error *err) {
    return channels_of(s, wan_store_find(s, name), name, out, in, err);
}

/* Channels of one level: those of its first residual block. */
static wan_status read_level(vae22_level *l, const store *s, const char *prefix, int i,
                             error *err) {
    char name[96];
    snprintf(name, sizeof name, "%s.%d.%s.0.residual.2.weight", prefix, i, prefix + 8);
    if (read_channels(s, name, &l->out, &l->in, err))
        return WAN_E_SHAPE;
    l->resample = find(s, "%s.%d.resample.weight", prefix, i);
    l->temporal = find(s, "%s.%d.time_conv.weight", prefix, i);
    if (l->temporal && !l->resample)
        return wan_fail(err, WAN_E_SHAPE, "%s: %s.%d has a time_conv but no resample convolution",
                        wan_store_path(s), prefix, i);
    return WAN_OK;
}

/* `prefix` is "encoder.downsamples" or "decoder.upsamples"; the inner list has the name of the
 * outer. */
static wan_status read_side(vae22_side *d, const store *s, const char *prefix, error *err) {
    int64_t last = 0;
    char name[96];
    snprintf(name, sizeof name, "%.7s.conv1.weight", prefix);
    if (read_channels(s, name, &d->first, &d->in, err))
        return WAN_E_SHAPE;
    snprintf(name, sizeof name, "%.7s.head.2.weight", prefix);
    if (read_channels(s, name, &d->out, &last, err))
        return WAN_E_SHAPE;
    while (find(s, "%s.%d.%s.0.residual.2.weight", prefix, d->levels, prefix + 8))
        if (++d->levels > VAE22_LEVELS)
            return wan_fail(err, WAN_E_SHAPE, "%s: %s has more than %d levels", wan_store_path(s),
                            prefix, VAE22_LEVELS);
    while (find(s, "%s.0.%s.%d.residual.2.weight", prefix, prefix + 8, d->blocks))
        if (++d->blocks > VAE22_BLOCKS)
            return wan_fail(err, WAN_E_SHAPE, "%s: %s.0 has more than %d residual blocks",
                            wan_store_path(s), prefix, VAE22_BLOCKS);
    if (!d->levels)
        return wan_fail(err, WAN_E_PARTS, "%s: %s.0.%s.0.residual.2.weight is missing: %s",
                        wan_store_path(s), prefix, prefix + 8,
                        find(s, "%.7s.middle.0.residual.0.gamma", prefix)
                            ? "this looks like a Wan2.1 VAE, which does not run so far"
                            : "this is no Wan2.2 VAE");
    int64_t channels = d->first;
    for (int i = 0; i < d->levels; i++) {
        if (read_level(&d->level[i], s, prefix, i, err))
            return WAN_E_SHAPE;
        if (d->level[i].in != channels)
            return wan_fail(
                err, WAN_E_SHAPE, "%s: %s.%d reads %lld channels, what comes before it writes %lld",
                wan_store_path(s), prefix, i, (long long)d->level[i].in, (long long)channels);
        channels = d->level[i].out;
    }
    if (channels != last)
        return wan_fail(err, WAN_E_SHAPE,
                        "%s: %.7s.head.2.weight reads %lld channels, the last level writes %lld",
                        wan_store_path(s), prefix, (long long)last, (long long)channels);
    return WAN_OK;
}

static void factors(const vae22_side *d, int *spatial, int *temporal) {
    *spatial = *temporal = 1;
    for (int i = 0; i < d->levels; i++) {
        *spatial *= d->level[i].resample ? 2 : 1;
        *temporal *= d->level[i].temporal ? 2 : 1;
    }
}

/* Both shortcuts deal channels out evenly or not at all (vae.md 2.3, 2.4). */
static wan_status check_shortcuts(const vae22_config *g, const store *s, error *err) {
    for (int i = 0; i < g->encoder.levels; i++) {
        const vae22_level *l = &g->encoder.level[i];
        int64_t in = l->in * (l->temporal ? 2 : 1) * (l->resample ? 4 : 1);
        if (in % l->out)
            return wan_fail(err, WAN_E_SHAPE,
                            "%s: encoder level %d makes %lld channels of %lld, which its shortcut "
                            "cannot average",
                            wan_store_path(s), i, (long long)l->out, (long long)l->in);
    }
    for (int i = 0; i < g->decoder.levels; i++) {
        const vae22_level *l = &g->decoder.level[i];
        if (l->resample && l->out * (l->temporal ? 8 : 4) % l->in)
            return wan_fail(err, WAN_E_SHAPE,
                            "%s: decoder level %d makes %lld channels of %lld, which its shortcut "
                            "cannot repeat",
                            wan_store_path(s), i, (long long)l->out, (long long)l->in);
    }
    return WAN_OK;
}

static wan_status agree(const store *s, const char *what, int64_t one, int64_t other, error *err) {
    if (one == other)
        return WAN_OK;
    return wan_fail(err, WAN_E_SHAPE, "%s: %s (%lld and %lld)", wan_store_path(s), what,
                    (long long)one, (long long)other);
}

static wan_status read_shapes(vae22_config *g, const store *s, error *err) {
    int64_t quant = 0, twice = 0, z = 0;
    if (read_side(&g->encoder, s, "encoder.downsamples", err) ||
        read_side(&g->decoder, s, "decoder.upsamples", err) ||
        read_channels(s, "conv1.weight", &quant, &twice, err) ||
        read_channels(s, "conv2.weight", &g->z, &z, err))
        return err ? err->code : WAN_E_SHAPE;
    int spatial, temporal;
    factors(&g->encoder, &spatial, &temporal);
    factors(&g->decoder, &g->spatial, &g->temporal);
    while (3 * g->patch * g->patch < g->decoder.out)
        g->patch++;
    if (agree(s, "the latent channels of conv2 and of the decoder differ", g->z, g->decoder.in,
              err) ||
        agree(s, "conv2 changes the number of channels", g->z, z, err) ||
        agree(s, "conv1 does not make mean and variance of the latent channels", quant, 2 * g->z,
              err) ||
        agree(s, "conv1 does not fit the encoder", twice, g->encoder.out, err) ||
        agree(s, "encoder and decoder differ in pixels per latent", spatial, g->spatial, err) ||
        agree(s, "encoder and decoder differ in frames per latent", temporal, g->temporal, err) ||
        agree(s, "encoder and decoder differ in pixel channels", g->encoder.in, g->decoder.out,
              err) ||
        agree(s, "the decoder's output is no square patch of RGB pixels", 3 * g->patch * g->patch,
              g->decoder.out, err))
        return WAN_E_SHAPE;
    g->spatial *= g->patch;
    return check_shortcuts(g, s, err);
}

/* --------------------------------------------------------------------------------- config.json */

static wan_status said(const store *s, const json_t *config, const char *key, int64_t found,
                       error *err) {
    const json_t *v = json_object_get(config, key);
    if (!v || json_is_null(v) || (json_is_integer(v) && json_integer_value(v) == found))
        return WAN_OK;
    return wan_fail(err, WAN_E_SHAPE, "%s: config.json says %s is %lld, the tensors say %lld",
                    wan_store_path(s), key, (long long)json_integer_value(v), (long long)found);
}

static wan_status said_level(const store *s, const char *side, int i, int64_t want, int64_t found,
                             error *err) {
    if (want == found)
        return WAN_OK;
    return wan_fail(err, WAN_E_SHAPE,
                    "%s: config.json gives %s level %d %lld channels, the tensors have %lld",
                    wan_store_path(s), side, i, (long long)want, (long long)found);
}

/* dim_mult and temperal_downsample count from the encoder's first level; the decoder turns them
 * round. */
static wan_status check_lists(const vae22_config *g, const store *s, const json_t *config,
                              error *err) {
    const json_t *mult = json_object_get(config, "dim_mult"),
                 *time = json_object_get(config, "temperal_downsample");
    size_t levels = (size_t)g->encoder.levels, i = 0;
    if (g->decoder.levels != g->encoder.levels || json_array_size(mult) != levels)
        return wan_fail(err, WAN_E_SHAPE,
                        "%s: config.json has %zu entries in dim_mult, the tensors %d levels in the "
                        "encoder and %d in the "
                        "decoder",
                        wan_store_path(s), json_array_size(mult), g->encoder.levels,
                        g->decoder.levels);
    for (; i < levels; i++) {
        int64_t m = json_integer_value(json_array_get(mult, i));
        if (m < 1 || m > MOST)
            return wan_fail(err, WAN_E_FORMAT,
                            "%s: config.json: dim_mult[%zu] is %lld, expected 1 to %d",
                            wan_store_path(s), i, (long long)m, MOST);
        const vae22_level *d = &g->decoder.level[levels - 1 - i];
        if (said_level(s, "encoder", (int)i, g->encoder.first * m, g->encoder.level[i].out, err))
            return WAN_E_SHAPE;
        int64_t base = json_integer_value(json_object_get(config, "decoder_base_dim"));
        if (base > 0 && base <= MOST &&
            said_level(s, "decoder", (int)(levels - 1 - i), base * m, d->out, err))
            return WAN_E_SHAPE;
    }
    for (i = 0; i + 1 < levels && i < json_array_size(time); i++) {
        bool want = json_is_true(json_array_get(time, i));
        if (want != g->encoder.level[i].temporal ||
            want != g->decoder.level[levels - 2 - i].temporal)
            return wan_fail(
                err, WAN_E_SHAPE,
                "%s: config.json says temperal_downsample[%zu] is %s, the tensors differ",
                wan_store_path(s), i, want ? "true" : "false");
    }
    return WAN_OK;
}

static wan_status check_config(const vae22_config *g, const store *s, error *err) {
    const json_t *config = wan_store_config(s);
    if (!json_object_get(config, "dim_mult"))
        return WAN_OK; /* not a VAE's: the original layout has none */
    if (json_is_false(json_object_get(config, "is_residual")))
        return wan_fail(
            err, WAN_E_PARTS,
            "%s: config.json says is_residual is false: a Wan2.1 VAE, which does not run "
            "so far",
            wan_store_path(s));
    wan_status status = check_lists(g, s, config, err);
    if (!status)
        status = said(s, config, "base_dim", g->encoder.first, err);
    if (!status)
        status = said(s, config, "z_dim", g->z, err);
    if (!status)
        status = said(s, config, "num_res_blocks", g->encoder.blocks, err);
    if (!status)
        status = agree(s, "the decoder has not one residual block more per level than the encoder",
                       g->encoder.blocks + 1, g->decoder.blocks, err);
    if (!status)
        status = said(s, config, "patch_size", g->patch, err);
    if (!status)
        status = said(s, config, "in_channels", g->encoder.in, err);
    if (!status)
        status = said(s, config, "out_channels", g->decoder.out, err);
    return status;
}

wan_status wan_vae22_config_read(vae22_config *g, const store *s, error *err) {
    *g = (vae22_config){0};
    wan_status status = read_shapes(g, s, err);
    return status ? status : check_config(g, s, err);
}

/* ---------------------------------------------------------------------------------- statistics */

/* vae.md 2.1 */
#define RELEASED_Z 48
static const double released_mean[RELEASED_Z] = {
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174,  0.1838,  0.1557,  -0.1382, 0.0542,
    0.2813,  0.0891,  0.1570,  -0.0098, 0.0375,  -0.1825, -0.2246, -0.1207, -0.0698, 0.5109,
    0.2665,  -0.2108, -0.2158, 0.2502,  -0.2055, -0.0322, 0.1109,  0.1567,  -0.0729, 0.0899,
    -0.2799, -0.1230, -0.0313, -0.1649, 0.0117,  0.0723,  -0.2839, -0.2083, -0.0520, 0.3748,
    0.0152,  0.1957,  0.1433,  -0.2944, 0.3573,  -0.0548, -0.1681, -0.0667};
static const double released_std[RELEASED_Z] = {
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
    0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
    0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744};

static wan_status copy_values(const store *s, const json_t *list, const char *key, int64_t z,
                              float *out, error *err) {
    if (json_array_size(list) != (size_t)z)
        return wan_fail(err, WAN_E_FORMAT, "%s: %s has %zu values, the VAE %lld latent channels",
                        wan_store_path(s), key, json_array_size(list), (long long)z);
    for (int64_t i = 0; i < z; i++) {
        const json_t *v = json_array_get(list, (size_t)i);
        out[i] = (float)json_number_value(v);
        if (!json_is_number(v) || !isfinite(out[i]))
            return wan_fail(err, WAN_E_FORMAT, "%s: %s[%lld] is no finite number",
                            wan_store_path(s), key, (long long)i);
    }
    return WAN_OK;
}

/* WAN_OK and *found false when the key is nowhere. */
static wan_status read_values(const store *s, const char *key, int64_t z, float *out, bool *found,
                              error *err) {
    const json_t *config = wan_store_config(s), *list = json_object_get(config, key);
    if (!list)
        list = json_object_get(json_object_get(config, "vae"), key);
    const char *text = wan_store_meta(s, key);
    *found = list || text;
    if (list || !text)
        return list ? copy_values(s, list, key, z, out, err) : WAN_OK;
    json_error_t why;
    json_t *parsed = json_loads(text, 0, &why);
    wan_status status = parsed ? copy_values(s, parsed, key, z, out, err)
                               : wan_fail(err, WAN_E_FORMAT, "%s: metadata %s is no JSON list: %s",
                                          wan_store_path(s), key, why.text);
    json_decref(parsed);
    return status;
}

wan_status wan_vae22_statistics(const store *s, int64_t z, float *mean, float *inv_std,
                                error *err) {
    bool has_mean, has_std;
    wan_status status = read_values(s, "latents_mean", z, mean, &has_mean, err);
    if (!status)
        status = read_values(s, "latents_std", z, inv_std, &has_std, err);
    if (status)
        return status;
    if (has_mean != has_std || (!has_mean && z != RELEASED_Z))
        return wan_fail(err, WAN_E_PARTS,
                        "%s: %s of the %lld latent channels is missing; it belongs into "
                        "config.json (of the VAE, or under "
                        "the key \"vae\" of the model's) or into the file's metadata",
                        wan_store_path(s), has_mean ? "latents_std" : "latents_mean", (long long)z);
    for (int64_t i = 0; i < z; i++) {
        if (!has_mean) {
            mean[i] = (float)released_mean[i];
            inv_std[i] = (float)released_std[i];
        }
        if (!(inv_std[i] > 0) || !isfinite(1 / inv_std[i]))
            return wan_fail(err, WAN_E_FORMAT, "%s: latents_std[%lld] is %g, expected more than 0",
                            wan_store_path(s), (long long)i, (double)inv_std[i]);
        inv_std[i] = 1 / inv_std[i];
    }
    return WAN_OK;
}
