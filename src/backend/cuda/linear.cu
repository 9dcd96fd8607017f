/* SPDX-License-Identifier: Apache-2.0 */
/* dst = act(x W^T + b), W as stored.
 *
 * Few rows read the weight as it is (gemv.cu).  Else the operands are made one type in the work
 * space - bf16, or f32 at precision f32 - unless they are that already, and cuBLASLt multiplies, or
 * gemm.cu where there is none.  At precision fp8 large products take E4M3 codes, with a scale for
 * each row of x and of W: 8 bits of a number are enough if the largest of its row has 448.
 *
 * Work space depends on types, shapes and precision alone, never on addresses or on the device: a
 * plan asks before there are any.  So it has room for every way that may be taken. */
#include "backend/cuda/lt.h"
#include "backend/cuda/product.h"
#include "backend/cuda/vector.cuh"

enum { FINISH_THREADS = 256, FP8_ROWS = 256, FP8_UNIT = 16 };

/* ----------------------------------------------------------------------------- small kernels */

static __global__ void __launch_bounds__(FINISH_THREADS)
    round_numbers(bf16 *dst, const float *src, int64_t n, bool wide) {
    int64_t i = ((int64_t)blockIdx.x * FINISH_THREADS + threadIdx.x) * WIDE;
    if (i >= n)
        return;
    float v[WIDE];
    if (wide && i + WIDE <= n) {
        load_wide(v, src + i);
        store_wide(dst + i, v);
    } else {
        int count = (int)min((int64_t)WIDE, n - i);
        load_some(v, src + i, count);
        store_some(dst + i, v, count);
    }
}

cudaError_t wan_cuda_round(void *dst, const float *src, int64_t n, cudaStream_t stream) {
    unsigned blocks = (unsigned)ceil_div(n, FINISH_THREADS * WIDE);
    if (n > 0)
        round_numbers<<<blocks, FINISH_THREADS, 0, stream>>>((bf16 *)dst, src, n,
                                                             aligned_16(dst) && aligned_16(src));
    return cudaGetLastError();
}

template <class Y>
static __global__ void __launch_bounds__(FINISH_THREADS)
    finish(const product p, const unfinished what) {
    int64_t row = blockIdx.x;
    Y *dst = (Y *)p.dst + row * p.out;
    float scale = what.scales ? p.x_scale[row] : 1;
    for (int64_t i = threadIdx.x; i < p.out; i += FINISH_THREADS) {
        float v = to_float(dst[i]);
        if (what.scales)
            v *= scale * p.w_scale[i];
        if (what.bias && p.bias)
            v += p.bias[i];
        if (what.act && p.act == WAN_GELU_TANH)
            v = gelu_tanh<Y>(v);
        if (what.act && p.act == WAN_SILU)
            v = silu<Y>(v);
        from_float(dst + i, v);
    }
}

cudaError_t wan_cuda_finish(const product *p, unfinished what, cudaStream_t stream) {
    if (!what.scales && !what.bias && !what.act)
        return cudaSuccess;
    if (p->result == WAN_BF16)
        finish<bf16><<<(unsigned)p->rows, FINISH_THREADS, 0, stream>>>(*p, what);
    else
        finish<float><<<(unsigned)p->rows, FINISH_THREADS, 0, stream>>>(*p, what);
    return cudaGetLastError();
}

/* ------------------------------------------------------------------------------- work space */

/* Where things lie in the work space; 0 bytes: not wanted. */
typedef struct room {
    size_t at, bytes;
} room;

typedef struct rooms {
    room w, w_scale, x, x_scale, bias, lt;
    size_t total;
} rooms;

static room take(size_t *total, size_t bytes) {
    room r = {*total, bytes};
    *total += (bytes + 255) / 256 * 256;
    return r;
}

static void *in_room(compute *c, room r) {
    return r.bytes ? (char *)wan_cuda_workspace(c) + r.at : NULL;
}

static bool has_scales(const linear *l) {
    return l->scale.data || l->group_scale.data;
}

static dtype operand_type(precision p) {
    return p == WAN_PRECISION_F32 ? WAN_F32 : WAN_BF16;
}

static rooms plain_rooms(dtype operand, tensor dst, tensor x, const linear *l) {
    rooms r = {};
    size_t size = operand == WAN_F32 ? sizeof(float) : sizeof(bf16);
    size_t rows = (size_t)x.dim[0], out = (size_t)dst.dim[1], in = (size_t)x.dim[1];
    bool bias = l->bias.data && wan_cuda_lt_bias(operand, dst.type);
    r.w = take(&r.total, l->weight.type == operand && !has_scales(l) ? 0 : size * out * in);
    r.x = take(&r.total, x.type == operand ? 0 : size * rows * in);
    r.bias = take(&r.total, bias ? sizeof(bf16) * out : 0);
    r.lt = take(&r.total, LT_WORKSPACE);
    return r;
}

static bool wants_fp8(precision p, tensor dst, tensor x, const linear *l) {
    return p == WAN_PRECISION_FP8 && l->bits != 32 && x.dim[0] >= FP8_ROWS &&
           x.dim[1] % FP8_UNIT == 0 && dst.dim[1] % FP8_UNIT == 0;
}

/* The weight is codes with at most a scale for each row. */
static bool stored_fp8(const linear *l) {
    return l->weight.type == WAN_F8_E4M3 && !l->group_scale.data;
}

/* Codes can be made from what is stored, without a stop at bf16. */
static bool direct_fp8(const linear *l) {
    return wan_cuda_quantises(l->weight.type) && !l->group_scale.data;
}

static rooms fp8_rooms(tensor dst, tensor x, const linear *l) {
    rooms r = {};
    size_t rows = (size_t)x.dim[0], out = (size_t)dst.dim[1], in = (size_t)x.dim[1];
    size_t unpacked = stored_fp8(l) || direct_fp8(l) ? 0 : sizeof(bf16) * out * in;
    r.w = take(&r.total, stored_fp8(l) ? 0 : out * in);
    r.w_scale = take(&r.total, sizeof(float) * out);
    /* The weight as bf16 is gone before the codes of x come. */
    r.x = take(&r.total, unpacked > rows * in ? unpacked : rows * in);
    r.x_scale = take(&r.total, sizeof(float) * rows);
    r.bias = take(&r.total, l->bias.data ? sizeof(bf16) * out : 0);
    r.lt = take(&r.total, LT_WORKSPACE);
    return r;
}

size_t wan_cuda_linear_workspace(const compute *c, tensor dst, tensor x, const linear *l) {
    if (wan_cuda_few_rows_fits(x.dim[0], l->weight, l->group_scale.data != NULL))
        return 0;
    size_t plain = plain_rooms(operand_type(c->precision), dst, x, l).total;
    size_t fp8 = wants_fp8(c->precision, dst, x, l) ? fp8_rooms(dst, x, l).total : 0;
    return fp8 > plain ? fp8 : plain;
}

/* -------------------------------------------------------------------------------- the products */

/* The same with device addresses; the weight last, since it may be brought just for this op. */
static bool bring(compute *c, linear *l) {
    tensor *t[] = {&l->bias, &l->scale, &l->group_scale, &l->group_offset, &l->weight};
    for (tensor *one : t)
        if (one->data && !(one->data = wan_cuda_weight(c, *one)))
            return false;
    return true;
}

static product product_of(tensor dst, tensor x, const linear *l, activation act, dtype operand) {
    product p = {};
    p.rows = x.dim[0];
    p.out = dst.dim[1];
    p.in = x.dim[1];
    p.operand = operand;
    p.result = dst.type;
    p.x = x.data;
    p.w = l->weight.data;
    p.dst = dst.data;
    p.bias = (const float *)l->bias.data;
    p.act = act;
    return p;
}

static void few(compute *c, tensor dst, tensor x, const linear *l, activation act) {
    few_rows f = {x.dim[0],
                  dst.dim[1],
                  x.dim[1],
                  x.type,
                  l->weight.type,
                  dst.type,
                  x.data,
                  l->weight.data,
                  dst.data,
                  (const float *)l->scale.data,
                  l->scale.data && l->scale.dim[0] > 1,
                  (const float *)l->bias.data,
                  act};
    wan_cuda_ok(c, wan_cuda_few_rows(&f, wan_cuda_device(c)->stream), "linear, few rows");
}

static void round_bias(compute *c, product *p, room r) {
    p->bias_bf16 = in_room(c, r);
    if (p->bias_bf16)
        wan_cuda_ok(
            c, wan_cuda_round((void *)p->bias_bf16, p->bias, p->out, wan_cuda_device(c)->stream),
            "round a bias");
}

/* By cuBLASLt, if that can. */
static bool by_library(compute *c, const product *p, room space) {
    const cuda_device *d = wan_cuda_device(c);
    unfinished left;
    /* The library has no SiLU, and one after rounding to bf16 would round twice. */
    if (p->act == WAN_SILU && p->result == WAN_BF16)
        return false;
    if (c->err.code || !d->lt || !aligned_16(p->x) || !aligned_16(p->w) || !aligned_16(p->dst))
        return false;
    if (!wan_cuda_lt_product(d->lt, p, in_room(c, space), &left, &c->err))
        return false;
    return wan_cuda_ok(c, wan_cuda_finish(p, left, d->stream), "linear, bias and activation");
}

static void plain_product(compute *c, tensor dst, tensor x, const linear *l, activation act) {
    const cuda_device *d = wan_cuda_device(c);
    dtype operand = operand_type(d->precision);
    rooms r = plain_rooms(operand, dst, x, l);
    product p = product_of(dst, x, l, act, operand);
    if (r.w.bytes) {
        p.w = in_room(c, r.w);
        wan_cuda_unpack(c, (void *)p.w, operand, l);
    }
    if (r.x.bytes && !c->err.code) {
        p.x = in_room(c, r.x);
        wan_cuda_ok(c, wan_cuda_round((void *)p.x, (const float *)x.data, p.rows * p.in, d->stream),
                    "round activations");
    }
    if (!c->err.code)
        round_bias(c, &p, r.bias);
    if (!by_library(c, &p, r.lt) && !c->err.code)
        wan_cuda_ok(c, wan_cuda_gemm(&p, GEMM_AUTO, d->multiprocessors, d->stream), "linear");
}

/* Codes and scales of the weight. */
static cudaError_t fp8_weight(compute *c, product *p, const linear *l, const rooms *r) {
    cudaStream_t stream = wan_cuda_device(c)->stream;
    const float *scale = (const float *)l->scale.data;
    bool each = scale && l->scale.dim[0] > 1;
    float *w_scale = (float *)in_room(c, r->w_scale);
    p->w_scale = w_scale;
    if (stored_fp8(l)) {
        p->w_scale = each ? scale : w_scale;
        return each ? cudaSuccess : wan_cuda_fill(w_scale, scale, p->out, stream);
    }
    p->w = in_room(c, r->w);
    if (direct_fp8(l))
        return wan_cuda_quantise_rows((void *)p->w, w_scale, l->weight.data, l->weight.type, p->out,
                                      p->in, scale, each, stream);
    wan_cuda_unpack(c, in_room(c, r->x), WAN_BF16, l);
    return wan_cuda_quantise_rows((void *)p->w, w_scale, in_room(c, r->x), WAN_BF16, p->out, p->in,
                                  NULL, false, stream);
}

/* False where the device or its library has no such products. */
static bool fp8_product(compute *c, tensor dst, tensor x, const linear *l, activation act) {
    const cuda_device *d = wan_cuda_device(c);
    rooms r = fp8_rooms(dst, x, l);
    product p = product_of(dst, x, l, act, WAN_F8_E4M3);
    if (!d->lt || d->sm < 89 || !aligned_16(x.data) || !aligned_16(l->weight.data))
        return false;
    cudaError_t e = fp8_weight(c, &p, l, &r);
    float *x_scale = (float *)in_room(c, r.x_scale);
    p.x = in_room(c, r.x);
    p.x_scale = x_scale;
    if (!e)
        e = wan_cuda_quantise_rows((void *)p.x, x_scale, x.data, x.type, p.rows, p.in, NULL, false,
                                   d->stream);
    if (wan_cuda_ok(c, e, "quantise to fp8"))
        round_bias(c, &p, r.bias);
    return by_library(c, &p, r.lt);
}

void wan_cuda_linear(compute *c, tensor dst, tensor x, const linear *stored, activation act) {
    linear l = *stored;
    if (dst.dim[0] == 0 || dst.dim[1] == 0 || !bring(c, &l))
        return;
    if (wan_cuda_few_rows_fits(x.dim[0], l.weight, l.group_scale.data != NULL))
        few(c, dst, x, &l, act);
    else if (!wants_fp8(wan_cuda_device(c)->precision, dst, x, &l) ||
             (!fp8_product(c, dst, x, &l, act) && !c->err.code))
        plain_product(c, dst, x, &l, act);
}
