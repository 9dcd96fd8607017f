/* SPDX-License-Identifier: Apache-2.0 */
/* checks.h - the list of all checks, in the order they run: X for every device, C for CPUs only, D
 * for the shapes of the 5B model, too large for a CPU.  V is an op of the autoencoder's alone, whose
 * activations may be of another type than the transformers'; B and those of D that say so are of
 * both. */
#ifndef WAN_TESTS_KERNELS_CHECKS_H
#define WAN_TESTS_KERNELS_CHECKS_H

#define EACH_CHECK(X, C, D, V, B, DV, DB)                                                          \
    /* kernel_check.c */                                                                           \
    C(gemm_tile)                                                                                   \
    C(gemm_columns)                                                                                \
    C(transpose)                                                                                   \
    C(softmax_tile)                                                                                \
    C(scale_columns)                                                                               \
    C(unpack)                                                                                      \
    C(unpack_types)                                                                                \
    C(unpack_speed)                                                                                \
    C(activations)                                                                                 \
    C(sums)                                                                                        \
    C(normalise)                                                                                   \
    C(rotate)                                                                                      \
    /* narrow_check.c */                                                                           \
    C(to_bf16)                                                                                     \
    C(pack_bf16)                                                                                   \
    C(bf16_tile)                                                                                   \
    C(bf16_parts)                                                                                  \
    C(bf16_tile_speed)                                                                             \
    C(int8_rows)                                                                                   \
    C(int8_tile)                                                                                   \
    C(int8_tile_speed)                                                                             \
    /* linear_check.c */                                                                           \
    X(linear)                                                                                      \
    X(linear_types)                                                                                \
    X(linear_scales)                                                                               \
    C(linear_infinite)                                                                             \
    C(linear_add)                                                                                  \
    C(linear_threads)                                                                              \
    X(linear_speed)                                                                                \
    /* attention_check.c */                                                                        \
    C(softmax_bf16)                                                                                \
    B(attention)                                                                                   \
    C(attention_threads)                                                                           \
    X(attention_speed)                                                                             \
    /* norm_check.c */                                                                             \
    X(layer_norm)                                                                                  \
    X(norm_modulate)                                                                               \
    X(rms_norm)                                                                                    \
    X(qk_norm_rope)                                                                                \
    /* elementwise_check.c */                                                                      \
    B(add)                                                                                         \
    X(add_gated)                                                                                   \
    X(mul)                                                                                         \
    X(activate)                                                                                    \
    X(rows)                                                                                        \
    X(add_vector)                                                                                  \
    X(patches)                                                                                     \
    /* conv_check.c */                                                                             \
    V(conv3d)                                                                                      \
    V(frames_up)                                                                                   \
    V(frames_down)                                                                                 \
    V(conv2d)                                                                                      \
    C(conv_threads)                                                                                \
    V(pixel_norm)                                                                                  \
    V(dup_up)                                                                                      \
    V(avg_down)                                                                                    \
    C(copy)                                                                                        \
    V(pixels_in_out)                                                                               \
    V(latents_in_out)                                                                              \
    V(conv_speed)                                                                                  \
    /* large_check.c */                                                                            \
    D(large_linear)                                                                                \
    DB(large_attention)                                                                            \
    DV(large_conv)

#endif
