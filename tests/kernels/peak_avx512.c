/* SPDX-License-Identifier: Apache-2.0 */
/* What the multiply-add units can do at most: 12 independent sums hide the latency, memory is not
 * touched. */
#include "check.h"

#include <immintrin.h>

double wan_peak_avx512(void) {
    const int64_t steps = 20000000;
    __m512 s[12], x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.001f);
    for (int i = 0; i < 12; i++)
        s[i] = _mm512_set1_ps((float)i);
    double start = seconds();
    for (int64_t n = 0; n < steps; n++)
        for (int i = 0; i < 12; i++)
            s[i] = _mm512_fmadd_ps(s[i], x, y);
    double time = seconds() - start;
    float keep[16];
    for (int i = 1; i < 12; i++)
        s[0] = _mm512_add_ps(s[0], s[i]);
    _mm512_storeu_ps(keep, s[0]);
    volatile float sink = keep[0]; /* so that the loop is not left out */
    (void)sink;
    return 12.0 * 16 * 2 * (double)steps / time;
}
