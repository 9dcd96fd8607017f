/* SPDX-License-Identifier: Apache-2.0 */
/* dit_config.h - the transformer's numbers: from config.json (diffusers' or the official keys),
 * GGUF metadata, and the shapes of the tensors, which must agree. */
#ifndef WAN_MODEL_DIT_CONFIG_H
#define WAN_MODEL_DIT_CONFIG_H

#include "weights/store.h"

typedef struct dit_config {
    int64_t dim, heads, layers, ffn, freq, text_dim, in_channels, out_channels;
    int64_t patch[3];
    float eps;
} dit_config;

wan_status wan_dit_config_read(dit_config *g, const store *s, error *err);

#endif
