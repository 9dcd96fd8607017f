/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU as a backend: memory, the device, and the table of ops. */
#include "backend/cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static size_t fixed_bytes(int threads) {
    return (size_t)threads * CPU_WORK_BYTES;
}

/* Straight from the system, so that what is not touched costs nothing and what is freed is gone. */
static void *map_memory(size_t bytes, const char *what, error *err) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        wan_fail(err, WAN_E_MEMORY, "cpu: no memory for %s of %zu bytes", what, bytes);
        return NULL;
    }
    /* Rows of a big matrix lie pages apart; large pages keep their addresses in the TLB.  Only a
     * hint. */
    madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

void *wan_cpu_open(int threads, unsigned have, error *err) {
    if (threads < 1) {
        wan_fail(err, WAN_E_DEVICE, "cpu: %d threads, at least 1 is needed", threads);
        return NULL;
    }
    cpu_device *d = calloc(1, sizeof *d);
    if (!d) {
        wan_fail(err, WAN_E_MEMORY, "cpu: no memory for %zu bytes", sizeof *d);
        return NULL;
    }
    d->threads = threads;
    wan_cpu_kernels_init(&d->k, have);
    d->work = map_memory(fixed_bytes(threads), "work space", err);
    d->team = d->work ? wan_team_open(threads, err) : NULL;
    if (d->team)
        return d;
    if (d->work)
        munmap(d->work, fixed_bytes(threads));
    free(d);
    return NULL;
}

static void *device_open(const device_options *o, error *err) {
    return wan_cpu_open(o->threads, wan_cpu_detect(), err);
}

static void device_close(void *device) {
    cpu_device *d = device;
    if (!d)
        return;
    wan_team_close(d->team);
    munmap(d->work, fixed_bytes(d->threads));
    free(d);
}

static void *device_alloc(void *device, size_t bytes, error *err) {
    (void)device;
    return map_memory(bytes ? bytes : 1, "tensors", err);
}

static void device_free(void *device, void *p, size_t bytes) {
    (void)device;
    if (p)
        munmap(p, bytes ? bytes : 1);
}

static void device_copy(void *device, void *dst, const void *src, size_t bytes) {
    (void)device;
    if (bytes)
        memcpy(dst, src, bytes);
}

static tensor device_place(void *device, tensor host, weight_use use, error *err) {
    (void)device;
    (void)use;
    (void)err;
    return host;
}

void wan_backend_cpu_describe(char *text, size_t size) {
    static const struct {
        unsigned set;
        const char *name;
    } names[] = {
        {CPU_AVX2, "AVX2 with FMA and F16C"},
        {CPU_AVXVNNI, "AVX-VNNI"},
        {CPU_AVX512, "AVX-512 (F, BW, DQ, VL)"},
        {CPU_BF16, "AVX512-BF16"},
        {CPU_VNNI, "AVX512-VNNI"},
        {CPU_AMX, "AMX (BF16)"},
        {CPU_AMX_INT8, "AMX (INT8)"},
        {CPU_NEON, "NEON"},
        {CPU_NEON_DOT, "NEON dot products"},
        {CPU_NEON_I8MM, "NEON I8MM"},
        {CPU_NEON_BF16, "NEON BF16"},
    };
    unsigned have = wan_cpu_detect();
    size_t n = (size_t)snprintf(text, size, "scalar");
    for (size_t i = 0; i < sizeof names / sizeof names[0] && n < size; i++)
        if (have & names[i].set)
            n += (size_t)snprintf(text + n, size - n, ", %s", names[i].name);
}

/* What has instructions of its own; AMX makes bf16 the fastest. */
static int by_speed(precision list[4]) {
    cpu_kernels k;
    unsigned have = wan_cpu_detect();
    int n = 0;
    wan_cpu_kernels_init(&k, have);
    if (k.fast_bf16 && have & CPU_AMX)
        list[n++] = WAN_PRECISION_BF16;
    if (k.fast_int8)
        list[n++] = WAN_PRECISION_INT8;
    if (k.fast_bf16 && !(have & CPU_AMX))
        list[n++] = WAN_PRECISION_BF16;
    list[n++] = WAN_PRECISION_F32;
    return n;
}

const backend wan_backend_cpu = {
    .name = "cpu",
    .precisions =
        1u << WAN_PRECISION_F32 | 1u << WAN_PRECISION_BF16 | 1u << WAN_PRECISION_INT8,
    .best = WAN_PRECISION_F32,
    .by_speed = by_speed,
    .tokens_together = 4096, /* unpacking a weight tile costs nothing beside its use */
    .pixels_together = 3072,
    .latents_together = 1024,
    .fixed_bytes = fixed_bytes,
    .open = device_open,
    .close = device_close,
    .alloc = device_alloc,
    .free = device_free,
    .upload = device_copy,
    .download = device_copy,
    .place = device_place,
    .conv_input = wan_cpu_conv_input,
    .peak = wan_cpu_peak,
    .workspace = {.linear = wan_cpu_linear_space},
    .op =
        {
            .linear = wan_cpu_linear,
            .linear_add = wan_cpu_linear_add,
            .add = wan_cpu_add,
            .add_gated = wan_cpu_add_gated,
            .layer_norm = wan_cpu_layer_norm,
            .norm_modulate = wan_cpu_norm_modulate,
            .rms_norm = wan_cpu_rms_norm,
            .qk_norm_rope = wan_cpu_qk_norm_rope,
            .attention = wan_cpu_attention,
            .mul = wan_cpu_mul,
            .activate = wan_cpu_activate,
            .rows = wan_cpu_rows,
            .add_vector = wan_cpu_add_vector,
            .patchify = wan_cpu_patchify,
            .unpatchify = wan_cpu_unpatchify,
            .conv =
                {
                    .conv3d = wan_cpu_conv3d,
                    .conv2d = wan_cpu_conv2d,
                    .pixel_norm = wan_cpu_pixel_norm,
                    .dup_up = wan_cpu_dup_up,
                    .avg_down = wan_cpu_avg_down,
                    .copy = wan_cpu_copy,
                    .pixels_in = wan_cpu_pixels_in,
                    .pixels_out = wan_cpu_pixels_out,
                    .pixels_u8 = wan_cpu_pixels_u8,
                    .latents_in = wan_cpu_latents_in,
                    .latents_out = wan_cpu_latents_out,
                },
        },
};
