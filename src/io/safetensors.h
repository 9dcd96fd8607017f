/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors.h - a safetensors file, read in place, and written.
 * The file is mapped once; tensors handed out point into the map and live until
 * wan_safetensors_close.  Open checks the whole header (formats.md), so that no later call can meet
 * a bad offset.  Read-only and thread-safe after open. */
#ifndef WAN_IO_SAFETENSORS_H
#define WAN_IO_SAFETENSORS_H

#include "base/error.h"
#include "io/outfile.h"
#include "tensor/tensor.h"

typedef struct named_tensor {
    const char *name;
    tensor t;
} named_tensor;

typedef struct safetensors safetensors;

safetensors *wan_safetensors_open(const char *path, error *err);
/* The same over bytes in memory that must outlive it; `name` stands in messages.  For fuzzing and
 * tests. */
safetensors *wan_safetensors_open_bytes(const void *bytes, size_t size, const char *name,
                                        error *err);
void wan_safetensors_close(safetensors *s);
size_t wan_safetensors_count(const safetensors *s);
const named_tensor *wan_safetensors_at(const safetensors *s, size_t i);
const named_tensor *wan_safetensors_find(const safetensors *s, const char *name);
/* A string of __metadata__, or NULL. */
const char *wan_safetensors_meta(const safetensors *s, const char *key);
size_t wan_safetensors_meta_count(const safetensors *s);
const char *wan_safetensors_meta_key(const safetensors *s, size_t i);
/* Tells the kernel the mapped pages are not needed for now. */
void wan_safetensors_drop_pages(const safetensors *s);

/* Writes tensors (plain types) in the given order; meta is key, value, key, value, ..., NULL, or
 * NULL.  The file appears only when complete (outfile.h). */
wan_status wan_safetensors_write(const char *path, const named_tensor *tensors, size_t count,
                                 const char *const *meta, error *err);
/* The same for data that comes bit by bit: the header is written (data pointers are not looked at),
 * then the caller writes the tensors' bytes in order and commits.  NULL on failure. */
outfile *wan_safetensors_begin(const char *path, const named_tensor *tensors, size_t count,
                               const char *const *meta, error *err);

#endif
