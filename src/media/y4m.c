/* SPDX-License-Identifier: Apache-2.0 */
/* YUV4MPEG2: a line of text, then for each frame a short line and three planes.  Any player and
 * encoder reads it, also from a pipe. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/outfile.h"
#include "media/writer.h"
#include "media/yuv.h"

#define FRAME "FRAME\n"
#define FRAME_SIZE (sizeof FRAME - 1)

typedef struct y4m {
    outfile *file; /* NULL: standard output */
    int width, height;
    uint64_t written;
    size_t size;     /* of one frame with its line */
    uint8_t *buffer; /* one frame */
} y4m;

static size_t frame_size(int width, int height) {
    return FRAME_SIZE + (size_t)width * (size_t)height / 2 * 3;
}

static wan_status pipe_fault(const y4m *y, int fault, error *err) {
    bool full = fault == ENOSPC || fault == EDQUOT || fault == EFBIG;
    return wan_fail(err, full ? WAN_E_SPACE : WAN_E_OUTPUT,
                    "standard output: cannot write: %s (after %llu bytes)", strerror(fault),
                    (unsigned long long)y->written);
}

static wan_status put(y4m *y, const void *data, size_t size, error *err) {
    if (y->file)
        return wan_outfile_write(y->file, data, size, err);
    for (const char *p = data; size > 0;) {
        ssize_t n = write(STDOUT_FILENO, p, size);
        if (n < 0 && errno == EAGAIN) /* someone made the pipe non-blocking */
            poll(&(struct pollfd){.fd = STDOUT_FILENO, .events = POLLOUT}, 1, -1);
        else if (n < 0 && errno != EINTR)
            return pipe_fault(y, errno, err);
        if (n > 0) {
            p += n;
            size -= (size_t)n;
            y->written += (uint64_t)n;
        }
    }
    return WAN_OK;
}

static void y4m_abort(void *w) {
    y4m *y = w;
    wan_outfile_abort(y->file);
    free(y->buffer);
    free(y);
}

static void *start(const clip_options *o, bool to_file, error *err) {
    char head[160];
    y4m *y = calloc(1, sizeof *y);
    if (!y || !(y->buffer = malloc(frame_size(o->width, o->height)))) {
        free(y);
        wan_fail(err, WAN_E_MEMORY, "%s: no memory for a frame of %dx%d", o->path, o->width,
                 o->height);
        return NULL;
    }
    y->width = o->width;
    y->height = o->height;
    y->size = frame_size(o->width, o->height);
    /* 420mpeg2 is the name of left-sited chroma. */
    int n = snprintf(head, sizeof head,
                     "YUV4MPEG2 W%d H%d F%d:%d Ip A1:1 C420mpeg2 XCOLORRANGE=LIMITED\n", o->width,
                     o->height, o->fps_num, o->fps_den);
    wan_status status = WAN_OK;
    if (to_file && !(y->file = wan_outfile_open(o->path, err)))
        status = WAN_E_OUTPUT;
    if (status == WAN_OK)
        status = put(y, head, (size_t)n, err);
    if (status == WAN_OK)
        return y;
    y4m_abort(y);
    return NULL;
}

static void *file_open(const clip_options *o, error *err) {
    return start(o, true, err);
}

static void *pipe_open(const clip_options *o, error *err) {
    return start(o, false, err);
}

static wan_status y4m_frame(void *w, const uint8_t *rgb, error *err) {
    y4m *y = w;
    size_t luma = (size_t)y->width * (size_t)y->height;
    uint8_t *at = y->buffer + FRAME_SIZE;
    memcpy(y->buffer, FRAME, FRAME_SIZE);
    wan_yuv_from_rgb(rgb, y->width, y->height, (uint8_t *[3]){at, at + luma, at + luma + luma / 4},
                     (int[3]){y->width, y->width / 2, y->width / 2});
    return put(y, y->buffer, y->size, err);
}

static wan_status y4m_finish(void *w, error *err) {
    y4m *y = w;
    wan_status status = WAN_OK;
    if (y->file)
        status = wan_outfile_commit(y->file, err);
    y->file = NULL;
    y4m_abort(y);
    return status;
}

static uint64_t file_disk(const clip_options *o) {
    return 160 + (uint64_t)o->frames * frame_size(o->width, o->height);
}

static uint64_t pipe_disk(const clip_options *o) {
    (void)o;
    return 0;
}

static size_t y4m_memory(const clip_options *o) {
    return frame_size(o->width, o->height);
}

const clip_writer wan_writer_y4m = {".y4m",     true,      0,         file_open, y4m_frame,
                                    y4m_finish, y4m_abort, file_disk, y4m_memory};
const clip_writer wan_writer_pipe = {"-",        true,      0,         pipe_open, y4m_frame,
                                     y4m_finish, y4m_abort, pipe_disk, y4m_memory};
