/* SPDX-License-Identifier: Apache-2.0 */
/* plan.h - what a clip will take, before it is made: the library's plan and the program's own
 * share. */
#ifndef WAN_CLI_PLAN_H
#define WAN_CLI_PLAN_H

#include "cli/report.h"

typedef struct memory_plan {
    wan_plan job;
    uint64_t output; /* encoder and muxer */
    uint64_t peak;   /* of the process, everything counted */
} memory_plan;

/* `output`: bytes writing the clip takes.  `early`: what was in memory at most before the job. */
wan_status wan_memory_plan(wan_model *m, const wan_params *p, uint64_t output, uint64_t early,
                           memory_plan *plan, error *err);
/* Settings and plan, as text or as an event. */
void wan_plan_print(report *r, const request *asked, const int64_t shape[4],
                    const memory_plan *plan);

#endif
