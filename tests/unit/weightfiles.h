/* SPDX-License-Identifier: Apache-2.0 */
/* weightfiles.h - small weight files for tests, from a list of tensors.
 * Element i of a plain tensor is i + 1 in its type, so that a test can tell what was read. */
#ifndef WAN_TESTS_WEIGHTFILES_H
#define WAN_TESTS_WEIGHTFILES_H

#include "files.h"
#include "tensor/tensor.h"

typedef struct spec {
    const char *name;
    dtype type;
    int rank;
    int64_t dim[WAN_MAX_RANK]; /* slowest first */
} spec;

/* What U8 tensors hold instead, and more entries for __metadata__ (",\"key\":\"value\""). */
static const char *u8_text, *more_metadata = "";

static inline void put_elements(bytes *b, tensor t) {
    if (t.type == WAN_U8 && u8_text) {
        put(b, u8_text, wan_bytes(t));
        return;
    }
    if (wan_dtype(t.type)->block != 1) {
        for (size_t i = 0; i < wan_bytes(t); i++)
            put_number(b, i, 1);
        return;
    }
    for (int64_t i = 1; i <= wan_elements(t); i++) {
        float f = (float)i;
        double d = (double)i;
        uint32_t bits;
        memcpy(&bits, &f, 4);
        uint16_t bf16 = (uint16_t)(bits >> 16);
        /* exact for small whole numbers */
        uint16_t f16 = (uint16_t)(((bits >> 23) - 112) << 10 | (bits >> 13 & 1023));
        switch (t.type) {
        case WAN_F32:
            put(b, &f, 4);
            break;
        case WAN_F64:
            put(b, &d, 8);
            break;
        case WAN_F16:
            put(b, &f16, 2);
            break;
        case WAN_BF16:
            put(b, &bf16, 2);
            break;
        default:
            put_number(b, (uint64_t)i, wan_dtype(t.type)->bytes);
        }
    }
}

static inline const char *make_weights(const char *folder, const char *file, const spec *s,
                                       size_t n) {
    static bytes b;
    char header[1 << 14], shape[128];
    size_t offset = 0;
    snprintf(header, sizeof header, "{\"__metadata__\":{\"format\":\"pt\"%s}", more_metadata);
    for (size_t i = 0; i < n; i++) {
        tensor t = wan_tensor(s[i].type, s[i].rank, s[i].dim, NULL);
        size_t at = strlen(header);
        snprintf(header + at, sizeof header - at,
                 ",\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}", s[i].name,
                 wan_dtype(s[i].type)->name, wan_shape_text(t, shape, sizeof shape), offset,
                 offset + wan_bytes(t));
        offset += wan_bytes(t);
    }
    strcat(header, "}");
    b.n = 0;
    put_safetensors(&b, header, 0);
    for (size_t i = 0; i < n; i++)
        put_elements(&b, wan_tensor(s[i].type, s[i].rank, s[i].dim, NULL));
    return make_file(folder, file, b.at, b.n);
}

/* With general.architecture "wan" and the number 7 as u32 "seven", f32 "half" = 0.5. */
static inline const char *make_gguf(const char *folder, const char *file, const spec *s, size_t n) {
    static const int id[WAN_DTYPES] = {[WAN_F32] = 0,   [WAN_F16] = 1,  [WAN_Q8_0] = 8,
                                       [WAN_BF16] = 30, [WAN_F64] = 28, [WAN_IQ2_XXS] = 16};
    static bytes b;
    b.n = 0;
    put(&b, "GGUF", 4);
    put_number(&b, 3, 4);
    put_number(&b, n, 8);
    put_number(&b, 4, 8);
    put_string(&b, "general.architecture");
    put_number(&b, 8, 4);
    put_string(&b, "wan");
    put_string(&b, "seven");
    put_number(&b, 4, 4);
    put_number(&b, 7, 4);
    put_string(&b, "half");
    put_number(&b, 6, 4);
    put_number(&b, 0x3f000000, 4);
    put_string(&b, "list");
    put_number(&b, 9, 4);
    put_number(&b, 0, 4);
    put_number(&b, 1, 8);
    put_number(&b, 1, 1);
    size_t offset = 0;
    for (size_t i = 0; i < n; i++) {
        put_string(&b, s[i].name);
        put_number(&b, (uint64_t)s[i].rank, 4);
        for (int d = s[i].rank; d-- > 0;)
            put_number(&b, (uint64_t)s[i].dim[d], 8);
        put_number(&b, (uint64_t)id[s[i].type], 4);
        put_number(&b, offset, 8);
        offset =
            (offset + wan_bytes(wan_tensor(s[i].type, s[i].rank, s[i].dim, NULL)) + 31) / 32 * 32;
    }
    for (size_t i = 0; i < n; i++) {
        while (b.n % 32)
            put_number(&b, 0, 1);
        put_elements(&b, wan_tensor(s[i].type, s[i].rank, s[i].dim, NULL));
    }
    return make_file(folder, file, b.at, b.n);
}

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

#endif
