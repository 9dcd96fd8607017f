/* SPDX-License-Identifier: Apache-2.0 */
/* The header of a clip file, through FFmpeg's demuxers for MP4 and WebM and no others: the kind is
 * told from the first bytes, the bytes come through our own descriptor, and nothing else can be
 * opened. */
#include <errno.h>
#include <fcntl.h>
#include <libavformat/avformat.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "media/clip.h"
#include "media/fdio.h"
#include "media/ffmpeg.h"

static const AVInputFormat *tell_kind(int fd) {
    uint8_t head[12] = {0};
    if (pread(fd, head, sizeof head, 0) != (ssize_t)sizeof head)
        return NULL;
    if (memcmp(head + 4, "ftyp", 4) == 0)
        return av_find_input_format("mov");
    if (memcmp(head, "\x1a\x45\xdf\xa3", 4) == 0)
        return av_find_input_format("matroska");
    return NULL;
}

static wan_status fill(const AVFormatContext *f, const char *path, clip_info *info, error *err) {
    const AVStream *s = NULL;
    for (unsigned i = 0; i < f->nb_streams && !s; i++)
        if (f->streams[i]->codecpar->codec_type == AVMEDIA_TYPE_VIDEO)
            s = f->streams[i];
    if (!s)
        return wan_fail(err, WAN_E_FORMAT, "%s: has %u streams, none of them pictures", path,
                        f->nb_streams);
    info->width = s->codecpar->width;
    info->height = s->codecpar->height;
    info->frames = s->nb_frames;
    bool rate = s->avg_frame_rate.num > 0 && s->avg_frame_rate.den > 0;
    info->fps_num = rate ? s->avg_frame_rate.num : 0;
    info->fps_den = rate ? s->avg_frame_rate.den : 1;
    if (s->duration > 0)
        info->seconds = (double)s->duration * av_q2d(s->time_base);
    else if (f->duration > 0)
        info->seconds = (double)f->duration / AV_TIME_BASE;
    const AVDictionaryEntry *e = av_dict_get(f->metadata, "comment", NULL, 0);
    if (e && !(info->settings = strdup(e->value)))
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory for its settings", path);
    return WAN_OK;
}

static wan_status read_header(int fd, const char *path, clip_info *info, error *err) {
    char text[WAN_FFMPEG_TEXT];
    const AVInputFormat *kind = tell_kind(fd);
    if (!kind)
        return wan_fail(err, WAN_E_FORMAT, "%s: is neither an MP4 nor a WebM", path);
    fdio io = {.fd = fd};
    AVIOContext *pb = wan_fdio_open(&io, false);
    AVFormatContext *f = avformat_alloc_context();
    wan_status status = WAN_OK;
    if (!pb || !f) {
        status = wan_fail(err, WAN_E_MEMORY, "%s: no memory to read it", path);
        goto done;
    }
    f->pb = pb;
    f->io_open = wan_ffmpeg_open_nothing;
    int r = avformat_open_input(&f, NULL, kind, NULL); /* frees f when it fails */
    if (io.fault)
        status = wan_fail(err, WAN_E_IO, "%s: %s", path, strerror(io.fault));
    else if (r < 0) /* out of memory too: by then a table was larger than any file */
        status = wan_fail(err, WAN_E_FORMAT, "%s: damaged or cut short: %s", path,
                          wan_ffmpeg_text(r, text));
    else
        status = fill(f, path, info, err);
done:
    if (f)
        avformat_close_input(&f);
    wan_fdio_close(&pb);
    return status;
}

wan_status wan_clip_inspect(const char *path, clip_info *info, error *err) {
    *info = (clip_info){.fps_den = 1};
    wan_ffmpeg_quiet();
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        wan_status status = wan_fail(err, WAN_E_IO, "%s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return status;
    }
    wan_status status = S_ISREG(st.st_mode)
                            ? read_header(fd, path, info, err)
                            : wan_fail(err, WAN_E_IO, "%s: is not a regular file", path);
    close(fd);
    if (status != WAN_OK)
        wan_clip_info_close(info);
    return status;
}

void wan_clip_info_close(clip_info *info) {
    free(info->settings);
    *info = (clip_info){.fps_den = 1};
}
