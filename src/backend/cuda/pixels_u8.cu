/* SPDX-License-Identifier: Apache-2.0 */
/* Pixels to bytes: planes [3, T, H, W] -> [T, H, W, 3].  A thread takes four pixels of a row of
 * 4-aligned planes: 16 bytes read from each, 12 written. */
#include "backend/cuda/cuda.h"

static __device__ uint8_t to_byte(float x) {
    float v = __fadd_rn(__fmul_rn(x, 0.5f), 0.5f); /* not fused: the CPU's truncation, bit for bit */
    v = v < 0.0f ? 0.0f : v > 1.0f ? 1.0f : v;     /* a NaN stays one */
    return v == v ? (uint8_t)__fmul_rn(v, 255.0f) : 0;
}

static __global__ void pixels_u8(uint8_t *__restrict__ rgb, const float *__restrict__ pixels,
                                 int64_t plane) {
    int64_t at = 4 * ((int64_t)blockIdx.x * blockDim.x + threadIdx.x);
    if (at >= plane)
        return;
    if (plane % 4 || at + 4 > plane) {
        for (int64_t i = at; i < plane && i < at + 4; i++)
            for (int c = 0; c < 3; c++)
                rgb[3 * i + c] = to_byte(pixels[c * plane + i]);
        return;
    }
    float4 v[3];
    uint32_t word[3];
    for (int c = 0; c < 3; c++)
        v[c] = *(const float4 *)(pixels + c * plane + at);
    uint8_t *byte = (uint8_t *)word;
    const float *r = (const float *)&v[0], *g = (const float *)&v[1], *b = (const float *)&v[2];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        byte[3 * i] = to_byte(r[i]);
        byte[3 * i + 1] = to_byte(g[i]);
        byte[3 * i + 2] = to_byte(b[i]);
    }
#pragma unroll
    for (int i = 0; i < 3; i++)
        *(uint32_t *)(rgb + 3 * at + 4 * i) = word[i];
}

void wan_cuda_pixels_u8(compute *c, tensor dst, tensor pixels) {
    int64_t plane = wan_elements(pixels) / 3, threads = (plane + 3) / 4;
    pixels_u8<<<(unsigned)((threads + 255) / 256), 256, 0, wan_cuda_device(c)->stream>>>(
        (uint8_t *)dst.data, (const float *)pixels.data, plane);
    wan_cuda_launched(c, "pixels_u8");
}
