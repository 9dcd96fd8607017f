/* SPDX-License-Identifier: Apache-2.0 */
/* kernels_words_avx512.h - the words of kernels_vector.h for AVX-512 F, BW, DQ, VL. */
#ifndef WAN_BACKEND_CPU_KERNELS_WORDS_AVX512_H
#define WAN_BACKEND_CPU_KERNELS_WORDS_AVX512_H

#include <immintrin.h>
#include <stdint.h>

enum { LANES = 16, NR = 32 };

#define WORD static inline __attribute__((always_inline))

/* clang-format off */
typedef __m512 vec;

WORD vec v_zero(void) { return _mm512_setzero_ps(); }
WORD vec v_set(float x) { return _mm512_set1_ps(x); }
WORD vec v_load(const float *p) { return _mm512_loadu_ps(p); }
WORD void v_store(float *p, vec x) { _mm512_storeu_ps(p, x); }

WORD __mmask16 first_lanes(int n) { return (__mmask16)((1u << n) - 1); }
WORD vec v_load_part(const float *p, int n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
WORD void v_store_part(float *p, vec x, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), x); }

WORD vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
WORD vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
WORD vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
WORD vec v_div(vec a, vec b) { return _mm512_div_ps(a, b); }
WORD vec v_max(vec a, vec b) { return _mm512_max_ps(a, b); }
WORD vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
WORD vec v_fnma(vec a, vec b, vec c) { return _mm512_fnmadd_ps(a, b, c); }
WORD vec v_round(vec x) {
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
WORD vec v_below(vec x, vec limit, vec a, vec b) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, limit, _CMP_LT_OQ), b, a);
}
WORD vec v_unless_below(vec x, vec limit, vec a) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_NLT_UQ), a);
}
WORD vec v_power(vec n) {
    __m512i e = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(e, 23));
}

WORD vec v_even(vec x) { return _mm512_moveldup_ps(x); }
WORD vec v_odd(vec x) { return _mm512_movehdup_ps(x); }
WORD vec v_swap(vec x) { return _mm512_permute_ps(x, 0xb1); }
WORD vec v_fmaddsub(vec a, vec b, vec c) { return _mm512_fmaddsub_ps(a, b, c); }

WORD vec v_from_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256(p)); }
WORD vec v_from_bf16(const void *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16));
}
WORD vec v_from_i8(const void *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)));
}
WORD vec v_set_f16(uint16_t h) { return v_set(_cvtsh_ss(h)); }

WORD vec v_set_pair(uint32_t x) { return _mm512_castsi512_ps(_mm512_set1_epi32((int)x)); }
WORD vec v_low(vec pairs) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pairs), 16));
}
WORD vec v_high(vec pairs) {
    return _mm512_and_ps(pairs, _mm512_castsi512_ps(_mm512_set1_epi32(-65536)));
}
WORD void b_store(void *p, vec x) {
    __m512i u = _mm512_castps_si512(x), one = _mm512_set1_epi32(1);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), one);
    __m512i even = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
    __m512i quiet = _mm512_or_si512(u, _mm512_set1_epi32(0x400000));
    __m512i b = _mm512_mask_mov_epi32(even, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), quiet);
    _mm256_storeu_si256(p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(b, 16)));
}

typedef __m512i vint;

WORD vint i_zero(void) { return _mm512_setzero_si512(); }
WORD vint i_load(const void *p) { return _mm512_loadu_si512(p); }
WORD void i_store(void *p, vint x) { _mm512_storeu_si512(p, x); }
WORD vint i_set(uint32_t x) { return _mm512_set1_epi32((int)x); }
WORD vec i_float(vint x) { return _mm512_cvtepi32_ps(x); }
WORD vint i_start(vint x) { return _mm512_sub_epi32(i_zero(), _mm512_slli_epi32(x, 7)); }

typedef struct wide {
    __m512d s[2];
} wide;

WORD wide w_zero(void) { return (wide){{_mm512_setzero_pd(), _mm512_setzero_pd()}}; }
WORD void w_add(wide *w, vec x) {
    w->s[0] = _mm512_add_pd(w->s[0], _mm512_cvtps_pd(_mm512_castps512_ps256(x)));
    w->s[1] = _mm512_add_pd(w->s[1], _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)));
}
WORD void w_add_square(wide *w, vec x) {
    __m512d a = _mm512_cvtps_pd(_mm512_castps512_ps256(x)),
            b = _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
    w->s[0] = _mm512_fmadd_pd(a, a, w->s[0]);
    w->s[1] = _mm512_fmadd_pd(b, b, w->s[1]);
}
WORD double w_total(const wide *w) {
    return _mm512_reduce_add_pd(_mm512_add_pd(w->s[0], w->s[1]));
}
/* clang-format on */

#endif
