/* SPDX-License-Identifier: Apache-2.0 */
/* stream.h - weights that come from host memory each time they are used.
 * One thread adds and gets; the object has another that copies. */
#ifndef WAN_BACKEND_CUDA_STREAM_H
#define WAN_BACKEND_CUDA_STREAM_H

#include "backend/cuda/device.h"

/* One in use, one that waits, two under way. */
#define CUDA_STREAM_SLOTS 4

typedef struct cuda_stream cuda_stream;

cuda_stream *wan_cuda_stream_open(int ordinal, int threads, error *err);
void wan_cuda_stream_close(cuda_stream *s);

/* `host` must stay readable until close.  Device memory is CUDA_STREAM_SLOTS times the largest. */
wan_status wan_cuda_stream_add(cuda_stream *s, const void *host, size_t bytes, error *err);

/* Device memory it has taken so far. */
size_t wan_cuda_stream_bytes(const cuda_stream *s);

/* The weight's device address, good for kernels enqueued on `stream` before the next get of
 * another. */
void *wan_cuda_stream_get(cuda_stream *s, cudaStream_t stream, const void *host, error *err);

#endif
