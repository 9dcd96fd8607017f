/* SPDX-License-Identifier: Apache-2.0 */
#include "base/memory.h"

#include <stdio.h>
#include <string.h>

/* A line "KEY:   123 kB" of /proc/self/status. */
static uint64_t status_kib(const char *key) {
    FILE *f = fopen("/proc/self/status", "re");
    if (!f)
        return 0;
    char line[256];
    unsigned long long kib = 0;
    size_t n = strlen(key);
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, key, n) && line[n] == ':' && sscanf(line + n + 1, "%llu", &kib) == 1)
            break;
    fclose(f);
    return kib;
}

uint64_t wan_memory_resident(void) {
    return 1024 * status_kib("VmRSS");
}

uint64_t wan_memory_peak(void) {
    return 1024 * status_kib("VmHWM");
}

void wan_memory_peak_restart(void) {
    FILE *f = fopen("/proc/self/clear_refs", "we");
    if (!f)
        return;
    fputs("5", f);
    fclose(f);
}
