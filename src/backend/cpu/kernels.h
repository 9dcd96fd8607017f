/* SPDX-License-Identifier: Apache-2.0 */
/* kernels.h - the inner loops of the CPU backend, one table for the machine at hand.
 * Scalar versions are the specification; each instruction set overrides what it improves.
 * Threading, tiling and tails live in the ops above.  No pointer needs alignment unless its line
 * says so. */
#ifndef WAN_BACKEND_CPU_KERNELS_H
#define WAN_BACKEND_CPU_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/tensor.h"

/* Instruction sets, as bits. */
enum {
    CPU_SCALAR = 0,
    CPU_AVX2 = 1,   /* with FMA and F16C */
    CPU_AVX512 = 2, /* F, BW, DQ, VL */
    CPU_BF16 = 4,   /* AVX512-BF16 */
    CPU_VNNI = 8,   /* AVX512-VNNI */
    CPU_AVXVNNI = 16,
    CPU_AMX = 32,            /* TILE and BF16 */
    CPU_AMX_INT8 = 64,       /* with CPU_AMX */
    CPU_SLOW_BF16 = 1 << 15, /* not a set: CPU_BF16 is here and slower than f32 */
    CPU_NEON = 1 << 16,
    CPU_NEON_DOT = 1 << 17,  /* SDOT */
    CPU_NEON_I8MM = 1 << 18, /* SMMLA */
    CPU_NEON_BF16 = 1 << 19, /* BFMMLA */
};

#define CPU_MR_MAX 32 /* rows of a tile, at most */
#define CPU_NR_MAX 64 /* columns of a tile, at most */
/* A block of bf16 for sets that know no better: half of a 512 KB L2. */
#define CPU_BF16_DEPTH 1024
#define CPU_BF16_OUTPUTS 128

typedef struct cpu_kernels {
    int mr, nr; /* tile of gemm_tile: rows and columns */

    /* dst[r * ld + j] (+)= sum over i of a[r][i] * panel[i * nr + j], r < rows <= mr, j < cols <=
     * nr, i < k. Serves matrix products and convolutions alike: a[r] is any row of k floats (a
     * token, a pixel's channels, or a row of zeros for padding).  `add` keeps what dst holds. panel
     * has k * nr floats, 64-byte aligned; columns past `cols` hold anything finite. */
    void (*gemm_tile)(float *dst, int64_t ld, int rows, int cols, const float *const *a, int64_t k,
                      const float *panel, bool add);
    /* The same with a by columns: dst[r * ld + j] += sum over i of a[i * lda + r] * panel[i * nr +
     * j]; all nr columns, dst 64-byte aligned and ld a multiple of nr. */
    void (*gemm_columns)(float *dst, int64_t ld, int rows, const float *a, int64_t lda, int64_t k,
                         const float *panel);
    /* dst[c * dst_ld + r] = src[r * src_ld + c]. */
    void (*transpose)(float *dst, int64_t dst_ld, const float *src, int64_t src_ld, int64_t rows,
                      int64_t cols);

    /* Products of bf16 numbers (uint16_t). Panels hold pairs: element (i, j) of [k, nr] is at
     * panel[(i / 2 * nr + j) * 2 + i % 2]; k is even, an odd depth ends with a zero. */
    bool fast_bf16; /* there are instructions for it */
    int bf16_mr;    /* rows of a tile; it has nr columns */
    /* The block of a matrix that suits the tile and the caches: columns of k, and outputs. */
    int bf16_depth, bf16_outputs;
    /* As gemm_tile, rows <= bf16_mr. Sums in f32, in an order that shapes alone decide; subnormal
     * operands and results may count as zero. */
    void (*bf16_tile)(float *dst, int64_t ld, int rows, int cols, const uint16_t *const *a,
                      int64_t k, const uint16_t *panel, bool add);
    /* Adds to dst the sum of `parts` such products of depth k: rows of part p are a[p * step + r],
     * their panels lie one after the other. What lies `ahead` bytes past the first part's rows,
     * which need not exist, is fetched meanwhile; 0: nothing.  NULL: as fast by bf16_tile, part by
     * part. */
    void (*bf16_parts)(float *dst, int64_t ld, int rows, int cols, const uint16_t *const *a,
                       int64_t step, int parts, int64_t k, const uint16_t *panel, int64_t ahead);
    /* Nearest, ties to even; NaN stays NaN, a subnormal number may become zero. */
    void (*to_bf16)(uint16_t *dst, const float *src, int64_t n);
    /* Rows [rows <= nr][cols] of f32 become columns of a 64-byte aligned panel of depth cols, made
     * even; columns past rows are zero. */
    void (*pack_bf16)(uint16_t *panel, const float *src, int64_t src_ld, int64_t rows,
                      int64_t cols);
    /* The same from rows of bf16; cols is even. */
    void (*pack_pairs)(uint16_t *panel, const uint16_t *src, int64_t src_ld, int64_t rows,
                       int64_t cols);

    /* Gives back what tiles keep on a thread between calls; a piece of work that calls tiles ends
     * with it.  NULL: nothing is kept. */
    void (*rest)(void);

    /* Products of 8-bit codes in groups of 32 along k, each with a scale. How a set keeps them
     * is its own business: a row is made by one of the three calls below, a panel from rows. */
    bool fast_int8;
    int int8_mr;
    size_t int8_row, int8_panel; /* bytes of a group of a row; of the nr columns of a panel */
    /* n numbers to ceil(n / 32) groups, the last filled up with zeros: scale = max |x| / 127, code
     * = x / scale to nearest.  A group below 2^-100 counts as zero; one that holds an infinity or a
     * NaN gets the scale NaN, and so do the sums that it is part of. */
    void (*to_int8)(void *row, const float *src, int64_t n);
    /* Blocks as they are: their codes and scales. */
    void (*int8_from_q8_0)(void *row, const void *src, int64_t groups);
    /* n codes of one scale. */
    void (*int8_from_codes)(void *row, const int8_t *src, float scale, int64_t n);
    /* Rows [rows <= nr] of groups, `stride` bytes apart, become columns; those past rows are zero.
     * panel is 64-byte aligned. */
    void (*pack_int8)(void *panel, const void *src, size_t stride, int64_t rows, int64_t groups);
    /* As gemm_tile, rows <= int8_mr.  Sums are exact within a group; those of the groups, times
     * both scales, are f32. */
    void (*int8_tile)(float *dst, int64_t ld, int rows, int cols, const void *const *a,
                      int64_t groups, const void *panel, bool add);

    /* One more tile of keys of a running softmax over nr queries side by side: s [keys, nr] are
     * logits and become exp(s - max); max and sum [nr] are carried on, and factor [nr] is what
     * earlier results must be multiplied by. All 64-byte aligned.  max starts at -INFINITY, sum at
     * 0. */
    void (*softmax_tile)(float *s, int64_t keys, float *max, float *sum, float *factor);
    /* The same for logits in units of ln 2 and weights 2^(s - max) in bf16, written to a panel of
     * pairs [keys, made even, nr]. sum is that of the rounded weights: what rounding adds to them
     * all then cancels, and a mean of equal values is that value. */
    void (*softmax_bf16)(uint16_t *panel, const float *s, int64_t keys, float *max, float *sum,
                         float *factor);
    /* x[r * nr + j] *= factor[j]; 64-byte aligned. */
    void (*scale_columns)(float *x, int64_t rows, const float *factor);

    /* n elements of a stored type to f32; n is a multiple of the type's block, src may be
     * unaligned.  NULL: wan_dequantise, the scalar twin of all. */
    void (*unpack[WAN_DTYPES])(float *dst, const void *src, int64_t n);

    /* In place. */
    void (*gelu_tanh)(float *x, int64_t n);
    void (*silu)(float *x, int64_t n);

    /* Sum of x, and of (x - mean)^2. */
    double (*sum)(const float *x, int64_t n);
    double (*sum_squares)(const float *x, float mean, int64_t n);
    /* dst = (x - mean) * scale * (plus + gain) + shift; gain and shift may be NULL (0).  dst may be
     * x. */
    void (*normalise)(float *dst, const float *x, float mean, float scale, float plus,
                      const float *gain, const float *shift, int64_t n);
    /* Rotates the pairs (x[2i], x[2i + 1]) by turn[2i] = cos, turn[2i + 1] = sin; n is even. */
    void (*rotate)(float *x, const float *turn, int64_t n);
} cpu_kernels;

/* The sets this machine has. */
unsigned wan_cpu_detect(void);
/* `have` and CPU_SLOW_BF16 where that holds. */
unsigned wan_cpu_weigh_bf16(unsigned have, bool intel);
/* Fills the table: scalar first, then each set in `have` overrides. */
void wan_cpu_kernels_init(cpu_kernels *k, unsigned have);

/* The part of each instruction set's file; called by wan_cpu_kernels_init. */
void wan_cpu_kernels_avx2(cpu_kernels *k);
void wan_cpu_kernels_avx512(cpu_kernels *k);
void wan_cpu_kernels_avx512bf16(cpu_kernels *k);
void wan_cpu_kernels_amx(cpu_kernels *k);
void wan_cpu_kernels_amx_int8(cpu_kernels *k);
void wan_cpu_kernels_avx512vnni(cpu_kernels *k);
void wan_cpu_kernels_avxvnni(cpu_kernels *k);
void wan_cpu_kernels_scalar_int8(cpu_kernels *k);
void wan_cpu_kernels_neon(cpu_kernels *k);
void wan_cpu_kernels_neon_dot(cpu_kernels *k);
void wan_cpu_kernels_neon_i8mm(cpu_kernels *k);
void wan_cpu_kernels_neon_bf16(cpu_kernels *k);

#endif
