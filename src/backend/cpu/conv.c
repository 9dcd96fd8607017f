/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions as matrix products without an image of columns: a row of the left matrix is a pixel
 * where it lies, or zeros for what is outside.
 *
 * For each group of output channels and each span of input channels the weights are unpacked once,
 * into panels that all threads share; then every block of pixels passes by.  A block's sums are
 * kept in the thread's own space, which also makes room for outputs that do not lie side by side.
 * Doubling the image before a 3x3 kernel is four 2x2 kernels, one for each parity of row and column
 * (vae.md 1).  Every value is summed in the same order for any number of threads and frames. */
#include "backend/cpu/conv_job.h"

#include <string.h>

static const float zeros[CONV_RUN];

/* A thread's own space while pixels pass by. */
typedef struct own_space {
    _Alignas(64) float sums[CONV_PIXELS * CONV_OUT];
    char edge[CONV_PIXELS * CONV_RUN * sizeof(float)];
    union {
        const void *any[CONV_PIXELS];
        const float *f32[CONV_PIXELS];
        const uint16_t *bf16[CONV_PIXELS];
    } rows[CONV_ACROSS]; /* for each column of the kernel, or for all of a row */
    int64_t from, to;    /* rows outside are zeros */
} own_space;

static_assert(sizeof(own_space) <= CONV_OWN, "a thread's own space");
static_assert(CONV_SEGMENT <= CONV_RUN, "a row of zeros serves all");
static_assert(CONV_CHUNK % 2 == 0 && CONV_SEGMENT % 2 == 0 && CONV_FEW % 2 == 0, "whole pairs");
static_assert(CONV_OUT % CPU_NR_MAX == 0 && CONV_PIXELS >= CPU_MR_MAX, "whole tiles");
static_assert(CONV_PANEL + CONV_OWN <= CPU_WORK_BYTES, "one thread has room for a panel");
static_assert(CONV_PANEL / sizeof(float) >= CONV_TAPS * CPU_NR_MAX * CONV_LEAST, "some channels");

/* One product's worth of the sum: taps `width` columns wide from (t, y, x) on, channels from c0 on.
 */
typedef struct segment {
    int t, y, x, width;
    int64_t c0, channels, depth; /* numbers that the channels of a tap take */
} segment;

/* Output channels [from, from + count), count <= CONV_OUT, of one `part` of the weight's rows. */
typedef struct out_group {
    int64_t part, from, count;
    bool first; /* span of input channels: nothing summed yet */
} out_group;

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t round_up(int64_t a, int64_t b) {
    return (a + b - 1) / b * b;
}

/* Of a tile. */
static int64_t conv_rows(const conv_job *j) {
    return j->bf16 ? j->d->k.bf16_mr : j->d->k.mr;
}

static void *own_of(const cpu_device *d, int thread) {
    size_t all = (size_t)d->threads * CPU_WORK_BYTES;
    return d->work + all - (size_t)(d->threads - thread) * CONV_OWN;
}

/* -------------------------------------------------------------------------------------- pixels */

/* First value of the input row that the segment sees from row y of output frame t; NULL: zeros. */
static const char *input_line(const conv_job *j, const segment *s, int64_t t, int64_t y) {
    int64_t frame = t * j->time_step + s->t, line = y * j->step + s->y;
    if (line < 0 || line >= j->rows)
        return NULL;
    line *= j->cols * j->in * conv_size(j);
    int64_t size = j->rows * j->cols * j->in * conv_size(j);
    if (frame >= j->before)
        return (const char *)j->x.data + (frame - j->before) * size + line;
    if (j->past && frame >= j->before - j->past->held)
        return (const char *)j->past->frames.data + frame * size + line;
    return NULL;
}

/* Taps that do not lie in the image as they do in a panel: they hang over its side, or need the
 * zero behind an odd number of channels. */
static const void *gather(const conv_job *j, const segment *s, const char *line, int64_t x,
                          char *edge) {
    if (s->width == 1 && (x < 0 || x >= j->cols))
        return zeros;
    size_t size = (size_t)conv_size(j), all = (size_t)s->depth * size;
    for (int i = 0; i < s->width; i++) {
        bool inside = x + i >= 0 && x + i < j->cols;
        size_t there = inside ? (size_t)s->channels * size : 0;
        char *to = edge + (size_t)i * all;
        if (inside)
            memcpy(to, line + (size_t)((x + i) * j->in + s->c0) * size, there);
        memset(to + there, 0, all - there);
    }
    return edge;
}

/* Where outputs [i, end) of one row find the segment's values, the first at column `at`. */
static void find_row(const conv_job *j, const segment *s, const char *line, int64_t at, int64_t i,
                     int64_t end, const void **rows, own_space *own) {
    int64_t size = conv_size(j), step = j->step * j->in * size;
    while (i < end) {
        if (at < 0 || at + s->width > j->cols || s->depth > s->channels) {
            rows[i] = gather(j, s, line, at, own->edge + i * CONV_RUN * size);
            i++;
            at += j->step;
            continue;
        }
        int64_t inside = least((j->cols - s->width - at) / j->step + 1, end - i);
        const char *first = line + (at * j->in + s->c0) * size;
        for (int64_t k = 0; k < inside; k++)
            rows[i + k] = first + k * step;
        i += inside;
        at += inside * j->step;
    }
}

/* The same of outputs [p, p + n). */
static void find_rows(const conv_job *j, const segment *s, int64_t p, int64_t n, const void **rows,
                      own_space *own) {
    own->from = n;
    own->to = 0;
    for (int64_t i = 0, end; i < n; i = end) {
        int64_t x = (p + i) % j->width, y = (p + i) / j->width % j->height;
        int64_t t = (p + i) / j->width / j->height;
        const char *line = input_line(j, s, t, y);
        end = i + least(j->width - x, n - i);
        if (line) {
            find_row(j, s, line, x * j->step + s->x, i, end, rows, own);
            own->from = least(own->from, i);
            own->to = end;
        }
        for (int64_t k = i; !line && k < end; k++)
            rows[k] = zeros;
    }
}

/* Where output p of the job's lies in dst, in `part` of its channels, and how many follow in its
 * row. */
static float *output_at(const conv_job *j, const out_group *g, int64_t p, int64_t *follow) {
    int64_t x = p % j->width, y = p / j->width % j->height, t = p / j->width / j->height;
    int64_t channels = j->dst.dim[3], parts = j->w->weight.dim[0] / channels;
    int64_t line = (t * parts + g->part) * j->dst.dim[1] + y * j->scale + j->py;
    *follow = j->width - x;
    return (float *)j->dst.data + (line * j->dst.dim[2] + x * j->scale + j->px) * channels +
           g->from;
}

/* Sums of outputs [p, p + n) as they start: what dst holds, or zero, and bias. */
static void load_sums(const conv_job *j, const out_group *g, int64_t p, int64_t n, int64_t ld,
                      float *sums) {
    int64_t step = j->scale * j->dst.dim[3], follow;
    const float *bias = j->w->bias.data;
    if (bias)
        bias += g->part * j->dst.dim[3] + g->from;
    for (int64_t end = p + n; p < end; p += follow) {
        const float *from = output_at(j, g, p, &follow);
        for (int64_t i = 0; i < least(follow, end - p); i++, from += step, sums += ld) {
            if (!g->first || j->add)
                memcpy(sums, from, (size_t)g->count * sizeof *sums);
            else
                memset(sums, 0, (size_t)g->count * sizeof *sums);
            for (int64_t o = 0; g->first && bias && o < g->count; o++)
                sums[o] += bias[o];
        }
    }
}

static void store_sums(const conv_job *j, const out_group *g, int64_t p, int64_t n, int64_t ld,
                       const float *sums) {
    int64_t step = j->scale * j->dst.dim[3], follow;
    for (int64_t end = p + n; p < end; p += follow) {
        float *to = output_at(j, g, p, &follow);
        for (int64_t i = 0; i < least(follow, end - p); i++, to += step, sums += ld)
            memcpy(to, sums, (size_t)g->count * sizeof *sums);
    }
}

/* Segments that differ in the kernel's column alone; their panels lie one after the other. */
typedef struct row_of_segments {
    int count;
    int64_t size, bytes; /* of each: depth, and its part of a panel */
    const char *panel;   /* the first out channels'; that of the next is `step` bytes on */
    int64_t step;
} row_of_segments;

/* Adds their products to the sums of n outputs, whose rows are known. */
static void add_products(const conv_job *j, own_space *own, int64_t n, const row_of_segments *s,
                         int64_t ld, int64_t count) {
    const cpu_kernels *k = &j->d->k;
    int64_t mr = conv_rows(j), pixel = j->in * conv_size(j);
    bool at_once = j->bf16 && k->bf16_parts;
    for (int part = 0; part < s->count; part += at_once ? s->count : 1) {
        const char *panel = s->panel + part * s->bytes;
        for (int64_t o = 0; o < ld; o += k->nr, panel += s->step) {
            /* Half a panel costs half; other parts of one would only make the stores slower. */
            int cols = count - o <= k->nr / 2 ? k->nr / 2 : k->nr;
            for (int64_t i = own->from / mr * mr; i < own->to; i += mr) {
                int rows = (int)least(mr, n - i);
                float *sums = own->sums + i * ld + o;
                const uint16_t *bf16 = (const uint16_t *)(const void *)panel;
                if (at_once)
                    k->bf16_parts(sums, ld, rows, cols, own->rows[0].bf16 + i, CONV_PIXELS,
                                  s->count, s->size, bf16, o ? 0 : n * pixel);
                else if (j->bf16)
                    k->bf16_tile(sums, ld, rows, cols, own->rows[part].bf16 + i, s->size, bf16,
                                 true);
                else
                    k->gemm_tile(sums, ld, rows, cols, own->rows[part].f32 + i, s->size,
                                 (const float *)(const void *)panel, true);
            }
        }
    }
}

/* Outputs [p, p + n) of a group, over one span. */
static void pixel_block(const conv_job *j, const conv_span *s, const out_group *g,
                        const char *panels, int64_t p, int64_t n, own_space *own) {
    int64_t ld = round_up(g->count, j->d->k.nr);
    row_of_segments row = {.panel = panels, .step = conv_panel(j, s)};
    load_sums(j, g, p, n, ld, own->sums);
    for (int64_t c = 0; c < s->count; c += s->segment) {
        segment e = {.width = s->runs ? j->across.taps : 1, .c0 = s->c0 + c};
        e.channels = least(s->segment, s->count - c);
        e.depth = conv_depth(j, e.channels);
        /* What is gathered has room for one segment. */
        row.count = e.depth > e.channels ? 1 : j->across.taps / e.width;
        row.size = e.depth * e.width;
        row.bytes = row.size * j->d->k.nr * conv_size(j);
        for (int t = j->first; t < j->kt; t++)
            for (int y = 0; y < j->down.taps; y++)
                for (int x = 0; x < j->across.taps; x += row.count * e.width) {
                    e.t = t;
                    e.y = j->down.offset[y];
                    for (int i = 0; i < row.count; i++) {
                        e.x = j->across.offset[x + i];
                        find_rows(j, &e, p, n, own->rows[i].any, own);
                    }
                    add_products(j, own, n, &row, ld, g->count);
                    row.panel += row.count * row.bytes;
                }
    }
    store_sums(j, g, p, n, ld, own->sums);
}

/* --------------------------------------------------------------------------------------- loops */

/* What the pieces of a span share. */
typedef struct span_work {
    const conv_job *j;
    const conv_span *s;
    const out_group *g;
    char *panels;
} span_work;

static void pack_piece(void *arg, int64_t from, int64_t to, int worker) {
    const span_work *w = arg;
    const conv_job *j = w->j;
    int64_t nr = j->d->k.nr, chunks = round_up(w->s->count, CONV_CHUNK) / CONV_CHUNK;
    for (int64_t i = from; i < to; i++) {
        int64_t o = i / chunks * nr, c = i % chunks * CONV_CHUNK;
        wan_cpu_conv_pack(j, w->s, w->panels + i / chunks * conv_panel(j, w->s), c,
                          least(CONV_CHUNK, w->s->count - c),
                          w->g->part * j->dst.dim[3] + w->g->from + o,
                          (int)least(nr, w->g->count - o), own_of(j->d, worker));
    }
}

static void pixel_piece(void *arg, int64_t from, int64_t to, int worker) {
    const span_work *w = arg;
    pixel_block(w->j, w->s, w->g, w->panels, from, to - from, own_of(w->j->d, worker));
    wan_cpu_rest(w->j->d);
}

static void run_span(const conv_job *j, const conv_span *s, const out_group *g) {
    span_work w = {j, s, g, j->d->work};
    int64_t pixels = j->frames * j->height * j->width, nr = j->d->k.nr, mr = conv_rows(j);
    int64_t pieces = round_up(g->count, nr) / nr * (round_up(s->count, CONV_CHUNK) / CONV_CHUNK);
    /* Small enough for every thread to get some, unless there is next to nothing to do. */
    bool small = pixels * g->count * s->count * conv_taps(j) < 1 << 18;
    int64_t block = small ? pixels : pixels / (4 * j->d->threads) + 1;
    block = least(round_up(block, mr), CONV_PIXELS / mr * mr);
    wan_team_run(j->d->team, pieces, small ? pieces : 1, pack_piece, &w);
    wan_team_run(j->d->team, pixels, block, pixel_piece, &w);
}

/* How many output channels find room for their panels. */
static int64_t group_channels(const conv_job *j, int64_t span) {
    int64_t room = (int64_t)j->d->threads * (int64_t)(CPU_WORK_BYTES - CONV_OWN);
    int64_t panel = conv_taps(j) * conv_depth(j, span) * j->d->k.nr * conv_size(j);
    return least(CONV_OUT, room / panel * j->d->k.nr) / j->d->k.nr * j->d->k.nr;
}

/* How many input channels are packed together.  The order of summation follows from this: it must
 * not depend on anything but the kernel's shape, the type and the instruction set. */
static int64_t span_channels(const conv_job *j) {
    int64_t taps = (int64_t)j->kt * j->down.taps * j->across.taps;
    assert(taps <= CONV_TAPS);
    int64_t n = CONV_PANEL / (taps * j->d->k.nr * conv_size(j));
    return n / (n < CONV_SEGMENT ? CONV_LEAST : CONV_SEGMENT) *
           (n < CONV_SEGMENT ? CONV_LEAST : CONV_SEGMENT);
}

static void run(compute *c, const conv_job *j) {
    int64_t channels = j->dst.dim[3], parts = j->w->weight.dim[0] / channels;
    int64_t span = span_channels(j);
    int64_t group = group_channels(j, least(span, j->in));
    for (int64_t part = 0; part < parts; part++)
        for (int64_t o = 0; o < channels; o += group) {
            out_group g = {.part = part, .from = o, .count = least(group, channels - o)};
            for (int64_t i = 0; i < j->in && wan_ready(c); i += span) {
                conv_span s = {.c0 = i, .count = least(span, j->in - i)};
                s.runs = j->in <= least(CONV_FEW, span);
                s.segment = s.runs ? s.count : CONV_SEGMENT;
                g.first = i == 0;
                run_span(j, &s, &g);
            }
        }
}

/* ----------------------------------------------------------------------------------------- ops */

static conv_axis plain_axis(int64_t taps, int first) {
    conv_axis a = {.taps = (int)taps};
    assert(taps <= 3);
    for (int i = 0; i < a.taps; i++) {
        a.offset[i] = first + i;
        a.from[i] = i;
        a.count[i] = 1;
    }
    return a;
}

/* A 3-tap axis over doubled pixels, as outputs of one parity see the pixels before doubling. */
static conv_axis phase_axis(int parity) {
    if (parity == 0)
        return (conv_axis){.taps = 2, .offset = {-1, 0}, .from = {0, 1}, .count = {1, 2}};
    return (conv_axis){.taps = 2, .offset = {0, 1}, .from = {0, 2}, .count = {2, 1}};
}

dtype wan_cpu_conv_input(precision p) {
    cpu_kernels k;
    wan_cpu_kernels_init(&k, wan_cpu_detect());
    return wan_cpu_without_int8(p, &k) == WAN_PRECISION_BF16 ? WAN_BF16 : WAN_F32;
}

void wan_cpu_conv3d(compute *c, tensor dst, tensor x, const conv *w, const history *past,
                    int time_stride, bool add) {
    const int64_t *k = w->weight.dim + 2;
    conv_job j = {.d = wan_cpu_device(c),
                  .x = x,
                  .dst = dst,
                  .w = w,
                  .past = past,
                  .bf16 = x.type == WAN_BF16,
                  .add = add,
                  .in = x.dim[3],
                  .rows = x.dim[1],
                  .cols = x.dim[2],
                  .height = x.dim[1],
                  .width = x.dim[2],
                  .kt = (int)k[0],
                  .time_step = time_stride,
                  .step = 1,
                  .scale = 1};
    j.before = past ? past->frames.dim[0] : k[0] - 1;
    j.frames = (j.before + x.dim[0] - k[0]) / time_stride + 1;
    /* The last output frame sees most; what is zero for it is zero for all. */
    int64_t held = past ? past->held : 0, zero = j.before - held - (j.frames - 1) * time_stride;
    j.first = (int)(zero < 0 ? 0 : zero);
    j.down = plain_axis(k[1], -(int)k[1] / 2);
    j.across = plain_axis(k[2], -(int)k[2] / 2);
    run(c, &j);
}

void wan_cpu_conv2d(compute *c, tensor dst, tensor x, const conv *w, resample r, bool add) {
    int64_t k = w->weight.dim[2];
    conv_job j = {.d = wan_cpu_device(c),
                  .x = x,
                  .dst = dst,
                  .w = w,
                  .bf16 = x.type == WAN_BF16,
                  .add = add,
                  .in = x.dim[3],
                  .rows = x.dim[1],
                  .cols = x.dim[2],
                  .frames = x.dim[0],
                  .height = dst.dim[1],
                  .width = dst.dim[2],
                  .kt = 1,
                  .time_step = 1,
                  .step = 1,
                  .scale = 1};
    if (r == WAN_UP2) {
        j.height = x.dim[1];
        j.width = x.dim[2];
        j.scale = 2;
        for (int phase = 0; phase < 4; phase++) {
            j.py = phase / 2;
            j.px = phase % 2;
            j.down = phase_axis(j.py);
            j.across = phase_axis(j.px);
            run(c, &j);
        }
        return;
    }
    j.step = r == WAN_DOWN2 ? 2 : 1;
    j.down = j.across = plain_axis(k, r == WAN_DOWN2 ? 0 : -(int)k / 2);
    run(c, &j);
}
