/* SPDX-License-Identifier: Apache-2.0 */
/* bench.h - what each stage of a model costs, measured alone, beside what the plan said. */
#ifndef WAN_PIPELINE_BENCH_H
#define WAN_PIPELINE_BENCH_H

#include <jansson.h>

#include "pipeline/model.h"

typedef struct bench_options {
    const char *stage; /* "text", "encode", "dit", "decode" or "all" */
    int width, height, frames, steps;
    int repeat; /* runs after the first; seconds are their median */
    int (*cancelled)(void *user);
    void *cancel_user;
    /* Told when a stage begins; may be NULL. */
    void (*began)(void *user, const char *stage);
    void *began_user;
} bench_options;

/* A folder of synthetic full-size files in the user's cache ($XDG_CACHE_HOME/wan or ~/.cache/wan),
 * written if it is not there yet.  `kind` is "ti2v-5b"; layers 0: all of the transformer and the
 * text encoder. */
wan_status wan_bench_files(const char *kind, dtype type, int layers, char *folder, size_t size,
                           error *err);

/* {"device", "precision", "threads", "load_seconds", "stages": [{"name", "seconds", "cpu_seconds"
 * (user and system), "flops", "bytes" (operands once, results once), "floor_seconds" (of the
 * device's measured arithmetic or memory, whichever is more; absent where not known),
 * "fraction_of_floor" (floor_seconds / seconds), "peak_bytes" (resident at most while it ran),
 * "planned_bytes" (its scratch and vectors, beside mapped weights), "gflops_per_cpu_second",
 * "first_seconds"}], "job_seconds" (sum of the stages'), "model_bytes" (of files), "active_bytes"
 * (resident after the run), "peak_rss", and on a GPU "peak_vram"}.  The caller owns it.  NULL on
 * failure. */
json_t *wan_bench(const wan_model_options *model, const bench_options *o, error *err);

#endif
