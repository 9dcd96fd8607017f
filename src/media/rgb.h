/* SPDX-License-Identifier: Apache-2.0 */
/* rgb.h - a decoder's frame as RGB bytes, the way the references see it.
 * Chroma is spread and converted by our own code, because swscale's defaults differ from Pillow by
 * up to 86 levels (media.md 2): JPEG as libjpeg does it, WebP as libwebp does it.  Stateless. */
#ifndef WAN_MEDIA_RGB_H
#define WAN_MEDIA_RGB_H

#include <libavutil/frame.h>
#include <stdint.h>

#include "base/error.h"

/* f is what a still picture's decoder gives; `webp` picks the rules of WebP for its YCbCr.  rgb is
 * [f->height, f->width, 3].  *transparent is set when a pixel is not opaque.  WAN_E_IMAGE for a
 * pixel format no such decoder should give, WAN_E_MEMORY. */
wan_status wan_rgb_from_frame(const AVFrame *f, bool webp, const char *name, uint8_t *rgb,
                              bool *transparent, error *err);

#endif
