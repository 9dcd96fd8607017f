/* SPDX-License-Identifier: Apache-2.0 */
/* vae22_weights.h - the weights of a Wan2.2 video autoencoder, as the figure groups them.
 * They belong to the binder they were taken from. */
#ifndef WAN_MODEL_VAE22_WEIGHTS_H
#define WAN_MODEL_VAE22_WEIGHTS_H

#include "model/vae22_config.h"
#include "weights/bind.h"

typedef struct res_block {
    tensor norm1, norm2;
    conv conv1, conv2, shortcut; /* shortcut only where the number of channels changes */
} res_block;

typedef struct attention_block {
    tensor norm;
    conv to_qkv, proj;
} attention_block;

typedef struct vae22_level_weights {
    res_block block[VAE22_BLOCKS];
    conv resample, time_conv;
} vae22_level_weights;

typedef struct vae22_side_weights {
    conv conv1;
    res_block middle[2];
    attention_block attention;
    vae22_level_weights level[VAE22_LEVELS];
    tensor head_norm;
    conv head;
} vae22_side_weights;

typedef struct vae22_weights {
    vae22_side_weights encoder, decoder;
    conv quant, post_quant; /* the outer conv1 and conv2 */
    tensor mean, inv_std;   /* [z] */
} vae22_weights;

wan_status wan_vae22_weights_bind(vae22_weights *w, binder *b, const store *s,
                                  const vae22_config *g, error *err);

#endif
