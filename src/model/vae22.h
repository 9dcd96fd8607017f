/* SPDX-License-Identifier: Apache-2.0 */
/* vae22.h - the Wan2.2 video autoencoder: vae.md 2 and 4.
 * Decoding streams: a decoder keeps the convolutions' last frames and takes any number of latent
 * frames at a time, with the same result as all at once.  The weights stay in the store, which must
 * outlive the model. */
#ifndef WAN_MODEL_VAE22_H
#define WAN_MODEL_VAE22_H

#include "weights/bind.h"

typedef struct vae22 vae22;

vae22 *wan_vae22_open(const store *s, compute *c, error *err);
void wan_vae22_close(vae22 *m);
int64_t wan_vae22_channels(const vae22 *m); /* z: latent channels */
int wan_vae22_spatial(const vae22 *m);      /* pixels per latent, 16 */
int wan_vae22_temporal(const vae22 *m);     /* frames per latent, 4 */
size_t wan_vae22_bytes(const vae22 *m);     /* memory of its own beside the map */
/* Bytes of weights that a device with memory of its own holds, vectors included. */
size_t wan_vae22_placed(const vae22 *m);
/* Of these, what can pass through instead of staying, and the largest piece. */
size_t wan_vae22_streamable(const vae22 *m, size_t *largest);

/* pixels f32 [3, T, H, W] in [-1, 1] on the device, T = 4n + 1 -> latents [z, F, h, w], the
 * posterior's mean, normalised. Internally in groups of frames, so that memory does not grow with T
 * beyond input and output. */
tensor wan_vae22_encode(vae22 *m, compute *c, tensor pixels);

/* A decoder for latents of `frames` x h x w; its state is taken from c's scratch and lives until
 * that is released below it.  A single frame needs none. */
typedef struct vae22_decoder vae22_decoder;
vae22_decoder *wan_vae22_decode_begin(vae22 *m, compute *c, int64_t frames, int64_t h, int64_t w,
                                      error *err);
/* Frames [from, from + count) of latents [z, frames, h, w], each group following the last, the
 * first from 0. Returns pixels [3, n, 16h, 16w] clamped to [-1, 1], n = 4 * count, 3 fewer for the
 * first group. */
tensor wan_vae22_decode(vae22_decoder *d, compute *c, tensor latents, int64_t from, int64_t count);
void wan_vae22_decode_end(vae22_decoder *d);

#endif
