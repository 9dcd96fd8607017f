/* SPDX-License-Identifier: Apache-2.0 */
/* Products of 8-bit codes in plain C: what the other sets' versions must equal, codes exactly and
 * sums up to rounding. */
#include <math.h>
#include <string.h>

#include "backend/cpu/kernels.h"
#include "base/half.h"

enum { MR = 4, NR = 16, GROUP = 32 };

typedef struct row_group {
    float scale;
    int8_t code[GROUP];
} row_group;

typedef struct panel_group {
    int8_t code[GROUP][NR];
    float scale[NR];
} panel_group;

static void quantise(row_group *g, const float *x, int64_t n) {
    uint32_t top = 0; /* bits of numbers without a sign are in the order of the numbers, NaN last */
    memset(g, 0, sizeof *g);
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = wan_float_bits(x[i]) & 0x7fffffff;
        top = bits > top ? bits : top;
    }
    float most = wan_bits_float(top);
    if (top >= 0x7f800000)
        g->scale = NAN;
    else if (most >= 0x1p-100f)
        g->scale = most / 127;
    for (int64_t i = 0; g->scale > 0 && i < n; i++)
        g->code[i] = (int8_t)nearbyintf(x[i] * (127 / most));
}

static void to_int8_scalar(void *row, const float *src, int64_t n) {
    for (row_group *g = row; n > 0; n -= GROUP, src += GROUP, g++)
        quantise(g, src, n < GROUP ? n : GROUP);
}

static void int8_from_q8_0_scalar(void *row, const void *src, int64_t groups) {
    const char *block = src;
    for (row_group *g = row; groups > 0; groups--, g++, block += 2 + GROUP) {
        uint16_t scale;
        memcpy(&scale, block, 2);
        g->scale = wan_half_to_float(scale);
        memcpy(g->code, block + 2, GROUP);
    }
}

static void int8_from_codes_scalar(void *row, const int8_t *src, float scale, int64_t n) {
    for (row_group *g = row; n > 0; n -= GROUP, src += GROUP, g++) {
        *g = (row_group){.scale = scale};
        memcpy(g->code, src, (size_t)(n < GROUP ? n : GROUP));
    }
}

static void pack_int8_scalar(void *panel, const void *src, size_t stride, int64_t rows,
                             int64_t groups) {
    panel_group *p = panel;
    memset(p, 0, sizeof *p * (size_t)groups);
    for (int64_t j = 0; j < rows; j++) {
        const row_group *g = (const void *)((const char *)src + (size_t)j * stride);
        for (int64_t i = 0; i < groups; i++) {
            p[i].scale[j] = g[i].scale;
            for (int c = 0; c < GROUP; c++)
                p[i].code[c][j] = g[i].code[c];
        }
    }
}

static void int8_tile_scalar(float *dst, int64_t ld, int rows, int cols, const void *const *a,
                             int64_t groups, const void *panel, bool add) {
    for (int r = 0; r < rows; r++) {
        const row_group *g = a[r];
        const panel_group *p = panel;
        float sum[NR] = {0};
        for (int64_t i = 0; i < groups; i++)
            for (int j = 0; j < NR; j++) {
                int32_t whole = 0;
                for (int c = 0; c < GROUP; c++)
                    whole += g[i].code[c] * p[i].code[c][j];
                sum[j] += (float)whole * (g[i].scale * p[i].scale[j]);
            }
        for (int j = 0; j < cols; j++)
            dst[r * ld + j] = add ? dst[r * ld + j] + sum[j] : sum[j];
    }
}

void wan_cpu_kernels_scalar_int8(cpu_kernels *k) {
    k->int8_mr = MR;
    k->int8_row = sizeof(row_group);
    k->int8_panel = sizeof(panel_group);
    k->to_int8 = to_int8_scalar;
    k->int8_from_q8_0 = int8_from_q8_0_scalar;
    k->int8_from_codes = int8_from_codes_scalar;
    k->pack_int8 = pack_int8_scalar;
    k->int8_tile = int8_tile_scalar;
}
