/* SPDX-License-Identifier: Apache-2.0 */
/* attention_8bit_cases.cuh - attention with operands of 8 bits: both variants, and when the backend
 * takes one. */
#ifndef WAN_TESTS_CUDA_ATTENTION_8BIT_CASES_CUH
#define WAN_TESTS_CUDA_ATTENTION_8BIT_CASES_CUH

#include "attention_case.cuh"

template <class S> static cudaError_t run_eight(const attention_args *a, dtype t) {
    (void)t;
    return eight::launch<S>(&device, a);
}

/* Only what is done before. */
template <class S> static cudaError_t run_packing(const attention_args *a, dtype t) {
    (void)t;
    packed_keys x = wan_cuda_packed_keys(a->m, a->heads, S::Keys, S::Values8, a->workspace);
    return wan_cuda_pack_keys(&x, a, device.stream);
}

struct eight_variant {
    const char *name;
    runner run, pack;
    int keys;
    bool values8;
};

#define EIGHT(k, s, v)                                                                             \
    {                                                                                              \
        "qk8" #v "_k" #k "_s" #s, run_eight<eight::shape<k, s, #v[0] == 'v'>>,                     \
            run_packing<eight::shape<k, s, #v[0] == 'v'>>, k, #v[0] == 'v'                         \
    }
static const eight_variant eights[] = {EIGHT(176, 2, ), EIGHT(128, 3, v8)};

/* What rounding to 8 bits should cost, in the result of normal numbers, twice.
 * Integers of a scale have an error of its step over sqrt 12; the largest of a row's 128 normal
 * numbers is about 2.8, of a tile's some 20,000 about 4.3: 0.64 % and 0.98 % of a number, so 1.17 %
 * of the logits' spread, and a weight is as far off as its logit.  Where one number in 64 is four
 * times larger (and all have 1.11 for standard deviation), the largest are about 5.5 and 12.5: 1.25
 * % and 2.84 % of a normal number's, 3.44 % together.  E4M3 is off by 2.6 %, values and weights,
 * bf16 by 0.3 %. */
static double allowed(float spread, bool values8, bool plain) {
    double logit = (plain ? 0.0117 : 0.0344) * spread, weight = values8 ? 0.026 * sqrt(2.0) : 0,
           rest = 0.003;
    return 2 * sqrt(logit * logit + weight * weight + rest * rest);
}

static problem eight_head(const eight_variant &v, int64_t n, int64_t m, int heads, float spread,
                          bool plain = true) {
    problem p = {n, m, heads, 128, 1, spread, false, WAN_BF16};
    p.space = wan_cuda_packed_keys(m, heads, v.keys, v.values8, NULL).bytes;
    p.plain = plain;
    p.most = allowed(spread, v.values8, plain);
    return p;
}

static void check_eight(bool small) {
    static const int64_t length[][2] = {{1, 1},     {15, 1},    {127, 15},  {1, 177},  {177, 127},
                                        {177, 177}, {128, 193}, {300, 500}, {65, 385}, {256, 352}};
    for (const eight_variant &v : eights) {
        for (auto &l : length)
            check(v.name, eight_head(v, l[0], l[1], 3, 1), v.run);
        check(v.name, eight_head(v, 129, 700, 2, 3), v.run);
        problem p = eight_head(v, 300, 500, 2, 1);
        p.common = 8; /* is to cost nothing */
        check(v.name, p, v.run);
        check(v.name, eight_head(v, 200, 600, 3, 1, false), v.run);
        if (small)
            continue;
        check(v.name, eight_head(v, 1000, 2001, 24, 1), v.run);
        check(v.name, eight_head(v, 4725, 4725, 24, 1), v.run);
        check(v.name, eight_head(v, 4725, 4725, 4, 4), v.run);
        check(v.name, eight_head(v, 1100, 27280, 24, 1), v.run);
        check(v.name, eight_head(v, 27280, 600, 2, 1), v.run);
    }
    problem op = eight_head(eights[eight::ChosenValues8], eight::FewestQueries, 8200, 1, 1);
    op.space = 0;
    op.at = WAN_PRECISION_FP8;
    check("8bit", op, run_op_fp8);
}

/* When the backend takes 8 bits: at fp8, many keys, heads of 128, nothing out of the ordinary. */
static void check_choice(void) {
    static const int64_t n = eight::FewestQueries, m = eight::FewestKeys;
    static const struct {
        int64_t n, m;
        int size;
        int64_t last;
        bool bias;
        precision p;
        bool eight;
    } table[] = {
        {n, m, 128, 1, false, WAN_PRECISION_FP8, true},
        {27280, 27280, 128, 1, false, WAN_PRECISION_FP8, true},
        {n - 1, m, 128, 1, false, WAN_PRECISION_FP8, false},
        {n, m - 1, 128, 1, false, WAN_PRECISION_FP8, false},
        {n, m, 64, 1, false, WAN_PRECISION_FP8, false},
        {n, m, 128, 2, false, WAN_PRECISION_FP8, false},
        {n, m, 128, 1, true, WAN_PRECISION_FP8, false},
        {n, m, 128, 1, false, WAN_PRECISION_BF16, false},
    };
    bool ok = true;
    for (auto &t : table) {
        tensor q = {WAN_BF16, 2, {t.n, 3 * t.size}}, k = {WAN_BF16, 2, {t.m, 3 * t.size}};
        attention how = {};
        float bias;
        how.heads = 3;
        how.last_key_count = t.last;
        how.bias.data = t.bias ? &bias : NULL;
        compute c = {};
        c.precision = t.p;
        ok = ok && (wan_cuda_attention_workspace(&c, q, k, &how) > 0) == t.eight;
    }
    cases++;
    failures += !ok;
    printf("%s choice of 8 bits\n", ok ? "OK" : "FAIL");
}

/* One number of head 1 becomes `bad`.  What depends on it is no number (of a value: not finite),
 * every result of a key, and of a value at least its column; other heads, and queries, have the
 * same bits as `clean`. */
static bool bad_shows(const setup &s, const problem &p, runner run, char operand, int64_t row,
                      uint16_t bad, const std::vector<uint16_t> &clean) {
    int64_t width = (int64_t)p.heads * p.size, column = p.size + 5;
    uint16_t *at = (uint16_t *)(operand == 'q' ? s.q : operand == 'k' ? s.k : s.v), old;
    at += row * width + column;
    std::vector<uint16_t> got(clean.size());
    CHECK(cudaMemcpy(&old, at, 2, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(at, &bad, 2, cudaMemcpyHostToDevice));
    CHECK(cudaMemset(s.dst, 0, s.bytes));
    CHECK(run(&s.a, p.type));
    CHECK(cudaMemcpy(got.data(), s.dst, s.bytes, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(at, &old, 2, cudaMemcpyHostToDevice));
    int least = operand == 'v' ? 0x7f80 : 0x7f81; /* magnitude's bits */
    for (int64_t i = 0; i < (int64_t)got.size(); i++) {
        bool head = i % width / p.size == 1;
        bool hit = head && (operand == 'k' || (operand == 'q' && i / width == row) ||
                            (operand == 'v' && i % width == column));
        bool may = operand == 'v' && head;
        if (hit ? (got[i] & 0x7fff) < least : !may && got[i] != clean[i])
            return false;
    }
    return true;
}

static void check_bad(const eight_variant &v) {
    problem p = eight_head(v, 300, 500, 3, 1);
    setup s = prepare(p, false);
    std::vector<uint16_t> clean(s.bytes / 2);
    CHECK(v.run(&s.a, p.type));
    CHECK(cudaMemcpy(clean.data(), s.dst, s.bytes, cudaMemcpyDeviceToHost));
    for (char operand : {'q', 'k', 'v'})
        for (uint16_t bad : {0x7fc0, 0x7f80, 0xff80}) { /* NaN and infinities */
            bool ok = true;
            for (int64_t row : {(int64_t)0, (int64_t)1, (operand == 'q' ? p.n : p.m) - 1})
                ok = ok && bad_shows(s, p, v.run, operand, row, bad, clean);
            cases++;
            failures += !ok;
            printf("%s %s %c with %s\n", ok ? "OK" : "FAIL", v.name, operand,
                   bad == 0x7fc0   ? "NaN"
                   : bad == 0x7f80 ? "inf"
                                   : "-inf");
        }
    release(s);
}

/* ------------------------------------------------------------------------- bench */

/* Packing is in each variant's time. */
static void bench_eight(void) {
    for (int64_t n : {4725, 8192, 11440, 17600, 27280}) {
        int times = n > 10000 ? 15 : 41;
        bench("bf16", wide_head(n, n, 24, 1, 1), run_shape<shape<2, 176, 2, true, true>>, times);
        for (const eight_variant &v : eights) {
            bench(v.name, eight_head(v, n, n, 24, 1), v.run, times);
            bench(v.values8 ? "packing k and v" : "packing k", eight_head(v, n, n, 24, 1), v.pack,
                  41);
        }
        bench("bf16", wide_head(n, n, 24, 1, 1), run_shape<shape<2, 176, 2, true, true>>, times);
    }
}

#endif
