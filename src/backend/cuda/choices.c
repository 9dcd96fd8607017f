/* SPDX-License-Identifier: Apache-2.0 */
/* What follows from shapes, types and the machine, for plans as for runs. */
#include <stdatomic.h>

#include "backend/cuda/device.h"

/* Plans know no device: where all are alike, one will do. */
static bool all_hopper(void) {
    static atomic_int known; /* 0: not yet, 1: no, 2: yes */
    int n = 0, major = 0, minor = 0;
    if (!known) {
        bool all = cudaGetDeviceCount(&n) == cudaSuccess && n > 0;
        for (int i = 0; i < n && all; i++)
            all = !cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, i) &&
                  !cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, i) &&
                  major == 9 && minor == 0;
        known = all ? 2 : 1;
    }
    return known == 2;
}

/* conv_sm90.cu takes codes of such a convolution. */
static bool takes_codes(tensor kernel) {
    int64_t taps = 1;
    for (int i = 2; i < kernel.rank; i++)
        taps *= kernel.dim[i];
    return kernel.dim[0] % 8 == 0 && kernel.dim[1] % 16 == 0 && kernel.dim[1] <= 1024 &&
           taps <= 27 && all_hopper();
}

/* conv_sm90.cu norms what it makes of such a convolution: what has many pixels of few channels. */
bool wan_cuda_conv_norms(const compute *c, const conv *w) {
    const int64_t *d = w->weight.dim;
    return c->act == WAN_F16 && w->weight.rank == 5 && d[0] == 256 && d[2] <= 3 &&
           d[1] % (w->code > 0 ? 16 : 8) == 0 && all_hopper();
}

dtype wan_cuda_placed_type(precision p, tensor host, weight_use use) {
    if (use == WAN_USE_MATRIX || use == WAN_USE_TABLE)
        return host.type;
    if (p == WAN_PRECISION_FP8 && takes_codes(host) &&
        (use == WAN_USE_CONV_OF_NORM || use == WAN_USE_CONV_OF_NORM_CHANNELS_LAST))
        return WAN_F8_E4M3;
    return p == WAN_PRECISION_F32 ? WAN_F32 : WAN_F16;
}
