/* SPDX-License-Identifier: Apache-2.0 */
/* codes.h - weights that lie as codes beside their scales: fp8 and int8 files, MLX packages.
 * ../shared/spec/formats.md 6.2 and 7.2.  A store joins them once, when it opens; whoever reads a
 * weight finds its scales at hand and need not know who wrote the file. */
#ifndef WAN_WEIGHTS_CODES_H
#define WAN_WEIGHTS_CODES_H

#include "io/lookup.h"
#include "weights/store.h"

/* For each item called X.weight looks for X.weight_scale, X.scale_weight, X.scales and X.biases,
 * checks their shapes, and sets scale, offset and companion.  Packed MLX words become a tensor of
 * codes.  `level` is an MLX package's "quantization_level", or NULL; `formats` ComfyUI's
 * _quantization_metadata, or NULL.  Formats that are not read are refused by name. */
wan_status wan_codes_join(stored *items, size_t count, const lookup *names, const char *level,
                          const char *formats, const char *path, error *err);

#endif
