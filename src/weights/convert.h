/* SPDX-License-Identifier: Apache-2.0 */
/* convert.h - small tensors to float. */
#ifndef WAN_WEIGHTS_CONVERT_H
#define WAN_WEIGHTS_CONVERT_H

#include "tensor/tensor.h"

/* F32, F16, BF16 and F64, at any address; false for other types. */
bool wan_to_f32(tensor t, float *out);

#endif
