/* SPDX-License-Identifier: Apache-2.0 */
/* wan doctor: what this machine has, what will be used, and why. */
#include "pipeline/doctor.h"

#include "cli/commands.h"

typedef struct findings {
    const report *report;
    json_t *all; /* {"cpu": {...}, "cuda": {...}, ...} */
} findings;

static void show(void *user, const char *group, const char *what, const char *is) {
    findings *f = user;
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

wan_status wan_command_doctor(invocation *v, error *err) {
    findings f = {v->report, json_object()};
    if (!f.all)
        return wan_fail(err, WAN_E_MEMORY, "out of memory");
    wan_examine(v->r.model.device, show, &f);
    json_object_set_new(f.all, "event", json_string("doctor"));
    wan_report_event(v->report, f.all);
    return WAN_OK;
}
