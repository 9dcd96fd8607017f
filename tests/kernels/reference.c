/* SPDX-License-Identifier: Apache-2.0 */
/* Matrix products and attention in double precision, and how far a device may be from them.
 *
 * A product of rounded operands is off by at most the sum of what each term is off, and, as
 * roundings are as good as random, hardly ever by more than four times the root of the sum of
 * squares: the smaller of the two is allowed.  Weights that a bf16 holds are not rounded again, so
 * that with them and bf16 activations only the tolerance of sums in f32 is left. */
#include "check.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/half.h"

double unit_of(dtype type) {
    return type == WAN_BF16 ? 0x1p-8 : type == WAN_F16 ? 0x1p-11 : 0;
}

static bool fits_bf16(const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (wan_brain_to_float(wan_brain_from_float(x[i])) != x[i])
            return false;
    return true;
}

rounding rounding_of(const check *t, const float *x, int64_t n) {
    float top = 0;
    switch (t->c->precision) {
    case WAN_PRECISION_BF16:
        return (rounding){fits_bf16(x, n) ? 0 : 0x1p-8, 0};
    case WAN_PRECISION_FP8: /* E4M3: three bits, 448 at most, steps of 2^-9 at the end */
        for (int64_t i = 0; i < n; i++)
            top = fmaxf(top, fabsf(x[i]));
        return (rounding){0x1p-4 + 0x1p-8, (double)top * (0x1p-10 / 448)};
    default:
        return (rounding){0};
    }
}

/* Groups of 32 as src/backend/cpu/kernels.h says. */
static void keep_int8(float *x, int64_t n) {
    for (int64_t at = 0; at < n; at += 32) {
        int64_t count = n - at < 32 ? n - at : 32;
        float top = 0;
        for (int64_t i = at; i < at + count; i++)
            top = fmaxf(top, fabsf(x[i]));
        for (int64_t i = at; i < at + count; i++)
            x[i] = top < 0x1p-100f ? 0 : nearbyintf(x[i] * (127 / top)) * (top / 127);
    }
}

const float *kept_operand(check *t, const float *x, int64_t rows, int64_t k, dtype stored,
                          rounding *r) {
    *r = (rounding){0};
    if (t->c->precision == WAN_PRECISION_F32)
        return x;
    float *kept = host_alloc(t, sizeof *kept * (size_t)(rows * k + 1));
    memcpy(kept, x, sizeof *kept * (size_t)(rows * k));
    if (t->c->precision == WAN_PRECISION_BF16) {
        round_floats(WAN_BF16, kept, rows * k);
        return kept;
    }
    r->part = 0x1p-24; /* of code * scale */
    for (int64_t i = 0; stored != WAN_Q8_0 && stored != WAN_I8 && i < rows; i++)
        keep_int8(kept + i * k, k);
    return kept;
}

typedef struct total {
    double sum, magnitude, off, off_squared;
} total;

static double likely(const total *s) {
    return fmin(s->off, 4 * sqrt(s->off_squared));
}

static void add_product(total *s, double a, rounding ra, double b, rounding rb) {
    double da = ra.part * fabs(a) + ra.step, db = rb.part * fabs(b) + rb.step;
    double off = da * fabs(b) + db * fabs(a) + da * db;
    s->sum += a * b;
    s->magnitude += fabs(a * b);
    s->off += off;
    s->off_squared += off * off;
}

/* act(v), and in *slope how much an error of v weighs. */
static double apply(activation act, double v, double *slope) {
    *slope = 1.13; /* the steepest both get */
    if (act == WAN_NONE)
        return v;
    double u = act == WAN_GELU_TANH ? 1.5957691216057308 * (v + 0.044715 * v * v * v) : v;
    return v / (1 + exp(-u));
}

double reference_dot(const float *x, rounding rx, const float *w, rounding rw, double bias,
                     int64_t k, activation act, double *tol) {
    total s = {.sum = bias, .magnitude = fabs(bias)};
    double slope;
    for (int64_t i = 0; i < k; i++)
        add_product(&s, x[i], rx, w[i], rw);
    double want = apply(act, s.sum, &slope);
    *tol =
        slope * (tol_dot(k, s.magnitude) + likely(&s)) + 8 * 0x1p-24 * fabs(want) + 100 * FLT_MIN;
    if (act != WAN_NONE) /* exp's argument, rounded */
        *tol += 8 * 0x1p-24 * fmin(1, fabs(s.sum));
    return want;
}

/* A CPU's activations are f32: it rounds on the way. */
double attention_unit(const check *t) {
    precision p = t->c->precision;
    if (!t->k)
        return unit_of(t->c->act);
    return p == WAN_PRECISION_BF16 || (p == WAN_PRECISION_INT8 && t->k->fast_bf16) ? 0x1p-8 : 0;
}

/* Where src/backend/cuda/attention_8bit.cu, if the GPU is one for it, makes q and k integers. */
static bool integer_logits(const check *t, const attention_shape *s) {
    return !t->k && t->c->precision == WAN_PRECISION_FP8 && t->rows == WAN_BF16 &&
           s->queries >= 4096 && s->keys >= 8192 && s->size == 128 && s->last_count == 1 &&
           !s->bias;
}

/* Half a step of integers that go to 127 at the largest.  That of all keys stands for that of a
 * tile of them less a mean that is small where numbers are random. */
static rounding integers_of(const float *x, int64_t rows, int64_t width, int64_t size) {
    float top = 0;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < size; j++)
            top = fmaxf(top, fabsf(x[i * width + j]));
    return (rounding){0, (double)top / 254};
}

/* How far off a logit may be of products of rounded numbers.  Rounding to integers is far coarser
 * than the sum of weights bears if all were off the same way: it goes into *noise, largest so far,
 * as the root of the sum of squares of the largest errors, nearly twice what is expected. */
static double logit_error(const attention_shape *s, const total *dot, float scale, bool integers,
                          double *noise) {
    double sums = tol_dot(s->size, dot->magnitude);
    if (!integers)
        return (sums + likely(dot)) * fabs(scale);
    *noise = fmax(*noise, sqrt(dot->off_squared) * fabs(scale));
    return sums * fabs(scale);
}

/* The tolerance follows an error `off` of every logit: each weight is off by the factor exp(2 off).
 * Of a CPU it is known what q, k and v become, so they come rounded; its exp of weights that become
 * bf16 is as good as logits with the error that `off` starts with.  `noise` differs from logit to
 * logit: a weighted sum of as many independent errors (times check.loose, 4 on devices). */
void reference_attention(const check *t, const attention_shape *s, const float *q, const float *k,
                         const float *v, const float *bias, float scale, double *weight,
                         double *want, double *tol) {
    double unit = attention_unit(t);
    rounding input = {t->rows == WAN_F32 && !t->k ? unit : 0, 0}, share = {unit, 0};
    int64_t width = s->heads * s->size;
    bool integers = integer_logits(t, s);
    rounding rq = integers ? integers_of(q, 1, 0, s->size) : input,
             rk = integers ? integers_of(k, s->keys, width, s->size) : input;
    double noise = 0, top = -INFINITY, all = 0, off = t->k && unit > 0 ? 0x1p-13 : 0;
    for (int64_t i = 0; i < s->keys; i++) {
        total dot = {0};
        for (int64_t j = 0; j < s->size; j++)
            add_product(&dot, q[j], rq, k[i * width + j], rk);
        weight[i] = dot.sum * scale + (bias ? bias[i] : 0) +
                    (i == s->keys - 1 ? log((double)s->last_count) : 0);
        double logit = logit_error(s, &dot, scale, integers, &noise);
        off = fmax(off, logit + 4 * 0x1p-24 * fabs(weight[i]));
        top = fmax(top, weight[i]);
    }
    for (int64_t i = 0; i < s->keys; i++)
        all += weight[i] = exp(weight[i] - top);
    for (int64_t j = 0; j < s->size; j++) {
        total sum = {0};
        double value_squares = 0, squares = 0;
        for (int64_t i = 0; i < s->keys; i++) {
            double w = weight[i] / all, x = v[i * width + j];
            add_product(&sum, w, share, x, input);
            value_squares += w * x * w * x;
            squares += w * w;
        }
        want[j] = sum.sum;
        tol[j] = tol_dot(s->keys, 2 * sum.magnitude) + 2 * expm1(2 * off) * sum.magnitude + FLT_MIN;
        if (unit > 0) /* of the sum of shares, too */
            tol[j] += likely(&sum) + share.part * fabs(sum.sum);
        tol[j] += expm1(noise) * (sqrt(value_squares) + fabs(sum.sum) * sqrt(squares));
    }
}
