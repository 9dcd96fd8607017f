/* SPDX-License-Identifier: Apache-2.0 */
/* wan selftest: one line per compared tensor. */
#include "pipeline/selftest.h"

#include <string.h>

#include "cli/commands.h"
#include "cli/interrupt.h"

typedef struct tally {
    report *report;
    int passed, failed;
} tally;

static void show_line(void *user, const char *stage, const char *tensor, double off, double allowed,
                      bool ok) {
    tally *t = user;
    t->passed += ok;
    t->failed += !ok;
    if (t->report->json)
        wan_report_event(t->report, json_pack("{s:s, s:s, s:s, s:f, s:f, s:b}", "event", "compared",
                                              "stage", stage, "tensor", tensor, "error", off,
                                              "allowed", allowed, "ok", ok));
    else if (!t->report->quiet || !ok)
        printf("%s  %-8s %-12s error %9.3g  allowed %9.3g\n", ok ? "pass" : "FAIL", stage, tensor,
               off, allowed);
    fflush(stdout);
}

wan_status wan_command_selftest(invocation *v, error *err) {
    char demo[4096];
    wan_model_options options;
    tally t = {.report = v->report};
    wan_interrupt_restore();
    if (wan_model_choose(v, demo, &options, err) != WAN_OK)
        return err->code;
    wan_model *m = wan_model_open(&options, err);
    if (!m)
        return err->code;
    wan_selftest(m, v->r.references, show_line, &t, err);
    wan_model_close(m);
    if (!v->report->json && !v->report->quiet)
        printf("%d passed, %d failed\n", t.passed, t.failed);
    wan_report_event(v->report, json_pack("{s:s, s:i, s:i}", "event", "done", "passed", t.passed,
                                          "failed", t.failed));
    return err->code;
}
