/* SPDX-License-Identifier: Apache-2.0 */
/* compare.h - two clips, frame by frame: measures of each frame and each chunk, and a picture of
 * where they differ.
 * A chunk is what one latent frame decodes to: the first frame alone, then four at a time.  Two
 * frames are held at a time, whatever the clips' length.  One thread. */
#ifndef WAN_MEDIA_COMPARE_H
#define WAN_MEDIA_COMPARE_H

#include "media/frames.h"
#include "media/quality.h"

typedef struct comparison {
    int width, height;
    bool lossless; /* both clips hold the bytes that were computed */
    size_t frames, chunks;
    quality *frame; /* [frames] */
    quality *chunk; /* [chunks], means over their frames */
    quality all;
    size_t worst_frame; /* with the largest squared error */
    quality worst;      /* each measure of the chunk that is worst by it, perhaps different ones */
    quality median;     /* likewise */
    size_t worst_chunk; /* with the largest squared error */
} comparison;

/* Polled once a frame; non-zero stops with WAN_E_CANCELLED. */
typedef int (*compare_stop)(void *unused);

/* WAN_E_SHAPE when sizes or counts differ, and what wan_frames_open and _next refuse.  On failure c
 * is empty. */
wan_status wan_compare(const char *a, const char *b, compare_stop stop, comparison *c, error *err);
void wan_comparison_close(comparison *c);
/* The first frame of a chunk; of chunk `chunks`: the number of frames. */
size_t wan_chunk_first(const comparison *c, size_t chunk);

#define WAN_SHEET_COLUMNS 6

/* What a contact sheet shows, from left to right: frames evenly from the first to the last, the
 * worst in place of its neighbour.  Returns how many, at most WAN_SHEET_COLUMNS. */
size_t wan_sheet_frames(const comparison *c, size_t frame[WAN_SHEET_COLUMNS]);

/* Writes a PNG with a row of A, a row of B and a row of |A - B| times `amplify`, cut off at white.
 * Reads both clips again.  Frames are made smaller by a whole factor where the sheet would be wider
 * than 8192 pixels. */
wan_status wan_compare_sheet(const char *a, const char *b, const comparison *c, int amplify,
                             compare_stop stop, const char *path, error *err);

#endif
