/* SPDX-License-Identifier: Apache-2.0 */
/* softmax(q k^T) v without the matrix of logits, head by head and tile by tile.
 *
 * Queries lie side by side: a panel is nr queries, transposed to [head, nr].  Then logits come out
 * as [keys, nr], the softmax runs down the columns without a sum across a register, and its weights
 * are again a panel for the product with v, whose result [head, nr] is turned back once, at the
 * end.  One task is a head and some panels that share each tile of keys while it is in the cache;
 * panels know nothing of each other.
 *
 * In bf16 both products take rounded operands: q after scaling, and the weights after exp; logits,
 * softmax and sums are f32.  Panels are pairs (kernels.h), so keys are the rows of the first
 * product and values, transposed, those of the second.  Logits count in ln 2: a shorter exp. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <string.h>

enum {
    KEYS = 144, /* of a tile; whole tiles of gemm_tile for every set */
    KEYS_OF_WIDE = 48,
    WIDE = 256,    /* heads past this size take smaller tiles, to stay in the cache */
    QUERIES = 384, /* of a task, at most; twice as many if bf16 */
    LINE = 32,     /* bf16 numbers of a cache line, which rows begin with */
};

static const float LOG2_E = 0x1.715476p+0f;

/* What one thread works on; the pointers lie in its work space.  T is f32 or bf16. */
typedef struct task {
    const cpu_kernels *k;
    const attention *a;
    bool bf16;
    int head;
    int64_t size;      /* of a head */
    int64_t depth;     /* of a panel of queries: even if bf16 */
    int64_t stride;    /* from key to key */
    int64_t width;     /* of a row of q, k, v and dst */
    int64_t tile_keys; /* even if bf16 */
    int64_t queries, first, panels;
    float *out;        /* [panels, size, nr] */
    float *max, *sum;  /* [panels, nr] */
    float *factor;     /* [nr] */
    float *scores;     /* [tile_keys, nr]; if f32 they become the weights */
    uint16_t *weights; /* [tile_keys, nr] in pairs, if bf16 */
    void *query;       /* [panels, depth, nr] of T; in pairs if bf16 */
    void *key;         /* [tile_keys, stride] of T */
    void *value;       /* f32 [tile_keys, size] or bf16 [size, tile_keys] */
} task;

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static int64_t round_up(int64_t n, int64_t to) {
    return ceil_div(n, to) * to;
}

/* Everything that follows from the size of a head and the type. */
static void shape_task(task *t) {
    bool wide = t->size > WIDE;
    t->depth = t->stride = t->size;
    t->tile_keys = wide ? KEYS_OF_WIDE : KEYS;
    if (!t->bf16)
        return;
    t->depth = round_up(t->size, 2);
    t->stride = round_up(t->size, LINE);
    t->tile_keys =
        round_up(wide ? 2 * KEYS_OF_WIDE : KEYS, t->k->bf16_mr * (1 + t->k->bf16_mr % 2));
}

/* Of the work space, for so many panels. */
static int64_t work_bytes(const task *t, int64_t panels) {
    int64_t nr = t->k->nr, floats = nr * (panels * (t->size + 2) + 1 + t->tile_keys);
    int64_t operands = panels * t->depth * nr + t->tile_keys * (t->stride + t->size);
    if (!t->bf16)
        return (int64_t)sizeof(float) * (floats + operands);
    return (int64_t)sizeof(float) * floats +
           (int64_t)sizeof(uint16_t) * (operands + t->tile_keys * nr);
}

static void *take(char **space, int64_t n, size_t size) {
    void *p = *space;
    *space += n * (int64_t)size;
    return p;
}

/* Panels first, which want whole lines and are made of them. */
static void lay_out(task *t, char *space) {
    int64_t nr = t->k->nr;
    size_t size = t->bf16 ? sizeof(uint16_t) : sizeof(float);
    char *at = space;
    t->query = take(&at, t->panels * t->depth * nr, size);
    t->out = take(&at, t->panels * t->size * nr, sizeof(float));
    t->max = take(&at, t->panels * nr, sizeof(float));
    t->sum = take(&at, t->panels * nr, sizeof(float));
    t->factor = take(&at, nr, sizeof(float));
    t->scores = take(&at, t->tile_keys * nr, sizeof(float));
    if (t->bf16)
        t->weights = take(&at, t->tile_keys * nr, sizeof(uint16_t));
    t->key = take(&at, t->tile_keys * t->stride, size);
    t->value = take(&at, t->tile_keys * t->size, size);
    assert(at - space == work_bytes(t, t->panels));
}

/* Queries of one panel that exist. */
static int64_t columns(const task *t, int64_t panel) {
    return least(t->k->nr, t->queries - t->first - panel * t->k->nr);
}

static void load_panel(const task *t, float *panel, const float *q, int64_t n) {
    int64_t nr = t->k->nr;
    if (n < nr)
        memset(panel, 0, sizeof *panel * (size_t)(t->size * nr));
    t->k->transpose(panel, nr, q, t->width, n, t->size);
    for (int64_t i = 0; i < t->size * nr; i++)
        panel[i] *= t->a->scale;
}

/* `rows` has room for [nr, size]. */
static void load_pairs(const task *t, uint16_t *panel, float *rows, const float *q, int64_t n) {
    float scale = t->a->scale * LOG2_E;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < t->size; j++)
            rows[i * t->size + j] = q[i * t->width + j] * scale;
    t->k->pack_bf16(panel, rows, t->size, n, t->size);
}

static void load_queries(const task *t, const float *q) {
    int64_t nr = t->k->nr;
    for (int64_t p = 0; p < t->panels; p++) {
        const float *from = q + (t->first + p * nr) * t->width + t->head * t->size;
        int64_t at = p * t->depth * nr;
        if (t->bf16)
            load_pairs(t, (uint16_t *)t->query + at, t->out, from, columns(t, p));
        else
            load_panel(t, (float *)t->query + at, from, columns(t, p));
    }
    memset(t->out, 0, sizeof *t->out * (size_t)(t->panels * t->size * nr));
    for (int64_t i = 0; i < t->panels * nr; i++) {
        t->max[i] = -INFINITY;
        t->sum[i] = 0;
    }
}

/* Keys and values from `k` and `v` on, side by side. */
static void load_tile(const task *t, const float *k, const float *v, int64_t keys) {
    float *key = t->key, *value = t->value;
    for (int64_t i = 0; i < keys; i++) {
        memcpy(key + i * t->size, k + i * t->width, sizeof *k * (size_t)t->size);
        memcpy(value + i * t->size, v + i * t->width, sizeof *v * (size_t)t->size);
    }
}

/* Values are transposed nr columns at a time, in the place of the scores. */
static void load_tile_bf16(const task *t, const float *k, const float *v, int64_t keys) {
    uint16_t *key = t->key, *value = t->value;
    int64_t even = round_up(keys, 2);
    for (int64_t i = 0; i < keys; i++) {
        t->k->to_bf16(key + i * t->stride, k + i * t->width, t->size);
        memset(key + i * t->stride + t->size, 0, sizeof *key * (size_t)(t->stride - t->size));
    }
    for (int64_t from = 0; from < t->size; from += t->k->nr) {
        int64_t n = least(t->k->nr, t->size - from);
        t->k->transpose(t->scores, t->tile_keys, v + from, t->width, keys, n);
        for (int64_t i = 0; i < n; i++) {
            float *row = t->scores + i * t->tile_keys;
            if (keys < even)
                row[keys] = 0;
            t->k->to_bf16(value + (from + i) * t->tile_keys, row, even);
        }
    }
}

static void add_bias(const task *t, int64_t panel, int64_t key, int64_t keys) {
    int64_t length = t->a->bias.dim[1], first = t->first + panel * t->k->nr, n = columns(t, panel);
    const float *bias = (const float *)t->a->bias.data + t->head * length + length / 2;
    float unit = t->bf16 ? LOG2_E : 1;
    for (int64_t i = 0; i < keys; i++)
        for (int64_t j = 0; j < n; j++)
            t->scores[i * t->k->nr + j] += unit * bias[key + i - first - j];
}

static void logits(const task *t, int64_t panel, int64_t keys) {
    int nr = t->k->nr, mr = t->k->mr;
    const float *query = (const float *)t->query + panel * t->size * nr;
    for (int64_t i = 0; i < keys; i += mr) {
        int rows = (int)least(mr, keys - i);
        const float *a[CPU_MR_MAX];
        for (int r = 0; r < rows; r++)
            a[r] = (const float *)t->key + (i + r) * t->size;
        t->k->gemm_tile(t->scores + i * nr, nr, rows, nr, a, t->size, query, false);
    }
}

/* dst [rows, nr] (+)= a [rows, depth], rows `stride` apart, times a panel of pairs. */
static void product_bf16(const cpu_kernels *k, float *dst, int64_t rows, const uint16_t *a,
                         int64_t stride, int64_t depth, const uint16_t *panel, bool add) {
    for (int64_t i = 0; i < rows; i += k->bf16_mr) {
        int n = (int)least(k->bf16_mr, rows - i);
        const uint16_t *row[CPU_MR_MAX];
        for (int r = 0; r < n; r++)
            row[r] = a + (i + r) * stride;
        k->bf16_tile(dst + i * k->nr, k->nr, n, k->nr, row, depth, panel, add);
    }
}

static void weigh(const task *t, float *out, int64_t keys) {
    int nr = t->k->nr;
    /* Tiles of equal height: a thin last one would wait for its few sums. */
    int64_t tiles = ceil_div(t->size, t->k->mr);
    for (int64_t i = 0; i < tiles; i++) {
        int64_t from = i * t->size / tiles, to = (i + 1) * t->size / tiles;
        t->k->gemm_columns(out + from * nr, nr, (int)(to - from), (const float *)t->value + from,
                           t->size, keys, t->scores);
    }
}

/* One panel against the keys [key, key + keys), which lie in t->key and t->value. */
static void panel_step(const task *t, int64_t panel, int64_t key, int64_t keys, bool last) {
    const cpu_kernels *k = t->k;
    int nr = k->nr;
    float *out = t->out + panel * t->size * nr, *max = t->max + panel * nr,
          *sum = t->sum + panel * nr;
    if (t->bf16)
        product_bf16(k, t->scores, keys, t->key, t->stride, t->depth,
                     (const uint16_t *)t->query + panel * t->depth * nr, false);
    else
        logits(t, panel, keys);
    if (t->a->bias.data)
        add_bias(t, panel, key, keys);
    if (last && t->a->last_key_count > 1)
        for (int j = 0; j < nr; j++)
            t->scores[(keys - 1) * nr + j] +=
                logf((float)t->a->last_key_count) * (t->bf16 ? LOG2_E : 1);
    if (t->bf16)
        k->softmax_bf16(t->weights, t->scores, keys, max, sum, t->factor);
    else
        k->softmax_tile(t->scores, keys, max, sum, t->factor);
    if (key > 0)
        k->scale_columns(out, t->size, t->factor);
    if (t->bf16)
        product_bf16(k, out, t->size, t->value, t->tile_keys, round_up(keys, 2), t->weights, true);
    else
        weigh(t, out, keys);
}

static void store(const task *t, float *dst) {
    int64_t nr = t->k->nr;
    for (int64_t p = 0; p < t->panels; p++) {
        float *out = t->out + p * t->size * nr;
        for (int64_t j = 0; j < nr; j++)
            t->factor[j] = 1.0f / t->sum[p * nr + j];
        t->k->scale_columns(out, t->size, t->factor);
        t->k->transpose(dst + (t->first + p * nr) * t->width + t->head * t->size, t->width, out, nr,
                        t->size, columns(t, p));
    }
}

static void run(const task *t, float *dst, const float *q, const float *k, const float *v,
                int64_t all_keys) {
    load_queries(t, q);
    for (int64_t key = 0; key < all_keys; key += t->tile_keys) {
        int64_t keys = least(t->tile_keys, all_keys - key), at = key * t->width + t->head * t->size;
        (t->bf16 ? load_tile_bf16 : load_tile)(t, k + at, v + at, keys);
        for (int64_t p = 0; p < t->panels; p++)
            panel_step(t, p, key, keys, key + keys == all_keys);
    }
    store(t, dst);
}

/* Panels of a task: enough to share each copy of a tile of keys, as many as fit, yet a task or two
 * for each thread. */
static int64_t choose_panels(const cpu_device *d, const task *t, int64_t heads) {
    int64_t all = ceil_div(t->queries, d->k.nr), most = t->bf16 ? 2 * QUERIES : QUERIES;
    int64_t panels = least(most / d->k.nr, all);
    while (panels > 1 && (work_bytes(t, panels) > (int64_t)CPU_WORK_BYTES ||
                          ceil_div(all, panels) * heads < 2 * d->threads))
        panels--;
    return ceil_div(all, ceil_div(all, panels)); /* of equal size */
}

/* What all tasks share. */
typedef struct heads {
    const cpu_device *d;
    task common;
    float *dst;
    const float *q, *k, *v;
    int64_t keys, panels, tiles;
} heads;

static void heads_piece(void *arg, int64_t from, int64_t to, int worker) {
    const heads *h = arg;
    for (int64_t i = from; i < to; i++) {
        task t = h->common;
        t.head = (int)(i / h->tiles);
        t.first = i % h->tiles * h->panels * t.k->nr;
        t.panels = least(h->panels, ceil_div(t.queries - t.first, t.k->nr));
        lay_out(&t, wan_cpu_work(h->d, worker));
        run(&t, h->dst, h->q, h->k, h->v, h->keys);
    }
    wan_cpu_rest(h->d);
}

/* 8-bit numbers are too few for weights and logits. */
static bool in_bf16(const compute *c) {
    return wan_cpu_without_int8(c->precision, &wan_cpu_device(c)->k) == WAN_PRECISION_BF16;
}

void wan_cpu_attention(compute *c, tensor dst, tensor q, tensor k, tensor v, const attention *a) {
    const cpu_device *d = wan_cpu_device(c);
    heads h = {.d = d,
               .common = {.k = &d->k,
                          .a = a,
                          .bf16 = in_bf16(c),
                          .size = q.dim[1] / a->heads,
                          .width = q.dim[1],
                          .queries = q.dim[0]},
               .dst = dst.data,
               .q = q.data,
               .k = k.data,
               .v = v.data,
               .keys = k.dim[0]};
    if (!q.dim[0])
        return;
    shape_task(&h.common);
    h.panels = choose_panels(d, &h.common, a->heads);
    h.tiles = ceil_div(q.dim[0], h.panels * d->k.nr);
    int64_t bytes = work_bytes(&h.common, h.panels);
    if (bytes > (int64_t)CPU_WORK_BYTES) {
        wan_fail(
            &c->err, WAN_E_SHAPE,
            "cpu: an attention head of %lld numbers needs %lld bytes of work space, there are %zu",
            (long long)h.common.size, (long long)bytes, CPU_WORK_BYTES);
        return;
    }
    wan_team_run(d->team, a->heads * h.tiles, 1, heads_piece, &h);
}
