/* SPDX-License-Identifier: Apache-2.0 */
/* outfolder.h - a folder of outputs that appears under its name only when it is complete.
 * Files go to .NAME.PID.tmp beside it; commit renames that, abort removes it with everything in it.
 * One thread per outfolder. */
#ifndef WAN_IO_OUTFOLDER_H
#define WAN_IO_OUTFOLDER_H

#include <stddef.h>

#include "base/error.h"

typedef struct outfolder outfolder;

/* `path` must not exist, or be an empty folder: what others put there is never removed. */
outfolder *wan_outfolder_open(const char *path, error *err);
/* Where `name` ("x.json" or "sub/x.json") lies until commit; makes the folder it is in. */
wan_status wan_outfolder_place(const outfolder *f, const char *name, char *path, size_t size,
                               error *err);
/* Renames and frees.  On failure nothing is left and f is freed too. */
wan_status wan_outfolder_commit(outfolder *f, error *err);
void wan_outfolder_abort(outfolder *f); /* NULL is fine */

#endif
