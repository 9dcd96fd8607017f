/* SPDX-License-Identifier: Apache-2.0 */
/* amx_model.h - a machine with AMX, as few are: eight tiles of shapes that must have been set, and
 * the words of kernels_amx.h and kernels_amx_int8.h that both have. */
#ifndef WAN_TESTS_AMX_MODEL_H
#define WAN_TESTS_AMX_MODEL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

typedef struct tile_shape {
    int rows, bytes;
} tile_shape;

static uint8_t tiles[8][16][64];
static const tile_shape *shape; /* [8]; NULL: not set */

static void set_shapes(const tile_shape wanted[8]) {
    if (shape != wanted)
        memset(tiles, 0, sizeof tiles);
    shape = wanted;
}

static void t_zero(int n) {
    assert_non_null(shape);
    memset(tiles[n], 0, sizeof tiles[n]);
}

static void t_load(int n, const void *p, int64_t stride) {
    assert_non_null(shape);
    for (int r = 0; r < shape[n].rows; r++)
        memcpy(tiles[n][r], (const char *)p + r * stride, (size_t)shape[n].bytes);
}

static void t_store(int n, void *p, int64_t stride) {
    assert_non_null(shape);
    for (int r = 0; r < shape[n].rows; r++)
        memcpy((char *)p + r * stride, tiles[n][r], (size_t)shape[n].bytes);
}

#endif
