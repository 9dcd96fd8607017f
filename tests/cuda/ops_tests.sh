#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds .gpu/{elementwise,unpack,conv}_test for Hopper, or for the architecture named first ("80").
cd "$(dirname "$0")/../.." || exit 1
arch=${1:-90a} out=.gpu/ops
mkdir -p $out
set -e
flags="-std=c++17 -O3 -diag-suppress 177 -gencode arch=compute_$arch,code=sm_$arch -Iinclude -Isrc"
for f in elementwise frames unpack pack conv conv_bf16 conv_f32; do
    test $out/$f.o -nt src/backend/cuda/$f.cu && test $out/$f.o -nt src/backend/cuda/vector.cuh &&
        test $out/$f.o -nt src/backend/cuda/gather.cuh &&
        test $out/$f.o -nt src/backend/cuda/decode.cuh && continue
    nvcc $flags -c src/backend/cuda/$f.cu -o $out/$f.o
done
for f in base/error tensor/tensor tensor/quants tensor/quants_k; do
    gcc -std=c11 -O2 -Iinclude -Isrc -c src/$f.c -o $out/$(basename $f).o
done
base="$out/tensor.o $out/error.o"
link="-cudart static -Xlinker -s"
nvcc $flags $link tests/cuda/elementwise_test.cu $out/elementwise.o $out/frames.o \
    $base -o .gpu/elementwise_test
nvcc $flags $link tests/cuda/unpack_test.cu $out/unpack.o $out/pack.o $out/quants.o \
    $out/quants_k.o $base -o .gpu/unpack_test
nvcc $flags $link tests/cuda/conv_test.cu $out/conv.o $out/conv_bf16.o $out/conv_f32.o $base \
    -o .gpu/conv_test
