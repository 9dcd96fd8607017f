/* SPDX-License-Identifier: Apache-2.0 */
/* dst = act(x W^T + b), x [m, k], W [n, k] in any weight type, and what may be added to a residual
 * stream then, while it is still in the cache.
 *
 * Many rows: a block of outputs is unpacked, a piece of k at a time, into panels that stay in the
 * L2 cache while every row of x passes by; a weight is unpacked once (per part of x, when there are
 * too few blocks for the threads). Few rows: the roles change.  x lies transposed as the panel, and
 * the weights, unpacked to rows, pass by once; nothing of the matrix needs transposing.  Sums run
 * over k in the same order in both.
 *
 * Where the operands are narrower than f32, x is brought to rows of them once, into the op's work
 * space, one piece of k after another: the rows of a piece lie side by side. */
#include "backend/cpu/operand.h"

#include <string.h>

enum {
    PART_ROWS = 64, /* rows of x whose products cost about what unpacking a block does */
    PASS_TILES = 16,
    AHEAD_BYTES = 32 << 10, /* rows of x that are worth fetching ahead fit the L1 cache */
    FEW_PANELS = 3,         /* few rows: that many panels of x^T at most */
    FEW_TILES = 16,         /* few rows: tiles of weight rows in one hand-over... */
    FEW_ROWS = 192,         /* ...and so many rows at most */
    FEW_BYTES = 768 << 10,
};

/* Panels of a block, or panels of few rows; then rows of weights; then what is unpacked of one. */
#define ROW_MAX (OPERAND_DEPTH_MAX / OPERAND_UNIT_MAX * OPERAND_ROW_MAX)
static_assert(OPERAND_BLOCK_MAX + ROW_MAX * CPU_NR_MAX + sizeof(float) * OPERAND_DEPTH_MAX <=
                  CPU_WORK_BYTES,
              "many");
static_assert(FEW_BYTES + ROW_MAX * CPU_MR_MAX +
                      sizeof(float) * (OPERAND_DEPTH_MAX + CPU_MR_MAX * FEW_PANELS * CPU_NR_MAX) <=
                  CPU_WORK_BYTES,
              "few");
static_assert(ROW_MAX % 64 == 0 && CPU_NR_MAX % 16 == 0, "parts are aligned");

typedef struct job {
    const cpu_device *d;
    operand o;
    float *dst;
    const float *from; /* x itself */
    char *x;           /* as rows of o */
    char *panels;      /* of x, when it has few rows */
    const float *bias;
    const linear *l;
    size_t row_bytes; /* of the weight */
    int64_t m, n, k;
    int64_t together; /* rows of x that pass by one panel after the other */
    activation act;
    float *residual; /* [m, n] += gate * dst, or NULL */
    const by_frame *gate;
} job;

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* From row to row of x in the piece at k0. */
static size_t x_stride(const job *j, int64_t k0) {
    if (j->o.precision == WAN_PRECISION_F32)
        return operand_row(&j->o, j->k);
    return operand_stride(&j->o, least(j->o.depth, j->k - k0));
}

static char *x_row(const job *j, int64_t row, int64_t k0) {
    size_t piece = j->o.precision == WAN_PRECISION_F32
                       ? operand_row(&j->o, k0)
                       : (size_t)(k0 / j->o.depth * j->m) * operand_stride(&j->o, j->o.depth);
    return j->x + piece + x_stride(j, k0) * (size_t)row;
}

/* Brings the next rows nearer while the present ones are worked on: pieces of rows far apart are
 * more than the hardware foresees. */
static void prefetch(const void *first, size_t stride, int64_t rows, size_t bytes) {
    for (int64_t r = 0; r < rows; r++)
        for (size_t at = 0; at < bytes; at += 64)
            __builtin_prefetch((const char *)first + (size_t)r * stride + at);
}

/* Rows [row, row + count) of the matrix, columns [k0, k0 + kc), to rows of the operand. */
static void unpack_rows(const job *j, char *rows, float *space, int64_t row, int64_t count,
                        int64_t k0, int64_t kc) {
    for (int64_t r = 0; r < count; r++)
        wan_cpu_operand_weight(&j->o, j->l, rows + operand_stride(&j->o, kc) * (size_t)r, space,
                               row + r, k0, kc);
}

/* The weights of outputs [n0, n0 + nc) as panels [kc, nr] one after another. */
static void pack_block(const job *j, char *space, int64_t n0, int64_t nc, int64_t k0, int64_t kc) {
    char *rows = space + OPERAND_BLOCK_MAX;
    float *one = (float *)(void *)(rows + CPU_NR_MAX * ROW_MAX);
    int nr = j->d->k.nr;
    for (int64_t at = 0; at < nc; at += nr, space += operand_panel(&j->o, kc)) {
        int64_t cols = least(nr, nc - at);
        unpack_rows(j, rows, one, n0 + at, cols, k0, kc);
        j->o.pack(&j->d->k, space, rows, operand_stride(&j->o, kc), cols, kc);
    }
}

/* Rows [r0, r1) of x pass by a panel of the piece at k0; `first`: they have met none yet. */
static void pass_panel(const job *j, const char *panel, int64_t r0, int64_t r1, int64_t n0,
                       int cols, int64_t k0, bool first) {
    int64_t kc = least(j->o.depth, j->k - k0);
    int mr = j->o.mr;
    size_t stride = x_stride(j, k0), bytes = operand_row(&j->o, kc);
    const char *x = x_row(j, r0, k0);
    first &= bytes * (size_t)mr <= AHEAD_BYTES;
    for (; r0 < r1; r0 += mr, x += stride * (size_t)mr) {
        int rows = (int)least(mr, r1 - r0);
        const void *a[CPU_MR_MAX];
        for (int r = 0; r < rows; r++)
            a[r] = x + stride * (size_t)r;
        if (first)
            prefetch(x + stride * (size_t)mr, stride, least(mr, j->m - r0 - mr), bytes);
        j->o.tile(&j->d->k, j->dst + r0 * j->n + n0, j->n, rows, cols, a, kc, panel, k0 > 0);
    }
}

/* Sums [n0, n0 + nc) of a row are whole. */
static void finish(const job *j, int64_t row, int64_t n0, int64_t nc) {
    float *dst = j->dst + row * j->n + n0;
    wan_cpu_finish(&j->d->k, dst, j->bias ? j->bias + n0 : NULL, nc, j->act);
    if (j->residual)
        wan_cpu_add_row(j->residual + row * j->n + n0, dst,
                        j->gate ? wan_cpu_frame_row(*j->gate, row) + n0 : NULL, nc);
}

/* Outputs [n0, n0 + nc) of the rows [m0, m1). */
static void many_rows_block(const job *j, char *space, int64_t m0, int64_t m1, int64_t n0,
                            int64_t nc) {
    const cpu_kernels *k = &j->d->k;
    for (int64_t k0 = 0; k0 < j->k; k0 += j->o.depth) {
        int64_t kc = least(j->o.depth, j->k - k0);
        size_t panel = operand_panel(&j->o, kc);
        pack_block(j, space, n0, nc, k0, kc);
        for (int64_t r0 = m0; r0 < m1; r0 += j->together) {
            int64_t r1 = least(m1, r0 + j->together);
            for (int64_t at = 0; at < nc; at += k->nr)
                pass_panel(j, space + panel * (size_t)(at / k->nr), r0, r1, n0 + at,
                           (int)least(k->nr, nc - at), k0, at == 0);
            for (int64_t r = r0; k0 + kc == j->k && r < r1; r++)
                finish(j, r, n0, nc);
        }
    }
}

/* Multiply-adds too few to share: waking a thread would cost more. */
static bool is_small(const job *j) {
    return j->m * j->n * j->k < 1 << 18;
}

/* Tasks of many rows: a block of outputs, a part of x. */
typedef struct many {
    const job *j;
    int64_t parts, part;
} many;

static void many_piece(void *arg, int64_t from, int64_t to, int worker) {
    const many *t = arg;
    const job *j = t->j;
    for (int64_t task = from; task < to; task++) {
        int64_t n0 = task / t->parts * j->o.outputs, m0 = task % t->parts * t->part;
        many_rows_block(j, wan_cpu_work(j->d, worker), m0, least(j->m, m0 + t->part), n0,
                        least(j->o.outputs, j->n - n0));
    }
    wan_cpu_rest(j->d);
}

/* Into how many parts x is cut so that all threads end soonest: more share better, but each unpacks
 * the block anew. */
static int64_t best_parts(const job *j, int64_t blocks) {
    int64_t best = 1, least_rows = INT64_MAX;
    for (int64_t parts = 1; parts <= ceil_div(j->m, PART_ROWS); parts++) {
        int64_t turns = ceil_div(blocks * parts, j->d->threads);
        int64_t rows = turns * (ceil_div(j->m, parts) + PART_ROWS);
        if (rows < least_rows) {
            least_rows = rows;
            best = parts;
        }
    }
    return best;
}

static void many_rows(const job *j) {
    int64_t blocks = ceil_div(j->n, j->o.outputs);
    many t = {.j = j};
    t.parts = best_parts(j, blocks);
    t.part = ceil_div(ceil_div(j->m, t.parts), j->o.mr) * j->o.mr;
    t.parts = ceil_div(j->m, t.part);
    wan_team_run(j->d->team, blocks * t.parts, is_small(j) ? blocks * t.parts : 1, many_piece, &t);
}

/* The panel of rows [m0, m0 + nr) of x, from k0 on. */
static char *few_panel(const job *j, int64_t m0, int64_t k0) {
    return j->panels + operand_panel(&j->o, j->k) * (size_t)(m0 / j->d->k.nr) +
           operand_panel(&j->o, k0);
}

/* Outputs [n0, n0 + rows) of all rows of x. */
static void few_rows_tile(const job *j, char *space, int64_t n0, int rows) {
    const cpu_kernels *k = &j->d->k;
    const dtype_info *type = wan_dtype(j->l->weight.type);
    int mr = j->o.mr;
    float *one = (float *)(void *)(space + CPU_MR_MAX * ROW_MAX), *tile = one + OPERAND_DEPTH_MAX;
    for (int64_t k0 = 0; k0 < j->k; k0 += j->o.depth) {
        int64_t kc = least(j->o.depth, j->k - k0);
        const void *a[CPU_MR_MAX];
        unpack_rows(j, space, one, n0, rows, k0, kc);
        prefetch((const char *)j->l->weight.data + j->row_bytes * (size_t)(n0 + mr) +
                     k0 / type->block * type->bytes,
                 j->row_bytes, least(mr, j->n - n0 - mr), (size_t)(kc / type->block * type->bytes));
        for (int r = 0; r < rows; r++)
            a[r] = space + operand_stride(&j->o, kc) * (size_t)r;
        for (int64_t m0 = 0; m0 < j->m; m0 += k->nr) /* whole registers: parts are slow to store */
            j->o.tile(k, tile + m0 * mr, k->nr, rows, j->m - m0 > k->nr / 2 ? k->nr : k->nr / 2, a,
                      kc, few_panel(j, m0, k0), k0 > 0);
    }
    for (int64_t m0 = 0; m0 < j->m; m0 += k->nr, tile += mr * k->nr) {
        int64_t cols = least(k->nr, j->m - m0);
        for (int r = 0; r < rows; r++) {
            for (int64_t i = 0; j->bias && i < cols; i++)
                tile[r * k->nr + i] += j->bias[n0 + r];
            wan_cpu_finish(k, tile + r * k->nr, NULL, cols, j->act);
        }
        k->transpose(j->dst + m0 * j->n + n0, j->n, tile, k->nr, rows, cols);
    }
}

static void pack_few_piece(void *arg, int64_t from, int64_t to, int worker) {
    const job *j = arg;
    int64_t pieces = ceil_div(j->k, j->o.depth), nr = j->d->k.nr;
    (void)worker;
    for (int64_t i = from; i < to; i++) {
        int64_t m0 = i / pieces * nr, k0 = i % pieces * j->o.depth;
        j->o.pack(&j->d->k, few_panel(j, m0, k0), x_row(j, m0, k0), x_stride(j, k0),
                  least(nr, j->m - m0), least(j->o.depth, j->k - k0));
    }
}

static void few_piece(void *arg, int64_t from, int64_t to, int worker) {
    const job *j = arg;
    char *own = (char *)wan_cpu_work(j->d, worker) + FEW_BYTES;
    for (int64_t n0 = from; n0 < to; n0 += j->o.mr)
        few_rows_tile(j, own, n0, (int)least(j->o.mr, to - n0));
    wan_cpu_rest(j->d);
}

static void few_rows(job *j) {
    int64_t pieces = ceil_div(j->m, j->d->k.nr) * ceil_div(j->k, j->o.depth);
    wan_team_run(j->d->team, pieces, is_small(j) ? pieces : 1, pack_few_piece, j);
    int64_t grain = least((int64_t)FEW_TILES * j->o.mr, FEW_ROWS / j->o.mr * j->o.mr);
    wan_team_run(j->d->team, j->n, is_small(j) ? j->n : grain, few_piece, j);
}

static void narrow_piece(void *arg, int64_t from, int64_t to, int worker) {
    const job *j = arg;
    (void)worker;
    for (int64_t k0 = 0; k0 < j->k; k0 += j->o.depth)
        for (int64_t r = from; r < to; r++)
            wan_cpu_operand_row(&j->o, x_row(j, r, k0), j->from + r * j->k + k0,
                                least(j->o.depth, j->k - k0));
}

/* Bytes of x as rows, at most, made whole lines. */
static size_t narrow_rows(int64_t m, int64_t k) {
    size_t bytes = (size_t)m * (size_t)ceil_div(k, OPERAND_UNIT_MAX) * OPERAND_ROW_MAX;
    return (bytes + 63) / 64 * 64;
}

static precision precision_of(const compute *c, const linear *l) {
    if (l->bits == 32)
        return WAN_PRECISION_F32;
    return l->bits ? wan_cpu_without_int8(c->precision, &wan_cpu_device(c)->k) : c->precision;
}

/* Room for panels, too, where the number of rows may be few to some set; a plan knows no device. */
size_t wan_cpu_linear_space(const compute *c, tensor dst, tensor x, const linear *l) {
    int64_t m = x.dim[0], most = FEW_PANELS * CPU_NR_MAX;
    (void)dst;
    if (c->precision == WAN_PRECISION_F32 || l->bits == 32)
        return 0;
    return narrow_rows(m, x.dim[1]) +
           (m <= most ? narrow_rows(ceil_div(m, CPU_NR_MAX) * CPU_NR_MAX, x.dim[1]) : 0);
}

/* Whether x has few rows, and where it lies as the operand that it is. */
static bool place_x(job *j, char *space) {
    int64_t panels = ceil_div(j->m, j->d->k.nr);
    if (j->o.precision == WAN_PRECISION_F32) {
        j->together = j->o.mr;
        j->x = (char *)(void *)(uintptr_t)j->from;
        j->panels = wan_cpu_work(j->d, 0);
        return panels <= FEW_PANELS &&
               operand_panel(&j->o, j->k) * (size_t)panels <= (size_t)FEW_BYTES;
    }
    /* A tile of int8 has few rows for the bytes of its panel, which so stays in the L1 cache. */
    bool int8 = j->o.precision == WAN_PRECISION_INT8;
    j->together = j->o.mr * (int8 ? PASS_TILES : 1);
    j->x = space;
    j->panels = space + narrow_rows(j->m, j->k);
    int64_t grain = wan_cpu_grain(j->k);
    wan_team_run(j->d->team, j->m, is_small(j) ? j->m : grain, narrow_piece, j);
    return panels <= FEW_PANELS;
}

/* Returns whether x has few rows: their sums join no residual stream yet. */
static bool product(compute *c, job *j, tensor dst, tensor x, const linear *l) {
    j->d = wan_cpu_device(c);
    j->dst = dst.data;
    j->from = x.data;
    j->bias = l->bias.data;
    j->l = l;
    j->m = x.dim[0];
    j->n = l->weight.dim[0];
    j->k = x.dim[1];
    j->o = wan_cpu_operand(&j->d->k, precision_of(c, l));
    j->row_bytes = wan_bytes(wan_slice(l->weight, 0, 1));
    if (!j->m || !j->n)
        return false;
    bool few = place_x(j, c->workspace);
    if (few)
        few_rows(j);
    else
        many_rows(j);
    return few;
}

void wan_cpu_linear(compute *c, tensor dst, tensor x, const linear *l, activation act) {
    job j = {.act = act};
    product(c, &j, dst, x, l);
}

void wan_cpu_linear_add(compute *c, tensor x, tensor sums, tensor y, const linear *l,
                        const by_frame *gate) {
    job j = {.residual = x.data, .gate = gate};
    if (!product(c, &j, sums, y, l))
        return;
    if (gate)
        wan_cpu_add_gated(c, x, sums, *gate);
    else
        wan_cpu_add(c, x, sums);
}
