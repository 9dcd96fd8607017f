/* SPDX-License-Identifier: Apache-2.0 */
/* AMX: tiles of bf16 and of 8-bit codes.  The words are assembly because the compilers' intrinsics
 * do not say that they read memory. */
#include "backend/cpu/kernels.h"

#include <assert.h>
#include <immintrin.h>

/* Palette 1: eight tiles of at most 16 rows of 64 bytes. */
typedef struct tile_shapes {
    uint8_t palette, start, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_shapes;
static_assert(sizeof(tile_shapes) == 64, "what LDTILECFG reads");

static const tile_shapes bf16_shapes = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {16, 16, 16, 16, 16, 16, 16, 16},
};

/* Groups of 32 codes are half of a tile's depth. */
static const tile_shapes int8_shapes = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 32, 32, 64, 64},
    .rows = {12, 12, 12, 12, 12, 12, 8, 8},
};

/* The shapes that a thread's tiles have.  They cost some 200 cycles, so they stay until others are
 * wanted, or `rest`: nobody else's code runs before.  The model of thread-local storage saves a
 * call. */
static _Thread_local const tile_shapes *begun __attribute__((tls_model("initial-exec")));

static inline void begin(const tile_shapes *shapes) {
    if (begun == shapes)
        return;
    __asm__ volatile("ldtilecfg %0" : : "m"(*shapes));
    begun = shapes;
}

static inline void t_begin(void) {
    begin(&bf16_shapes);
}

static inline void t_begin_int8(void) {
    begin(&int8_shapes);
}

/* An idle thread with tiles in use takes longer to switch, and its core to sleep. */
static void rest(void) {
    if (!begun)
        return;
    __asm__ volatile("tilerelease");
    begun = NULL;
}

/* clang-format off */
#define t_zero(n) __asm__ volatile("tilezero %%tmm" #n : :)
#define t_load(n, p, stride) \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #n : : "r"(p), "r"((int64_t)(stride)) : "memory")
#define t_store(n, p, stride) \
    __asm__ volatile("tilestored %%tmm" #n ", (%0,%1,1)" : : "r"(p), "r"((int64_t)(stride)) : "memory")
#define t_dot(n, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #n : :)
#define t_dot_int8(n, a, b) __asm__ volatile("tdpbssd %%tmm" #b ", %%tmm" #a ", %%tmm" #n : :)
/* clang-format on */

static inline void t_copy(uint16_t *to, const uint16_t *from, int64_t n) {
    __mmask32 first = (__mmask32)(((uint64_t)1 << n) - 1);
    _mm512_storeu_si512(to, _mm512_maskz_loadu_epi16(first, from));
}

#include "backend/cpu/kernels_words_avx512.h"

#include "backend/cpu/kernels_amx.h"

/* Words of kernels_amx_int8.h.  Assembly, because clang would add to the register of a factor and
 * then keep sums in memory. */
WORD vec v_sum(vec s, vec a, vec b) {
    __asm__("vfmadd231ps %2, %1, %0" : "+v"(s) : "v"(a), "v"(b));
    return s;
}

WORD vec v_from_i32(const int32_t *p) {
    return _mm512_cvtepi32_ps(_mm512_loadu_si512(p));
}

#include "backend/cpu/kernels_int8_x86.h"
#include "backend/cpu/kernels_transpose.h"

#include "backend/cpu/kernels_amx_int8.h"

void wan_cpu_kernels_amx(cpu_kernels *k) {
    k->bf16_mr = MR;
    k->bf16_depth = 3072;
    k->bf16_outputs = 192;
    k->bf16_tile = bf16_tile;
    k->bf16_parts = bf16_parts;
    k->rest = rest;
}

void wan_cpu_kernels_amx_int8(cpu_kernels *k) {
    k->fast_int8 = true;
    k->int8_mr = INT8_MR;
    k->int8_row = INT8_ROW;
    k->int8_panel = INT8_PANEL;
    k->to_int8 = amx_to_int8;
    k->int8_from_q8_0 = amx_int8_from_q8_0;
    k->int8_from_codes = amx_int8_from_codes;
    k->pack_int8 = amx_pack_int8;
    k->int8_tile = amx_int8_tile;
    k->rest = rest;
}
