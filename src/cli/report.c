/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/report.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CLEAR_LINE "\r\033[K"
#define PLAIN_EVERY 10.0 /* seconds between plain progress lines */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void wan_report_open(report *r, bool json, bool quiet) {
    *r = (report){
        .json = json, .quiet = quiet, .terminal = isatty(STDERR_FILENO) == 1, .result = stdout};
}

const char *wan_report_bytes(uint64_t bytes, char text[32]) {
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes;
    int u = 0;
    for (; v >= 1024 && u < 4; u++)
        v /= 1024;
    snprintf(text, 32, u && v < 10 ? "%.1f %s" : "%.0f %s", v, unit[u]);
    return text;
}

const char *wan_report_seconds(double seconds, char text[32]) {
    long s = (long)(seconds + 0.5);
    if (seconds < 9.95)
        snprintf(text, 32, "%.1f s", seconds);
    else if (s < 60)
        snprintf(text, 32, "%ld s", s);
    else if (s < 3600)
        snprintf(text, 32, "%ld min %ld s", s / 60, s % 60);
    else
        snprintf(text, 32, "%ld h %ld min", s / 3600, s % 3600 / 60);
    return text;
}

void wan_report_plain(FILE *to, const char *text) {
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        /* 0xC2 0x80 to 0x9F are control characters in UTF-8 too. */
        bool two = c[0] == 0xC2 && c[1] >= 0x80 && c[1] <= 0x9F;
        fputc(*c < 0x20 || *c == 0x7F || two ? '?' : *c, to);
        c += two;
    }
}

json_t *wan_report_text(const char *text) {
    json_t *s = json_string(text);
    if (s)
        return s;
    size_t n = strlen(text), used = 0;
    char *clean = malloc(3 * n + 1);
    for (size_t i = 0; clean && i < n; i++) {
        if ((unsigned char)text[i] < 0x80) {
            clean[used++] = text[i];
        } else {
            memcpy(clean + used, "\xEF\xBF\xBD", 3);
            used += 3;
        }
    }
    s = clean ? json_stringn(clean, used) : NULL;
    free(clean);
    return s;
}

static char *event_text(const report *r, json_t *event) {
    char *text =
        r->json && event ? json_dumps(event, JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;
    json_decref(event);
    return text;
}

void wan_report_event(report *r, json_t *event) {
    char *text = event_text(r, event);
    if (text)
        puts(text);
    fflush(stdout);
    free(text);
}

void wan_report_seeded(report *r, uint64_t seed, json_t *event) {
    char *text = event_text(r, event);
    if (text)
        printf("{\"seed\":%" PRIu64 ",%s\n", seed, text + 1);
    fflush(stdout);
    free(text);
}

void wan_report_clear(report *r) {
    if (r->line_shown)
        fputs(CLEAR_LINE, stderr);
    r->line_shown = false;
}

static void progress_event(report *r, const wan_progress *p) {
    json_t *left = p->seconds_left < 0 ? json_null() : json_real(p->seconds_left);
    wan_report_event(r,
                     json_pack("{s:s, s:s, s:i, s:i, s:o}", "event", "progress", "stage", p->stage,
                               "step", p->step, "steps", p->steps, "seconds_left", left));
}

void wan_report_progress(report *r, const wan_progress *p) {
    if (r->json)
        progress_event(r, p);
    if (r->quiet || (r->json && !r->terminal))
        return;
    bool first = strncmp(r->stage, p->stage, sizeof r->stage - 1) != 0;
    if (!r->terminal && !first && now() - r->last_seconds < PLAIN_EVERY)
        return;
    snprintf(r->stage, sizeof r->stage, "%s", p->stage);
    r->last_seconds = now();
    char left[32] = "", time[32];
    if (p->seconds_left >= 0)
        snprintf(left, sizeof left, ", %.20s left", wan_report_seconds(p->seconds_left, time));
    fprintf(stderr, r->terminal ? CLEAR_LINE "%s %d/%d%s" : "%s %d/%d%s\n", p->stage, p->step,
            p->steps, left);
    fflush(stderr);
    r->line_shown = r->terminal;
}

void wan_report_log(void *user, wan_log_level level, const char *message) {
    report *r = user;
    if (level == WAN_LOG_DEBUG || (level == WAN_LOG_INFO && r->quiet))
        return;
    wan_report_clear(r);
    fputs(level == WAN_LOG_WARN ? "wan: warning: " : "wan: ", stderr);
    wan_report_plain(stderr, message);
    fputc('\n', stderr);
    wan_report_event(r, json_pack("{s:s, s:s, s:o}", "event", "log", "level",
                                  level == WAN_LOG_WARN ? "warning" : "info", "message",
                                  wan_report_text(message)));
}

void wan_report_error(report *r, const error *err) {
    wan_report_clear(r);
    fputs("wan: ", stderr);
    wan_report_plain(stderr, *err->message ? err->message : wan_status_name(err->code));
    fputc('\n', stderr);
    wan_report_event(r, json_pack("{s:s, s:i, s:s, s:o}", "event", "error", "code", (int)err->code,
                                  "name", wan_status_name(err->code), "message",
                                  wan_report_text(err->message)));
}

void wan_report_note(report *r, const char *format, ...) {
    if (r->quiet)
        return;
    char text[2000];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    wan_report_clear(r);
    fputs("wan: ", stderr);
    wan_report_plain(stderr, text);
    fputc('\n', stderr);
}

wan_status wan_report_close(report *r, error *err) {
    wan_report_clear(r);
    errno = 0;
    if (fflush(stdout) != 0 || ferror(stdout))
        return wan_fail(err, WAN_E_OUTPUT, "standard output cannot be written: %s",
                        errno ? strerror(errno) : "an earlier write failed");
    return WAN_OK;
}
