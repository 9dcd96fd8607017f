/* SPDX-License-Identifier: Apache-2.0 */
/* yuv.h - RGB frames as the 4:2:0 that video wants: BT.709, limited range, chroma sited left
 * (media.md 7). swscale would take BT.601 and site chroma in the centre, half a pixel off.
 * Stateless. */
#ifndef WAN_MEDIA_YUV_H
#define WAN_MEDIA_YUV_H

#include <stddef.h>
#include <stdint.h>

/* rgb [height, width, 3], both even; planes Y [height, width], Cb and Cr [height / 2, width / 2]
 * with their strides. */
void wan_yuv_from_rgb(const uint8_t *rgb, int width, int height, uint8_t *const plane[3],
                      const int stride[3]);

#endif
