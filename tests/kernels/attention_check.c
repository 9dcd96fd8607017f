/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/half.h"

/* Of a tile whose column j has logits s: what softmax_bf16 says of it against 2^x in double. */
static void expect_weights(check *t, const float *s, const uint16_t *panel, int64_t keys, int j,
                           float old, float max, float factor, double *sum) {
    int nr = t->k->nr;
    double top = old, scale;
    for (int64_t i = 0; i < keys; i++)
        top = fmax(top, s[i * nr + j]);
    expect(t, (double)max == top, "maximum of column %d is %g, not %g", j, (double)max, top);

    scale = exp2((double)old - top);
    expect(t, fabs(factor - scale) <= scale * 0x1p-13 + FLT_MIN, "factor %d is %.9g, not %.9g", j,
           (double)factor, scale);
    *sum *= factor;
    for (int64_t i = 0; i < keys + keys % 2; i++) {
        double want = i < keys ? exp2((double)s[i * nr + j] - top) : 0;
        float got = wan_brain_to_float(panel[(i / 2 * nr + j) * 2 + i % 2]);
        expect(t, i < keys ? fabs(got - want) <= want * (0x1p-8 + 0x1p-13) + FLT_MIN : got == 0,
               "weight %lld of column %d is %.9g, not %.9g", (long long)i, j, (double)got, want);
        *sum += got;
    }
}

static void softmax_bf16_case(check *t, int64_t tiles, int64_t keys, double spread) {
    int nr = t->k->nr;
    int64_t n = keys * nr, pairs = (keys + 1) / 2 * nr;
    float *s = host_alloc(t, sizeof *s * (size_t)n), *max = ringed(t, nr), *sum = ringed(t, nr),
          *factor = ringed(t, nr), *panel = ringed(t, pairs), old[CPU_NR_MAX];
    double want[CPU_NR_MAX] = {0};
    for (int j = 0; j < nr; j++) {
        max[j] = -INFINITY;
        sum[j] = 0;
    }
    for (int64_t tile = 0; tile < tiles; tile++) {
        for (int64_t i = 0; i < n; i++)
            s[i] = (float)(spread * random_normal(t));
        memcpy(old, max, sizeof *old * (size_t)nr);
        t->k->softmax_bf16((uint16_t *)panel, s, keys, max, sum, factor);
        for (int j = 0; j < nr; j++) {
            expect_weights(t, s, (const uint16_t *)panel, keys, j, old[j], max[j], factor[j],
                           &want[j]);
            expect(t, fabs(sum[j] - want[j]) <= want[j] * (double)(keys + 8) * 0x1p-24,
                   "sum %d of rounded weights is %.9g, not %.9g", j, (double)sum[j], want[j]);
            want[j] = sum[j];
        }
    }
    expect_ring(t, panel, pairs);
    expect_ring(t, max, nr);
    expect_ring(t, sum, nr);
    expect_ring(t, factor, nr);
}

CHECK(softmax_bf16) {
    softmax_bf16_case(t, 1, 1, 1);
    softmax_bf16_case(t, 3, 1, 10);
    softmax_bf16_case(t, 4, 96, 3);
    softmax_bf16_case(t, 2, 17, 300);
    softmax_bf16_case(t, 2, 5, 0);
    softmax_bf16_case(t, 2, 6, 1e8);
    float *s = host_alloc(t, sizeof *s * 2 * CPU_NR_MAX),
          *state = host_alloc(t, sizeof *s * 3 * CPU_NR_MAX);
    uint16_t *panel = host_alloc(t, sizeof *panel * 2 * CPU_NR_MAX);
    for (int j = 0; j < 2 * CPU_NR_MAX; j++)
        s[j] = j % 3 ? 1 : NAN;
    for (int j = 0; j < 3 * CPU_NR_MAX; j++)
        state[j] = 0;
    t->k->softmax_bf16(panel, s, 2, state, state + CPU_NR_MAX, state + 2 * CPU_NR_MAX);
    for (int j = 0; j < t->k->nr; j++)
        expect(t, isnan(state[CPU_NR_MAX + j]) == (isnan(s[j]) || isnan(s[t->k->nr + j])),
               "a sum of NaN is %g", (double)state[CPU_NR_MAX + j]);
}

/* What a CPU in bf16 makes of its operands: q is scaled first, to logits in units of ln 2. */
static void round_operands(check *t, float *q, int64_t queries, float *k, float *v, int64_t keys,
                           float scale) {
    float by = scale * 1.44269504f;
    if (!t->k || attention_unit(t) <= 0)
        return;
    for (int64_t i = 0; i < queries; i++)
        q[i] *= by;
    round_floats(WAN_BF16, q, queries);
    for (int64_t i = 0; i < queries; i++)
        q[i] /= by;
    round_floats(WAN_BF16, k, keys);
    round_floats(WAN_BF16, v, keys);
}

static void attention_case(check *t, attention_shape s) {
    size_t mark = wan_mark(t->c);
    int64_t width = s.heads * s.size, reach = s.queries > s.keys ? s.queries : s.keys;
    float *hq, *hk, *hv, *hb;
    tensor q = new_rows(t, WAN_DIMS(s.queries, width), NORMAL, &hq),
           k = new_rows(t, WAN_DIMS(s.keys, width), NORMAL, &hk);
    tensor v = new_rows(t, WAN_DIMS(s.keys, width), s.keys % 2 ? NORMAL : MIXED, &hv);
    attention a = {.heads = (int)s.heads,
                   .scale = (float)(s.spread / sqrt((double)s.size)),
                   .last_key_count = s.last_count};
    if (s.bias) {
        reach += s.queries % 3;
        a.bias = new_f32(t, WAN_DIMS(s.heads, 2 * reach - 1), NORMAL, &hb);
    }
    int64_t n = s.queries * width;
    round_operands(t, hq, n, hk, hv, s.keys * width, a.scale);
    double *want = host_alloc(t, sizeof *want * (size_t)n),
           *tol = host_alloc(t, sizeof *tol * (size_t)n);
    double *weight = host_alloc(t, sizeof *weight * (size_t)s.keys);
    for (int64_t i = 0; i < s.queries; i++)
        for (int64_t h = 0; h < s.heads; h++) {
            int64_t at = i * width + h * s.size;
            reference_attention(t, &s, hq + at, hk + h * s.size, hv + h * s.size,
                                s.bias ? hb + h * (2 * reach - 1) + reach - 1 - i : NULL, a.scale,
                                weight, want + at, tol + at);
        }
    guard_begin(t, sizeof(float) * (size_t)n);
    tensor y = wan_attention(t->c, q, k, v, &a);
    guard_end(t, y);
    char what[96];
    snprintf(what, sizeof what, "%lld queries, %lld keys, %lld x %lld", (long long)s.queries,
             (long long)s.keys, (long long)s.heads, (long long)s.size);
    expect_near(t, what, y, want, tol);
    wan_release(t->c, mark);
}

CHECK(attention) {
    static const attention_shape shapes[] = {
        {1, 1, 1, 2, 1, false, 1},       {1, 1, 3, 10, 499, true, 1},
        {3, 2, 2, 20, 1, false, 1},      {17, 5, 2, 36, 1, true, 1},
        {16, 96, 1, 44, 1, false, 1},    {33, 97, 2, 64, 7, true, 4},
        {97, 15, 3, 10, 498, false, 1},  {100, 192, 2, 20, 1, false, 8},
        {14, 14, 4, 64, 1, true, 8},     {49, 301, 2, 128, 1, false, 1},
        {193, 193, 1, 128, 1, true, 30}, {130, 250, 1, 258, 3, false, 1},
        {401, 150, 1, 16, 1, true, 1},   {5, 100, 1, 1000, 1, false, 1},
    };
    static const attention_shape more_on_cpu[] = {
        {37, 61, 3, 33, 1, true, 2},
        {9, 1, 2, 7, 1, false, 1},
        {65, 145, 1, 1, 1, false, 1},
        {21, 99, 1, 1024, 1, false, 1},
    };
    for (size_t i = 0; i < COUNT(shapes); i++)
        attention_case(t, shapes[i]);
    for (size_t i = 0; t->k && i < COUNT(more_on_cpu); i++)
        attention_case(t, more_on_cpu[i]);
}

/* A head that does not fit the work space is an error, not a crash. */
static void too_wide(check *t) {
    tensor q = new_f32(t, WAN_DIMS(2, 100000), NORMAL, NULL);
    attention a = {.heads = 1, .scale = 1, .last_key_count = 1};
    wan_attention(t->c, q, q, q, &a);
    expect(t, t->c->err.code == WAN_E_SHAPE, "a head of 100000 numbers was let through");
    wan_error_clear(&t->c->err);
}

CHECK(attention_threads) {
    too_wide(t);
    tensor q = new_f32(t, WAN_DIMS(211, 3 * 44), NORMAL, NULL),
           k = new_f32(t, WAN_DIMS(300, 3 * 44), NORMAL, NULL);
    attention a = {.heads = 3, .scale = 0.3f, .last_key_count = 1};
    tensor y = wan_attention(t->c, q, k, k, &a);
    for (int threads = 1; threads <= 16; threads += 5) {
        compute other = *t->c;
        other.device = wan_cpu_open(threads, t->have, &other.err);
        if (!other.device)
            return;
        tensor z = wan_attention(&other, q, k, k, &a);
        expect_equal(t, "other number of threads", z.data, y.data, wan_elements(y));
        other.be->close(other.device);
    }
}

static void bench_attention(check *t, const char *label, int64_t queries, int64_t keys,
                            int64_t heads, int64_t size) {
    if (!t->bench)
        return;
    size_t mark = wan_mark(t->c);
    tensor q = new_rows(t, WAN_DIMS(queries, heads * size), NORMAL, NULL);
    tensor k = new_rows(t, WAN_DIMS(keys, heads * size), NORMAL, NULL);
    attention a = {
        .heads = (int)heads, .scale = (float)(1 / sqrt((double)size)), .last_key_count = 1};
    double products = (double)queries * (double)keys * (double)(heads * size);
    size_t inner = wan_mark(t->c);
    for (bench b = bench_begin(t, label, 4 * products,
                               4.0 * 2 * (double)(queries + keys) * (double)(heads * size));
         bench_next(&b);) {
        wan_release(t->c, inner);
        wan_attention(t->c, q, k, k, &a);
    }
    wan_release(t->c, mark);
}

CHECK(attention_speed) {
    bench_attention(t, "attention 512 x 512, 4 x 128", 512, 512, 4, 128);
    if (t->k && t->k->gemm_tile == t->twin->gemm_tile)
        return;
    bench_attention(t, "attention 1125 x 1125, 24 x 128", 1125, 1125, 24, 128);
    bench_attention(t, "attention 4500 x 4500, 4 x 128", 4500, 4500, 4, 128);
    bench_attention(t, "attention 1125 x 20, 24 x 128", 1125, 20, 24, 128);
    bench_attention(t, "attention 126 x 126, 64 x 64", 126, 126, 64, 64);
    bench_attention(t, "attention 512 x 512, 4 x 44", 512, 512, 4, 44);
    if (t->k)
        return;
    bench_attention(t, "attention 4725 x 4725, 24 x 128", 4725, 4725, 24, 128);
    bench_attention(t, "attention 27280 x 27280, 24 x 128", 27280, 27280, 24, 128);
    bench_attention(t, "attention 4725 x 512, 24 x 128", 4725, 512, 24, 128);
}
