/* SPDX-License-Identifier: Apache-2.0 */
/* The text encoder, text.md 1.2, top to bottom as in the figure.
 * Only the real tokens run through it: masked keys would add exactly nothing, and the rows of
 * padding are discarded. */
#include "model/umt5.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/umt5_config.h"

typedef struct umt5_block {
    tensor norm1, norm2; /* [dim] */
    linear q, k, v, o;
    tensor bias; /* [buckets, heads]: every layer has its own table */
    linear gate, up, down;
} umt5_block;

struct umt5 {
    umt5_config cfg;
    binder *weights;
    linear embedding; /* [vocab, dim]: a table */
    tensor norm;      /* [dim] */
    umt5_block *blocks;
    float *bias; /* [layers, buckets, heads]: the tables on the host, where they are spread over
                    distances */
};

/* Symbols of the binding tables. */
enum { S_NONE, S_DIM, S_INNER, S_FFN, S_VOCAB, S_BUCKETS, S_HEADS, S_COUNT };

/* clang-format off */
#define AT(field) offsetof(struct umt5, field)
static const binding top_rows[] = {
    { "token_embedding", AT(embedding), BIND_TABLE,  S_VOCAB, S_DIM,  false },
    { "norm",            AT(norm),      BIND_VECTOR, S_DIM,   S_NONE, false },
};
#undef AT
#define AT(field) offsetof(umt5_block, field)
static const binding block_rows[] = {
    { "norm1",                   AT(norm1), BIND_VECTOR,       S_DIM,     S_NONE,  false },
    { "attn.q",                  AT(q),     BIND_EXACT_PLAIN,  S_INNER,   S_DIM,   false },
    { "attn.k",                  AT(k),     BIND_EXACT_PLAIN,  S_INNER,   S_DIM,   false },
    { "attn.v",                  AT(v),     BIND_EXACT_PLAIN,  S_INNER,   S_DIM,   false },
    { "attn.o",                  AT(o),     BIND_EXACT_PLAIN,  S_DIM,     S_INNER, false },
    { "pos_embedding.embedding", AT(bias),  BIND_VECTOR,       S_BUCKETS, S_HEADS, false },
    { "norm2",                   AT(norm2), BIND_VECTOR,       S_DIM,     S_NONE,  false },
    { "ffn.gate.0",              AT(gate),  BIND_EXACT_PLAIN,  S_FFN,     S_DIM,   false },
    { "ffn.fc1",                 AT(up),    BIND_EXACT_PLAIN,  S_FFN,     S_DIM,   false },
    { "ffn.fc2",                 AT(down),  BIND_EXACT_PLAIN,  S_DIM,     S_FFN,   false },
};
#undef AT
/* clang-format on */

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

/* -------------------------------------------------------------------------------------------------
 * open and close */

static wan_status bind_weights(umt5 *m, error *err) {
    const umt5_config *g = &m->cfg;
    const int64_t sizes[S_COUNT] = {
        [S_DIM] = g->dim,     [S_INNER] = g->inner,     [S_FFN] = g->ffn,
        [S_VOCAB] = g->vocab, [S_BUCKETS] = g->buckets, [S_HEADS] = g->heads,
    };
    wan_status status = wan_bind(m->weights, "", top_rows, COUNT(top_rows), sizes, m, err);
    for (int64_t i = 0; !status && i < g->layers; i++) {
        char prefix[48];
        snprintf(prefix, sizeof prefix, "blocks.%lld.", (long long)i);
        status =
            wan_bind(m->weights, prefix, block_rows, COUNT(block_rows), sizes, &m->blocks[i], err);
    }
    return status;
}

umt5 *wan_umt5_open(const store *s, compute *c, error *err) {
    umt5 *m = calloc(1, sizeof *m);
    if (!m) {
        wan_fail(err, WAN_E_MEMORY, "%s: out of memory for the text encoder", wan_store_path(s));
        return NULL;
    }
    const umt5_config *g = &m->cfg;
    if (wan_umt5_config_read(&m->cfg, s, err))
        goto failed;
    m->blocks = calloc((size_t)g->layers, sizeof *m->blocks);
    m->bias = calloc((size_t)g->layers, (size_t)(g->buckets * g->heads) * sizeof *m->bias);
    if (!m->blocks || !m->bias) {
        wan_fail(err, WAN_E_MEMORY, "%s: out of memory for %lld layers", wan_store_path(s),
                 (long long)g->layers);
        goto failed;
    }
    m->weights = wan_binder_open(s, c, err);
    if (!m->weights || bind_weights(m, err))
        goto failed;
    for (int64_t i = 0; i < g->layers; i++)
        wan_download(c, m->bias + i * g->buckets * g->heads, m->blocks[i].bias);
    return m;
failed:
    wan_umt5_close(m);
    return NULL;
}

void wan_umt5_close(umt5 *m) {
    if (!m)
        return;
    wan_binder_close(m->weights);
    free(m->blocks);
    free(m->bias);
    free(m);
}

int64_t wan_umt5_dim(const umt5 *m) {
    return m->cfg.dim;
}
int64_t wan_umt5_vocab(const umt5 *m) {
    return m->cfg.vocab;
}

size_t wan_umt5_bytes(const umt5 *m) {
    const umt5_config *g = &m->cfg;
    size_t tables = (size_t)(g->layers * g->buckets * g->heads) * sizeof *m->bias;
    return wan_binder_bytes(m->weights) + tables + (size_t)g->layers * sizeof *m->blocks +
           sizeof *m;
}

size_t wan_umt5_placed(const umt5 *m) {
    return wan_binder_placed(m->weights) + wan_binder_bytes(m->weights);
}

size_t wan_umt5_streamable(const umt5 *m, size_t *largest) {
    return wan_binder_streamable(m->weights, largest);
}

/* ----------------------------------------------------------------------------------------------------
 * forward */

/* The bias of a layer by key - query: f32 [heads, 2 * count - 1], made from its table in `spread`
 * on the host. */
static tensor position_bias(compute *c, const umt5 *m, int64_t layer, int64_t count,
                            float *spread) {
    const umt5_config *g = &m->cfg;
    const float *table = m->bias + layer * g->buckets * g->heads;
    int64_t width = 2 * count - 1;
    tensor bias = wan_new(c, WAN_F32, WAN_DIMS(g->heads, width));
    if (!wan_ready(c))
        return bias;
    for (int64_t i = 0; i < width; i++) {
        const float *row =
            table + wan_umt5_bucket(i - (count - 1), g->buckets, g->max_distance) * g->heads;
        for (int64_t h = 0; h < g->heads; h++)
            spread[h * width + i] = row[h];
    }
    wan_upload(c, bias, spread);
    return bias;
}

/* Up to the output matrix.  Without 1/sqrt(d): UMT5 has it in its weights. */
static tensor self_attention(compute *c, const umt5 *m, const umt5_block *b, tensor x,
                             tensor bias) {
    tensor q = wan_linear(c, x, &b->q, WAN_NONE);
    tensor k = wan_linear(c, x, &b->k, WAN_NONE);
    tensor v = wan_linear(c, x, &b->v, WAN_NONE);
    attention a = {.heads = (int)m->cfg.heads, .scale = 1, .last_key_count = 1, .bias = bias};
    return wan_attention(c, q, k, v, &a);
}

/* Up to the last matrix. */
static tensor feed_forward(compute *c, const umt5_block *b, tensor x) {
    tensor gate = wan_linear(c, x, &b->gate, WAN_GELU_TANH);
    wan_mul(c, gate, wan_linear(c, x, &b->up, WAN_NONE));
    return gate;
}

static void block_forward(compute *c, const umt5 *m, int64_t layer, tensor x, float *spread) {
    const umt5_block *b = &m->blocks[layer];
    float eps = m->cfg.eps;
    size_t mark = wan_mark(c);
    tensor bias = position_bias(c, m, layer, x.dim[0], spread);
    wan_linear_add(c, x, self_attention(c, m, b, wan_rms_norm(c, x, b->norm1, eps), bias), &b->o,
                   NULL);
    wan_release(c, mark);
    wan_linear_add(c, x, feed_forward(c, b, wan_rms_norm(c, x, b->norm2, eps)), &b->down, NULL);
    wan_release(c, mark);
    wan_trace(c, x, "block.%lld", (long long)layer);
}

/* Ids come from a tokenizer that may not be this encoder's. */
static void check_ids(compute *c, const umt5 *m, const int32_t *ids, int64_t count) {
    for (int64_t i = 0; i < count && !wan_is_dry(c); i++) {
        if (ids[i] < 0 || ids[i] >= m->cfg.vocab)
            wan_fail(
                &c->err, WAN_E_PARTS,
                "token %lld is %d, but the text encoder embeds %lld: they do not belong together",
                (long long)i, ids[i], (long long)m->cfg.vocab);
    }
}

tensor wan_umt5_forward(umt5 *m, compute *c, const int32_t *ids, int64_t count) {
    const umt5_config *g = &m->cfg;
    assert(count > 0);
    check_ids(c, m, ids, count);
    float *spread = malloc((size_t)(g->heads * (2 * count - 1)) * sizeof *spread);
    if (!spread)
        wan_fail(&c->err, WAN_E_MEMORY, "no memory for position biases of %lld tokens",
                 (long long)count);
    tensor tokens = wan_new(c, WAN_I32, WAN_DIMS(count));
    wan_upload(c, tokens, ids);
    tensor x = wan_embed(c, &m->embedding, tokens);
    wan_trace(c, x, "embedding");
    for (int64_t i = 0; i < g->layers; i++)
        block_forward(c, m, i, x, spread);
    free(spread);
    return wan_rms_norm_f32(c, x, m->norm, g->eps);
}
