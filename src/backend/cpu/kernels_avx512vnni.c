/* SPDX-License-Identifier: Apache-2.0 */
/* AVX512-VNNI: products of 8-bit codes. */
#include "backend/cpu/kernels.h"
#include "backend/cpu/kernels_transpose.h"
#include "backend/cpu/kernels_words_avx512.h"

#include "backend/cpu/kernels_int8_x86.h"
#include "backend/cpu/kernels_tile.h"
#include "backend/cpu/kernels_vnni.h"

enum { INT8_MR = 6 };

WORD vint i_dot(vint sum, vint panel, vint row) {
    return _mm512_dpbusd_epi32(sum, row, panel);
}

#include "backend/cpu/kernels_int8.h"

void wan_cpu_kernels_avx512vnni(cpu_kernels *k) {
    fill_int8(k);
    k->fast_int8 = true;
}
