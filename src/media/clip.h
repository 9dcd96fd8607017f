/* SPDX-License-Identifier: Apache-2.0 */
/* clip.h - frames go in, in order, and a file comes out: .mp4, .webm, .gif, .png or .y4m.
 * The file appears under its name at wan_clip_close, when it is complete; until then, and after a
 * failure, nothing is there but a temporary file that close and abort remove.  One thread per clip.
 * The program must ignore SIGPIPE and SIGXFSZ (wan_clip_open does not touch signals), so that a
 * full disk and a closed pipe come back as errors. */
#ifndef WAN_MEDIA_CLIP_H
#define WAN_MEDIA_CLIP_H

#include <stdint.h>

#include "base/error.h"

typedef struct clip_options {
    const char *path;  /* its ending says the format; "-" is y4m on standard output */
    int width, height; /* even, but for .gif and .png */
    int64_t frames; /* how many will come; one frame makes one OUT.png, more make OUT-00000.png and
                       so on */
    int fps_num, fps_den; /* 24000/1001 is exact */
    int crf;              /* of .mp4 (1 to 51) and .webm (0 to 63); negative: 16 and 30 */
    int threads; /* of the encoder; 0: one.  The bytes of an .mp4 depend on it, so callers keep it
                    fixed */
    const char *settings; /* JSON for the comment tag of .mp4 and .webm, or NULL */
} clip_options;

typedef struct clip clip;

/* Whether wan_clip_open knows the ending of this path ("-" included). */
bool wan_clip_known(const char *path);

/* Refuses an unknown ending, odd sizes, a missing encoder, too little free disk for a clip of this
 * length, a folder that cannot be written.  o and what it points to need not outlive the call. */
clip *wan_clip_open(const clip_options *o, error *err);

/* rgb [count, height, width, 3].  After a failure only abort (or close, which repeats it) makes
 * sense. */
wan_status wan_clip_frames(clip *c, const uint8_t *rgb, int count, error *err);

/* Finishes, puts the file in place and frees c.  On failure nothing is left behind.  Fewer frames
 * than announced are WAN_E_INTERNAL. */
wan_status wan_clip_close(clip *c, error *err);

/* Removes what is there and frees c; NULL is fine. */
void wan_clip_abort(clip *c);

/* The name of an existing file that wan_clip_close would replace, into name[size]; false when there
 * is none. */
bool wan_clip_replaces(const char *path, int64_t frames, char *name, size_t size);

/* Bytes of memory that encoding takes at its worst, measured: FFmpeg's and our own buffers. */
size_t wan_clip_memory(const clip_options *o);

/* What a clip file says about itself. */
typedef struct clip_info {
    int width, height;
    int64_t frames;       /* 0 when the file does not say (.webm) */
    int fps_num, fps_den; /* 0/1 when unknown */
    double seconds;
    char *settings; /* the comment tag, ours or anyone's; NULL when there is none */
} clip_info;

/* Reads the header of an .mp4 or .webm, whoever made it.  WAN_E_IO, WAN_E_FORMAT. */
wan_status wan_clip_inspect(const char *path, clip_info *info, error *err);
void wan_clip_info_close(clip_info *info);

#endif
