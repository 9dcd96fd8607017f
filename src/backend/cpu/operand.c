/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/cpu/operand.h"

#include <string.h>

enum {
    GROUP = 32,
    DEPTH = 512, /* of f32 and of groups: with OUTPUTS half of a 512 KB L2 */
    OUTPUTS = 128
};

static_assert(GROUP == OPERAND_UNIT_MAX, "a group of int8 is the largest unit");

static void tile_f32(const cpu_kernels *k, float *dst, int64_t ld, int rows, int cols,
                     const void *const *a, int64_t n, const void *panel, bool add) {
    const float *row[CPU_MR_MAX];
    for (int r = 0; r < rows; r++)
        row[r] = a[r];
    k->gemm_tile(dst, ld, rows, cols, row, n, panel, add);
}

static void pack_f32(const cpu_kernels *k, void *panel, const void *rows, size_t stride,
                     int64_t count, int64_t n) {
    if (count < k->nr)
        memset(panel, 0, sizeof(float) * (size_t)(n * k->nr));
    k->transpose(panel, k->nr, rows, (int64_t)(stride / sizeof(float)), count, n);
}

static int64_t even(int64_t n) {
    return n + n % 2;
}

static void tile_bf16(const cpu_kernels *k, float *dst, int64_t ld, int rows, int cols,
                      const void *const *a, int64_t n, const void *panel, bool add) {
    const uint16_t *row[CPU_MR_MAX];
    for (int r = 0; r < rows; r++)
        row[r] = a[r];
    k->bf16_tile(dst, ld, rows, cols, row, even(n), panel, add);
}

static void pack_bf16(const cpu_kernels *k, void *panel, const void *rows, size_t stride,
                      int64_t count, int64_t n) {
    k->pack_pairs(panel, rows, (int64_t)(stride / sizeof(uint16_t)), count, even(n));
}

static int64_t groups(int64_t n) {
    return (n + GROUP - 1) / GROUP;
}

static void tile_int8(const cpu_kernels *k, float *dst, int64_t ld, int rows, int cols,
                      const void *const *a, int64_t n, const void *panel, bool add) {
    k->int8_tile(dst, ld, rows, cols, a, groups(n), panel, add);
}

static void pack_int8(const cpu_kernels *k, void *panel, const void *rows, size_t stride,
                      int64_t count, int64_t n) {
    k->pack_int8(panel, rows, stride, count, groups(n));
}

operand wan_cpu_operand(const cpu_kernels *k, precision p) {
    size_t nr = (size_t)k->nr;
    operand o = {.k = k, .precision = p, .depth = DEPTH, .outputs = OUTPUTS};
    switch (p) {
    case WAN_PRECISION_BF16:
        o.mr = k->bf16_mr;
        o.unit = 2;
        o.row_unit = 2 * sizeof(uint16_t);
        o.depth = k->bf16_depth;
        o.outputs = k->bf16_outputs;
        o.tile = tile_bf16;
        o.pack = pack_bf16;
        break;
    case WAN_PRECISION_INT8:
        o.mr = k->int8_mr;
        o.unit = GROUP;
        o.row_unit = k->int8_row;
        o.tile = tile_int8;
        o.pack = pack_int8;
        break;
    default:
        o.precision = WAN_PRECISION_F32;
        o.mr = k->mr;
        o.unit = 1;
        o.row_unit = sizeof(float);
        o.tile = tile_f32;
        o.pack = pack_f32;
    }
    o.panel_unit = p == WAN_PRECISION_INT8 ? k->int8_panel : o.row_unit * nr;
    assert(o.depth > 0 && o.depth % 256 == 0 && o.depth <= OPERAND_DEPTH_MAX &&
           o.outputs % k->nr == 0 &&
           operand_panel(&o, o.depth) * (size_t)(o.outputs / k->nr) <= OPERAND_BLOCK_MAX);
    return o;
}

void wan_cpu_operand_row(const operand *o, void *row, const float *x, int64_t n) {
    switch (o->precision) {
    case WAN_PRECISION_BF16:
        o->k->to_bf16(row, x, n);
        if (n % 2)
            ((uint16_t *)row)[n] = 0;
        return;
    case WAN_PRECISION_INT8:
        o->k->to_int8(row, x, n);
        return;
    default:
        memcpy(row, x, sizeof *x * (size_t)n);
    }
}

/* Weights whose numbers the precision holds as they are stored; false: there was no such way. */
static bool as_stored(const operand *o, const linear *l, void *row, int64_t at, int64_t from,
                      int64_t n) {
    const dtype_info *d = wan_dtype(l->weight.type);
    const char *src =
        (const char *)l->weight.data + (at * l->weight.dim[1] + from) / d->block * d->bytes;
    if (l->group_scale.data)
        return false;
    if (o->precision == WAN_PRECISION_BF16 && l->weight.type == WAN_BF16 && !l->scale.data) {
        memcpy(row, src, sizeof(uint16_t) * (size_t)n);
        if (n % 2)
            ((uint16_t *)row)[n] = 0;
        return true;
    }
    if (o->precision == WAN_PRECISION_INT8 && l->weight.type == WAN_Q8_0 && !l->scale.data) {
        o->k->int8_from_q8_0(row, src, n / GROUP);
        return true;
    }
    if (o->precision == WAN_PRECISION_INT8 && l->weight.type == WAN_I8) {
        const float *scale = l->scale.data;
        o->k->int8_from_codes(row, (const int8_t *)src,
                              scale ? scale[l->scale.dim[0] > 1 ? at : 0] : 1, n);
        return true;
    }
    return false;
}

void wan_cpu_operand_weight(const operand *o, const linear *l, void *row, float *space, int64_t at,
                            int64_t from, int64_t n) {
    if (o->precision == WAN_PRECISION_F32) {
        wan_cpu_unpack_row(o->k, l, row, at, from, n);
    } else if (!as_stored(o, l, row, at, from, n)) {
        wan_cpu_unpack_row(o->k, l, space, at, from, n);
        wan_cpu_operand_row(o, row, space, n);
    }
}
