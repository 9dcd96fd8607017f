/* SPDX-License-Identifier: Apache-2.0 */
/* picture.h - a PNG, JPEG or WebP picture as RGB bytes.
 * The file is read by us, its kind told from its first bytes, and every size checked before
 * FFmpeg's decoder sees it. The result is upright (EXIF orientation applied), 8 bits a channel;
 * alpha and colour profiles are dropped, as the references do, but said.  Stateless; any thread may
 * call. */
#ifndef WAN_MEDIA_PICTURE_H
#define WAN_MEDIA_PICTURE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define WAN_PICTURE_MAX_BYTES ((size_t)256 << 20)
#define WAN_PICTURE_MAX_PIXELS ((int64_t)64 << 20)

typedef struct picture {
    uint8_t *rgb;      /* [height, width, 3]; owned, freed by wan_picture_close */
    int width, height; /* after turning it upright */
    const char *kind;  /* "PNG", "JPEG", "WebP"; static */
    int orientation;   /* EXIF, 1 to 8; 1 also when there is none */
    bool transparent;  /* had pixels that were not opaque; alpha was dropped */
    bool profile;      /* has a colour profile other than sRGB; it was ignored */
    size_t peak; /* bytes that opening it took at its worst, rgb included, for a memory plan */
} picture;

/* WAN_E_IO when the file cannot be read, WAN_E_IMAGE when it is no such picture.  On failure *p is
 * empty. */
wan_status wan_picture_open(const char *path, picture *p, error *err);
/* The same from bytes in memory; `name` stands in messages. */
wan_status wan_picture_open_bytes(const void *bytes, size_t size, const char *name, picture *p,
                                  error *err);
void wan_picture_close(picture *p);

#endif
