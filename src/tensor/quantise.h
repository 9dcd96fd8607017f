/* SPDX-License-Identifier: Apache-2.0 */
/* quantise.h - f32 into every type that a weight may be stored in.
 * Blocks are chosen as ggml's reference quantisers choose them, without an importance matrix
 * (../shared/spec/formats.md 5), so files are as good as anybody's.  8-bit floats are clamped, then
 * rounded to nearest even.  Calls are independent and thread-safe. */
#ifndef WAN_TENSOR_QUANTISE_H
#define WAN_TENSOR_QUANTISE_H

#include "base/error.h"
#include "tensor/tensor.h"

bool wan_can_quantise(dtype type);

/* n elements, whole blocks.  A number that is not finite, or too large for the type, is an error
 * that names its index. */
wan_status wan_quantise(dtype type, void *dst, const float *src, int64_t n, error *err);

/* F8_E4M3, F8_E5M2 or I8 with a scale for each row: src [rows, cols] is about dst * scale[row]. */
wan_status wan_quantise_rows(dtype type, void *dst, float *scale, const float *src, int64_t rows,
                             int64_t cols, error *err);

#endif
