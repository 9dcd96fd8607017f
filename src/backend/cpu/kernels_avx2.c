/* SPDX-License-Identifier: Apache-2.0 */
/* AVX2 with FMA and F16C: 16 registers of 8 floats. */
#include "backend/cpu/kernels.h"
#include "backend/cpu/kernels_transpose.h"
#include "backend/cpu/kernels_words_avx2.h"
#include "backend/cpu/kernels_x86.h"

enum { MR = 6, BF16_MR = 4, INT8_MR = 3 };

/* Of kernels_unpack.h. */
WORD vec v_from_codes(codes c, int from) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(c_from(c, from)));
}

WORD vint i_dot(vint sum, vint panel, vint row) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(panel, row));
}

#include "backend/cpu/kernels_vector.h"

#include "backend/cpu/kernels_int8_x86.h"
#include "backend/cpu/kernels_madd.h"

#include "backend/cpu/kernels_int8.h"

void wan_cpu_kernels_avx2(cpu_kernels *k) {
    fill_table(k);
    fill_int8(k);
    k->fast_int8 = true; /* half as fast again as f32 */
}
