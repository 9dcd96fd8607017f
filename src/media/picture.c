/* SPDX-License-Identifier: Apache-2.0 */
#include "media/picture.h"

#include <errno.h>
#include <fcntl.h>
#include <libavcodec/avcodec.h>
#include <libavutil/imgutils.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "media/exif.h"
#include "media/ffmpeg.h"
#include "media/header.h"
#include "media/rgb.h"

/* ------------------------------------------------------------------------------------------------
 * the file's bytes */

static wan_status read_all(int fd, const char *path, uint8_t **bytes, size_t *size, error *err) {
    struct stat st;
    if (fstat(fd, &st) != 0)
        return wan_fail(err, WAN_E_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return wan_fail(err, WAN_E_IO, "%s: is not a regular file", path);
    if (st.st_size > (off_t)WAN_PICTURE_MAX_BYTES)
        return wan_fail(err, WAN_E_IMAGE, "%s: has %lld bytes; pictures of up to %zu are read",
                        path, (long long)st.st_size, WAN_PICTURE_MAX_BYTES);
    *bytes = malloc((size_t)st.st_size + 1);
    if (!*bytes)
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory for its %lld bytes", path,
                        (long long)st.st_size);
    while (*size < (size_t)st.st_size) {
        ssize_t n = read(fd, *bytes + *size, (size_t)st.st_size - *size);
        if (n < 0 && errno != EINTR)
            return wan_fail(err, WAN_E_IO, "%s: %s", path, strerror(errno));
        if (n == 0)
            break; /* shortened meanwhile: what is there will be judged */
        *size += n > 0 ? (size_t)n : 0;
    }
    return WAN_OK;
}

wan_status wan_picture_open(const char *path, picture *p, error *err) {
    uint8_t *bytes = NULL;
    size_t size = 0;
    *p = (picture){0};
    /* Non-blocking, or a named pipe without a writer would hold us here. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return wan_fail(err, WAN_E_IO, "%s: %s", path, strerror(errno));
    wan_status status = read_all(fd, path, &bytes, &size, err);
    close(fd);
    if (status == WAN_OK)
        status = wan_picture_open_bytes(bytes, size, path, p, err);
    if (status == WAN_OK)
        p->peak += size;
    free(bytes);
    return status;
}

/* ---------------------------------------------------------------------------------------------------------
 * decoding */

static wan_status check_size(const picture_header *h, const char *name, error *err) {
    if (h->width > INT_MAX / 8 || h->height > INT_MAX / 8 ||
        h->width * h->height > WAN_PICTURE_MAX_PIXELS)
        return wan_fail(
            err, WAN_E_IMAGE, "%s: is %lldx%lld; pictures of up to %lld pixels are read", name,
            (long long)h->width, (long long)h->height, (long long)WAN_PICTURE_MAX_PIXELS);
    /* The decoder would take four planes without Adobe's marker for YCbCr and alpha. */
    if (h->kind == PICTURE_JPEG && h->components == 4 && !h->adobe)
        return wan_fail(err, WAN_E_IMAGE,
                        "%s: a JPEG with 4 components and no Adobe marker to say which", name);
    return WAN_OK;
}

static AVCodecContext *open_decoder(picture_kind kind, const char *name, error *err) {
    static const enum AVCodecID id[] = {AV_CODEC_ID_PNG, AV_CODEC_ID_MJPEG, AV_CODEC_ID_WEBP};
    const AVCodec *codec = avcodec_find_decoder(id[kind]);
    AVCodecContext *c = codec ? avcodec_alloc_context3(codec) : NULL;
    if (codec && !c) {
        wan_fail(err, WAN_E_MEMORY, "%s: no memory to decode it", name);
        return NULL;
    }
    if (c) {
        c->thread_count = 1;
        c->max_pixels = WAN_PICTURE_MAX_PIXELS;
        /* Without this a truncated JPEG decodes "successfully", grey below. */
        c->err_recognition = AV_EF_EXPLODE | AV_EF_CRCCHECK;
        if (avcodec_open2(c, codec, NULL) == 0)
            return c;
    }
    avcodec_free_context(&c);
    wan_fail(err, WAN_E_IMAGE, "%s: this FFmpeg cannot decode %s", name,
             wan_picture_kind_name(kind));
    return NULL;
}

/* The one frame of the packet. */
static int receive(AVCodecContext *c, const AVPacket *packet, AVFrame *frame) {
    int r = avcodec_send_packet(c, packet);
    if (r < 0)
        return r;
    r = avcodec_receive_frame(c, frame);
    if (r != AVERROR(EAGAIN))
        return r;
    r = avcodec_send_packet(c, NULL);
    return r < 0 ? r : avcodec_receive_frame(c, frame);
}

static wan_status decode(const uint8_t *bytes, const picture_header *h, const char *name,
                         AVFrame *frame, error *err) {
    char text[WAN_FFMPEG_TEXT];
    wan_status status = WAN_OK;
    error own = {0}; /* err may be NULL, and the status is needed */
    AVCodecContext *c = open_decoder(h->kind, name, &own);
    if (!c)
        return wan_fail(err, own.code, "%s", own.message);
    AVPacket *packet = av_packet_alloc();
    if (!packet || av_new_packet(packet, (int)h->used) < 0) {
        status = wan_fail(err, WAN_E_MEMORY, "%s: no memory for its %zu bytes", name, h->used);
        goto done;
    }
    memcpy(packet->data, bytes, h->used);
    int r = receive(c, packet, frame);
    if (r == AVERROR(ENOMEM))
        status = wan_fail(err, WAN_E_MEMORY, "%s: no memory for a picture of %lldx%lld", name,
                          (long long)h->width, (long long)h->height);
    else if (r < 0)
        status = wan_fail(err, WAN_E_IMAGE,
                          "%s: damaged: this %s of %lldx%lld in %zu bytes does not decode (%s)",
                          name, wan_picture_kind_name(h->kind), (long long)h->width,
                          (long long)h->height, h->used, wan_ffmpeg_text(r, text));
    else if (frame->width != h->width || frame->height != h->height)
        status =
            wan_fail(err, WAN_E_IMAGE, "%s: lies: its header says %lldx%lld, its pixels are %dx%d",
                     name, (long long)h->width, (long long)h->height, frame->width, frame->height);
done:
    av_packet_free(&packet);
    avcodec_free_context(&c);
    return status;
}

/* A profile says what it is in a description, 8 or 16 bits a letter; PNG also in a plain name
 * before it. */
static bool says_srgb(const uint8_t *icc, size_t size) {
    static const char wide[] = "s\0R\0G\0B";
    return memmem(icc, size, "sRGB", 4) || memmem(icc, size, wide, sizeof wide - 1);
}

static bool foreign_profile(const picture_header *h, const AVFrame *f) {
    if (h->icc && says_srgb(h->icc, h->icc_size))
        return false;
    const AVFrameSideData *side =
        av_frame_get_side_data(f, AV_FRAME_DATA_ICC_PROFILE); /* unpacked */
    return h->icc && !(side && says_srgb(side->data, side->size));
}

/* rgb as stored becomes p->rgb as seen. */
static wan_status turn(picture *p, const char *name, error *err) {
    if (p->orientation == 1)
        return WAN_OK;
    uint8_t *upright = malloc((size_t)p->width * (size_t)p->height * 3);
    if (!upright)
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory to turn %dx%d pixels", name, p->width,
                        p->height);
    wan_exif_turn(p->rgb, p->width, p->height, p->orientation, upright);
    free(p->rgb);
    p->rgb = upright;
    if (p->orientation >= 5) {
        int w = p->width;
        p->width = p->height;
        p->height = w;
    }
    return WAN_OK;
}

/* Two copies of the file (ours and the decoder's), its planes, and RGB; a progressive JPEG also
 * keeps 16-bit coefficients of every plane.  Turning holds RGB twice, with the rest gone. Measured,
 * FFmpeg's own pages are under four megabytes. */
static size_t peak_bytes(const picture_header *h, const AVFrame *f) {
    size_t rgb = (size_t)f->width * (size_t)f->height * 3, pages = (size_t)4 << 20;
    int planes = av_image_get_buffer_size(f->format, f->width, f->height, 64);
    size_t decoding = h->used + (size_t)(planes > 0 ? planes : 0) * (h->progressive ? 3 : 1);
    return pages + rgb + (h->orientation != 1 && rgb > decoding ? rgb : decoding);
}

wan_status wan_picture_open_bytes(const void *bytes, size_t size, const char *name, picture *p,
                                  error *err) {
    picture_header h;
    *p = (picture){0};
    wan_ffmpeg_quiet();
    wan_status status = wan_picture_header(bytes, size, name, &h, err);
    if (status == WAN_OK)
        status = check_size(&h, name, err);
    if (status != WAN_OK)
        return status;
    AVFrame *frame = av_frame_alloc();
    if (!frame)
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory to decode it", name);
    status = decode(bytes, &h, name, frame, err);
    if (status == WAN_OK) {
        *p =
            (picture){.width = frame->width, .height = frame->height, .orientation = h.orientation};
        p->kind = wan_picture_kind_name(h.kind);
        p->profile = foreign_profile(&h, frame);
        p->peak = peak_bytes(&h, frame);
        p->rgb = malloc((size_t)p->width * (size_t)p->height * 3);
        status = p->rgb ? wan_rgb_from_frame(frame, h.kind == PICTURE_WEBP, name, p->rgb,
                                             &p->transparent, err)
                        : wan_fail(err, WAN_E_MEMORY, "%s: no memory for %dx%d pixels", name,
                                   p->width, p->height);
    }
    av_frame_free(&frame);
    if (status == WAN_OK)
        status = turn(p, name, err);
    if (status != WAN_OK)
        wan_picture_close(p);
    return status;
}

void wan_picture_close(picture *p) {
    free(p->rgb);
    *p = (picture){0};
}
