/* SPDX-License-Identifier: Apache-2.0 */
/* Ops that touch each number once: bound by memory, so plain loops that any compiler vectorises. */
#include "backend/cpu/cpu.h"

/* Numbers one thread takes at a time: enough to be worth a hand-over, small enough to share evenly.
 */
enum { CHUNK = 16384 };

static int64_t chunks(int64_t n) {
    return (n + CHUNK - 1) / CHUNK;
}

static int64_t chunk_size(int64_t n, int64_t at) {
    return n - at < CHUNK ? n - at : CHUNK;
}

void wan_cpu_add(compute *c, tensor x, tensor y) {
    int64_t n = wan_elements(x);
    float *to = x.data;
    const float *from = y.data;
#pragma omp parallel for num_threads(wan_cpu_device(c)->threads)
    for (int64_t b = 0; b < chunks(n); b++)
        for (int64_t i = b * CHUNK, end = i + chunk_size(n, i); i < end; i++)
            to[i] += from[i];
}

void wan_cpu_mul(compute *c, tensor x, tensor y) {
    int64_t n = wan_elements(x);
    float *to = x.data;
    const float *from = y.data;
#pragma omp parallel for num_threads(wan_cpu_device(c)->threads)
    for (int64_t b = 0; b < chunks(n); b++)
        for (int64_t i = b * CHUNK, end = i + chunk_size(n, i); i < end; i++)
            to[i] *= from[i];
}

const float *wan_cpu_frame_row(by_frame m, int64_t token) {
    int32_t row = ((const int32_t *)m.row_of_frame.data)[token / m.tokens_per_frame];
    assert(row >= 0 && row < m.rows.dim[0]);
    return (const float *)m.rows.data + row * m.rows.dim[1] + m.at;
}

void wan_cpu_add_gated(compute *c, tensor x, tensor y, by_frame gate) {
    int64_t dim = x.dim[1];
#pragma omp parallel for num_threads(wan_cpu_device(c)->threads)
    for (int64_t t = 0; t < x.dim[0]; t++) {
        const float *g = wan_cpu_frame_row(gate, t), *from = (const float *)y.data + t * dim;
        float *to = (float *)x.data + t * dim;
        for (int64_t i = 0; i < dim; i++)
            to[i] += from[i] * g[i];
    }
}

void wan_cpu_finish(const cpu_kernels *k, float *x, const float *bias, int64_t n, activation act) {
    if (bias)
        for (int64_t i = 0; i < n; i++)
            x[i] += bias[i];
    if (act == WAN_GELU_TANH)
        k->gelu_tanh(x, n);
    else if (act == WAN_SILU)
        k->silu(x, n);
}

void wan_cpu_activate(compute *c, tensor dst, tensor x, activation act) {
    const cpu_device *d = wan_cpu_device(c);
    int64_t n = wan_elements(x);
    float *to = dst.data;
    const float *from = x.data;
#pragma omp parallel for num_threads(d->threads)
    for (int64_t b = 0; b < chunks(n); b++) {
        int64_t at = b * CHUNK, size = chunk_size(n, at);
        for (int64_t i = 0; i < size; i++)
            to[at + i] = from[at + i];
        wan_cpu_finish(&d->k, to + at, NULL, size, act);
    }
}

void wan_cpu_rows(compute *c, tensor dst, tensor table, tensor ids) {
    const cpu_device *d = wan_cpu_device(c);
    int64_t dim = table.dim[1];
    size_t row_bytes = wan_bytes(wan_tensor(table.type, 1, &dim, NULL));
#pragma omp parallel for num_threads(d->threads)
    for (int64_t i = 0; i < ids.dim[0]; i++) {
        int32_t id = ((const int32_t *)ids.data)[i];
        assert(id >= 0 && id < table.dim[0]);
        wan_cpu_unpack(&d->k, table.type, (float *)dst.data + i * dim,
                       (const char *)table.data + row_bytes * (size_t)id, dim);
    }
}

void wan_cpu_add_vector(compute *c, tensor dst, tensor x, tensor v) {
    int64_t dim = x.dim[1];
    const float *plus = v.data;
#pragma omp parallel for num_threads(wan_cpu_device(c)->threads)
    for (int64_t t = 0; t < x.dim[0]; t++) {
        const float *from = (const float *)x.data + t * dim;
        float *to = (float *)dst.data + t * dim;
        for (int64_t i = 0; i < dim; i++)
            to[i] = from[i] + plus[i];
    }
}

/* How latents [C, F, h, w] and tokens of patch pt x ph x pw correspond: the token's place in the
 * grid and, for each of its offsets inside the patch, the element of channel 0. */
typedef struct patches {
    int64_t channels, plane; /* plane: elements of one channel */
    int64_t patch[3], grid[3], size[3];
    int64_t cells; /* offsets in a patch */
} patches;

static patches patches_of(tensor latents, const int64_t patch[3]) {
    patches p = {.channels = latents.dim[0], .plane = 1, .cells = 1};
    for (int i = 0; i < 3; i++) {
        p.patch[i] = patch[i];
        p.size[i] = latents.dim[i + 1];
        p.grid[i] = p.size[i] / patch[i];
        p.plane *= p.size[i];
        p.cells *= patch[i];
    }
    return p;
}

static int64_t patch_element(const patches *p, int64_t token, int64_t cell) {
    int64_t column = token % p->grid[2] * p->patch[2] + cell % p->patch[2];
    int64_t row = token / p->grid[2] % p->grid[1] * p->patch[1] + cell / p->patch[2] % p->patch[1];
    int64_t frame =
        token / p->grid[2] / p->grid[1] * p->patch[0] + cell / p->patch[2] / p->patch[1];
    return (frame * p->size[1] + row) * p->size[2] + column;
}

void wan_cpu_patchify(compute *c, tensor dst, tensor x, const int64_t patch[3]) {
    patches p = patches_of(x, patch);
    const float *from = x.data;
#pragma omp parallel for num_threads(wan_cpu_device(c)->threads)
    for (int64_t t = 0; t < dst.dim[0]; t++) {
        float *to = (float *)dst.data + t * dst.dim[1];
        for (int64_t cell = 0; cell < p.cells; cell++) {
            int64_t at = patch_element(&p, t, cell);
            for (int64_t ch = 0; ch < p.channels; ch++)
                to[ch * p.cells + cell] = from[ch * p.plane + at];
        }
    }
}

void wan_cpu_unpatchify(compute *c, tensor dst, tensor x, const int64_t patch[3]) {
    patches p = patches_of(dst, patch);
    float *to = dst.data;
#pragma omp parallel for num_threads(wan_cpu_device(c)->threads)
    for (int64_t t = 0; t < x.dim[0]; t++) {
        const float *from = (const float *)x.data + t * x.dim[1];
        for (int64_t cell = 0; cell < p.cells; cell++) {
            int64_t at = patch_element(&p, t, cell);
            for (int64_t ch = 0; ch < p.channels; ch++)
                to[ch * p.plane + at] = from[cell * p.channels + ch];
        }
    }
}
