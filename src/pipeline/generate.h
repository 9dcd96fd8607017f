/* SPDX-License-Identifier: Apache-2.0 */
/* generate.h - what wan.h does not show of a job. */
#ifndef WAN_PIPELINE_GENERATE_H
#define WAN_PIPELINE_GENERATE_H

#include <stdint.h>

/* Pixels [3, T, H, W] in [-1, 1] -> rgb [T, H, W, 3] by truncation, floor(clamp(x / 2 + 1/2, 0, 1)
 * * 255) in float32, as diffusers writes clips (golden/README.md). */
void wan_frames_u8(const float *pixels, int64_t frames, int64_t height, int64_t width,
                   uint8_t *rgb);

#endif
