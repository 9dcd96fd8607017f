/* SPDX-License-Identifier: Apache-2.0 */
/* spiece.h - a SentencePiece model as a plain list of pieces.
 * libsentencepiece reads spiece.model; two things stand before it: a check in C of the bytes it
 * would trust (spiece.c), and a C++ shim that lets no exception out (sentencepiece.cc).  Weight
 * files that carry their tokenizer have it as raw spiece.model bytes or as lists (spiece_file.c).
 * The list owns its memory and keeps nothing of the bytes. */
#ifndef WAN_TEXT_SPIECE_H
#define WAN_TEXT_SPIECE_H

#include "base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

#define WAN_PIECES_MAX (1 << 20) /* UMT5 has 256,000 */
#define WAN_PIECE_BYTES_MAX 2048 /* the longest the trainer makes is 512 characters */

typedef enum piece_kind {
    PIECE_PLAIN,
    PIECE_CONTROL, /* stands for itself where a prompt spells it out, as the next two do */
    PIECE_UNKNOWN,
    PIECE_ADDED, /* behind the vocabulary: its score means nothing */
    PIECE_UNUSED /* fills a row of the embedding; never made of text */
} piece_kind;

typedef struct piece {
    const char *text; /* UTF-8, NUL-terminated; space is U+2581 */
    size_t size;
    double score; /* log probability */
    piece_kind kind;
} piece;

typedef struct spiece {
    piece *pieces; /* index = id */
    int count;
    int pad, eos, unk; /* ids; -1: the model has none */
    char *text;        /* behind all pieces */
} spiece;

/* `name` stands for the bytes in messages.  On failure nothing is left in s. */
wan_status wan_spiece_read(spiece *s, const void *bytes, size_t size, const char *name, error *err);
/* From a spiece.model, a safetensors file with a tensor spiece_model (of a file of all parts:
 * text_encoder.spiece_model), or a GGUF with a tokenizer. */
wan_status wan_spiece_open(spiece *s, const char *path, error *err);
void wan_spiece_free(spiece *s);

/* The shim alone: bytes must have passed the check. */
wan_status wan_sentencepiece_load(spiece *s, const void *bytes, size_t size, const char *name,
                                  error *err);

#ifdef __cplusplus
}
#endif

#endif
