#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh [RUNS [NAME...]] - libFuzzer on every target, or the named ones, RUNS inputs each (default
# ten million), under ASan and UBSan.  New inputs of interest stay in build-fuzz/corpus/NAME; a
# crash leaves its input in build-fuzz.
set -eu
cd "$(dirname "$0")/../.."
runs=${1:-10000000}
[ $# -eq 0 ] || shift
tools/setup.sh fuzz
cmake --preset fuzz
cmake --build --preset fuzz
names=$*
if [ -z "$names" ]; then
    for program in build-fuzz/tests/fuzz/fuzz_*; do
        [ ! -f "$program" ] || [ ! -x "$program" ] || names="$names ${program##*/fuzz_}"
    done
fi
for name in $names; do
    echo "== $name, $runs inputs"
    mkdir -p "build-fuzz/corpus/$name"
    words=
    [ ! -f "tests/fuzz/$name.dict" ] || words="-dict=tests/fuzz/$name.dict"
    # shellcheck disable=SC2086
    ASAN_OPTIONS=allocator_may_return_null=1 "build-fuzz/tests/fuzz/fuzz_$name" -runs="$runs" -max_len=${max_len:-65536} $words \
        -artifact_prefix="build-fuzz/crash-$name-" -print_final_stats=1 "build-fuzz/corpus/$name" "tests/fuzz/corpus/$name"
done
