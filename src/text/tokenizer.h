/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer.h - a prompt becomes ids, as the transformers 4 tokenizer of UMT5 does it (text.md 2.2, column A).
 * Pieces and scores come from spiece.model through libsentencepiece.  Read-only and thread-safe after open. */
#ifndef WAN_TEXT_TOKENIZER_H
#define WAN_TEXT_TOKENIZER_H

#include "base/error.h"

#define WAN_TEXT_LEN 512 /* rows of text the transformer always sees */

typedef struct tokenizer tokenizer;

/* A spiece.model file, a folder that holds one, or a weight file that carries its tokenizer: a GGUF of the text encoder, a
 * safetensors file with a tensor spiece_model. */
tokenizer *wan_tokenizer_open(const char *path, error *err);
/* The same from memory, which is copied; `name` stands for it in messages. */
tokenizer *wan_tokenizer_open_bytes(const void *bytes, size_t size, const char *name, error *err);
void wan_tokenizer_close(tokenizer *t);
int wan_tokenizer_pieces(const tokenizer *t);

/* Cleans the prompt (clean.h), then fills ids with at most 511 pieces and the end token, pad after that; *count tokens
 * are real.  *dropped (may be NULL) says how many pieces did not fit.  WAN_E_TEXT if the prompt is not UTF-8. */
wan_status wan_tokenize(const tokenizer *t, const char *prompt, int32_t ids[WAN_TEXT_LEN], int *count, int *dropped,
                        error *err);

#endif
