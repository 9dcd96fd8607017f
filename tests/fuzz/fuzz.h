/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz.h - what the fuzz targets share: promises that stop the run when broken. */
#ifndef WAN_TESTS_FUZZ_H
#define WAN_TESTS_FUZZ_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "io/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(what)                                                                                 \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #what);             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static inline void expect_sentence(const error *err) {
    MUST(err->code == WAN_E_FORMAT || err->code == WAN_E_TYPE);
    MUST(strncmp(err->message, "fuzz: ", 6) == 0 && err->message[6]);
}

/* Reads the first and the last byte, so that a sanitizer sees a wrong address. */
static inline void expect_inside(const named_tensor *n, const uint8_t *data, size_t size) {
    size_t bytes = wan_bytes(n->t);
    MUST(n->t.rank >= 0 && n->t.rank <= WAN_MAX_RANK);
    MUST(*n->name);
    if (!bytes)
        return;
    const volatile uint8_t *p = n->t.data;
    MUST(p >= data && bytes <= size && (size_t)(p - data) <= size - bytes);
    (void)p[0];
    (void)p[bytes - 1];
}

#endif
