/* SPDX-License-Identifier: Apache-2.0 */
/* header.h - what a picture file says about itself, read without a decoder.
 * Its kind, size, EXIF orientation, and whether all of it is there.  Every offset is checked
 * against the bytes at hand, so hostile files end in an error, never outside the buffer. Stateless.
 */
#ifndef WAN_MEDIA_HEADER_H
#define WAN_MEDIA_HEADER_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef enum picture_kind { PICTURE_PNG, PICTURE_JPEG, PICTURE_WEBP } picture_kind;

typedef struct picture_header {
    picture_kind kind;
    int64_t width, height; /* as stored, before orientation */
    int orientation;       /* 1 to 8; 1 when absent or nonsense */
    bool progressive;      /* JPEG: the decoder keeps all coefficients */
    int components;        /* JPEG: 1, 3 or 4 */
    bool adobe;            /* JPEG: has Adobe's marker */
    const uint8_t *icc;    /* start of a colour profile in the bytes (PNG: its name), or NULL */
    size_t icc_size;
    size_t used; /* bytes that belong to the (first) picture */
} picture_header;

const char *wan_picture_kind_name(picture_kind kind);

/* WAN_E_IMAGE with `name` in the sentence when the bytes are no picture of these kinds, are cut
 * short or lie. */
wan_status wan_picture_header(const uint8_t *bytes, size_t size, const char *name,
                              picture_header *h, error *err);

#endif
