/* SPDX-License-Identifier: Apache-2.0 */
/* device.h - memory of the CUDA backend: a pool, weights that stay, weights that stream.
 * One thread at a time calls; the stream orders the rest. */
#ifndef WAN_BACKEND_CUDA_DEVICE_H
#define WAN_BACKEND_CUDA_DEVICE_H

#include "backend/cuda/cuda.h"

/* "cuda: <what>: <reason>" into err unless e is cudaSuccess. */
wan_status wan_cuda_status(cudaError_t e, const char *what, error *err);

/* choices.c */
dtype wan_cuda_placed_type(precision p, tensor host, weight_use use);
bool wan_cuda_conv_norms(const compute *c, const conv *w);

/* upload.c: from memory of any kind (a mapped file) through pinned buffers, as fast as several
 * threads can copy.  Returns when src has been read; the stream sees dst filled. */
typedef struct cuda_upload cuda_upload;
cuda_upload *wan_cuda_upload_open(int threads, error *err);
void wan_cuda_upload_close(cuda_upload *u);
wan_status wan_cuda_upload(cuda_upload *u, cudaStream_t stream, void *dst, const void *src,
                           size_t bytes, error *err);

/* download.c: two copies to the host that the device works beside, and pinned memory for them.  What
 * is given back is kept for the next clip: to pin memory takes milliseconds. */
typedef struct cuda_download cuda_download;
cuda_download *wan_cuda_download_open(error *err);
void wan_cuda_download_close(cuda_download *d);
void wan_cuda_download_begin(cuda_download *d, cudaStream_t stream, int slot, void *dst,
                             const void *src, size_t bytes, error *err);
void wan_cuda_download_end(cuda_download *d, int slot, error *err);
void *wan_cuda_host_alloc(cuda_download *d, size_t bytes, error *err);
void wan_cuda_host_free(cuda_download *d, void *p);

#endif
