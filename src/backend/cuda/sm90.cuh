/* SPDX-License-Identifier: Apache-2.0 */
/* sm90.cuh - Hopper's own instructions, one small function each: barriers in shared memory, the
 * tensor copy engine (TMA), warpgroup matrix products (wgmma).  Only for files compiled for sm_90a.
 * Addresses in shared memory are 32-bit, as `shared_address` gives them. */
#ifndef WAN_BACKEND_CUDA_SM90_CUH
#define WAN_BACKEND_CUDA_SM90_CUH

#include <cuda.h>
#include <stdint.h>

static __device__ __forceinline__ uint32_t shared_address(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* ------------------------------------------------------------------------------------ barriers */

static __device__ __forceinline__ void barrier_init(uint32_t at, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(arrivals) : "memory");
}

/* Makes barriers that were just set up visible to the copy engine and the cluster. */
static __device__ __forceinline__ void barrier_init_fence(void) {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/* Until the phase of that parity has ended. */
static __device__ __forceinline__ void barrier_wait(uint32_t at, uint32_t parity) {
    uint32_t done;
    do {
        asm volatile("{\n.reg .pred p;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done)
                     : "r"(at), "r"(parity)
                     : "memory");
    } while (!done);
}

static __device__ __forceinline__ void barrier_expect(uint32_t at, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(bytes)
                 : "memory");
}

static __device__ __forceinline__ void barrier_arrive(uint32_t at) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
}

/* The same barrier of another block of the cluster.  Orders no memory across blocks: that would
 * cost a fence, and who waits here only wants to know that reads are over. */
static __device__ __forceinline__ void barrier_arrive_at(uint32_t at, uint32_t rank) {
    asm volatile("{\n.reg .b32 r;\n"
                 "mapa.shared::cluster.u32 r, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [r];\n}" ::"r"(at),
                 "r"(rank)
                 : "memory");
}

static __device__ __forceinline__ uint32_t cluster_rank(void) {
    uint32_t r;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
    return r;
}

static __device__ __forceinline__ void cluster_sync(void) {
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

/* ----------------------------------------------------------------------------------------- TMA */

/* Pixels in a row from (w, h, n) on, of a tensor [n, h, w, c], as an im2col map walks them, each
 * moved by (right, down). */
static __device__ __forceinline__ void load_pixels(uint32_t to, const CUtensorMap *map,
                                                   uint32_t bar, int c, int w, int h, int n,
                                                   int right, int down) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.im2col"
        ".mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2], {%7, %8};" ::"r"(to),
        "l"(map), "r"(bar), "r"(c), "r"(w), "r"(h), "r"(n), "h"((uint16_t)right),
        "h"((uint16_t)down)
        : "memory");
}

static __device__ __forceinline__ void load_box3(uint32_t to, const CUtensorMap *map, uint32_t bar,
                                                 int x0, int x1, int x2) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile"
                 ".mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to),
                 "l"(map), "r"(bar), "r"(x0), "r"(x1), "r"(x2)
                 : "memory");
}

/* To the same place, and telling the same barrier, in every block of `mask`. */
static __device__ __forceinline__ void load_box3_all(uint32_t to, const CUtensorMap *map,
                                                     uint32_t bar, int x0, int x1, int x2,
                                                     uint16_t mask) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile"
                 ".mbarrier::complete_tx::bytes.multicast::cluster"
                 " [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(to),
                 "l"(map), "r"(bar), "r"(x0), "r"(x1), "r"(x2), "h"(mask)
                 : "memory");
}

/* --------------------------------------------------------------------------------------- wgmma */

/* Rows of 128 bytes, swizzled as TMA's 128-byte mode does, 8 rows to an atom of 1024 bytes, atoms
 * one after another.  32 bytes on: + 2.  It may begin at any row of an atom. */
static __device__ __forceinline__ uint64_t matrix_at(uint32_t address) {
    return (uint64_t)((address & 0x3ffff) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}

static __device__ __forceinline__ void products_begin(void) {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ __forceinline__ void products_commit(void) {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Until at most `left` groups are under way. */
template <int left> static __device__ __forceinline__ void products_wait(void) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(left) : "memory");
}

/* Keeps the compiler from moving uses of sums above a wait. */
template <int n> static __device__ __forceinline__ void hold(float (&d)[n]) {
#pragma unroll
    for (int i = 0; i < n; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}

/* d = A B^T, with `more` d += A B^T: 64 rows of A, n = sizeof d / 2 rows of B, 32 bytes of a row:
 * 16 columns of f16, or 32 of e4m3.  In d[4 j + 2 h + e] is row 16 warp + lane / 4 + 8 h, column 8
 * j + 2 (lane % 4) + e. */
#define WGMMA(n, types, sums, a, b, more, turned)                                                  \
    "{\n.reg .pred p;\nsetp.ne.b32 p, %" #more ", 0;\n"                                            \
    "wgmma.mma_async.sync.aligned.m64n" #n types " {" sums "}, %" #a ", %" #b ", p, 1, 1" turned   \
    ";\n}"
#define ADD_PRODUCTS(n, sums, a_at, b_at, more_at, ...)                                            \
    template <class T>                                                                             \
    static __device__ __forceinline__ void add_products(float(&d)[n / 2], uint64_t a, uint64_t b,  \
                                                        int more) {                                \
        if constexpr (sizeof(T) == 1)                                                              \
            asm volatile(WGMMA(n, "k32.f32.e4m3.e4m3", sums, a_at, b_at, more_at, "")              \
                         : __VA_ARGS__                                                             \
                         : "l"(a), "l"(b), "r"(more));                                             \
        else                                                                                       \
            asm volatile(WGMMA(n, "k16.f32.f16.f16", sums, a_at, b_at, more_at, ", 0, 0")          \
                         : __VA_ARGS__                                                             \
                         : "l"(a), "l"(b), "r"(more));                                             \
    }
#define N8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define N10 N8 ", %8, %9"
#define TEN(t)                                                                                     \
    ", %" #t "0, %" #t "1, %" #t "2, %" #t "3, %" #t "4, %" #t "5, %" #t "6, %" #t "7, %" #t       \
    "8, %" #t "9"
#define N60 N10 TEN(1) TEN(2) TEN(3) TEN(4) TEN(5)
#define D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define D16(i) D4(i), D4(i + 4), D4(i + 8), D4(i + 12)
#define D64(i) D16(i), D16(i + 16), D16(i + 32), D16(i + 48)

ADD_PRODUCTS(16, N8, 8, 9, 10, D4(0), D4(4))
ADD_PRODUCTS(128, N60 ", %60, %61, %62, %63", 64, 65, 66, D64(0))
ADD_PRODUCTS(160, N60 TEN(6) TEN(7), 80, 81, 82, D64(0), D16(64))
ADD_PRODUCTS(256,
             N60 TEN(6) TEN(7) TEN(8) TEN(9) TEN(10)
                 TEN(11) ", %120, %121, %122, %123, %124, %125, %126, %127",
             128, 129, 130, D64(0), D64(64))

#undef WGMMA
#undef ADD_PRODUCTS
#undef N8
#undef N10
#undef N60
#undef TEN
#undef D4
#undef D16
#undef D64

/* Registers of this warpgroup's threads from now on. */
template <int n> static __device__ __forceinline__ void registers_up(void) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(n));
}

template <int n> static __device__ __forceinline__ void registers_down(void) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(n));
}

#endif
