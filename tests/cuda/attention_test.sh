#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds .gpu/attention_test for Hopper, or $OUT.
cd "$(dirname "$0")/../.." && OUT=${OUT:-.gpu/attention_test} && mkdir -p "$(dirname "$OUT")" && exec nvcc -std=c++17 -O3 -diag-suppress 177 \
    -gencode arch=compute_90a,code=sm_90a -cudart static -Xptxas -v -Xlinker -s -Iinclude -Isrc \
    tests/cuda/attention_test.cu src/backend/cuda/attention.cu src/backend/cuda/attention_wide.cu \
    src/backend/cuda/attention_8bit_pack.cu -o "$OUT" "$@"
