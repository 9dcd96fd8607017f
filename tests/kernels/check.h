/* SPDX-License-Identifier: Apache-2.0 */
/* check.h - wan-check: every op and kernel against plain references, for each backend and
 * instruction set. A check is a function CHECK(name), listed in checks.h and called once for each
 * device under test.  It goes through the calls of src/tensor, so the same check serves every
 * backend; checks of single CPU kernels use t->k and skip devices that have none.  References are
 * double precision, written in the check from the spec. With --bench a check also times:
 * bench_begin / bench_end around its op.  All of this runs on one thread.
 * Where activations are bf16 or f16, inputs are rounded first and references get the rounded
 * numbers. */
#ifndef WAN_TESTS_KERNELS_CHECK_H
#define WAN_TESTS_KERNELS_CHECK_H

#include "backend/backend.h"
#include "backend/cpu/kernels.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

typedef struct check {
    const char *device; /* "cpu scalar", "cpu avx2", "cuda:0 bf16", ... */
    const char *name;   /* of the check that runs */
    compute *c;
    dtype rows;   /* of what new_rows makes: c->act, or f32 as a residual stream is */
    double loose; /* times the tolerances of f32 arithmetic: 1 for a CPU's order of sums and exp */
    int threads;
    unsigned have;           /* of a CPU: the sets it may use */
    const cpu_kernels *k;    /* of a CPU, else NULL */
    const cpu_kernels *twin; /* the scalar ones */
    bool bench;
    double peak;  /* FLOP/s of the precision's multiply-adds in registers, best set, all threads */
    int failures; /* of this check */
    uint64_t seed;
    struct arena_block *blocks;  /* host memory until the check ends */
    struct placed_block *placed; /* weights on the device until then */
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

/* A device tensor of the shape, filled; *host receives its values, as the type holds them: f16
 * has smaller huge numbers. */
tensor new_f32(check *t, int rank, const int64_t *dim, fill how, float **host);
tensor new_rows(check *t, int rank, const int64_t *dim, fill how, float **host);
tensor new_act(check *t, int rank, const int64_t *dim, fill how, float **host); /* of c->act */
tensor new_i32(check *t, int64_t n, const int32_t *values);
/* Rounds `from` to what the type (f32, bf16 or f16) holds, then uploads it. */
tensor new_from(check *t, dtype type, int rank, const int64_t *dim, float *from);
void round_floats(dtype type, float *x, int64_t n);
/* Weights of any type that ops accept, at an odd address where host memory is used as it is; *host
 * their exact values, decoded here and not by the kernels. */
tensor new_weight(check *t, dtype type, int rank, const int64_t *dim, fill how, float **host);
/* The same of a table that rows are read from. */
tensor new_table(check *t, dtype type, int64_t rows, int64_t dim, fill how, float **host);
/* Host memory as ops want it; what the device copies lives until the check ends. */
tensor place_weight(check *t, tensor host, weight_use use);
/* Of a convolution: [out, in, kernel...], stored with the channels last if asked; *host in the
 * order of dim, and rounded where the device keeps another type. */
tensor new_kernel(check *t, dtype type, int rank, const int64_t *dim, bool channels_last,
                  float **host);
/* Back on the host; half floats widened. */
float *values(check *t, tensor x);

/* The arena behind the next tensor taken from it, at most `bytes` long, is filled with a pattern,
 * and guard_end sees that only the tensor's bytes were written.  Behind a result whose op took work
 * space there is nothing to see. */
void guard_begin(check *t, size_t bytes);
void guard_end(check *t, tensor result);

/* |got - want| <= tol for each; NaN and infinity must be equal in kind.  tol may be one number
 * (stride 0) or n. */
void expect_close(check *t, const char *what, const float *got, const double *want, int64_t n,
                  const double *tol, int tol_stride);
void expect_equal(check *t, const char *what, const float *got, const float *want, int64_t n);
/* The same of a result of the device: tolerances grow by t->loose, and for a bf16 or f16 result by
 * its rounding; 0 stays 0. */
void expect_near(check *t, const char *what, tensor got, const double *want, const double *tol);
/* Of some elements of such a result. */
void expect_some(check *t, const char *what, tensor got, const int64_t *at, int64_t n,
                 const double *want, const double *tol);
/* A row of decoded numbers: equal on a CPU; elsewhere code * scale + offset may round once less. */
void expect_decoded(check *t, const char *what, const float *got, const float *want, int64_t n);
/* Output of a kernel: n floats, 64-byte aligned, with others around them that must stay as they
 * are. */
float *ringed(check *t, int64_t n);
void expect_ring(check *t, const float *x, int64_t n);
void expect(check *t, bool ok, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Error of a dot product of n terms in f32 whose absolute values sum to `magnitude`: n roundings
 * that add up like a random walk, and a few more. */
double tol_dot(int64_t n, double magnitude);

/* How far a device rounds the operands of matrix products: by `part` of the number and by `step`
 * (that of an 8-bit float near 0, scaled by the largest number).  0: not at all. */
typedef struct rounding {
    double part, step;
} rounding;
/* The largest relative error when that type holds a number; 0 for f32. */
double unit_of(dtype type);
/* Of operands that are the n numbers x. */
rounding rounding_of(const check *t, const float *x, int64_t n);
/* Rows as a CPU's precision keeps them for a product, and how exactly: x itself in f32.  `stored`:
 * the type of a weight, of which some are used as they are; WAN_F32 for x. */
const float *kept_operand(check *t, const float *x, int64_t rows, int64_t k, dtype stored,
                          rounding *r);
/* act(x . w + bias) over k numbers and how far off it may be. */
double reference_dot(const float *x, rounding rx, const float *w, rounding rw, double bias,
                     int64_t k, activation act, double *tol);

typedef struct attention_shape {
    int64_t queries, keys, heads, size, last_count;
    bool bias;
    double spread; /* of q */
} attention_shape;
/* What the largest relative error of a rounded operand of its products is: 0 in f32. */
double attention_unit(const check *t);
/* One query of one head; `bias` is at key 0's. weight has room for all keys. */
void reference_attention(const check *t, const attention_shape *s, const float *q, const float *k,
                         const float *v, const float *bias, float scale, double *weight,
                         double *want, double *tol);

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

double seconds(void);
/* From now on seconds() counts the calling thread's own time only. */
void wan_bench_one_thread(void);
/* Gives back what host_alloc and the weights took. */
void wan_check_free(check *t);

#endif
