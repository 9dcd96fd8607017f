/* SPDX-License-Identifier: Apache-2.0 */
/* resize.h - stretches an RGB picture with the Lanczos filter, bit for bit as Pillow does.
 * Pillow's 8-bit path is what the reference pipelines use on a first frame; a float filter would
 * differ by a level here and there.  Stateless; any thread may call. */
#ifndef WAN_BASE_RESIZE_H
#define WAN_BASE_RESIZE_H

#include <stdint.h>

#include "base/error.h"

/* src [sh, sw, 3] to dst [dh, dw, 3]; both the caller's, not overlapping.  The aspect ratio is not
 * kept. Fails only with WAN_E_MEMORY. */
wan_status wan_resize_lanczos(const uint8_t *src, int sw, int sh, uint8_t *dst, int dw, int dh,
                              error *err);

/* Bytes it allocates for a while, for a memory plan. */
size_t wan_resize_memory(int sw, int sh, int dw, int dh);

#endif
