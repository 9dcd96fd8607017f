/* SPDX-License-Identifier: Apache-2.0 */
/* wan bench: what the stages of a model cost on this machine, and whether that fits a budget. */
#include "pipeline/bench.h"

#include <string.h>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "pipeline/rules.h"

static void say_stage(void *user, const char *stage) {
    report *r = user;
    if (!r->json && !r->quiet)
        fprintf(stderr, "%s ...\n", stage);
}

static wan_status find_type(const char *name, dtype *type, error *err) {
    *type = WAN_Q8_0;
    return !name || wan_type_find(name, type)
               ? WAN_OK
               : wan_fail(err, WAN_E_USAGE, "--type %s: no type that weights can have here", name);
}

static double number(const json_t *o, const char *key) {
    return json_number_value(json_object_get(o, key));
}

static double total_seconds(const json_t *result) {
    return number(result, "load_seconds") + number(result, "job_seconds");
}

static void print_stages(const json_t *result) {
    char bytes[32], least[32];
    size_t i;
    const json_t *s;
    printf("%-8s %10s %10s %10s %14s %10s %10s\n", "stage", "seconds", "cpu s", "TFLOP",
           "GFLOP / cpu s", "of floor", "peak");
    printf("%-8s %10.2f\n", "load", number(result, "load_seconds"));
    json_array_foreach(json_object_get(result, "stages"), i, s) {
        snprintf(least, sizeof least, "%.0f %%", 100 * number(s, "fraction_of_floor"));
        printf("%-8s %10.2f %10.2f %10.3f %14.1f %10s %10s\n",
               json_string_value(json_object_get(s, "name")), number(s, "seconds"),
               number(s, "cpu_seconds"), number(s, "flops") * 1e-12,
               number(s, "gflops_per_cpu_second"), number(s, "floor_seconds") > 0 ? least : "",
               wan_report_bytes((uint64_t)number(s, "peak_bytes"), bytes));
    }
    printf("%-8s %10.2f\n", "together", number(result, "job_seconds"));
}

static void print_result(const json_t *result) {
    char a[32], b[32];
    printf("%s, %d threads, precision %s\n", json_string_value(json_object_get(result, "device")),
           (int)number(result, "threads"), json_string_value(json_object_get(result, "precision")));
    print_stages(result);
    if (number(result, "peak_vram") > 0)
        printf("GPU memory at most %s\n",
               wan_report_bytes((uint64_t)number(result, "peak_vram"), a));
    printf("model %s", wan_report_bytes((uint64_t)number(result, "model_bytes"), a));
    printf(", resident after the run %s, at most %s\n",
           wan_report_bytes((uint64_t)number(result, "active_bytes"), a),
           wan_report_bytes((uint64_t)number(result, "peak_rss"), b));
}

/* Every budget that the run is over, into text; false when there is none. */
static bool misses(const request *r, const json_t *result, char *text, size_t size) {
    const struct {
        const char *what;
        double is, most;
    } memory[] = {{"memory", number(result, "peak_rss"), (double)r->max_rss},
                  {"GPU memory", number(result, "peak_vram"), (double)r->model.max_vram}};
    size_t used = 0;
    text[0] = '\0';
    if (r->max_seconds > 0 && total_seconds(result) > r->max_seconds)
        used = (size_t)snprintf(text, size, "%.6g s is more than %.6g", total_seconds(result),
                                r->max_seconds);
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) {
        char is[32], most[32];
        if (memory[i].most > 0 && memory[i].is > memory[i].most)
            used +=
                (size_t)snprintf(text + used, size - used, "%s%s of %s is more than %s",
                                 used ? ", " : "", wan_report_bytes((uint64_t)memory[i].is, is),
                                 memory[i].what, wan_report_bytes((uint64_t)memory[i].most, most));
    }
    return used > 0;
}

/* Go or no-go: people read it in words, programs in the one object of --json. */
static wan_status judge(invocation *v, json_t *result, error *err) {
    const request *r = &v->r;
    char missed[256];
    bool go = !misses(r, result, missed, sizeof missed);
    json_object_set_new(result, "go", json_boolean(go));
    if (!r->json)
        print_result(result);
    if (!r->json && (r->max_seconds > 0 || r->max_rss || r->model.max_vram))
        puts(go ? "go" : "no-go");
    wan_report_event(v->report, result);
    if (go)
        return WAN_OK;
    v->report->json = false; /* the object has said it */
    return wan_fail(err, WAN_E_INTERNAL, "over the budget: %s", missed);
}

/* A job that cannot be cut to fit --max-vram was not begun: that is a no-go too. */
static wan_status refuse(invocation *v, error *err) {
    wan_report_event(v->report, json_pack("{s:[], s:b, s:o}", "stages", "go", 0, "reason",
                                          wan_report_text(err->message)));
    if (!v->r.json)
        puts("no-go");
    v->report->json = false;
    return err->code = WAN_E_INTERNAL;
}

/* Standard output is for the one object. */
static void say_log(void *user, wan_log_level level, const char *message) {
    report people = *(const report *)user;
    people.json = false;
    wan_report_log(&people, level, message);
}

static wan_status choose_model(invocation *v, dtype type, char folder[4096],
                               wan_model_options *options, error *err) {
    const request *r = &v->r;
    *options = r->model;
    if (r->synthetic && r->model.model)
        return wan_fail(err, WAN_E_USAGE, "--synthetic and -m are two models; the bench runs one");
    if (r->synthetic) {
        wan_report_note(v->report, "weights ...");
        options->model = folder;
        wan_bench_files(r->synthetic, type, r->layers, folder, 4096, err);
    } else {
        wan_model_choose(v, folder, options, err);
    }
    options->log = say_log;
    options->log_user = v->report;
    return err->code;
}

wan_status wan_command_bench(invocation *v, error *err) {
    const request *r = &v->r;
    char folder[4096];
    dtype type;
    wan_model_options options;
    if (find_type(r->weight_type, &type, err) != WAN_OK ||
        choose_model(v, type, folder, &options, err) != WAN_OK)
        return err->code;
    bench_options o = {.stage = r->stage ? r->stage : "all",
                       .width = r->clip.width ? r->clip.width : 256,
                       .height = r->clip.height ? r->clip.height : 256,
                       .frames = r->clip.frames ? r->clip.frames : 17,
                       .steps = r->clip.steps ? r->clip.steps : 1,
                       .repeat = r->repeat,
                       .cancelled = wan_interrupted,
                       .began = say_stage,
                       .began_user = v->report};
    json_t *result = wan_bench(&options, &o, err);
    if (result)
        return judge(v, result, err);
    return err->code == WAN_E_MEMORY && r->model.max_vram ? refuse(v, err) : err->code;
}
