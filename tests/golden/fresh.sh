#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# fresh.sh [N [FIRST_SEED [WAN]]] - makes N new random models (default 3) and their goldens, and
# checks `wan` on them in every layout: nothing may depend on the models that are stored here.
# Needs torch and diffusers, see tools/golden/python.sh; about a minute a model.  Not part of `make
# check`.
set -eu
count=${1:-3}
first=${2:-$(date +%s)}
here=$(cd "$(dirname "$0")" && pwd)
wan=${3:-$here/../../build/wan}
python=$here/../../tools/golden/python.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

bad=0
seed=$first
while [ "$seed" -lt $((first + count)) ]; do
    model=$work/$seed
    "$python" "$here/../../tools/golden/make_golden.py" random --seed "$seed" --out "$model" --original --gguf
    for layout in diffusers original gguf; do
        echo "== random model $seed, $layout"
        "$python" "$here/check_golden.py" "$model" --wan "$wan" --layout "$layout" --tolerance f32 --threads 1 \
            > "$model/log" 2>&1 || {
            bad=$((bad + 1))
            grep -v '^pass' "$model/log"
        }
        tail -n 1 "$model/log"
    done
    rm -rf "$model"
    seed=$((seed + 1))
done
[ "$bad" = 0 ] || echo "fresh: $bad runs failed; repeat with: $0 $count $first"
[ "$bad" = 0 ]
