/* SPDX-License-Identifier: Apache-2.0 */
/* attention_8bit.cuh - numbers of 8 bits, and the matrix products of attention_8bit.cu with them.
 * a comes from registers: of 64 rows and 32 columns a thread has, four to a register, the columns
 * 4 * (lane % 4) of row lane / 4 and of the row 8 below, then the same 16 columns on.  b is K-major
 * in shared memory.  The macros write out lists of registers: N / 2 sums of a 64 x N product. */
#ifndef WAN_BACKEND_CUDA_ATTENTION_8BIT_CUH
#define WAN_BACKEND_CUDA_ATTENTION_8BIT_CUH

#include <stdint.h>

/* As max, but a NaN wins: it shall be seen in the result. */
static __device__ __forceinline__ float larger(float a, float b) {
    float x;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(x) : "f"(a), "f"(b));
    return x;
}

/* To the nearest integer, in the lowest byte. */
static __device__ __forceinline__ uint32_t rounded(float x, float by) {
    return __float_as_uint(fmaf(x, by, 12582912.0f));
}

static __device__ __forceinline__ float low_half(uint32_t pair) {
    return __uint_as_float(pair << 16);
}

static __device__ __forceinline__ float high_half(uint32_t pair) {
    return __uint_as_float(pair & 0xffff0000u);
}

/* Of four bf16. */
static __device__ __forceinline__ uint32_t four_integers(uint32_t a, uint32_t b, float by) {
    uint32_t low = __byte_perm(rounded(low_half(a), by), rounded(high_half(a), by), 0x0040);
    uint32_t high = __byte_perm(rounded(low_half(b), by), rounded(high_half(b), by), 0x0040);
    return __byte_perm(low, high, 0x5410);
}

static __device__ __forceinline__ uint32_t four_e4m3(float a, float b, float c, float d) {
    uint32_t x;
    asm("{\n.reg .b16 l, h;\ncvt.rn.satfinite.e4m3x2.f32 l, %2, %1;\n"
        "cvt.rn.satfinite.e4m3x2.f32 h, %4, %3;\nmov.b32 %0, {l, h};\n}"
        : "=r"(x)
        : "f"(a), "f"(b), "f"(c), "f"(d));
    return x;
}

/* d (+)= a b^T, 64 x N x 32, signed integers. */
template <int N> struct mma_s8;

/* clang-format off */
#define REGS_64 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,"  \
    "%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,"    \
    "%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define REGS_88 REGS_64 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,"   \
    "%81,%82,%83,%84,%85,%86,%87"
#define EIGHT(how, i) how(d[i]), how(d[i + 1]), how(d[i + 2]), how(d[i + 3]), how(d[i + 4]),      \
    how(d[i + 5]), how(d[i + 6]), how(d[i + 7])
#define OUT_64(how) EIGHT(how, 0), EIGHT(how, 8), EIGHT(how, 16), EIGHT(how, 24), EIGHT(how, 32), \
    EIGHT(how, 40), EIGHT(how, 48), EIGHT(how, 56)
#define OUT_88(how) OUT_64(how), EIGHT(how, 64), EIGHT(how, 72), EIGHT(how, 80)
#define MMA_S8(N, H, A0, A1, A2, A3, B)                                                           \
    template <> struct mma_s8<N> {                                                                \
        static __device__ __forceinline__ void first(int (&d)[N / 2], const uint32_t *a,          \
                                                     uint64_t b) {                                \
            asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k32.s32.s8.s8 {" REGS_##H        \
                         "}, {%" A0 ",%" A1 ",%" A2 ",%" A3 "}, %" B ", 0;"                       \
                         : OUT_##H("=r")                                                          \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                   \
        }                                                                                         \
        static __device__ __forceinline__ void add(int (&d)[N / 2], const uint32_t *a,            \
                                                   uint64_t b) {                                  \
            asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k32.s32.s8.s8 {" REGS_##H        \
                         "}, {%" A0 ",%" A1 ",%" A2 ",%" A3 "}, %" B ", 1;"                       \
                         : OUT_##H("+r")                                                          \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                   \
        }                                                                                         \
    };
MMA_S8(128, 64, "64", "65", "66", "67", "68")
MMA_S8(176, 88, "88", "89", "90", "91", "92")

/* d += a b^T, 64 x 128 x 32, E4M3. */
static __device__ __forceinline__ void mma_e4m3(float (&d)[64], const uint32_t *a, uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {" REGS_64
                 "}, {%64,%65,%66,%67}, %68, 1, 1, 1;"
                 : OUT_64("+f")
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
/* clang-format on */

#undef MMA_S8
#undef EIGHT
#undef REGS_64
#undef OUT_64
#undef REGS_88
#undef OUT_88

#endif
