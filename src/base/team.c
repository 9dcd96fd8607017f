/* SPDX-License-Identifier: Apache-2.0 */
#include "base/team.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Polls before sleeping: a few tens of microseconds, longer than the gap between two ops, shorter
 * than a time slice. */
#define PATIENCE 2000

/* Set in `inside` while no work may be entered; the rest counts the workers that are inside. */
#define CLOSED (1u << 30)

typedef struct member {
    team *t;
    int number;
    pthread_t thread;
} member;

struct team {
    int threads;
    member *members; /* [threads - 1], the workers */
    int started;
    /* The work: written by the caller while `inside` is CLOSED with nobody in it. */
    team_piece f;
    void *arg;
    int64_t n, grain;
    atomic_llong next; /* first item that nobody took yet */
    atomic_uint inside;
    atomic_uint call; /* counts calls for workers */
    atomic_bool quit;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    int sleeping; /* workers, under lock */
};

static inline void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_pieces(team *t, int worker) {
    for (;;) {
        int64_t from = atomic_fetch_add_explicit(&t->next, t->grain, memory_order_relaxed);
        if (from >= t->n)
            return;
        t->f(t->arg, from, t->n - from < t->grain ? t->n : from + t->grain, worker);
    }
}

/* False when the work was over before this worker came. */
static bool enter(team *t) {
    unsigned now = atomic_load(&t->inside);
    do
        if (now & CLOSED)
            return false;
    while (!atomic_compare_exchange_weak(&t->inside, &now, now + 1));
    return true;
}

static void leave(team *t) {
    if (atomic_fetch_sub(&t->inside, 1) - 1 != CLOSED)
        return;
    pthread_mutex_lock(&t->lock);
    pthread_cond_signal(&t->done);
    pthread_mutex_unlock(&t->lock);
}

/* Waits for a call other than `seen`. */
static unsigned await_call(team *t, unsigned seen) {
    for (int i = 0; i < PATIENCE; i++) {
        unsigned call = atomic_load(&t->call);
        if (call != seen)
            return call;
        pause_briefly();
    }
    pthread_mutex_lock(&t->lock);
    t->sleeping++;
    while (atomic_load(&t->call) == seen)
        pthread_cond_wait(&t->wake, &t->lock);
    t->sleeping--;
    pthread_mutex_unlock(&t->lock);
    return atomic_load(&t->call);
}

static void *work(void *p) {
    member *m = p;
    team *t = m->t;
    unsigned seen = 0;
    for (;;) {
        seen = await_call(t, seen);
        if (atomic_load(&t->quit))
            return NULL;
        if (enter(t)) {
            take_pieces(t, m->number);
            leave(t);
        }
    }
}

static void call_workers(team *t) {
    pthread_mutex_lock(&t->lock);
    atomic_fetch_add(&t->call, 1);
    if (t->sleeping)
        pthread_cond_broadcast(&t->wake);
    pthread_mutex_unlock(&t->lock);
}

/* Nobody may enter any more; those inside are waited for. */
static void close_work(team *t) {
    atomic_fetch_or(&t->inside, CLOSED);
    for (int i = 0; i < PATIENCE; i++) {
        if (atomic_load(&t->inside) == CLOSED)
            return;
        pause_briefly();
    }
    pthread_mutex_lock(&t->lock);
    while (atomic_load(&t->inside) != CLOSED)
        pthread_cond_wait(&t->done, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

void wan_team_run(team *t, int64_t n, int64_t grain, team_piece f, void *arg) {
    assert(grain > 0);
    if (n <= 0)
        return;
    if (n <= grain || t->threads == 1) {
        for (int64_t from = 0; from < n; from += grain)
            f(arg, from, n - from < grain ? n : from + grain, 0);
        return;
    }
    t->f = f;
    t->arg = arg;
    t->n = n;
    t->grain = grain;
    atomic_store(&t->next, 0);
    atomic_store(&t->inside, 0);
    call_workers(t);
    take_pieces(t, 0);
    close_work(t);
}

team *wan_team_open(int threads, error *err) {
    assert(threads > 0);
    team *t = calloc(1, sizeof *t);
    if (t)
        t->members = calloc((size_t)threads, sizeof *t->members);
    if (!t || !t->members) {
        wan_fail(err, WAN_E_MEMORY, "out of memory for %d threads", threads);
        free(t);
        return NULL;
    }
    t->threads = threads;
    atomic_init(&t->inside, CLOSED);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->wake, NULL);
    pthread_cond_init(&t->done, NULL);
    for (int i = 0; i < threads - 1; i++) {
        member *m = &t->members[i];
        *m = (member){.t = t, .number = i + 1};
        int fault = pthread_create(&m->thread, NULL, work, m);
        if (fault) {
            wan_fail(err, WAN_E_MEMORY,
                     "only %d of %d threads could be started: %s; --threads asks for fewer", i + 1,
                     threads, strerror(fault));
            wan_team_close(t);
            return NULL;
        }
        t->started++;
    }
    return t;
}

void wan_team_close(team *t) {
    if (!t)
        return;
    atomic_store(&t->quit, true);
    call_workers(t);
    for (int i = 0; i < t->started; i++)
        pthread_join(t->members[i].thread, NULL);
    pthread_cond_destroy(&t->done);
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->lock);
    free(t->members);
    free(t);
}

int wan_team_threads(const team *t) {
    return t->threads;
}
