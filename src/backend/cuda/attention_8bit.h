/* SPDX-License-Identifier: Apache-2.0 */
/* attention_8bit.h - keys and values in 8 bits for attention on Hopper; heads of 128. */
#ifndef WAN_BACKEND_CUDA_ATTENTION_8BIT_H
#define WAN_BACKEND_CUDA_ATTENTION_8BIT_H

#include "backend/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What is made of keys and values, in the work space.  A tile is `keys` rows of one head. */
typedef struct packed_keys {
    int64_t m, tiles;
    int keys, heads;
    int8_t *k;     /* [heads, m, 128], less the head's mean key, over the tile's unit */
    float *k_unit; /* [heads, tiles] */
    uint8_t
        *v; /* E4M3 [heads, 128, tiles * keys], zeros past m, in the order stated below; or NULL */
    float *v_unit; /* [heads] */
    float *v_most; /* [heads, tiles], in between */
    size_t bytes;
} packed_keys;

/* Where things lie in a work space that starts at `space`; the bytes it must have.  Values only
 * `with_values`, and `keys` is a multiple of 64 then.
 * Of each 32 keys those stand together that one thread has weights of: at 16 h + 4 t + e is key
 * 16 h + 2 t + e % 2 + 8 (e / 2); h < 2, t < 4, e < 4. */
packed_keys wan_cuda_packed_keys(int64_t m, int heads, int keys, bool with_values, void *space);
/* attention_8bit_pack.cu */
cudaError_t wan_cuda_pack_keys(const packed_keys *x, const attention_args *a, cudaStream_t stream);

/* attention_8bit.cu: as wan_cuda_attention_sm90, with such keys (and values) in a work space of as
 * many bytes as the first says; 0 and false where the shape is not for it. */
size_t wan_cuda_attention_8bit_bytes(int64_t n, int64_t m, int heads, int head_dim);
bool wan_cuda_attention_8bit(const cuda_device *d, const attention_args *a, cudaError_t *e);

#ifdef __cplusplus
}
#endif
#endif
