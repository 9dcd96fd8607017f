/* SPDX-License-Identifier: Apache-2.0 */
/* SentencePiece's ModelProto, as far as UMT5 uses it: text.md 2.6. */
#include "text/spiece_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIRE_VARINT = 0, WIRE_MESSAGE = 2, WIRE_4_BYTES = 5 };
enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3 }; /* SentencePiece.type */

static void put_varint(text_out *out, uint64_t v) {
    char byte[10];
    size_t n = 0;
    do {
        byte[n++] = (char)((v & 0x7F) | (v > 0x7F ? 0x80 : 0));
        v >>= 7;
    } while (v);
    wan_text_put(out, byte, n);
}

static void put_number(text_out *out, int field, uint64_t v) {
    put_varint(out, (uint64_t)field << 3 | WIRE_VARINT);
    put_varint(out, v);
}

static void put_bytes(text_out *out, int field, const char *s, size_t n) {
    put_varint(out, (uint64_t)field << 3 | WIRE_MESSAGE);
    put_varint(out, n);
    wan_text_put(out, s, n);
}

static void put_float(text_out *out, int field, float v) {
    uint32_t bits;
    char byte[4];
    memcpy(&bits, &v, sizeof bits);
    for (int i = 0; i < 4; i++)
        byte[i] = (char)(bits >> (8 * i));
    put_varint(out, (uint64_t)field << 3 | WIRE_4_BYTES);
    wan_text_put(out, byte, 4);
}

/* Pieces behind the vocabulary stand for themselves as control pieces do, and their score counts
 * for nothing.  Unused ones must never be made of text: no clean prompt has two spaces. */
static void put_piece(text_out *out, text_out *one, const spiece *s, int id) {
    static const int type_of[] = {[PIECE_PLAIN] = NORMAL,
                                  [PIECE_CONTROL] = CONTROL,
                                  [PIECE_UNKNOWN] = UNKNOWN,
                                  [PIECE_ADDED] = CONTROL,
                                  [PIECE_UNUSED] = CONTROL};
    const piece *p = &s->pieces[id];
    char filler[32];
    int n = snprintf(filler, sizeof filler, "<unused  %d>", id);
    bool unused = p->kind == PIECE_UNUSED || !p->size;
    int type = id == s->unk ? UNKNOWN : id == s->pad || id == s->eos ? CONTROL : type_of[p->kind];
    wan_text_reset(one);
    put_bytes(one, 1, unused ? filler : p->text, unused ? (size_t)n : p->size);
    put_float(one, 2, p->kind >= PIECE_ADDED ? 0 : (float)p->score);
    put_number(one, 3, (uint64_t)type);
    put_bytes(out, 1, one->s ? one->s : "", one->size);
    out->failed |= one->failed;
}

static void put_named(text_out *out, int field, const spiece *s, int id) {
    if (id >= 0 && id < s->count)
        put_bytes(out, field, s->pieces[id].text, s->pieces[id].size);
}

void wan_spiece_write(const spiece *s, text_out *out) {
    text_out one = {0};
    for (int i = 0; i < s->count; i++)
        put_piece(out, &one, s, i);
    wan_text_reset(&one); /* TrainerSpec: unigram, and what the special pieces are called */
    put_number(&one, 3, 1);
    put_named(&one, 45, s, s->unk);
    put_named(&one, 47, s, s->eos);
    put_named(&one, 48, s, s->pad);
    put_bytes(out, 2, one.s ? one.s : "", one.size);
    wan_text_reset(&one); /* NormalizerSpec: a space in front, none removed, written as U+2581 */
    put_bytes(&one, 1, "identity", strlen("identity"));
    put_number(&one, 3, 1);
    put_number(&one, 4, 0);
    put_number(&one, 5, 1);
    put_bytes(out, 3, one.s ? one.s : "", one.size);
    out->failed |= one.failed;
    free(one.s);
}
