/* SPDX-License-Identifier: Apache-2.0 */
/* kernels.h - the inner loops of the CPU backend, one table for the machine at hand.
 * Scalar versions are the specification; each instruction set overrides what it improves.  Threading, tiling and tails
 * live in the ops above.  No pointer needs alignment unless its line says so. */
#ifndef WAN_BACKEND_CPU_KERNELS_H
#define WAN_BACKEND_CPU_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Instruction sets, as bits. */
enum { CPU_SCALAR = 0, CPU_AVX2 = 1 /* with FMA and F16C */, CPU_AVX512 = 2 /* F, BW, DQ, VL */ };

#define CPU_MR_MAX 16 /* rows of a tile, at most */
#define CPU_NR_MAX 64 /* columns of a tile, at most */

typedef struct cpu_kernels {
    int mr, nr; /* tile of gemm_tile: rows and columns */

    /* dst[r * ld + j] (+)= sum over i of a[r][i] * panel[i * nr + j], r < rows <= mr, j < cols <= nr, i < k.
     * Serves matrix products and convolutions alike: a[r] is any row of k floats (a token, a pixel's channels, or a
     * row of zeros for padding).  `add` keeps what dst holds.  panel has k * nr floats, 64-byte aligned; columns past
     * `cols` hold anything finite. */
    void (*gemm_tile)(float *dst, int64_t ld, int rows, int cols, const float *const *a, int64_t k,
                      const float *panel, bool add);

    /* n elements of a stored type to f32; n is a multiple of the type's block, src may be unaligned. */
    void (*unpack_f16)(float *dst, const void *src, int64_t n);
    void (*unpack_bf16)(float *dst, const void *src, int64_t n);
    void (*unpack_q8_0)(float *dst, const void *src, int64_t n);
} cpu_kernels;

/* The sets this machine has. */
unsigned wan_cpu_detect(void);
/* Fills the table: scalar first, then each set in `have` overrides. */
void wan_cpu_kernels_init(cpu_kernels *k, unsigned have);

#endif
