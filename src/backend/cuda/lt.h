/* SPDX-License-Identifier: Apache-2.0 */
/* lt.h - matrix products by cuBLASLt, which is looked for at run time.
 * Which of its algorithms is best for a shape is found by timing them the first time that a large
 * product of that shape comes by, and remembered in the user's cache folder.  A cuda_lt belongs to
 * one device and is called by one thread at a time. */
#ifndef WAN_BACKEND_CUDA_LT_H
#define WAN_BACKEND_CUDA_LT_H

#include "backend/cuda/product.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { LT_WORKSPACE = 32 << 20 };

/* NULL and the reason when there is no such library, or it does not run on the device.  d stays the
 * caller's and must outlive the result. */
cuda_lt *wan_cuda_lt_open(const cuda_device *d, error *err);
void wan_cuda_lt_close(cuda_lt *lt);
/* Version and path, or what was looked for. */
void wan_cuda_lt_describe(char *text, size_t size);
const char *wan_cuda_lt_path(const cuda_lt *lt);
size_t wan_cuda_lt_version(const cuda_lt *lt);

/* Whether the product's bias is wanted as bf16, too. */
bool wan_cuda_lt_bias(dtype operand, dtype result);

/* False and nothing done if no algorithm is for it or, with an error, if the library failed.  x, w,
 * dst and the workspace of LT_WORKSPACE bytes are 16-byte aligned. */
bool wan_cuda_lt_product(cuda_lt *lt, const product *p, void *workspace, unfinished *left,
                         error *err);

/* For tests and benches: how algorithms are chosen from now on; forgets what was chosen before, in
 * memory. */
typedef enum lt_choice { LT_LARGE_TIMED, LT_ALL_TIMED, LT_FIRST } lt_choice;
void wan_cuda_lt_choose(cuda_lt *lt, lt_choice how, bool vector_scales, bool exact_sums);
/* Of the choices in memory: how many were timed, and how many came from the file. */
void wan_cuda_lt_count(const cuda_lt *lt, int *timed, int *remembered);

#ifdef __cplusplus
}
#endif
#endif
