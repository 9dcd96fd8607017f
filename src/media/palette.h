/* SPDX-License-Identifier: Apache-2.0 */
/* palette.h - 256 colours for a frame, and the frame in them.
 * Median cut over a histogram; a palette that still fits the next frame is kept, so that still
 * parts stay still. One thread per palette. */
#ifndef WAN_MEDIA_PALETTE_H
#define WAN_MEDIA_PALETTE_H

#include <stddef.h>
#include <stdint.h>

#define WAN_PALETTE_SIZE 256

typedef struct palette palette;

palette *wan_palette_open(void); /* NULL: no memory */
void wan_palette_close(palette *p);

/* Finds the colours for rgb [height, width, 3] and writes indices [height, stride] with an ordered
 * dither. */
void wan_palette_apply(palette *p, const uint8_t *rgb, int width, int height, uint8_t *index,
                       int stride);
/* R, G, B of colour i, as of the last apply. */
const uint8_t *wan_palette_colour(const palette *p, int i);

#endif
