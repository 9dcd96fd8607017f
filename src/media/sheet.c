/* SPDX-License-Identifier: Apache-2.0 */
/* The contact sheet of a comparison: three rows of a few frames. */
#include <stdlib.h>
#include <string.h>

#include "media/clip.h"
#include "media/compare.h"
#include "media/pair.h"

#define GAP 2         /* pixels between frames */
#define SHADE 64      /* of the gaps */
#define WIDEST 8192   /* pixels of a sheet; larger frames are made smaller */
#define SIDE_MAX 4096 /* of a frame on it, so that three rows stay within a PNG of ours */

typedef struct sheet {
    uint8_t *rgb;
    int width, height;
    int shrink;         /* this many pixels square become one */
    int cell_w, cell_h; /* of a frame on the sheet */
} sheet;

size_t wan_sheet_frames(const comparison *c, size_t frame[WAN_SHEET_COLUMNS]) {
    size_t n = c->frames < WAN_SHEET_COLUMNS ? c->frames : WAN_SHEET_COLUMNS, nearest = 0;
    for (size_t i = 0; i < n; i++) {
        frame[i] = n > 1 ? i * (c->frames - 1) / (n - 1) : 0;
        size_t far =
            frame[i] > c->worst_frame ? frame[i] - c->worst_frame : c->worst_frame - frame[i];
        size_t least = frame[nearest] > c->worst_frame ? frame[nearest] - c->worst_frame
                                                       : c->worst_frame - frame[nearest];
        if (far < least)
            nearest = i;
    }
    /* The worst takes the place of the one beside it, so that the order stays. */
    frame[nearest] = c->worst_frame;
    return n;
}

static wan_status lay_out(sheet *s, const comparison *c, size_t columns, error *err) {
    int n = (int)columns;
    for (s->shrink = 1;; s->shrink++) {
        s->cell_w = (c->width + s->shrink - 1) / s->shrink;
        s->cell_h = (c->height + s->shrink - 1) / s->shrink;
        s->width = n * s->cell_w + (n - 1) * GAP;
        if (s->width <= WIDEST && s->cell_h <= SIDE_MAX)
            break;
    }
    s->height = 3 * s->cell_h + 2 * GAP;
    size_t bytes = (size_t)s->width * (size_t)s->height * 3;
    s->rgb = malloc(bytes);
    if (!s->rgb)
        return wan_fail(err, WAN_E_MEMORY, "no memory for a contact sheet of %dx%d", s->width,
                        s->height);
    memset(s->rgb, SHADE, bytes);
    return WAN_OK;
}

/* One value of a cell: the mean over a square, of a frame or of a difference (b not NULL). */
static uint8_t cell_value(const uint8_t *a, const uint8_t *b, const comparison *c, int shrink,
                          int cx, int cy, int channel, int amplify) {
    int sum = 0, count = 0;
    for (int y = cy * shrink; y < (cy + 1) * shrink && y < c->height; y++)
        for (int x = cx * shrink; x < (cx + 1) * shrink && x < c->width; x++, count++) {
            size_t at = ((size_t)y * (size_t)c->width + (size_t)x) * 3 + (size_t)channel;
            sum += b ? abs(a[at] - b[at]) * amplify : a[at];
        }
    int mean = (sum + count / 2) / count;
    return (uint8_t)(mean > 255 ? 255 : mean);
}

static void draw(sheet *s, const comparison *c, size_t column, int row, const uint8_t *a,
                 const uint8_t *b, int amplify) {
    size_t left = column * (size_t)(s->cell_w + GAP), top = (size_t)row * (size_t)(s->cell_h + GAP);
    for (int y = 0; y < s->cell_h; y++) {
        uint8_t *dst = s->rgb + ((top + (size_t)y) * (size_t)s->width + left) * 3;
        for (int x = 0; x < s->cell_w; x++)
            for (int k = 0; k < 3; k++)
                *dst++ = cell_value(a, b, c, s->shrink, x, y, k, amplify);
    }
}

static wan_status save(const sheet *s, const char *path, error *err) {
    clip_options o = {path, s->width, s->height, 1, 1, 1, -1, 1, NULL};
    error own = {0}; /* err may be NULL */
    clip *out = wan_clip_open(&o, &own);
    if (!out)
        return wan_fail(err, own.code, "%s", own.message);
    wan_clip_frames(out, s->rgb, 1, NULL); /* close repeats what went wrong */
    return wan_clip_close(out, err);
}

static wan_status draw_all(sheet *s, pair *p, const comparison *c, const size_t *frame,
                           size_t columns, int amplify, error *err) {
    size_t column = 0;
    for (size_t i = 0; column < columns; i++) {
        bool more;
        wan_status status = wan_pair_next(p, (int64_t)i, &more, err);
        if (status != WAN_OK)
            return status;
        if (!more)
            return wan_fail(err, WAN_E_IO, "%s became shorter while it was read", p->name_a);
        if (i != frame[column])
            continue;
        draw(s, c, column, 0, p->rgb_a, NULL, 1);
        draw(s, c, column, 1, p->rgb_b, NULL, 1);
        draw(s, c, column, 2, p->rgb_a, p->rgb_b, amplify);
        column++;
    }
    return WAN_OK;
}

wan_status wan_compare_sheet(const char *a, const char *b, const comparison *c, int amplify,
                             compare_stop stop, const char *path, error *err) {
    size_t frame[WAN_SHEET_COLUMNS], columns = wan_sheet_frames(c, frame);
    sheet s = {0};
    pair p;
    wan_status status = wan_pair_open(&p, a, b, stop, err);
    if (status == WAN_OK && (p.width != c->width || p.height != c->height))
        status = wan_fail(err, WAN_E_IO, "%s changed while it was read", a);
    if (status == WAN_OK)
        status = lay_out(&s, c, columns, err);
    if (status == WAN_OK)
        status = draw_all(&s, &p, c, frame, columns, amplify, err);
    if (status == WAN_OK)
        status = save(&s, path, err);
    free(s.rgb);
    wan_pair_close(&p);
    return status;
}
