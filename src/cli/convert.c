/* SPDX-License-Identifier: Apache-2.0 */
/* wan convert: any readable model into one file, or a folder. */
#include "pipeline/convert.h"

#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "cli/commands.h"
#include "cli/interrupt.h"

static void show(void *user, const char *name, uint64_t done, uint64_t total) {
    report *r = user;
    (void)name;
    wan_progress p = {"convert", (int)(done >> 20), (int)(total >> 20), -1};
    if (!r->quiet)
        wan_report_progress(r, &p);
}

/* Safetensors has nothing like Q8_0: unless asked, it gets what there is. */
static const char *recipe_of(const request *r, const char *out) {
    size_t n = strlen(out);
    bool gguf = n >= 5 && !strcasecmp(out + n - 5, ".gguf");
    return r->weight_type ? r->weight_type : gguf ? "q8_0" : "keep";
}

wan_status wan_command_convert(invocation *v, error *err) {
    const request *r = &v->r;
    const char *out = v->operand[1];
    struct stat st;
    wan_model_options options = r->model;
    options.model = v->operand[0];
    options.log = wan_report_log;
    options.log_user = v->report;
    if (!r->overwrite && lstat(out, &st) == 0 && !S_ISDIR(st.st_mode))
        return wan_fail(err, WAN_E_OUTPUT, "%s exists; -y replaces it", out);
    wan_model *m = wan_model_begin(&options, err);
    if (!m)
        return err->code;
    convert_options o = {.recipe = recipe_of(r, out),
                         .rules = r->recipe,
                         .licence = r->licence,
                         .base_model = r->base_model,
                         .cancelled = wan_interrupted,
                         .progress = show,
                         .progress_user = v->report};
    wan_convert(m, out, &o, err);
    wan_model_close(m);
    wan_report_clear(v->report);
    if (!err->code && !v->report->quiet && !v->report->json)
        printf("%s: written, %s\n", out, o.recipe);
    if (!err->code)
        wan_report_event(v->report, json_pack("{s:s, s:o, s:s}", "event", "done", "output",
                                              wan_report_text(out), "type", o.recipe));
    return err->code;
}
