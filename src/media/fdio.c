/* SPDX-License-Identifier: Apache-2.0 */
#include "media/fdio.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFER (64 << 10)

#if LIBAVFORMAT_VERSION_MAJOR >= 61
typedef const uint8_t written_byte;
#else
typedef uint8_t written_byte;
#endif

static int fail(fdio *io, int fault) {
    if (!io->fault)
        io->fault = fault;
    return AVERROR(fault);
}

static int read_some(void *opaque, uint8_t *buffer, int size) {
    fdio *io = opaque;
    for (;;) {
        ssize_t n = pread(io->fd, buffer, (size_t)size, io->at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail(io, errno);
        io->at += n;
        return n ? (int)n : AVERROR_EOF;
    }
}

static int write_all(void *opaque, written_byte *buffer, int size) {
    fdio *io = opaque;
    if (io->fault)
        return AVERROR(io->fault);
    for (int done = 0; done < size;) {
        ssize_t n = pwrite(io->fd, buffer + done, (size_t)(size - done), io->at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return fail(io, n < 0 ? errno : ENOSPC);
        done += (int)n;
        io->at += n;
    }
    return size;
}

static int64_t seek(void *opaque, int64_t offset, int whence) {
    fdio *io = opaque;
    struct stat st;
    whence &= ~AVSEEK_FORCE;
    if (whence == AVSEEK_SIZE || whence == SEEK_END) {
        if (fstat(io->fd, &st) != 0)
            return fail(io, errno);
        if (whence == AVSEEK_SIZE)
            return st.st_size;
        offset += st.st_size;
    } else if (whence == SEEK_CUR) {
        offset += io->at;
    }
    if (offset < 0)
        return AVERROR(EINVAL);
    return io->at = offset;
}

AVIOContext *wan_fdio_open(fdio *io, bool writing) {
    uint8_t *buffer = av_malloc(BUFFER);
    AVIOContext *pb = buffer ? avio_alloc_context(buffer, BUFFER, writing, io, read_some,
                                                  writing ? write_all : NULL, seek)
                             : NULL;
    if (!pb)
        av_free(buffer);
    return pb;
}

void wan_fdio_close(AVIOContext **pb) {
    if (*pb)
        av_freep(&(*pb)->buffer);
    avio_context_free(pb);
}
