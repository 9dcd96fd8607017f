/* SPDX-License-Identifier: Apache-2.0 */
/* checks.h - the list of all checks, in the order they run: X for every device, C for CPUs only, D
 * for devices other than CPUs, whose shapes are too large for the rest. */
#ifndef WAN_TESTS_KERNELS_CHECKS_H
#define WAN_TESTS_KERNELS_CHECKS_H

#define EACH_CHECK(X, C, D)                                                                        \
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
    /* linear_check.c */                                                                           \
    X(linear)                                                                                      \
    X(linear_types)                                                                                \
    X(linear_scales)                                                                               \
    C(linear_threads)                                                                              \
    X(linear_speed)                                                                                \
    /* attention_check.c */                                                                        \
    X(attention)                                                                                   \
    C(attention_threads)                                                                           \
    X(attention_speed)                                                                             \
    /* norm_check.c */                                                                             \
    X(layer_norm)                                                                                  \
    X(norm_modulate)                                                                               \
    X(rms_norm)                                                                                    \
    X(qk_norm_rope)                                                                                \
    /* elementwise_check.c */                                                                      \
    X(add)                                                                                         \
    X(add_gated)                                                                                   \
    X(mul)                                                                                         \
    X(activate)                                                                                    \
    X(rows)                                                                                        \
    X(add_vector)                                                                                  \
    X(patches)                                                                                     \
    /* conv_check.c */                                                                             \
    X(conv3d)                                                                                      \
    X(frames_up)                                                                                   \
    X(frames_down)                                                                                 \
    X(conv2d)                                                                                      \
    C(conv_threads)                                                                                \
    X(pixel_norm)                                                                                  \
    X(dup_up)                                                                                      \
    X(avg_down)                                                                                    \
    X(pixels_in_out)                                                                               \
    X(latents_in_out)                                                                              \
    X(conv_speed)                                                                                  \
    /* large_check.c */                                                                            \
    D(large_linear)                                                                                \
    D(large_attention)                                                                             \
    D(large_conv)

#endif
