/* SPDX-License-Identifier: Apache-2.0 */
/* commands.h - the commands of the program: one row each, and what they are called with. */
#ifndef WAN_CLI_COMMANDS_H
#define WAN_CLI_COMMANDS_H

#include "cli/report.h"
#include "pipeline/params.h"

/* One call of the program.  Strings belong to argv. */
typedef struct invocation {
    request r;
    const char *program; /* as typed, for the command that repeats a clip */
    char **operand;      /* what is not an option */
    int operands;
    report *report;
} invocation;

typedef struct command {
    const char *name;
    unsigned bit;      /* FOR_ of params.h */
    int operands;      /* exactly as many */
    const char *usage; /* what stands between the name and the options */
    const char *summary;
    const char *details;
    wan_status (*run)(invocation *v, error *err);
} command;

const command *wan_commands(size_t *count);
/* NULL when there is none of that name. */
const command *wan_command_find(const char *name);

wan_status wan_command_generate(invocation *v, error *err);
wan_status wan_command_stage(invocation *v, error *err);
wan_status wan_command_selftest(invocation *v, error *err);
wan_status wan_command_inspect(invocation *v, error *err);
wan_status wan_command_convert(invocation *v, error *err);
wan_status wan_command_bench(invocation *v, error *err);
wan_status wan_command_quality(invocation *v, error *err);
wan_status wan_command_doctor(invocation *v, error *err);

/* The options r asks for, with the demo model where no other is named; says so.  `demo` keeps its
 * path. */
wan_status wan_model_choose(const invocation *v, char demo[4096], wan_model_options *options,
                            error *err);

#endif
