/* SPDX-License-Identifier: Apache-2.0 */
/* AVX-512 F, BW, DQ, VL: 32 registers of 16 floats. */
#include "backend/cpu/kernels.h"
#include "backend/cpu/kernels_transpose.h"
#include "backend/cpu/kernels_words_avx512.h"
#include "backend/cpu/kernels_x86.h"

enum { MR = 12, BF16_MR = 12, INT8_MR = 6 };

/* Of kernels_unpack.h. */
WORD vec v_from_codes(codes c, int from) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(c_from(c, from)));
}

WORD vint i_dot(vint sum, vint panel, vint row) {
    return _mm512_add_epi32(sum, _mm512_madd_epi16(panel, row));
}

#include "backend/cpu/kernels_vector.h"

#include "backend/cpu/kernels_int8_x86.h"
#include "backend/cpu/kernels_madd.h"

#include "backend/cpu/kernels_int8.h"

void wan_cpu_kernels_avx512(cpu_kernels *k) {
    fill_table(k);
    fill_int8(k);
}
