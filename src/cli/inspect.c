/* SPDX-License-Identifier: Apache-2.0 */
/* wan inspect: a checkpoint's contents, or the command behind a clip. */
#include "pipeline/inspect.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/settings.h"
#include "io/safetensors.h"
#include "media/clip.h"

/* -----------------------------------------------------------------------------------------------------------
 * clips */

/* MP4 and Matroska by their first bytes. */
static bool looks_like_clip(const char *path) {
    unsigned char head[12] = {0};
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    size_t n = fread(head, 1, sizeof head, f);
    fclose(f);
    return n == sizeof head &&
           (memcmp(head + 4, "ftyp", 4) == 0 || memcmp(head, "\x1A\x45\xDF\xA3", 4) == 0);
}

/* A safetensors file that wan generate wrote says so in its metadata; others are checkpoints. */
static char *settings_of_safetensors(const char *path) {
    error unknown = {0};
    safetensors *s = wan_safetensors_open(path, &unknown);
    const char *text = s ? wan_safetensors_meta(s, "settings") : NULL;
    bool ours = text && wan_safetensors_find(s, "frames") && wan_safetensors_find(s, "latents");
    char *copy = ours ? strdup(text) : NULL;
    wan_safetensors_close(s);
    return copy;
}

/* Prints what a clip was made with.  The comment may be anybody's, so it is checked like a command
 * line. */
static wan_status show_settings(invocation *v, const char *path, const char *text, json_t *event,
                                error *err) {
    json_error_t why;
    json_t *settings = text ? json_loads(text, JSON_REJECT_DUPLICATES, &why) : NULL;
    request r;
    wan_request_init(&r);
    bool ours = json_is_object(settings) && json_object_get(settings, "program");
    char *again = NULL;
    if (ours && wan_settings_read(&r, settings, path, err) == WAN_OK) {
        again = wan_settings_command(&r, v->program, NULL);
        if (!again)
            wan_fail(err, WAN_E_MEMORY, "%s: no memory for its command", path);
    }
    if (!err->code && v->r.json) {
        json_object_set(event, "settings", ours ? settings : json_null());
        json_object_set_new(event, "command", again ? wan_report_text(again) : json_null());
        wan_report_event(v->report, json_incref(event));
    } else if (!err->code && again) {
        printf("made with\n  %s\n", again);
    } else if (!err->code) {
        puts("it does not say which command made it");
    }
    free(again);
    json_decref(settings);
    json_decref(event);
    return err->code;
}

static wan_status inspect_clip(invocation *v, const char *path, error *err) {
    clip_info info;
    if (wan_clip_inspect(path, &info, err) != WAN_OK)
        return err->code;
    double fps = info.fps_den > 0 ? (double)info.fps_num / info.fps_den : 0;
    json_t *event = json_pack("{s:o, s:i, s:i, s:I, s:f, s:f}", "path", wan_report_text(path),
                              "width", info.width, "height", info.height, "frames",
                              (json_int_t)info.frames, "fps", fps, "seconds", info.seconds);
    if (!v->r.json) {
        wan_report_plain(stdout, path);
        printf(": a clip of %dx%d", info.width, info.height);
        if (info.frames)
            printf(", %" PRId64 " frames", info.frames);
        if (fps > 0)
            printf(", %.6g a second", fps);
        printf(", %.6g s\n", info.seconds);
    }
    show_settings(v, path, info.settings, event, err);
    wan_clip_info_close(&info);
    return err->code;
}

/* -----------------------------------------------------------------------------------------------------
 * checkpoints */

static const char *text_of(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static void print_names(const char *title, const json_t *names) {
    size_t n = json_array_size(names);
    if (!n)
        return;
    printf("  %s: %zu\n", title, n);
    for (size_t i = 0; i < n && i < 10; i++) {
        fputs("    ", stdout);
        wan_report_plain(stdout, json_string_value(json_array_get(names, i)));
        putchar('\n');
    }
    if (n > 10)
        printf("    and %zu more; --json lists all\n", n - 10);
}

static void print_part(json_t *p) {
    char bytes[32];
    const char *type;
    json_t *row, *value;
    printf("%s: ", text_of(p, "part"));
    wan_report_plain(stdout, text_of(p, "variant"));
    fputs("\n  file: ", stdout);
    wan_report_plain(stdout, text_of(p, "path"));
    printf(" (%s names)\n  tensors: %" JSON_INTEGER_FORMAT ", %s\n", text_of(p, "layout"),
           json_integer_value(json_object_get(p, "tensors")),
           wan_report_bytes((uint64_t)json_integer_value(json_object_get(p, "bytes")), bytes));
    json_object_foreach(json_object_get(p, "types"), type, row) printf(
        "    %-6s %5" JSON_INTEGER_FORMAT " tensors, %s\n", type,
        json_integer_value(json_object_get(row, "tensors")),
        wan_report_bytes((uint64_t)json_integer_value(json_object_get(row, "bytes")), bytes));
    json_object_foreach(json_object_get(p, "config"), type, value) if (json_is_integer(value))
        printf("  %s: %" JSON_INTEGER_FORMAT "\n", type, json_integer_value(value));
    print_names("missing", json_object_get(p, "missing"));
    print_names("unexpected", json_object_get(p, "unexpected"));
    if (*text_of(p, "problem")) {
        fputs("  problem: ", stdout);
        wan_report_plain(stdout, text_of(p, "problem"));
        putchar('\n');
    }
}

static void print_checkpoint(json_t *all) {
    size_t i;
    json_t *p;
    json_array_foreach(json_object_get(all, "parts"), i, p) print_part(p);
    if (*text_of(all, "tokenizer")) {
        fputs("tokenizer: ", stdout);
        wan_report_plain(stdout, text_of(all, "tokenizer"));
        putchar('\n');
    }
    json_array_foreach(json_object_get(all, "absent"), i, p) {
        printf("absent: %s (", text_of(p, "part"));
        wan_report_plain(stdout, text_of(p, "why"));
        puts(")");
    }
}

wan_status wan_command_inspect(invocation *v, error *err) {
    const char *path = v->operand[0];
    if (looks_like_clip(path))
        return inspect_clip(v, path, err);
    char *settings = settings_of_safetensors(path);
    if (settings) {
        if (!v->r.json) {
            wan_report_plain(stdout, path);
            puts(": frames and latents of a clip");
        }
        show_settings(v, path, settings, json_pack("{s:o}", "path", wan_report_text(path)), err);
        free(settings);
        return err->code;
    }
    json_t *all = wan_inspect(path, err);
    if (!all)
        return err->code;
    if (v->r.json)
        wan_report_event(v->report, json_incref(all));
    else
        print_checkpoint(all);
    json_decref(all);
    return WAN_OK;
}
