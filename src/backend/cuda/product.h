/* SPDX-License-Identifier: Apache-2.0 */
/* product.h - one matrix product and those who can do it: dst = act(x w^T + bias).
 * linear.cu makes operands of one type from what is stored and picks who runs.  All addresses are
 * of the device; everything is put on the stream given.  x, w and dst are rows without gaps. */
#ifndef WAN_BACKEND_CUDA_PRODUCT_H
#define WAN_BACKEND_CUDA_PRODUCT_H

#include "backend/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct product {
    int64_t rows, out, in; /* x [rows, in], w [out, in], dst [rows, out] */
    dtype operand;         /* of x and w: WAN_F32, WAN_BF16 or WAN_F8_E4M3 */
    dtype result;          /* of dst: WAN_F32 or WAN_BF16 */
    const void *x, *w;
    void *dst;
    const float *x_scale, *w_scale; /* of WAN_F8_E4M3: [rows], [out]; else NULL */
    const float *bias;              /* [out], or NULL */
    const void *bias_bf16;          /* the same rounded, where wan_cuda_lt_bias says so */
    activation act;
} product;

/* What a library did not do of a product and wan_cuda_finish has to. */
typedef struct unfinished {
    bool scales, bias, act;
} unfinished;

/* linear.cu: dst = act(dst * x_scale * w_scale + bias), in place, as far as `what` says. */
cudaError_t wan_cuda_finish(const product *p, unfinished what, cudaStream_t stream);
/* linear.cu: n numbers to bf16. */
cudaError_t wan_cuda_round(void *dst, const float *src, int64_t n, cudaStream_t stream);

/* gemm.cu: without a library.  bf16 or f32 operands of any size; x and w are aligned to their
 * elements, dst too. */
typedef enum gemm_tile { GEMM_AUTO, GEMM_64, GEMM_128, GEMM_256, GEMM_TILES } gemm_tile;
cudaError_t wan_cuda_gemm(const product *p, gemm_tile tile, int multiprocessors,
                          cudaStream_t stream);

/* gemv.cu: few rows of x, the weight read once and as stored.  `scale` is of `linear`. */
enum { FEW_ROWS = 16 };
typedef struct few_rows {
    int64_t rows, out, in;
    dtype x_type, w_type, result;
    const void *x, *w;
    void *dst;
    const float *scale; /* [1] or [out], or NULL */
    bool scale_each;    /* [out] */
    const float *bias;
    activation act;
} few_rows;
/* The types and sizes that it is for. */
bool wan_cuda_few_rows_fits(int64_t rows, tensor weight, bool groups);
/* x and w as aligned as their wide loads: 16 bytes, w of Q8_0 2. */
cudaError_t wan_cuda_few_rows(const few_rows *f, cudaStream_t stream);
/* gemv.cu: how far three rows of a product that is done (but for `left`) are from a plain sum:
 * |dst - sum| / |sum| over what is finite.  Waits.  `scratch`: 8 bytes. */
cudaError_t wan_cuda_product_check(const product *p, unfinished left, void *scratch,
                                   cudaStream_t stream, double *distance);

/* fp8.cu: rows to E4M3 codes and a scale for each, its largest magnitude over 448.  src: WAN_F32,
 * WAN_BF16 (16-byte aligned) or WAN_Q8_0; times row_scale if not NULL ([1], or [rows] if each).
 * cols is a multiple of 16. */
bool wan_cuda_quantises(dtype src);
cudaError_t wan_cuda_quantise_rows(void *codes, float *scale, const void *src, dtype type,
                                   int64_t rows, int64_t cols, const float *row_scale, bool each,
                                   cudaStream_t stream);
/* n times src[0], or 1 if src is NULL. */
cudaError_t wan_cuda_fill(float *dst, const float *src, int64_t n, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
