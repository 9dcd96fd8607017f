/* SPDX-License-Identifier: Apache-2.0 */
/* bind.h - from names to struct fields: one row per weight.
 * Shape checks, sizes, inspect and later LoRA targets read the same rows.  Large weights stay where
 * they are (mapped) or are placed on the device as stored; vectors become f32 in memory the binder
 * owns. */
#ifndef WAN_WEIGHTS_BIND_H
#define WAN_WEIGHTS_BIND_H

#include "backend/backend.h"
#include "weights/store.h"

typedef enum bind_kind {
    BIND_LINEAR,      /* linear: NAME.weight [a, b], NAME.bias [a] */
    BIND_LINEAR_16,   /* the same with `bits` 16 (ops.h) */
    BIND_EXACT,       /* with 32 */
    BIND_EXACT_PLAIN, /* and without bias: NAME.weight [a, b] */
    BIND_TABLE,       /* the same, for wan_embed */
    BIND_VECTOR, /* tensor f32: NAME.weight, as many elements as a * b (b 0: a), any leading ones */
    BIND_BARE,   /* the same, for a tensor called NAME itself */
    BIND_CONV,   /* conv: NAME.weight [a, b, ...any kernel], NAME.bias [a] */
    BIND_CONV_OF_NORM /* the same, of wan_pixel_norm_for alone: may become codes */
} bind_kind;

typedef struct binding {
    const char *name;
    size_t offset; /* of the field in the struct */
    bind_kind kind;
    int a, b; /* index into `sizes`: the dimensions in the config's symbols; sizes[0] must be 0 */
    bool optional; /* absent is fine: the field stays zero */
} binding;

typedef struct binder binder;

/* Uses s and the device until close.  Nothing is read when the compute is dry. */
binder *wan_binder_open(const store *s, compute *c, error *err);
void wan_binder_close(binder *b);

/* Fills fields of `base` from tensors called PREFIX + row.name.  A missing tensor or a wrong shape
 * is an error that names the file, the tensor and both shapes. */
wan_status wan_bind(binder *b, const char *prefix, const binding *rows, size_t count,
                    const int64_t *sizes, void *base, error *err);

/* An f32 vector of our own making (tables, statistics) in device memory that the binder owns. */
wan_status wan_bind_values(binder *b, const float *values, int rank, const int64_t *dim,
                           tensor *out, error *err);

/* Names in the store that no row asked for so far: count, and the first few into text. */
size_t wan_binder_unused(const binder *b, char *text, size_t size);
/* Bytes of f32 vectors and placed copies that the binder owns. */
size_t wan_binder_bytes(const binder *b);
/* Bytes of weights that the device keeps as copies; 0 where it reads the map. */
size_t wan_binder_placed(const binder *b);
/* Of these, bytes of weights that can pass through instead, and of the largest of them. */
size_t wan_binder_streamable(const binder *b, size_t *largest);

#endif
