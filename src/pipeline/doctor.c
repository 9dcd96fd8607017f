/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/doctor.h"

#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "backend/backend.h"
#include "pipeline/precision.h"

typedef struct finder {
    finding line;
    void *user;
} finder;

static void say(const finder *f, const char *group, const char *what, const char *is) {
    f->line(f->user, group, what, is);
}

/* The value of a line "KEY : VALUE" of a file of the kernel's. */
static bool kernel_line(const char *path, const char *key, char *value, size_t size) {
    char line[4096];
    FILE *file = fopen(path, "r");
    bool found = false;
    while (file && !found && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (!colon || strncmp(line, key, strlen(key)))
            continue;
        colon += 1 + strspn(colon + 1, " \t");
        colon[strcspn(colon, "\n")] = '\0';
        found = true;
        snprintf(value, size, "%s", colon);
    }
    if (file)
        fclose(file);
    return found;
}

static void examine_cpu(const finder *f) {
    char text[256], value[200];
    cpu_set_t set;
    struct utsname system;
    if (kernel_line("/proc/cpuinfo", "model name", value, sizeof value))
        say(f, "cpu", "processor", value);
    int usable = sched_getaffinity(0, sizeof set, &set) ? 0 : CPU_COUNT(&set);
    snprintf(text, sizeof text, "%d of %ld usable", usable, sysconf(_SC_NPROCESSORS_ONLN));
    say(f, "cpu", "cores", text);
    wan_backend_cpu_describe(text, sizeof text);
    say(f, "cpu", "kernels", text);
    if (kernel_line("/proc/meminfo", "MemTotal", value, sizeof value)) {
        double total = strtod(value, NULL) / 1048576;
        if (kernel_line("/proc/meminfo", "MemAvailable", value, sizeof value)) {
            snprintf(text, sizeof text, "%.1f of %.1f GiB available", strtod(value, NULL) / 1048576,
                     total);
            say(f, "cpu", "memory", text);
        }
    }
    if (!uname(&system)) {
        snprintf(text, sizeof text, "%s %s, %s", system.sysname, system.release, system.machine);
        say(f, "cpu", "system", text);
    }
}

static void cuda_line(void *user, const char *what, const char *is) {
    const finder *f = user;
    say(f, "cuda", what, is);
}

static void examine_cuda(const finder *f) {
    error why = {0};
    const backend_plugin *p = wan_backend_cuda(&why);
    if (!p)
        say(f, "cuda", "plug-in", why.message);
    else
        p->describe(cuda_line, (void *)(uintptr_t)f);
}

/* What --precision auto would look at on this CPU. */
static void say_by_speed(const finder *f) {
    precision list[4];
    int n = wan_backend_cpu.by_speed(list);
    char text[160] = "f32; nothing is faster here";
    if (n > 1)
        snprintf(text, sizeof text, "f32; --precision auto looks at");
    for (int i = 0; n > 1 && i < n - 1; i++) {
        size_t at = strlen(text);
        snprintf(text + at, sizeof text - at, "%s %s", i ? "," : "", wan_precision_name(list[i]));
    }
    say(f, "use", "precision", text);
}

/* The same choice that every command makes. */
static void conclude(const finder *f, const char *device) {
    error why = {0}, none = {0};
    int ordinal = 0;
    char text[1200];
    const backend *be = wan_backend_find(device, &ordinal, &why);
    if (!be) {
        say(f, "use", "device", why.message);
        return;
    }
    if (be == &wan_backend_cpu) {
        bool asked = device && strcmp(device, "auto");
        const backend_plugin *p = asked ? NULL : wan_backend_cuda(&none);
        if (p)
            p->count(&none);
        snprintf(text, sizeof text, "cpu%s%s", asked ? " as asked" : ", because ",
                 asked ? "" : none.message);
        say(f, "use", "device", text);
        say_by_speed(f);
        return;
    } else {
        snprintf(text, sizeof text, "%s:%d, %s unless --precision says otherwise", be->name,
                 ordinal, wan_precision_name(be->best));
    }
    say(f, "use", "device", text);
}

void wan_examine(const char *device, finding line, void *user) {
    const finder f = {line, user};
    say(&f, "wan", "version", wan_version());
    examine_cpu(&f);
    examine_cuda(&f);
    conclude(&f, device);
}
