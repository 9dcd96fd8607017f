/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/compute.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "backend/backend.h"

wan_status wan_compute_open(compute *c, const backend *be, int threads, size_t scratch,
                            error *err) {
    if (be->dry) {
        *c = wan_compute_dry();
        return WAN_OK;
    }
    *c = (compute){0};
    void *device = be->open(&(device_options){.threads = threads}, err);
    if (!device)
        return err ? err->code : WAN_E_DEVICE;
    if (wan_compute_on(c, be, device, WAN_PRECISION_F32, scratch, err)) {
        be->close(device);
        return err ? err->code : WAN_E_MEMORY;
    }
    c->owns_device = true;
    return WAN_OK;
}

static dtype activations(const backend *be, precision p) {
    return be->half_activations && p != WAN_PRECISION_F32 ? WAN_BF16 : WAN_F32;
}

static dtype conv_inputs(const backend *be, precision p) {
    return be->conv_input ? be->conv_input(p) : activations(be, p);
}

wan_status wan_compute_on(compute *c, const backend *be, void *device, precision p, size_t scratch,
                          error *err) {
    *c = (compute){.be = be,
                   .planned = be,
                   .device = device,
                   .precision = p,
                   .act = activations(be, p),
                   .conv_in = conv_inputs(be, p),
                   .tokens_together = be->tokens_together,
                   .pixels_together = be->pixels_together};
    if (scratch) {
        c->scratch.base = be->alloc(device, scratch, err);
        if (!c->scratch.base) {
            c->device = NULL;
            return err ? err->code : WAN_E_MEMORY;
        }
        c->scratch.size = scratch;
    }
    return WAN_OK;
}

compute wan_compute_dry(void) {
    return wan_compute_plan(wan_backend_dry(), WAN_PRECISION_F32);
}

compute wan_compute_plan(const backend *be, precision p) {
    return (compute){.be = wan_backend_dry(),
                     .planned = be,
                     .precision = p,
                     .act = activations(be, p),
                     .conv_in = conv_inputs(be, p),
                     .tokens_together = be->tokens_together,
                     .pixels_together = be->pixels_together,
                     .scratch = wan_arena_counting()};
}

void wan_compute_f16(compute *c) {
    if (c->act == WAN_BF16)
        c->act = c->conv_in = WAN_F16;
}

void wan_compute_exact(compute *c) {
    if (c->act == WAN_F32) {
        c->precision = WAN_PRECISION_F32;
        c->conv_in = WAN_F32;
    }
}

void wan_compute_close(compute *c) {
    if (!c || !c->device)
        return;
    if (c->scratch.base)
        c->be->free(c->device, c->scratch.base, c->scratch.size);
    if (c->owns_device)
        c->be->close(c->device);
    c->device = NULL;
    c->scratch = (arena){0};
}

size_t wan_compute_fixed_bytes(const backend *be, int threads) {
    return be->fixed_bytes(threads);
}

bool wan_is_dry(const compute *c) {
    return c->be->dry;
}

bool wan_ready(compute *c) {
    if (c->err.code == WAN_OK && c->cancelled && c->cancelled(c->cancel_user))
        wan_fail(&c->err, WAN_E_CANCELLED, "cancelled");
    return c->err.code == WAN_OK && !c->be->dry;
}

tensor wan_new(compute *c, dtype type, int rank, const int64_t *dim) {
    tensor t = wan_tensor(type, rank, dim, NULL);
    t.data = wan_arena_take(&c->scratch, wan_bytes(t));
    if (!t.data) {
        char text[128];
        wan_fail(
            &c->err, WAN_E_MEMORY,
            "scratch memory: a tensor %s of %zu bytes does not fit, %zu of %zu bytes are in use",
            wan_shape_text(t, text, sizeof text), wan_bytes(t), c->scratch.used, c->scratch.size);
    }
    return t;
}

size_t wan_mark(const compute *c) {
    return wan_arena_mark(&c->scratch);
}

void wan_release(compute *c, size_t mark) {
    wan_arena_release(&c->scratch, mark);
}

void wan_upload(compute *c, tensor dst, const void *src) {
    if (wan_ready(c))
        c->be->upload(c->device, dst.data, src, wan_bytes(dst));
}

void wan_download(compute *c, void *dst, tensor src) {
    if (!wan_ready(c))
        return;
    c->be->download(c->device, dst, src.data, wan_bytes(src));
    if (c->be->check)
        c->be->check(c->device, &c->err);
}

void wan_trace(compute *c, tensor t, const char *format, ...) {
    if (!c->trace || c->err.code != WAN_OK)
        return;
    char name[64];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    size_t mark = wan_mark(c);
    if (t.type != WAN_F32 && t.type == c->act) { /* a tracer sees f32 */
        tensor wide = wan_new(c, WAN_F32, t.rank, t.dim);
        if (wan_ready(c))
            c->be->op.activate(c, wide, t, WAN_NONE);
        t = wide;
    }
    c->trace(c->trace_user, c, name, t);
    wan_release(c, mark);
}
