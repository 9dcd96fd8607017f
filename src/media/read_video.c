/* SPDX-License-Identifier: Apache-2.0 */
/* The frames of a video through FFmpeg.  As in inspect.c the kind is told from the first bytes, the
 * bytes come through our own descriptor, and nothing else can be opened; only decoders that a clip
 * can reasonably need are. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/imgutils.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "media/fdio.h"
#include "media/ffmpeg.h"
#include "media/picture.h"
#include "media/reader.h"

#define MAX_SIDE 16384
#define SWS_EXACT (SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_FULL_CHR_H_INP)

typedef struct video {
    char *path;
    fdio io;
    AVIOContext *pb;
    AVFormatContext *f;
    const AVStream *stream;
    AVCodecContext *codec;
    AVPacket *packet;
    AVFrame *frame;
    struct SwsContext *sws;
    uint8_t *plane[4]; /* one frame of RGB in swscale's alignment */
    int stride[4];
    int width, height;
    bool ended;     /* no packets are left */
    int64_t frames; /* handed out */
    int64_t least;  /* how many there must be, from duration and rate; 0: unknown */
    int64_t whole;  /* bytes up to the end of the last packet */
    bool plain;     /* y4m: frames fill the file to its end */
} video;

static const char *demuxer_of(const uint8_t *head, size_t size) {
    if (size >= 12 && memcmp(head + 4, "ftyp", 4) == 0)
        return "mov";
    if (size >= 12 && memcmp(head, "\x1a\x45\xdf\xa3", 4) == 0)
        return "matroska";
    if (size >= 10 && memcmp(head, "YUV4MPEG2 ", 10) == 0)
        return "yuv4mpegpipe";
    return NULL;
}

bool wan_reader_video_knows(const uint8_t *head, size_t size) {
    return demuxer_of(head, size) != NULL;
}

/* ------------------------------------------------------------------------------------------------
 * opening */

static void video_close(void *r) {
    video *v = r;
    sws_freeContext(v->sws);
    av_freep(&v->plane[0]);
    av_frame_free(&v->frame);
    av_packet_free(&v->packet);
    avcodec_free_context(&v->codec);
    avformat_close_input(&v->f);
    wan_fdio_close(&v->pb);
    if (v->io.fd >= 0)
        close(v->io.fd);
    free(v->path);
    free(v);
}

static wan_status no_memory(const video *v, error *err) {
    return wan_fail(err, WAN_E_MEMORY, "%s: no memory to read it", v->path);
}

static wan_status damaged(const video *v, int r, error *err) {
    char text[WAN_FFMPEG_TEXT];
    if (v->io.fault)
        return wan_fail(err, WAN_E_IO, "%s: %s", v->path, strerror(v->io.fault));
    char of[32] = "";
    if (v->stream && v->stream->nb_frames > 0)
        snprintf(of, sizeof of, " of %" PRId64, v->stream->nb_frames);
    return wan_fail(err, WAN_E_FORMAT, "%s: damaged or cut short after %" PRId64 "%s frames: %s",
                    v->path, v->frames, of, wan_ffmpeg_text(r, text));
}

static wan_status open_demuxer(video *v, error *err) {
    uint8_t head[12];
    v->io.fd = open(v->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = v->io.fd < 0 ? -1 : pread(v->io.fd, head, sizeof head, 0);
    if (n < 0)
        return wan_fail(err, WAN_E_IO, "%s: %s", v->path, strerror(errno));
    const char *name = demuxer_of(head, (size_t)n);
    const AVInputFormat *kind = name ? av_find_input_format(name) : NULL;
    if (!kind)
        return wan_fail(err, WAN_E_FORMAT, "%s: this FFmpeg cannot read %s files", v->path,
                        name ? name : "such");
    v->plain = strcmp(name, "yuv4mpegpipe") == 0;
    v->pb = wan_fdio_open(&v->io, false);
    v->f = avformat_alloc_context();
    /* Without edit lists every frame of the file is one of the clip. */
    AVDictionary *options = NULL;
    if (!v->pb || !v->f || av_dict_set(&options, "ignore_editlist", "1", 0) < 0) {
        av_dict_free(&options);
        return no_memory(v, err);
    }
    v->f->pb = v->pb;
    v->f->io_open = wan_ffmpeg_open_nothing;
    int r = avformat_open_input(&v->f, NULL, kind, &options); /* frees f when it fails */
    av_dict_free(&options);
    if (v->io.fault || r < 0)
        return damaged(v, r, err);
    for (unsigned i = 0; i < v->f->nb_streams && !v->stream; i++)
        if (v->f->streams[i]->codecpar->codec_type == AVMEDIA_TYPE_VIDEO)
            v->stream = v->f->streams[i];
    return v->stream ? WAN_OK
                     : wan_fail(err, WAN_E_FORMAT, "%s: has %u streams, none of them pictures",
                                v->path, v->f->nb_streams);
}

static bool known_codec(enum AVCodecID id) {
    static const enum AVCodecID known[] = {
        AV_CODEC_ID_H264, AV_CODEC_ID_HEVC,   AV_CODEC_ID_VP8,
        AV_CODEC_ID_VP9,  AV_CODEC_ID_AV1,    AV_CODEC_ID_MPEG4,
        AV_CODEC_ID_FFV1, AV_CODEC_ID_PRORES, AV_CODEC_ID_RAWVIDEO};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i] == id)
            return true;
    return false;
}

static wan_status open_decoder(video *v, error *err) {
    const AVCodecParameters *p = v->stream->codecpar;
    const AVCodec *codec = known_codec(p->codec_id) ? avcodec_find_decoder(p->codec_id) : NULL;
    if (!codec)
        return wan_fail(err, WAN_E_FORMAT, "%s: its pictures are %s, which cannot be decoded here",
                        v->path, avcodec_get_name(p->codec_id));
    if (p->width < 1 || p->height < 1 || p->width > MAX_SIDE || p->height > MAX_SIDE ||
        (int64_t)p->width * p->height > WAN_PICTURE_MAX_PIXELS)
        return wan_fail(err, WAN_E_FORMAT,
                        "%s: is %dx%d; clips with sides of 1 to %d and up to %lld pixels are read",
                        v->path, p->width, p->height, MAX_SIDE, (long long)WAN_PICTURE_MAX_PIXELS);
    v->width = p->width;
    v->height = p->height;
    v->codec = avcodec_alloc_context3(codec);
    v->packet = av_packet_alloc();
    v->frame = av_frame_alloc();
    if (!v->codec || !v->packet || !v->frame || avcodec_parameters_to_context(v->codec, p) < 0)
        return no_memory(v, err);
    v->codec->thread_count = 1;
    v->codec->max_pixels = WAN_PICTURE_MAX_PIXELS;
    /* A damaged frame must be an error, not a guess. */
    v->codec->err_recognition = AV_EF_EXPLODE | AV_EF_CRCCHECK | AV_EF_BITSTREAM | AV_EF_BUFFER;
    int r = avcodec_open2(v->codec, codec, NULL);
    if (r < 0)
        return damaged(v, r, err);
    if (av_image_alloc(v->plane, v->stride, v->width, v->height, AV_PIX_FMT_RGB24, 64) < 0)
        return no_memory(v, err);
    return WAN_OK;
}

/* WebM counts no frames, but says how long it is. */
static int64_t frames_by_time(const video *v) {
    AVRational rate = v->stream->avg_frame_rate;
    double seconds = v->f->duration > 0 ? (double)v->f->duration / AV_TIME_BASE : 0;
    double frames = rate.num > 0 && rate.den > 0 ? seconds * av_q2d(rate) : 0;
    return frames < WAN_FRAMES_MAX ? (int64_t)floor(frames + 0.5) : WAN_FRAMES_MAX;
}

static void *video_open(const char *path, frames_info *info, error *err) {
    wan_ffmpeg_quiet();
    video *v = calloc(1, sizeof *v);
    if (!v || !(v->path = strdup(path))) {
        free(v);
        wan_fail(err, WAN_E_MEMORY, "%s: no memory to read it", path);
        return NULL;
    }
    v->io.fd = -1;
    wan_status status = open_demuxer(v, err);
    if (status == WAN_OK)
        status = open_decoder(v, err);
    int64_t count = status == WAN_OK && !v->plain ? v->stream->nb_frames : 0;
    if (count < 0 || count > WAN_FRAMES_MAX)
        status = wan_fail(err, WAN_E_FORMAT, "%s: says %" PRId64 " frames; up to %d are read", path,
                          count, WAN_FRAMES_MAX);
    if (status != WAN_OK) {
        video_close(v);
        return NULL;
    }
    v->least = count || v->plain ? 0 : frames_by_time(v);
    *info = (frames_info){v->width, v->height, count, false};
    return v;
}

/* ------------------------------------------------------------------------------------------------
 * decoding */

static wan_status feed(video *v, error *err) {
    int r = av_read_frame(v->f, v->packet);
    if (v->io.fault || (r < 0 && r != AVERROR_EOF))
        return damaged(v, r, err);
    if (r == AVERROR_EOF) {
        v->ended = true;
        r = avcodec_send_packet(v->codec, NULL);
        return r < 0 ? damaged(v, r, err) : WAN_OK;
    }
    v->whole = avio_tell(v->pb);
    bool mine = v->packet->stream_index == v->stream->index;
    if (mine && v->packet->flags & AV_PKT_FLAG_CORRUPT)
        r = AVERROR_INVALIDDATA;
    else if (mine)
        r = avcodec_send_packet(v->codec, v->packet);
    av_packet_unref(v->packet);
    return r < 0 ? damaged(v, r, err) : WAN_OK;
}

static wan_status check_end(const video *v, error *err) {
    struct stat st;
    if (v->plain && fstat(v->io.fd, &st) == 0 && st.st_size != v->whole)
        return wan_fail(err, WAN_E_FORMAT,
                        "%s: cut short: %" PRId64 " whole frames end at byte %" PRId64 " of %lld",
                        v->path, v->frames, v->whole, (long long)st.st_size);
    /* Durations are rounded; one frame missing in a file without a count cannot be told. */
    if (v->frames + 1 < v->least)
        return wan_fail(err, WAN_E_FORMAT,
                        "%s: cut short: its length says %" PRId64 " frames, %" PRId64
                        " can be read",
                        v->path, v->least, v->frames);
    return WAN_OK;
}

static wan_status convert(video *v, uint8_t *rgb, error *err) {
    const AVFrame *f = v->frame;
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(f->format);
    if (f->width != v->width || f->height != v->height)
        return wan_fail(err, WAN_E_FORMAT, "%s: says %dx%d, its frame %" PRId64 " is %dx%d",
                        v->path, v->width, v->height, v->frames, f->width, f->height);
    if (!d || d->flags & AV_PIX_FMT_FLAG_HWACCEL || !sws_isSupportedInput(f->format))
        return wan_fail(err, WAN_E_FORMAT, "%s: pixels of a kind that cannot be read (%s)", v->path,
                        d ? d->name : "unknown");
    v->sws = sws_getCachedContext(v->sws, f->width, f->height, f->format, f->width, f->height,
                                  AV_PIX_FMT_RGB24, SWS_EXACT, NULL, NULL, NULL);
    if (!v->sws)
        return no_memory(v, err);
    int space = f->colorspace == AVCOL_SPC_UNSPECIFIED ? AVCOL_SPC_BT709 : f->colorspace;
    bool full = f->color_range == AVCOL_RANGE_JPEG || strncmp(d->name, "yuvj", 4) == 0;
    /* Refused for RGB sources, which need none of it. */
    sws_setColorspaceDetails(v->sws, sws_getCoefficients(space), full,
                             sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, 1 << 16, 1 << 16);
    int rows = sws_scale(v->sws, (const uint8_t *const *)f->data, f->linesize, 0, f->height,
                         v->plane, v->stride);
    if (rows != v->height)
        return damaged(v, rows < 0 ? rows : AVERROR_EXTERNAL, err);
    size_t row = (size_t)v->width * 3;
    for (int y = 0; y < v->height; y++)
        memcpy(rgb + (size_t)y * row, v->plane[0] + (ptrdiff_t)y * v->stride[0], row);
    return WAN_OK;
}

static wan_status video_next(void *r, uint8_t *rgb, bool *more, error *err) {
    video *v = r;
    wan_status status = WAN_OK;
    *more = false;
    while (status == WAN_OK) {
        int got = avcodec_receive_frame(v->codec, v->frame);
        if (got == AVERROR_EOF)
            return check_end(v, err);
        if (got == AVERROR(EAGAIN) && !v->ended) {
            status = feed(v, err);
            continue;
        }
        if (got < 0)
            return damaged(v, got, err);
        status = convert(v, rgb, err);
        av_frame_unref(v->frame);
        if (status == WAN_OK) {
            v->frames++;
            *more = true;
        }
        return status;
    }
    return status;
}

const frame_reader wan_reader_video = {video_open, video_next, video_close};
