/* SPDX-License-Identifier: Apache-2.0 */
/* Which algorithm: the library's first guess for small products; for large ones the fastest of its
 * guesses on the real operands, checked against plain sums before it is believed. */
#include <string.h>

#include "backend/cuda/lt_inside.h"

enum { WARM_RUNS = 2, TIMED_RUNS = 5 };

static const double large = 1e10;   /* operations: below, all of it takes microseconds */
static const float hopeless = 1.4f; /* times the best so far: not timed further */
static const float better = 0.98f;  /* or the library's order stands */

/* Distances that rounding of sums and results explains. */
static double tolerance(const lt_key *k) {
    if (k->result == WAN_BF16 || k->operand == WAN_F8_E4M3)
        return 1e-2;
    return k->operand == WAN_BF16 ? 1e-3 : 1e-4;
}

typedef struct stopwatch {
    cudaEvent_t from, to;
} stopwatch;

/* Milliseconds for one of `runs`, or a negative number. */
static float measure(cuda_lt *lt, const lt_entry *e, const product *p, void *workspace,
                     const cublasLtMatmulAlgo_t *algo, const stopwatch *w, int runs) {
    float ms = -1;
    if (cudaEventRecord(w->from, lt->d->stream))
        return -1;
    for (int i = 0; i < runs; i++)
        if (wan_cuda_lt_run(lt, e, p, algo, workspace))
            return -1;
    if (cudaEventRecord(w->to, lt->d->stream) || cudaEventSynchronize(w->to) ||
        cudaEventElapsedTime(&ms, w->from, w->to))
        return -1;
    return ms / (float)runs;
}

static void time_all(cuda_lt *lt, const lt_entry *e, const product *p, void *workspace,
                     const cublasLtMatmulHeuristicResult_t *found, int count, const stopwatch *w,
                     float *ms) {
    float best = 0;
    measure(lt, e, p, workspace, &found[0].algo, w, TIMED_RUNS); /* brings the clocks up */
    for (int i = 0; i < count; i++) {
        const cublasLtMatmulAlgo_t *algo = &found[i].algo;
        ms[i] = measure(lt, e, p, workspace, algo, w, 1);
        if (ms[i] < 0)
            continue;
        ms[i] = measure(lt, e, p, workspace, algo, w, WARM_RUNS);
        if (ms[i] < 0 || (best > 0 && ms[i] > hopeless * best))
            continue;
        ms[i] = measure(lt, e, p, workspace, algo, w, TIMED_RUNS);
        if (ms[i] > 0 && (best <= 0 || ms[i] < best))
            best = ms[i];
    }
}

/* The fastest of those not refused (negative). */
static int fastest(const float *ms, int count) {
    int best = -1;
    for (int i = 0; i < count; i++)
        if (ms[i] >= 0 && (best < 0 || ms[i] < better * ms[best]))
            best = i;
    return best;
}

static bool is_right(cuda_lt *lt, const lt_entry *e, const product *p, void *workspace,
                     const cublasLtMatmulAlgo_t *algo) {
    double distance = 0;
    if (wan_cuda_lt_run(lt, e, p, algo, workspace) ||
        wan_cuda_product_check(p, e->left, workspace, lt->d->stream, &distance))
        return false;
    return distance <= tolerance(&e->key);
}

static bool pick_by_time(cuda_lt *lt, lt_entry *e, const product *p, void *workspace,
                         const cublasLtMatmulHeuristicResult_t *found, int count) {
    float ms[LT_CANDIDATES];
    stopwatch w = {NULL, NULL};
    if (!cudaEventCreate(&w.from) && !cudaEventCreate(&w.to))
        time_all(lt, e, p, workspace, found, count, &w, ms);
    else
        count = 0;
    int best;
    while ((best = fastest(ms, count)) >= 0 && !is_right(lt, e, p, workspace, &found[best].algo))
        ms[best] = -1;
    if (best >= 0) {
        lt_saved s = {e->key, found[best].algo, ms[best]};
        e->algo = found[best].algo;
        wan_cuda_lt_table_add(lt, &s);
    }
    if (w.from)
        cudaEventDestroy(w.from);
    if (w.to)
        cudaEventDestroy(w.to);
    return best >= 0;
}

/* What the file names, if the library offers the same: its bytes are never used themselves. */
static const cublasLtMatmulAlgo_t *remembered(const cuda_lt *lt, const lt_entry *e,
                                              const cublasLtMatmulHeuristicResult_t *found,
                                              int count) {
    const lt_saved *s = wan_cuda_lt_table_find(lt, &e->key);
    for (int i = 0; s && i < count; i++)
        if (!memcmp(&found[i].algo, &s->algo, sizeof s->algo))
            return &found[i].algo;
    return NULL;
}

void wan_cuda_lt_pick(cuda_lt *lt, lt_entry *e, const product *p, void *workspace,
                      const cublasLtMatmulHeuristicResult_t *found, int count) {
    enum cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    bool capturing =
        cudaStreamIsCapturing(lt->d->stream, &capture) || capture != cudaStreamCaptureStatusNone;
    bool is_large = 2.0 * (double)p->rows * (double)p->out * (double)p->in >= large;
    e->algo = found[0].algo;
    e->usable = true;
    if (lt->choice == LT_FIRST || (lt->choice == LT_LARGE_TIMED && !is_large))
        return;
    const cublasLtMatmulAlgo_t *known = remembered(lt, e, found, count);
    if (known) {
        e->algo = *known;
        e->remembered = true;
    } else if (!capturing) {
        e->usable = e->timed = pick_by_time(lt, e, p, workspace, found, count);
    }
}
