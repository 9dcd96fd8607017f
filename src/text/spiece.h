/* SPDX-License-Identifier: Apache-2.0 */
/* spiece.h - a SentencePiece model as a plain list of pieces.
 * libsentencepiece reads the file; two things stand before it: a check in C of the bytes it would
 * trust (spiece.c), and a C++ shim that lets no exception out (sentencepiece.cc).  The list owns
 * its memory and keeps nothing of the bytes. */
#ifndef WAN_TEXT_SPIECE_H
#define WAN_TEXT_SPIECE_H

#include "base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum piece_kind { PIECE_PLAIN, PIECE_CONTROL, PIECE_UNKNOWN } piece_kind;

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
void wan_spiece_free(spiece *s);

/* The shim alone: bytes must have passed the check. */
wan_status wan_sentencepiece_load(spiece *s, const void *bytes, size_t size, const char *name,
                                  error *err);

#ifdef __cplusplus
}
#endif

#endif
