/* SPDX-License-Identifier: Apache-2.0 */
/* pair.h - two clips of one size and length, read side by side.  One thread. */
#ifndef WAN_MEDIA_PAIR_H
#define WAN_MEDIA_PAIR_H

#include "media/compare.h"

typedef struct pair {
    frame_source *a, *b;
    const char *name_a, *name_b; /* the caller's */
    int width, height;
    uint8_t *rgb_a, *rgb_b; /* a frame of each */
    compare_stop stop;
} pair;

/* WAN_E_SHAPE with both numbers when the clips differ in size, or in length as far as known.  Also
 * after a failure the pair is to be closed. */
wan_status wan_pair_open(pair *p, const char *a, const char *b, compare_stop stop, error *err);
/* The next frame of both, of which `done` were read, into rgb_a and rgb_b; *more is false after the
 * last. WAN_E_SHAPE when only one of them ends. */
wan_status wan_pair_next(pair *p, int64_t done, bool *more, error *err);
void wan_pair_close(pair *p);

#endif
