/* SPDX-License-Identifier: Apache-2.0 */
/* The denoiser, dit.md 2, top to bottom as in the figure.
 * Tokens are independent except in self-attention, so a block first makes keys and values of all
 * tokens and then takes groups of whole frames through everything else: the widest temporaries are
 * a group's, not the clip's. */
#include "model/dit.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/dit_config.h"
#include "text/tokenizer.h"

typedef struct dit_attention {
    linear q, k, v, o;
    tensor norm_q, norm_k; /* [dim] */
} dit_attention;

typedef struct dit_block {
    tensor modulation; /* [6, dim]: shift, scale, gate of attention, then of the feed-forward */
    dit_attention self, cross;
    tensor norm3, norm3_bias; /* [dim] */
    linear up, down;
} dit_block;

enum { SHIFT_A, SCALE_A, GATE_A, SHIFT_F, SCALE_F, GATE_F };

struct dit {
    dit_config cfg;
    binder *weights;
    linear patch, text1, text2, time1, time2, time_projection, head;
    tensor head_modulation;        /* [2, dim] */
    tensor head_shift, head_scale; /* its halves */
    dit_block *blocks;
};

struct dit_text {
    int64_t padding; /* equal keys the last one stands for */
    tensor *k, *v;   /* per block [count + 1, dim] */
};

/* Symbols of the binding tables. */
enum {
    S_NONE,
    S_DIM,
    S_FFN,
    S_TEXT,
    S_FREQ,
    S_PATCH_IN,
    S_PATCH_OUT,
    S_TWO,
    S_SIX,
    S_6DIM,
    S_COUNT
};

/* clang-format off */
#define AT(field) offsetof(struct dit, field)
static const binding top_rows[] = {
    { "patch_embedding",    AT(patch),           BIND_EXACT, S_DIM,       S_PATCH_IN, false },
    { "text_embedding.0",   AT(text1),           BIND_EXACT, S_DIM,       S_TEXT,     false },
    { "text_embedding.2",   AT(text2),           BIND_EXACT, S_DIM,       S_DIM,      false },
    { "time_embedding.0",   AT(time1),           BIND_EXACT, S_DIM,       S_FREQ,     false },
    { "time_embedding.2",   AT(time2),           BIND_EXACT, S_DIM,       S_DIM,      false },
    { "time_projection.1",  AT(time_projection), BIND_EXACT, S_6DIM,      S_DIM,      false },
    { "head.head",          AT(head),            BIND_EXACT, S_PATCH_OUT, S_DIM,      false },
    { "head.modulation",    AT(head_modulation), BIND_BARE,  S_TWO,       S_DIM,      false },
};
#undef AT
#define AT(field) offsetof(dit_block, field)
static const binding block_rows[] = {
    { "modulation",        AT(modulation),      BIND_BARE,      S_SIX, S_DIM,  false },
    { "self_attn.q",       AT(self.q),          BIND_LINEAR_16, S_DIM, S_DIM,  false },
    { "self_attn.k",       AT(self.k),          BIND_LINEAR_16, S_DIM, S_DIM,  false },
    { "self_attn.v",       AT(self.v),          BIND_LINEAR_16, S_DIM, S_DIM,  false },
    { "self_attn.o",       AT(self.o),          BIND_LINEAR_16, S_DIM, S_DIM,  false },
    { "self_attn.norm_q",  AT(self.norm_q),     BIND_VECTOR,    S_DIM, S_NONE, false },
    { "self_attn.norm_k",  AT(self.norm_k),     BIND_VECTOR,    S_DIM, S_NONE, false },
    { "norm3",             AT(norm3),           BIND_VECTOR,    S_DIM, S_NONE, false },
    { "norm3.bias",        AT(norm3_bias),      BIND_BARE,      S_DIM, S_NONE, false },
    { "cross_attn.q",      AT(cross.q),         BIND_LINEAR_16, S_DIM, S_DIM,  false },
    { "cross_attn.k",      AT(cross.k),         BIND_LINEAR_16, S_DIM, S_DIM,  false },
    { "cross_attn.v",      AT(cross.v),         BIND_LINEAR_16, S_DIM, S_DIM,  false },
    { "cross_attn.o",      AT(cross.o),         BIND_LINEAR_16, S_DIM, S_DIM,  false },
    { "cross_attn.norm_q", AT(cross.norm_q),    BIND_VECTOR,    S_DIM, S_NONE, false },
    { "cross_attn.norm_k", AT(cross.norm_k),    BIND_VECTOR,    S_DIM, S_NONE, false },
    { "ffn.0",             AT(up),              BIND_LINEAR,    S_FFN, S_DIM,  false },
    { "ffn.2",             AT(down),            BIND_LINEAR,    S_DIM, S_FFN,  false },
};
#undef AT
/* clang-format on */

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

/* -------------------------------------------------------------------------------------------------
 * open and close */

static wan_status bind_weights(dit *m, error *err) {
    const dit_config *g = &m->cfg;
    int64_t patch = g->patch[0] * g->patch[1] * g->patch[2];
    const int64_t sizes[S_COUNT] = {
        [S_DIM] = g->dim,
        [S_FFN] = g->ffn,
        [S_TEXT] = g->text_dim,
        [S_FREQ] = g->freq,
        [S_TWO] = 2,
        [S_SIX] = 6,
        [S_6DIM] = 6 * g->dim,
        [S_PATCH_IN] = g->in_channels * patch,
        [S_PATCH_OUT] = g->out_channels * patch,
    };
    wan_status status = wan_bind(m->weights, "", top_rows, COUNT(top_rows), sizes, m, err);
    for (int64_t i = 0; !status && i < g->layers; i++) {
        char prefix[48];
        snprintf(prefix, sizeof prefix, "blocks.%lld.", (long long)i);
        status =
            wan_bind(m->weights, prefix, block_rows, COUNT(block_rows), sizes, &m->blocks[i], err);
    }
    if (status)
        return status;
    m->head_shift = wan_reshape(wan_slice(m->head_modulation, 0, 1), WAN_DIMS(g->dim));
    m->head_scale = wan_reshape(wan_slice(m->head_modulation, 1, 1), WAN_DIMS(g->dim));
    return WAN_OK;
}

dit *wan_dit_open(const store *s, compute *c, error *err) {
    dit *m = calloc(1, sizeof *m);
    if (!m) {
        wan_fail(err, WAN_E_MEMORY, "%s: out of memory for the transformer", wan_store_path(s));
        return NULL;
    }
    if (wan_dit_config_read(&m->cfg, s, err))
        goto failed;
    m->blocks = calloc((size_t)m->cfg.layers, sizeof *m->blocks);
    if (!m->blocks) {
        wan_fail(err, WAN_E_MEMORY, "%s: out of memory for %lld blocks", wan_store_path(s),
                 (long long)m->cfg.layers);
        goto failed;
    }
    m->weights = wan_binder_open(s, c, err);
    if (!m->weights || bind_weights(m, err))
        goto failed;
    return m;
failed:
    wan_dit_close(m);
    return NULL;
}

void wan_dit_close(dit *m) {
    if (!m)
        return;
    wan_binder_close(m->weights);
    free(m->blocks);
    free(m);
}

int64_t wan_dit_in_channels(const dit *m) {
    return m->cfg.in_channels;
}
int64_t wan_dit_out_channels(const dit *m) {
    return m->cfg.out_channels;
}
int64_t wan_dit_text_dim(const dit *m) {
    return m->cfg.text_dim;
}
int64_t wan_dit_layers(const dit *m) {
    return m->cfg.layers;
}
void wan_dit_patch(const dit *m, int64_t patch[3]) {
    memcpy(patch, m->cfg.patch, sizeof m->cfg.patch);
}

const linear *wan_dit_sample(const dit *m, int i) {
    const int64_t block[3] = {0, m->cfg.layers / 2, m->cfg.layers - 1};
    if (i >= 9)
        return NULL;
    const dit_block *b = &m->blocks[block[i / 3]];
    const linear *of[3] = {&b->self.q, &b->up, &b->down};
    return of[i % 3];
}

size_t wan_dit_bytes(const dit *m) {
    return sizeof *m + (size_t)m->cfg.layers * sizeof *m->blocks + wan_binder_bytes(m->weights);
}

size_t wan_dit_placed(const dit *m) {
    return wan_binder_placed(m->weights) + wan_binder_bytes(m->weights);
}

size_t wan_dit_streamable(const dit *m, size_t *largest) {
    return wan_binder_streamable(m->weights, largest);
}

/* -----------------------------------------------------------------------------------------------------------
 * text */

/* Rows of the trace are all 512, the last of ours repeated. */
static void trace_context(compute *c, tensor context) {
    if (!c->trace)
        return;
    int32_t id[WAN_TEXT_LEN];
    for (int i = 0; i < WAN_TEXT_LEN; i++)
        id[i] = i < context.dim[0] ? i : (int32_t)context.dim[0] - 1;
    size_t mark = wan_mark(c);
    tensor ids = wan_new(c, WAN_I32, WAN_DIMS(WAN_TEXT_LEN));
    wan_upload(c, ids, id);
    wan_trace(c, wan_rows(c, context, ids), "context");
    wan_release(c, mark);
}

dit_text *wan_dit_text_begin(dit *m, compute *c, const float *states, int64_t count, error *err) {
    assert(count >= 0 && count <= WAN_TEXT_LEN);
    const dit_config *g = &m->cfg;
    dit_text *t = calloc(1, sizeof *t);
    float *padded = NULL;
    int64_t rows = count < WAN_TEXT_LEN ? count + 1 : count;
    if (t) {
        t->k = calloc((size_t)g->layers, sizeof *t->k);
        t->v = calloc((size_t)g->layers, sizeof *t->v);
        padded = calloc((size_t)(rows * g->text_dim), sizeof *padded);
    }
    if (!t || !t->k || !t->v || !padded) {
        wan_fail(err, WAN_E_MEMORY, "out of memory for the prompt's %lld rows", (long long)rows);
        free(padded);
        wan_dit_text_end(t);
        return NULL;
    }
    if (states)
        memcpy(padded, states, (size_t)(count * g->text_dim) * sizeof *padded);
    t->padding = count < WAN_TEXT_LEN ? WAN_TEXT_LEN - count : 1;

    for (int64_t i = 0; i < g->layers; i++) {
        t->k[i] = wan_new(c, c->act, WAN_DIMS(rows, g->dim));
        t->v[i] = wan_new(c, c->act, WAN_DIMS(rows, g->dim));
    }
    size_t mark = wan_mark(c);
    tensor x = wan_new(c, WAN_F32, WAN_DIMS(rows, g->text_dim));
    wan_upload(c, x, padded);
    x = wan_linear(c, wan_linear(c, x, &m->text1, WAN_GELU_TANH), &m->text2, WAN_NONE);
    trace_context(c, x);
    for (int64_t i = 0; i < g->layers; i++) {
        const dit_attention *a = &m->blocks[i].cross;
        wan_linear_into(c, t->k[i], x, &a->k, WAN_NONE);
        wan_qk_norm_rope(c, t->k[i], a->norm_k, g->eps, (int)g->heads, NULL);
        wan_linear_into(c, t->v[i], x, &a->v, WAN_NONE);
    }
    wan_release(c, mark);
    free(padded);
    return t;
}

void wan_dit_text_end(dit_text *t) {
    if (!t)
        return;
    free(t->k);
    free(t->v);
    free(t);
}

/* -----------------------------------------------------------------------------------------------------------
 * time */

/* What the clip's timesteps become: one row for each distinct one. */
typedef struct dit_time {
    tensor e;            /* [distinct, dim], for the head */
    tensor e0;           /* [distinct, 6 * dim], for the blocks */
    tensor row_of_frame; /* i32 [frames] */
} dit_time;

/* cos(t w_i), then sin(t w_i), w_i = 10000^(-i / half): dit.md 2.2, in double. */
static void sinusoid(float *dst, double t, int64_t width) {
    int64_t half = width / 2;
    for (int64_t i = 0; i < half; i++) {
        double angle = t * exp(-log(10000.0) * (double)i / (double)half);
        dst[i] = (float)cos(angle);
        dst[half + i] = (float)sin(angle);
    }
}

static dit_time time_embedding(dit *m, compute *c, const float *timestep, int64_t frames) {
    const dit_config *g = &m->cfg;
    dit_time time = {0};
    int32_t *row = malloc((size_t)frames * sizeof *row);
    float *distinct = malloc((size_t)frames * sizeof *distinct);
    int64_t n = 0;
    for (int64_t f = 0; row && distinct && f < frames; f++) {
        int64_t at = 0;
        while (at < n && distinct[at] != timestep[f])
            at++;
        if (at == n)
            distinct[n++] = timestep[f];
        row[f] = (int32_t)at;
    }
    float *wave = calloc((size_t)(n * g->freq + 1), sizeof *wave);
    if (!row || !distinct || !wave) {
        wan_fail(&c->err, WAN_E_MEMORY, "out of memory for %lld timesteps", (long long)frames);
        n = 1;
    } else {
        for (int64_t i = 0; i < n; i++)
            sinusoid(wave + i * g->freq, distinct[i], g->freq);
    }
    time.row_of_frame = wan_new(c, WAN_I32, WAN_DIMS(frames));
    wan_upload(c, time.row_of_frame, row);
    tensor x = wan_new(c, WAN_F32, WAN_DIMS(n, g->freq));
    wan_upload(c, x, wave);
    time.e = wan_linear_f32(c, wan_linear_f32(c, x, &m->time1, WAN_SILU), &m->time2, WAN_NONE);
    time.e0 = wan_linear_f32(c, wan_activate(c, time.e, WAN_SILU), &m->time_projection, WAN_NONE);
    free(wave);
    free(distinct);
    free(row);
    if (c->trace) {
        size_t mark = wan_mark(c);
        wan_trace(c, wan_rows(c, time.e, time.row_of_frame), "time");
        wan_trace(c,
                  wan_reshape(wan_rows(c, time.e0, time.row_of_frame), WAN_DIMS(frames, 6, g->dim)),
                  "time6");
        wan_release(c, mark);
    }
    return time;
}

/* cos and sin of position * 10000^(-2j / D), D the axis's own share of the head: dit.md 2.5. */
static rope rope_tables(const dit_config *g, compute *c, const int64_t grid[3]) {
    rope r = {0};
    int64_t side = 2 * (g->dim / g->heads / 6);
    const int64_t width[3] = {g->dim / g->heads - 2 * side, side, side};
    for (int a = 0; a < 3; a++) {
        r.grid[a] = grid[a];
        r.pairs[a] = width[a] / 2;
        r.table[a] = wan_new(c, WAN_F32, WAN_DIMS(grid[a], r.pairs[a], 2));
        float *turn = malloc(wan_bytes(r.table[a]) + 1);
        if (!turn) {
            wan_fail(&c->err, WAN_E_MEMORY, "out of memory for a rotation table of %lld rows",
                     (long long)grid[a]);
            continue;
        }
        for (int64_t p = 0; p < grid[a]; p++)
            for (int64_t j = 0; j < r.pairs[a]; j++) {
                double angle = (double)p * pow(10000.0, -2.0 * (double)j / (double)width[a]);
                turn[2 * (p * r.pairs[a] + j)] = (float)cos(angle);
                turn[2 * (p * r.pairs[a] + j) + 1] = (float)sin(angle);
            }
        wan_upload(c, r.table[a], turn);
        free(turn);
    }
    return r;
}

/* ---------------------------------------------------------------------------------------------------------
 * blocks */

/* Whole patch frames [first, first + frames) of the clip, taken through a block together. */
typedef struct group {
    int64_t first, frames;
    int64_t tokens_per_frame;
    tensor row_of_frame;
    rope turn;
} group;

static group group_at(const compute *c, const dit_time *time, const rope *r, int64_t first) {
    int64_t per = r->grid[1] * r->grid[2], most = c->tokens_together / per;
    int64_t frames = most > 1 ? most : 1;
    if (frames > r->grid[0] - first)
        frames = r->grid[0] - first;
    group g = {first, frames, per, wan_slice(time->row_of_frame, first, frames), *r};
    g.turn.grid[0] = frames;
    g.turn.table[0] = wan_slice(r->table[0], first, frames);
    return g;
}

static tensor group_rows(tensor all, const group *g) {
    return wan_slice(all, g->first * g->tokens_per_frame, g->frames * g->tokens_per_frame);
}

static by_frame modulate(tensor rows, int64_t at, const group *g) {
    return (by_frame){rows, at, g->row_of_frame, g->tokens_per_frame};
}

static void self_keys(compute *c, const dit_config *cfg, const dit_attention *a, tensor h, tensor k,
                      tensor v, const rope *turn) {
    wan_linear_into(c, k, h, &a->k, WAN_NONE);
    wan_qk_norm_rope(c, k, a->norm_k, cfg->eps, (int)cfg->heads, turn);
    wan_linear_into(c, v, h, &a->v, WAN_NONE);
}

/* Up to the output matrix. */
static tensor attend(compute *c, const dit_config *cfg, const dit_attention *a, tensor h, tensor k,
                     tensor v, const rope *turn, int64_t last_key_count) {
    tensor q = wan_linear(c, h, &a->q, WAN_NONE);
    wan_qk_norm_rope(c, q, a->norm_q, cfg->eps, (int)cfg->heads, turn);
    attention how = {.heads = (int)cfg->heads,
                     .scale = 1.0f / sqrtf((float)(cfg->dim / cfg->heads)),
                     .last_key_count = last_key_count};
    return wan_attention(c, q, k, v, &how);
}

/* What self-attention sees of a group. */
static tensor self_input(compute *c, const dit_config *cfg, tensor x, tensor m, const group *g) {
    return wan_norm_modulate(c, group_rows(x, g), modulate(m, SHIFT_A * cfg->dim, g),
                             modulate(m, SCALE_A * cfg->dim, g), cfg->eps);
}

/* x changes in place, one group after another; nothing of a group's temporaries survives it.  What
 * joins it is f32 like it: rounding that would cost more than any operand's.  A
 * clip that is one group keeps what its keys were made from; else that is made again, which costs
 * less than keeping it. */
static void block_forward(compute *c, const dit_config *cfg, const dit_block *b, tensor x,
                          const dit_time *time, const rope *r, tensor text_k, tensor text_v,
                          int64_t padding) {
    int64_t d = cfg->dim;
    size_t mark = wan_mark(c);
    tensor m = wan_add_vector(c, time->e0, b->modulation), h = {0};
    tensor k = wan_new(c, c->act, 2, x.dim), v = wan_new(c, c->act, 2, x.dim);
    size_t inner = wan_mark(c);
    bool one = group_at(c, time, r, 0).frames == r->grid[0];
    for (int64_t f = 0; f < r->grid[0];) {
        group g = group_at(c, time, r, f);
        h = self_input(c, cfg, x, m, &g);
        self_keys(c, cfg, &b->self, h, group_rows(k, &g), group_rows(v, &g), &g.turn);
        if (!one)
            wan_release(c, inner);
        f += g.frames;
    }
    for (int64_t f = 0; f < r->grid[0];) {
        group g = group_at(c, time, r, f);
        tensor s = group_rows(x, &g);
        if (!one)
            h = self_input(c, cfg, x, m, &g);
        by_frame gate_a = modulate(m, GATE_A * d, &g), gate_f = modulate(m, GATE_F * d, &g);
        wan_linear_add(c, s, attend(c, cfg, &b->self, h, k, v, &g.turn, 1), &b->self.o, &gate_a);
        wan_release(c, inner);
        h = wan_layer_norm(c, s, b->norm3, b->norm3_bias, cfg->eps);
        wan_linear_add(c, s, attend(c, cfg, &b->cross, h, text_k, text_v, NULL, padding),
                       &b->cross.o, NULL);
        wan_release(c, inner);
        h = wan_norm_modulate(c, s, modulate(m, SHIFT_F * d, &g), modulate(m, SCALE_F * d, &g),
                              cfg->eps);
        wan_linear_add(c, s, wan_linear(c, h, &b->up, WAN_GELU_TANH), &b->down, &gate_f);
        wan_release(c, inner);
        f += g.frames;
    }
    wan_release(c, mark);
}

/* The head reads e, not e0. */
static void head_forward(dit *m, compute *c, tensor x, const dit_time *time, const rope *r,
                         tensor out) {
    size_t mark = wan_mark(c);
    tensor shift = wan_add_vector(c, time->e, m->head_shift),
           scale = wan_add_vector(c, time->e, m->head_scale);
    size_t inner = wan_mark(c);
    for (int64_t f = 0; f < r->grid[0];) {
        group g = group_at(c, time, r, f);
        tensor h = wan_norm_modulate(c, group_rows(x, &g), modulate(shift, 0, &g),
                                     modulate(scale, 0, &g), m->cfg.eps);
        wan_linear_into(c, group_rows(out, &g), h, &m->head, WAN_NONE);
        wan_release(c, inner);
        f += g.frames;
    }
    wan_release(c, mark);
}

tensor wan_dit_forward(dit *m, compute *c, tensor x, const float *timestep, const dit_text *text) {
    const dit_config *g = &m->cfg;
    assert(x.rank == 4 && x.dim[0] == g->in_channels && g->patch[0] == 1);
    int64_t grid[3], patch_width = g->out_channels;
    for (int a = 0; a < 3; a++) {
        assert(x.dim[a + 1] % g->patch[a] == 0);
        grid[a] = x.dim[a + 1] / g->patch[a];
        patch_width *= g->patch[a];
    }
    tensor velocity = wan_new(c, WAN_F32, WAN_DIMS(g->out_channels, x.dim[1], x.dim[2], x.dim[3]));
    size_t mark = wan_mark(c);
    dit_time time = time_embedding(m, c, timestep, x.dim[1]);
    rope r = rope_tables(g, c, grid);
    tensor h = wan_new(c, WAN_F32, WAN_DIMS(grid[0] * grid[1] * grid[2], g->dim));
    size_t inner = wan_mark(c);
    wan_linear_into(c, h, wan_patchify(c, x, g->patch), &m->patch, WAN_NONE);
    wan_release(c, inner);
    wan_trace(c, h, "patch");
    for (int64_t i = 0; i < g->layers; i++) {
        block_forward(c, g, &m->blocks[i], h, &time, &r, text->k[i], text->v[i], text->padding);
        wan_trace(c, h, "block.%d", (int)i);
    }
    tensor out = wan_new(c, WAN_F32, WAN_DIMS(h.dim[0], patch_width));
    head_forward(m, c, h, &time, &r, out);
    wan_unpatchify_into(c, velocity, out, g->patch);
    wan_release(c, mark);
    return velocity;
}
