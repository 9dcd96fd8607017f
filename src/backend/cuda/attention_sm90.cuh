/* SPDX-License-Identifier: Apache-2.0 */
/* attention_sm90.cuh - the matrix products of attention_sm90.cu, one instruction each.
 * The macros write out lists of registers: N / 2 sums of a 64 x N product. */
#ifndef WAN_BACKEND_CUDA_ATTENTION_SM90_CUH
#define WAN_BACKEND_CUDA_ATTENTION_SM90_CUH

#include <stdint.h>

/* d += a b^T, 64 x N x 16, both from shared memory; without the old d where `keep` is 0. */
template <int N> struct mma_shared;

/* clang-format off */
#define REGS_40 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21," \
    "%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39"
#define REGS_48 REGS_40 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define REGS_56 REGS_48 ",%48,%49,%50,%51,%52,%53,%54,%55"
#define REGS_64 REGS_56 ",%56,%57,%58,%59,%60,%61,%62,%63"
#define REGS_72 REGS_64 ",%64,%65,%66,%67,%68,%69,%70,%71"
#define REGS_80 REGS_72 ",%72,%73,%74,%75,%76,%77,%78,%79"
#define REGS_88 REGS_80 ",%80,%81,%82,%83,%84,%85,%86,%87"
#define EIGHT(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]),      \
    "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define OUT_40 EIGHT(0), EIGHT(8), EIGHT(16), EIGHT(24), EIGHT(32)
#define OUT_48 OUT_40, EIGHT(40)
#define OUT_56 OUT_48, EIGHT(48)
#define OUT_64 OUT_56, EIGHT(56)
#define OUT_72 OUT_64, EIGHT(64)
#define OUT_80 OUT_72, EIGHT(72)
#define OUT_88 OUT_80, EIGHT(80)
#define MMA_SHARED(N, H, A, B, KEEP)                                                              \
    template <> struct mma_shared<N> {                                                            \
        static __device__ __forceinline__ void issue(float (&d)[N / 2], uint64_t a, uint64_t b,   \
                                                     int keep) {                                  \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" KEEP ", 0;\n"                       \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" REGS_##H    \
                         "}, %" A ", %" B ", p, 1, 1, 0, 0;\n}"                                   \
                         : OUT_##H                                                                \
                         : "l"(a), "l"(b), "r"(keep));                                            \
        }                                                                                         \
    };
MMA_SHARED(80, 40, "40", "41", "42")
MMA_SHARED(96, 48, "48", "49", "50")
MMA_SHARED(112, 56, "56", "57", "58")
MMA_SHARED(128, 64, "64", "65", "66")
MMA_SHARED(144, 72, "72", "73", "74")
MMA_SHARED(160, 80, "80", "81", "82")
MMA_SHARED(176, 88, "88", "89", "90")
/* clang-format on */

/* d += a b, 64 x 128 x 16, a from registers, b MN-major. */
static __device__ __forceinline__ void mma_registers(float (&d)[64], const uint32_t *a,
                                                     uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" REGS_64
                 "}, {%64,%65,%66,%67}, %68, 1, 1, 1, 1;"
                 : OUT_64
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#undef MMA_SHARED
#undef EIGHT
#undef REGS_40
#undef OUT_40
#undef REGS_48
#undef OUT_48
#undef REGS_56
#undef OUT_56
#undef REGS_64
#undef OUT_64
#undef REGS_72
#undef OUT_72
#undef REGS_80
#undef OUT_80
#undef REGS_88
#undef OUT_88

#endif
