/* SPDX-License-Identifier: Apache-2.0 */
/* Clips through FFmpeg's encoders and muxers: H.264 in MP4, VP9 in WebM, GIF.  The encoder sees
 * FFmpeg's API only; bytes leave through fdio into an outfile. */
#include <errno.h>
#include <inttypes.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/opt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/outfile.h"
#include "media/fdio.h"
#include "media/ffmpeg.h"
#include "media/palette.h"
#include "media/writer.h"
#include "media/yuv.h"

typedef struct video {
    char *path;
    outfile *file;
    fdio io,
        again; /* `again`: the muxer's second look at what it wrote, to put the index in front */
    AVFormatContext *muxer;
    AVCodecContext *codec;
    AVStream *stream; /* the muxer's */
    AVFrame *frame;
    AVPacket *packet;
    palette *colours; /* of a GIF */
    AVRational tick;  /* 1 / fps */
    bool begun;       /* the head is written, the trailer is not */
    int64_t count;
} video;

/* What differs between the kinds. */
typedef struct video_kind {
    const char *muxer, *encoder, *encoder_name;
    enum AVPixelFormat pixels;
    int crf;                                     /* default */
    const char *encoder_options, *muxer_options; /* key=value:... */
} video_kind;

/* A look-ahead of 20 frames instead of 40 halves the encoder's memory, for sizes within a percent
 * or so. */
static const video_kind mp4 = {"mp4",
                               "libx264",
                               "H.264 (libx264)",
                               AV_PIX_FMT_YUV420P,
                               16,
                               "preset=medium:rc-lookahead=20",
                               "movflags=faststart"};
static const video_kind webm = {"webm",
                                "libvpx-vp9",
                                "VP9 (libvpx-vp9)",
                                AV_PIX_FMT_YUV420P,
                                30,
                                "row-mt=1:cpu-used=4:lag-in-frames=16",
                                ""};
static const video_kind gif = {"gif", "gif", "GIF", AV_PIX_FMT_PAL8, -1, "", "loop=0"};

static wan_status no_memory(const video *v, error *err) {
    return wan_fail(err, WAN_E_MEMORY, "%s: no memory to encode it", v->path);
}

/* The disk's reason goes before FFmpeg's, which often only echoes it, and late. */
static wan_status failed(const video *v, int r, const char *what, error *err) {
    char text[WAN_FFMPEG_TEXT];
    int reason = v->io.fault ? v->io.fault : v->again.fault;
    if (reason)
        return wan_outfile_fault(v->file, reason, err);
    if (r == AVERROR(ENOMEM))
        return no_memory(v, err);
    return wan_fail(err, WAN_E_OUTPUT, "%s: %s failed at frame %" PRId64 ": %s", v->path, what,
                    v->count, wan_ffmpeg_text(r, text));
}

static void video_abort(void *w) {
    video *v = w;
    if (v->begun) { /* some muxers free what they hold only here; nothing more is to reach the disk
                     */
        v->io.fault = ECANCELED;
        av_write_trailer(v->muxer);
    }
    av_packet_free(&v->packet);
    av_frame_free(&v->frame);
    avcodec_free_context(&v->codec);
    if (v->muxer)
        wan_fdio_close(&v->muxer->pb);
    avformat_free_context(v->muxer);
    wan_palette_close(v->colours);
    wan_outfile_abort(v->file);
    free(v->path);
    free(v);
}

/* Faststart reads the file it is writing by opening it again: on the same descriptor, whatever the
 * name. */
static int open_again(AVFormatContext *s, AVIOContext **pb, const char *url, int flags,
                      AVDictionary **options) {
    (void)url;
    (void)options;
    video *v = s->opaque;
    if (flags & AVIO_FLAG_WRITE)
        return AVERROR(EACCES);
    v->again = (fdio){.fd = wan_outfile_fd(v->file)};
    *pb = wan_fdio_open(&v->again, false);
    return *pb ? 0 : AVERROR(ENOMEM);
}

static int close_again(AVFormatContext *s, AVIOContext *pb) {
    (void)s;
    wan_fdio_close(&pb);
    return 0;
}

static void set_colours(AVCodecContext *c) {
    c->color_range = AVCOL_RANGE_MPEG;
    c->colorspace = AVCOL_SPC_BT709;
    c->color_primaries = AVCOL_PRI_BT709;
    c->color_trc = AVCOL_TRC_BT709;
    c->chroma_sample_location = AVCHROMA_LOC_LEFT;
}

static wan_status open_encoder(video *v, const video_kind *k, const clip_options *o, error *err) {
    const AVCodec *codec = avcodec_find_encoder_by_name(k->encoder);
    if (!codec)
        return wan_fail(
            err, WAN_E_OUTPUT,
            "%s: this FFmpeg has no encoder for %s; .webm, .gif, .png and .y4m may work", v->path,
            k->encoder_name);
    AVCodecContext *c = v->codec = avcodec_alloc_context3(codec);
    if (!c)
        return no_memory(v, err);
    c->width = o->width;
    c->height = o->height;
    c->pix_fmt = k->pixels;
    c->sample_aspect_ratio = (AVRational){1, 1};
    c->time_base = v->tick;
    c->framerate = av_inv_q(v->tick);
    c->gop_size = (int)(2 * av_q2d(c->framerate) + 0.5); /* a place to jump to every two seconds */
    c->gop_size = c->gop_size < 1 ? 1 : c->gop_size;
    c->thread_count = o->threads > 0 ? o->threads : 1;
    c->flags |= AV_CODEC_FLAG_BITEXACT;
    if (v->muxer->oformat->flags & AVFMT_GLOBALHEADER)
        c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    if (k->pixels == AV_PIX_FMT_YUV420P)
        set_colours(c);
    if (k->crf >= 0)
        av_opt_set_double(c->priv_data, "crf", o->crf >= 0 ? o->crf : k->crf, 0);
    AVDictionary *options = NULL;
    int r = av_dict_parse_string(&options, k->encoder_options, "=", ":", 0);
    if (r >= 0)
        r = avcodec_open2(c, codec, &options);
    av_dict_free(&options);
    return r < 0 ? failed(v, r, "opening the encoder", err) : WAN_OK;
}

static wan_status open_muxer(video *v, const video_kind *k, error *err) {
    int r = avformat_alloc_output_context2(&v->muxer, NULL, k->muxer, NULL);
    if (r == AVERROR(ENOMEM))
        return no_memory(v, err);
    if (r < 0)
        return wan_fail(err, WAN_E_OUTPUT, "%s: this FFmpeg cannot write %s files", v->path,
                        k->muxer);
    v->io = (fdio){.fd = wan_outfile_fd(v->file)};
    v->muxer->pb = wan_fdio_open(&v->io, true);
    v->muxer->url = av_strdup("clip");
    v->muxer->opaque = v;
    v->muxer->io_open = open_again;
    v->muxer->io_close2 = close_again;
    v->muxer->flags |= AVFMT_FLAG_BITEXACT; /* no versions, dates or random numbers */
    return v->muxer->pb && v->muxer->url ? WAN_OK : no_memory(v, err);
}

static wan_status begin(video *v, const video_kind *k, const clip_options *o, error *err) {
    v->stream = avformat_new_stream(v->muxer, NULL);
    if (!v->stream || avcodec_parameters_from_context(v->stream->codecpar, v->codec) < 0)
        return no_memory(v, err);
    v->stream->time_base = v->tick;
    v->stream->avg_frame_rate = v->codec->framerate;
    v->stream->sample_aspect_ratio = v->codec->sample_aspect_ratio;
    if (o->settings && av_dict_set(&v->muxer->metadata, "comment", o->settings, 0) < 0)
        return no_memory(v, err);
    AVDictionary *options = NULL;
    int r = av_dict_parse_string(&options, k->muxer_options, "=", ":", 0);
    if (r >= 0) {
        r = avformat_write_header(v->muxer, &options);
        v->begun = r >= 0;
    }
    av_dict_free(&options);
    return r < 0 || v->io.fault ? failed(v, r, "the file's head", err) : WAN_OK;
}

static wan_status make_frame(video *v, error *err) {
    v->frame = av_frame_alloc();
    v->packet = av_packet_alloc();
    if (!v->frame || !v->packet)
        return no_memory(v, err);
    v->frame->width = v->codec->width;
    v->frame->height = v->codec->height;
    v->frame->format = v->codec->pix_fmt;
    v->frame->color_range = v->codec->color_range;
    v->frame->colorspace = v->codec->colorspace;
    v->frame->color_primaries = v->codec->color_primaries;
    v->frame->color_trc = v->codec->color_trc;
    v->frame->chroma_location = v->codec->chroma_sample_location;
    if (v->codec->pix_fmt == AV_PIX_FMT_PAL8 && !(v->colours = wan_palette_open()))
        return no_memory(v, err);
    return av_frame_get_buffer(v->frame, 0) < 0 ? no_memory(v, err) : WAN_OK;
}

static void *video_open(const video_kind *k, const clip_options *o, error *err) {
    wan_ffmpeg_quiet();
    video *v = calloc(1, sizeof *v);
    if (!v || !(v->path = strdup(o->path))) {
        free(v);
        wan_fail(err, WAN_E_MEMORY, "%s: no memory to encode it", o->path);
        return NULL;
    }
    v->tick = (AVRational){o->fps_den, o->fps_num};
    v->file = wan_outfile_open(o->path, err);
    wan_status status = v->file ? open_muxer(v, k, err) : WAN_E_OUTPUT;
    if (status == WAN_OK)
        status = open_encoder(v, k, o, err);
    if (status == WAN_OK)
        status = begin(v, k, o, err);
    if (status == WAN_OK)
        status = make_frame(v, err);
    if (status == WAN_OK)
        return v;
    video_abort(v);
    return NULL;
}

static void fill_frame(video *v, const uint8_t *rgb) {
    AVFrame *f = v->frame;
    if (!v->colours) {
        wan_yuv_from_rgb(rgb, f->width, f->height, f->data, f->linesize);
        return;
    }
    wan_palette_apply(v->colours, rgb, f->width, f->height, f->data[0], f->linesize[0]);
    uint32_t argb[WAN_PALETTE_SIZE];
    for (int i = 0; i < WAN_PALETTE_SIZE; i++) {
        const uint8_t *c = wan_palette_colour(v->colours, i);
        argb[i] = 0xFFu << 24 | (uint32_t)c[0] << 16 | (uint32_t)c[1] << 8 | c[2];
    }
    memcpy(f->data[1], argb, sizeof argb);
}

/* Everything the encoder has ready goes to the muxer. */
static wan_status drain(video *v, error *err) {
    for (;;) {
        int r = avcodec_receive_packet(v->codec, v->packet);
        if (r == AVERROR(EAGAIN) || r == AVERROR_EOF)
            return WAN_OK;
        if (r < 0)
            return failed(v, r, "encoding", err);
        if (v->packet->duration == 0)
            v->packet->duration = 1;
        av_packet_rescale_ts(v->packet, v->codec->time_base, v->stream->time_base);
        v->packet->stream_index = v->stream->index;
        r = av_interleaved_write_frame(v->muxer, v->packet);
        if (r < 0 || v->io.fault)
            return failed(v, r, "writing", err);
    }
}

static wan_status video_frame(void *w, const uint8_t *rgb, error *err) {
    video *v = w;
    if (av_frame_make_writable(v->frame) < 0)
        return no_memory(v, err);
    fill_frame(v, rgb);
    v->frame->pts = v->count;
    int r = avcodec_send_frame(v->codec, v->frame);
    if (r < 0)
        return failed(v, r, "encoding", err);
    v->count++;
    return drain(v, err);
}

static wan_status end(video *v, error *err) {
    int r = avcodec_send_frame(v->codec, NULL);
    if (r < 0)
        return failed(v, r, "encoding", err);
    wan_status status = drain(v, err);
    if (status != WAN_OK)
        return status;
    v->begun = false;
    r = av_write_trailer(v->muxer);
    avio_flush(v->muxer->pb);
    if (r >= 0)
        r = v->muxer->pb->error;
    return r < 0 || v->io.fault || v->again.fault ? failed(v, r, "finishing the file", err)
                                                  : WAN_OK;
}

static wan_status video_finish(void *w, error *err) {
    video *v = w;
    wan_status status = end(v, err);
    if (status == WAN_OK) {
        status = wan_outfile_commit(v->file, err);
        v->file = NULL;
    }
    video_abort(v);
    return status;
}

/* -----------------------------------------------------------------------------------------------------
 * the formats */

static void *mp4_open(const clip_options *o, error *err) {
    if (o->crf == 0 || o->crf > 51) { /* 0 is lossless in a profile that browsers and TVs refuse */
        wan_fail(err, WAN_E_USAGE, "%s: crf %d; an .mp4 takes 1 to 51", o->path, o->crf);
        return NULL;
    }
    return video_open(&mp4, o, err);
}

static void *webm_open(const clip_options *o, error *err) {
    if (o->crf > 63) {
        wan_fail(err, WAN_E_USAGE, "%s: crf %d; a .webm takes 0 to 63", o->path, o->crf);
        return NULL;
    }
    return video_open(&webm, o, err);
}

static void *gif_open(const clip_options *o, error *err) {
    return video_open(&gif, o, err);
}

static uint64_t pixels(const clip_options *o) {
    return (uint64_t)o->width * (uint64_t)o->height;
}

/* A quarter byte a pixel at crf 10 (media.md 13), and twice that to be safe. */
static uint64_t video_disk(const clip_options *o) {
    return pixels(o) * (uint64_t)o->frames / 2 + 65536;
}

static uint64_t gif_disk(const clip_options *o) {
    return (pixels(o) * 3 / 2 + 1024) * (uint64_t)o->frames;
}

/* Measured growth of the resident set over 20 to 60 frames of 64x64 to 1280x704, smooth and noise,
 * with FFmpeg 5.1 (libx264 164, libvpx 1.12): the libraries' pages, then bytes a pixel, and what
 * each further thread adds to these. */
static size_t measured(const clip_options *o, size_t libraries, size_t a_pixel, size_t a_thread) {
    size_t more = o->threads > 1 ? (size_t)o->threads - 1 : 0;
    return (libraries << 20) + pixels(o) * (a_pixel + a_thread * more);
}

static size_t mp4_memory(const clip_options *o) {
    return measured(o, 10, 130, 30);
}

static size_t webm_memory(const clip_options *o) {
    return measured(o, 24, 140, 30);
}

static size_t gif_memory(const clip_options *o) {
    return measured(o, 16, 8, 0);
}

// clang-format off
const clip_writer wan_writer_mp4 = { ".mp4", true, 0, mp4_open, video_frame, video_finish, video_abort, video_disk,
                                     mp4_memory };
const clip_writer wan_writer_webm = { ".webm", true, 0, webm_open, video_frame, video_finish, video_abort, video_disk,
                                      webm_memory };
const clip_writer wan_writer_gif = { ".gif", false, 50, gif_open, video_frame, video_finish, video_abort, gif_disk,
                                     gif_memory };
// clang-format on
