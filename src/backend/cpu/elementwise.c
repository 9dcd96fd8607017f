/* SPDX-License-Identifier: Apache-2.0 */
/* Ops that touch each number once: bound by memory, so plain loops that any compiler vectorises. */
#include "backend/cpu/cpu.h"

#include <string.h>

/* What the pieces of an op share. */
typedef struct operands {
    const cpu_device *d;
    tensor dst, x, y;
    by_frame gate;
    const linear *table;
    activation act;
} operands;

static void add_piece(void *arg, int64_t from, int64_t to, int worker) {
    const operands *o = arg;
    float *x = o->x.data;
    const float *y = o->y.data;
    (void)worker;
    for (int64_t i = from; i < to; i++)
        x[i] += y[i];
}

void wan_cpu_add(compute *c, tensor x, tensor y) {
    operands o = {.d = wan_cpu_device(c), .x = x, .y = y};
    wan_team_run(o.d->team, wan_elements(x), wan_cpu_grain(1), add_piece, &o);
}

static void mul_piece(void *arg, int64_t from, int64_t to, int worker) {
    const operands *o = arg;
    float *x = o->x.data;
    const float *y = o->y.data;
    (void)worker;
    for (int64_t i = from; i < to; i++)
        x[i] *= y[i];
}

void wan_cpu_mul(compute *c, tensor x, tensor y) {
    operands o = {.d = wan_cpu_device(c), .x = x, .y = y};
    wan_team_run(o.d->team, wan_elements(x), wan_cpu_grain(1), mul_piece, &o);
}

const float *wan_cpu_frame_row(by_frame m, int64_t token) {
    int32_t row = ((const int32_t *)m.row_of_frame.data)[token / m.tokens_per_frame];
    assert(row >= 0 && row < m.rows.dim[0]);
    return (const float *)m.rows.data + row * m.rows.dim[1] + m.at;
}

void wan_cpu_add_row(float *x, const float *y, const float *gate, int64_t n) {
    if (gate)
        for (int64_t i = 0; i < n; i++)
            x[i] += y[i] * gate[i];
    else
        for (int64_t i = 0; i < n; i++)
            x[i] += y[i];
}

static void add_gated_piece(void *arg, int64_t first, int64_t end, int worker) {
    const operands *o = arg;
    int64_t dim = o->x.dim[1];
    (void)worker;
    for (int64_t t = first; t < end; t++)
        wan_cpu_add_row((float *)o->x.data + t * dim, (const float *)o->y.data + t * dim,
                        wan_cpu_frame_row(o->gate, t), dim);
}

void wan_cpu_add_gated(compute *c, tensor x, tensor y, by_frame gate) {
    operands o = {.d = wan_cpu_device(c), .x = x, .y = y, .gate = gate};
    wan_team_run(o.d->team, x.dim[0], wan_cpu_grain(x.dim[1]), add_gated_piece, &o);
}

void wan_cpu_finish(const cpu_kernels *k, float *x, const float *bias, int64_t n, activation act) {
    if (bias)
        for (int64_t i = 0; i < n; i++)
            x[i] += bias[i];
    if (act == WAN_GELU_TANH)
        k->gelu_tanh(x, n);
    else if (act == WAN_SILU)
        k->silu(x, n);
}

static void activate_piece(void *arg, int64_t from, int64_t to, int worker) {
    const operands *o = arg;
    float *dst = (float *)o->dst.data + from;
    (void)worker;
    if (o->dst.type == WAN_BF16) { /* a convolution's input: rounded, no more */
        o->d->k.to_bf16((uint16_t *)o->dst.data + from, (const float *)o->x.data + from, to - from);
        return;
    }
    memcpy(dst, (const float *)o->x.data + from, (size_t)(to - from) * sizeof *dst);
    wan_cpu_finish(&o->d->k, dst, NULL, to - from, o->act);
}

void wan_cpu_activate(compute *c, tensor dst, tensor x, activation act) {
    operands o = {.d = wan_cpu_device(c), .dst = dst, .x = x, .act = act};
    assert(x.type == WAN_F32 && (dst.type == WAN_F32 || act == WAN_NONE));
    wan_team_run(o.d->team, wan_elements(x), wan_cpu_grain(1), activate_piece, &o);
}

static void rows_piece(void *arg, int64_t from, int64_t to, int worker) {
    const operands *o = arg; /* y holds the ids */
    int64_t dim = o->dst.dim[1];
    (void)worker;
    for (int64_t i = from; i < to; i++) {
        int32_t id = ((const int32_t *)o->y.data)[i];
        assert(id >= 0 && id < o->table->weight.dim[0]);
        wan_cpu_unpack_row(&o->d->k, o->table, (float *)o->dst.data + i * dim, id, 0, dim);
    }
}

void wan_cpu_rows(compute *c, tensor dst, const linear *table, tensor ids) {
    operands o = {.d = wan_cpu_device(c), .dst = dst, .y = ids, .table = table};
    wan_team_run(o.d->team, ids.dim[0], wan_cpu_grain(dst.dim[1]), rows_piece, &o);
}

static void add_vector_piece(void *arg, int64_t first, int64_t end, int worker) {
    const operands *o = arg;
    int64_t dim = o->x.dim[1];
    const float *plus = o->y.data;
    (void)worker;
    for (int64_t t = first; t < end; t++) {
        const float *from = (const float *)o->x.data + t * dim;
        float *to = (float *)o->dst.data + t * dim;
        for (int64_t i = 0; i < dim; i++)
            to[i] = from[i] + plus[i];
    }
}

void wan_cpu_add_vector(compute *c, tensor dst, tensor x, tensor v) {
    operands o = {.d = wan_cpu_device(c), .dst = dst, .x = x, .y = v};
    wan_team_run(o.d->team, x.dim[0], wan_cpu_grain(x.dim[1]), add_vector_piece, &o);
}

/* How latents [C, F, h, w] and tokens of patch pt x ph x pw correspond: the token's place in the
 * grid and, for each of its offsets inside the patch, the element of channel 0. */
typedef struct patches {
    int64_t channels, plane; /* plane: elements of one channel */
    int64_t patch[3], grid[3], size[3];
    int64_t cells; /* offsets in a patch */
    float *latents, *tokens;
} patches;

static patches patches_of(tensor latents, tensor tokens, const int64_t patch[3]) {
    patches p = {.channels = latents.dim[0],
                 .plane = 1,
                 .cells = 1,
                 .latents = latents.data,
                 .tokens = tokens.data};
    for (int i = 0; i < 3; i++) {
        p.patch[i] = patch[i];
        p.size[i] = latents.dim[i + 1];
        p.grid[i] = p.size[i] / patch[i];
        p.plane *= p.size[i];
        p.cells *= patch[i];
    }
    return p;
}

static int64_t patch_element(const patches *p, int64_t token, int64_t cell) {
    int64_t column = token % p->grid[2] * p->patch[2] + cell % p->patch[2];
    int64_t row = token / p->grid[2] % p->grid[1] * p->patch[1] + cell / p->patch[2] % p->patch[1];
    int64_t frame =
        token / p->grid[2] / p->grid[1] * p->patch[0] + cell / p->patch[2] / p->patch[1];
    return (frame * p->size[1] + row) * p->size[2] + column;
}

static void patchify_piece(void *arg, int64_t first, int64_t end, int worker) {
    const patches *p = arg;
    (void)worker;
    for (int64_t t = first; t < end; t++) {
        float *to = p->tokens + t * p->channels * p->cells;
        for (int64_t cell = 0; cell < p->cells; cell++) {
            const float *from = p->latents + patch_element(p, t, cell);
            for (int64_t ch = 0; ch < p->channels; ch++)
                to[ch * p->cells + cell] = from[ch * p->plane];
        }
    }
}

void wan_cpu_patchify(compute *c, tensor dst, tensor x, const int64_t patch[3]) {
    patches p = patches_of(x, dst, patch);
    wan_team_run(wan_cpu_device(c)->team, dst.dim[0], wan_cpu_grain(dst.dim[1]), patchify_piece,
                 &p);
}

static void unpatchify_piece(void *arg, int64_t first, int64_t end, int worker) {
    const patches *p = arg;
    (void)worker;
    for (int64_t t = first; t < end; t++) {
        const float *from = p->tokens + t * p->channels * p->cells;
        for (int64_t cell = 0; cell < p->cells; cell++) {
            float *to = p->latents + patch_element(p, t, cell);
            for (int64_t ch = 0; ch < p->channels; ch++)
                to[ch * p->plane] = from[cell * p->channels + ch];
        }
    }
}

void wan_cpu_unpatchify(compute *c, tensor dst, tensor x, const int64_t patch[3]) {
    patches p = patches_of(dst, x, patch);
    wan_team_run(wan_cpu_device(c)->team, x.dim[0], wan_cpu_grain(x.dim[1]), unpatchify_piece, &p);
}
