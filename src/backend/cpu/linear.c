/* SPDX-License-Identifier: Apache-2.0 */
/* dst = act(x W^T + b), x [m, k], W [n, k] in any weight type.
 *
 * Many rows: a block of NC outputs is unpacked, KC columns at a time, into panels that stay in the
 * L2 cache while every row of x passes by; a weight is unpacked once (per part of x, when there are
 * too few blocks for the threads). Few rows: the roles change.  x lies transposed as the panel, and
 * the weights, unpacked to rows, pass by once; nothing of the matrix needs transposing.  Sums run
 * over k in the same order in both. */
#include "backend/cpu/cpu.h"

#include <string.h>

enum {
    KC = 512,       /* whole blocks of every weight type */
    NC = 128,       /* KC * NC floats: half of a 512 KB L2 */
    PART_ROWS = 64, /* rows of x that are worth unpacking a block for */
    FEW_PANELS = 3, /* few rows: that many panels of x^T at most */
    FEW_TILES = 16, /* few rows: tiles of weight rows in one hand-over */
    FEW_BYTES = 768 << 10,
};

static_assert(sizeof(float) * KC * (NC + CPU_NR_MAX) <= CPU_WORK_BYTES, "panels and rows");
static_assert(NC % CPU_NR_MAX == 0, "a block is whole panels");
static_assert(FEW_BYTES + sizeof(float) * CPU_MR_MAX * (KC + FEW_PANELS * CPU_NR_MAX) <=
                  CPU_WORK_BYTES,
              "few");

typedef struct job {
    const cpu_device *d;
    float *dst;
    const float *x, *bias;
    const linear *l;
    size_t row_bytes; /* of the weight */
    int64_t m, n, k;
    activation act;
} job;

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* Brings the next rows nearer while the present ones are worked on: pieces of rows far apart are
 * more than the hardware foresees. */
static void prefetch(const void *first, size_t stride, int64_t rows, size_t bytes) {
    for (int64_t r = 0; r < rows; r++)
        for (size_t at = 0; at < bytes; at += 64)
            __builtin_prefetch((const char *)first + (size_t)r * stride + at);
}

/* Rows [row, row + count) of the matrix, columns [k0, k0 + kc), to f32 rows of kc. */
static void unpack_rows(const job *j, float *rows, int64_t row, int64_t count, int64_t k0,
                        int64_t kc) {
    for (int64_t r = 0; r < count; r++)
        wan_cpu_unpack_row(&j->d->k, j->l, rows + r * kc, row + r, k0, kc);
}

/* The weights of outputs [n0, n0 + nc) as panels [kc, nr] one after another. */
static void pack_block(const job *j, float *panels, float *rows, int64_t n0, int64_t nc, int64_t k0,
                       int64_t kc) {
    int nr = j->d->k.nr;
    for (int64_t at = 0; at < nc; at += nr, panels += kc * nr) {
        int64_t cols = least(nr, nc - at);
        if (cols < nr)
            memset(panels, 0, sizeof *panels * (size_t)(kc * nr));
        unpack_rows(j, rows, n0 + at, cols, k0, kc);
        j->d->k.transpose(panels, nr, rows, kc, cols, kc);
    }
}

/* Outputs [n0, n0 + nc) of the rows [m0, m1). */
static void many_rows_block(const job *j, float *space, int64_t m0, int64_t m1, int64_t n0,
                            int64_t nc) {
    const cpu_kernels *k = &j->d->k;
    for (int64_t k0 = 0; k0 < j->k; k0 += KC) {
        int64_t kc = least(KC, j->k - k0);
        pack_block(j, space, space + KC * NC, n0, nc, k0, kc);
        for (int64_t r0 = m0; r0 < m1; r0 += k->mr) {
            int rows = (int)least(k->mr, m1 - r0);
            const float *a[CPU_MR_MAX];
            for (int r = 0; r < rows; r++)
                a[r] = j->x + (r0 + r) * j->k + k0;
            int64_t next = r0 + k->mr;
            prefetch(j->x + next * j->k + k0, sizeof *j->x * (size_t)j->k, least(k->mr, m1 - next),
                     sizeof *j->x * (size_t)kc);
            for (int64_t at = 0; at < nc; at += k->nr)
                k->gemm_tile(j->dst + r0 * j->n + n0 + at, j->n, rows, (int)least(k->nr, nc - at),
                             a, kc, space + at * kc, k0 > 0);
            if (k0 + kc < j->k)
                continue;
            for (int r = 0; r < rows; r++)
                wan_cpu_finish(k, j->dst + (r0 + r) * j->n + n0, j->bias ? j->bias + n0 : NULL, nc,
                               j->act);
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
        int64_t n0 = task / t->parts * NC, m0 = task % t->parts * t->part;
        many_rows_block(j, wan_cpu_work(j->d, worker), m0, least(j->m, m0 + t->part), n0,
                        least(NC, j->n - n0));
    }
}

static void many_rows(const job *j) {
    int64_t blocks = ceil_div(j->n, NC);
    many t = {.j = j};
    t.parts = least(ceil_div(4 * (int64_t)j->d->threads, blocks), ceil_div(j->m, PART_ROWS));
    t.part = ceil_div(ceil_div(j->m, t.parts), j->d->k.mr) * j->d->k.mr;
    t.parts = ceil_div(j->m, t.part);
    wan_team_run(j->d->team, blocks * t.parts, is_small(j) ? blocks * t.parts : 1, many_piece, &t);
}

/* Columns [k0, k0 + kc) of rows [m0, ...) of x, transposed, to their place in panel [k, nr]. */
static void pack_few(const job *j, float *panel, int64_t m0, int64_t k0) {
    int nr = j->d->k.nr;
    int64_t cols = least(nr, j->m - m0), kc = least(KC, j->k - k0);
    panel += k0 * nr;
    if (cols < nr)
        memset(panel, 0, sizeof *panel * (size_t)(kc * nr));
    j->d->k.transpose(panel, nr, j->x + m0 * j->k + k0, j->k, cols, kc);
}

/* Outputs [n0, n0 + rows) of all rows of x; space holds unpacked weights, then a tile [mr, nr] for
 * each panel. */
static void few_rows_tile(const job *j, const float *panels, float *space, int64_t n0, int rows) {
    const cpu_kernels *k = &j->d->k;
    const dtype_info *type = wan_dtype(j->l->weight.type);
    float *tile = space + CPU_MR_MAX * KC;
    for (int64_t k0 = 0; k0 < j->k; k0 += KC) {
        int64_t kc = least(KC, j->k - k0);
        const float *a[CPU_MR_MAX];
        unpack_rows(j, space, n0, rows, k0, kc);
        prefetch((const char *)j->l->weight.data + j->row_bytes * (size_t)(n0 + k->mr) +
                     k0 / type->block * type->bytes,
                 j->row_bytes, least(k->mr, j->n - n0 - k->mr),
                 (size_t)(kc / type->block * type->bytes));
        for (int r = 0; r < rows; r++)
            a[r] = space + r * kc;
        for (int64_t m0 = 0; m0 < j->m; m0 += k->nr)
            k->gemm_tile(tile + m0 * k->mr, k->nr, rows, (int)least(k->nr, j->m - m0), a, kc,
                         panels + m0 * j->k + k0 * k->nr, k0 > 0);
    }
    for (int64_t m0 = 0; m0 < j->m; m0 += k->nr, tile += k->mr * k->nr) {
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
    int64_t k_blocks = ceil_div(j->k, KC), nr = j->d->k.nr;
    float *shared = wan_cpu_work(j->d, 0);
    (void)worker;
    for (int64_t i = from; i < to; i++)
        pack_few(j, shared + i / k_blocks * j->k * nr, i / k_blocks * nr, i % k_blocks * KC);
}

static void few_piece(void *arg, int64_t from, int64_t to, int worker) {
    const job *j = arg;
    int64_t mr = j->d->k.mr;
    float *own = (float *)((char *)wan_cpu_work(j->d, worker) + FEW_BYTES);
    for (int64_t n0 = from; n0 < to; n0 += mr)
        few_rows_tile(j, wan_cpu_work(j->d, 0), own, n0, (int)least(mr, to - n0));
}

static void few_rows(job *j) {
    int64_t pieces = ceil_div(j->m, j->d->k.nr) * ceil_div(j->k, KC);
    wan_team_run(j->d->team, pieces, is_small(j) ? pieces : 1, pack_few_piece, j);
    wan_team_run(j->d->team, j->n, is_small(j) ? j->n : (int64_t)FEW_TILES * j->d->k.mr, few_piece,
                 j);
}

void wan_cpu_linear(compute *c, tensor dst, tensor x, const linear *l, activation act) {
    job j = {.d = wan_cpu_device(c),
             .dst = dst.data,
             .x = x.data,
             .bias = l->bias.data,
             .l = l,
             .m = x.dim[0],
             .n = l->weight.dim[0],
             .k = x.dim[1],
             .act = act};
    j.row_bytes = wan_bytes(wan_slice(l->weight, 0, 1));
    if (!j.m || !j.n)
        return;
    int64_t panels = ceil_div(j.m, j.d->k.nr);
    if (panels <= FEW_PANELS && panels * j.d->k.nr * j.k <= (int64_t)(FEW_BYTES / sizeof(float)))
        few_rows(&j);
    else
        many_rows(&j);
}
