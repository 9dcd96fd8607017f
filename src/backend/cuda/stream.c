/* SPDX-License-Identifier: Apache-2.0 */
/* Weights that do not stay on the device: they pass through a few slots of one size.
 * A thread of its own brings them; which one comes next it learns from the order in which they were
 * asked for the last time, so that from the second block on the copy of one runs beside the
 * products of another. */
#include "backend/cuda/stream.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct entry {
    const void *host;
    size_t bytes;
    int next; /* asked for after this one, the last time; -1: not known */
    int slot; /* where it is or will be; -1: nowhere */
} entry;

typedef struct slot {
    char *p;
    int entry;      /* -1: empty */
    bool ready;     /* its copy has been enqueued, `arrived` is recorded */
    bool used_once; /* `used` is recorded */
    uint64_t asked; /* when, for the least recently used */
    cudaEvent_t arrived, used;
} slot;

struct cuda_stream {
    cuda_upload *upload;
    cudaStream_t copies;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    bool running, stop;
    int queue[CUDA_STREAM_SLOTS], queued; /* slots to fill, first come first served */
    slot slot[CUDA_STREAM_SLOTS];
    size_t slot_bytes;
    entry *entries;
    int count, room;
    int current; /* entry asked for last; -1: none */
    uint64_t clock;
    int ordinal;
    error err;
};

/* ------------------------------------------------------------------------------ the other thread
 */

static void fill(cuda_stream *s, int at) {
    slot *to = &s->slot[at];
    const entry e = s->entries[to->entry];
    bool used = to->used_once;
    error err = {0};
    pthread_mutex_unlock(&s->lock);
    cudaError_t code = used ? cudaStreamWaitEvent(s->copies, to->used, 0) : cudaSuccess;
    if (!wan_cuda_status(code, "wait for a weight's last use", &err) &&
        !wan_cuda_upload(s->upload, s->copies, to->p, e.host, e.bytes, &err))
        wan_cuda_status(cudaEventRecord(to->arrived, s->copies), "copy of a weight", &err);
    pthread_mutex_lock(&s->lock);
    to->ready = true;
    if (err.code && !s->err.code)
        s->err = err;
    pthread_cond_broadcast(&s->done);
}

static void *bring(void *arg) {
    cuda_stream *s = arg;
    cudaSetDevice(s->ordinal);
    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        if (!s->queued) {
            pthread_cond_wait(&s->work, &s->lock);
            continue;
        }
        int at = s->queue[0];
        memmove(s->queue, s->queue + 1, (size_t)--s->queued * sizeof s->queue[0]);
        fill(s, at);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ------------------------------------------------------------------------------- open and close */

cuda_stream *wan_cuda_stream_open(int ordinal, int threads, error *err) {
    cuda_stream *s = calloc(1, sizeof *s);
    if (!s) {
        wan_fail(err, WAN_E_MEMORY, "cuda: no memory to stream weights");
        return NULL;
    }
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, NULL);
    pthread_cond_init(&s->done, NULL);
    s->ordinal = ordinal;
    s->current = -1;
    cudaError_t e = cudaStreamCreateWithFlags(&s->copies, cudaStreamNonBlocking);
    for (int i = 0; i < CUDA_STREAM_SLOTS; i++) {
        s->slot[i].entry = -1;
        if (!e)
            e = cudaEventCreateWithFlags(&s->slot[i].arrived, cudaEventDisableTiming);
        if (!e)
            e = cudaEventCreateWithFlags(&s->slot[i].used, cudaEventDisableTiming);
    }
    if (!wan_cuda_status(e, "a stream for weights", err))
        s->upload = wan_cuda_upload_open(threads, err);
    if (s->upload && pthread_create(&s->thread, NULL, bring, s) == 0)
        s->running = true;
    if (!s->running) {
        wan_fail(err, WAN_E_MEMORY, "cuda: no thread to stream weights");
        wan_cuda_stream_close(s);
        return NULL;
    }
    return s;
}

void wan_cuda_stream_close(cuda_stream *s) {
    if (!s)
        return;
    if (s->running) {
        pthread_mutex_lock(&s->lock);
        s->stop = true;
        pthread_cond_signal(&s->work);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
    }
    if (s->copies)
        cudaStreamSynchronize(s->copies);
    for (int i = 0; i < CUDA_STREAM_SLOTS; i++) {
        cudaFree(s->slot[i].p);
        if (s->slot[i].arrived)
            cudaEventDestroy(s->slot[i].arrived);
        if (s->slot[i].used)
            cudaEventDestroy(s->slot[i].used);
    }
    wan_cuda_upload_close(s->upload);
    if (s->copies)
        cudaStreamDestroy(s->copies);
    pthread_cond_destroy(&s->done);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->lock);
    free(s->entries);
    free(s);
}

static int find(const cuda_stream *s, const void *host) {
    for (int i = 0; i < s->count; i++)
        if (s->entries[i].host == host)
            return i;
    return -1;
}

wan_status wan_cuda_stream_add(cuda_stream *s, const void *host, size_t bytes, error *err) {
    wan_status status = WAN_OK;
    pthread_mutex_lock(&s->lock);
    if (find(s, host) >= 0) {
        pthread_mutex_unlock(&s->lock);
        return WAN_OK;
    }
    if (s->count == s->room) {
        int room = s->room ? 2 * s->room : 256;
        entry *e = realloc(s->entries, (size_t)room * sizeof *e);
        if (e) {
            s->entries = e;
            s->room = room;
        } else {
            status = wan_fail(err, WAN_E_MEMORY, "cuda: no memory to stream weights");
        }
    }
    if (!status)
        s->entries[s->count++] = (entry){host, bytes, -1, -1};
    pthread_mutex_unlock(&s->lock);
    return status;
}

size_t wan_cuda_stream_bytes(const cuda_stream *s) {
    return CUDA_STREAM_SLOTS * s->slot_bytes;
}

/* ------------------------------------------------------------------------------------------ use */

/* All slots of the size that the largest weight needs; once, before the first use. */
static wan_status make_slots(cuda_stream *s, error *err) {
    size_t most = 0;
    for (int i = 0; i < s->count; i++)
        most = s->entries[i].bytes > most ? s->entries[i].bytes : most;
    if (most <= s->slot_bytes)
        return WAN_OK;
    for (int i = 0; i < CUDA_STREAM_SLOTS; i++) {
        slot *t = &s->slot[i];
        while (t->entry >= 0 && !t->ready)
            pthread_cond_wait(&s->done, &s->lock);
        cudaDeviceSynchronize();
        if (t->entry >= 0)
            s->entries[t->entry].slot = -1;
        cudaFree(t->p);
        *t = (slot){.entry = -1, .arrived = t->arrived, .used = t->used};
        if (wan_cuda_status(cudaMalloc((void **)&t->p, most), "a slot for weights", err))
            return err->code;
    }
    s->slot_bytes = most;
    return WAN_OK;
}

/* The slot that was asked for longest ago and holds nothing that is wanted soon. */
static int victim(const cuda_stream *s, const int *keep, int keeps) {
    int best = -1;
    for (int i = 0; i < CUDA_STREAM_SLOTS; i++) {
        const slot *t = &s->slot[i];
        bool wanted = t->entry >= 0 && !t->ready;
        for (int k = 0; k < keeps; k++)
            wanted |= t->entry == keep[k];
        if (!wanted && (best < 0 || t->asked < s->slot[best].asked))
            best = i;
    }
    return best;
}

static void send_for(cuda_stream *s, int e, int at) {
    slot *t = &s->slot[at];
    if (t->entry >= 0)
        s->entries[t->entry].slot = -1;
    t->entry = e;
    t->ready = false;
    t->asked = s->clock;
    s->entries[e].slot = at;
    s->queue[s->queued++] = at;
    pthread_cond_signal(&s->work);
}

/* Sends for what came after e the last time, as far as slots reach. */
static void prefetch(cuda_stream *s, int e) {
    int keep[CUDA_STREAM_SLOTS], n = 0;
    keep[n++] = e;
    for (int next = s->entries[e].next; next >= 0 && next != e && n < CUDA_STREAM_SLOTS;
         next = s->entries[next].next) {
        keep[n++] = next;
        int at = s->entries[next].slot < 0 ? victim(s, keep, n) : -1;
        if (s->entries[next].slot < 0 && at < 0)
            return;
        if (at >= 0)
            send_for(s, next, at);
    }
}

void *wan_cuda_stream_get(cuda_stream *s, cudaStream_t stream, const void *host, error *err) {
    void *p = NULL;
    pthread_mutex_lock(&s->lock);
    int e = find(s, host);
    if (e < 0) {
        wan_fail(err, WAN_E_INTERNAL, "cuda: a weight that is neither here nor streamed");
        goto done;
    }
    if (make_slots(s, err))
        goto done;
    s->clock++;
    if (s->current >= 0 && s->current != e) {
        /* Everything that reads the one before has been enqueued by now. */
        int at = s->entries[s->current].slot;
        s->entries[s->current].next = e;
        if (at >= 0) {
            if (wan_cuda_status(cudaEventRecord(s->slot[at].used, stream), "a weight's use", err))
                goto done;
            s->slot[at].used_once = true;
        }
    }
    s->current = e;
    if (s->entries[e].slot < 0) {
        int at;
        while ((at = victim(s, NULL, 0)) < 0)
            pthread_cond_wait(&s->done, &s->lock);
        send_for(s, e, at);
    }
    slot *t = &s->slot[s->entries[e].slot];
    t->asked = s->clock;
    prefetch(s, e);
    while (!t->ready)
        pthread_cond_wait(&s->done, &s->lock);
    if (s->err.code)
        wan_fail(err, s->err.code, "%s", s->err.message);
    else if (!wan_cuda_status(cudaStreamWaitEvent(stream, t->arrived, 0), "a weight", err))
        p = t->p;
done:
    pthread_mutex_unlock(&s->lock);
    return p;
}
