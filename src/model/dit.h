/* SPDX-License-Identifier: Apache-2.0 */
/* dit.h - the denoiser of Wan2.1 / Wan2.2: dit.md.
 * The weights stay in the store, which must outlive the model. */
#ifndef WAN_MODEL_DIT_H
#define WAN_MODEL_DIT_H

#include "weights/bind.h"

typedef struct dit dit;

/* Widths come from config.json (either publisher's keys), GGUF metadata and the tensors' shapes. */
dit *wan_dit_open(const store *s, compute *c, error *err);
void wan_dit_close(dit *m);
int64_t wan_dit_in_channels(const dit *m);
int64_t wan_dit_out_channels(const dit *m);
int64_t wan_dit_text_dim(const dit *m);
int64_t wan_dit_layers(const dit *m);
void wan_dit_patch(const dit *m, int64_t patch[3]);
/* A few of the matrices, from the first, the middle and the last block, to see what a precision
 * does to them: i from 0 on, NULL past the last. */
const linear *wan_dit_sample(const dit *m, int i);
size_t wan_dit_bytes(const dit *m); /* memory of its own beside the map */
/* Bytes of weights that a device with memory of its own holds, vectors included. */
size_t wan_dit_placed(const dit *m);
/* Of these, what can pass through instead of staying, and the largest piece. */
size_t wan_dit_streamable(const dit *m, size_t *largest);

/* A prompt as the blocks see it: keys and values of every block, computed once.  Lives in c's
 * scratch. */
typedef struct dit_text dit_text;
/* states f32 [count, text_dim] in HOST memory: the real rows, count <= 512; the other 512 - count
 * are zero and become one key with its multiplicity.  NULL only when out of memory. */
dit_text *wan_dit_text_begin(dit *m, compute *c, const float *states, int64_t count, error *err);
void wan_dit_text_end(dit_text *t);

/* x [C, F, h, w] on the device, timestep[F] one per latent frame -> velocity [C_out, F, h, w] in
 * c's scratch. F, h, w must be multiples of the patch. */
tensor wan_dit_forward(dit *m, compute *c, tensor x, const float *timestep, const dit_text *text);

#endif
