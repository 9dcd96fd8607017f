/* SPDX-License-Identifier: Apache-2.0 */
/* vae22_config.h - the numbers of a Wan2.2 video autoencoder.
 * The shapes of the tensors tell all of them, in every layout; a config.json must agree.  Only the
 * statistics of the latents have to be told. */
#ifndef WAN_MODEL_VAE22_CONFIG_H
#define WAN_MODEL_VAE22_CONFIG_H

#include "weights/store.h"

#define VAE22_LEVELS 8 /* at most */
#define VAE22_BLOCKS 8 /* residual blocks of a level, at most */

typedef struct vae22_level {
    int64_t in, out;
    bool resample; /* to twice or half the size */
    bool temporal; /* and twice or half the frames */
} vae22_level;

/* Encoder or decoder. */
typedef struct vae22_side {
    int64_t in, out;    /* channels of its input and output */
    int64_t first;      /* after the first convolution */
    int levels, blocks; /* residual blocks in each level */
    vae22_level level[VAE22_LEVELS];
} vae22_side;

typedef struct vae22_config {
    vae22_side encoder, decoder;
    int64_t z;             /* latent channels */
    int patch;             /* pixels per side that become channels */
    int spatial, temporal; /* pixels and frames per latent */
} vae22_config;

wan_status wan_vae22_config_read(vae22_config *g, const store *s, error *err);

/* Mean and 1 / standard deviation of the z latent channels: from the VAE's config.json, the key
 * "vae" of a model's, the file's metadata, or what is known of the released model. */
wan_status wan_vae22_statistics(const store *s, int64_t z, float *mean, float *inv_std, error *err);

#endif
