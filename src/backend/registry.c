/* SPDX-License-Identifier: Apache-2.0 */
/* The one file that names a backend. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/backend.h"

#define PLUGIN "libwan-cuda.so"

/* A plug-in stays until the process ends: its library registers things that cannot be taken back.
 */
static struct {
    pthread_once_t once;
    const backend_plugin *plugin;
    error why;
} cuda = {.once = PTHREAD_ONCE_INIT};

/* The folder of the file that holds this code: the program, or libwan.so. */
static bool own_folder(char *folder, size_t size) {
    Dl_info info;
    ssize_t n = readlink("/proc/self/exe", folder, size - 1);
    if (dladdr(&cuda, &info) && info.dli_fname && strstr(info.dli_fname, ".so")) {
        char *real = realpath(info.dli_fname, NULL);
        n = real ? snprintf(folder, size, "%s", real) : -1;
        free(real);
    }
    if (n <= 0 || (size_t)n >= size)
        return false;
    folder[n] = '\0';
    char *slash = strrchr(folder, '/');
    if (!slash)
        return false;
    *slash = '\0';
    return true;
}

/* The first place that has the file wins, so that a damaged one is an error and not passed over. */
static void *open_plugin(error *why) {
    static const char *const places[] = {"", "/../lib/wan", "/../lib"};
    char folder[4096], path[4200];
    for (size_t i = 0; own_folder(folder, sizeof folder) && i < sizeof places / sizeof places[0];
         i++) {
        snprintf(path, sizeof path, "%s%s/" PLUGIN, folder, places[i]);
        if (access(path, F_OK) == 0) {
            void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
            if (!handle)
                wan_fail(why, WAN_E_DEVICE, "cuda: %s", dlerror());
            return handle;
        }
    }
    void *handle = dlopen(PLUGIN, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        wan_fail(why, WAN_E_DEVICE,
                 "cuda: this installation has no " PLUGIN
                 " (looked beside the program, in ../lib/wan and ../lib, and where the system "
                 "looks): it is built where nvcc is");
    return handle;
}

static void load_cuda(void) {
    void *handle = open_plugin(&cuda.why);
    if (!handle)
        return;
    const backend_plugin *(*entry)(void);
    *(void **)&entry = dlsym(handle, "wan_cuda_plugin");
    const backend_plugin *p = entry ? entry() : NULL;
    if (!p || p->abi != WAN_PLUGIN_ABI)
        wan_fail(&cuda.why, WAN_E_DEVICE, "cuda: " PLUGIN " is of another build of wan");
    else
        cuda.plugin = p;
}

const backend_plugin *wan_backend_cuda(error *err) {
    pthread_once(&cuda.once, load_cuda);
    if (!cuda.plugin)
        wan_fail(err, cuda.why.code, "%s", cuda.why.message);
    return cuda.plugin;
}

static const backend *find_cuda(int ordinal, error *err) {
    const backend_plugin *p = wan_backend_cuda(err);
    int n = p ? p->count(err) : 0;
    if (n <= 0)
        return NULL;
    if (ordinal < n)
        return p->be;
    wan_fail(err, WAN_E_DEVICE, "device cuda:%d: this machine has %d, numbered from 0", ordinal, n);
    return NULL;
}

const backend *wan_backend_find(const char *name, int *ordinal, error *err) {
    int n = 0;
    char end;
    if (ordinal)
        *ordinal = 0;
    if (!name || !strcmp(name, "auto")) {
        error none = {0};
        const backend *be = find_cuda(0, &none);
        return be ? be : &wan_backend_cpu;
    }
    if (!strcmp(name, wan_backend_cpu.name))
        return &wan_backend_cpu;
    if (!strcmp(name, "cuda") ||
        (!strncmp(name, "cuda:", 5) && sscanf(name + 5, "%d%c", &n, &end) == 1 && n >= 0)) {
        if (ordinal)
            *ordinal = n;
        return find_cuda(n, err);
    }
    wan_fail(err, WAN_E_DEVICE, "device %s: there are cpu, cuda, cuda:N and auto", name);
    return NULL;
}
