/* SPDX-License-Identifier: Apache-2.0 */
#include "model/dit_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST                                                                                       \
    1000000 /* no width or count of a real model comes near; keeps products inside int64_t */

static const stored *need(const store *s, const char *name, error *err) {
    const stored *t = wan_store_find(s, name);
    if (!t)
        wan_fail(err, WAN_E_SHAPE, "%s: tensor %s is missing, so this is no Wan transformer",
                 wan_store_path(s), name);
    return t;
}

/* Dimension `axis` of a tensor that must have at least `rank` axes. */
static wan_status axis_of(const store *s, const char *name, int rank, int axis, int64_t *out,
                          error *err) {
    const stored *t = need(s, name, err);
    if (!t)
        return WAN_E_SHAPE;
    char shape[128];
    if (t->t.rank < rank)
        return wan_fail(err, WAN_E_SHAPE, "%s: %s has shape %s, expected %d axes or more", t->file,
                        t->source, wan_shape_text(t->t, shape, sizeof shape), rank);
    *out = t->t.dim[axis];
    if (*out < 1 || *out > MOST)
        return wan_fail(err, WAN_E_SHAPE, "%s: %s has shape %s, expected 1 to %d in axis %d",
                        t->file, t->source, wan_shape_text(t->t, shape, sizeof shape), MOST, axis);
    return WAN_OK;
}

/* The integer config value under one of two keys; 0 when the config says nothing. */
static int64_t config_value(const json_t *config, const char *key, const char *other) {
    const json_t *v = json_object_get(config, key);
    if (!v)
        v = json_object_get(config, other);
    return json_is_integer(v) ? (int64_t)json_integer_value(v) : 0;
}

static wan_status agree(const store *s, const char *what, int64_t said, int64_t found, error *err) {
    if (!said || said == found)
        return WAN_OK;
    return wan_fail(err, WAN_E_SHAPE, "%s: config.json says %s is %lld, the tensors say %lld",
                    wan_store_path(s), what, (long long)said, (long long)found);
}

static int64_t count_layers(const store *s) {
    char name[64];
    int64_t n = 0;
    do
        snprintf(name, sizeof name, "blocks.%lld.self_attn.q.weight", (long long)n);
    while (wan_store_find(s, name) && ++n < MOST);
    return n;
}

static wan_status read_patch(dit_config *g, const store *s, const json_t *config, error *err) {
    const stored *t = need(s, "patch_embedding.weight", err);
    if (!t)
        return WAN_E_SHAPE;
    g->patch[0] = 1;
    g->patch[1] = g->patch[2] = 2;
    const json_t *list = json_object_get(config, "patch_size");
    for (size_t i = 0; i < 3 && json_array_size(list) == 3; i++)
        g->patch[i] = (int64_t)json_integer_value(json_array_get(list, i));
    if (t->t.rank == 5)
        memcpy(g->patch, t->t.dim + 2, sizeof g->patch);
    int64_t volume = 1;
    for (int i = 0; i < 3; i++) {
        if (g->patch[i] < 1 || g->patch[i] > 64)
            return wan_fail(err, WAN_E_SHAPE, "%s: patch size %lld in axis %d, expected 1 to 64",
                            t->file, (long long)g->patch[i], i);
        volume *= g->patch[i];
    }
    if (g->patch[0] != 1)
        return wan_fail(err, WAN_E_SHAPE, "%s: a patch spans %lld frames, only 1 is supported",
                        t->file, (long long)g->patch[0]);
    int64_t elements = wan_elements(t->t);
    if (elements % (g->dim * volume))
        return wan_fail(err, WAN_E_SHAPE,
                        "%s: %s has %lld values, not a multiple of %lld rows of %lld", t->file,
                        t->source, (long long)elements, (long long)g->dim, (long long)volume);
    g->in_channels = elements / (g->dim * volume);
    int64_t rows = 0;
    if (axis_of(s, "head.head.weight", 2, 0, &rows, err))
        return WAN_E_SHAPE;
    if (rows % volume)
        return wan_fail(err, WAN_E_SHAPE,
                        "%s: head.head.weight has %lld rows, not a multiple of the patch's %lld",
                        wan_store_path(s), (long long)rows, (long long)volume);
    g->out_channels = rows / volume;
    return WAN_OK;
}

/* No tensor tells how many heads there are: config.json or metadata must, or the real models' head
 * size of 128 does. */
static wan_status read_heads(dit_config *g, const store *s, const json_t *config, error *err) {
    g->heads = config_value(config, "num_attention_heads", "num_heads");
    const char *meta = wan_store_meta(s, "wan.attention.head_count");
    if (!g->heads && meta)
        g->heads = strtoll(meta, NULL, 10);
    if (!g->heads && g->dim % 128 == 0)
        g->heads = g->dim / 128;
    if (g->heads < 1 || g->dim % g->heads || (g->dim / g->heads) % 2 || g->dim / g->heads < 6)
        return wan_fail(err, WAN_E_SHAPE,
                        "%s: %lld heads for a width of %lld; each must be an even number of at "
                        "least 6 wide (config.json "
                        "or wan.attention.head_count tells the number)",
                        wan_store_path(s), (long long)g->heads, (long long)g->dim);
    int64_t head = config_value(config, "attention_head_dim", "attention_head_dim");
    return agree(s, "attention_head_dim", head, g->dim / g->heads, err);
}

static wan_status refuse_variants(const store *s, error *err) {
    if (wan_store_find(s, "img_emb.proj.0.bias"))
        return wan_fail(err, WAN_E_PARTS,
                        "%s: this transformer wants CLIP image features (Wan2.1 I2V); only "
                        "text-to-video and TI2V "
                        "transformers run so far",
                        wan_store_path(s));
    if (wan_store_find(s, "vace_patch_embedding.weight") ||
        wan_store_find(s, "control_adapter.conv.weight"))
        return wan_fail(err, WAN_E_PARTS, "%s: VACE and Fun-Control transformers are not supported",
                        wan_store_path(s));
    return WAN_OK;
}

wan_status wan_dit_config_read(dit_config *g, const store *s, error *err) {
    *g = (dit_config){.eps = 1e-6f};
    const json_t *config = wan_store_config(s);
    if (refuse_variants(s, err))
        return WAN_E_PARTS;
    if (axis_of(s, "time_embedding.0.weight", 2, 0, &g->dim, err) ||
        axis_of(s, "time_embedding.0.weight", 2, 1, &g->freq, err) ||
        axis_of(s, "text_embedding.0.weight", 2, 1, &g->text_dim, err) ||
        axis_of(s, "blocks.0.ffn.0.weight", 2, 0, &g->ffn, err) || read_patch(g, s, config, err) ||
        read_heads(g, s, config, err))
        return WAN_E_SHAPE;
    if (g->freq % 2)
        return wan_fail(err, WAN_E_SHAPE,
                        "%s: time_embedding.0.weight has %lld columns, expected an even number",
                        wan_store_path(s), (long long)g->freq);
    g->layers = count_layers(s);
    if (!g->layers)
        return wan_fail(err, WAN_E_SHAPE, "%s: blocks.0.self_attn.q.weight is missing: no blocks",
                        wan_store_path(s));
    const json_t *eps = json_object_get(config, "eps");
    if (json_is_number(eps) && json_number_value(eps) > 0)
        g->eps = (float)json_number_value(eps);
    if (g->in_channels != g->out_channels)
        return wan_fail(err, WAN_E_PARTS,
                        "%s: the transformer reads %lld channels and writes %lld; "
                        "image-conditioned A14B transformers "
                        "do not run so far",
                        wan_store_path(s), (long long)g->in_channels, (long long)g->out_channels);
    wan_status status = agree(s, "the number of layers",
                              config_value(config, "num_layers", "num_layers"), g->layers, err);
    if (!status)
        status = agree(s, "ffn_dim", config_value(config, "ffn_dim", "ffn_dim"), g->ffn, err);
    if (!status)
        status = agree(s, "dim", config_value(config, "dim", "dim"), g->dim, err);
    if (!status)
        status = agree(s, "in_channels", config_value(config, "in_channels", "in_dim"),
                       g->in_channels, err);
    if (!status)
        status = agree(s, "out_channels", config_value(config, "out_channels", "out_dim"),
                       g->out_channels, err);
    if (!status)
        status =
            agree(s, "text_dim", config_value(config, "text_dim", "text_dim"), g->text_dim, err);
    return status;
}
