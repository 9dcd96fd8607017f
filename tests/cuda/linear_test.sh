#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds .gpu/linear_test for Hopper.
cd "$(dirname "$0")/../.." && mkdir -p .gpu/linear || exit 1
backend=src/backend/cuda
for f in $backend/lt.c $backend/lt_choose.c $backend/lt_table.c src/base/error.c src/tensor/tensor.c; do
    gcc -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -isystem /usr/local/cuda/include -Iinclude -Isrc \
        -c $f -o .gpu/linear/$(basename $f .c).o || exit 1
done
for f in $backend/linear.cu $backend/gemm.cu $backend/gemv.cu $backend/fp8.cu $backend/unpack.cu \
    tests/cuda/linear_test.cu; do
    o=.gpu/linear/$(basename $f .cu).cu.o
    [ "$o" -nt "$f" ] || nvcc -std=c++17 -O3 -gencode arch=compute_90a,code=sm_90a -Iinclude -Isrc \
        -c $f -o $o || exit 1
done
exec nvcc -cudart static -Xlinker -s .gpu/linear/*.o -o .gpu/linear_test -ldl
