/* SPDX-License-Identifier: Apache-2.0 */
/* The check before libsentencepiece: a SentencePiece file is a protobuf message, text.md 2.6 says
 * which fields matter. The library does not expect hostile bytes everywhere (its normaliser follows
 * offsets of a table it never checks), so whatever UMT5's tokenizer does not use is refused here.
 */
#include "text/spiece.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text/utf8.h"

#define MODEL_BYTES_MAX (64 << 20) /* UMT5's has 4.5 MB */
#define UNIGRAM 1

typedef enum wire { WIRE_VARINT = 0, WIRE_8_BYTES = 1, WIRE_MESSAGE = 2, WIRE_4_BYTES = 5 } wire;

/* A stretch of the file, read from front to back. */
typedef struct reader {
    const uint8_t *at, *end;
    const uint8_t *begin; /* of the file, for offsets in messages */
    const char *name;
    error *err;
} reader;

typedef struct field {
    uint64_t number;
    wire type;
    uint64_t value; /* WIRE_VARINT, or the bits of the fixed ones */
    reader body;    /* WIRE_MESSAGE */
} field;

static size_t offset(const reader *r) {
    return (size_t)(r->at - r->begin);
}

static bool truncated(const reader *r, const char *what) {
    wan_fail(r->err, WAN_E_FORMAT, "%s: is no tokenizer model, or a damaged one: %s at byte %zu",
             r->name, what, offset(r));
    return false;
}

static bool read_varint(reader *r, uint64_t *value) {
    *value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        if (r->at == r->end)
            return truncated(r, "a number is cut off");
        uint8_t b = *r->at++;
        if (shift == 63 && b > 1)
            break;
        *value |= (uint64_t)(b & 0x7F) << shift;
        if (b < 0x80)
            return true;
    }
    return truncated(r, "a number is longer than 64 bits");
}

static bool read_fixed(reader *r, int bytes, uint64_t *value) {
    if (r->end - r->at < bytes)
        return truncated(r, "a number is cut off");
    *value = 0;
    for (int i = 0; i < bytes; i++)
        *value |= (uint64_t)r->at[i] << (8 * i);
    r->at += bytes;
    return true;
}

/* The next field; false at the end of r, and on damage (then r->err is set). */
static bool next_field(reader *r, field *f) {
    uint64_t tag, size;
    if (r->at == r->end || !read_varint(r, &tag))
        return false;
    *f = (field){.number = tag >> 3, .type = (wire)(tag & 7)};
    if (f->number == 0 || tag > UINT32_MAX)
        return truncated(r, "a field number is out of range");
    switch (f->type) {
    case WIRE_VARINT:
        return read_varint(r, &f->value);
    case WIRE_8_BYTES:
        return read_fixed(r, 8, &f->value);
    case WIRE_4_BYTES:
        return read_fixed(r, 4, &f->value);
    case WIRE_MESSAGE:
        if (!read_varint(r, &size))
            return false;
        if (size > (uint64_t)(r->end - r->at))
            return truncated(r, "a field is longer than the rest");
        f->body = *r;
        f->body.end = r->at + size;
        r->at += size;
        return true;
    default:
        return truncated(r, "a field is of an unknown kind");
    }
}

/* A known field must come in its known form; unknown fields are skipped. */
static bool expect(const reader *r, const field *f, wire type) {
    return f->type == type || truncated(r, "a known field has another type than it must");
}

static bool failed(const reader *r) {
    return r->err->code != WAN_OK;
}

/* SentencePiece: 1 text, 2 score. */
static bool check_piece(reader r, int id) {
    field f;
    uint64_t size = 0;
    while (next_field(&r, &f)) {
        if (f.number == 1) {
            if (!expect(&r, &f, WIRE_MESSAGE))
                return false;
            const char *text = (const char *)f.body.at;
            size = (uint64_t)(f.body.end - f.body.at);
            if (size > WAN_PIECE_BYTES_MAX || memchr(text, 0, size) ||
                wan_utf8_check(text, size) < size) {
                wan_fail(r.err, WAN_E_FORMAT,
                         "%s: piece %d of the tokenizer model is no text of at most %d bytes of "
                         "UTF-8 (it has %llu)",
                         r.name, id, WAN_PIECE_BYTES_MAX, (unsigned long long)size);
                return false;
            }
        } else if (f.number == 2) {
            if (!expect(&r, &f, WIRE_4_BYTES))
                return false;
            uint32_t bits = (uint32_t)f.value;
            float score;
            memcpy(&score, &bits, sizeof score);
            if (!isfinite(score)) {
                wan_fail(r.err, WAN_E_FORMAT, "%s: the score of piece %d is not a finite number",
                         r.name, id);
                return false;
            }
        }
    }
    if (!failed(&r) && size == 0)
        wan_fail(r.err, WAN_E_FORMAT, "%s: piece %d of the tokenizer model is empty", r.name, id);
    return !failed(&r);
}

/* TrainerSpec: 3 kind of model, 24 "_" behind words instead of before. */
static bool check_trainer(reader r) {
    field f;
    while (next_field(&r, &f)) {
        if (f.number != 3 && f.number != 24)
            continue;
        if (!expect(&r, &f, WIRE_VARINT))
            return false;
        if (f.number == 3 && f.value != UNIGRAM)
            wan_fail(r.err, WAN_E_FORMAT,
                     "%s: tokenizer model is of kind %llu, UMT5 needs %d (unigram)", r.name,
                     (unsigned long long)f.value, UNIGRAM);
        if (f.number == 24 && f.value)
            wan_fail(r.err, WAN_E_FORMAT,
                     "%s: tokenizer model marks spaces behind words, UMT5 before", r.name);
        if (failed(&r))
            return false;
    }
    return !failed(&r);
}

/* NormalizerSpec: 2 character map, 3 add a space in front, 5 spaces become U+2581. */
static bool check_normalizer(reader r) {
    field f;
    while (next_field(&r, &f)) {
        if (f.number == 2) {
            if (!expect(&r, &f, WIRE_MESSAGE))
                return false;
            if (f.body.at != f.body.end)
                wan_fail(r.err, WAN_E_FORMAT,
                         "%s: tokenizer model has a character map of %zu bytes; UMT5's changes no "
                         "characters",
                         r.name, (size_t)(f.body.end - f.body.at));
        } else if (f.number == 3 || f.number == 5) {
            if (!expect(&r, &f, WIRE_VARINT))
                return false;
            if (!f.value)
                wan_fail(r.err, WAN_E_FORMAT, "%s: tokenizer model does not %s, UMT5's does",
                         r.name, f.number == 3 ? "put a space in front" : "write spaces as U+2581");
        }
        if (failed(&r))
            return false;
    }
    return !failed(&r);
}

/* ModelProto: 1 pieces, 2 trainer, 3 normaliser, 5 the way back. */
static bool check_model(reader r) {
    field f;
    int pieces = 0;
    while (next_field(&r, &f)) {
        if (f.number > 5)
            continue;
        if (!expect(&r, &f, WIRE_MESSAGE))
            return false;
        if (f.number == 1 && pieces == WAN_PIECES_MAX)
            wan_fail(r.err, WAN_E_FORMAT, "%s: tokenizer model has more than %d pieces", r.name,
                     WAN_PIECES_MAX);
        if (f.number == 4 && f.body.at != f.body.end)
            wan_fail(r.err, WAN_E_FORMAT, "%s: tokenizer model carries tests of its own", r.name);
        if (failed(&r) || (f.number == 1 && !check_piece(f.body, pieces++)) ||
            (f.number == 2 && !check_trainer(f.body)) ||
            (f.number == 3 && !check_normalizer(f.body)) ||
            (f.number == 5 && !check_normalizer(f.body)))
            return false;
    }
    if (!failed(&r) && pieces == 0)
        wan_fail(r.err, WAN_E_FORMAT, "%s: is no tokenizer model: it has no pieces", r.name);
    return !failed(&r);
}

wan_status wan_spiece_read(spiece *s, const void *bytes, size_t size, const char *name,
                           error *err) {
    error own = {0};
    *s = (spiece){0};
    if (size > MODEL_BYTES_MAX)
        return wan_fail(err, WAN_E_FORMAT,
                        "%s: has %zu bytes; no tokenizer model is larger than %d", name, size,
                        MODEL_BYTES_MAX);
    const uint8_t *b = bytes;
    if (!check_model((reader){b, b + size, b, name, &own}))
        return wan_fail(err, own.code, "%s", own.message);
    return wan_sentencepiece_load(s, bytes, size, name, err);
}

void wan_spiece_free(spiece *s) {
    free(s->pieces);
    free(s->text);
    *s = (spiece){0};
}
