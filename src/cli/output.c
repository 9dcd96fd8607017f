/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/output.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "io/safetensors.h"
#include "media/clip.h"

struct output {
    clip *clip;    /* or */
    outfile *file; /* safetensors: header written, then latents, then frames */
    int64_t latent_values;
    size_t frame_bytes;
};

static bool is_safetensors(const char *path) {
    static const char ending[] = ".safetensors";
    size_t n = strlen(path);
    return n >= sizeof ending && strcmp(path + n - (sizeof ending - 1), ending) == 0;
}

wan_status wan_output_kind(const char *path, error *err) {
    if (is_safetensors(path) || wan_clip_known(path))
        return WAN_OK;
    return wan_fail(err, WAN_E_USAGE,
                    "%s: the ending says what to write; it must be .mp4, .webm, .gif, .png, .y4m "
                    "or .safetensors",
                    path);
}

wan_status wan_output_fresh(const char *path, int frames, error *err) {
    char name[4200];
    struct stat st;
    snprintf(name, sizeof name, "%s", path);
    bool there = is_safetensors(path) ? lstat(path, &st) == 0
                                      : wan_clip_replaces(path, frames, name, sizeof name);
    if (there)
        return wan_fail(err, WAN_E_OUTPUT, "%s exists; -y replaces it", name);
    return WAN_OK;
}

static clip_options clip_of(const output_spec *s) {
    return (clip_options){.path = s->path,
                          .width = s->width,
                          .height = s->height,
                          .frames = s->frames,
                          .fps_num = (int)s->fps.num,
                          .fps_den = (int)s->fps.den,
                          .crf = s->crf,
                          .settings = s->settings};
}

uint64_t wan_output_memory(const output_spec *s) {
    clip_options o = clip_of(s);
    return is_safetensors(s->path) ? 0 : wan_clip_memory(&o);
}

/* The size is known to the byte, so it need not be found out at the end. */
static wan_status check_space(const output_spec *s, uint64_t needs, error *err) {
    char folder[4096];
    const char *slash = strrchr(s->path, '/');
    int n = !slash ? 1 : slash == s->path ? 1 : (int)(slash - s->path);
    struct statvfs fs;
    if ((size_t)snprintf(folder, sizeof folder, "%.*s", n, slash ? s->path : ".") >=
            sizeof folder ||
        statvfs(folder, &fs) != 0)
        return WAN_OK;
    uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (free_bytes >= needs)
        return WAN_OK;
    return wan_fail(err, WAN_E_SPACE, "%s: the clip takes %llu bytes, the disk has %llu free",
                    s->path, (unsigned long long)needs, (unsigned long long)free_bytes);
}

static outfile *begin_safetensors(const output_spec *s, output *o, error *err) {
    const named_tensor t[] = {
        {"latents", wan_tensor(WAN_F32, 4, s->shape, NULL)},
        {"frames", wan_tensor(WAN_U8, 4, (int64_t[]){s->frames, s->height, s->width, 3}, NULL)},
    };
    const char *const meta[] = {"settings", s->settings, NULL};
    o->latent_values = wan_elements(t[0].t);
    if (check_space(s, wan_bytes(t[0].t) + wan_bytes(t[1].t) + 4096, err) != WAN_OK)
        return NULL;
    return wan_safetensors_begin(s->path, t, 2, s->settings ? meta : NULL, err);
}

output *wan_output_open(const output_spec *s, error *err) {
    output *o = calloc(1, sizeof *o);
    if (!o) {
        wan_fail(err, WAN_E_MEMORY, "%s: no memory to write it", s->path);
        return NULL;
    }
    clip_options options = clip_of(s);
    o->frame_bytes = 3 * (size_t)s->width * (size_t)s->height;
    if (is_safetensors(s->path))
        o->file = begin_safetensors(s, o, err);
    else
        o->clip = wan_clip_open(&options, err);
    if (o->file || o->clip)
        return o;
    free(o);
    return NULL;
}

wan_status wan_output_latents(output *o, const float *latents, error *err) {
    if (!o->file)
        return WAN_OK;
    return wan_outfile_write(o->file, latents, (size_t)o->latent_values * sizeof *latents, err);
}

wan_status wan_output_frames(output *o, const uint8_t *rgb, int count, error *err) {
    if (o->clip)
        return wan_clip_frames(o->clip, rgb, count, err);
    return wan_outfile_write(o->file, rgb, (size_t)count * o->frame_bytes, err);
}

wan_status wan_output_commit(output *o, error *err) {
    wan_status s = o->clip ? wan_clip_close(o->clip, err) : wan_outfile_commit(o->file, err);
    free(o);
    return s;
}

void wan_output_abort(output *o) {
    if (!o)
        return;
    wan_clip_abort(o->clip);
    wan_outfile_abort(o->file);
    free(o);
}
