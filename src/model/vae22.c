/* SPDX-License-Identifier: Apache-2.0 */
/* The video autoencoder, vae.md 2 and 4, top to bottom as in the tables there.
 * Everything streams: a level takes its frames in pieces, and each piece goes all the way to the
 * next level or to pixels before the next one starts, so that only a piece is ever alive at full
 * size.  What a piece needs of the frames before is in the histories. */
#include "model/vae22.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "model/vae22_config.h"
#include "model/vae22_weights.h"

struct vae22 {
    vae22_config cfg;
    binder *binder;
    vae22_weights w;
};

/* ------------------------------------------------------------------------------ open and close */

vae22 *wan_vae22_open(const store *s, compute *c, error *err) {
    vae22 *m = calloc(1, sizeof *m);
    if (!m) {
        wan_fail(err, WAN_E_MEMORY, "%s: out of memory for the VAE", wan_store_path(s));
        return NULL;
    }
    if (wan_vae22_config_read(&m->cfg, s, err))
        goto failed;
    m->binder = wan_binder_open(s, c, err);
    if (!m->binder || wan_vae22_weights_bind(&m->w, m->binder, s, &m->cfg, err))
        goto failed;
    return m;
failed:
    wan_vae22_close(m);
    return NULL;
}

void wan_vae22_close(vae22 *m) {
    if (!m)
        return;
    wan_binder_close(m->binder);
    free(m);
}

int64_t wan_vae22_channels(const vae22 *m) {
    return m->cfg.z;
}
int wan_vae22_spatial(const vae22 *m) {
    return m->cfg.spatial;
}
int wan_vae22_temporal(const vae22 *m) {
    return m->cfg.temporal;
}
size_t wan_vae22_bytes(const vae22 *m) {
    return sizeof *m + wan_binder_bytes(m->binder);
}

size_t wan_vae22_placed(const vae22 *m) {
    return wan_binder_placed(m->binder) + wan_binder_bytes(m->binder);
}

size_t wan_vae22_streamable(const vae22 *m, size_t *largest) {
    return wan_binder_streamable(m->binder, largest);
}

/* ----------------------------------------------------------------------------------- histories */

typedef struct block_history {
    history conv1, conv2;
} block_history;

/* What each convolution over time still has to see; all zero where a clip comes in one piece. */
typedef struct side_history {
    history conv1, head;
    block_history middle[2], block[VAE22_LEVELS][VAE22_BLOCKS];
    history time[VAE22_LEVELS];
} side_history;

static block_history block_begin(compute *c, const res_block *b, int64_t h, int64_t w) {
    return (block_history){wan_history_for(c, &b->conv1, h, w),
                           wan_history_for(c, &b->conv2, h, w)};
}

/* Rows and columns of level i's blocks are h x w halved or doubled for each resampling before it.
 */
static void histories_begin(compute *c, const vae22_side *d, const vae22_side_weights *m, bool up,
                            int64_t h, int64_t w, side_history *s) {
    s->conv1 = wan_history_for(c, &m->conv1, h, w);
    for (int i = 0; up && i < 2; i++)
        s->middle[i] = block_begin(c, &m->middle[i], h, w);
    for (int i = 0; i < d->levels; i++) {
        const vae22_level *l = &d->level[i];
        for (int j = 0; j < d->blocks; j++)
            s->block[i][j] = block_begin(c, &m->level[i].block[j], h, w);
        if (up && l->temporal)
            s->time[i] = wan_history_begin(c, 2, h, w, l->out);
        if (l->resample) {
            h = up ? 2 * h : h / 2;
            w = up ? 2 * w : w / 2;
        }
        if (!up && l->temporal)
            s->time[i] = wan_history_begin(c, 1, h, w, l->out);
    }
    for (int i = 0; !up && i < 2; i++)
        s->middle[i] = block_begin(c, &m->middle[i], h, w);
    s->head = wan_history_for(c, &m->head, h, w);
}

/* -------------------------------------------------------------------------------------- blocks */

/* x is used up: it holds the result where the number of channels stays, and is no longer needed
 * once the shortcut has been taken where it changes. */
static tensor residual_block(compute *c, const res_block *b, tensor x, block_history *past) {
    bool changes = b->shortcut.weight.rank;
    tensor sum = changes ? wan_conv3d(c, x, &b->shortcut, NULL) : x;
    size_t mark = wan_mark(c);
    tensor h = wan_pixel_norm_for(c, x, b->norm1, &b->conv1, changes);
    h = wan_conv3d_normed(c, h, &b->conv1, &past->conv1, b->norm2, &b->conv2);
    wan_conv3d_add(c, sum, h, &b->conv2, &past->conv2);
    wan_release(c, mark);
    return sum;
}

/* Rows [index * n, (index + 1) * n) of a convolution's outputs. */
static conv part_of(const conv *w, int64_t index, int64_t n) {
    return (conv){.weight = wan_slice(w->weight, index * n, n),
                  .bias = wan_slice(w->bias, index * n, n),
                  .channels_last = w->channels_last};
}

/* Full attention inside each frame, one head; in place. */
static void self_attention(compute *c, const attention_block *b, tensor x) {
    int64_t pixels = x.dim[1] * x.dim[2], channels = x.dim[3];
    const attention a = {.heads = 1, .scale = 1 / sqrtf((float)channels), .last_key_count = 1};
    size_t mark = wan_mark(c);
    tensor h = wan_pixel_norm(c, x, b->norm, false), qkv[3];
    for (int i = 0; i < 3; i++) {
        conv w = part_of(&b->to_qkv, i, channels);
        qkv[i] = wan_reshape(wan_conv2d(c, h, &w, WAN_SAME), WAN_DIMS(x.dim[0], pixels * channels));
    }
    for (int64_t t = 0; t < x.dim[0]; t++) {
        size_t frame = wan_mark(c);
        tensor one[3], to = wan_slice(x, t, 1);
        for (int i = 0; i < 3; i++)
            one[i] = wan_reshape(wan_slice(qkv[i], t, 1), WAN_DIMS(pixels, channels));
        tensor y = wan_attention(c, one[0], one[1], one[2], &a);
        wan_conv2d_add(c, to, wan_reshape(y, 4, to.dim), &b->proj, WAN_SAME);
        wan_release(c, frame);
    }
    wan_release(c, mark);
}

/* In place: the middle does not change the number of channels. */
static void middle(compute *c, const vae22_side_weights *w, tensor x, side_history *past) {
    residual_block(c, &w->middle[0], x, &past->middle[0]);
    self_attention(c, &w->attention, x);
    residual_block(c, &w->middle[1], x, &past->middle[1]);
}

static tensor head(compute *c, const vae22_side_weights *w, tensor x, history *past) {
    return wan_conv3d(c, wan_pixel_norm_in_place(c, x, w->head_norm, true), &w->head, past);
}

/* Frames of x that go through a level together, a multiple of `unit`. */
static int64_t piece_frames(const compute *c, tensor x, int unit) {
    int64_t n = c->pixels_together / (x.dim[1] * x.dim[2]) + 1;
    return (n + unit - 1) / unit * unit;
}

/* -------------------------------------------------------------------------------------- decode */

struct vae22_decoder {
    const vae22 *m;
    int64_t frames, h, w, next;
    side_history past;
};

/* Where the pixels of a group go. */
typedef struct pixel_group {
    tensor pixels;
    int64_t at;
} pixel_group;

static tensor level_up(compute *c, vae22_decoder *d, int i, tensor x, bool first) {
    const vae22_level *g = &d->m->cfg.decoder.level[i];
    const vae22_level_weights *w = &d->m->w.decoder.level[i];
    int ft = g->temporal ? 2 : 1;
    tensor sum = g->resample ? wan_dup_up(c, x, g->out, ft, 2, first) : x;
    size_t mark = wan_mark(c);
    for (int j = 0; j < d->m->cfg.decoder.blocks; j++)
        x = residual_block(c, &w->block[j], x, &d->past.block[i][j]);
    if (!g->resample)
        return x;
    if (g->temporal)
        x = wan_frames_up(c, x, &w->time_conv, &d->past.time[i], first);
    wan_conv2d_add(c, sum, x, &w->resample, WAN_UP2);
    wan_release(c, mark);
    return sum;
}

/* Everything from level i on; x is used up. */
static void decode_from(compute *c, vae22_decoder *d, int i, tensor x, bool first,
                        pixel_group *to) {
    const vae22_config *g = &d->m->cfg;
    int64_t most = piece_frames(c, x, 1), pieces = (x.dim[0] + most - 1) / most;
    most = (x.dim[0] + pieces - 1) / pieces; /* about equal: a small one is slow for its size */
    for (int64_t from = 0; from < x.dim[0]; from += most) {
        size_t mark = wan_mark(c);
        int64_t n = most < x.dim[0] - from ? most : x.dim[0] - from;
        tensor piece = wan_slice(x, from, n);
        if (i < g->decoder.levels) {
            bool start = first && from == 0;
            decode_from(c, d, i + 1, level_up(c, d, i, piece, start), start, to);
        } else {
            wan_pixels_out(c, to->pixels, to->at, head(c, &d->m->w.decoder, piece, &d->past.head),
                           g->patch);
            to->at += n;
        }
        wan_release(c, mark);
    }
}

vae22_decoder *wan_vae22_decode_begin(vae22 *m, compute *c, int64_t frames, int64_t h, int64_t w,
                                      error *err) {
    if (frames < 1 || h < 1 || w < 1) {
        wan_fail(err, WAN_E_GRID, "latents of %lld x %lld x %lld cannot be decoded",
                 (long long)frames, (long long)h, (long long)w);
        return NULL;
    }
    vae22_decoder *d = calloc(1, sizeof *d);
    if (!d) {
        wan_fail(err, WAN_E_MEMORY, "out of memory for the VAE decoder");
        return NULL;
    }
    d->m = m;
    d->frames = frames;
    d->h = h;
    d->w = w;
    if (frames > 1)
        histories_begin(c, &m->cfg.decoder, &m->w.decoder, true, h, w, &d->past);
    return d;
}

tensor wan_vae22_decode(vae22_decoder *d, compute *c, tensor latents, int64_t from, int64_t count) {
    const vae22_config *g = &d->m->cfg;
    const vae22_weights *w = &d->m->w;
    bool first = from == 0;
    assert(latents.rank == 4 && latents.dim[0] == g->z && latents.dim[1] == d->frames &&
           latents.dim[2] == d->h && latents.dim[3] == d->w);
    assert(from == d->next && count > 0 && from + count <= d->frames);
    pixel_group to = {.pixels =
                          wan_new(c, WAN_F32,
                                  WAN_DIMS(g->decoder.out / (g->patch * g->patch),
                                           count * g->temporal - (first ? g->temporal - 1 : 0),
                                           d->h * g->spatial, d->w * g->spatial))};
    size_t mark = wan_mark(c);
    tensor z = wan_latents_in(c, latents, from, count, w->mean, w->inv_std);
    z = wan_conv3d(c, z, &w->post_quant, NULL);
    tensor x = wan_conv3d(c, z, &w->decoder.conv1, &d->past.conv1);
    middle(c, &w->decoder, x, &d->past);
    decode_from(c, d, 0, x, first, &to);
    wan_release(c, mark);
    assert(to.at == to.pixels.dim[1]);
    d->next += count;
    return to.pixels;
}

void wan_vae22_decode_end(vae22_decoder *d) {
    free(d);
}

/* -------------------------------------------------------------------------------------- encode */

typedef struct encoder {
    const vae22 *m;
    side_history past;
} encoder;

static tensor level_down(compute *c, encoder *e, int i, tensor x, bool first) {
    const vae22_level *g = &e->m->cfg.encoder.level[i];
    const vae22_level_weights *w = &e->m->w.encoder.level[i];
    tensor sum = wan_avg_down(c, x, g->out, g->temporal ? 2 : 1, g->resample ? 2 : 1, first);
    size_t mark = wan_mark(c);
    for (int j = 0; j < e->m->cfg.encoder.blocks; j++)
        x = residual_block(c, &w->block[j], x, &e->past.block[i][j]);
    if (g->temporal)
        wan_frames_down_add(c, sum, wan_conv2d(c, x, &w->resample, WAN_DOWN2), &w->time_conv,
                            &e->past.time[i], first);
    else if (g->resample)
        wan_conv2d_add(c, sum, x, &w->resample, WAN_DOWN2);
    else
        wan_add(c, sum, x);
    wan_release(c, mark);
    return sum;
}

/* One level over all of x, piece by piece; x is used up. */
static tensor encode_level(compute *c, encoder *e, int i, tensor x, bool first) {
    const vae22_level *g = &e->m->cfg.encoder.level[i];
    int ft = g->temporal ? 2 : 1, fs = g->resample ? 2 : 1;
    int64_t most = piece_frames(c, x, ft), frames = x.dim[0];
    if (frames <= most)
        return level_down(c, e, i, x, first);
    tensor all = wan_new(
        c, c->act,
        WAN_DIMS((frames + (first ? ft - 1 : 0)) / ft, x.dim[1] / fs, x.dim[2] / fs, g->out));
    int64_t at = 0;
    for (int64_t from = 0, n; from < frames; from += n) {
        size_t mark = wan_mark(c);
        bool start = first && from == 0;
        n = start ? most - (ft - 1) : most;
        n = n < frames - from ? n : frames - from;
        tensor y = level_down(c, e, i, wan_slice(x, from, n), start);
        wan_copy(c, wan_slice(all, at, y.dim[0]), y);
        at += y.dim[0];
        wan_release(c, mark);
    }
    assert(at == all.dim[0]);
    return all;
}

/* Frames [from, from + count) of the pixels, count a multiple of the frames per latent or the first
 * frame alone. */
static void encode_group(compute *c, encoder *e, tensor latents, int64_t at, tensor pixels,
                         int64_t from, int64_t count) {
    const vae22_config *g = &e->m->cfg;
    const vae22_weights *w = &e->m->w;
    size_t mark = wan_mark(c);
    tensor x = wan_pixels_in(c, pixels, from, count, g->patch);
    x = wan_conv3d(c, x, &w->encoder.conv1, &e->past.conv1);
    for (int i = 0; i < g->encoder.levels; i++)
        x = encode_level(c, e, i, x, from == 0);
    middle(c, &w->encoder, x, &e->past);
    x = wan_conv3d(c, head(c, &w->encoder, x, &e->past.head), &w->quant, NULL);
    wan_latents_out(c, latents, at, x, w->mean, w->inv_std);
    wan_release(c, mark);
}

tensor wan_vae22_encode(vae22 *m, compute *c, tensor pixels) {
    const vae22_config *g = &m->cfg;
    int64_t frames = pixels.dim[1], group = g->temporal;
    assert(pixels.type == WAN_F32 && pixels.rank == 4 && wan_elements(pixels) > 0);
    if (pixels.dim[0] * g->patch * g->patch != g->encoder.in || (frames - 1) % group ||
        pixels.dim[2] % g->spatial || pixels.dim[3] % g->spatial) {
        char shape[128];
        wan_fail(&c->err, WAN_E_GRID,
                 "pixels %s cannot be encoded: expected [3, %d n + 1, %d i, %d j]",
                 wan_shape_text(pixels, shape, sizeof shape), g->temporal, g->spatial, g->spatial);
        return (tensor){.type = WAN_F32};
    }
    tensor latents = wan_new(c, WAN_F32,
                             WAN_DIMS(g->z, (frames - 1) / group + 1, pixels.dim[2] / g->spatial,
                                      pixels.dim[3] / g->spatial));
    size_t mark = wan_mark(c);
    encoder e = {.m = m};
    if (frames > 1)
        histories_begin(c, &g->encoder, &m->w.encoder, false, pixels.dim[2] / g->patch,
                        pixels.dim[3] / g->patch, &e.past);
    encode_group(c, &e, latents, 0, pixels, 0, 1);
    for (int64_t f = 1; f < frames; f += group)
        encode_group(c, &e, latents, (f - 1) / group + 1, pixels, f, group);
    wan_release(c, mark);
    return latents;
}
