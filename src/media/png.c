/* SPDX-License-Identifier: Apache-2.0 */
/* One OUT.png, or OUT-00000.png and so on.  Numbered pictures are made in a hidden folder beside
 * their place and all moved there at the end, so that a clip is there whole or not at all. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libavcodec/avcodec.h>
#include <libavutil/opt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "io/outfile.h"
#include "media/ffmpeg.h"
#include "media/png.h"
#include "media/writer.h"

#define ENDING 4 /* letters of ".png" */

typedef struct png {
    char *path;
    char *folder;  /* of numbered pictures until the end; NULL: one picture */
    outfile *file; /* of one picture */
    int64_t count, done, moved;
    size_t room; /* of the two names below, made beforehand: moving must not run out of memory */
    char *place, *hide; /* of a numbered picture: where it goes, where it waits */
    AVCodecContext *codec;
    AVFrame *frame;
    AVPacket *packet;
} png;

void wan_png_name(const char *path, int64_t frames, int64_t i, char *name, size_t size) {
    if (frames == 1)
        snprintf(name, size, "%s", path);
    else
        snprintf(name, size, "%.*s-%05" PRId64 "%s", (int)(strlen(path) - ENDING), path, i,
                 path + strlen(path) - ENDING);
}

static const char *place(const png *p, int64_t i) {
    wan_png_name(p->path, p->count, i, p->place, p->room);
    return p->place;
}

static const char *hide(const png *p, int64_t i) {
    snprintf(p->hide, p->room, "%s/%05" PRId64 ".png", p->folder, i);
    return p->hide;
}

static wan_status no_memory(const png *p, error *err) {
    return wan_fail(err, WAN_E_MEMORY, "%s: no memory to write it", p->path);
}

static wan_status fault(const png *p, int errno_value, error *err) {
    struct statvfs fs;
    unsigned long long left = 0;
    if (p->folder && statvfs(p->folder, &fs) == 0)
        left = (unsigned long long)fs.f_bavail * fs.f_frsize;
    bool full = errno_value == ENOSPC || errno_value == EDQUOT || errno_value == EFBIG;
    return wan_fail(err, full ? WAN_E_SPACE : WAN_E_OUTPUT,
                    "%s: cannot write it: %s (picture %" PRId64 " of %" PRId64 ", %llu bytes free)",
                    p->path, strerror(errno_value), p->done + (p->done < p->count), p->count, left);
}

static void png_abort(void *w) {
    png *p = w;
    for (int64_t i = p->moved; p->hide && i <= p->done && i < p->count; i++)
        unlink(hide(p, i));
    if (p->folder)
        rmdir(p->folder);
    wan_outfile_abort(p->file);
    av_packet_free(&p->packet);
    av_frame_free(&p->frame);
    avcodec_free_context(&p->codec);
    free(p->hide);
    free(p->place);
    free(p->folder);
    free(p->path);
    free(p);
}

static wan_status make_folder(png *p, error *err) {
    const char *slash = strrchr(p->path, '/'), *name = slash ? slash + 1 : p->path;
    size_t room = strlen(p->path) + 64;
    if (!(p->folder = malloc(room)))
        return no_memory(p, err);
    for (int n = 0; n < 1000; n++) {
        snprintf(p->folder, room, "%.*s.%.200s.%ld.%d.tmp", (int)(name - p->path), p->path, name,
                 (long)getpid(), n);
        if (mkdir(p->folder, 0777) != 0) {
            if (errno == EEXIST)
                continue;
            break;
        }
        p->room = room + 32;
        p->place = malloc(p->room);
        p->hide = malloc(p->room);
        return p->place && p->hide ? WAN_OK : no_memory(p, err);
    }
    int reason = errno;
    free(p->folder); /* not ours to remove */
    p->folder = NULL;
    return fault(p, reason, err);
}

static wan_status open_encoder(png *p, const clip_options *o, error *err) {
    const AVCodec *codec = avcodec_find_encoder(AV_CODEC_ID_PNG);
    p->frame = av_frame_alloc();
    p->packet = av_packet_alloc();
    p->codec = codec ? avcodec_alloc_context3(codec) : NULL;
    if (!codec)
        return wan_fail(err, WAN_E_OUTPUT, "%s: this FFmpeg cannot write PNG", p->path);
    if (!p->frame || !p->packet || !p->codec)
        return no_memory(p, err);
    p->frame->width = p->codec->width = o->width;
    p->frame->height = p->codec->height = o->height;
    p->frame->format = p->codec->pix_fmt = AV_PIX_FMT_RGB24;
    p->codec->time_base = (AVRational){o->fps_den, o->fps_num};
    p->codec->thread_count = 1;
    p->codec->flags |= AV_CODEC_FLAG_BITEXACT;
    p->codec->compression_level = 3; /* twice as fast as zlib's usual 6, files 4 % larger */
    av_opt_set(p->codec->priv_data, "pred", "mixed", 0);
    char text[WAN_FFMPEG_TEXT];
    int r = avcodec_open2(p->codec, codec, NULL);
    if (r < 0)
        return wan_fail(err, WAN_E_OUTPUT, "%s: no PNG of %dx%d: %s", p->path, o->width, o->height,
                        wan_ffmpeg_text(r, text));
    return av_frame_get_buffer(p->frame, 0) < 0 ? no_memory(p, err) : WAN_OK;
}

static void *png_open(const clip_options *o, error *err) {
    wan_ffmpeg_quiet();
    png *p = calloc(1, sizeof *p);
    if (!p || !(p->path = strdup(o->path))) {
        free(p);
        wan_fail(err, WAN_E_MEMORY, "%s: no memory to write it", o->path);
        return NULL;
    }
    p->count = o->frames;
    wan_status status = open_encoder(p, o, err);
    if (status == WAN_OK && p->count > 1)
        status = make_folder(p, err);
    else if (status == WAN_OK && !(p->file = wan_outfile_open(o->path, err)))
        status = WAN_E_OUTPUT;
    if (status == WAN_OK)
        return p;
    png_abort(p);
    return NULL;
}

static wan_status write_numbered(png *p, error *err) {
    int fd = open(hide(p, p->done), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666),
        reason = fd < 0 ? errno : 0;
    for (int at = 0; !reason && at < p->packet->size;) {
        ssize_t n = write(fd, p->packet->data + at, (size_t)(p->packet->size - at));
        if (n > 0)
            at += (int)n;
        else if (n == 0 || errno != EINTR)
            reason = n == 0 ? ENOSPC : errno;
    }
    if (fd >= 0 && close(fd) != 0 && !reason)
        reason = errno;
    return reason ? fault(p, reason, err) : WAN_OK;
}

static wan_status png_frame(void *w, const uint8_t *rgb, error *err) {
    png *p = w;
    char text[WAN_FFMPEG_TEXT];
    size_t row = (size_t)p->frame->width * 3;
    if (av_frame_make_writable(p->frame) < 0)
        return no_memory(p, err);
    for (int y = 0; y < p->frame->height; y++)
        memcpy(p->frame->data[0] + (ptrdiff_t)y * p->frame->linesize[0], rgb + (size_t)y * row,
               row);
    p->frame->pts = p->done;
    int r = avcodec_send_frame(p->codec, p->frame);
    if (r >= 0)
        r = avcodec_receive_packet(p->codec, p->packet);
    if (r == AVERROR(ENOMEM))
        return no_memory(p, err);
    if (r < 0)
        return wan_fail(err, WAN_E_OUTPUT, "%s: picture %" PRId64 " cannot be encoded: %s", p->path,
                        p->done, wan_ffmpeg_text(r, text));
    wan_status status =
        p->folder ? write_numbered(p, err)
                  : wan_outfile_write(p->file, p->packet->data, (size_t)p->packet->size, err);
    av_packet_unref(p->packet);
    p->done += status == WAN_OK;
    return status;
}

/* Nothing is moved before every place is known to be free or a file. */
static wan_status check_places(const png *p, error *err) {
    struct stat st;
    for (int64_t i = 0; i < p->count; i++)
        if (lstat(place(p, i), &st) == 0 && !S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
            return wan_fail(err, WAN_E_OUTPUT, "%s: is there and not a regular file", p->place);
    return WAN_OK;
}

static wan_status move_all(png *p, error *err) {
    for (; p->moved < p->count; p->moved++) {
        if (rename(hide(p, p->moved), place(p, p->moved)) == 0)
            continue;
        wan_status status = fault(p, errno, err);
        for (int64_t i = 0; i < p->moved; i++) /* half a clip is none */
            unlink(place(p, i));
        return status;
    }
    return WAN_OK;
}

static wan_status finish_numbered(png *p, error *err) {
    /* One call for all pictures, where syncing each would wait for the disk as often; and one for
     * their names. */
    int fd = open(p->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int reason = fd < 0 || syncfs(fd) != 0 ? errno : 0;
    wan_status status = reason ? fault(p, reason, err) : check_places(p, err);
    if (status == WAN_OK)
        status = move_all(p, err);
    if (status == WAN_OK && syncfs(fd) != 0)
        status = fault(p, errno, err);
    if (fd >= 0)
        close(fd);
    return status;
}

static wan_status png_finish(void *w, error *err) {
    png *p = w;
    wan_status status = p->folder ? finish_numbered(p, err) : wan_outfile_commit(p->file, err);
    p->file = NULL;
    png_abort(p);
    return status;
}

/* Noise does not shrink: a filter byte a row and zlib's own frame on top. */
static uint64_t png_disk(const clip_options *o) {
    return (uint64_t)o->frames *
           ((uint64_t)o->height * (3 * (uint64_t)o->width + 1) * 1001 / 1000 + 8192);
}

static size_t png_memory(const clip_options *o) {
    return 8 * (size_t)o->width * (size_t)o->height + ((size_t)3 << 20); /* measured */
}

const clip_writer wan_writer_png = {".png",     false,     0,        png_open,  png_frame,
                                    png_finish, png_abort, png_disk, png_memory};
