/* SPDX-License-Identifier: Apache-2.0 */
/* umt5_config.h - the text encoder's numbers: from config.json, GGUF metadata, and the shapes of
 * the tensors, which must agree; and the rule that turns a distance between tokens into a row of
 * the bias table. */
#ifndef WAN_MODEL_UMT5_CONFIG_H
#define WAN_MODEL_UMT5_CONFIG_H

#include "weights/store.h"

typedef struct umt5_config {
    int64_t vocab, dim, heads, inner, ffn, layers; /* inner = heads * width of a head */
    int64_t buckets, max_distance;
    float eps;
} umt5_config;

wan_status wan_umt5_config_read(umt5_config *g, const store *s, error *err);

/* The bucket of key - query = `relative`: half of them for keys behind the query; near distances
 * one by one, far ones by their logarithm up to max_distance (text.md 1.3).  buckets is even and at
 * least 4, max_distance > buckets / 4. */
int64_t wan_umt5_bucket(int64_t relative, int64_t buckets, int64_t max_distance);

#endif
