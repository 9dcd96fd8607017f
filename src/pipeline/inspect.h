/* SPDX-License-Identifier: Apache-2.0 */
/* inspect.h - what a checkpoint holds, without reading its weights. */
#ifndef WAN_PIPELINE_INSPECT_H
#define WAN_PIPELINE_INSPECT_H

#include <jansson.h>

#include "wan.h"

/* {"path", "parts": [{"part", "path", "layout", "variant", "tensors", "bytes", "types": {T:
 * {"tensors", "bytes"}}, "missing": [...], "unexpected": [...], "problem": "..." when it cannot be
 * used}], "tokenizer": path, "absent": [...]}. `path` is a model folder, one part's folder or a
 * weight file.  The caller owns the object.  NULL: nothing known there. */
json_t *wan_inspect(const char *path, wan_error *err);

#endif
