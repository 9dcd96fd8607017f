/* SPDX-License-Identifier: Apache-2.0 */
/* check.h - wan-check: every op and kernel against plain references, for each backend and
 * instruction set. A check is a function CHECK(name), listed in checks.h and called once for each
 * device under test.  It goes through the calls of src/tensor, so the same check serves every
 * backend; checks of single CPU kernels use t->k and skip devices that have none.  References are
 * double precision, written in the check from the spec. With --bench a check also times:
 * bench_begin / bench_end around its op.  All of this runs on one thread. */
#ifndef WAN_TESTS_KERNELS_CHECK_H
#define WAN_TESTS_KERNELS_CHECK_H

#include "backend/backend.h"
#include "backend/cpu/kernels.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

typedef struct check {
    const char *device; /* "cpu scalar", "cpu avx2", ... */
    const char *name;   /* of the check that runs */
    compute *c;
    int threads;
    unsigned have;           /* of a CPU: the sets it may use */
    const cpu_kernels *k;    /* of a CPU, else NULL */
    const cpu_kernels *twin; /* the scalar ones */
    bool bench;
    double peak;  /* FLOP/s of multiply-adds in registers with the best set, all threads */
    int failures; /* of this check */
    uint64_t seed;
    struct arena_block *blocks; /* host memory until the check ends */
} check;

#define CHECK(name)                                                                                \
    void wan_check_##name(check *t);                                                               \
    void wan_check_##name(check *t)

/* What fills an input: normal numbers; zeros; huge; subnormal; all of them mixed. */
typedef enum fill { NORMAL, ZERO, HUGE_NUMBERS, SUBNORMAL, MIXED, FILLS } fill;

/* Host memory that lives until the check ends, 64-byte aligned. */
void *host_alloc(check *t, size_t bytes);
double random_normal(check *t);
/* In [0, below). */
int64_t random_int(check *t, int64_t below);
void fill_floats(check *t, float *x, int64_t n, fill how);

/* A device tensor of the shape, filled; *host receives its values. */
tensor new_f32(check *t, int rank, const int64_t *dim, fill how, float **host);
tensor new_i32(check *t, int64_t n, const int32_t *values);
/* Weights of any type that ops accept, at an odd address where host memory is used as it is; *host
 * their exact values, decoded here and not by the kernels. */
tensor new_weight(check *t, dtype type, int rank, const int64_t *dim, fill how, float **host);
/* Back on the host. */
float *values(check *t, tensor x);

/* The arena behind the next tensor taken from it, `bytes` long, is filled with a pattern, and
 * guard_end sees that only those bytes were written. */
void guard_begin(check *t, size_t bytes);
void guard_end(check *t, tensor result);

/* |got - want| <= tol for each; NaN and infinity must be equal in kind.  tol may be one number
 * (stride 0) or n. */
void expect_close(check *t, const char *what, const float *got, const double *want, int64_t n,
                  const double *tol, int tol_stride);
void expect_equal(check *t, const char *what, const float *got, const float *want, int64_t n);
void expect(check *t, bool ok, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Error of a dot product of n terms in f32 whose absolute values sum to `magnitude`: n roundings
 * that add up like a random walk, and a few more. */
double tol_dot(int64_t n, double magnitude);

typedef struct bench {
    check *t;
    const char *label;
    double flops, bytes;
    double best[7];
    int runs;
    double started;
} bench;

/* for (bench b = bench_begin(...); bench_next(&b);) op();  prints the median.  Nothing runs without
 * --bench. */
bench bench_begin(check *t, const char *label, double flops, double bytes);
bool bench_next(bench *b);

/* Registers only: FLOP/s of all threads.  One function for each set that needs its own flags. */
double wan_peak_avx2(void);
double wan_peak_avx512(void);
double seconds(void);
/* From now on seconds() counts the calling thread's own time only. */
void wan_bench_one_thread(void);
/* Gives back what host_alloc took. */
void wan_check_free(check *t);

#endif
