/* SPDX-License-Identifier: Apache-2.0 */
/* wan doctor: what this machine has, what will be used, and why. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "backend/backend.h"
#include "cli/commands.h"

typedef struct findings {
    const report *report;
    json_t *all; /* {"cpu": ..., "cuda": {...}, ...} */
} findings;

static void say(findings *f, const char *group, const char *what, const char *is) {
    json_t *of = json_object_get(f->all, group);
    if (!of)
        json_object_set_new(f->all, group, of = json_object());
    json_object_set_new(of, what, wan_report_text(is));
    if (f->report->json)
        return;
    fprintf(f->report->result, "%-8s %-12s ", group, what);
    wan_report_plain(f->report->result, is);
    fputc('\n', f->report->result);
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

static void examine_cpu(findings *f) {
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
    say(user, "cuda", what, is);
}

static void examine_cuda(findings *f) {
    error why = {0};
    const backend_plugin *p = wan_backend_cuda(&why);
    if (!p)
        say(f, "cuda", "plug-in", why.message);
    else
        p->describe(cuda_line, f);
}

/* The same choice that every command makes. */
static void conclude(findings *f, const request *r) {
    error why = {0}, none = {0};
    int ordinal = 0;
    char text[1200];
    const backend *be = wan_backend_find(r->model.device, &ordinal, &why);
    if (!be) {
        say(f, "use", "device", why.message);
        return;
    }
    if (be == &wan_backend_cpu) {
        const backend_plugin *p = wan_backend_cuda(&none);
        if (p && !none.code)
            p->count(&none);
        snprintf(text, sizeof text, "cpu, f32%s%s", none.code ? ", because " : " as asked",
                 none.code ? none.message : "");
    } else {
        snprintf(text, sizeof text, "%s:%d, %s unless --precision says otherwise", be->name,
                 ordinal, be->best == WAN_PRECISION_BF16 ? "bf16" : "f32");
    }
    say(f, "use", "device", text);
}

wan_status wan_command_doctor(invocation *v, error *err) {
    findings f = {v->report, json_object()};
    if (!f.all)
        return wan_fail(err, WAN_E_MEMORY, "out of memory");
    say(&f, "wan", "version", wan_version());
    examine_cpu(&f);
    examine_cuda(&f);
    conclude(&f, &v->r);
    json_object_set_new(f.all, "event", json_string("doctor"));
    wan_report_event(v->report, f.all);
    return WAN_OK;
}
