/* SPDX-License-Identifier: Apache-2.0 */
/* interrupt.h - Ctrl-C and friends become a flag that the work polls, so that temporary files are
 * removed on the way out.  A second Ctrl-C ends the process at once.  Process-wide; install once
 * from main. */
#ifndef WAN_CLI_INTERRUPT_H
#define WAN_CLI_INTERRUPT_H

/* Also ignores SIGPIPE and SIGXFSZ, so that a reader that left or a file too large is an error of
 * the write. */
void wan_interrupt_install(void);
/* Back to ending at once, for work that leaves nothing behind. */
void wan_interrupt_restore(void);
/* Non-zero once SIGINT, SIGTERM or SIGHUP came.  The argument fits wan_callbacks and is not used.
 */
int wan_interrupted(void *unused);

#endif
