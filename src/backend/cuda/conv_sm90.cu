/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions on Hopper, the host's part of conv_sm90.cuh: which tiles, tensor maps, launch. */
#include "backend/cuda/conv_sm90.cuh"

typedef void kernel(const conv_job);

typedef struct variant {
    int rows, outs, cluster, shared;
    double alone, together; /* speeds: taps one by one, those of a row from one stage */
    dtype type;
    bool norm;
    kernel *run;
} variant;

template <class T> static constexpr variant variant_of(double alone, double together) {
    dtype type = std::is_same_v<typename T::number, f8> ? WAN_F8_E4M3 : WAN_F16;
    return variant{T::ROWS,  T::N, T::CLUSTER, T::SHARED,     alone,
                   together, type, T::NORM,    conv_kernel<T>};
}

/* Speeds as measured on an H100 at its power limit of 700 W, where the first one's is 700 TFLOP/s.
 * 160 outputs are for the encoder (160 and 320 channels), 16 for the head (12). */
static const variant variants[] = {
    variant_of<tile<f16, 1, 256, 2, 4, 4>>(0.99, 1.0),
    variant_of<tile<f16, 1, 128, 2, 6, 6>>(0.72, 0.96),
    variant_of<tile<f16, 2, 160, 2, 3, 5>>(0.93, 0.97),
    variant_of<tile<f16, 2, 16, 1, 5, 8>>(0.17, 0.34),
    variant_of<tile<f8, 1, 256, 2, 4, 4>>(1.6, 1.9),
    variant_of<tile<f8, 1, 128, 2, 6, 6>>(1.2, 1.9),
    variant_of<normed<f16, 1, 256, 2, 4, 4>>(1, 1),
    variant_of<normed<f8, 1, 256, 2, 4, 4>>(1, 1),
};
#define VARIANTS (int)(sizeof variants / sizeof *variants)

/* The driver's functions, found at run time so that nothing links with libcuda. */
typedef struct encoders {
    decltype(&cuTensorMapEncodeTiled) tiled;
    decltype(&cuTensorMapEncodeIm2col) im2col;
} encoders;

static void *driver_function(const char *name) {
    void *f = NULL;
    cudaDriverEntryPointQueryResult found;
    cudaError_t e = cudaGetDriverEntryPointByVersion(name, &f, 12000, cudaEnableDefault, &found);
    return e == cudaSuccess && found == cudaDriverEntryPointSuccess ? f : NULL;
}

static const encoders *find_encoders(void) {
    static const encoders found = {
        (decltype(&cuTensorMapEncodeTiled))driver_function("cuTensorMapEncodeTiled"),
        (decltype(&cuTensorMapEncodeIm2col))driver_function("cuTensorMapEncodeIm2col")};
    return found.tiled && found.im2col ? &found : NULL;
}

static int64_t ceil_of(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static int64_t bytes_of(dtype type) {
    return type == WAN_F8_E4M3 ? 1 : 2;
}

static CUtensorMapDataType map_type(dtype type) {
    return type == WAN_F8_E4M3 ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
}

/* Pixels that an im2col map walks over: pitches of pixels, rows and frames in bytes.  The first tap
 * walks from `lower` on over a box that is `upper` larger than the tensor. */
typedef struct walk {
    dtype type;
    const void *data;
    int64_t size[4], pitch[3];
    int lower[2], upper[2], stride, row_bytes, pixels; /* row_bytes: of a pixel, in one load */
} walk;

static bool map_walk(const encoders *f, CUtensorMap *map, const walk *w) {
    cuuint64_t sizes[4], pitches[3];
    cuuint32_t strides[4] = {1, (cuuint32_t)w->stride, (cuuint32_t)w->stride, 1};
    for (int i = 0; i < 4; i++)
        sizes[i] = (cuuint64_t)w->size[i];
    for (int i = 0; i < 3; i++)
        pitches[i] = (cuuint64_t)w->pitch[i];
    return f->im2col(map, map_type(w->type), 4, (void *)w->data, sizes, pitches, w->lower, w->upper,
                     (cuuint32_t)(w->row_bytes / bytes_of(w->type)), (cuuint32_t)w->pixels, strides,
                     CU_TENSOR_MAP_INTERLEAVE_NONE,
                     w->row_bytes == ROW_BYTES ? CU_TENSOR_MAP_SWIZZLE_128B
                                               : CU_TENSOR_MAP_SWIZZLE_64B,
                     CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                     CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

/* `frames` frames from `first` on, each `step` frames after the one before. */
static bool map_pixels(const encoders *f, CUtensorMap *map, const conv_args *a, const conv_job *j,
                       const void *first, int64_t frames, int step) {
    bool shared = j->together > 1;
    int64_t row = a->in * bytes_of(a->type);
    walk w = {a->type,
              first,
              {a->in, a->width, a->height, frames},
              {row, row * a->width, row * a->width * a->height * step},
              {shared ? 0 : -a->left, -a->top},
              {shared ? 1 : (int)((j->width - 1) * a->stride + 1 - a->left - a->width),
               (int)((j->height - 1) * a->stride + 1 - a->top - a->height)},
              a->stride,
              ROW_BYTES,
              j->pixel_bytes / ROW_BYTES};
    return map_walk(f, map, &w);
}

static bool map_old(const encoders *f, const conv_args *a, conv_job *j) {
    walk w = {WAN_F16,
              j->dst,
              {j->out, j->width, j->height, a->frames_out},
              {j->col * 2, j->row * 2, j->frame * 2},
              {0, 0},
              {j->padded - j->width, 0},
              1,
              OLD_STEP * 2,
              64};
    return map_walk(f, &j->old, &w);
}

static bool map_weight(const encoders *f, CUtensorMap *map, const conv_args *a, const variant *v) {
    cuuint64_t size[3] = {(cuuint64_t)a->in, (cuuint64_t)a->out,
                          (cuuint64_t)(a->kt * a->kh * a->kw)};
    cuuint64_t row = size[0] * (cuuint64_t)bytes_of(a->type), pitch[2] = {row, row * size[1]};
    cuuint32_t box[3] = {(cuuint32_t)(ROW_BYTES / bytes_of(a->type)),
                         (cuuint32_t)(v->outs / v->cluster), 1};
    cuuint32_t stride[3] = {1, 1, 1};
    return f->tiled(map, map_type(a->type), 3, (void *)a->weight, size, pitch, box, stride,
                    CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                    CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                    CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

static void add_source(conv_job *j, int map, int tap, int64_t shift, int64_t count) {
    j->sources[j->n_sources++] = (source){map, tap, (int)shift, (int)count};
}

/* Tap i of frame t sees frame t * time_stride + i - before of x, or of past where that is below 0.
 * With a stride of 2, even and odd frames of x are tensors of their own. */
static bool map_sources(const encoders *f, conv_job *j, const conv_args *a) {
    int ts = a->time_stride;
    int64_t plane = a->height * a->width * a->in * bytes_of(a->type);
    int held = a->past ? a->held : 0;
    for (int i = 0; i < ts; i++)
        if (a->frames_in > i && !map_pixels(f, &j->x[i], a, j, (const char *)a->x + i * plane,
                                            ceil_of(a->frames_in - i, ts), ts))
            return false;
    if (held &&
        !map_pixels(f, &j->x[2], a, j, (const char *)a->past + (a->before - held) * plane, held, 1))
        return false;
    for (int i = 0; i < a->kt; i++) {
        int from = i - a->before, odd = from & (ts - 1);
        if (held && ts == 1)
            add_source(j, 2, i, from + held, held);
        if (held && ts == 2 && odd) /* held is 1 */
            add_source(j, 2, i, (from + 1) / 2, 1);
        if (a->frames_in > odd)
            add_source(j, odd, i, (from - odd) / ts, ceil_of(a->frames_in - odd, ts));
    }
    return true;
}

/* What stands beside a row, one column of zeros, is enough for the kernel. */
static bool can_share(const conv_args *a) {
    return a->kw > 1 && a->stride == 1 && a->left <= 1 && a->kw - 1 - a->left <= 1;
}

static bool fill_job(conv_job *j, const conv_args *a, const variant *v) {
    const encoders *f = find_encoders();
    bool shared = can_share(a);
    *j = conv_job();
    j->height = (int)(a->height / a->stride);
    j->width = (int)(a->width / a->stride);
    j->padded = j->width + shared;
    j->plane = j->height * j->padded;
    j->pixels = (int)(a->frames_out * j->plane);
    j->clusters = (int)ceil_of(ceil_of(j->pixels, v->rows), v->cluster);
    j->n_tiles = (int)ceil_of(a->out, v->outs);
    j->kh = a->kh;
    j->kw = a->kw;
    j->together = shared ? a->kw : 1;
    j->pixel_bytes = (v->rows + j->together - 1) * ROW_BYTES;
    j->chunks = (int)ceil_of(a->in * bytes_of(a->type), ROW_BYTES);
    j->stride = a->stride;
    j->top = a->top;
    j->left = a->left;
    j->out = (int)a->out;
    j->channels = (int)(a->out / a->split);
    j->part = (a->dst_h * a->dst_w - 1) * j->channels;
    j->frame = a->split * a->dst_h * a->dst_w * j->channels;
    j->row = (int)(a->step * a->dst_w * j->channels);
    j->col = a->step * j->channels;
    j->dst = (uint16_t *)a->dst + (a->off_y * a->dst_w + a->off_x) * j->channels;
    j->bias = a->bias;
    j->scale = a->scale;
    j->gain = a->gain;
    j->code = a->code;
    j->unit = a->unit;
    j->fetch = a->add && v->outs >= OLD_STEP;
    j->add = a->add && !j->fetch;
    return f && map_weight(f, &j->weight, a, v) && map_sources(f, j, a) &&
           (!j->fetch || map_old(f, a, j));
}

static bool is_aligned(const void *p, uintptr_t to) {
    return (uintptr_t)p % to == 0;
}

static bool type_fits(const conv_args *a) {
    if (a->type == WAN_F8_E4M3) /* sums put aside stay in the range of f16 */
        return a->in % 16 == 0 && a->in <= 1024 && a->kt * a->kh * a->kw <= 27 && a->scale &&
               is_aligned(a->scale, 8);
    return a->type == WAN_F16 && a->in % 8 == 0;
}

/* A norm needs all outputs in one tile, see variant_fits. */
static bool norm_fits(const conv_args *a) {
    return !a->gain || (a->split == 1 && a->step == 1 && !a->add && is_aligned(a->gain, 8));
}

/* What the kernels take. */
static bool fits(const cuda_device *d, const conv_args *a) {
    int64_t plane = a->height * (a->width + 1), pixels = a->frames_out * plane;
    return d->sm == 90 && type_fits(a) && norm_fits(a) && a->out % a->split == 0 &&
           (a->split == 1 || (a->split == 2 && !a->add)) && a->before < a->kt &&
           a->kt <= MAX_TAPS && a->stride <= 2 && a->height >= a->stride && a->width >= a->stride &&
           (a->time_stride == 1 || (a->time_stride == 2 && a->held <= 1)) && pixels > 0 &&
           pixels + plane < INT32_MAX - 1024 && a->top < 128 && a->left < 128 &&
           is_aligned(a->x, 16) && is_aligned(a->past, 16) && is_aligned(a->weight, 16) &&
           is_aligned(a->dst, 16) && is_aligned(a->bias, 8);
}

static bool variant_fits(const variant *v, const conv_args *a) {
    return v->type == a->type && v->norm == (a->gain != NULL) &&
           (v->norm              ? a->out == v->outs
            : v->outs < OLD_STEP ? a->out <= v->outs
                                 : a->out / a->split % 8 == 0);
}

/* All tiles of a variant cost the same, so the time is that of the rounds that the multiprocessors
 * need, each as long as its tile is large: what is lost is outputs past the last, and idle blocks
 * at the end. */
static double time_of(const cuda_device *d, const conv_args *a, const variant *v) {
    bool shared = can_share(a);
    double speed = shared ? v->together : v->alone;
    int64_t width = a->width / a->stride + shared;
    int64_t pixels = a->frames_out * (a->height / a->stride) * width;
    int64_t tiles = ceil_of(ceil_of(pixels, v->rows), v->cluster) * ceil_of(a->out, v->outs);
    int64_t rounds = ceil_of(tiles, d->multiprocessors / v->cluster);
    return (double)rounds * v->rows * v->outs / speed;
}

/* NULL: none. */
static const variant *choose(const cuda_device *d, const conv_args *a) {
    const variant *best = NULL;
    for (const variant *v = variants; v < variants + VARIANTS; v++)
        if (variant_fits(v, a) && (!best || time_of(d, a, v) < time_of(d, a, best)))
            best = v;
    return best;
}

/* False: no tensor map could be made. */
static bool launch(const cuda_device *d, const conv_args *a, const variant *v, cudaError_t *e) {
    conv_job j;
    if (!fill_job(&j, a, v))
        return false;
    const void *kernel = (const void *)v->run;
    *e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, v->shared);
    if (*e != cudaSuccess)
        return true;
    int64_t tiles = (int64_t)j.clusters * j.n_tiles, room = d->multiprocessors / v->cluster;
    cudaLaunchAttribute cluster;
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {(unsigned)v->cluster, 1, 1};
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)((tiles < room ? tiles : room) * v->cluster));
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = (size_t)v->shared;
    config.stream = d->stream;
    config.attrs = &cluster;
    config.numAttrs = 1;
    void *args[] = {&j};
    *e = cudaLaunchKernelExC(&config, kernel, args);
    return true;
}

extern "C" bool wan_cuda_conv_sm90(const cuda_device *d, const conv_args *a, cudaError_t *e) {
    const variant *v = fits(d, a) ? choose(d, a) : NULL;
    return v && launch(d, a, v, e);
}
