#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds .gpu/attention_test for Hopper.
cd "$(dirname "$0")/../.." && mkdir -p .gpu && exec nvcc -std=c++17 -O3 -diag-suppress 177 \
    -gencode arch=compute_90a,code=sm_90a -cudart static -Xptxas -v -Xlinker -s -Iinclude -Isrc \
    tests/cuda/attention_test.cu src/backend/cuda/attention.cu src/backend/cuda/attention_wide.cu \
    -o .gpu/attention_test "$@"
