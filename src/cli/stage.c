/* SPDX-License-Identifier: Apache-2.0 */
/* wan stage: spec/stages.md. */
#include "pipeline/stage.h"

#include <string.h>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "pipeline/model.h"

static wan_status check_name(const char *name, error *err) {
    char names[200] = "";
    size_t at = 0;
    for (size_t i = 0; wan_stage_names[i]; i++) {
        if (strcmp(wan_stage_names[i], name) == 0)
            return WAN_OK;
        at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", i ? ", " : "",
                               wan_stage_names[i]);
    }
    return wan_fail(err, WAN_E_USAGE, "there is no stage \"%.60s\"; there are %s", name, names);
}

static wan_status check_asked(const request *r, const char *name, error *err) {
    bool makes = strcmp(name, "tokens") == 0 || strcmp(name, "noise") == 0;
    if (!r->output)
        return wan_fail(err, WAN_E_USAGE, "stage %s needs --out FILE", name);
    if (!makes && !r->input)
        return wan_fail(err, WAN_E_USAGE, "stage %s needs --in FILE", name);
    if (strcmp(name, "tokens") == 0 && !r->clip.prompt)
        return wan_fail(err, WAN_E_USAGE, "stage tokens needs -p PROMPT");
    if (strcmp(name, "noise") == 0 && !r->shape[0])
        return wan_fail(err, WAN_E_USAGE, "stage noise needs --shape C,F,h,w");
    return r->overwrite ? WAN_OK : wan_output_fresh(r->output, 1, err);
}

static stage_options options_of(const request *r) {
    stage_options o = {.prompt = r->clip.prompt,
                       .seed = r->clip.seed,
                       .has_shape = r->shape[0] > 0,
                       .sampler = r->clip.sampler,
                       .steps = r->clip.steps,
                       .shift = r->clip.shift,
                       .guidance = r->clip.guidance,
                       .trace = r->trace,
                       .cancelled = wan_interrupted};
    memcpy(o.shape, r->shape, sizeof o.shape);
    return o;
}

wan_status wan_command_stage(invocation *v, error *err) {
    const char *name = v->operand[0];
    const request *r = &v->r;
    char demo[4096];
    wan_model_options options;
    if (check_name(name, err) != WAN_OK || check_asked(r, name, err) != WAN_OK)
        return err->code;
    bool needs_model = strcmp(name, "noise") != 0;
    if (needs_model && wan_model_choose(v, demo, &options, err) != WAN_OK)
        return err->code;
    wan_model *m = needs_model ? wan_model_begin(&options, err) : NULL;
    safetensors *in = r->input && !err->code ? wan_safetensors_open(r->input, err) : NULL;
    stage_options o = options_of(r);
    if (!err->code)
        wan_stage_run(m, name, &o, in, r->output, err);
    if (!err->code)
        wan_report_event(v->report, json_pack("{s:s, s:s, s:o}", "event", "done", "stage", name,
                                              "output", wan_report_text(r->output)));
    wan_safetensors_close(in);
    wan_model_close(m);
    return err->code;
}
