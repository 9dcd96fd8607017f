/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/tensor.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static const dtype_info info[WAN_DTYPES] = {
    /* clang-format off */
    [WAN_F32]     = { "F32",     1,   4, true  },
    [WAN_F16]     = { "F16",     1,   2, true  },
    [WAN_BF16]    = { "BF16",    1,   2, true  },
    [WAN_Q8_0]    = { "Q8_0",    32,  34, true },
    [WAN_F64]     = { "F64",     1,   8, true },
    [WAN_I8]      = { "I8",      1,   1, true },
    [WAN_U8]      = { "U8",      1,   1, false },
    [WAN_I16]     = { "I16",     1,   2, false },
    [WAN_I32]     = { "I32",     1,   4, false },
    [WAN_I64]     = { "I64",     1,   8, false },
    [WAN_BOOL]    = { "BOOL",    1,   1, false },
    [WAN_F8_E4M3] = { "F8_E4M3", 1,   1, true },
    [WAN_F8_E5M2] = { "F8_E5M2", 1,   1, true },
    [WAN_Q4_0]    = { "Q4_0",    32,  18, true },
    [WAN_Q4_1]    = { "Q4_1",    32,  20, true },
    [WAN_Q5_0]    = { "Q5_0",    32,  22, true },
    [WAN_Q5_1]    = { "Q5_1",    32,  24, true },
    [WAN_Q2_K]    = { "Q2_K",    256, 84, true },
    [WAN_Q3_K]    = { "Q3_K",    256, 110, true },
    [WAN_Q4_K]    = { "Q4_K",    256, 144, true },
    [WAN_Q5_K]    = { "Q5_K",    256, 176, true },
    [WAN_Q6_K]    = { "Q6_K",    256, 210, true },
    [WAN_IQ4_NL]  = { "IQ4_NL",  32,  18, true },
    [WAN_IQ4_XS]  = { "IQ4_XS",  256, 136, true },
    [WAN_MLX_8]   = { "MLX_8",   1,   1, true },
    [WAN_MLX_4]   = { "MLX_4",   2,   1, true },
    [WAN_U16]         = { "U16",         1,   2,   false },
    [WAN_U32]         = { "U32",         1,   4,   false },
    [WAN_U64]         = { "U64",         1,   8,   false },
    [WAN_C64]         = { "C64",         1,   8,   false },
    [WAN_F8_E8M0]     = { "F8_E8M0",     1,   1,   false },
    [WAN_F8_E4M3FNUZ] = { "F8_E4M3FNUZ", 1,   1,   false },
    [WAN_F8_E5M2FNUZ] = { "F8_E5M2FNUZ", 1,   1,   false },
    [WAN_F6_E2M3]     = { "F6_E2M3",     4,   3,   false },
    [WAN_F6_E3M2]     = { "F6_E3M2",     4,   3,   false },
    [WAN_F4]          = { "F4",          2,   1,   false },
    [WAN_Q8_1]        = { "Q8_1",        32,  36,  false },
    [WAN_Q8_K]        = { "Q8_K",        256, 292, false },
    [WAN_IQ1_S]       = { "IQ1_S",       256, 50,  false },
    [WAN_IQ1_M]       = { "IQ1_M",       256, 56,  false },
    [WAN_IQ2_XXS]     = { "IQ2_XXS",     256, 66,  false },
    [WAN_IQ2_XS]      = { "IQ2_XS",      256, 74,  false },
    [WAN_IQ2_S]       = { "IQ2_S",       256, 82,  false },
    [WAN_IQ3_XXS]     = { "IQ3_XXS",     256, 98,  false },
    [WAN_IQ3_S]       = { "IQ3_S",       256, 110, false },
    [WAN_TQ1_0]       = { "TQ1_0",       256, 54,  false },
    [WAN_TQ2_0]       = { "TQ2_0",       256, 66,  false },
    [WAN_MXFP4]       = { "MXFP4",       32,  17,  false },
    [WAN_NVFP4]       = { "NVFP4",       64,  36,  false },
    [WAN_Q1_0]        = { "Q1_0",        128, 18,  false },
    /* clang-format on */
};

const dtype_info *wan_dtype(dtype t) {
    assert(t < WAN_DTYPES);
    return &info[t];
}

tensor wan_tensor(dtype type, int rank, const int64_t *dim, void *data) {
    assert(rank >= 0 && rank <= WAN_MAX_RANK);
    tensor t = {.type = type, .rank = rank, .data = data};
    for (int i = 0; i < rank; i++)
        t.dim[i] = dim[i];
    return t;
}

int64_t wan_elements(tensor t) {
    int64_t n = 1;
    for (int i = 0; i < t.rank; i++)
        n *= t.dim[i];
    return n;
}

size_t wan_bytes(tensor t) {
    const dtype_info *d = wan_dtype(t.type);
    return (size_t)(wan_elements(t) / d->block) * (size_t)d->bytes;
}

bool wan_same_shape(tensor a, tensor b) {
    return a.rank == b.rank && !memcmp(a.dim, b.dim, sizeof a.dim[0] * (size_t)a.rank);
}

tensor wan_slice(tensor t, int64_t from, int64_t count) {
    assert(t.rank > 0 && from >= 0 && count >= 0 && from + count <= t.dim[0]);
    int64_t whole = t.dim[0];
    t.dim[0] = 1;
    size_t row = whole ? wan_bytes(t) : 0;
    t.dim[0] = count;
    if (t.data)
        t.data = (char *)t.data + row * (size_t)from;
    return t;
}

tensor wan_reshape(tensor t, int rank, const int64_t *dim) {
    tensor r = wan_tensor(t.type, rank, dim, t.data);
    assert(wan_elements(r) == wan_elements(t));
    return r;
}

const char *wan_shape_text(tensor t, char *text, size_t size) {
    size_t at = 0;
    text[0] = '\0';
    for (int i = 0; i < t.rank && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%lld", i ? ", " : "[", (long long)t.dim[i]);
    if (at < size)
        snprintf(text + at, size - at, "%s", t.rank ? "]" : "[]");
    return text;
}
