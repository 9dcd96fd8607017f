/* SPDX-License-Identifier: Apache-2.0 */
/* png.h - names of numbered pictures. */
#ifndef WAN_MEDIA_PNG_H
#define WAN_MEDIA_PNG_H

#include <stddef.h>
#include <stdint.h>

/* Picture i of `frames`: OUT.png of one, OUT-00000.png of more.  path ends in .png. */
void wan_png_name(const char *path, int64_t frames, int64_t i, char *name, size_t size);

#endif
