/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels in plain C: what the other sets' versions must equal up to rounding. */
#include "backend/cpu/kernels.h"

#include <math.h>
#include <string.h>

#include "base/half.h"

enum { MR = 4, NR = 16 };

static void gemm_tile_scalar(float *dst, int64_t ld, int rows, int cols, const float *const *a,
                             int64_t k, const float *panel, bool add) {
    for (int r = 0; r < rows; r++) {
        float sum[NR] = {0};
        for (int64_t i = 0; i < k; i++)
            for (int j = 0; j < NR; j++)
                sum[j] += a[r][i] * panel[i * NR + j];
        for (int j = 0; j < cols; j++)
            dst[r * ld + j] = add ? dst[r * ld + j] + sum[j] : sum[j];
    }
}

static void gemm_columns_scalar(float *dst, int64_t ld, int rows, const float *a, int64_t lda,
                                int64_t k, const float *panel) {
    for (int r = 0; r < rows; r++) {
        float sum[NR] = {0};
        for (int64_t i = 0; i < k; i++)
            for (int j = 0; j < NR; j++)
                sum[j] += a[i * lda + r] * panel[i * NR + j];
        for (int j = 0; j < NR; j++)
            dst[r * ld + j] += sum[j];
    }
}

static void transpose_scalar(float *dst, int64_t dst_ld, const float *src, int64_t src_ld,
                             int64_t rows, int64_t cols) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            dst[c * dst_ld + r] = src[r * src_ld + c];
}

static void bf16_tile_scalar(float *dst, int64_t ld, int rows, int cols, const uint16_t *const *a,
                             int64_t k, const uint16_t *panel, bool add) {
    for (int r = 0; r < rows; r++) {
        float sum[NR] = {0};
        for (int64_t i = 0; i < k; i++)
            for (int j = 0; j < NR; j++)
                sum[j] += wan_brain_to_float(a[r][i]) *
                          wan_brain_to_float(panel[(i / 2 * NR + j) * 2 + i % 2]);
        for (int j = 0; j < cols; j++)
            dst[r * ld + j] = add ? dst[r * ld + j] + sum[j] : sum[j];
    }
}

static void to_bf16_scalar(uint16_t *dst, const float *src, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        dst[i] = wan_brain_from_float(src[i]);
}

static void pack_bf16_scalar(uint16_t *panel, const float *src, int64_t src_ld, int64_t rows,
                             int64_t cols) {
    memset(panel, 0, sizeof *panel * (size_t)((cols + 1) / 2 * 2 * NR));
    for (int64_t j = 0; j < rows; j++)
        for (int64_t i = 0; i < cols; i++)
            panel[(i / 2 * NR + j) * 2 + i % 2] = wan_brain_from_float(src[j * src_ld + i]);
}

static void pack_pairs_scalar(uint16_t *panel, const uint16_t *src, int64_t src_ld, int64_t rows,
                              int64_t cols) {
    memset(panel, 0, sizeof *panel * (size_t)(cols * NR));
    for (int64_t j = 0; j < rows; j++)
        for (int64_t i = 0; i < cols; i++)
            panel[(i / 2 * NR + j) * 2 + i % 2] = src[j * src_ld + i];
}

static void softmax_tile_scalar(float *s, int64_t keys, float *max, float *sum, float *factor) {
    for (int j = 0; j < NR; j++) {
        float top = max[j], total = 0;
        for (int64_t i = 0; i < keys; i++)
            top = fmaxf(top, s[i * NR + j]);
        for (int64_t i = 0; i < keys; i++) {
            s[i * NR + j] = expf(s[i * NR + j] - top);
            total += s[i * NR + j];
        }
        factor[j] = expf(max[j] - top);
        sum[j] = sum[j] * factor[j] + total;
        max[j] = top;
    }
}

static void softmax_bf16_scalar(uint16_t *panel, const float *s, int64_t keys, float *max,
                                float *sum, float *factor) {
    for (int j = 0; j < NR; j++) {
        float top = max[j], total = 0;
        for (int64_t i = 0; i < keys; i++)
            top = fmaxf(top, s[i * NR + j]);
        for (int64_t i = 0; i < keys + keys % 2; i++) {
            uint16_t weight = i < keys ? wan_brain_from_float(exp2f(s[i * NR + j] - top)) : 0;
            panel[(i / 2 * NR + j) * 2 + i % 2] = weight;
            total += wan_brain_to_float(weight);
        }
        factor[j] = exp2f(max[j] - top);
        sum[j] = sum[j] * factor[j] + total;
        max[j] = top;
    }
}

static void scale_columns_scalar(float *x, int64_t rows, const float *factor) {
    for (int64_t r = 0; r < rows; r++)
        for (int j = 0; j < NR; j++)
            x[r * NR + j] *= factor[j];
}

/* x/2 (1 + tanh u) with u = sqrt(2/pi) (x + 0.044715 x^3), written as x / (1 + exp(-2u)): nothing
 * cancels. */
static void gelu_tanh_scalar(float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float u2 = 1.5957691216057308f * (x[i] + 0.044715f * x[i] * x[i] * x[i]);
        x[i] = x[i] / (1.0f + expf(-u2));
    }
}

static void silu_scalar(float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        x[i] = x[i] / (1.0f + expf(-x[i]));
}

static double sum_scalar(const float *x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    return sum;
}

static double sum_squares_scalar(const float *x, float mean, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        float d = x[i] - mean;
        sum += (double)d * d;
    }
    return sum;
}

static void normalise_scalar(float *dst, const float *x, float mean, float scale, float plus,
                             const float *gain, const float *shift, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        dst[i] = (x[i] - mean) * scale * (gain ? plus + gain[i] : plus) + (shift ? shift[i] : 0);
}

static void rotate_scalar(float *x, const float *turn, int64_t n) {
    for (int64_t i = 0; i < n; i += 2) {
        float a = x[i], b = x[i + 1], c = turn[i], s = turn[i + 1];
        x[i] = a * c - b * s;
        x[i + 1] = b * c + a * s;
    }
}

void wan_cpu_kernels_init(cpu_kernels *k, unsigned have) {
    *k = (cpu_kernels){
        .mr = MR,
        .nr = NR,
        .gemm_tile = gemm_tile_scalar,
        .gemm_columns = gemm_columns_scalar,
        .transpose = transpose_scalar,
        .bf16_mr = MR,
        .bf16_depth = CPU_BF16_DEPTH,
        .bf16_outputs = CPU_BF16_OUTPUTS,
        .bf16_tile = bf16_tile_scalar,
        .to_bf16 = to_bf16_scalar,
        .pack_bf16 = pack_bf16_scalar,
        .pack_pairs = pack_pairs_scalar,
        .softmax_tile = softmax_tile_scalar,
        .softmax_bf16 = softmax_bf16_scalar,
        .scale_columns = scale_columns_scalar,
        .gelu_tanh = gelu_tanh_scalar,
        .silu = silu_scalar,
        .sum = sum_scalar,
        .sum_squares = sum_squares_scalar,
        .normalise = normalise_scalar,
        .rotate = rotate_scalar,
    };
    wan_cpu_kernels_scalar_int8(k);
#if defined(__x86_64__)
    if (have & CPU_AVX2)
        wan_cpu_kernels_avx2(k);
    if (have & CPU_AVXVNNI)
        wan_cpu_kernels_avxvnni(k);
    if (have & CPU_AVX512)
        wan_cpu_kernels_avx512(k);
    if (have & CPU_BF16)
        wan_cpu_kernels_avx512bf16(k);
    if (have & CPU_AMX)
        wan_cpu_kernels_amx(k);
    if (have & CPU_VNNI)
        wan_cpu_kernels_avx512vnni(k);
    if (have & CPU_AMX_INT8)
        wan_cpu_kernels_amx_int8(k);
    if (have & CPU_SLOW_BF16)
        k->fast_bf16 = false;
#elif defined(__aarch64__)
    if (have & CPU_NEON)
        wan_cpu_kernels_neon(k);
    if (have & CPU_NEON_DOT)
        wan_cpu_kernels_neon_dot(k);
    if (have & CPU_NEON_I8MM)
        wan_cpu_kernels_neon_i8mm(k);
    if (have & CPU_NEON_BF16)
        wan_cpu_kernels_neon_bf16(k);
#else
    (void)have;
#endif
}
