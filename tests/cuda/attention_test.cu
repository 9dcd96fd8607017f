/* SPDX-License-Identifier: Apache-2.0 */
/* attention_test.cu - checks and times the attention kernels of the CUDA backend, by itself.
 *   attention_test [--small] [--bench] [--seed N] [--8bit: only those]
 * Every case against a plain kernel in f64 on the same inputs.  What is around inputs is NaN, what
 * is around outputs and work space must stay as it was, every output must be written. */
#include "../../src/backend/cuda/attention_8bit.cu"
#include "../../src/backend/cuda/attention_sm90.cu"

#include "attention_8bit_cases.cuh"

#define VARIANT(c, k, s, t, l, x)                                                                  \
    {                                                                                              \
#c "x64_k" #k "_s" #s "_turns" #t "_lazy" #l "_cluster" #x, run_shape < shape < c, k, s,   \
            t, l, x>>                                                                              \
    }
static const variant variants[] = {
    VARIANT(2, 176, 2, 1, 1, 1), VARIANT(2, 176, 2, 1, 0, 1), VARIANT(2, 176, 2, 0, 1, 1),
    VARIANT(2, 176, 2, 1, 1, 2), VARIANT(2, 160, 2, 1, 1, 1), VARIANT(2, 144, 2, 1, 1, 1),
    VARIANT(2, 128, 3, 1, 1, 1), VARIANT(2, 128, 3, 0, 1, 1), VARIANT(2, 128, 3, 1, 1, 2),
    VARIANT(2, 112, 3, 1, 1, 1), VARIANT(3, 80, 3, 1, 1, 1),  VARIANT(3, 80, 3, 0, 1, 1),
    VARIANT(3, 80, 3, 1, 1, 2),
};

/* ------------------------------------------------------------------------- checks */

static void check_sm90(bool small) {
    static const int64_t length[] = {1, 63, 64, 65, 127, 129, 191, 193, 300};
    for (int64_t n : length)
        for (int64_t m : length)
            if (!small || (n + m) % 7 == 0)
                check("sm90", wide_head(n, m, 2, n % 2 ? 1 : 100, 1), run_op);
    for (const variant &v : variants) {
        check(v.name, wide_head(193, 1, 1, 512, 1), v.run);
        check(v.name, wide_head(65, 129, 3, 1, 1), v.run);
        check(v.name, wide_head(300, 500, 2, 100, 18), v.run);
        if (!small)
            check(v.name, wide_head(1000, 2001, 24, 1, 1), v.run);
    }
    for (int64_t last : {1, 100, 512})
        for (int64_t m : {1, 15, 176, 177, 352, 512})
            check("cross", wide_head(small ? 130 : 4725, m, small ? 2 : 24, last, 1), run_op);
    check("large", wide_head(257, 700, 3, 1, 18), run_op);
    if (small)
        return;
    check("large", wide_head(4725, 4725, 4, 512, 18), run_op);
    check("self", wide_head(4725, 4725, 24, 1, 1), run_op);
    check("self", wide_head(27280, 27280, 24, 1, 1), run_op);
}

static void check_any(bool small) {
    static const int size[] = {8,  10, 12, 16,  20,  24,  32,  36,  40,
                               44, 64, 96, 101, 128, 129, 160, 256, 1024};
    static const int64_t length[][2] = {{1, 1},     {63, 65},  {64, 64},  {65, 127},
                                        {129, 191}, {193, 63}, {300, 300}};
    for (int d : size)
        for (auto &l : length)
            for (dtype t : {WAN_BF16, WAN_F16, WAN_F32}) {
                if (small && (l[0] + d) % 3)
                    continue;
                problem p = {l[0], l[1], 3, d, l[0] % 3 ? 1 : 100, 1, false, t};
                check("any", p, run_any);
            }
    for (dtype t : {WAN_BF16, WAN_F16, WAN_F32}) {
        check("any", {300, 257, 2, 64, 512, 18, false, t}, run_any);
        check("any", {300, 257, 2, 136, 512, 18, false, t}, run_any);
        for (int d : {8, 12, 20, 64, 136})
            check("bias", {37, 37, 5, d, 1, 0.125f, true, t}, run_op);
        check("bias", {65, 190, 5, 64, 3, 0.125f, true, t}, run_op);
        check("bias", {190, 65, 5, 128, 1, 0.125f, true, t}, run_op);
        if (small)
            continue;
        check("umt5", {512, 512, 64, 64, 1, 0.125f, true, t}, run_op);
        check("vae", {900, 900, 1, 1024, 1, 1, false, t}, run_op);
        check("vae", {3520, 3520, 1, 1024, 1, 1, false, t}, run_op);
        check("any", {4725, 4725, 3, 128, 1, 1, false, t}, run_any); /* f32: in pieces */
        check("any", {5000, 9001, 2, 40, 1, 1, false, t}, run_any);
    }
}

static void bench_all(void) {
    for (const variant &v : variants)
        bench(v.name, wide_head(4725, 4725, 24, 1, 1), v.run, 41);
    for (const variant &v : variants)
        bench(v.name, wide_head(27280, 27280, 24, 1, 1), v.run, 21);
    for (int64_t n : {4725, 27280})
        for (int64_t m : {15, 512}) {
            bench("cross", wide_head(n, m, 24, 512, 1), run_op, 41);
            bench(variants[6].name, wide_head(n, m, 24, 512, 1), variants[6].run, 41);
        }
    bench("any", wide_head(4725, 4725, 24, 1, 1), run_any, 21);
    bench("any", {4725, 4725, 24, 64, 1, 1, false, WAN_BF16}, run_any, 21);
    bench("umt5", {512, 512, 64, 64, 1, 0.125f, true, WAN_BF16}, run_op, 41);
    for (int64_t n : {900, 2304, 3520})
        bench("vae", {n, n, 1, 1024, 1, 1, false, WAN_F16}, run_op, 41);
    bench("vae", {3520, 3520, 1, 1024, 1, 1, false, WAN_F32}, run_op, 21);
    bench("any", {4725, 4725, 24, 128, 1, 1, false, WAN_F32}, run_any, 21);
}

static void check_rest(bool small) {
    check_sm90(small);
    check_any(small);
    check_again("sm90", wide_head(small ? 300 : 4725, small ? 300 : 4725, small ? 2 : 24, 1, 1),
                run_op);
    check_again("vae", {small ? 300 : 900, small ? 300 : 900, 1, 1024, 1, 1, false, WAN_F16},
                run_op);
    check_again("umt5", {100, 100, 4, 64, 1, 0.125f, true, WAN_BF16}, run_op);
}

int main(int argc, char **argv) {
    bool small = false, timed = false, only = false;
    for (int i = 1; i < argc; i++) {
        small = small || !strcmp(argv[i], "--small");
        timed = timed || !strcmp(argv[i], "--bench");
        only = only || !strcmp(argv[i], "--8bit");
        if (!strcmp(argv[i], "--seed") && i + 1 < argc)
            seed = (unsigned)atoi(argv[++i]);
    }
    cudaDeviceProp prop;
    CHECK(cudaGetDeviceProperties(&prop, 0));
    device.sm = prop.major * 10 + prop.minor;
    device.multiprocessors = prop.multiProcessorCount;
    printf("%s, sm %d, %d multiprocessors\n", prop.name, device.sm, device.multiprocessors);
    check_eight(small);
    check_choice();
    for (const eight_variant &v : eights) {
        check_bad(v);
        check_again(v.name,
                    eight_head(v, small ? 300 : 4725, small ? 300 : 4725, small ? 2 : 24, 1),
                    v.run);
    }
    if (!only)
        check_rest(small);
    printf("%d of %d failed\n", failures, cases);
    if (timed && !failures)
        bench_eight();
    if (timed && !failures && !only)
        bench_all();
    return failures ? 1 : 0;
}
