/* SPDX-License-Identifier: Apache-2.0 */
/* softmax(q k^T) v without the matrix of logits, head by head and tile by tile.
 *
 * Queries lie side by side: a panel is nr queries, transposed to [head, nr].  Then logits come out
 * as [keys, nr], the softmax runs down the columns without a sum across a register, and its weights
 * are again a panel for the product with v, whose result [head, nr] is turned back once, at the
 * end.  One task is a head and some panels that share each tile of keys while it is in the cache;
 * panels know nothing of each other. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <string.h>

enum {
    KEYS = 144, /* of a tile; whole tiles of gemm_tile for every set */
    KEYS_OF_WIDE = 48,
    WIDE = 256,    /* heads past this size take smaller tiles, to stay in the cache */
    QUERIES = 384, /* of a task, at most */
};

/* What one thread works on; the pointers lie in its work space. */
typedef struct task {
    const cpu_kernels *k;
    const attention *a;
    int head;
    int64_t size;  /* of a head */
    int64_t width; /* of a row of q, k, v and dst */
    int64_t queries, first, panels;
    float *query;       /* [panels, size, nr] */
    float *out;         /* [panels, size, nr] */
    float *max, *sum;   /* [panels, nr] */
    float *factor;      /* [nr] */
    float *scores;      /* [tile_keys, nr] */
    float *key, *value; /* [tile_keys, size] */
} task;

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static int64_t tile_keys(int64_t size) {
    return size > WIDE ? KEYS_OF_WIDE : KEYS;
}

static int64_t work_floats(int64_t panels, int64_t size, int64_t nr) {
    return nr * (panels * (2 * size + 2) + 1 + tile_keys(size)) + 2 * tile_keys(size) * size;
}

static void lay_out(task *t, float *space) {
    int64_t nr = t->k->nr, panel = t->size * nr;
    t->query = space;
    t->out = t->query + t->panels * panel;
    t->max = t->out + t->panels * panel;
    t->sum = t->max + t->panels * nr;
    t->factor = t->sum + t->panels * nr;
    t->scores = t->factor + nr;
    t->key = t->scores + tile_keys(t->size) * nr;
    t->value = t->key + tile_keys(t->size) * t->size;
}

/* Queries of one panel that exist. */
static int64_t columns(const task *t, int64_t panel) {
    return least(t->k->nr, t->queries - t->first - panel * t->k->nr);
}

static void load_queries(const task *t, const float *q) {
    int64_t nr = t->k->nr;
    for (int64_t p = 0; p < t->panels; p++) {
        float *panel = t->query + p * t->size * nr;
        if (columns(t, p) < nr)
            memset(panel, 0, sizeof *panel * (size_t)(t->size * nr));
        t->k->transpose(panel, nr, q + (t->first + p * nr) * t->width + t->head * t->size, t->width,
                        columns(t, p), t->size);
        for (int64_t i = 0; i < t->size * nr; i++)
            panel[i] *= t->a->scale;
    }
    memset(t->out, 0, sizeof *t->out * (size_t)(t->panels * t->size * nr));
    for (int64_t i = 0; i < t->panels * nr; i++) {
        t->max[i] = -INFINITY;
        t->sum[i] = 0;
    }
}

static void add_bias(const task *t, int64_t panel, int64_t key, int64_t keys) {
    int64_t length = t->a->bias.dim[1], first = t->first + panel * t->k->nr, n = columns(t, panel);
    const float *bias = (const float *)t->a->bias.data + t->head * length + length / 2;
    for (int64_t i = 0; i < keys; i++)
        for (int64_t j = 0; j < n; j++)
            t->scores[i * t->k->nr + j] += bias[key + i - first - j];
}

/* One panel against the keys [key, key + keys), which lie in t->key and t->value. */
static void panel_step(const task *t, int64_t panel, int64_t key, int64_t keys, bool last) {
    int nr = t->k->nr, mr = t->k->mr;
    const float *query = t->query + panel * t->size * nr;
    float *out = t->out + panel * t->size * nr;
    for (int64_t i = 0; i < keys; i += mr) {
        int rows = (int)least(mr, keys - i);
        const float *a[CPU_MR_MAX];
        for (int r = 0; r < rows; r++)
            a[r] = t->key + (i + r) * t->size;
        t->k->gemm_tile(t->scores + i * nr, nr, rows, nr, a, t->size, query, false);
    }
    if (t->a->bias.data)
        add_bias(t, panel, key, keys);
    if (last && t->a->last_key_count > 1)
        for (int j = 0; j < nr; j++)
            t->scores[(keys - 1) * nr + j] += logf((float)t->a->last_key_count);
    t->k->softmax_tile(t->scores, keys, t->max + panel * nr, t->sum + panel * nr, t->factor);
    if (key > 0)
        t->k->scale_columns(out, t->size, t->factor);
    /* Tiles of equal height: a thin last one would wait for its few sums. */
    int64_t tiles = ceil_div(t->size, mr);
    for (int64_t i = 0; i < tiles; i++) {
        int64_t from = i * t->size / tiles, to = (i + 1) * t->size / tiles;
        t->k->gemm_columns(out + from * nr, nr, (int)(to - from), t->value + from, t->size, keys,
                           t->scores);
    }
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
    for (int64_t key = 0; key < all_keys; key += tile_keys(t->size)) {
        int64_t keys = least(tile_keys(t->size), all_keys - key);
        for (int64_t i = 0; i < keys; i++) {
            int64_t at = (key + i) * t->width + t->head * t->size;
            memcpy(t->key + i * t->size, k + at, sizeof *k * (size_t)t->size);
            memcpy(t->value + i * t->size, v + at, sizeof *v * (size_t)t->size);
        }
        for (int64_t p = 0; p < t->panels; p++)
            panel_step(t, p, key, keys, key + keys == all_keys);
    }
    store(t, dst);
}

/* Panels of a task: enough to share each copy of a tile of keys, as many as fit, yet a task or two
 * for each thread. */
static int64_t choose_panels(const cpu_device *d, int64_t queries, int64_t heads, int64_t size) {
    int64_t all = ceil_div(queries, d->k.nr), panels = least(QUERIES / d->k.nr, all);
    while (panels > 1 &&
           (work_floats(panels, size, d->k.nr) > (int64_t)(CPU_WORK_BYTES / sizeof(float)) ||
            ceil_div(all, panels) * heads < 2 * d->threads))
        panels--;
    return ceil_div(all, ceil_div(all, panels)); /* of equal size */
}

/* What all tasks share. */
typedef struct heads {
    const cpu_device *d;
    const attention *a;
    float *dst;
    const float *q, *k, *v;
    int64_t size, width, queries, keys, panels, tiles;
} heads;

static void heads_piece(void *arg, int64_t from, int64_t to, int worker) {
    const heads *h = arg;
    for (int64_t i = from; i < to; i++) {
        int64_t first = i % h->tiles * h->panels * h->d->k.nr;
        task t = {.k = &h->d->k,
                  .a = h->a,
                  .head = (int)(i / h->tiles),
                  .size = h->size,
                  .width = h->width,
                  .queries = h->queries,
                  .first = first,
                  .panels = least(h->panels, ceil_div(h->queries - first, h->d->k.nr))};
        lay_out(&t, wan_cpu_work(h->d, worker));
        run(&t, h->dst, h->q, h->k, h->v, h->keys);
    }
}

void wan_cpu_attention(compute *c, tensor dst, tensor q, tensor k, tensor v, const attention *a) {
    heads h = {.d = wan_cpu_device(c),
               .a = a,
               .dst = dst.data,
               .q = q.data,
               .k = k.data,
               .v = v.data,
               .size = q.dim[1] / a->heads,
               .width = q.dim[1],
               .queries = q.dim[0],
               .keys = k.dim[0]};
    if (!h.queries)
        return;
    h.panels = choose_panels(h.d, h.queries, a->heads, h.size);
    h.tiles = ceil_div(h.queries, h.panels * h.d->k.nr);
    int64_t bytes = work_floats(h.panels, h.size, h.d->k.nr) * (int64_t)sizeof(float);
    if (bytes > (int64_t)CPU_WORK_BYTES) {
        wan_fail(
            &c->err, WAN_E_SHAPE,
            "cpu: an attention head of %lld numbers needs %lld bytes of work space, there are %zu",
            (long long)h.size, (long long)bytes, CPU_WORK_BYTES);
        return;
    }
    wan_team_run(h.d->team, a->heads * h.tiles, 1, heads_piece, &h);
}
