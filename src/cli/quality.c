/* SPDX-License-Identifier: Apache-2.0 */
/* wan quality: how far one clip is from another, and whether that is near enough. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "io/safetensors.h"
#include "media/clip.h"
#include "media/compare.h"

#define AMPLIFY 8

enum each { EACH_CHUNK, EACH_FRAME, EACH_NONE };

static wan_status find_each(const char *text, enum each *each, error *err) {
    static const char *const name[] = {"chunk", "frame", "none"};
    *each = EACH_CHUNK;
    for (int i = 0; text && i < 3; i++)
        if (strcmp(text, name[i]) == 0) {
            *each = (enum each)i;
            return WAN_OK;
        }
    return text ? wan_fail(err, WAN_E_USAGE, "--each is \"%.80s\"; it must be chunk, frame or none",
                           text)
                : WAN_OK;
}

/* Before minutes are spent on reading. */
static wan_status check_sheet(const request *r, error *err) {
    size_t n = r->sheet ? strlen(r->sheet) : 0;
    if (!r->sheet)
        return WAN_OK;
    if (n < 5 || strcasecmp(r->sheet + n - 4, ".png") != 0)
        return wan_fail(err, WAN_E_USAGE, "%s: the sheet's name must end in .png", r->sheet);
    return r->overwrite ? WAN_OK : wan_output_fresh(r->sheet, 1, err);
}

/* ------------------------------------------------------------------------------------------------
 * the same run? */

/* What a clip says it was made with; NULL when it says nothing that can be read. */
static json_t *settings_of(const char *path) {
    json_error_t why;
    error unknown = {0};
    clip_info info = {0};
    safetensors *s = wan_safetensors_open(path, &unknown);
    const char *text = s ? wan_safetensors_meta(s, "settings") : NULL;
    if (!s && wan_clip_inspect(path, &info, NULL) == WAN_OK)
        text = info.settings;
    json_t *settings = text ? json_loads(text, JSON_REJECT_DUPLICATES, &why) : NULL;
    if (!s)
        wan_clip_info_close(&info);
    wan_safetensors_close(s);
    return settings;
}

/* Two seeds give two clips, and their distance says nothing about weights or arithmetic. */
static void warn_of_other_settings(const invocation *v) {
    static const char *const must[] = {"prompt",   "negative", "sampler", "steps",
                                       "guidance", "shift",    "seed"};
    json_t *a = settings_of(v->operand[0]), *b = settings_of(v->operand[1]);
    char differ[128] = "", line[256];
    size_t used = 0;
    for (size_t i = 0; a && b && i < sizeof must / sizeof must[0]; i++) {
        json_t *x = json_object_get(a, must[i]), *y = json_object_get(b, must[i]);
        if (x && y && !json_equal(x, y))
            used += (size_t)snprintf(differ + used, sizeof differ - used, "%s%s", used ? ", " : "",
                                     must[i]);
    }
    json_decref(a);
    json_decref(b);
    snprintf(line, sizeof line, "the clips were made with different settings: %s", differ);
    if (used)
        wan_report_log(v->report, WAN_LOG_WARN, line);
}

/* ------------------------------------------------------------------------------------------------
 * for people */

static void print_row(const char *name, const quality *q) {
    char psnr[32] = "equal";
    if (q->mse > 0)
        snprintf(psnr, sizeof psnr, "%.2f", wan_quality_psnr(q->mse));
    printf("%-16s %9s %9.5f %9.4f %6d\n", name, psnr, q->ssim, q->mae, q->most);
}

static void print_each(const comparison *c, enum each each) {
    char name[48];
    for (size_t i = 0; each == EACH_FRAME && i < c->frames; i++) {
        snprintf(name, sizeof name, "frame %zu", i);
        print_row(name, &c->frame[i]);
    }
    for (size_t i = 0; each == EACH_CHUNK && i < c->chunks; i++) {
        size_t first = wan_chunk_first(c, i), end = wan_chunk_first(c, i + 1);
        if (end - first == 1)
            snprintf(name, sizeof name, "frame %zu", first);
        else
            snprintf(name, sizeof name, "frames %zu-%zu", first, end - 1);
        print_row(name, &c->chunk[i]);
    }
}

static void print_comparison(const comparison *c, enum each each) {
    printf("%zu frames of %dx%d in %zu chunks%s\n", c->frames, c->width, c->height, c->chunks,
           c->lossless ? "" : "; as the videos show them, which have lost something themselves");
    printf("%-16s %9s %9s %9s %6s\n", "", "PSNR dB", "SSIM", "MAE /255", "most");
    print_each(c, each);
    print_row("clip", &c->all);
    print_row("median chunk", &c->median);
    print_row("worst chunk", &c->worst);
}

static void print_sheet(const request *r, const comparison *c, int amplify) {
    size_t frame[WAN_SHEET_COLUMNS], n = wan_sheet_frames(c, frame);
    wan_report_plain(stdout, r->sheet);
    fputs(": A, B and their difference times ", stdout);
    printf("%d of frames", amplify);
    for (size_t i = 0; i < n; i++)
        printf("%s %zu%s", i ? "," : "", frame[i], frame[i] == c->worst_frame ? " (worst)" : "");
    putchar('\n');
}

/* ------------------------------------------------------------------------------------------------
 * for programs */

/* JSON has no infinity: the PSNR of equal frames is null. */
static json_t *measures(const quality *q) {
    json_t *psnr = q->mse > 0 ? json_real(wan_quality_psnr(q->mse)) : json_null();
    return json_pack("{s:o, s:f, s:f, s:f, s:i}", "psnr", psnr, "ssim", q->ssim, "mae", q->mae,
                     "mse", q->mse, "most", q->most);
}

static json_t *all_measures(const quality *q, size_t count) {
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, measures(&q[i]));
    return list;
}

static void report_event(const invocation *v, const comparison *c, bool passed) {
    size_t frame[WAN_SHEET_COLUMNS], n = wan_sheet_frames(c, frame);
    json_t *sheet = v->r.sheet ? json_array() : json_null();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(sheet, json_integer((json_int_t)frame[i]));
    json_t *o =
        json_pack("{s:s, s:o, s:o, s:i, s:i, s:b, s:b}", "event", "quality", "a",
                  wan_report_text(v->operand[0]), "b", wan_report_text(v->operand[1]), "width",
                  c->width, "height", c->height, "lossless", c->lossless, "passed", passed);
    json_t *rest =
        json_pack("{s:o, s:o, s:o, s:I, s:I, s:o, s:o, s:o}", "clip", measures(&c->all), "median",
                  measures(&c->median), "worst", measures(&c->worst), "worst_chunk",
                  (json_int_t)c->worst_chunk, "worst_frame", (json_int_t)c->worst_frame, "chunks",
                  all_measures(c->chunk, c->chunks), "frames", all_measures(c->frame, c->frames),
                  "sheet_frames", sheet);
    json_object_update(o, rest);
    json_decref(rest);
    wan_report_event(v->report, o);
}

/* ------------------------------------------------------------------------------------------------
 * bars */

/* Every bar the worst chunk misses, into text; false when there is none. */
static bool misses(const request *r, const comparison *c, char *text, size_t size) {
    size_t used = 0;
    double psnr = wan_quality_psnr(c->worst.mse);
    text[0] = '\0';
    if (r->min_psnr >= 0 && psnr < r->min_psnr)
        used += (size_t)snprintf(text + used, size - used, "PSNR %.4g dB is below %.6g", psnr,
                                 r->min_psnr);
    if (r->min_ssim >= 0 && c->worst.ssim < r->min_ssim)
        used += (size_t)snprintf(text + used, size - used, "%sSSIM %.6g is below %.6g",
                                 used ? ", " : "", c->worst.ssim, r->min_ssim);
    if (r->max_mae >= 0 && c->worst.mae > r->max_mae)
        used += (size_t)snprintf(text + used, size - used, "%smean error %.6g is above %.6g",
                                 used ? ", " : "", c->worst.mae, r->max_mae);
    return used > 0;
}

wan_status wan_command_quality(invocation *v, error *err) {
    const request *r = &v->r;
    const char *a = v->operand[0], *b = v->operand[1];
    int amplify = r->amplify ? r->amplify : AMPLIFY;
    enum each each;
    comparison c;
    char missed[256];
    if (find_each(r->each, &each, err) != WAN_OK || check_sheet(r, err) != WAN_OK ||
        wan_compare(a, b, wan_interrupted, &c, err) != WAN_OK)
        return err->code;
    warn_of_other_settings(v);
    if (r->sheet)
        wan_compare_sheet(a, b, &c, amplify, wan_interrupted, r->sheet, err);
    if (!err->code) {
        bool missing = misses(r, &c, missed, sizeof missed);
        if (!r->json && !r->quiet)
            print_comparison(&c, each);
        if (!r->json && !r->quiet && r->sheet)
            print_sheet(r, &c, amplify);
        report_event(v, &c, !missing);
        if (missing)
            wan_fail(err, WAN_E_INTERNAL, "the worst chunk of %s misses the bar: %s", b, missed);
    }
    wan_comparison_close(&c);
    return err->code;
}
