/* SPDX-License-Identifier: Apache-2.0 */
/* Frames in a safetensors file: the bytes of wan generate, or the floats of wan stage decode. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/safetensors.h"
#include "media/reader.h"

#define MAX_SIDE 16384

typedef struct tensors {
    safetensors *file;
    char *path;
    tensor t;
    bool floats; /* `pixels` f32 [3, T, H, W]; else `frames` u8 [T, H, W, 3] */
    int width, height;
    int64_t count, done;
} tensors;

static void tensors_close(void *r) {
    tensors *s = r;
    wan_safetensors_close(s->file);
    free(s->path);
    free(s);
}

static wan_status refuse(const tensors *s, const char *name, error *err) {
    char shape[128];
    return wan_fail(err, WAN_E_SHAPE,
                    "%s: %s is %s; it must be %s, with sides up to %d and up to "
                    "%d frames",
                    s->path, name, wan_shape_text(s->t, shape, sizeof shape),
                    s->floats ? "[3, T, H, W]" : "[T, H, W, 3]", MAX_SIDE, WAN_FRAMES_MAX);
}

static wan_status find(tensors *s, error *err) {
    const named_tensor *n = wan_safetensors_find(s->file, "frames");
    s->floats = !n;
    if (!n)
        n = wan_safetensors_find(s->file, "pixels");
    if (!n)
        return wan_fail(err, WAN_E_SHAPE,
                        "%s: has neither frames (wan generate) nor pixels (wan stage decode)",
                        s->path);
    dtype want = s->floats ? WAN_F32 : WAN_U8;
    s->t = n->t;
    if (s->t.type != want)
        return wan_fail(err, WAN_E_TYPE, "%s: %s is %s; it must be %s", s->path, n->name,
                        wan_dtype(s->t.type)->name, wan_dtype(want)->name);
    const int64_t *d = s->t.dim;
    if (s->t.rank != 4 || d[s->floats ? 0 : 3] != 3)
        return refuse(s, n->name, err);
    int64_t count = d[s->floats ? 1 : 0], height = d[s->floats ? 2 : 1],
            width = d[s->floats ? 3 : 2];
    if (count < 1 || height < 1 || width < 1 || count > WAN_FRAMES_MAX || height > MAX_SIDE ||
        width > MAX_SIDE)
        return refuse(s, n->name, err);
    s->count = count;
    s->height = (int)height;
    s->width = (int)width;
    return WAN_OK;
}

static void *tensors_open(const char *path, frames_info *info, error *err) {
    tensors *s = calloc(1, sizeof *s);
    if (!s || !(s->path = strdup(path))) {
        free(s);
        wan_fail(err, WAN_E_MEMORY, "%s: no memory to read it", path);
        return NULL;
    }
    s->file = wan_safetensors_open(path, err);
    if (!s->file || find(s, err) != WAN_OK) {
        tensors_close(s);
        return NULL;
    }
    *info = (frames_info){s->width, s->height, s->count, true};
    return s;
}

/* One channel of one frame, as docs/stages.md makes bytes; false when a value is not a number. */
static bool cut_off(const uint8_t *src, size_t n, uint8_t *dst) {
    for (size_t i = 0; i < n; i++) {
        float v;
        memcpy(&v, src + 4 * i, sizeof v); /* may lie at any address */
        if (isnan(v))
            return false;
        v = v / 2 + 0.5f;
        v = v < 0 ? 0 : v > 1 ? 1 : v;
        dst[3 * i] = (uint8_t)(v * 255);
    }
    return true;
}

static wan_status tensors_next(void *r, uint8_t *rgb, bool *more, error *err) {
    tensors *s = r;
    *more = s->done < s->count;
    if (!*more)
        return WAN_OK;
    size_t plane = (size_t)s->width * (size_t)s->height;
    const uint8_t *data = s->t.data;
    if (!s->floats)
        memcpy(rgb, data + (size_t)s->done * plane * 3, plane * 3);
    for (int64_t c = 0; s->floats && c < 3; c++)
        if (!cut_off(data + (size_t)(c * s->count + s->done) * plane * 4, plane, rgb + c))
            return wan_fail(err, WAN_E_FORMAT,
                            "%s: pixels holds values that are not numbers in frame %" PRId64,
                            s->path, s->done);
    s->done++;
    return WAN_OK;
}

const frame_reader wan_reader_tensors = {tensors_open, tensors_next, tensors_close};
