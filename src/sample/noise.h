/* SPDX-License-Identifier: Apache-2.0 */
/* noise.h - the numbers torch.randn gives on a CPU with AVX2 or AVX-512, bit for bit:
 * sampling.md 9.2. One generator per job; draws follow each other as in torch.  Not thread-safe. */
#ifndef WAN_SAMPLE_NOISE_H
#define WAN_SAMPLE_NOISE_H

#include <stdint.h>

typedef struct noise_generator {
    uint32_t state[624];
    int at;
    double next_normal; /* fewer than 16 values: the second of a pair waits here */
    int has_next;
} noise_generator;

void wan_noise_seed(noise_generator *g, uint64_t seed);
/* The next torch.randn(n, generator=g). */
void wan_noise_draw(noise_generator *g, float *dst, int64_t n);

#endif
