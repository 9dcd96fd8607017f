/* SPDX-License-Identifier: Apache-2.0 */
/* kernels_words_avx2.h - the words of kernels_vector.h for AVX2 with FMA and F16C. */
#ifndef WAN_BACKEND_CPU_KERNELS_WORDS_AVX2_H
#define WAN_BACKEND_CPU_KERNELS_WORDS_AVX2_H

#include <immintrin.h>
#include <stdint.h>

enum { LANES = 8, NR = 16 };

#define WORD static inline __attribute__((always_inline))

/* clang-format off */
typedef __m256 vec;

WORD vec v_zero(void) { return _mm256_setzero_ps(); }
WORD vec v_set(float x) { return _mm256_set1_ps(x); }
WORD vec v_load(const float *p) { return _mm256_loadu_ps(p); }
WORD void v_store(float *p, vec x) { _mm256_storeu_ps(p, x); }

/* All ones in the first n lanes. */
WORD __m256i first_lanes(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
WORD vec v_load_part(const float *p, int n) { return _mm256_maskload_ps(p, first_lanes(n)); }
WORD void v_store_part(float *p, vec x, int n) { _mm256_maskstore_ps(p, first_lanes(n), x); }

WORD vec v_add(vec a, vec b) { return _mm256_add_ps(a, b); }
WORD vec v_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
WORD vec v_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
WORD vec v_div(vec a, vec b) { return _mm256_div_ps(a, b); }
WORD vec v_max(vec a, vec b) { return _mm256_max_ps(a, b); }
WORD vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
WORD vec v_fnma(vec a, vec b, vec c) { return _mm256_fnmadd_ps(a, b, c); }
WORD vec v_round(vec x) {
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
WORD vec v_below(vec x, vec limit, vec a, vec b) {
    return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, limit, _CMP_LT_OQ));
}
WORD vec v_unless_below(vec x, vec limit, vec a) {
    return _mm256_and_ps(_mm256_cmp_ps(x, limit, _CMP_NLT_UQ), a);
}
WORD vec v_power(vec n) {
    __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(e, 23));
}

WORD vec v_even(vec x) { return _mm256_moveldup_ps(x); }
WORD vec v_odd(vec x) { return _mm256_movehdup_ps(x); }
WORD vec v_swap(vec x) { return _mm256_permute_ps(x, 0xb1); }
WORD vec v_fmaddsub(vec a, vec b, vec c) { return _mm256_fmaddsub_ps(a, b, c); }

WORD vec v_from_f16(const void *p) { return _mm256_cvtph_ps(_mm_loadu_si128(p)); }
WORD vec v_from_bf16(const void *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)), 16));
}
WORD vec v_from_i8(const void *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p)));
}
WORD vec v_set_f16(uint16_t h) { return v_set(_cvtsh_ss(h)); }

WORD vec v_set_pair(uint32_t x) { return _mm256_castsi256_ps(_mm256_set1_epi32((int)x)); }
WORD vec v_low(vec pairs) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(pairs), 16));
}
WORD vec v_high(vec pairs) {
    return _mm256_and_ps(pairs, _mm256_castsi256_ps(_mm256_set1_epi32(-65536)));
}
WORD void b_store(void *p, vec x) {
    __m256i u = _mm256_castps_si256(x), one = _mm256_set1_epi32(1);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), one);
    __m256i even = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
    __m256i b = _mm256_srli_epi32(_mm256_blendv_epi8(even, quiet, nan), 16);
    __m128i low = _mm256_castsi256_si128(b), high = _mm256_extracti128_si256(b, 1);
    _mm_storeu_si128(p, _mm_packus_epi32(low, high));
}

typedef __m256i vint;

WORD vint i_zero(void) { return _mm256_setzero_si256(); }
WORD vint i_load(const void *p) { return _mm256_loadu_si256(p); }
WORD void i_store(void *p, vint x) { _mm256_storeu_si256(p, x); }
WORD vint i_set(uint32_t x) { return _mm256_set1_epi32((int)x); }
WORD vec i_float(vint x) { return _mm256_cvtepi32_ps(x); }
WORD vint i_start(vint x) { return _mm256_sub_epi32(i_zero(), _mm256_slli_epi32(x, 7)); }

typedef struct wide {
    __m256d s[2];
} wide;

WORD wide w_zero(void) { return (wide){{_mm256_setzero_pd(), _mm256_setzero_pd()}}; }
WORD void w_add(wide *w, vec x) {
    w->s[0] = _mm256_add_pd(w->s[0], _mm256_cvtps_pd(_mm256_castps256_ps128(x)));
    w->s[1] = _mm256_add_pd(w->s[1], _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)));
}
WORD void w_add_square(wide *w, vec x) {
    __m256d a = _mm256_cvtps_pd(_mm256_castps256_ps128(x)),
            b = _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
    w->s[0] = _mm256_fmadd_pd(a, a, w->s[0]);
    w->s[1] = _mm256_fmadd_pd(b, b, w->s[1]);
}
WORD double w_total(const wide *w) {
    double t[4];
    _mm256_storeu_pd(t, _mm256_add_pd(w->s[0], w->s[1]));
    return (t[0] + t[1]) + (t[2] + t[3]);
}
/* clang-format on */

#endif
