/* SPDX-License-Identifier: Apache-2.0 */
/* Stored weights to f32: the type's kernel, then the scales that lie beside it. */
#include "backend/cpu/cpu.h"

#include <string.h>

#include "tensor/quants.h"

void wan_cpu_unpack(const cpu_kernels *k, dtype type, float *dst, const void *src, int64_t n) {
    if (type == WAN_F32)
        memcpy(dst, src, (size_t)n * sizeof *dst);
    else if (k->unpack[type])
        k->unpack[type](dst, src, n);
    else
        wan_dequantise(type, dst, src, n);
}

/* Number `at` of the groups of a plain type. */
static float group_value(tensor groups, int64_t at) {
    float v;
    const char *src = (const char *)groups.data + at * wan_dtype(groups.type)->bytes;
    wan_dequantise(groups.type, &v, src, 1);
    return v;
}

static void scale_groups(const linear *l, float *x, int64_t row, int64_t from, int64_t n) {
    int64_t groups = l->group_scale.dim[1], size = l->weight.dim[1] / groups, run;
    for (int64_t i = 0; i < n; i += run) {
        int64_t at = row * groups + (from + i) / size;
        float scale = group_value(l->group_scale, at), plus = group_value(l->group_offset, at);
        run = size - (from + i) % size;
        run = run < n - i ? run : n - i;
        for (int64_t e = i; e < i + run; e++)
            x[e] = x[e] * scale + plus;
    }
}

void wan_cpu_unpack_row(const cpu_kernels *k, const linear *l, float *dst, int64_t row,
                        int64_t from, int64_t n) {
    const dtype_info *d = wan_dtype(l->weight.type);
    assert(from % d->block == 0 && n % d->block == 0);
    int64_t block = (row * l->weight.dim[1] + from) / d->block;
    wan_cpu_unpack(k, l->weight.type, dst, (const char *)l->weight.data + block * d->bytes, n);
    if (l->group_scale.data)
        scale_groups(l, dst, row, from, n);
    if (!l->scale.data)
        return;
    float scale = ((const float *)l->scale.data)[l->scale.dim[0] > 1 ? row : 0];
    for (int64_t i = 0; i < n; i++)
        dst[i] *= scale;
}
