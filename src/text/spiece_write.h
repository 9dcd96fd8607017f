/* SPDX-License-Identifier: Apache-2.0 */
/* spiece_write.h - a tokenizer as the bytes of a spiece.model, wherever it came from.
 * What a file holds as such bytes is copied; the lists of a GGUF become a SentencePiece message that
 * wan_spiece_read takes for the same tokenizer. */
#ifndef WAN_TEXT_SPIECE_WRITE_H
#define WAN_TEXT_SPIECE_WRITE_H

#include "text/spiece.h"
#include "text/utf8.h"

/* Appends to out; out->failed: no memory. */
void wan_spiece_write(const spiece *s, text_out *out);

/* The tokenizer of a file (wan_spiece_open), checked, appended to out, which the caller frees. */
wan_status wan_spiece_bytes(const char *path, text_out *out, error *err);

#endif
