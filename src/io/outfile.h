/* SPDX-License-Identifier: Apache-2.0 */
/* outfile.h - an output that appears under its name only when it is complete (media.md 13).
 * Bytes go to .NAME.PID.tmp in the same folder; commit syncs and renames it, abort removes it.
 * Errors of the disk are WAN_E_SPACE or WAN_E_OUTPUT with the path, the reason and how far it got.
 * One thread per outfile. */
#ifndef WAN_IO_OUTFILE_H
#define WAN_IO_OUTFILE_H

#include <stdint.h>

#include "base/error.h"

typedef struct outfile outfile;

/* An existing `path` is replaced at commit; until then it is untouched. */
outfile *wan_outfile_open(const char *path, error *err);
int wan_outfile_fd(const outfile *f);
const char *wan_outfile_temp(const outfile *f); /* path of the temporary file */
wan_status wan_outfile_write(outfile *f, const void *data, size_t size, error *err);
/* Bytes written so far. */
uint64_t wan_outfile_size(const outfile *f);
/* Replaces bytes that were written before: [at, at + size) lies within them. */
wan_status wan_outfile_patch(outfile *f, const void *data, size_t size, uint64_t at, error *err);
/* The error a failed write or another library's failure means: looks at errno_value and says it
 * with the path. */
wan_status wan_outfile_fault(const outfile *f, int errno_value, error *err);
/* Sync, rename, sync the folder, free.  On failure the temporary file is gone and so is f. */
wan_status wan_outfile_commit(outfile *f, error *err);
/* Removes the temporary file and frees f; NULL is fine. */
void wan_outfile_abort(outfile *f);

#endif
