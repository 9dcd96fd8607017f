/* SPDX-License-Identifier: Apache-2.0 */
/* kernels_transpose.h - transposes 32-bit words, whatever they are; for the files of vector sets.
 */
#ifndef WAN_BACKEND_CPU_KERNELS_TRANSPOSE_H
#define WAN_BACKEND_CPU_KERNELS_TRANSPOSE_H

#include <stdint.h>
#include <string.h>

/* Strides here are in bytes. */
#if defined(__aarch64__)
#include <arm_neon.h>

enum { SQUARE = 4 };

static inline __attribute__((always_inline)) void
transpose_square(char *dst, int64_t dst_ld, const char *src, int64_t src_ld) {
    uint32x4_t a[4];
    uint64x2_t b[4], c[4];
    for (int i = 0; i < 4; i++)
        a[i] = vreinterpretq_u32_u8(vld1q_u8((const void *)(src + i * src_ld)));
    for (int i = 0; i < 4; i += 2) { /* pairs of rows: elements 0 2 and 1 3, interleaved */
        b[i] = vreinterpretq_u64_u32(vtrn1q_u32(a[i], a[i + 1]));
        b[i + 1] = vreinterpretq_u64_u32(vtrn2q_u32(a[i], a[i + 1]));
    }
    for (int i = 0; i < 2; i++) {
        c[i] = vtrn1q_u64(b[i], b[i + 2]);
        c[i + 2] = vtrn2q_u64(b[i], b[i + 2]);
    }
    for (int i = 0; i < 4; i++)
        vst1q_u8((void *)(dst + i * dst_ld), vreinterpretq_u8_u64(c[i]));
}
#else
#include <immintrin.h>

enum { SQUARE = 8 };

static inline __attribute__((always_inline)) void
transpose_square(char *dst, int64_t dst_ld, const char *src, int64_t src_ld) {
    __m256 a[8], b[8];
    for (int i = 0; i < 8; i += 2) { /* pairs of rows: elements 0 1 4 5, 2 3 6 7, interleaved */
        __m256 x = _mm256_loadu_ps((const void *)(src + i * src_ld)),
               y = _mm256_loadu_ps((const void *)(src + (i + 1) * src_ld));
        a[i] = _mm256_unpacklo_ps(x, y);
        a[i + 1] = _mm256_unpackhi_ps(x, y);
    }
    for (int i = 0; i < 8; i += 4) { /* fours of rows: b[i + c] holds columns c and c + 4 */
        b[i + 0] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
        b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
    for (int c = 0; c < 4; c++) {
        _mm256_storeu_ps((void *)(dst + c * dst_ld), _mm256_permute2f128_ps(b[c], b[c + 4], 0x20));
        _mm256_storeu_ps((void *)(dst + (c + 4) * dst_ld),
                         _mm256_permute2f128_ps(b[c], b[c + 4], 0x31));
    }
}
#endif

/* Word c of row r goes to word r of row c. */
static inline void transpose_words(char *dst, int64_t dst_ld, const char *src, int64_t src_ld,
                                   int64_t rows, int64_t cols) {
    int64_t whole_rows = rows / SQUARE * SQUARE, whole_cols = cols / SQUARE * SQUARE;
    for (int64_t c = 0; c < whole_cols; c += SQUARE)
        for (int64_t r = 0; r < whole_rows; r += SQUARE)
            transpose_square(dst + c * dst_ld + 4 * r, dst_ld, src + r * src_ld + 4 * c, src_ld);
    for (int64_t c = 0; c < cols; c++)
        for (int64_t r = c < whole_cols ? whole_rows : 0; r < rows; r++)
            memcpy(dst + c * dst_ld + 4 * r, src + r * src_ld + 4 * c, 4);
}

#endif
