#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The include check must find each kind of fault: one source tree with every fault in it, and one
# without.
set -eu
check=$(cd "$(dirname "$0")/../.." && pwd)/tools/check_includes.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/base" "$work/tensor" "$work/model" "$work/cli" "$work/backend/cpu" "$work/backend/dry" "$work/odd"
bad=0

# line FILE INCLUDE good|bad
line() {
    rm -f "$work"/*/*.c "$work"/*/*/*.c
    echo "#include \"$2\"" > "$work/$1"
    if "$check" "$work" > "$work/out"; then found=good; else found=bad; fi
    if [ "$found" != "$3" ]; then
        echo "$1 with #include \"$2\" should be $3, is $found"
        cat "$work/out"
        bad=1
    fi
}

line base/a.c tensor/tensor.h bad
line base/a.c base/error.h good
line base/a.c wan.h good
line tensor/a.c backend/backend.h good
line tensor/a.c backend/cpu/cpu.h bad
line tensor/a.c io/gguf.h bad
line model/a.c backend/cpu/kernels.h bad
line model/a.c pipeline/job.h bad
line model/a.c weights/bind.h good
line model/a.c sibling.h bad
line cli/a.c pipeline/job.h good
line cli/a.c model/dit.h bad
line cli/a.c backend/backend.h bad
line backend/registry.c backend/cpu/cpu.h good
line backend/other.c backend/cpu/cpu.h bad
line backend/cpu/a.c backend/cpu/kernels.h good
line backend/cpu/a.c backend/backend.h good
line backend/cpu/a.c backend/dry/dry.h bad
line backend/cpu/a.c weights/bind.h bad
line odd/a.c base/error.h bad
exit $bad
