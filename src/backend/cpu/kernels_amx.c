/* SPDX-License-Identifier: Apache-2.0 */
/* AMX: tiles of bf16.  The words are assembly because the compilers' intrinsics do not say that
 * they read memory. */
#include "backend/cpu/kernels.h"

#include <assert.h>
#include <immintrin.h>

/* Palette 1: eight tiles of at most 16 rows of 64 bytes; all are used whole. */
typedef struct tile_shapes {
    uint8_t palette, start, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_shapes;
static_assert(sizeof(tile_shapes) == 64, "what LDTILECFG reads");

static const tile_shapes shapes = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {16, 16, 16, 16, 16, 16, 16, 16},
};

/* Shapes cost some 200 cycles, so they stay until `rest`: nobody else's code runs before.  The
 * model of thread-local storage saves a call. */
static _Thread_local bool begun __attribute__((tls_model("initial-exec")));

static inline void t_begin(void) {
    if (begun)
        return;
    __asm__ volatile("ldtilecfg %0" : : "m"(shapes));
    begun = true;
}

/* An idle thread with tiles in use takes longer to switch, and its core to sleep. */
static void rest(void) {
    if (!begun)
        return;
    __asm__ volatile("tilerelease");
    begun = false;
}

/* clang-format off */
#define t_zero(n) __asm__ volatile("tilezero %%tmm" #n : :)
#define t_load(n, p, stride) \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #n : : "r"(p), "r"((int64_t)(stride)) : "memory")
#define t_store(n, p, stride) \
    __asm__ volatile("tilestored %%tmm" #n ", (%0,%1,1)" : : "r"(p), "r"((int64_t)(stride)) : "memory")
#define t_dot(n, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #n : :)
/* clang-format on */

static inline void t_copy(uint16_t *to, const uint16_t *from, int64_t n) {
    __mmask32 first = (__mmask32)(((uint64_t)1 << n) - 1);
    _mm512_storeu_si512(to, _mm512_maskz_loadu_epi16(first, from));
}

#include "backend/cpu/kernels_amx.h"

void wan_cpu_kernels_amx(cpu_kernels *k) {
    k->bf16_mr = MR;
    k->bf16_depth = 3072;
    k->bf16_outputs = 192;
    k->bf16_tile = bf16_tile;
    k->bf16_parts = bf16_parts;
    k->rest = rest;
}
