/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a safetensors file: refused with a sentence, or every tensor lies inside and can be
 * found again. */
#include "fuzz.h"

#include "io/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    error err = {0};
    safetensors *s = wan_safetensors_open_bytes(data, size, "fuzz", &err);
    if (!s) {
        expect_sentence(&err);
        return 0;
    }
    MUST(err.code == WAN_OK);
    size_t sum = 0;
    for (size_t i = 0; i < wan_safetensors_count(s); i++) {
        const named_tensor *n = wan_safetensors_at(s, i);
        expect_inside(n, data, size);
        sum += wan_bytes(n->t);
        MUST(wan_safetensors_find(s, n->name) == n);
    }
    MUST(sum <= size); /* nothing shared, nothing counted twice */
    for (size_t i = 0; i < wan_safetensors_meta_count(s); i++)
        MUST(wan_safetensors_meta(s, wan_safetensors_meta_key(s, i)));
    wan_safetensors_close(s);
    return 0;
}
