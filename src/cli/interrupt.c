/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/interrupt.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t stop;

static void on_signal(int number) {
    (void)number;
    stop = 1;
}

static const int ends[] = {SIGINT, SIGTERM, SIGHUP};

void wan_interrupt_install(void) {
    struct sigaction ignore = {.sa_handler = SIG_IGN}, act = {.sa_handler = on_signal}, old;
    /* SA_RESETHAND: the second one finds the default action. */
    act.sa_flags = SA_RESETHAND | SA_RESTART;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        /* What the parent chose to ignore (nohup, a background job) stays ignored. */
        if (sigaction(ends[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaction(ends[i], &act, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGXFSZ, &ignore, NULL);
}

void wan_interrupt_restore(void) {
    struct sigaction old;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        if (sigaction(ends[i], NULL, &old) == 0 && old.sa_handler == on_signal)
            signal(ends[i], SIG_DFL);
}

int wan_interrupted(void *unused) {
    (void)unused;
    return stop;
}
