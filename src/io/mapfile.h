/* SPDX-License-Identifier: Apache-2.0 */
/* mapfile.h - a regular file in the address space, read-only.
 * Pages are read when touched; a file that another program shortens meanwhile makes touching it
 * fatal (SIGBUS). */
#ifndef WAN_IO_MAPFILE_H
#define WAN_IO_MAPFILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct mapfile {
    const uint8_t *data;
    size_t size; /* at least 1 */
} mapfile;

/* A directory, a pipe, an empty file, a missing file: each is an error of its own. */
wan_status wan_map_open(mapfile *m, const char *path, error *err);
void wan_map_close(mapfile *m);
/* Resident pages may go; they come back from the file when touched. */
void wan_map_drop(const mapfile *m);

#endif
