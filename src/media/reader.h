/* SPDX-License-Identifier: Apache-2.0 */
/* reader.h - what frames.c asks of a kind of file: open, one frame at a time, close. */
#ifndef WAN_MEDIA_READER_H
#define WAN_MEDIA_READER_H

#include "media/frames.h"

typedef struct frame_reader {
    /* Fills *info; path need not outlive the call. */
    void *(*open)(const char *path, frames_info *info, error *err);
    wan_status (*next)(void *r, uint8_t *rgb, bool *more, error *err);
    void (*close)(void *r);
} frame_reader;

extern const frame_reader wan_reader_tensors;  /* read_tensors.c */
extern const frame_reader wan_reader_pictures; /* read_pictures.c: a folder, a pattern, a file */
extern const frame_reader wan_reader_video;    /* read_video.c */

/* Whether these first bytes begin a video that wan_reader_video knows. */
bool wan_reader_video_knows(const uint8_t *head, size_t size);

#endif
