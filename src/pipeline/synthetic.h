/* SPDX-License-Identifier: Apache-2.0 */
/* synthetic.h - full-size model files with random weights: for speed and memory, the pictures mean
 * nothing. Names, shapes and types are those of the published Wan2.2-TI2V-5B files (dit.md 4,
 * text.md 1.6, vae.md 5). */
#ifndef WAN_PIPELINE_SYNTHETIC_H
#define WAN_PIPELINE_SYNTHETIC_H

#include "tensor/tensor.h"
#include "weights/store.h"

typedef struct synthetic {
    dtype type;      /* of the matrices that a quantiser would touch */
    int layers;      /* of the transformer; 0: all 30 */
    int text_layers; /* 0: all 24 */
    uint64_t seed;
} synthetic;

/* Writes one part to `path`: a GGUF, or for F8_E4M3 and I8 safetensors with a scale for each row.  The
 * VAE is F16 with original names in either. */
wan_status wan_synthetic_write(const char *path, part p, const synthetic *s, error *err);

#endif
