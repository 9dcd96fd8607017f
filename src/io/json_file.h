/* SPDX-License-Identifier: Apache-2.0 */
/* json_file.h - JSON from outside: whole, strict, shallow.
 * Duplicate keys, NUL in names, invalid UTF-8, trailing bytes and deep nesting are refused. */
#ifndef WAN_IO_JSON_FILE_H
#define WAN_IO_JSON_FILE_H

#include <jansson.h>
#include <stddef.h>

#include "base/error.h"

/* An object; `what` ("the header") and `path` stand in messages.  The caller decrefs it. */
json_t *wan_json_parse(const char *text, size_t size, int depth, const char *path, const char *what,
                       error *err);
/* A small file (at most 16 MB) that holds an object. */
json_t *wan_json_load(const char *path, error *err);

#endif
