/* SPDX-License-Identifier: Apache-2.0 */
/* frames.h - the frames of a clip, one after another, whatever the clip is kept in.
 *   OUT.safetensors   `frames` u8 [T, H, W, 3] of wan generate, or `pixels` f32 [3, T, H, W] of
 *                     wan stage decode, made bytes by cutting off as docs/stages.md says
 *   FOLDER            its numbered PNG files
 *   OUT-%05d.png      numbered PNG files; OUT.png means OUT-00000.png ... when it is not there
 *   PICTURE           one PNG, JPEG or WebP is a clip of one frame
 *   VIDEO             .mp4, .mov, .webm, .mkv, .y4m through FFmpeg, told from the first bytes
 * The tensors and PNG files are what was computed; a video has lost something, and its YCbCr
 * becomes RGB by swscale (BT.709, limited range where the file does not say, as wan writes).
 * Nothing but the file named is opened.  A source belongs to one thread; it holds one frame. */
#ifndef WAN_MEDIA_FRAMES_H
#define WAN_MEDIA_FRAMES_H

#include <stdint.h>

#include "base/error.h"

#define WAN_FRAMES_MAX 99999

typedef struct frame_source frame_source;

typedef struct frames_info {
    int width, height;
    int64_t count; /* 0: only known at the end (.webm, .y4m) */
    bool lossless; /* the bytes that were computed */
} frames_info;

/* WAN_E_IO, WAN_E_FORMAT, WAN_E_IMAGE, WAN_E_SHAPE, WAN_E_TYPE; NULL then. */
frame_source *wan_frames_open(const char *path, error *err);
frames_info wan_frames_info(const frame_source *s);
/* The next frame into rgb [height, width, 3], or *more false after the last.  A file that promised
 * more frames than it has, or whose frames change size, is an error. */
wan_status wan_frames_next(frame_source *s, uint8_t *rgb, bool *more, error *err);
void wan_frames_close(frame_source *s);

#endif
