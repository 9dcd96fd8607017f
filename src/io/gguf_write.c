/* SPDX-License-Identifier: Apache-2.0 */
#include "io/gguf_write.h"

#include <stdlib.h>
#include <string.h>

#include "io/gguf.h"
#include "io/outfile.h"

#define ALIGNMENT 32

/* ggml's numbers for the types a file may hold. */
static int ggml_number(dtype t) {
    switch (t) {
    case WAN_F32:
        return 0;
    case WAN_F16:
        return 1;
    case WAN_Q4_0:
        return 2;
    case WAN_Q4_1:
        return 3;
    case WAN_Q5_0:
        return 6;
    case WAN_Q5_1:
        return 7;
    case WAN_Q8_0:
        return 8;
    case WAN_Q2_K:
        return 10;
    case WAN_Q3_K:
        return 11;
    case WAN_Q4_K:
        return 12;
    case WAN_Q5_K:
        return 13;
    case WAN_Q6_K:
        return 14;
    case WAN_IQ4_NL:
        return 20;
    case WAN_IQ4_XS:
        return 23;
    case WAN_I8:
        return 24;
    case WAN_I16:
        return 25;
    case WAN_I32:
        return 26;
    case WAN_I64:
        return 27;
    case WAN_F64:
        return 28;
    case WAN_BF16:
        return 30;
    default:
        return -1;
    }
}

/* Bytes that grow. */
typedef struct buffer {
    char *data;
    size_t size, room;
} buffer;

struct gguf_writer {
    outfile *file;
    buffer meta, directory;
    uint64_t keys, tensors;
    uint64_t *size;  /* bytes of each tensor */
    uint64_t offset; /* where the next announced tensor begins */
    uint64_t at;     /* the tensor whose data comes now, */
    uint64_t filled; /* and how much of it came */
    bool data_began;
    error err;
};

static void append(gguf_writer *w, buffer *b, const void *data, size_t size) {
    if (w->err.code)
        return;
    if (size > b->room - b->size) {
        size_t room = 2 * (b->size + size) + 4096;
        char *grown = realloc(b->data, room);
        if (!grown) {
            wan_fail(&w->err, WAN_E_MEMORY, "out of memory for %zu bytes of a GGUF header", room);
            return;
        }
        b->data = grown;
        b->room = room;
    }
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

static void append_u32(gguf_writer *w, buffer *b, uint32_t v) {
    append(w, b, &v, sizeof v);
}
static void append_u64(gguf_writer *w, buffer *b, uint64_t v) {
    append(w, b, &v, sizeof v);
}

static void append_string(gguf_writer *w, buffer *b, const char *text) {
    append_u64(w, b, strlen(text));
    append(w, b, text, strlen(text));
}

gguf_writer *wan_gguf_write_open(const char *path, error *err) {
    gguf_writer *w = calloc(1, sizeof *w);
    if (!w) {
        wan_fail(err, WAN_E_MEMORY, "%s: out of memory for a GGUF writer", path);
        return NULL;
    }
    w->file = wan_outfile_open(path, err);
    if (!w->file) {
        free(w);
        return NULL;
    }
    return w;
}

static void begin_key(gguf_writer *w, const char *key, gguf_type type) {
    append_string(w, &w->meta, key);
    append_u32(w, &w->meta, (uint32_t)type);
    w->keys++;
}

static void begin_array(gguf_writer *w, const char *key, gguf_type type, uint64_t count) {
    begin_key(w, key, GGUF_ARRAY);
    append_u32(w, &w->meta, (uint32_t)type);
    append_u64(w, &w->meta, count);
}

void wan_gguf_write_u32(gguf_writer *w, const char *key, uint32_t value) {
    begin_key(w, key, GGUF_U32);
    append_u32(w, &w->meta, value);
}

void wan_gguf_write_f32(gguf_writer *w, const char *key, float value) {
    begin_key(w, key, GGUF_F32);
    append(w, &w->meta, &value, sizeof value);
}

void wan_gguf_write_bool(gguf_writer *w, const char *key, bool value) {
    uint8_t byte = value;
    begin_key(w, key, GGUF_BOOL);
    append(w, &w->meta, &byte, 1);
}

void wan_gguf_write_string(gguf_writer *w, const char *key, const char *value) {
    begin_key(w, key, GGUF_STRING);
    append_string(w, &w->meta, value);
}

void wan_gguf_write_strings(gguf_writer *w, const char *key, const char *const *values,
                            uint64_t count) {
    begin_array(w, key, GGUF_STRING, count);
    for (uint64_t i = 0; i < count; i++)
        append_string(w, &w->meta, values[i]);
}

void wan_gguf_write_f32s(gguf_writer *w, const char *key, const float *values, uint64_t count) {
    begin_array(w, key, GGUF_F32, count);
    append(w, &w->meta, values, count * sizeof *values);
}

void wan_gguf_write_i32s(gguf_writer *w, const char *key, const int32_t *values, uint64_t count) {
    begin_array(w, key, GGUF_I32, count);
    append(w, &w->meta, values, count * sizeof *values);
}

void wan_gguf_write_bytes(gguf_writer *w, const char *key, const void *bytes, uint64_t count) {
    begin_array(w, key, GGUF_U8, count);
    append(w, &w->meta, bytes, count);
}

static uint64_t padding(uint64_t size) {
    return (ALIGNMENT - size % ALIGNMENT) % ALIGNMENT;
}

void wan_gguf_write_tensor(gguf_writer *w, const char *name, tensor t) {
    int number = ggml_number(t.type);
    if (number < 0) {
        wan_fail(&w->err, WAN_E_TYPE, "%s: GGUF has no type %s", name, wan_dtype(t.type)->name);
        return;
    }
    uint64_t *grown = realloc(w->size, (w->tensors + 1) * sizeof *grown);
    if (!grown) {
        wan_fail(&w->err, WAN_E_MEMORY, "out of memory for %llu tensors",
                 (unsigned long long)w->tensors + 1);
        return;
    }
    w->size = grown;
    w->size[w->tensors++] = wan_bytes(t);
    append_string(w, &w->directory, name);
    append_u32(w, &w->directory, (uint32_t)t.rank);
    for (int i = t.rank - 1; i >= 0; i--)
        append_u64(w, &w->directory, (uint64_t)t.dim[i]);
    append_u32(w, &w->directory, (uint32_t)number);
    append_u64(w, &w->directory, w->offset);
    w->offset += wan_bytes(t) + padding(wan_bytes(t));
}

static wan_status pad(gguf_writer *w, uint64_t size, error *err) {
    static const char zero[ALIGNMENT];
    return wan_outfile_write(w->file, zero, padding(size), err);
}

static wan_status write_header(gguf_writer *w, error *err) {
    buffer head = {0};
    w->data_began = true;
    append(w, &head, "GGUF", 4);
    append_u32(w, &head, 3);
    append_u64(w, &head, w->tensors);
    append_u64(w, &head, w->keys);
    append(w, &head, w->meta.data ? w->meta.data : "", w->meta.size);
    append(w, &head, w->directory.data ? w->directory.data : "", w->directory.size);
    wan_status status = w->err.code ? wan_fail(err, w->err.code, "%s", w->err.message)
                                    : wan_outfile_write(w->file, head.data, head.size, err);
    if (!status)
        status = pad(w, head.size, err);
    free(head.data);
    return status;
}

wan_status wan_gguf_write_data(gguf_writer *w, const void *data, size_t size, error *err) {
    if (!w->data_began && write_header(w, err))
        return err ? err->code : WAN_E_OUTPUT;
    const char *p = data;
    while (size) {
        if (w->at == w->tensors)
            return wan_fail(err, WAN_E_INTERNAL, "%zu bytes beyond the last of %llu tensors", size,
                            (unsigned long long)w->tensors);
        uint64_t left = w->size[w->at] - w->filled;
        size_t n = size < left ? size : (size_t)left;
        wan_status status = wan_outfile_write(w->file, p, n, err);
        w->filled += n;
        if (!status && w->filled == w->size[w->at]) {
            status = pad(w, w->filled, err);
            w->at++;
            w->filled = 0;
        }
        if (status)
            return status;
        p += n;
        size -= n;
    }
    return WAN_OK;
}

static void writer_free(gguf_writer *w) {
    free(w->meta.data);
    free(w->directory.data);
    free(w->size);
    free(w);
}

wan_status wan_gguf_write_commit(gguf_writer *w, error *err) {
    error local = {0};
    if (!w->data_began)
        write_header(w, &local);
    if (!local.code && w->at != w->tensors)
        wan_fail(&local, WAN_E_INTERNAL, "only %llu of %llu tensors were written",
                 (unsigned long long)w->at, (unsigned long long)w->tensors);
    if (local.code)
        wan_outfile_abort(w->file);
    else
        wan_outfile_commit(w->file, &local);
    writer_free(w);
    return local.code ? wan_fail(err, local.code, "%s", local.message) : WAN_OK;
}

void wan_gguf_write_abort(gguf_writer *w) {
    if (!w)
        return;
    wan_outfile_abort(w->file);
    writer_free(w);
}
