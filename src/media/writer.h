/* SPDX-License-Identifier: Apache-2.0 */
/* writer.h - what clip.c asks of a format: open, one frame at a time, finish or abort.
 * clip.c has checked the options before; a writer keeps none of their pointers. */
#ifndef WAN_MEDIA_WRITER_H
#define WAN_MEDIA_WRITER_H

#include "media/clip.h"

typedef struct clip_writer {
    const char *ending; /* ".mp4" */
    bool even;          /* sizes must be: chroma is half as fine */
    double max_fps;     /* what its clock can tell apart; 0: any */
    void *(*open)(const clip_options *o, error *err);
    wan_status (*frame)(void *w, const uint8_t *rgb, error *err);
    /* Everything out and in place; w is freed, also on failure. */
    wan_status (*finish)(void *w, error *err);
    /* Removes what is there; w is freed. */
    void (*abort)(void *w);
    /* Estimates, both on the safe side: bytes on disk and in memory. */
    uint64_t (*disk)(const clip_options *o);
    size_t (*memory)(const clip_options *o);
} clip_writer;

extern const clip_writer wan_writer_mp4, wan_writer_webm, wan_writer_gif; /* video.c */
extern const clip_writer wan_writer_png;                                  /* png.c */
extern const clip_writer wan_writer_y4m, wan_writer_pipe; /* y4m.c: a file, standard output */

#endif
