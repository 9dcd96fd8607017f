/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a GGUF file: refused with a sentence, or every tensor and every metadata value lies
 * inside. */
#include "fuzz.h"

#include "io/gguf.h"

static void read_value(const gguf_value *v, const uint8_t *data, size_t size) {
    MUST(v->type < GGUF_TYPES && v->type != GGUF_ARRAY);
    MUST(v->array || v->count == 1);
    MUST(v->at >= data && v->at <= data + size);
    double number;
    int64_t whole;
    if (v->type != GGUF_STRING) {
        for (uint64_t i = 0; i < v->count; i++) {
            MUST(wan_gguf_number(v, i, &number));
            (void)wan_gguf_integer(v, i, &whole);
        }
        MUST(!wan_gguf_number(v, v->count, &number));
        return;
    }
    const uint8_t *at = v->at;
    for (uint64_t i = 0; i < v->count; i++) {
        size_t n;
        const char *text = wan_gguf_next_string(&at, &n);
        MUST(at <= data + size);
        if (n)
            (void)*(const volatile char *)&text[n - 1];
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    error err = {0};
    gguf *g = wan_gguf_open_bytes(data, size, "fuzz", &err);
    if (!g) {
        expect_sentence(&err);
        return 0;
    }
    MUST(err.code == WAN_OK);
    size_t sum = 0;
    for (size_t i = 0; i < wan_gguf_count(g); i++) {
        const named_tensor *n = wan_gguf_at(g, i);
        expect_inside(n, data, size);
        sum += wan_bytes(n->t);
        int64_t row = n->t.rank ? n->t.dim[n->t.rank - 1] : 1;
        MUST(row % wan_dtype(n->t.type)->block == 0);
        MUST(wan_gguf_find(g, n->name) == n);
    }
    MUST(sum <= size);
    for (size_t i = 0; i < wan_gguf_meta_count(g); i++) {
        const gguf_value *v = wan_gguf_meta_at(g, i);
        MUST(wan_gguf_meta(g, v->key) == v);
        read_value(v, data, size);
    }
    wan_gguf_close(g);
    return 0;
}
