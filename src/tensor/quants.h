/* SPDX-License-Identifier: Apache-2.0 */
/* quants.h - every type that a weight may be stored in, back to f32: the scalar truth that
 * backends' kernels are checked against.  Formulas: ../shared/spec/formats.md 4 and 6; products
 * and differences are taken in the order that gguf-py takes them, so results agree bit for bit. */
#ifndef WAN_TENSOR_QUANTS_H
#define WAN_TENSOR_QUANTS_H

#include "tensor/tensor.h"

/* The types that dtype_info calls a weight's. */
bool wan_can_dequantise(dtype type);

/* n elements, whole blocks, from any address. */
void wan_dequantise(dtype type, float *dst, const void *src, int64_t n);

#endif
