/* SPDX-License-Identifier: Apache-2.0 */
#include "media/frames.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "media/reader.h"

#define HEAD 16 /* bytes that tell every kind */

struct frame_source {
    const frame_reader *reader;
    void *r;
    char *path;
    frames_info info;
    int64_t done;
};

static bool ends_in(const char *path, const char *ending) {
    size_t n = strlen(path), k = strlen(ending);
    return n >= k && strcasecmp(path + n - k, ending) == 0;
}

static const frame_reader *kind_of_file(const char *path, const uint8_t *head, size_t n) {
    bool picture = (n >= 8 && memcmp(head, "\x89PNG\r\n\x1a\n", 8) == 0) ||
                   (n >= 3 && memcmp(head, "\xff\xd8\xff", 3) == 0) ||
                   (n >= 12 && memcmp(head, "RIFF", 4) == 0 && memcmp(head + 8, "WEBP", 4) == 0);
    if (picture)
        return &wan_reader_pictures;
    if (wan_reader_video_knows(head, n))
        return &wan_reader_video;
    /* Whatever is cut short keeps its ending, and is refused by the reader with its own words. */
    if (ends_in(path, ".safetensors") || (n > 8 && head[8] == '{'))
        return &wan_reader_tensors;
    return ends_in(path, ".png") ? &wan_reader_pictures : NULL;
}

/* A name that is no file yet may stand for numbered ones. */
static const frame_reader *kind_of_missing(const char *path) {
    return ends_in(path, ".png") ? &wan_reader_pictures : NULL;
}

static const frame_reader *find_reader(const char *path, error *err) {
    struct stat st;
    uint8_t head[HEAD];
    const frame_reader *reader = NULL;
    /* Non-blocking, or a named pipe without a writer would hold us here. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        reader = errno == ENOENT ? kind_of_missing(path) : NULL;
        if (!reader)
            wan_fail(err, WAN_E_IO, "%s: %s", path, strerror(errno));
        return reader;
    }
    ssize_t n = -1;
    if (fstat(fd, &st) != 0)
        wan_fail(err, WAN_E_IO, "%s: %s", path, strerror(errno));
    else if (S_ISDIR(st.st_mode))
        reader = &wan_reader_pictures;
    else if (!S_ISREG(st.st_mode))
        wan_fail(err, WAN_E_IO, "%s: is neither a file nor a folder", path);
    else if ((n = pread(fd, head, sizeof head, 0)) < 0)
        wan_fail(err, WAN_E_IO, "%s: %s", path, strerror(errno));
    else
        reader = kind_of_file(path, head, (size_t)n);
    close(fd);
    if (n >= 0 && !reader)
        wan_fail(err, WAN_E_FORMAT,
                 "%s: no clip: frames are read from .safetensors, PNG files, .mp4, .webm and .y4m",
                 path);
    return reader;
}

frame_source *wan_frames_open(const char *path, error *err) {
    const frame_reader *reader = find_reader(path, err);
    if (!reader)
        return NULL;
    frame_source *s = calloc(1, sizeof *s);
    if (!s || !(s->path = strdup(path))) {
        wan_fail(err, WAN_E_MEMORY, "%s: no memory to read it", path);
        wan_frames_close(s);
        return NULL;
    }
    s->reader = reader;
    s->r = reader->open(path, &s->info, err);
    if (s->r)
        return s;
    wan_frames_close(s);
    return NULL;
}

frames_info wan_frames_info(const frame_source *s) {
    return s->info;
}

wan_status wan_frames_next(frame_source *s, uint8_t *rgb, bool *more, error *err) {
    wan_status status = s->reader->next(s->r, rgb, more, err);
    if (status != WAN_OK)
        return status;
    s->done += *more;
    if (s->done > WAN_FRAMES_MAX)
        return wan_fail(err, WAN_E_FORMAT, "%s: has more than %d frames", s->path, WAN_FRAMES_MAX);
    if (*more ? s->info.count && s->done > s->info.count : s->done < s->info.count)
        return wan_fail(err, WAN_E_FORMAT,
                        "%s: cut short or lying: says %" PRId64 " frames, %s%" PRId64
                        " can be read",
                        s->path, s->info.count, *more ? "at least " : "", s->done);
    if (!*more && s->done == 0)
        return wan_fail(err, WAN_E_FORMAT, "%s: has no frames", s->path);
    return WAN_OK;
}

void wan_frames_close(frame_source *s) {
    if (!s)
        return;
    if (s->r)
        s->reader->close(s->r);
    free(s->path);
    free(s);
}
