/* SPDX-License-Identifier: Apache-2.0 */
/* tensor.h - a view of numbers in memory: type, shape, address.
 * A tensor is passed by value and owns nothing.  Elements lie without gaps, the last axis fastest.
 * Activations are WAN_F32 and 64-byte aligned unless a function says otherwise; weights point into
 * mapped files, have any type, and may start at ANY byte address: read them with memcpy or
 * unaligned loads only. */
#ifndef WAN_TENSOR_TENSOR_H
#define WAN_TENSOR_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WAN_MAX_RANK 5

typedef enum dtype {
    WAN_F32,
    WAN_F16,
    WAN_BF16,
    WAN_Q8_0, /* blocks of 32: f16 scale d, then 32 int8 q; value d * q.  34 bytes */
    WAN_F64,
    WAN_I8,
    WAN_U8,
    WAN_I16,
    WAN_I32,
    WAN_I64,
    WAN_BOOL,
    WAN_F8_E4M3,
    WAN_F8_E5M2,
    WAN_Q4_0,
    WAN_Q4_1,
    WAN_Q5_0,
    WAN_Q5_1,
    WAN_Q2_K,
    WAN_Q3_K,
    WAN_Q4_K,
    WAN_Q5_K,
    WAN_Q6_K,
    WAN_IQ4_NL,
    WAN_IQ4_XS,
    WAN_MLX_8, /* codes 0..255 and 0..15 (low nibble first) of MLX packages; see struct linear */
    WAN_MLX_4,
    /* from here on: known by name and size, so that a file that holds them can be listed */
    WAN_U16,
    WAN_U32,
    WAN_U64,
    WAN_C64,
    WAN_F8_E8M0,
    WAN_F8_E4M3FNUZ,
    WAN_F8_E5M2FNUZ,
    WAN_F6_E2M3,
    WAN_F6_E3M2,
    WAN_F4,
    WAN_Q8_1,
    WAN_Q8_K,
    WAN_IQ1_S,
    WAN_IQ1_M,
    WAN_IQ2_XXS,
    WAN_IQ2_XS,
    WAN_IQ2_S,
    WAN_IQ3_XXS,
    WAN_IQ3_S,
    WAN_TQ1_0,
    WAN_TQ2_0,
    WAN_MXFP4,
    WAN_NVFP4,
    WAN_Q1_0,
    WAN_DTYPES
} dtype;

typedef struct dtype_info {
    const char *name; /* "F32", "Q8_0": as safetensors and GGUF spell it */
    int block;        /* elements that are stored together; 1 for plain types */
    int bytes;        /* of one block */
    bool weight;      /* ops accept it as the type of a linear's or convolution's weight */
} dtype_info;

const dtype_info *wan_dtype(dtype t);

typedef struct tensor {
    dtype type;
    int rank;
    int64_t dim[WAN_MAX_RANK]; /* slowest axis first */
    void *data;                /* NULL: no tensor */
} tensor;

/* A view; no memory is touched. */
tensor wan_tensor(dtype type, int rank, const int64_t *dim, void *data);

int64_t wan_elements(tensor t);
/* Bytes of the whole tensor; rows (last axis) are whole blocks. */
size_t wan_bytes(tensor t);
bool wan_same_shape(tensor a, tensor b);

/* Rows [from, from + count) along the slowest axis. */
tensor wan_slice(tensor t, int64_t from, int64_t count);
/* The same bytes in another shape with as many elements. */
tensor wan_reshape(tensor t, int rank, const int64_t *dim);

#define WAN_DIMS(...)                                                                              \
    ((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))), (int64_t[]) {                     \
        __VA_ARGS__                                                                                \
    }

/* "[3, 9, 64, 64]" into text, for messages; returns text. */
const char *wan_shape_text(tensor t, char *text, size_t size);

#endif
