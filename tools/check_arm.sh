#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# check_arm.sh [ARGS...] - builds wan-check for AArch64 and runs it, with ARGS, under qemu-user on a
# processor that has every extension.  Status 77: the cross compiler or qemu cannot be had here.
set -u
cd "$(dirname "$0")/.." || exit 1
if ! tools/setup.sh arm; then
    echo "check-arm: skipped: no cross compiler for AArch64, or no qemu-user"
    exit 77
fi
build=${WAN_BUILD_ARM:-build-arm}
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
if ! cmake -G Ninja -B "$build" -S . --toolchain "$PWD/cmake/aarch64.cmake" -DWAN_CORE_ONLY=ON \
    -DWAN_CUDA=OFF -DWAN_WERROR=ON > "$log" 2>&1 || ! cmake --build "$build" >> "$log" 2>&1; then
    tail -n 40 "$log"
    echo "check-arm: the build failed"
    exit 1
fi
qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu "$build/tests/kernels/wan-check" "$@"
