/* SPDX-License-Identifier: Apache-2.0 */
/* fdio.h - FFmpeg's input and output over a file descriptor of ours.
 * Paths never reach FFmpeg, which would take "http:x.mp4" for an address; and the errno of a failed
 * write is kept, which FFmpeg may report late or as something else.  One thread per fdio. */
#ifndef WAN_MEDIA_FDIO_H
#define WAN_MEDIA_FDIO_H

#include <libavformat/avformat.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct fdio {
    int fd; /* the caller's */
    int64_t at;
    int fault; /* errno of the first failure, or 0; once set nothing is written any more */
} fdio;

/* A context that reads, or reads and writes, through io, which must outlive it.  NULL: no memory.
 */
AVIOContext *wan_fdio_open(fdio *io, bool writing);
void wan_fdio_close(AVIOContext **pb);

#endif
