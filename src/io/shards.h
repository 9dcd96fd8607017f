/* SPDX-License-Identifier: Apache-2.0 */
/* shards.h - a model cut into several safetensors files with an index
 * (NAME.safetensors.index.json). The index alone says which tensor is in which file; opening the
 * set opens every file once and checks that each tensor is where the index says.  Read-only and
 * thread-safe after open. */
#ifndef WAN_IO_SHARDS_H
#define WAN_IO_SHARDS_H

#include "base/error.h"
#include "io/safetensors.h"

/* The index by itself: no file system. */
typedef struct shard_index shard_index;

shard_index *wan_shard_index_read(const char *path, error *err);
/* The same from bytes; `path` stands in messages. */
shard_index *wan_shard_index_parse(const char *text, size_t size, const char *path, error *err);
void wan_shard_index_close(shard_index *x);
/* File names without folder, each once, in the order of their names. */
size_t wan_shard_index_files(const shard_index *x);
const char *wan_shard_index_file(const shard_index *x, size_t i);
size_t wan_shard_index_tensors(const shard_index *x);
const char *wan_shard_index_tensor(const shard_index *x, size_t i);
/* Position of that tensor's file. */
size_t wan_shard_index_where(const shard_index *x, size_t i);
/* Position of the file of a tensor by name, or -1. */
size_t wan_shard_index_find(const shard_index *x, const char *name);
/* Every tensor of the index must be in its file; has(user, file, name) looks. */
wan_status wan_shard_index_check(const shard_index *x,
                                 bool (*has)(void *user, size_t file, const char *name), void *user,
                                 error *err);

/* A file name that names a file of the same folder and nothing else. */
bool wan_shard_name_ok(const char *name);

typedef struct shards shards;

shards *wan_shards_open(const char *index_path, error *err);
void wan_shards_close(shards *s);
size_t wan_shards_files(const shards *s);
const safetensors *wan_shards_file(const shards *s, size_t i);
const char *wan_shards_path(const shards *s, size_t i);
const shard_index *wan_shards_index(const shards *s);

/* "model-00002-of-00005.safetensors": length of "model", number, how many; false when it is not
 * called like that. */
bool wan_shard_number(const char *name, size_t *stem, int *number, int *of);

#endif
