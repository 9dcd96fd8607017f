/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/cuda/device.h"

#include <stdlib.h>
#include <string.h>

#include "base/team.h"

/* Two buffers take turns: one is filled while the other travels. */
#define BUFFER ((size_t)32 << 20)
/* Below this the driver's own staging is as good. */
#define SMALL ((size_t)1 << 20)
/* One thread copies about 10 GB/s, the bus takes five times that. */
#define MOST_THREADS 8

struct cuda_upload {
    team *team;
    char *buffer[2];
    cudaEvent_t sent[2];
    int turn;
};

typedef struct copy_job {
    char *dst;
    const char *src;
    size_t bytes;
} copy_job;

#define PIECE ((int64_t)1 << 20)

static void copy_piece(void *arg, int64_t first, int64_t end, int worker) {
    const copy_job *j = arg;
    size_t from = (size_t)(first * PIECE), to = (size_t)(end * PIECE);
    (void)worker;
    if (to > j->bytes)
        to = j->bytes;
    memcpy(j->dst + from, j->src + from, to - from);
}

cuda_upload *wan_cuda_upload_open(int threads, error *err) {
    cuda_upload *u = calloc(1, sizeof *u);
    if (!u) {
        wan_fail(err, WAN_E_MEMORY, "cuda: no memory for the upload");
        return NULL;
    }
    u->team = wan_team_open(threads < MOST_THREADS ? threads : MOST_THREADS, err);
    cudaError_t e = cudaSuccess;
    for (int i = 0; i < 2 && u->team && e == cudaSuccess; i++) {
        e = cudaHostAlloc((void **)&u->buffer[i], BUFFER, cudaHostAllocDefault);
        if (e == cudaSuccess)
            e = cudaEventCreateWithFlags(&u->sent[i], cudaEventDisableTiming);
    }
    if (!u->team || wan_cuda_status(e, "pinned buffers", err)) {
        wan_cuda_upload_close(u);
        return NULL;
    }
    return u;
}

void wan_cuda_upload_close(cuda_upload *u) {
    if (!u)
        return;
    for (int i = 0; i < 2; i++) {
        if (u->sent[i])
            cudaEventDestroy(u->sent[i]);
        cudaFreeHost(u->buffer[i]);
    }
    wan_team_close(u->team);
    free(u);
}

wan_status wan_cuda_upload(cuda_upload *u, cudaStream_t stream, void *dst, const void *src,
                           size_t bytes, error *err) {
    cudaError_t e = cudaSuccess;
    if (bytes < SMALL)
        return wan_cuda_status(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, stream),
                               "copy to the device", err);
    for (size_t at = 0; at < bytes && e == cudaSuccess;) {
        size_t n = bytes - at < BUFFER ? bytes - at : BUFFER;
        int i = u->turn;
        u->turn = 1 - i;
        e = cudaEventSynchronize(u->sent[i]);
        if (e != cudaSuccess)
            break;
        copy_job j = {u->buffer[i], (const char *)src + at, n};
        wan_team_run(u->team, ((int64_t)n + PIECE - 1) / PIECE, 1, copy_piece, &j);
        e = cudaMemcpyAsync((char *)dst + at, u->buffer[i], n, cudaMemcpyHostToDevice, stream);
        if (e == cudaSuccess)
            e = cudaEventRecord(u->sent[i], stream);
        at += n;
    }
    return wan_cuda_status(e, "copy to the device", err);
}
