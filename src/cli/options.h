/* SPDX-License-Identifier: Apache-2.0 */
/* options.h - the command line, read with the table of params.h through getopt_long. */
#ifndef WAN_CLI_OPTIONS_H
#define WAN_CLI_OPTIONS_H

#include "pipeline/params.h"

/* Fills r from argv[1...]; argv is permuted so that what is not an option stands at argv[*operands]
 * to the end. WAN_E_USAGE for an option the command does not know (the nearest one is suggested) or
 * a value that is not allowed. */
wan_status wan_options_parse(request *r, unsigned command, int argc, char **argv, int *operands,
                             error *err);

#endif
