#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# check.sh - builds everything and runs every test; the last line is "N passed, N failed" over all
# suites. A test of ctest counts once.  Unit tests, fuzzing corpora and goldens run a second time in
# the `dev` build, under ASan and UBSan.
set -u
cd "$(dirname "$0")/.." || exit 1
tools/setup.sh check || exit 1

passed=0
failed=0
skipped=

# attribute NAME FILE: of the <testsuite> element ctest wrote
attribute() {
    sed -n "s/^[[:space:]]*$1=\"\([0-9]*\)\".*/\1/p" "$2" | head -n 1
}

# suite PRESET ARGS...: configures, builds and tests; a build that fails counts as one failure
suite() {
    preset=$1
    shift
    echo "== $preset"
    # The CUDA plug-in, where nvcc is, for one architecture: all five take minutes.
    if ! cmake --preset "$preset" -DBUILD_TESTING=ON -DWAN_CUDA_ARCHS="${WAN_CUDA_ARCHS:-90a-real}" > "check-$preset.log" 2>&1 ||
        ! cmake --build --preset "$preset" >> "check-$preset.log" 2>&1; then
        tail -n 40 "check-$preset.log"
        echo "check: the $preset build failed"
        failed=$((failed + 1))
        return
    fi
    rm -f "check-$preset.log"
    report=$(mktemp)
    status=0
    ctest --preset "$preset" --output-junit "$report" "$@" < /dev/null || status=$?
    tests=$(attribute tests "$report")
    if [ "${tests:-0}" = 0 ]; then
        echo "check: ctest ran nothing in $preset"
        failed=$((failed + 1))
    else
        failures=$(attribute failures "$report")
        left_out=$(($(attribute skipped "$report") + $(attribute disabled "$report")))
        passed=$((passed + tests - failures - left_out))
        # What could not be started is not among the failures, but ctest says so by its status.
        [ "$status" = 0 ] || [ "$failures" != 0 ] || failures=1
        failed=$((failed + failures))
        [ "$left_out" = 0 ] || skipped="$skipped$(sed -n 's/.*\(skipped: .*\)/\1/p' "$report")
"
    fi
    rm -f "$report"
}

suite release
suite dev -R '^(unit|fuzz)\.|^golden\.tiny-.\.(diffusers|gguf)'
printf '%s' "$skipped"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
