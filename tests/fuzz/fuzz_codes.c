/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a safetensors file whose tensors are joined with their scales: refused with a
 * sentence, or every weight can be read to its end. */
#include "fuzz.h"

#include "tensor/quants.h"
#include "weights/codes.h"

static void read_all(const stored *s) {
    static float values[4096];
    int64_t n = wan_elements(s->t), step = 4096;
    MUST(!s->offset || s->scale);
    MUST(!s->scale || s->scale->companion);
    if (s->companion || !wan_can_dequantise(s->t.type) || n > 1 << 20)
        return;
    for (int64_t at = 0; at < n; at += step)
        wan_stored_read(s, values, at, n - at < step ? n - at : step);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    error err = {0};
    safetensors *f = wan_safetensors_open_bytes(data, size, "fuzz", &err);
    if (!f)
        return 0; /* fuzz_safetensors looks at that */
    size_t count = wan_safetensors_count(f);
    stored *items = calloc(count + 1, sizeof *items);
    lookup names = {0};
    MUST(items);
    for (size_t i = 0; i < count; i++) {
        const named_tensor *n = wan_safetensors_at(f, i);
        items[i] = (stored){.name = n->name, .source = n->name, .file = "fuzz", .t = n->t};
        items[i].channels_last = n->t.rank >= 4;
        MUST(wan_lookup_add(&names, n->name, i, &err) == WAN_OK);
    }
    MUST(!wan_lookup_sort(&names));
    wan_status st = wan_codes_join(items, count, &names,
                                   wan_safetensors_meta(f, "quantization_level"),
                                   wan_safetensors_meta(f, "_quantization_metadata"), "fuzz", &err);
    MUST(st == err.code);
    if (st == WAN_E_SHAPE) /* expect_sentence knows readers only, which have no shapes to compare */
        err.code = WAN_E_FORMAT;
    if (st != WAN_OK)
        expect_sentence(&err);
    for (size_t i = 0; st == WAN_OK && i < count; i++)
        read_all(&items[i]);
    wan_lookup_free(&names);
    free(items);
    wan_safetensors_close(f);
    return 0;
}
