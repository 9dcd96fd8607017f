/* SPDX-License-Identifier: Apache-2.0 */
/* gguf_write.h - a GGUF file (version 3), written front to back.
 * Metadata first, then the directory of all tensors, then their data in that order and in pieces of
 * any size, so that memory does not grow with the file.  The file appears under its name only when
 * complete (outfile.h).  One thread. */
#ifndef WAN_IO_GGUF_WRITE_H
#define WAN_IO_GGUF_WRITE_H

#include "base/error.h"
#include "tensor/tensor.h"

typedef struct gguf_writer gguf_writer;

gguf_writer *wan_gguf_write_open(const char *path, error *err);

/* Before any data.  Errors stick to the writer and come out at commit. */
void wan_gguf_write_u32(gguf_writer *w, const char *key, uint32_t value);
void wan_gguf_write_f32(gguf_writer *w, const char *key, float value);
void wan_gguf_write_bool(gguf_writer *w, const char *key, bool value);
void wan_gguf_write_string(gguf_writer *w, const char *key, const char *value);
void wan_gguf_write_strings(gguf_writer *w, const char *key, const char *const *values,
                            uint64_t count);
void wan_gguf_write_f32s(gguf_writer *w, const char *key, const float *values, uint64_t count);
void wan_gguf_write_i32s(gguf_writer *w, const char *key, const int32_t *values, uint64_t count);
/* Any bytes as an array of u8 (an embedded file). */
void wan_gguf_write_bytes(gguf_writer *w, const char *key, const void *bytes, uint64_t count);
/* Announces the next tensor: type and shape of t, dimensions slowest first; t.data is not read. */
void wan_gguf_write_tensor(gguf_writer *w, const char *name, tensor t);

/* The data of all announced tensors, in order; pieces may end anywhere, also inside a tensor. */
wan_status wan_gguf_write_data(gguf_writer *w, const void *data, size_t size, error *err);
/* Fails if not exactly the announced bytes came.  Frees w either way. */
wan_status wan_gguf_write_commit(gguf_writer *w, error *err);
void wan_gguf_write_abort(gguf_writer *w);

#endif
