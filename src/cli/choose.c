/* SPDX-License-Identifier: Apache-2.0 */
/* Which model a command works with. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/commands.h"

static bool is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* A folder next to the program, wherever that was moved: build/wan, or bin/wan of an installation.
 */
static bool beside_program(const char *relative, char path[4096]) {
    char exe[PATH_MAX], joined[PATH_MAX + 64], real[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n <= 0)
        return false;
    exe[n] = '\0';
    char *slash = strrchr(exe, '/');
    if (!slash)
        return false;
    *slash = '\0';
    snprintf(joined, sizeof joined, "%s/%s", exe, relative);
    return realpath(joined, real) && is_folder(real) &&
           (size_t)snprintf(path, 4096, "%s", real) < 4096;
}

static bool find_demo(char path[4096]) {
    static const char *const beside[] = {"../models/demo", "../share/wan/models/demo"};
    static const char *const fixed[] = {WAN_DEMO_SOURCE, WAN_DEMO_INSTALLED};
    for (size_t i = 0; i < sizeof beside / sizeof beside[0]; i++)
        if (beside_program(beside[i], path))
            return true;
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
        if (is_folder(fixed[i]) && (size_t)snprintf(path, 4096, "%s", fixed[i]) < 4096)
            return true;
    return false;
}

wan_status wan_model_choose(const invocation *v, char demo[4096], wan_model_options *options,
                            error *err) {
    *options = v->r.model;
    options->log = wan_report_log;
    options->log_user = v->report;
    bool complete = options->dit && options->text_encoder && options->vae && options->tokenizer;
    if (options->model || complete)
        return WAN_OK;
    if (!find_demo(demo))
        return wan_fail(err, WAN_E_IO,
                        "the demo model is not beside the program nor at %s; -m names a model",
                        WAN_DEMO_INSTALLED);
    options->model = demo;
    wan_report_note(v->report, "using the demo model (%s); -m chooses another", demo);
    return WAN_OK;
}
