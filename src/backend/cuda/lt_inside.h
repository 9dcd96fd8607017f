/* SPDX-License-Identifier: Apache-2.0 */
/* lt_inside.h - what lt.c, lt_choose.c and lt_table.c share. */
#ifndef WAN_BACKEND_CUDA_LT_INSIDE_H
#define WAN_BACKEND_CUDA_LT_INSIDE_H

#include <cublasLt.h>

#include "backend/cuda/lt.h"

/* The calls that are used; the header gives their types, dlsym their addresses. */
#define LT_CALLS(call)                                                                             \
    call(GetVersion) call(Create) call(Destroy) call(Matmul) call(MatmulAlgoGetHeuristic)          \
        call(MatmulDescCreate) call(MatmulDescDestroy) call(MatmulDescSetAttribute)                \
            call(MatrixLayoutCreate) call(MatrixLayoutDestroy) call(MatmulPreferenceCreate)        \
                call(MatmulPreferenceDestroy) call(MatmulPreferenceSetAttribute)

typedef struct lt_calls {
#define LT_FIELD(name) __typeof__(&cublasLt##name) name;
    LT_CALLS(LT_FIELD)
#undef LT_FIELD
} lt_calls;

/* What an algorithm is chosen for. */
typedef struct lt_key {
    int64_t rows, out, in;
    int32_t operand, result, bias, act;
} lt_key;

/* A line of the file. */
typedef struct lt_saved {
    lt_key key;
    cublasLtMatmulAlgo_t algo;
    float ms;
} lt_saved;

enum { LT_MOST_ENTRIES = 1024, LT_CANDIDATES = 16 };

typedef struct lt_entry {
    lt_key key;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, d;
    cublasLtMatmulAlgo_t algo;
    unfinished left;
    bool usable; /* or nothing fits this shape */
    bool timed, remembered;
} lt_entry;

struct cuda_lt {
    const cuda_device *d;
    void *library;
    lt_calls call;
    cublasLtHandle_t handle;
    size_t version;
    char path[1024], file[1024]; /* file: of choices, or "" */
    lt_choice choice;
    bool vector_scales, exact_sums;
    lt_entry *entry[LT_MOST_ENTRIES];
    int entries;
    lt_saved *saved; /* as read and added to; NULL: none */
    int saved_count, saved_room;
};

/* lt.c: runs it with one algorithm. */
cublasStatus_t wan_cuda_lt_run(cuda_lt *lt, const lt_entry *e, const product *p,
                               const cublasLtMatmulAlgo_t *algo, void *workspace);

/* lt_choose.c: sets e->algo to one of the candidates, in the library's order. */
void wan_cuda_lt_pick(cuda_lt *lt, lt_entry *e, const product *p, void *workspace,
                      const cublasLtMatmulHeuristicResult_t *found, int count);

/* lt_table.c: the file of choices.  One that is damaged counts as empty. */
void wan_cuda_lt_table_open(cuda_lt *lt, const char *device_name);
const lt_saved *wan_cuda_lt_table_find(const cuda_lt *lt, const lt_key *key);
/* Adds or replaces, and writes the file; that it cannot be written is no error. */
void wan_cuda_lt_table_add(cuda_lt *lt, const lt_saved *s);

#endif
