/* SPDX-License-Identifier: Apache-2.0 */
/* store.h - one part of a model (transformer, text encoder, VAE) as named tensors, wherever they
 * lie. A store maps its file or files (single, sharded with index, GGUF) and translates the
 * publisher's names into ours (names.h) once.  Tensors point into the maps and live until close.
 * Read-only and thread-safe after open. */
#ifndef WAN_WEIGHTS_STORE_H
#define WAN_WEIGHTS_STORE_H

#include <jansson.h>

#include "base/error.h"
#include "tensor/tensor.h"

typedef enum part { PART_DIT, PART_TEXT, PART_VAE, PARTS } part;

const char *wan_part_name(part p); /* "transformer", "text encoder", "VAE" */

typedef struct store store;

typedef struct stored {
    const char *name;   /* ours */
    const char *source; /* as in the file */
    const char *file;   /* path of that file */
    tensor t;           /* in the map; dimensions slowest first, whatever the container does */
    /* A kernel's channels lie fastest: t.dim is [out, in, k...], the bytes are [out, k..., in]. */
    bool channels_last;
    /* What t holds are codes: times scale (one, or one for each row), or with an offset, times
     * scale plus offset of each group, both [rows, groups].  NULL: t holds the numbers. */
    const struct stored *scale, *offset;
    bool companion; /* a scale, an offset or a note of another tensor: nothing of its own */
} stored;

/* `path` is a weight file, an index (.safetensors.index.json), or a folder that holds one or the
 * other.  Opening checks every header completely: later calls cannot meet a bad offset.  The part
 * tells which names to expect; a file that is no such part is an error that says what it looks like
 * instead. */
store *wan_store_open(const char *path, part which, error *err);
void wan_store_close(store *s);

/* Elements [from, from + n), whole blocks, in the order of t.dim and with all scales applied. */
void wan_stored_read(const stored *s, float *dst, int64_t from, int64_t n);

const stored *wan_store_find(const store *s, const char *name);
size_t wan_store_count(const store *s);
const stored *wan_store_at(const store *s, size_t i); /* file order */
const char *wan_store_path(const store *s);
/* "diffusers", "original", "mlx" or "gguf", for messages and inspect. */
const char *wan_store_layout(const store *s);
/* Bytes of all tensors. */
uint64_t wan_store_bytes(const store *s);
/* config.json found beside the weights (or one folder up for the original layout), or NULL.  Owned
 * by the store. */
const json_t *wan_store_config(const store *s);
/* A metadata value (safetensors __metadata__ string, or a GGUF scalar printed as text); NULL if
 * absent. */
const char *wan_store_meta(const store *s, const char *key);
/* Tells the kernel the pages are not needed for now: resident memory falls, nothing is lost. */
void wan_store_drop_pages(const store *s);

#endif
