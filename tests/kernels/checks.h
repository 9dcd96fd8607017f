/* SPDX-License-Identifier: Apache-2.0 */
/* checks.h - the list of all checks, in the order they run. */
#ifndef WAN_TESTS_KERNELS_CHECKS_H
#define WAN_TESTS_KERNELS_CHECKS_H

#define EACH_CHECK(X)                                                                              \
    /* kernel_check.c */                                                                           \
    X(gemm_tile)                                                                                   \
    X(gemm_columns)                                                                                \
    X(transpose)                                                                                   \
    X(softmax_tile)                                                                                \
    X(scale_columns)                                                                               \
    X(unpack)                                                                                      \
    X(unpack_types)                                                                                \
    X(unpack_speed)                                                                                \
    X(activations)                                                                                 \
    X(sums)                                                                                        \
    X(normalise)                                                                                   \
    X(rotate)                                                                                      \
    /* linear_check.c */                                                                           \
    X(linear)                                                                                      \
    X(linear_types)                                                                                \
    X(linear_scales)                                                                               \
    X(linear_threads)                                                                              \
    X(linear_speed)                                                                                \
    /* attention_check.c */                                                                        \
    X(attention)                                                                                   \
    X(attention_threads)                                                                           \
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
    X(conv_threads)                                                                                \
    X(pixel_norm)                                                                                  \
    X(dup_up)                                                                                      \
    X(avg_down)                                                                                    \
    X(pixels_in_out)                                                                               \
    X(latents_in_out)                                                                              \
    X(conv_speed)

#endif
