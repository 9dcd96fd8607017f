/* SPDX-License-Identifier: Apache-2.0 */
#include "media/palette.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define SIDE 64 /* bins a channel of the histogram, and cells of the table from colour to index */
#define BINS (SIDE * SIDE * SIDE)

#define UNKNOWN 0xFFFF

/* Pixels that fell into one bin: how many, their sum, and the sum of their squares over all
 * channels. */
typedef struct bin {
    uint32_t count;
    uint64_t sum[3], squares;
} bin;

/* A range of p->used: mean colour, error if that stood for all of it, and where to cut. */
typedef struct box {
    int first, last, axis;
    double mean[3], error, cut;
} box;

struct palette {
    bin bins[BINS];
    int used[BINS]; /* indices of bins that are not empty */
    int used_count;
    uint8_t colour[WAN_PALETTE_SIZE][3];
    int colours;
    double error;           /* of the last frame in these colours, squared levels a pixel */
    uint16_t nearest[BINS]; /* filled when asked */
};

palette *wan_palette_open(void) {
    return calloc(1, sizeof(palette));
}

void wan_palette_close(palette *p) {
    free(p);
}

const uint8_t *wan_palette_colour(const palette *p, int i) {
    return p->colour[i];
}

static int bin_of(int r, int g, int b) {
    return (r >> 2) * SIDE * SIDE + (g >> 2) * SIDE + (b >> 2);
}

static void count_colours(palette *p, const uint8_t *rgb, size_t pixels) {
    memset(p->bins, 0, sizeof p->bins);
    p->used_count = 0;
    for (size_t i = 0; i < pixels; i++, rgb += 3) {
        int k = bin_of(rgb[0], rgb[1], rgb[2]);
        bin *b = &p->bins[k];
        if (!b->count++)
            p->used[p->used_count++] = k;
        for (int c = 0; c < 3; c++) {
            b->sum[c] += rgb[c];
            b->squares += (uint64_t)rgb[c] * rgb[c];
        }
    }
}

static double bin_mean(const bin *b, int channel) {
    return (double)b->sum[channel] / b->count;
}

/* Cut where it helps most: across the channel of largest spread, at the mean. */
static box measure(const palette *p, int first, int last) {
    box x = {.first = first, .last = last};
    double count = 0, sum[3] = {0}, square[3] = {0}, spread = -1;
    for (int i = first; i < last; i++) {
        const bin *b = &p->bins[p->used[i]];
        count += b->count;
        for (int c = 0; c < 3; c++) {
            double m = bin_mean(b, c);
            sum[c] += m * b->count;
            square[c] += m * m * b->count;
        }
    }
    for (int c = 0; c < 3; c++) {
        x.mean[c] = sum[c] / count;
        double s = square[c] - sum[c] * x.mean[c];
        x.error += s;
        if (s > spread) {
            spread = s;
            x.axis = c;
            x.cut = x.mean[c];
        }
    }
    if (last - first < 2 || x.error < 1e-6)
        x.error = 0;
    return x;
}

/* Those below the cut to the front; both sides get some, because the mean lies between. */
static int partition(palette *p, const box *x) {
    int at = x->first;
    for (int i = x->first; i < x->last; i++)
        if (bin_mean(&p->bins[p->used[i]], x->axis) < x->cut) {
            int k = p->used[i];
            p->used[i] = p->used[at];
            p->used[at++] = k;
        }
    return at;
}

static int choose_colours(palette *p, uint8_t colour[WAN_PALETTE_SIZE][3]) {
    box all[WAN_PALETTE_SIZE];
    int count = 1;
    all[0] = measure(p, 0, p->used_count);
    while (count < WAN_PALETTE_SIZE) {
        int worst = 0;
        for (int i = 1; i < count; i++)
            if (all[i].error > all[worst].error)
                worst = i;
        box x = all[worst];
        int middle = x.error > 0 ? partition(p, &x) : x.first;
        if (middle == x.first || middle == x.last)
            break;
        all[worst] = measure(p, x.first, middle);
        all[count++] = measure(p, middle, x.last);
    }
    for (int i = 0; i < count; i++)
        for (int c = 0; c < 3; c++)
            colour[i][c] = (uint8_t)lrint(all[i].mean[c]);
    return count;
}

static int find_nearest(uint8_t colour[][3], int colours, const double rgb[3], double *distance) {
    int best = 0;
    double least = HUGE_VAL;
    for (int i = 0; i < colours; i++) {
        double r = rgb[0] - colour[i][0], g = rgb[1] - colour[i][1], b = rgb[2] - colour[i][2];
        double d = r * r + g * g + b * b;
        if (d < least) {
            least = d;
            best = i;
        }
    }
    *distance = least;
    return best;
}

/* Mean square error of the counted frame in these colours, without dither. */
static double palette_error(const palette *p, uint8_t colour[][3], int colours) {
    double sum = 0, count = 0, d;
    for (int i = 0; i < p->used_count; i++) {
        const bin *b = &p->bins[p->used[i]];
        double mean[3], within = (double)b->squares;
        for (int c = 0; c < 3; c++) {
            mean[c] = bin_mean(b, c);
            within -= mean[c] * (double)b->sum[c];
        }
        find_nearest(colour, colours, mean, &d);
        sum += d * b->count + within;
        count += b->count;
    }
    return sum / count;
}

static void update_colours(palette *p) {
    uint8_t fresh[WAN_PALETTE_SIZE][3];
    int colours = choose_colours(p, fresh);
    double error = palette_error(p, fresh, colours);
    if (p->colours) {
        double kept = palette_error(p, p->colour, p->colours);
        if (kept <= 1.25 * error + 1.0) {
            p->error = kept;
            return;
        }
    }
    memset(p->colour, 0, sizeof p->colour);
    memcpy(p->colour, fresh, (size_t)colours * sizeof fresh[0]);
    p->colours = colours;
    p->error = error;
    memset(p->nearest, 0xFF, sizeof p->nearest);
}

static uint8_t lookup(palette *p, const int rgb[3]) {
    int cell = bin_of(rgb[0], rgb[1], rgb[2]);
    if (p->nearest[cell] == UNKNOWN) {
        double d, middle[3];
        for (int c = 0; c < 3; c++)
            middle[c] = (rgb[c] & ~3) + 1.5;
        p->nearest[cell] = (uint16_t)find_nearest(p->colour, p->colours, middle, &d);
    }
    return (uint8_t)p->nearest[cell];
}

/* 8 x 8 ordered dither: the bits of x ^ y and y, interleaved and reversed. */
static int threshold(int x, int y) {
    int v = 0, m = x ^ y;
    for (int bit = 0; bit < 3; bit++)
        v = v << 2 | (m >> bit & 1) << 1 | (y >> bit & 1);
    return v; /* 0 to 63 */
}

void wan_palette_apply(palette *p, const uint8_t *rgb, int width, int height, uint8_t *index,
                       int stride) {
    assert(width > 0 && height > 0);
    count_colours(p, rgb, (size_t)width * (size_t)height);
    update_colours(p);
    /* Evenly spaced levels d apart have an error of d * d / 12 a channel.  Steps of a few levels
     * are not seen, while the dither's pattern would be. */
    double apart = sqrt(12 * p->error / 3) - 4;
    int reach = (int)(apart < 0 ? 0 : apart > 32 ? 32 : apart);
    for (int y = 0; y < height; y++, index += stride)
        for (int x = 0; x < width; x++, rgb += 3) {
            int v[3]; /* each channel takes another part of the pattern, or only brightness would be
                         mixed */
            for (int c = 0; c < 3; c++) {
                v[c] =
                    rgb[c] + (threshold((x + 3 * c) & 7, (y + 5 * c) & 7) * 2 - 63) * reach / 126;
                v[c] = v[c] < 0 ? 0 : v[c] > 255 ? 255 : v[c];
            }
            index[x] = lookup(p, v);
        }
}
