/* SPDX-License-Identifier: Apache-2.0 */
/* names.h - every publisher's spelling of a tensor name, translated once into ours.
 * Ours are the official ones of the Wan releases: transformer dit.md 4.1; text encoder text.md 1.6
 * first column; VAE vae.md 5, except that a level's resampler is called by its role, not by its
 * index: encoder.downsamples.I.resample.{weight,bias}   (original
 * encoder.downsamples.I.downsamples.J.resample.1) encoder.downsamples.I.time_conv.{weight,bias}
 *   decoder.upsamples.I.resample..., decoder.upsamples.I.time_conv...   likewise. */
#ifndef WAN_WEIGHTS_NAMES_H
#define WAN_WEIGHTS_NAMES_H

#include "weights/store.h"

typedef enum layout {
    LAYOUT_ORIGINAL,
    LAYOUT_DIFFUSERS,
    LAYOUT_GGUF,
    LAYOUT_MLX, /* MLX-Gen and mflux packages: diffusers' names but for a few */
    LAYOUT_UNKNOWN
} layout;

/* Strips known prefixes (dit.md 3) and returns where the rest begins. */
const char *wan_name_strip(const char *name, part which);
/* Which spelling a set of names uses; LAYOUT_UNKNOWN: none of this part. */
layout wan_layout_detect(const char *const *names, size_t count, part which);
/* How many of them only that part in that spelling has. */
size_t wan_layout_hits(const char *const *names, size_t count, part which, layout spelling);
/* Our name for `name` into `out`; an unknown name comes back as it is. */
void wan_name_translate(const char *name, part which, layout from, char *out, size_t size);
/* The way back: how diffusers spells `name`, which is ours. */
void wan_name_diffusers(const char *name, part which, char *out, size_t size);

#endif
