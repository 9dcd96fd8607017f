/* SPDX-License-Identifier: Apache-2.0 */
/* conv_sm90_job.cuh - what a kernel of conv_sm90.cuh is told, and where its pixels are. */
#ifndef WAN_BACKEND_CUDA_CONV_SM90_JOB_CUH
#define WAN_BACKEND_CUDA_CONV_SM90_JOB_CUH

#include "backend/cuda/sm90.cuh"
#include "backend/cuda/vector.cuh"

#define ROW_BYTES 128 /* of a step, a swizzled row */
#define THREADS 384
#define MAX_TAPS 3  /* in time */
#define GROUP 16    /* clusters of pixels whose tiles are done together, for the L2 cache */
#define GROUPS 2    /* of consumers */
#define OLD_STEP 32 /* outputs of a box of what dst holds; 64 bytes, a swizzled row */
#define ASIDE 4096  /* codes that count 1 in sums put aside */

/* A tap in time, in one map: frame t of dst sees frame t + shift of the map. */
typedef struct source {
    int map, tap, shift, count;
} source;

typedef struct conv_job {
    CUtensorMap weight, old, x[3]; /* x: every frame or the even ones, the odd ones, past */
    source sources[2 * MAX_TAPS];
    int n_sources, kh, kw, chunks; /* chunks of one step */
    int together, pixel_bytes;     /* taps of a row that share a stage of pixels: kw or 1 */
    int pixels, plane, height, width, padded; /* of dst as this call fills it, rows padded */
    int clusters, n_tiles;                    /* tiles: clusters of pixels x groups of outputs */
    int stride, top, left;
    void *dst; /* its first pixel */
    const float *bias, *scale;
    float unit; /* a sum of codes counts scale[output] * unit */
    const float *gain;
    float code;        /* see struct conv_args */
    int out, channels; /* outputs; of one frame of dst, the others go `part` further on */
    int64_t part, frame;
    int row, col;
    bool add, fetch; /* dst +=: number by number; with `old` */
} conv_job;

/* Where a block's tile is. */
typedef struct place {
    int first_pixel, out; /* out: first output */
    int first, last;      /* frames of the whole cluster's pixels */
} place;

template <int ROWS, int N, int CLUSTER>
static __device__ __forceinline__ place place_of(const conv_job &j, int index, int rank) {
    int span = GROUP * j.n_tiles, group = index / span * GROUP;
    int size = min(GROUP, j.clusters - group), r = index % span;
    int pixel = (group + r % size) * CLUSTER * ROWS;
    place p;
    p.first_pixel = pixel + rank * ROWS;
    p.out = r / size * N;
    p.first = pixel / j.plane;
    p.last = (min(pixel + CLUSTER * ROWS, j.pixels) - 1) / j.plane;
    return p;
}

static __device__ __forceinline__ bool is_seen(const source &s, const place &p) {
    return p.last + s.shift >= 0 && p.first + s.shift < s.count;
}

/* The coordinates of pixel i, -1 the one in front of the first. */
typedef struct pixel {
    int t, y, x;
} pixel;

static __device__ __forceinline__ pixel pixel_of(const conv_job &j, int i) {
    unsigned from = (unsigned)(i + j.plane), t = from / (unsigned)j.plane;
    unsigned in_frame = from - t * (unsigned)j.plane, y = in_frame / (unsigned)j.padded;
    return pixel{(int)t - 1, (int)y, (int)(in_frame - y * (unsigned)j.padded)};
}

/* Where pixel i goes; NULL: nowhere. */
template <class Y> static __device__ __forceinline__ Y *target_of(const conv_job &j, int i) {
    pixel p = pixel_of(j, i);
    if (i >= j.pixels || p.x >= j.width)
        return NULL;
    return (Y *)j.dst + p.t * j.frame + p.y * (int64_t)j.row + p.x * (int64_t)j.col;
}

#endif
