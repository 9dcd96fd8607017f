/* SPDX-License-Identifier: Apache-2.0 */
/* Stored weights to bf16 or f32, with the scales that lie beside them; and rows of such a table.
 *
 * A block takes 4096 numbers: their bytes are fetched 16 at a time into shared memory whatever the
 * type's blocks look like (4096 numbers of every type are a multiple of 16 bytes), decoded from
 * there 8 numbers a thread, and written 16 bytes at a time.  So both sides of device memory see
 * nothing but full lines. */
#include "backend/cuda/decode.cuh"

enum { THREADS = 256, PIECE = 4096 };

/* Numbers of row o in group g: code * scale[o], or code * group_scale[o, g] + group_offset[o, g].
 */
typedef struct scales {
    const float *row; /* NULL: 1 */
    bool one;         /* for all rows */
    dtype group_type;
    const void *scale, *offset; /* NULL: no groups */
    int groups, size;           /* of a row; columns of a group */
} scales;

/* `segments` stretches of `length` numbers, each whole rows: number k of stretch i is number
 * k + ids[i] * cols of the weight (without ids there is one stretch). */
typedef struct unpack_job {
    const uint8_t *src;
    const int32_t *ids;
    int64_t length, pieces; /* pieces of a stretch */
    uint32_t cols;
    scales by;
    bool scaled, wide; /* wide: dst takes 16-byte stores */
} unpack_job;

/* The scales of n <= 8 numbers that begin in (row, col). */
DEVICE void scale_numbers(float (&v)[WIDE], int n, const unpack_job &j, int64_t row, uint32_t col) {
    const scales &s = j.by;
    float each = 1, scale = 1, plus = 0;
    uint32_t left = 0; /* columns until other scales count */
#pragma unroll
    for (int k = 0; k < WIDE; k++) {
        if (k >= n)
            break;
        if (left == 0) {
            if (col == j.cols) {
                row++;
                col = 0;
            }
            left = j.cols - col;
            if (s.row)
                each = s.row[s.one ? 0 : row];
            if (s.scale) {
                int64_t at = row * s.groups + col / s.size;
                scale = plain_value(s.group_type, s.scale, at);
                plus = plain_value(s.group_type, s.offset, at);
                left = s.size - col % s.size;
            }
        }
        if (s.scale)
            v[k] = __fadd_rn(__fmul_rn(v[k], scale), plus);
        if (s.row)
            v[k] = __fmul_rn(v[k], each);
        col++;
        left--;
    }
}

DEVICE void fetch(uint8_t *to, const uint8_t *from, int bytes) {
    int whole = aligned_on_device(from) ? bytes / 16 : 0;
    for (int i = threadIdx.x; i < whole; i += THREADS)
        reinterpret_cast<uint4 *>(to)[i] = reinterpret_cast<const uint4 *>(from)[i];
    for (int i = whole * 16 + threadIdx.x; i < bytes; i += THREADS)
        to[i] = from[i];
}

template <dtype T, class Y>
static __global__ void __launch_bounds__(THREADS) unpack_pieces(Y *dst, const unpack_job j) {
    extern __shared__ uint4 space[];
    uint8_t *bytes = reinterpret_cast<uint8_t *>(space);
    int64_t segment = blockIdx.x / j.pieces, at = blockIdx.x % j.pieces * PIECE;
    int64_t first = (j.ids ? (int64_t)j.ids[segment] * j.cols : 0) + at;
    int count = (int)(j.length - at < PIECE ? j.length - at : PIECE);
    fetch(bytes, j.src + first / layout<T>::block * layout<T>::bytes,
          count / layout<T>::block * layout<T>::bytes);
    int64_t row = j.scaled ? first / j.cols : 0;
    uint32_t col = j.scaled ? (uint32_t)(first - row * j.cols) : 0;
    dst += segment * j.length + at;
    __syncthreads();
    for (int e = threadIdx.x * WIDE; e < count; e += THREADS * WIDE) {
        float v[WIDE];
        decode<T>(v, bytes, e);
        if (j.scaled)
            scale_numbers(v, count - e, j, row + (col + e) / j.cols, (col + e) % j.cols);
        if (j.wide && e + WIDE <= count)
            store_wide(dst + e, v);
        else
            store_some(dst + e, v, count - e);
    }
}

template <dtype T>
static void launch(void *dst, dtype to, const unpack_job &j, int64_t segments,
                   cudaStream_t stream) {
    unsigned blocks = (unsigned)(segments * j.pieces);
    int bytes = PIECE / layout<T>::block * layout<T>::bytes;
    static_assert(PIECE / layout<T>::block * layout<T>::bytes % 16 == 0, "aligned pieces");
    if (to == WAN_BF16)
        unpack_pieces<T><<<blocks, THREADS, bytes, stream>>>((bf16 *)dst, j);
    else
        unpack_pieces<T><<<blocks, THREADS, bytes, stream>>>((float *)dst, j);
}

#define CASE(T)                                                                                    \
    case T:                                                                                        \
        launch<T>(dst, to, j, segments, stream);                                                   \
        return true;

static bool launch_type(dtype type, void *dst, dtype to, const unpack_job &j, int64_t segments,
                        cudaStream_t stream) {
    /* clang-format off */
    switch (type) {
    CASE(WAN_F64) CASE(WAN_F32) CASE(WAN_F16) CASE(WAN_BF16) CASE(WAN_F8_E4M3) CASE(WAN_F8_E5M2)
    CASE(WAN_I8) CASE(WAN_MLX_8) CASE(WAN_MLX_4)
    CASE(WAN_Q8_0) CASE(WAN_Q4_0) CASE(WAN_Q4_1) CASE(WAN_Q5_0) CASE(WAN_Q5_1) CASE(WAN_IQ4_NL)
    CASE(WAN_Q2_K) CASE(WAN_Q3_K) CASE(WAN_Q4_K) CASE(WAN_Q5_K) CASE(WAN_Q6_K) CASE(WAN_IQ4_XS)
    default: return false;
    }
    /* clang-format on */
}

static unpack_job job_of(const linear *l, int64_t length, const int32_t *ids, const void *dst) {
    unpack_job j = {};
    j.src = (const uint8_t *)l->weight.data;
    j.ids = ids;
    j.length = length;
    j.pieces = ceil_div(length, PIECE);
    j.cols = (uint32_t)l->weight.dim[1];
    j.by.row = (const float *)l->scale.data;
    j.by.one = !l->scale.data || l->scale.dim[0] == 1;
    j.by.scale = l->group_scale.data;
    j.by.offset = l->group_offset.data;
    if (j.by.scale) {
        j.by.group_type = l->group_scale.type;
        j.by.groups = (int)l->group_scale.dim[1];
        j.by.size = (int)(j.cols / j.by.groups);
    }
    j.scaled = j.by.row || j.by.scale;
    j.wide = aligned_16(dst) && (!ids || length % WIDE == 0);
    return j;
}

static void run(compute *c, void *dst, dtype to, const linear *l, const unpack_job &j,
                int64_t segments, const char *what) {
    if (segments * j.length == 0)
        return;
    if (launch_type(l->weight.type, dst, to, j, segments, wan_cuda_device(c)->stream))
        wan_cuda_launched(c, what);
    else
        wan_fail(&c->err, WAN_E_TYPE, "cuda: %s cannot be a weight",
                 wan_dtype(l->weight.type)->name);
}

void wan_cuda_unpack(compute *c, void *dst, dtype to, const linear *l) {
    run(c, dst, to, l, job_of(l, l->weight.dim[0] * l->weight.dim[1], NULL, dst), 1, "unpack");
}

void wan_cuda_rows(compute *c, tensor dst, const linear *table, tensor ids) {
    linear l = *table;
    if (l.scale.data)
        l.scale.data = wan_cuda_weight(c, l.scale);
    if (l.group_scale.data) {
        l.group_scale.data = wan_cuda_weight(c, l.group_scale);
        l.group_offset.data = wan_cuda_weight(c, l.group_offset);
    }
    l.weight.data = wan_cuda_weight(c, l.weight);
    if (c->err.code)
        return;
    run(c, dst.data, dst.type, &l, job_of(&l, dst.dim[1], (const int32_t *)ids.data, dst.data),
        ids.dim[0], "rows");
}
