/* SPDX-License-Identifier: Apache-2.0 */
/* conv_job.h - one convolution as the matrix products it is made of; shared by conv.c and
 * conv_pack.c. The sum over taps and input channels is cut into segments: stretches of numbers that
 * lie side by side in a pixel (one tap, up to SEGMENT channels) or, with few channels, in a row of
 * pixels (all taps of a kernel row at once).  Segments are taken in an order that shapes alone
 * decide.  Numbers are f32 or, where the input is, bf16 and then in pairs: a tap with an odd number
 * of channels has a zero behind them. */
#ifndef WAN_BACKEND_CPU_CONV_JOB_H
#define WAN_BACKEND_CPU_CONV_JOB_H

#include "backend/cpu/cpu.h"

enum {
    CONV_TAPS = 27,     /* of a kernel, at most */
    CONV_ACROSS = 3,    /* of a row of it, at most */
    CONV_SEGMENT = 256, /* channels of a segment, at most */
    CONV_FEW = 128,     /* so many channels or fewer: segments are rows of the kernel */
    CONV_RUN = 3 * CONV_FEW,
    CONV_CHUNK = 16,        /* channels packed in one go, even */
    CONV_OUT = 64,          /* output channels that share a pass over the pixels, at most */
    CONV_PIXELS = 128,      /* pixels of a block, at most */
    CONV_LEAST = 32,        /* channels come in multiples of it */
    CONV_PANEL = 448 << 10, /* bytes of a panel, at most */
    CONV_OWN = 240 << 10    /* bytes of a thread's own work space; the rest is everybody's panels */
};

/* Taps along rows or columns, each the sum of `count` taps of the stored kernel. */
typedef struct conv_axis {
    int taps;
    int offset[3]; /* of the input seen, from the output's place times the step */
    int from[3], count[3];
} conv_axis;

typedef struct conv_job {
    const cpu_device *d;
    tensor x, dst;
    const conv *w;
    const history *past;
    bool bf16, add;
    int64_t in, rows, cols;         /* of the input */
    int64_t frames, height, width;  /* outputs that this job makes */
    int64_t before;                 /* frames in front of x, held or zero */
    int kt, first, time_step, step; /* taps in time; the first that meets a frame at all */
    conv_axis down, across;         /* the kernel's rows and columns */
    int scale, py, px; /* output (y, x) lies at (scale * y + py, scale * x + px) of dst */
} conv_job;

/* Input channels [c0, c0 + count) whose taps are packed together. */
typedef struct conv_span {
    int64_t c0, count;
    int64_t segment; /* channels of each segment, the last may have fewer */
    bool runs;       /* segments are rows of the kernel */
} conv_span;

static inline int64_t conv_taps(const conv_job *j) {
    return (int64_t)(j->kt - j->first) * j->down.taps * j->across.taps;
}

/* Bytes of a number of the input and of panels. */
static inline int64_t conv_size(const conv_job *j) {
    return j->bf16 ? sizeof(uint16_t) : sizeof(float);
}

/* Numbers that so many channels of a tap take. */
static inline int64_t conv_depth(const conv_job *j, int64_t channels) {
    return j->bf16 ? (channels + 1) / 2 * 2 : channels;
}

/* Bytes of one panel: all taps of a span for nr output channels. */
static inline int64_t conv_panel(const conv_job *j, const conv_span *s) {
    return conv_taps(j) * conv_depth(j, s->count) * j->d->k.nr * conv_size(j);
}

/* Channels [from, from + count) of the span, output channels [out, out + cols), into their place in
 * the panel; `own` is CONV_OWN bytes of the calling thread. */
void wan_cpu_conv_pack(const conv_job *j, const conv_span *s, char *panel, int64_t from,
                       int64_t count, int64_t out, int cols, void *own);

#endif
