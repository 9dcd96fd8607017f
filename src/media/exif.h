/* SPDX-License-Identifier: Apache-2.0 */
/* exif.h - which way up a camera held the picture. */
#ifndef WAN_MEDIA_EXIF_H
#define WAN_MEDIA_EXIF_H

#include <stddef.h>
#include <stdint.h>

/* Tag 0x0112 of the first directory of a TIFF block: 1 to 8.  1 when it is absent or anything is
 * wrong: the picture itself may still be fine. */
int wan_exif_orientation(const uint8_t *tiff, size_t size);

/* src [h, w, 3] turned upright into dst, [h, w, 3] for 1 to 4 and [w, h, 3] for 5 to 8. */
void wan_exif_turn(const uint8_t *src, int w, int h, int orientation, uint8_t *dst);

#endif
