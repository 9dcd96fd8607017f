#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What scikit-image says of frames that tests/unit/quality_test.c draws: the rows of its table.

    make_quality_values.py        needs: pip install scikit-image

A frame is noise from a linear congruential generator, seeded with its number, under a ramp; the second is the first
with noise of so many levels on top.  Prints width, height, seed, levels, PSNR, SSIM and mean absolute error."""
import numpy as np
import skimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


def noise(count, seed):
    out = np.empty(count, np.int64)
    for i in range(count):
        seed = (seed * 1664525 + 1013904223) & 0xFFFFFFFF
        out[i] = seed >> 24
    return out


def frames(width, height, seed, levels):
    ramp = np.arange(width * height * 3) // 3 % width * 200 // width
    a = ramp + noise(ramp.size, seed) // 5
    b = a + noise(ramp.size, seed + 1) % (2 * levels + 1) - levels
    return [np.clip(x, 0, 255).astype(np.uint8).reshape(height, width, 3) for x in (a, b)]


print("scikit-image", skimage.__version__)
for row in [(11, 11, 1, 3), (16, 12, 2, 10), (37, 29, 3, 40), (64, 48, 4, 1), (40, 64, 5, 120)]:
    a, b = frames(*row)
    y, z = (x @ np.array([.2126, .7152, .0722]) for x in (a, b))
    ssim = structural_similarity(y, z, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255)
    mae = np.abs(a.astype(float) - b).mean()
    print("{%d, %d, %d, %d, %.12f, %.12f, %.12f}," % (*row, peak_signal_noise_ratio(a, b, data_range=255), ssim, mae))
