/* SPDX-License-Identifier: Apache-2.0 */
/* attention_8bit.cuh - the matrix products of attention_8bit.cu with operands of 8 bits.
 * a comes from registers: of 64 rows and 32 columns a thread has, four to a register, the columns
 * 4 * (lane % 4) of row lane / 4 and of the row 8 below, then the same 16 columns on.  b is K-major
 * in shared memory.  The macros write out lists of registers: N / 2 sums of a 64 x N product. */
#ifndef WAN_BACKEND_CUDA_ATTENTION_8BIT_CUH
#define WAN_BACKEND_CUDA_ATTENTION_8BIT_CUH

#include <stdint.h>

/* d (+)= a b^T, 64 x N x 32, signed integers. */
template <int N> struct mma_s8;

/* clang-format off */
#define REGS_64 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,"  \
    "%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,"    \
    "%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define REGS_72 REGS_64 ",%64,%65,%66,%67,%68,%69,%70,%71"
#define REGS_80 REGS_72 ",%72,%73,%74,%75,%76,%77,%78,%79"
#define REGS_88 REGS_80 ",%80,%81,%82,%83,%84,%85,%86,%87"
#define REGS_96 REGS_88 ",%88,%89,%90,%91,%92,%93,%94,%95"
#define REGS_104 REGS_96 ",%96,%97,%98,%99,%100,%101,%102,%103"
#define REGS_112 REGS_104 ",%104,%105,%106,%107,%108,%109,%110,%111"
#define EIGHT(how, i) how(d[i]), how(d[i + 1]), how(d[i + 2]), how(d[i + 3]), how(d[i + 4]),      \
    how(d[i + 5]), how(d[i + 6]), how(d[i + 7])
#define OUT_64(how) EIGHT(how, 0), EIGHT(how, 8), EIGHT(how, 16), EIGHT(how, 24), EIGHT(how, 32), \
    EIGHT(how, 40), EIGHT(how, 48), EIGHT(how, 56)
#define OUT_72(how) OUT_64(how), EIGHT(how, 64)
#define OUT_80(how) OUT_72(how), EIGHT(how, 72)
#define OUT_88(how) OUT_80(how), EIGHT(how, 80)
#define OUT_96(how) OUT_88(how), EIGHT(how, 88)
#define OUT_104(how) OUT_96(how), EIGHT(how, 96)
#define OUT_112(how) OUT_104(how), EIGHT(how, 104)
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
MMA_S8(144, 72, "72", "73", "74", "75", "76")
MMA_S8(160, 80, "80", "81", "82", "83", "84")
MMA_S8(176, 88, "88", "89", "90", "91", "92")
MMA_S8(192, 96, "96", "97", "98", "99", "100")
MMA_S8(208, 104, "104", "105", "106", "107", "108")
MMA_S8(224, 112, "112", "113", "114", "115", "116")

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
#undef REGS_72
#undef OUT_72
#undef REGS_80
#undef OUT_80
#undef REGS_88
#undef OUT_88
#undef REGS_96
#undef OUT_96
#undef REGS_104
#undef OUT_104
#undef REGS_112
#undef OUT_112

#endif
