/* SPDX-License-Identifier: Apache-2.0 */
/* operand.h - how a precision keeps the two sides of a matrix product.  One side passes by as rows
 * along k, the other lies as panels of nr columns that are made of rows; x and weights may be
 * either.  Everything is made of units: columns of k that are stored together. */
#ifndef WAN_BACKEND_CPU_OPERAND_H
#define WAN_BACKEND_CPU_OPERAND_H

#include "backend/cpu/cpu.h"

/* The most that any set takes, so that a plan needs no device. */
#define OPERAND_UNIT_MAX 32
#define OPERAND_ROW_MAX 72 /* bytes of a row for each OPERAND_UNIT_MAX columns; f32 rows are x */
/* Rows of bf16 as long as this, or longer, are set apart; what that takes, 127 bytes at most, is
 * less than they have below OPERAND_ROW_MAX. */
#define OPERAND_SPREAD 1024
/* A block of weights, at most: columns, and bytes of its panels. */
#define OPERAND_DEPTH_MAX 3072
#define OPERAND_BLOCK_MAX ((size_t)192 * 2 * OPERAND_DEPTH_MAX)

typedef struct operand {
    const cpu_kernels *k;
    precision precision;
    int mr;                      /* rows of a tile */
    int unit;                    /* columns, of which the last in a row may be zeros */
    size_t row_unit, panel_unit; /* bytes in a row, and in a panel */
    /* The block of weights whose panels stay in the L2 cache while rows pass by: columns, whole
     * blocks of every weight type, and outputs, whole panels. */
    int64_t depth, outputs;
    /* dst [rows, cols] (+)= rows a times a panel, both of depth n. */
    void (*tile)(const cpu_kernels *k, float *dst, int64_t ld, int rows, int cols,
                 const void *const *a, int64_t n, const void *panel, bool add);
    /* Rows [rows <= nr] of n columns, `stride` bytes apart, to a panel; columns past them are
     * zero. */
    void (*pack)(const cpu_kernels *k, void *panel, const void *rows, size_t stride, int64_t count,
                 int64_t n);
} operand;

/* The precision that products of linears have where p is asked for. */
operand wan_cpu_operand(const cpu_kernels *k, precision p);

static inline size_t operand_row(const operand *o, int64_t columns) {
    return (size_t)((columns + o->unit - 1) / o->unit) * o->row_unit;
}

/* From row to row where many lie one after the other: an odd number of cache lines, so that a
 * tile's rows of bf16 do not meet in a few sets of a cache. */
static inline size_t operand_stride(const operand *o, int64_t columns) {
    size_t bytes = operand_row(o, columns);
    if (o->precision == WAN_PRECISION_BF16 && bytes >= OPERAND_SPREAD)
        bytes = ((bytes + 63) / 64 | 1) * 64;
    return bytes;
}

static inline size_t operand_panel(const operand *o, int64_t columns) {
    return (size_t)((columns + o->unit - 1) / o->unit) * o->panel_unit;
}

/* n floats to a row. */
void wan_cpu_operand_row(const operand *o, void *row, const float *x, int64_t n);
/* Columns [from, from + n) of a row of a weight, whole blocks; `space` has room for n floats. */
void wan_cpu_operand_weight(const operand *o, const linear *l, void *row, float *space, int64_t at,
                            int64_t from, int64_t n);

#endif
