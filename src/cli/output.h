/* SPDX-License-Identifier: Apache-2.0 */
/* output.h - a clip on its way to a file: a kind of media/clip.h, or safetensors with frames and
 * latents. Opened before anything is computed, so that what cannot be written is known early; the
 * file appears under its name only at commit.  One thread. */
#ifndef WAN_CLI_OUTPUT_H
#define WAN_CLI_OUTPUT_H

#include "pipeline/params.h"

typedef struct output output;

/* Everything about the clip that is known before it is made. */
typedef struct output_spec {
    const char *path; /* by its ending; "-" is y4m to standard output */
    int width, height, frames;
    int64_t shape[4]; /* of the latents */
    rate fps;
    int crf;              /* -1: the format's own */
    const char *settings; /* JSON to keep inside, or NULL */
} output_spec;

/* WAN_E_USAGE for an ending that stands for no kind of clip. */
wan_status wan_output_kind(const char *path, error *err);
/* WAN_E_OUTPUT when the file or the first numbered picture of the clip is there already. */
wan_status wan_output_fresh(const char *path, int frames, error *err);
/* Bytes of memory that writing it takes at most. */
uint64_t wan_output_memory(const output_spec *s);

/* WAN_E_OUTPUT, WAN_E_SPACE when it cannot be written or may not fit.  NULL on failure; s may go
 * then. */
output *wan_output_open(const output_spec *s, error *err);
/* The final latents, once, before the frames. */
wan_status wan_output_latents(output *o, const float *latents, error *err);
/* Frames in order: rgb [count, height, width, 3]. */
wan_status wan_output_frames(output *o, const uint8_t *rgb, int count, error *err);
/* Frees o, whether it succeeds or not. */
wan_status wan_output_commit(output *o, error *err);
/* Leaves nothing behind; NULL is fine. */
void wan_output_abort(output *o);

#endif
