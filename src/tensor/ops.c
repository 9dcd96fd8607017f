/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/ops.h"

#include <assert.h>

#include "backend/backend.h"

static void count(compute *c, double flops, double bytes) {
    c->done.flops += flops;
    c->done.bytes += bytes;
}

static bool is_vector(tensor t, int64_t n) {
    return t.type == WAN_F32 && wan_elements(t) == n;
}

/* What an op takes as activations of a backend that has bf16 ones. */
static bool is_activation(const compute *c, tensor t) {
    return t.type == WAN_F32 || t.type == c->act;
}

static bool is_table(tensor t) {
    return t.type == WAN_F32 && t.rank == 2;
}

static bool is_rows(const compute *c, tensor t) {
    return is_activation(c, t) && t.rank == 2;
}

/* Takes the op's work space; the caller releases it with the mark returned. */
static size_t workspace(compute *c, size_t bytes) {
    size_t mark = wan_mark(c);
    c->workspace = bytes ? wan_new(c, WAN_U8, WAN_DIMS((int64_t)bytes)).data : NULL;
    return mark;
}

static void check_by_frame(tensor x, by_frame m) {
    assert(is_table(m.rows) && m.row_of_frame.type == WAN_I32 && m.row_of_frame.rank == 1);
    assert(m.at >= 0 && m.at + x.dim[1] <= m.rows.dim[1]);
    assert(m.tokens_per_frame > 0 && m.row_of_frame.dim[0] * m.tokens_per_frame == x.dim[0]);
    (void)x;
    (void)m;
}

/* A weight that its scales fit. */
static void check_matrix(const linear *l) {
    assert(l->weight.rank == 2 && wan_dtype(l->weight.type)->weight);
    assert(!l->scale.data || is_vector(l->scale, 1) || is_vector(l->scale, l->weight.dim[0]));
    if (l->group_scale.data) {
        tensor s = l->group_scale;
        assert(s.type == l->group_offset.type && wan_same_shape(s, l->group_offset));
        assert(wan_dtype(s.type)->block == 1 && s.rank == 2 && s.dim[0] == l->weight.dim[0]);
        assert(s.dim[1] > 0 && l->weight.dim[1] % s.dim[1] == 0);
        (void)s;
    }
}

static void check_linear(const compute *c, tensor dst, tensor x, const linear *l) {
    assert(is_rows(c, x) && is_rows(c, dst));
    check_matrix(l);
    assert(x.dim[1] == l->weight.dim[1]);
    assert(dst.dim[0] == x.dim[0] && dst.dim[1] == l->weight.dim[0]);
    assert(!l->bias.data || is_vector(l->bias, l->weight.dim[0]));
    (void)c;
    (void)dst;
    (void)x;
}

void wan_linear_into(compute *c, tensor dst, tensor x, const linear *l, activation act) {
    check_linear(c, dst, x, l);
    count(c, 2.0 * x.dim[0] * x.dim[1] * dst.dim[1],
          wan_bytes(x) + wan_bytes(l->weight) + wan_bytes(dst));
    const workspace_sizes *w = &c->planned->workspace;
    size_t mark = workspace(c, w->linear ? w->linear(c, dst, x, l) : 0);
    if (wan_ready(c))
        c->be->op.linear(c, dst, x, l, act);
    wan_release(c, mark);
}

static tensor linear_to(compute *c, dtype type, tensor x, const linear *l, activation act) {
    tensor dst = wan_new(c, type, WAN_DIMS(x.dim[0], l->weight.dim[0]));
    wan_linear_into(c, dst, x, l, act);
    return dst;
}

tensor wan_linear(compute *c, tensor x, const linear *l, activation act) {
    return linear_to(c, c->act, x, l, act);
}

tensor wan_linear_f32(compute *c, tensor x, const linear *l, activation act) {
    return linear_to(c, WAN_F32, x, l, act);
}

void wan_linear_add(compute *c, tensor x, tensor y, const linear *l, const by_frame *gate) {
    const workspace_sizes *w = &c->planned->workspace;
    size_t mark = wan_mark(c);
    tensor sums = wan_new(c, WAN_F32, WAN_DIMS(y.dim[0], l->weight.dim[0]));
    if (!c->planned->op.linear_add) {
        wan_linear_into(c, sums, y, l, WAN_NONE);
        if (gate)
            wan_add_gated(c, x, sums, *gate);
        else
            wan_add(c, x, sums);
        wan_release(c, mark);
        return;
    }
    check_linear(c, x, y, l);
    assert(x.type == WAN_F32);
    if (gate)
        check_by_frame(x, *gate);
    count(c, 2.0 * y.dim[0] * y.dim[1] * x.dim[1],
          wan_bytes(y) + wan_bytes(l->weight) + 3.0 * wan_bytes(x));
    workspace(c, w->linear ? w->linear(c, sums, y, l) : 0);
    if (wan_ready(c))
        c->be->op.linear_add(c, x, sums, y, l, gate);
    wan_release(c, mark);
}

void wan_add(compute *c, tensor x, tensor y) {
    assert(is_activation(c, x) && is_activation(c, y) && wan_same_shape(x, y));
    count(c, 0, 3.0 * wan_bytes(x));
    if (wan_ready(c))
        c->be->op.add(c, x, y);
}

void wan_add_gated(compute *c, tensor x, tensor y, by_frame gate) {
    assert(is_rows(c, x) && wan_same_shape(x, y));
    check_by_frame(x, gate);
    count(c, 0, 3.0 * wan_bytes(x));
    if (wan_ready(c))
        c->be->op.add_gated(c, x, y, gate);
}

tensor wan_layer_norm(compute *c, tensor x, tensor gain, tensor bias, float eps) {
    assert(is_rows(c, x) && is_vector(gain, x.dim[1]) && is_vector(bias, x.dim[1]));
    tensor dst = wan_new(c, c->act, 2, x.dim);
    count(c, 0, 2.0 * wan_bytes(x));
    if (wan_ready(c))
        c->be->op.layer_norm(c, dst, x, gain, bias, eps);
    return dst;
}

tensor wan_norm_modulate(compute *c, tensor x, by_frame shift, by_frame scale, float eps) {
    assert(is_rows(c, x));
    check_by_frame(x, shift);
    check_by_frame(x, scale);
    tensor dst = wan_new(c, c->act, 2, x.dim);
    count(c, 0, 2.0 * wan_bytes(x));
    if (wan_ready(c))
        c->be->op.norm_modulate(c, dst, x, shift, scale, eps);
    return dst;
}

static tensor rms_norm_to(compute *c, dtype type, tensor x, tensor gain, float eps) {
    assert(is_rows(c, x) && is_vector(gain, x.dim[1]));
    tensor dst = wan_new(c, type, 2, x.dim);
    count(c, 0, 2.0 * wan_bytes(x));
    if (wan_ready(c))
        c->be->op.rms_norm(c, dst, x, gain, eps);
    return dst;
}

tensor wan_rms_norm(compute *c, tensor x, tensor gain, float eps) {
    return rms_norm_to(c, c->act, x, gain, eps);
}

tensor wan_rms_norm_f32(compute *c, tensor x, tensor gain, float eps) {
    return rms_norm_to(c, WAN_F32, x, gain, eps);
}

void wan_qk_norm_rope(compute *c, tensor x, tensor gain, float eps, int heads, const rope *r) {
    assert(is_rows(c, x) && is_vector(gain, x.dim[1]) && heads > 0 && x.dim[1] % heads == 0);
    if (r) {
        assert(r->grid[0] * r->grid[1] * r->grid[2] == x.dim[0]);
        assert(2 * (r->pairs[0] + r->pairs[1] + r->pairs[2]) * heads == x.dim[1]);
    }
    count(c, 0, 2.0 * wan_bytes(x));
    if (wan_ready(c))
        c->be->op.qk_norm_rope(c, x, gain, eps, heads, r);
}

tensor wan_attention(compute *c, tensor q, tensor k, tensor v, const attention *a) {
    assert(is_rows(c, q) && is_rows(c, k) && wan_same_shape(k, v));
    assert(q.type == k.type && q.type == v.type);
    assert(q.dim[1] == k.dim[1] && a->heads > 0 && q.dim[1] % a->heads == 0);
    assert(k.dim[0] > 0 && a->last_key_count >= 1);
    if (a->bias.data) {
        int64_t reach = q.dim[0] > k.dim[0] ? q.dim[0] : k.dim[0];
        assert(is_table(a->bias) && a->bias.dim[0] == a->heads && a->bias.dim[1] >= 2 * reach - 1 &&
               a->bias.dim[1] % 2 == 1);
        (void)reach;
    }
    tensor dst = wan_new(c, q.type, 2, q.dim);
    count(c, 4.0 * q.dim[0] * k.dim[0] * q.dim[1], 2.0 * wan_bytes(q) + 2.0 * wan_bytes(k));
    const workspace_sizes *w = &c->planned->workspace;
    size_t mark = workspace(c, w->attention ? w->attention(c, q, k, a) : 0);
    if (wan_ready(c))
        c->be->op.attention(c, dst, q, k, v, a);
    wan_release(c, mark);
    return dst;
}

void wan_mul(compute *c, tensor x, tensor y) {
    assert(is_activation(c, x) && is_activation(c, y) && wan_same_shape(x, y));
    count(c, 0, 3.0 * wan_bytes(x));
    if (wan_ready(c))
        c->be->op.mul(c, x, y);
}

tensor wan_activate(compute *c, tensor x, activation act) {
    assert(is_activation(c, x));
    tensor dst = wan_new(c, x.type, x.rank, x.dim);
    count(c, 0, 2.0 * wan_bytes(x));
    if (wan_ready(c))
        c->be->op.activate(c, dst, x, act);
    return dst;
}

tensor wan_rows(compute *c, tensor table, tensor ids) {
    return wan_embed(c, &(linear){.weight = table}, ids);
}

tensor wan_embed(compute *c, const linear *table, tensor ids) {
    check_matrix(table);
    assert(ids.type == WAN_I32 && ids.rank == 1);
    tensor dst = wan_new(c, WAN_F32, WAN_DIMS(ids.dim[0], table->weight.dim[1]));
    count(c, 0, 2.0 * wan_bytes(dst));
    if (wan_ready(c))
        c->be->op.rows(c, dst, table, ids);
    return dst;
}

tensor wan_add_vector(compute *c, tensor x, tensor v) {
    assert(is_rows(c, x) && is_vector(v, x.dim[1]));
    tensor dst = wan_new(c, x.type, 2, x.dim);
    count(c, 0, 2.0 * wan_bytes(x));
    if (wan_ready(c))
        c->be->op.add_vector(c, dst, x, v);
    return dst;
}

tensor wan_patchify(compute *c, tensor x, const int64_t patch[3]) {
    assert(x.type == WAN_F32 && x.rank == 4);
    int64_t tokens = 1, width = x.dim[0];
    for (int i = 0; i < 3; i++) {
        assert(x.dim[i + 1] % patch[i] == 0);
        tokens *= x.dim[i + 1] / patch[i];
        width *= patch[i];
    }
    tensor dst = wan_new(c, c->act, WAN_DIMS(tokens, width));
    count(c, 0, 2.0 * wan_bytes(x));
    if (wan_ready(c))
        c->be->op.patchify(c, dst, x, patch);
    return dst;
}

void wan_unpatchify_into(compute *c, tensor dst, tensor x, const int64_t patch[3]) {
    assert(is_rows(c, x) && dst.type == WAN_F32 && dst.rank == 4 &&
           wan_elements(x) == wan_elements(dst));
    assert(x.dim[1] == dst.dim[0] * patch[0] * patch[1] * patch[2]);
    count(c, 0, 2.0 * wan_bytes(x));
    if (wan_ready(c))
        c->be->op.unpatchify(c, dst, x, patch);
}
