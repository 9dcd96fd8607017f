/* SPDX-License-Identifier: Apache-2.0 */
/* Where tokenizers lie: text.md 2.6. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/gguf.h"
#include "io/mapfile.h"
#include "io/safetensors.h"
#include "text/spiece_write.h"

/* -------------------------------------------------------------------------------------------------------
 * GGUF */

/* The lists of a GGUF's tokenizer; equally long. */
typedef struct lists {
    const char *name;
    const gguf *g;
    const gguf_value *tokens, *scores, *types;
    int count; /* without the fillers at the end */
} lists;

enum { TYPE_PLAIN = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_ADDED, TYPE_UNUSED, TYPE_BYTE };

static int type_of(const lists *l, int i) {
    int64_t type;
    return wan_gguf_integer(l->types, (uint64_t)i, &type) && type >= TYPE_PLAIN && type <= TYPE_BYTE
               ? (int)type
               : 0;
}

static const gguf_value *find_list(const lists *l, const char *key, gguf_type type, error *err) {
    const gguf_value *v = wan_gguf_meta(l->g, key);
    if (!v)
        wan_fail(err, WAN_E_FORMAT, "%s: holds no tokenizer, %s is missing", l->name, key);
    else if (!v->array || v->type != type)
        wan_fail(err, WAN_E_FORMAT, "%s: %s is %s %s, expected an array of %s", l->name, key,
                 v->array ? "an array of" : "a single", wan_gguf_type_name(v->type),
                 wan_gguf_type_name(type));
    else
        return v;
    return NULL;
}

static bool is_string(const gguf_value *v, const char *want) {
    size_t n;
    if (v->array || v->type != GGUF_STRING)
        return false;
    const uint8_t *at = v->at;
    const char *text = wan_gguf_next_string(&at, &n);
    return n == strlen(want) && memcmp(text, want, n) == 0;
}

static wan_status find_lists(lists *l, error *err) {
    const gguf_value *model = wan_gguf_meta(l->g, "tokenizer.ggml.model");
    if (model && !is_string(model, "t5"))
        return wan_fail(err, WAN_E_FORMAT, "%s: tokenizer.ggml.model is not t5", l->name);
    l->tokens = find_list(l, "tokenizer.ggml.tokens", GGUF_STRING, err);
    l->scores = l->tokens ? find_list(l, "tokenizer.ggml.scores", GGUF_F32, err) : NULL;
    l->types = l->scores ? find_list(l, "tokenizer.ggml.token_type", GGUF_I32, err) : NULL;
    if (!l->types)
        return WAN_E_FORMAT;
    uint64_t n = l->tokens->count;
    if (n != l->scores->count || n != l->types->count || n == 0 || n > WAN_PIECES_MAX)
        return wan_fail(
            err, WAN_E_FORMAT,
            "%s: tokenizer has %llu tokens, %llu scores and %llu types, expected as many of "
            "each, 1 to %d",
            l->name, (unsigned long long)n, (unsigned long long)l->scores->count,
            (unsigned long long)l->types->count, WAN_PIECES_MAX);
    const gguf_value *map = wan_gguf_meta(l->g, "tokenizer.ggml.precompiled_charsmap");
    if (map && map->count)
        return wan_fail(
            err, WAN_E_FORMAT,
            "%s: tokenizer has a character map of %llu entries; UMT5's changes no characters",
            l->name, (unsigned long long)map->count);
    l->count = (int)n;
    while (l->count > 0 && type_of(l, l->count - 1) == TYPE_UNUSED)
        l->count--;
    return WAN_OK;
}

/* Converters never mark the vocabulary's own user-defined pieces: type 4 is a token added behind
 * it. */
static wan_status read_piece(piece *p, const lists *l, int i, const char *text, size_t size,
                             char *to, error *err) {
    static const piece_kind kinds[] = {
        [TYPE_PLAIN] = PIECE_PLAIN, [TYPE_UNKNOWN] = PIECE_UNKNOWN, [TYPE_CONTROL] = PIECE_CONTROL,
        [TYPE_ADDED] = PIECE_ADDED, [TYPE_UNUSED] = PIECE_UNUSED,   [TYPE_BYTE] = PIECE_PLAIN};
    int type = type_of(l, i);
    double score;
    if (!type)
        return wan_fail(err, WAN_E_FORMAT, "%s: token %d is of no known type", l->name, i);
    if (!wan_gguf_number(l->scores, (uint64_t)i, &score) || !isfinite(score))
        return wan_fail(err, WAN_E_FORMAT, "%s: the score of token %d is not a finite number",
                        l->name, i);
    bool odd = size == 0 || size > WAN_PIECE_BYTES_MAX || memchr(text, 0, size) ||
               wan_utf8_check(text, size) < size;
    if (odd && type != TYPE_UNUSED)
        return wan_fail(err, WAN_E_FORMAT,
                        "%s: token %d is no text of 1 to %d bytes of UTF-8 (it has %zu)", l->name,
                        i, WAN_PIECE_BYTES_MAX, size);
    if (size)
        memcpy(to, text, size);
    *p = (piece){to, size, score, kinds[type]};
    return WAN_OK;
}

/* The id that `key` states, or that of `text` at its place in UMT5; -1: neither. */
static int stated_id(const spiece *s, const gguf *g, const char *key, int place, const char *text) {
    const gguf_value *v = wan_gguf_meta(g, key);
    int64_t id;
    if (v)
        return !v->array && wan_gguf_integer(v, 0, &id) && id >= 0 && id < s->count ? (int)id : -1;
    return place < s->count && strcmp(s->pieces[place].text, text) == 0 ? place : -1;
}

static wan_status read_lists(spiece *s, const lists *l, error *err) {
    size_t total = 1, size;
    const uint8_t *at = l->tokens->at;
    for (int i = 0; i < l->count; i++) {
        wan_gguf_next_string(&at, &size);
        total += size + 1;
    }
    s->count = l->count;
    s->pieces = calloc((size_t)l->count + 1, sizeof *s->pieces);
    s->text = calloc(total, 1);
    if (!s->pieces || !s->text)
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory for %d tokens", l->name, l->count);
    char *to = s->text;
    at = l->tokens->at;
    for (int i = 0; i < l->count; i++) {
        const char *text = wan_gguf_next_string(&at, &size);
        if (read_piece(&s->pieces[i], l, i, text, size, to, err))
            return WAN_E_FORMAT;
        to += size + 1;
    }
    s->pad = stated_id(s, l->g, "tokenizer.ggml.padding_token_id", 0, "<pad>");
    s->eos = stated_id(s, l->g, "tokenizer.ggml.eos_token_id", 1, "</s>");
    s->unk = stated_id(s, l->g, "tokenizer.ggml.unknown_token_id", 3, "<unk>");
    return WAN_OK;
}

static wan_status read_gguf(spiece *s, const char *path, error *err) {
    gguf *g = wan_gguf_open(path, err);
    if (!g)
        return err ? err->code : WAN_E_FORMAT;
    lists l = {.name = path, .g = g};
    wan_status status = find_lists(&l, err);
    if (!status)
        status = read_lists(s, &l, err);
    if (status)
        wan_spiece_free(s);
    wan_gguf_close(g);
    return status;
}

/* ----------------------------------------------------------------------------------------------
 * the other two */

/* What serves a safetensors file as spiece.model: ComfyUI's tensor of bytes, or the same in a file
 * of all parts. */
static const named_tensor *find_bytes(const safetensors *f) {
    const named_tensor *n = wan_safetensors_find(f, "spiece_model");
    return n ? n : wan_safetensors_find(f, "text_encoder.spiece_model");
}

/* `raw`, where it is not NULL, takes the bytes. */
static wan_status read_bytes(spiece *s, text_out *raw, const void *bytes, size_t size,
                             const char *path, error *err) {
    wan_status status = wan_spiece_read(s, bytes, size, path, err);
    if (!status && raw)
        wan_text_put(raw, bytes, size);
    return status;
}

static wan_status read_safetensors(spiece *s, text_out *raw, const char *path, error *err) {
    safetensors *f = wan_safetensors_open(path, err);
    if (!f)
        return err ? err->code : WAN_E_FORMAT;
    const named_tensor *n = find_bytes(f);
    wan_status status;
    if (n && (n->t.type == WAN_U8 || n->t.type == WAN_I8))
        status = read_bytes(s, raw, n->t.data, wan_bytes(n->t), path, err);
    else
        status = wan_fail(err, WAN_E_FORMAT,
                          "%s: holds no tokenizer (no tensor spiece_model of bytes)", path);
    wan_safetensors_close(f);
    return status;
}

/* Eight bytes that are a header's length, then the header's brace: no SentencePiece file is that
 * short. */
static bool is_safetensors(const mapfile *m) {
    uint64_t header = 0;
    for (size_t i = 0; i < 8 && i < m->size; i++)
        header |= (uint64_t)m->data[i] << (8 * i);
    return m->size > 8 && m->data[8] == '{' && header <= m->size - 8;
}

static wan_status open_any(spiece *s, text_out *raw, const char *path, error *err) {
    mapfile map;
    *s = (spiece){0};
    wan_status status = wan_map_open(&map, path, err);
    if (status)
        return status;
    bool as_lists = map.size >= 4 && memcmp(map.data, "GGUF", 4) == 0;
    if (as_lists)
        status = read_gguf(s, path, err);
    else if (is_safetensors(&map))
        status = read_safetensors(s, raw, path, err);
    else
        status = read_bytes(s, raw, map.data, map.size, path, err);
    if (!status && as_lists && raw)
        wan_spiece_write(s, raw);
    wan_map_close(&map);
    return status;
}

wan_status wan_spiece_open(spiece *s, const char *path, error *err) {
    return open_any(s, NULL, path, err);
}

wan_status wan_spiece_bytes(const char *path, text_out *out, error *err) {
    spiece s;
    wan_status status = open_any(&s, out, path, err);
    if (status)
        return status;
    wan_spiece_free(&s);
    return out->failed ? wan_fail(err, WAN_E_MEMORY, "%s: no memory to copy the tokenizer", path)
                       : WAN_OK;
}
