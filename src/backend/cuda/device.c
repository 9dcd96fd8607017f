/* SPDX-License-Identifier: Apache-2.0 */
/* The device: memory, weights, and the table of ops. */
#include "backend/cuda/device.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/lt.h"
#include "backend/cuda/stream.h"

/* Smaller weights are not worth a slot. */
#define STREAM_FROM ((size_t)4 << 20)
/* The driver's context, kernels and cuBLAS beside all tensors, as measured (docs/speed.md). */
#define CONTEXT ((size_t)640 << 20)
/* And what it takes of the host: pinned buffers, the driver, cuBLAS. */
#define HOST_BYTES ((size_t)640 << 20)

wan_status wan_cuda_status(cudaError_t e, const char *what, error *err) {
    if (e == cudaSuccess)
        return WAN_OK;
    return wan_fail(err, e == cudaErrorMemoryAllocation ? WAN_E_MEMORY : WAN_E_DEVICE,
                    "cuda: %s: %s", what, cudaGetErrorString(e));
}

bool wan_cuda_ok(compute *c, cudaError_t e, const char *what) {
    return wan_cuda_status(e, what, &c->err) == WAN_OK;
}

bool wan_cuda_launched(compute *c, const char *what) {
    return wan_cuda_ok(c, cudaGetLastError(), what);
}

/* What only this file touches, behind the part all kernels see. */
typedef struct whole_device {
    cuda_device d;
    cudaMemPool_t pool;
    cuda_upload *upload;
    cuda_download *download;
    cuda_stream *stream; /* weights that pass through; NULL: none do */
    int threads;
    size_t room;          /* bytes of weights that may still stay */
    const void *table[8]; /* host tables, read a few rows at a time */
    int tables;
    error err; /* of calls that cannot return one; reported by the next that can */
} whole_device;

/* ------------------------------------------------------------------------------ open and close */

static size_t fixed_bytes(int threads) {
    (void)threads;
    return HOST_BYTES;
}

static void device_close(void *device) {
    whole_device *w = device;
    if (!w)
        return;
    cudaSetDevice(w->d.ordinal);
    if (w->d.stream)
        cudaStreamSynchronize(w->d.stream);
    wan_cuda_stream_close(w->stream);
    wan_cuda_lt_close(w->d.lt);
    wan_cuda_upload_close(w->upload);
    wan_cuda_download_close(w->download);
    if (w->pool)
        cudaMemPoolDestroy(w->pool);
    if (w->d.stream)
        cudaStreamDestroy(w->d.stream);
    free(w);
}

static cudaError_t open_pool(whole_device *w) {
    struct cudaMemPoolProps props = {
        .allocType = cudaMemAllocationTypePinned,
        .location = {.type = cudaMemLocationTypeDevice, .id = w->d.ordinal},
    };
    /* Freed scratch stays in the pool for the next stage; alloc trims it when memory is short. */
    uint64_t keep = UINT64_MAX;
    cudaError_t e = cudaMemPoolCreate(&w->pool, &props);
    return e ? e : cudaMemPoolSetAttribute(w->pool, cudaMemPoolAttrReleaseThreshold, &keep);
}

static void *device_open(const device_options *o, error *err) {
    whole_device *w = calloc(1, sizeof *w);
    struct cudaDeviceProp props;
    if (!w) {
        wan_fail(err, WAN_E_MEMORY, "cuda: no memory for a device");
        return NULL;
    }
    w->d.ordinal = o->ordinal;
    w->d.precision = o->precision;
    w->threads = o->threads;
    w->room = SIZE_MAX;
    cudaError_t e = cudaSetDevice(o->ordinal);
    if (!e)
        e = cudaGetDeviceProperties(&props, o->ordinal);
    if (!e)
        e = cudaStreamCreateWithFlags(&w->d.stream, cudaStreamNonBlocking);
    if (!e)
        e = open_pool(w);
    if (wan_cuda_status(e, "open", err))
        goto failed;
    w->d.sm = 10 * props.major + props.minor;
    w->d.multiprocessors = props.multiProcessorCount;
    if (w->d.sm < 80) {
        wan_fail(err, WAN_E_DEVICE,
                 "cuda:%d: %s has compute capability %d.%d, at least 8.0 is needed", o->ordinal,
                 props.name, props.major, props.minor);
        goto failed;
    }
    w->upload = wan_cuda_upload_open(o->threads, err);
    w->download = w->upload ? wan_cuda_download_open(err) : NULL;
    if (!w->download)
        goto failed;
    error why = {0};
    w->d.lt = wan_cuda_lt_open(&w->d, &why);
    if (!w->d.lt)
        wan_log(o->log, WAN_LOG_WARN, "%s; own matrix products are slower", why.message);
    return w;
failed:
    device_close(w);
    return NULL;
}

/* ------------------------------------------------------------------------------------- memory */

static void device_trim(void *device) {
    whole_device *w = device;
    cudaStreamSynchronize(w->d.stream);
    cudaMemPoolTrimTo(w->pool, 0);
}

static void *device_alloc(void *device, size_t bytes, error *err) {
    whole_device *w = device;
    void *p = NULL;
    cudaSetDevice(w->d.ordinal); /* a thread's first call may be this one */
    cudaError_t e = cudaMallocFromPoolAsync(&p, bytes ? bytes : 1, w->pool, w->d.stream);
    if (e == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        device_trim(w);
        e = cudaMallocFromPoolAsync(&p, bytes ? bytes : 1, w->pool, w->d.stream);
    }
    if (e) {
        size_t free_ = 0, total = 0;
        cudaGetLastError();
        cudaMemGetInfo(&free_, &total);
        wan_fail(err, WAN_E_MEMORY, "cuda: %zu bytes do not fit: %zu of %zu bytes are free (%s)",
                 bytes, free_, total, cudaGetErrorString(e));
        return NULL;
    }
    return p;
}

static void device_free(void *device, void *p, size_t bytes) {
    whole_device *w = device;
    (void)bytes;
    if (p)
        cudaFreeAsync(p, w->d.stream);
}

static void device_upload(void *device, void *dst, const void *src, size_t bytes) {
    whole_device *w = device;
    wan_cuda_upload(w->upload, w->d.stream, dst, src, bytes, &w->err);
}

static void device_download(void *device, void *dst, const void *src, size_t bytes) {
    whole_device *w = device;
    cudaError_t e = cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, w->d.stream);
    if (!e)
        e = cudaStreamSynchronize(w->d.stream);
    wan_cuda_status(e, "copy from the device", &w->err);
}

static void download_begin(void *device, int slot, void *dst, const void *src, size_t bytes) {
    whole_device *w = device;
    wan_cuda_download_begin(w->download, w->d.stream, slot, dst, src, bytes, &w->err);
}

static void download_end(void *device, int slot) {
    whole_device *w = device;
    wan_cuda_download_end(w->download, slot, &w->err);
}

static void *host_alloc(void *device, size_t bytes, error *err) {
    whole_device *w = device;
    return wan_cuda_host_alloc(w->download, bytes, err);
}

static void host_free(void *device, void *p) {
    whole_device *w = device;
    wan_cuda_host_free(w->download, p);
}

static wan_status device_check(void *device, error *err) {
    whole_device *w = device;
    if (!w->err.code)
        wan_cuda_status(cudaGetLastError(), "kernel", &w->err);
    if (!w->err.code)
        return WAN_OK;
    wan_fail(err, w->err.code, "%s", w->err.message);
    w->err = (error){0};
    return err ? err->code : WAN_E_DEVICE;
}

/* ------------------------------------------------------------------------------------ weights */

/* A weight stays, or its bytes in host memory are read at every use. */
static bool stays(whole_device *w, tensor host, weight_use use, error *err) {
    size_t bytes = wan_bytes(host);
    for (int i = 0; i < w->tables && use == WAN_USE_TABLE; i++)
        if (w->table[i] == host.data)
            return false;
    if (use == WAN_USE_TABLE && w->tables < (int)(sizeof w->table / sizeof w->table[0])) {
        w->table[w->tables++] = host.data;
        return false;
    }
    if (use != WAN_USE_MATRIX || bytes < STREAM_FROM || w->room == SIZE_MAX)
        return true;
    if (bytes <= w->room) {
        w->room -= bytes;
        return true;
    }
    if (!w->stream)
        w->stream = wan_cuda_stream_open(w->d.ordinal, w->threads, err);
    if (w->stream)
        wan_cuda_stream_add(w->stream, host.data, bytes, err);
    return false;
}

static void pack_conv(whole_device *w, tensor t, tensor host, weight_use use, error *err) {
    void *stored = device_alloc(w, wan_bytes(host), err);
    bool last = use == WAN_USE_CONV_CHANNELS_LAST || use == WAN_USE_CONV_OF_NORM_CHANNELS_LAST;
    if (stored && !wan_cuda_upload(w->upload, w->d.stream, stored, host.data, wan_bytes(host), err))
        wan_cuda_status(wan_cuda_pack_conv(t.data, t.type, stored, host, last, w->d.stream),
                        "pack a convolution", err);
    device_free(w, stored, wan_bytes(host));
}

static tensor device_place(void *device, tensor host, weight_use use, error *err) {
    whole_device *w = device;
    tensor t = host;
    if (!stays(w, host, use, err) || err->code)
        return t;
    t.type = wan_cuda_placed_type(w->d.precision, host, use);
    bool coded = use >= WAN_USE_CONV && t.type == WAN_F8_E4M3;
    size_t scales = coded ? (size_t)(t.dim[0] + 255) / 256 * 256 * sizeof(float) : 0;
    t.data = device_alloc(device, wan_bytes(t) + scales, err);
    if (!t.data)
        return t;
    if (use == WAN_USE_MATRIX || use == WAN_USE_TABLE)
        wan_cuda_upload(w->upload, w->d.stream, t.data, host.data, wan_bytes(host), err);
    else
        pack_conv(w, t, host, use, err);
    if (err->code) {
        device_free(device, t.data, wan_bytes(t));
        t.data = NULL;
    }
    return t;
}

static void device_limit(void *device, size_t bytes) {
    whole_device *w = device;
    w->room = bytes;
}

static size_t device_available(void *device) {
    whole_device *w = device;
    size_t free_ = 0, total = 0;
    uint64_t reserved = 0;
    cudaMemGetInfo(&free_, &total);
    cudaMemPoolGetAttribute(w->pool, cudaMemPoolAttrReservedMemCurrent, &reserved);
    return free_ + (size_t)reserved;
}

static size_t device_held_most(void *device) {
    whole_device *w = device;
    uint64_t reserved = 0;
    cudaMemPoolGetAttribute(w->pool, cudaMemPoolAttrReservedMemHigh, &reserved);
    return (size_t)reserved + (w->stream ? wan_cuda_stream_bytes(w->stream) : 0);
}

void *wan_cuda_weight(compute *c, tensor t) {
    whole_device *w = c->device;
    struct cudaPointerAttributes a;
    if (!w->stream || wan_bytes(t) < STREAM_FROM)
        return t.data;
    if (cudaPointerGetAttributes(&a, t.data) == cudaSuccess && a.type == cudaMemoryTypeDevice)
        return t.data;
    return wan_cuda_stream_get(w->stream, w->d.stream, t.data, &c->err);
}

/* Rows of a table that is on the host: only those asked for travel. */
static void rows_from_host(compute *c, tensor dst, const linear *table, tensor ids) {
    whole_device *w = c->device;
    int64_t n = ids.dim[0];
    size_t row = wan_bytes(wan_slice(table->weight, 0, 1));
    int32_t *id = malloc((size_t)n * sizeof *id), *count = malloc((size_t)n * sizeof *count);
    char *rows = malloc((size_t)n * row);
    linear few = {.weight = table->weight};
    tensor order = ids;
    few.weight.dim[0] = n;
    few.weight.data = device_alloc(w, (size_t)n * row, &c->err);
    order.data = device_alloc(w, wan_bytes(ids), &c->err);
    if (!id || !count || !rows)
        wan_fail(&c->err, WAN_E_MEMORY, "cuda: no memory for %lld rows", (long long)n);
    if (!c->err.code)
        device_download(w, id, ids.data, wan_bytes(ids));
    if (!c->err.code)
        device_check(w, &c->err);
    for (int64_t i = 0; i < n && !c->err.code; i++) {
        memcpy(rows + (size_t)i * row, (const char *)table->weight.data + (size_t)id[i] * row, row);
        count[i] = (int32_t)i;
    }
    if (!c->err.code) {
        device_upload(w, few.weight.data, rows, (size_t)n * row);
        device_upload(w, order.data, count, wan_bytes(ids));
        wan_cuda_rows(c, dst, &few, order);
        wan_cuda_ok(c, cudaStreamSynchronize(w->d.stream), "rows"); /* `rows` goes */
    }
    device_free(w, few.weight.data, 0);
    device_free(w, order.data, 0);
    free(rows);
    free(count);
    free(id);
}

static void rows_anywhere(compute *c, tensor dst, const linear *table, tensor ids) {
    const whole_device *w = c->device;
    for (int i = 0; i < w->tables; i++)
        if (w->table[i] == table->weight.data) {
            rows_from_host(c, dst, table, ids);
            return;
        }
    wan_cuda_rows(c, dst, table, ids);
}

/* ------------------------------------------------------------------------------------ plug-in */

static const backend cuda = {
    .name = "cuda",
    .half_activations = true,
    .own_memory = true,
    .precisions = 1u << WAN_PRECISION_F32 | 1u << WAN_PRECISION_BF16 | 1u << WAN_PRECISION_FP8,
    .best = WAN_PRECISION_BF16,
    .context = CONTEXT,
    .stream_from = STREAM_FROM,
    .stream_slots = CUDA_STREAM_SLOTS,
    .tokens_together = 32768,
    .pixels_together = 1200000, /* a piece copies two frames of each history */
    .latents_together = 8000,
    .fixed_bytes = fixed_bytes,
    .open = device_open,
    .close = device_close,
    .alloc = device_alloc,
    .free = device_free,
    .upload = device_upload,
    .download = device_download,
    .download_begin = download_begin,
    .download_end = download_end,
    .host_alloc = host_alloc,
    .host_free = host_free,
    .check = device_check,
    .place = device_place,
    .placed_type = wan_cuda_placed_type,
    .limit = device_limit,
    .trim = device_trim,
    .available = device_available,
    .held_most = device_held_most,
    .workspace =
        {
            .linear = wan_cuda_linear_workspace,
            .attention = wan_cuda_attention_workspace,
            .conv = wan_cuda_conv_workspace,
        },
    .conv_norms = wan_cuda_conv_norms,
    .op =
        {
            .linear = wan_cuda_linear,
            .add = wan_cuda_add,
            .add_gated = wan_cuda_add_gated,
            .layer_norm = wan_cuda_layer_norm,
            .norm_modulate = wan_cuda_norm_modulate,
            .rms_norm = wan_cuda_rms_norm,
            .qk_norm_rope = wan_cuda_qk_norm_rope,
            .attention = wan_cuda_attention,
            .mul = wan_cuda_mul,
            .activate = wan_cuda_activate,
            .rows = rows_anywhere,
            .add_vector = wan_cuda_add_vector,
            .patchify = wan_cuda_patchify,
            .unpatchify = wan_cuda_unpatchify,
            .conv =
                {
                    .conv3d = wan_cuda_conv3d,
                    .conv3d_norm = wan_cuda_conv3d_norm,
                    .conv2d = wan_cuda_conv2d,
                    .pixel_norm = wan_cuda_pixel_norm,
                    .pixel_codes = wan_cuda_pixel_codes,
                    .dup_up = wan_cuda_dup_up,
                    .avg_down = wan_cuda_avg_down,
                    .copy = wan_cuda_copy,
                    .pixels_in = wan_cuda_pixels_in,
                    .pixels_out = wan_cuda_pixels_out,
                    .pixels_u8 = wan_cuda_pixels_u8,
                    .latents_in = wan_cuda_latents_in,
                    .latents_out = wan_cuda_latents_out,
                },
        },
};

static int count_devices(error *err) {
    int n = 0, driver = 0;
    if (cudaDriverGetVersion(&driver) || driver == 0) {
        wan_fail(err, WAN_E_DEVICE, "cuda: this machine has no NVIDIA driver");
        return 0;
    }
    if (wan_cuda_status(cudaGetDeviceCount(&n), "count devices", err))
        return 0;
    if (n == 0)
        wan_fail(err, WAN_E_DEVICE, "cuda: this machine has no NVIDIA GPU");
    return n;
}

static void describe(void (*line)(void *user, const char *what, const char *is), void *user) {
    int driver = 0, runtime = 0, n = 0;
    char text[512], name[32];
    error err = {0};
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    snprintf(text, sizeof text, driver ? "CUDA %d.%d" : "none", driver / 1000, driver % 1000 / 10);
    line(user, "driver", text);
    snprintf(text, sizeof text, "CUDA %d.%d", runtime / 1000, runtime % 1000 / 10);
    line(user, "runtime", text);
    n = count_devices(&err);
    if (!n)
        line(user, "devices", err.message);
    for (int i = 0; i < n; i++) {
        struct cudaDeviceProp p;
        size_t free_ = 0, total = 0;
        if (cudaSetDevice(i) || cudaGetDeviceProperties(&p, i) || cudaMemGetInfo(&free_, &total))
            continue;
        snprintf(name, sizeof name, "cuda:%d", i);
        snprintf(text, sizeof text,
                 "%s, compute capability %d.%d, %d multiprocessors, %.1f of %.1f GiB free%s",
                 p.name, p.major, p.minor, p.multiProcessorCount, (double)free_ / 0x1p30,
                 (double)total / 0x1p30,
                 p.major < 8    ? "; too old, at least 8.0 is needed"
                 : p.major == 9 ? "; Hopper kernels (wgmma)"
                                : "; mma kernels");
        line(user, name, text);
    }
    wan_cuda_lt_describe(text, sizeof text);
    line(user, "cuBLASLt", text);
}

__attribute__((visibility("default"))) const backend_plugin *wan_cuda_plugin(void);

const backend_plugin *wan_cuda_plugin(void) {
    static const backend_plugin plugin = {WAN_PLUGIN_ABI, &cuda, count_devices, describe};
    return &plugin;
}
