/* SPDX-License-Identifier: Apache-2.0 */
/* device.h - memory of the CUDA backend: a pool, weights that stay, weights that stream.
 * One thread at a time calls; the stream orders the rest. */
#ifndef WAN_BACKEND_CUDA_DEVICE_H
#define WAN_BACKEND_CUDA_DEVICE_H

#include "backend/cuda/cuda.h"

/* "cuda: <what>: <reason>" into err unless e is cudaSuccess. */
wan_status wan_cuda_status(cudaError_t e, const char *what, error *err);

/* upload.c: from memory of any kind (a mapped file) through pinned buffers, as fast as several
 * threads can copy.  Returns when src has been read; the stream sees dst filled. */
typedef struct cuda_upload cuda_upload;
cuda_upload *wan_cuda_upload_open(int threads, error *err);
void wan_cuda_upload_close(cuda_upload *u);
wan_status wan_cuda_upload(cuda_upload *u, cudaStream_t stream, void *dst, const void *src,
                           size_t bytes, error *err);

#endif
