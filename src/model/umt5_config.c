/* SPDX-License-Identifier: Apache-2.0 */
#include "model/umt5_config.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST                                                                                       \
    1000000 /* no width or count of a real model comes near; keeps products inside int64_t */
#define COUNT(a) (sizeof(a) / sizeof(a)[0])

/* Both sides of a matrix; either may be NULL. */
static wan_status matrix(const store *s, const char *name, int64_t *rows, int64_t *columns,
                         error *err) {
    const stored *w = wan_store_find(s, name);
    if (!w)
        return wan_fail(err, WAN_E_SHAPE, "%s: tensor %s is missing, so this is no UMT5 encoder",
                        wan_store_path(s), name);
    char shape[128];
    if (w->t.rank != 2 || w->t.dim[0] < 1 || w->t.dim[0] > MOST || w->t.dim[1] < 1 ||
        w->t.dim[1] > MOST)
        return wan_fail(err, WAN_E_SHAPE,
                        "%s: %s has shape %s, expected a matrix with sides of 1 to %d", w->file,
                        w->source, wan_shape_text(w->t, shape, sizeof shape), MOST);
    if (rows)
        *rows = w->t.dim[0];
    if (columns)
        *columns = w->t.dim[1];
    return WAN_OK;
}

static int64_t count_layers(const store *s) {
    char name[64];
    int64_t n = 0;
    do
        snprintf(name, sizeof name, "blocks.%lld.attn.q.weight", (long long)n);
    while (wan_store_find(s, name) && ++n < MOST);
    return n;
}

static wan_status read_shapes(umt5_config *g, const store *s, error *err) {
    if (matrix(s, "token_embedding.weight", &g->vocab, &g->dim, err) ||
        matrix(s, "blocks.0.attn.q.weight", &g->inner, NULL, err) ||
        matrix(s, "blocks.0.pos_embedding.embedding.weight", &g->buckets, &g->heads, err) ||
        matrix(s, "blocks.0.ffn.fc1.weight", &g->ffn, NULL, err))
        return WAN_E_SHAPE;
    g->layers = count_layers(s);
    if (g->layers > 1 && !wan_store_find(s, "blocks.1.pos_embedding.embedding.weight"))
        return wan_fail(err, WAN_E_PARTS,
                        "%s: only the first of %lld layers has a table of position biases: a T5 "
                        "v1.1 encoder, Wan needs "
                        "UMT5",
                        wan_store_path(s), (long long)g->layers);
    if (g->inner % g->heads)
        return wan_fail(err, WAN_E_SHAPE,
                        "%s: q has %lld rows, not a multiple of the bias tables' %lld heads",
                        wan_store_path(s), (long long)g->inner, (long long)g->heads);
    return WAN_OK;
}

/* A whole number somebody states about the model: under `key` of the config, or `meta` of a GGUF;
 * 0: nobody does. */
static int64_t stated(const store *s, const json_t *config, const char *key, const char *meta) {
    const json_t *v = json_object_get(config, key);
    if (json_is_integer(v))
        return (int64_t)json_integer_value(v);
    const char *text = meta ? wan_store_meta(s, meta) : NULL;
    return text ? strtoll(text, NULL, 10) : 0;
}

static wan_status check_stated(const umt5_config *g, const store *s, const json_t *config,
                               error *err) {
    const struct {
        const char *key, *meta;
        int64_t found;
    } row[] = {
        {"vocab_size", NULL, g->vocab},
        {"d_model", "t5encoder.embedding_length", g->dim},
        {"num_layers", "t5encoder.block_count", g->layers},
        {"num_heads", "t5encoder.attention.head_count", g->heads},
        {"d_kv", "t5encoder.attention.key_length", g->inner / g->heads},
        {"d_ff", "t5encoder.feed_forward_length", g->ffn},
        {"relative_attention_num_buckets", "t5encoder.attention.relative_buckets_count",
         g->buckets},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        int64_t said = stated(s, config, row[i].key, row[i].meta);
        if (said && said != row[i].found)
            return wan_fail(
                err, WAN_E_SHAPE, "%s: its configuration says %s is %lld, the tensors say %lld",
                wan_store_path(s), row[i].key, (long long)said, (long long)row[i].found);
    }
    const char *kind = json_string_value(json_object_get(config, "feed_forward_proj"));
    if (kind && strcmp(kind, "gated-gelu") != 0)
        return wan_fail(err, WAN_E_PARTS, "%s: feed_forward_proj is %s, UMT5 has gated-gelu",
                        wan_store_path(s), kind);
    return WAN_OK;
}

wan_status wan_umt5_config_read(umt5_config *g, const store *s, error *err) {
    *g = (umt5_config){.max_distance = 128, .eps = 1e-6f};
    wan_status status = read_shapes(g, s, err);
    if (status)
        return status;
    /* In the official layout the config.json at hand is the transformer's; its num_heads is not
     * ours. */
    const json_t *config = wan_store_config(s);
    if (!json_object_get(config, "d_model"))
        config = NULL;
    status = check_stated(g, s, config, err);
    if (status)
        return status;
    int64_t distance = stated(s, config, "relative_attention_max_distance", NULL);
    if (distance)
        g->max_distance = distance;
    if (g->buckets < 4 || g->buckets % 2 || g->max_distance <= g->buckets / 4 ||
        g->max_distance > MOST)
        return wan_fail(err, WAN_E_SHAPE,
                        "%s: %lld position buckets up to distance %lld; an even number of at least "
                        "4, and a distance "
                        "past a quarter of it, are needed",
                        wan_store_path(s), (long long)g->buckets, (long long)g->max_distance);
    const json_t *eps = json_object_get(config, "layer_norm_epsilon");
    const char *meta = wan_store_meta(s, "t5encoder.attention.layer_norm_rms_epsilon");
    double value = json_is_number(eps) ? json_number_value(eps) : meta ? strtod(meta, NULL) : 1e-6;
    if (!(value > 0 && value < 1))
        return wan_fail(err, WAN_E_SHAPE, "%s: layer_norm_epsilon is %g, expected between 0 and 1",
                        wan_store_path(s), value);
    g->eps = (float)value;
    return WAN_OK;
}

int64_t wan_umt5_bucket(int64_t relative, int64_t buckets, int64_t max_distance) {
    int64_t half = buckets / 2, exact = half / 2, base = relative > 0 ? half : 0;
    int64_t distance = relative < 0 ? -relative : relative;
    assert(exact > 0 && max_distance > exact);
    if (distance < exact)
        return base + distance;
    /* In float and in this order, as torch does it: where the quotient is a whole number, rounding
     * decides. */
    float ratio = (float)log((double)((float)distance / (float)exact));
    float scale = (float)log((double)max_distance / (double)exact);
    int64_t far = exact + (int64_t)(ratio / scale * (float)(half - exact));
    return base + (far < half - 1 ? far : half - 1);
}
