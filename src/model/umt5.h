/* SPDX-License-Identifier: Apache-2.0 */
/* umt5.h - the text encoder (UMT5, encoder only): text.md 1.
 * The weights stay in the store, which must outlive the model.  A model opened on a dry compute can only be planned with. */
#ifndef WAN_MODEL_UMT5_H
#define WAN_MODEL_UMT5_H

#include "weights/bind.h"

typedef struct umt5 umt5;

/* Widths come from config.json, from GGUF metadata, or from the tensors' shapes; what they contradict is an error. */
umt5 *wan_umt5_open(const store *s, compute *c, error *err);
void wan_umt5_close(umt5 *m);
int64_t wan_umt5_dim(const umt5 *m);   /* text_dim */
int64_t wan_umt5_vocab(const umt5 *m); /* rows of the embedding */
size_t wan_umt5_bytes(const umt5 *m);  /* memory of its own beside the map */
/* Bytes of weights that a device with memory of its own holds, vectors included. */
size_t wan_umt5_placed(const umt5 *m);
/* Of these, what can pass through instead of staying, and the largest piece. */
size_t wan_umt5_streamable(const umt5 *m, size_t *largest);

/* ids[0..count) are the real tokens; only those run through the encoder.  Returns states f32 [count, dim] in c's scratch. */
tensor wan_umt5_forward(umt5 *m, compute *c, const int32_t *ids, int64_t count);

#endif
