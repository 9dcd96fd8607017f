/* SPDX-License-Identifier: Apache-2.0 */
/* shape.h - a shape as a file states it, before anything about it is believed. */
#ifndef WAN_IO_SHAPE_H
#define WAN_IO_SHAPE_H

#include "base/error.h"
#include "tensor/tensor.h"

#define WAN_RAW_RANK 16

typedef struct raw_shape {
    int rank;
    int64_t dim[WAN_RAW_RANK]; /* slowest first, none negative */
} raw_shape;

/* Bytes of so many elements of that type; whole blocks, no overflow on the way. */
wan_status wan_shape_bytes(const raw_shape *s, dtype type, const char *path, const char *name,
                           uint64_t *bytes, error *err);
/* Leaves out axes of 1, slowest first, until a tensor can hold the rest; refuses what stays too
 * long. */
wan_status wan_shape_fold(raw_shape *s, const char *path, const char *name, error *err);

#endif
