#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# check_gpu.sh [PRECISION...] - checks `wan` on a GPU, in f32 and bf16 unless told otherwise: every op
# against plain references, the goldens, the model's own references, the demo clip.  $WAN_BIN is the
# folder of the programs (default build; tools/gpu_bundle.sh makes one that can be carried), $WAN_DEVICE
# the device (default cuda).  The last line is "N passed, N failed, N skipped".
set -u
cd "$(dirname "$0")/.." || exit 1
bin=$(cd "${WAN_BIN:-build}" 2> /dev/null && pwd) || { echo "check_gpu: ${WAN_BIN:-build} is no folder"; exit 1; }
device=${WAN_DEVICE:-cuda}
check=$bin/wan-check
[ -x "$check" ] || check=$bin/tests/kernels/wan-check
[ ! -d "$bin/lib" ] || export LD_LIBRARY_PATH="$bin/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
[ $# -gt 0 ] || set -- f32 bf16
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT

passed=0
failed=0
skipped=0

# verdict NAME STATUS: counts, prints the end of the log of what failed
verdict() {
    case $2 in
    0) passed=$((passed + 1)); result=pass ;;
    77) skipped=$((skipped + 1)); result=skip ;;
    *) failed=$((failed + 1)); result=FAIL ;;
    esac
    echo "$result  $1  $(tail -n 1 "$scratch/log")"
    [ "$result" != FAIL ] || grep -v '^pass' "$scratch/log" | tail -n 30 | sed 's/^/      /'
}

# step NAME COMMAND...
step() {
    name=$1
    shift
    status=0
    "$@" > "$scratch/log" 2>&1 < /dev/null || status=$?
    verdict "$name" $status
    return $status
}

finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
    exit
}

# golden PRECISION DIR MODEL KIND TIMES ARGS...
golden() {
    title="golden $2 $(basename "$3") $1"
    arguments="--device $device --precision $1 --tolerance $4 --times $5"
    from="tests/golden/$2 -m $3"
    shift 5
    # shellcheck disable=SC2086
    step "$title" tools/python.sh tests/golden/check_golden.py $from --wan "$bin/wan" $arguments "$@"
}

# shellcheck disable=SC2317
# The same clip twice, from the GPU and from the CPU in f32; how far apart they may be by the precision.
clip() {
    least=20
    [ "$1" != f32 ] || least=40
    "$bin/wan" quality "$scratch/$1.safetensors" "$scratch/cpu.safetensors" --each none --min-psnr "$least"
}

# shellcheck disable=SC2317
generate() {
    "$bin/wan" generate -p "a red star moving left on a blue background" --seed 1 -y -q "$@"
}

for precision in "$@"; do
    step "ops $precision" "$check" --device "$device" --precision "$precision"
    if [ $? = 77 ]; then
        echo "check_gpu: there is no GPU here: nothing else was tried"
        finish
    fi
done
for precision in "$@"; do
    # The random models' weights are exact in every layout, the demo's are rounded to 8 bits.  Another
    # order of sums moves f32 a little.  The manifest's bf16 has operands of products rounded, a GPU what
    # lies between ops, too: twice as many roundings.  Its 8-bit operands are of another kind than fp8's.
    case $precision in
    f32) exact=f32 times=10 rounded=1 ;;
    bf16) exact=bf16 times=2 rounded=1 ;;
    *) exact=q8 times=2 rounded=2 ;;
    esac
    for model in tiny-a tiny-b; do
        golden "$precision" $model "tests/golden/$model/model" $exact $times
        golden "$precision" $model "tests/golden/$model/gguf" $exact $times --stage text --stage dit
    done
    golden "$precision" demo models/demo q8 $rounded
    step "selftest $precision" "$bin/wan" selftest -m models/demo --device "$device" --precision "$precision"
done
step "demo clip, CPU" generate --device cpu -o "$scratch/cpu.safetensors"
for precision in "$@"; do
    step "demo clip, $precision" generate --device "$device" --precision "$precision" -o "$scratch/$precision.safetensors" &&
        step "demo clip, $precision and the CPU's" clip "$precision"
done
step "demo clip as MP4" generate --device "$device" -o "$scratch/demo.mp4" && step "its size" test -s "$scratch/demo.mp4"
finish
