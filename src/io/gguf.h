/* SPDX-License-Identifier: Apache-2.0 */
/* gguf.h - a GGUF file (version 2 or 3), read in place.
 * The file is mapped once; tensors handed out point into the map and live until wan_gguf_close.
 * Nothing is converted: Q8_0 stays Q8_0.  Open checks the whole directory (formats.md 3.2), so that
 * no later call can meet a bad offset. Read-only and thread-safe after open. */
#ifndef WAN_IO_GGUF_H
#define WAN_IO_GGUF_H

#include "base/error.h"
#include "io/safetensors.h" /* named_tensor */

typedef struct gguf gguf;

/* As numbered in the file. */
typedef enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPES
} gguf_type;

/* A metadata value: `count` elements of `type` one after the other in the map, 1 unless it is an
 * array. */
typedef struct gguf_value {
    const char *key;
    gguf_type type; /* of the elements; never GGUF_ARRAY */
    bool array;
    uint64_t count;
    const uint8_t *at;
} gguf_value;

gguf *wan_gguf_open(const char *path, error *err);
/* The same over bytes in memory that must outlive it; `name` stands in messages.  For fuzzing and
 * tests. */
gguf *wan_gguf_open_bytes(const void *bytes, size_t size, const char *name, error *err);
void wan_gguf_close(gguf *g);

/* Tensors in the order of the directory, dimensions slowest first, `comfy.gguf.orig_shape.NAME`
 * obeyed. */
size_t wan_gguf_count(const gguf *g);
const named_tensor *wan_gguf_at(const gguf *g, size_t i);
const named_tensor *wan_gguf_find(const gguf *g, const char *name);

size_t wan_gguf_meta_count(const gguf *g);
const gguf_value *wan_gguf_meta_at(const gguf *g, size_t i);
const gguf_value *wan_gguf_meta(const gguf *g, const char *key); /* NULL: absent */

/* Element i as a number; false when it is a string, out of range, or (integer) not a whole number
 * of 63 bits. */
bool wan_gguf_integer(const gguf_value *v, uint64_t i, int64_t *out);
bool wan_gguf_number(const gguf_value *v, uint64_t i, double *out);
/* Strings of a value in order: start with *at = v->at and call v->count times.  Not terminated; any
 * bytes. */
const char *wan_gguf_next_string(const uint8_t **at, size_t *length);
/* "u32", "string" ... for messages. */
const char *wan_gguf_type_name(gguf_type t);
/* Tells the kernel the mapped pages are not needed for now. */
void wan_gguf_drop_pages(const gguf *g);

#endif
