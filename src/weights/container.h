/* SPDX-License-Identifier: Apache-2.0 */
/* container.h - the weights of one path, whatever holds them: safetensors, a sharded set, GGUF.
 * Names are the publisher's; tensors point into the maps and live until close.  Read-only and
 * thread-safe after open. */
#ifndef WAN_WEIGHTS_CONTAINER_H
#define WAN_WEIGHTS_CONTAINER_H

#include "weights/store.h"

typedef struct contained {
    const char *name, *file;
    tensor t;
} contained;

typedef struct container container;

/* A weight file, an index, or any file of a numbered set, which is then opened whole. */
container *wan_container_open(const char *path, error *err);
/* The same; of a file that holds a whole model (wan.parts in its metadata, as `wan convert` writes
 * it) only the tensors of that part, without the part's prefix. */
container *wan_container_open_part(const char *path, part which, error *err);
void wan_container_close(container *c);
size_t wan_container_count(const container *c);
const contained *wan_container_at(const container *c, size_t i);
bool wan_container_is_gguf(const container *c);
const char *wan_container_meta(const container *c, const char *key);
void wan_container_drop_pages(const container *c);

/* The part that its names belong to; PARTS when none. */
part wan_container_part(const container *c);
/* "a text encoder", "a LoRA", "no part of a Wan model": for messages. */
const char *wan_container_looks(const container *c);

#endif
