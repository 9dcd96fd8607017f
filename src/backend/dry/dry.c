/* SPDX-License-Identifier: Apache-2.0 */
/* The backend that does nothing: shapes, scratch and work are counted by src/tensor, so a plan is
 * the model's own code run on this.  Its ops are never called. */
#include "backend/backend.h"

static size_t fixed_bytes(int threads) {
    (void)threads;
    return 0;
}

static tensor place(void *device, tensor host, weight_use use, error *err) {
    (void)device;
    (void)use;
    (void)err;
    return host;
}

static const backend dry = {.name = "dry",
                            .dry = true,
                            .precisions = 1u << WAN_PRECISION_F32,
                            .tokens_together = 4096,
                            .pixels_together = 3072,
                            .latents_together = 1024,
                            .fixed_bytes = fixed_bytes,
                            .place = place};

const backend *wan_backend_dry(void) {
    return &dry;
}
