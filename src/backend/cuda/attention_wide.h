/* SPDX-License-Identifier: Apache-2.0 */
/* attention_wide.h - attention with the matrix of logits in memory, in pieces. */
#ifndef WAN_BACKEND_CUDA_ATTENTION_WIDE_H
#define WAN_BACKEND_CUDA_ATTENTION_WIDE_H

#include "backend/cuda/cuda.h"

/* Heads and queries whose logits are in memory at a time. */
typedef struct wide_piece {
    int64_t heads, queries;
    int64_t stride; /* f32 from one query's logits to the next: m, rounded up */
    size_t bytes;   /* of work space */
} wide_piece;

wide_piece wan_cuda_wide_piece(int64_t n, int64_t m, int64_t heads);
/* Any head size, f32, bf16 or f16; a->workspace holds what wan_cuda_wide_piece said. */
cudaError_t wan_cuda_attention_wide(const cuda_device *d, const attention_args *a, dtype type);

#endif
