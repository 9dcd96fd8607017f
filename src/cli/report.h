/* SPDX-License-Identifier: Apache-2.0 */
/* report.h - everything the program says while it works.
 * People read standard error (a line that is rewritten on a terminal, a few plain lines otherwise)
 * and the result on standard output; with --json standard output carries one object per event.  One
 * thread. */
#ifndef WAN_CLI_REPORT_H
#define WAN_CLI_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "pipeline/params.h"

typedef struct report {
    bool json, quiet, terminal;
    bool line_shown; /* a progress line stands on the terminal */
    FILE *result; /* where people read results: stdout, or stderr when the clip itself goes there */
    char stage[32];      /* last one reported */
    double last_seconds; /* when a plain line was last written */
} report;

void wan_report_open(report *r, bool json, bool quiet);
/* One progress callback of the library. */
void wan_report_progress(report *r, const wan_progress *p);
/* Takes the line off the terminal again. */
void wan_report_clear(report *r);
/* A wan_log_fn whose user is a report. */
void wan_report_log(void *user, wan_log_level level, const char *message);
/* "wan: sentence" on standard error, and an event with --json. */
void wan_report_error(report *r, const error *err);
/* Something worth knowing on standard error, unless quiet. */
__attribute__((format(printf, 2, 3))) void wan_report_note(report *r, const char *format, ...);
/* Prints and frees the event, with --json only. */
void wan_report_event(report *r, json_t *event);
/* The same with "seed" as a number in front, which jansson cannot hold above 2^63 - 1. */
void wan_report_seeded(report *r, uint64_t seed, json_t *event);
/* WAN_E_OUTPUT when standard output could not take what was written. */
wan_status wan_report_close(report *r, error *err);

/* A JSON string of bytes that may not be UTF-8 (a path): bad bytes become U+FFFD. */
json_t *wan_report_text(const char *text);
/* "1.5 GiB", "12 MiB". */
const char *wan_report_bytes(uint64_t bytes, char text[32]);
/* "5 s", "2 min 30 s". */
const char *wan_report_seconds(double seconds, char text[32]);
/* Writes text with control characters replaced, so that no file can drive the terminal. */
void wan_report_plain(FILE *to, const char *text);

#endif
