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

static void print_result(const json_t *result) {
    char a[32], b[32];
    size_t i;
    const json_t *s;
    printf("%-8s %10s %10s %10s %14s %10s\n", "stage", "seconds", "cpu s", "TFLOP", "GFLOP / cpu s",
           "planned");
    printf("%-8s %10.2f\n", "load", number(result, "load_seconds"));
    json_array_foreach(json_object_get(result, "stages"), i, s) printf(
        "%-8s %10.2f %10.2f %10.3f %14.1f %10s\n", json_string_value(json_object_get(s, "name")),
        number(s, "seconds"), number(s, "cpu_seconds"), number(s, "flops") * 1e-12,
        number(s, "gflops_per_cpu_second"),
        wan_report_bytes((uint64_t)number(s, "planned_bytes"), a));
    printf("%-8s %10.2f\n", "together", number(result, "job_seconds"));
    if (number(result, "device_peak") > 0)
        printf("GPU memory at most %s\n",
               wan_report_bytes((uint64_t)number(result, "device_peak"), a));
    printf("model %s", wan_report_bytes((uint64_t)number(result, "model_bytes"), a));
    printf(", resident after the run %s, at most %s\n",
           wan_report_bytes((uint64_t)number(result, "active_bytes"), a),
           wan_report_bytes((uint64_t)number(result, "peak_rss"), b));
}

static bool within(const request *r, const json_t *result) {
    bool slow = r->max_seconds > 0 && total_seconds(result) > r->max_seconds;
    bool fat = r->max_rss > 0 && number(result, "peak_rss") > r->max_rss * 1048576;
    bool wide = r->model.max_vram && number(result, "device_peak") > (double)r->model.max_vram;
    return !slow && !fat && !wide;
}

wan_status wan_command_bench(invocation *v, error *err) {
    const request *r = &v->r;
    char folder[4096];
    dtype type;
    wan_model_options options = r->model;
    if (find_type(r->weight_type, &type, err) != WAN_OK)
        return err->code;
    if (r->synthetic && r->model.model)
        return wan_fail(err, WAN_E_USAGE, "--synthetic and -m are two models; the bench runs one");
    if (r->synthetic) {
        if (!r->json && !r->quiet)
            fprintf(stderr, "weights ...\n");
        if (wan_bench_files(r->synthetic, type, r->layers, folder, sizeof folder, err) != WAN_OK)
            return err->code;
        options.model = folder;
    } else if (wan_model_choose(v, folder, &options, err) != WAN_OK) {
        return err->code;
    }
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
    if (!result)
        return err->code;
    bool go = within(r, result);
    json_object_set_new(result, "go", json_boolean(go));
    if (!r->json)
        print_result(result);
    if (!r->json && (r->max_seconds > 0 || r->max_rss > 0 || r->model.max_vram))
        puts(go ? "go" : "no-go");
    wan_report_event(v->report, result);
    return go ? WAN_OK : wan_fail(err, WAN_E_INTERNAL, "the run does not fit the budget");
}
