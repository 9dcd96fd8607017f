#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# gpu_clips.sh [PRECISION...] - the demo model's clips on a GPU, each judged by what it shows, in bf16, fp8 and f32
# unless told otherwise.  $WAN_BIN is the folder of `wan` (default .gpu), $WAN_CLIPS that of run_prompts.py, check_clip.py,
# prompts.txt and first_frames/ (default $WAN_BIN/clips).  TYPES="q8_0 q4_k_m" converts models/demo first; EXTRA are more
# arguments for wan; LIMIT=N takes only the first N.  Clips go to $WORK, what was said of each to $OUT.
set -u
cd "$(dirname "$0")/.." || exit 1
bin=$(cd "${WAN_BIN:-.gpu}" && pwd) || exit 1
clips=${WAN_CLIPS:-$bin/clips}
[ ! -d "$bin/lib" ] || export LD_LIBRARY_PATH="$bin/lib"
work=${WORK:-$(mktemp -d)}
out=${OUT:-$work}
mkdir -p "$work" "$out"
[ $# -gt 0 ] || set -- bf16 fp8 f32

# judge NAME MODEL PRECISION ARGS...
judge() {
    name=$1 model=$2 precision=$3
    shift 3
    # shellcheck disable=SC2086
    tools/python.sh "$clips/run_prompts.py" --wan "$bin/wan" --model "$model" --out "$work/$name" --report "$out/$name.json" \
        ${LIMIT:+--limit $LIMIT} "$@" -- --device "${WAN_DEVICE:-cuda}" --precision "$precision" -q ${EXTRA:-} \
        > "$out/$name.txt" 2>&1
}

for type in ${TYPES:-q8_0}; do
    model=models/demo
    if [ "$type" != q8_0 ]; then
        model=$work/demo-$type.gguf
        cp models/demo/defaults.json "$work/"
        [ -f "$model" ] || "$bin/wan" convert models/demo "$model" --type "$type" -q || continue
    fi
    for precision in "$@"; do # precisions share the GPU
        (
            judge "$type-$precision" "$model" "$precision" --prompts "$clips/prompts.txt"
            judge "$type-$precision-picture" "$model" "$precision" --image-list "$clips/first_frames"
        ) &
    done
    wait
    for precision in "$@"; do
        for name in "$type-$precision" "$type-$precision-picture"; do
            printf '%-24s %s\n' "$name" "$(tail -n 2 "$out/$name.txt" | tr '\n' ' ')"
        done
    done
done
