#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# check_arm.sh [ARGS...] - builds wan-check for AArch64 and runs it under qemu-user: with ARGS, or
# every check with plain NEON and those that further instructions serve with them, minutes in all;
# the last line is "N passed, N failed" then.  Status 77: the cross compiler or qemu cannot be had here.
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

# wan_check PROCESSOR ARGS...
wan_check() {
    processor=$1
    shift
    qemu-aarch64 -cpu "$processor" -L /usr/aarch64-linux-gnu "$build/tests/kernels/wan-check" "$@"
}

if [ $# -gt 0 ]; then
    wan_check max "$@"
    exit
fi

passed=0
failed=0

# counted PROCESSOR ARGS...: a run that does not end with its counts is one failure
counted() {
    wan_check "$@" > "$log" 2>&1
    grep -v 'not on this machine$' "$log" | sed '$d'
    last=$(tail -n 1 "$log")
    echo "$*: $last"
    case $last in
    [0-9]*' passed, '[0-9]*' failed')
        passed=$((passed + ${last%% *}))
        last=${last#*, }
        failed=$((failed + ${last%% *}))
        ;;
    *) failed=$((failed + 1)) ;;
    esac
}

counted cortex-a53 --isa neon --filter tile
counted max --isa neon
for set in neondot neoni8mm; do
    counted max --isa $set --filter int8
    counted max --isa $set --precision int8 --filter linear
done
counted max --isa neonbf16 --filter bf16
for op in linear attention conv2d conv3d; do
    counted max --isa neonbf16 --precision bf16 --filter $op
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
