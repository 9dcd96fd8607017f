/* SPDX-License-Identifier: Apache-2.0 */
/* help.h - help texts and the manual page, both from the tables of commands and parameters. */
#ifndef WAN_CLI_HELP_H
#define WAN_CLI_HELP_H

#include "cli/commands.h"

/* What commands there are. */
void wan_help_overview(FILE *to);
/* One command and its options. */
void wan_help_command(FILE *to, const command *c);
/* wan(1) in troff's man macros. */
void wan_help_man(FILE *to);

#endif
