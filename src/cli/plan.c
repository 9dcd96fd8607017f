/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/plan.h"

#include <inttypes.h>

#include "cli/settings.h"

/* Stacks, heap fragments and pages of libraries that are touched for the first time while the job
 * runs. */
#define SLACK ((uint64_t)4 << 20)

wan_status wan_memory_plan(wan_model *m, const wan_params *p, uint64_t output, uint64_t early,
                           memory_plan *plan, error *err) {
    *plan = (memory_plan){.output = output};
    if (wan_job_plan(m, p, &plan->job, err) != WAN_OK)
        return err->code;
    plan->peak = plan->job.peak + output + SLACK;
    if (plan->peak < early)
        plan->peak = early;
    return WAN_OK;
}

static json_t *device_json(const wan_plan *p) {
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "text", (json_int_t)p->device_text, "encode",
                     (json_int_t)p->device_encode, "dit", (json_int_t)p->device_dit, "decode",
                     (json_int_t)p->device_decode, "streamed", (json_int_t)p->device_streamed,
                     "peak", (json_int_t)p->device_peak);
}

static void print_event(report *r, const request *asked, const int64_t shape[4],
                        const memory_plan *plan) {
    const wan_plan *p = &plan->job;
    json_t *memory = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "text_weights",
        (json_int_t)p->text_weights, "dit_weights", (json_int_t)p->dit_weights, "vae_weights",
        (json_int_t)p->vae_weights, "text_scratch", (json_int_t)p->text_scratch, "encode_scratch",
        (json_int_t)p->encode_scratch, "dit_scratch", (json_int_t)p->dit_scratch, "decode_scratch",
        (json_int_t)p->decode_scratch, "fixed", (json_int_t)p->fixed, "output",
        (json_int_t)plan->output);
    if (p->device_peak)
        json_object_set_new(memory, "device", device_json(p));
    wan_report_seeded(r, asked->clip.seed,
                      json_pack("{s:s, s:o, s:o, s:[I, I, I, I], s:o, s:f, s:i, s:I}", "event",
                                "plan", "output", wan_report_text(asked->output), "settings",
                                wan_settings_json(asked), "latents", (json_int_t)shape[0],
                                (json_int_t)shape[1], (json_int_t)shape[2], (json_int_t)shape[3],
                                "memory", memory, "flops", p->flops, "decode_group",
                                p->decode_group, "plan_peak", (json_int_t)plan->peak));
}

static void print_settings(FILE *to, const request *asked) {
    size_t count;
    const param *row = wan_params_table(&count);
    for (size_t i = 0; i < count; i++) {
        char buffer[PARAM_TEXT_MAX];
        const char *text = row[i].repeats ? wan_param_text(asked, &row[i], buffer) : NULL;
        if (!text)
            continue;
        fprintf(to, "%-14s ", row[i].name);
        wan_report_plain(to, row[i].type == PARAM_FLAG ? "yes" : text);
        fputc('\n', to);
    }
    fprintf(to, "%-14s ", "output");
    wan_report_plain(to, asked->output);
    fputc('\n', to);
}

static void print_stage(FILE *to, const char *name, uint64_t weights, uint64_t scratch) {
    char a[32], b[32], c[32];
    if (weights + scratch)
        fprintf(to, "  %-10s %10s %10s %10s\n", name, wan_report_bytes(weights, a),
                wan_report_bytes(scratch, b), wan_report_bytes(weights + scratch, c));
}

static void print_device(FILE *to, const char *name, uint64_t bytes) {
    char text[32];
    if (bytes)
        fprintf(to, "  %-32s %10s\n", name, wan_report_bytes(bytes, text));
}

void wan_plan_print(report *r, const request *asked, const int64_t shape[4],
                    const memory_plan *plan) {
    const wan_plan *p = &plan->job;
    FILE *to = r->result;
    char bytes[32];
    if (r->json) {
        print_event(r, asked, shape, plan);
        return;
    }
    print_settings(to, asked);
    fprintf(to, "%-14s %" PRId64 " channels, %" PRId64 " frames of %" PRId64 "x%" PRId64 "\n",
            "latents", shape[0], shape[1], shape[3], shape[2]);
    fprintf(to, "%-14s %.3g\n\n", "operations", p->flops);
    fprintf(to, "memory       %10s %10s %10s\n", "weights", "work", "together");
    print_stage(to, "text", p->text_weights, p->text_scratch);
    print_stage(to, "encode", p->encode_scratch ? p->vae_weights : 0, p->encode_scratch);
    print_stage(to, "denoise", p->dit_weights, p->dit_scratch);
    print_stage(to, "decode", p->vae_weights, p->decode_scratch);
    fprintf(to, "  %-32s %10s\n", "program", wan_report_bytes(p->fixed, bytes));
    fprintf(to, "  %-32s %10s\n", "writing the clip", wan_report_bytes(plan->output, bytes));
    fprintf(to, "  %-32s %10s\n", "most at any time", wan_report_bytes(plan->peak, bytes));
    if (!p->device_peak)
        return;
    fprintf(to, "GPU memory\n");
    print_device(to, "text", p->device_text);
    print_device(to, "encode", p->device_encode);
    print_device(to, "denoise", p->device_dit);
    print_device(to, "decode", p->device_decode);
    if (p->device_streamed)
        fprintf(to, "  %-32s %10s\n", "weights that pass through",
                wan_report_bytes(p->device_streamed, bytes));
    fprintf(to, "  %-32s %10s\n", "most at any time", wan_report_bytes(p->device_peak, bytes));
}
