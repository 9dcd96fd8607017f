/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the threads of a device can be had at all: libgomp ends the process when it cannot start one. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"

static void *wait_for_all(void *gate) {
    pthread_mutex_lock(gate);
    pthread_mutex_unlock(gate);
    return NULL;
}

wan_status wan_cpu_check_workers(int threads, error *err) {
    pthread_t *id = calloc((size_t)threads, sizeof *id);
    if (!id)
        return wan_fail(err, WAN_E_MEMORY, "cpu: no memory for %d threads", threads);
    /* All wait behind the gate, so that they exist at the same time, as the workers will. */
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    int started = 0, failed = 0;
    pthread_mutex_lock(&gate);
    while (started < threads - 1 && !(failed = pthread_create(&id[started], NULL, wait_for_all, &gate)))
        started++;
    pthread_mutex_unlock(&gate);
    for (int i = 0; i < started; i++)
        pthread_join(id[i], NULL);
    pthread_mutex_destroy(&gate);
    free(id);
    if (failed)
        return wan_fail(err, WAN_E_MEMORY, "cpu: only %d of %d threads can be started: %s", started + 1, threads,
                        strerror(failed));
    return WAN_OK;
}
