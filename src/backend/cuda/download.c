/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/cuda/device.h"

#include <stdlib.h>

#define SLOTS 2
/* What is larger is not kept. */
#define MOST_KEPT ((size_t)128 << 20)

typedef struct block {
    void *p;
    size_t bytes;
    bool taken;
} block;

struct cuda_download {
    cudaEvent_t sent[SLOTS];
    block kept[SLOTS];
};

cuda_download *wan_cuda_download_open(error *err) {
    cuda_download *d = calloc(1, sizeof *d);
    if (!d) {
        wan_fail(err, WAN_E_MEMORY, "cuda: no memory for the download");
        return NULL;
    }
    for (int i = 0; i < SLOTS; i++)
        if (wan_cuda_status(cudaEventCreateWithFlags(&d->sent[i], cudaEventDisableTiming),
                            "an event", err)) {
            wan_cuda_download_close(d);
            return NULL;
        }
    return d;
}

void wan_cuda_download_close(cuda_download *d) {
    if (!d)
        return;
    for (int i = 0; i < SLOTS; i++) {
        if (d->sent[i])
            cudaEventDestroy(d->sent[i]);
        if (d->kept[i].p)
            cudaFreeHost(d->kept[i].p);
    }
    free(d);
}

void wan_cuda_download_begin(cuda_download *d, cudaStream_t stream, int slot, void *dst,
                             const void *src, size_t bytes, error *err) {
    cudaError_t e = cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, stream);
    if (!e)
        e = cudaEventRecord(d->sent[slot], stream);
    wan_cuda_status(e, "copy from the device", err);
}

void wan_cuda_download_end(cuda_download *d, int slot, error *err) {
    wan_cuda_status(cudaEventSynchronize(d->sent[slot]), "copy from the device", err);
}

static void *pin(size_t bytes, error *err) {
    void *p = NULL;
    return wan_cuda_status(cudaHostAlloc(&p, bytes, cudaHostAllocDefault), "pinned memory", err)
               ? NULL
               : p;
}

void *wan_cuda_host_alloc(cuda_download *d, size_t bytes, error *err) {
    block *idle = NULL;
    for (int i = 0; i < SLOTS; i++) {
        block *b = &d->kept[i];
        if (b->taken)
            continue;
        if (b->p && b->bytes >= bytes) {
            b->taken = true;
            return b->p;
        }
        idle = b;
    }
    if (!idle || bytes > MOST_KEPT)
        return pin(bytes, err);
    if (idle->p)
        cudaFreeHost(idle->p);
    *idle = (block){.p = pin(bytes, err), .bytes = bytes};
    idle->taken = idle->p != NULL;
    return idle->p;
}

void wan_cuda_host_free(cuda_download *d, void *p) {
    for (int i = 0; i < SLOTS; i++)
        if (p && d->kept[i].p == p) {
            d->kept[i].taken = false;
            return;
        }
    if (p)
        cudaFreeHost(p);
}
