/* SPDX-License-Identifier: Apache-2.0 */
#include "media/clip.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "media/png.h"
#include "media/writer.h"

#define MAX_SIDE 16384
#define MAX_FRAMES 99999 /* five digits in a numbered name */

struct clip {
    const clip_writer *writer;
    void *w; /* NULL once it failed */
    int64_t frames, written;
    size_t frame_bytes;
    error failure;
};

static const clip_writer *find_writer(const char *path) {
    static const clip_writer *const all[] = {&wan_writer_mp4, &wan_writer_webm, &wan_writer_gif,
                                             &wan_writer_png, &wan_writer_y4m};
    if (strcmp(path, "-") == 0)
        return &wan_writer_pipe;
    size_t n = strlen(path);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        size_t k = strlen(all[i]->ending);
        if (n > k && path[n - k - 1] != '/' && strcasecmp(path + n - k, all[i]->ending) == 0)
            return all[i];
    }
    return NULL;
}

bool wan_clip_known(const char *path) {
    return find_writer(path) != NULL;
}

static wan_status check(const clip_options *o, const clip_writer *w, error *err) {
    if (!w)
        return wan_fail(err, WAN_E_USAGE, "%s: a clip ends in .mp4, .webm, .gif, .png or .y4m",
                        o->path);
    if (o->width < 1 || o->height < 1 || o->width > MAX_SIDE || o->height > MAX_SIDE)
        return wan_fail(err, WAN_E_USAGE, "%s: a clip of %dx%d; sides go from 1 to %d", o->path,
                        o->width, o->height, MAX_SIDE);
    if (w->even && (o->width % 2 || o->height % 2))
        return wan_fail(err, WAN_E_USAGE, "%s: %dx%d, but %s needs even sides", o->path, o->width,
                        o->height, w == &wan_writer_pipe ? "y4m" : w->ending);
    if (o->frames < 1 || o->frames > MAX_FRAMES)
        return wan_fail(err, WAN_E_USAGE, "%s: %" PRId64 " frames; a clip has 1 to %d", o->path,
                        o->frames, MAX_FRAMES);
    if (o->fps_num < 1 || o->fps_den < 1)
        return wan_fail(err, WAN_E_USAGE, "%s: %d/%d frames a second", o->path, o->fps_num,
                        o->fps_den);
    if (w->max_fps > 0 && (double)o->fps_num / o->fps_den > w->max_fps)
        return wan_fail(err, WAN_E_USAGE, "%s: %.6g frames a second; a %s shows at most %.0f",
                        o->path, (double)o->fps_num / o->fps_den, w->ending, w->max_fps);
    return WAN_OK;
}

/* Better now than after hours of computing. */
static wan_status check_space(const clip_options *o, const clip_writer *w, error *err) {
    uint64_t need = w->disk(o);
    const char *slash = strrchr(o->path, '/');
    char *folder =
        slash ? strndup(o->path, slash == o->path ? 1 : (size_t)(slash - o->path)) : strdup(".");
    struct statvfs fs;
    bool known = need && folder && statvfs(folder, &fs) == 0 && fs.f_blocks > 0; /* not /proc */
    free(folder);
    uint64_t have = known ? (uint64_t)fs.f_bavail * fs.f_frsize : UINT64_MAX;
    if (need > have)
        return wan_fail(err, WAN_E_SPACE,
                        "%s: may need %" PRIu64 " bytes for %" PRId64
                        " frames of %dx%d, the disk has "
                        "%" PRIu64 " free",
                        o->path, need, o->frames, o->width, o->height, have);
    return WAN_OK;
}

clip *wan_clip_open(const clip_options *o, error *err) {
    const clip_writer *writer = find_writer(o->path);
    if (check(o, writer, err) != WAN_OK || check_space(o, writer, err) != WAN_OK)
        return NULL;
    clip *c = calloc(1, sizeof *c);
    if (!c) {
        wan_fail(err, WAN_E_MEMORY, "%s: no memory to write it", o->path);
        return NULL;
    }
    c->writer = writer;
    c->frames = o->frames;
    c->frame_bytes = (size_t)o->width * (size_t)o->height * 3;
    c->w = writer->open(o, err);
    if (c->w)
        return c;
    free(c);
    return NULL;
}

/* A writer's failure is final: what it has is removed at once, and every later call repeats the
 * reason. */
static wan_status give_up(clip *c, error *err) {
    if (c->w)
        c->writer->abort(c->w);
    c->w = NULL;
    return wan_fail(err, c->failure.code, "%s", c->failure.message);
}

wan_status wan_clip_frames(clip *c, const uint8_t *rgb, int count, error *err) {
    for (int i = 0; i < count && c->w; i++, c->written++) {
        if (c->written == c->frames)
            wan_fail(&c->failure, WAN_E_INTERNAL, "a clip of %" PRId64 " frames was given more",
                     c->frames);
        else if (c->writer->frame(c->w, rgb + (size_t)i * c->frame_bytes, &c->failure) == WAN_OK)
            continue;
        return give_up(c, err);
    }
    return c->w ? WAN_OK : give_up(c, err);
}

wan_status wan_clip_close(clip *c, error *err) {
    wan_status status;
    if (c->w && c->written != c->frames)
        wan_fail(&c->failure, WAN_E_INTERNAL, "a clip of %" PRId64 " frames ends after %" PRId64,
                 c->frames, c->written);
    if (c->failure.code != WAN_OK)
        status = give_up(c, err);
    else
        status = c->writer->finish(c->w, err);
    free(c);
    return status;
}

void wan_clip_abort(clip *c) {
    if (c && c->w)
        c->writer->abort(c->w);
    free(c);
}

bool wan_clip_replaces(const char *path, int64_t frames, char *name, size_t size) {
    const clip_writer *w = find_writer(path);
    if (w == &wan_writer_pipe)
        return false;
    for (int64_t i = 0; i < (w == &wan_writer_png ? frames : 1); i++) {
        if (w == &wan_writer_png)
            wan_png_name(path, frames, i, name, size);
        else
            snprintf(name, size, "%s", path);
        if (access(name, F_OK) == 0)
            return true;
    }
    return false;
}

size_t wan_clip_memory(const clip_options *o) {
    const clip_writer *w = find_writer(o->path);
    return w ? w->memory(o) : 0;
}
