/* SPDX-License-Identifier: Apache-2.0 */
/* quality.h - how far one frame is from another.
 * PSNR is 10 log10(255^2 / MSE) over all bytes of R, G and B; infinite when the frames are equal.
 * SSIM is that of Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error
 * visibility to structural similarity", IEEE Trans. Image Processing 13(4), 2004: a Gaussian window
 * of 11x11, sigma 1.5, K1 = 0.01, K2 = 0.03, L = 255, the mean over every place where the window
 * lies inside the frame; on luma Y = 0.2126 R + 0.7152 G + 0.0722 B (BT.709), not rounded.  It is
 * what scikit-image calls structural_similarity(gaussian_weights=True, sigma=1.5,
 * use_sample_covariance=False, data_range=255).  Stateless; any thread may call. */
#ifndef WAN_MEDIA_QUALITY_H
#define WAN_MEDIA_QUALITY_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define WAN_SSIM_WINDOW 11

/* Of one frame, or the means of several. */
typedef struct quality {
    double mse;  /* squared error, of 255^2 */
    double mae;  /* absolute error, of 255 */
    double ssim; /* -1 to 1 */
    int most;    /* largest absolute error */
} quality;

/* a and b [height, width, 3], sides of at least WAN_SSIM_WINDOW.  WAN_E_MEMORY. */
wan_status wan_quality_frame(const uint8_t *a, const uint8_t *b, int width, int height, quality *q,
                             error *err);
/* The mean of count frames, count > 0; `most` is the largest. */
quality wan_quality_mean(const quality *q, size_t count);
/* In dB; INFINITY for 0. */
double wan_quality_psnr(double mse);

#endif
