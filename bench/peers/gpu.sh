#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# gpu.sh [--size WxH] [--frames N] [--steps N] [--type TYPE] [--repeat N] [--no-compile] [--no-peer] [--precision P]
# The same image-to-video job of Wan2.2 TI2V-5B with full-size random weights, by diffusers (eager, then its
# transformer compiled) and by `wan`, one after the other on this machine's GPU; one table of seconds for each stage.
# $WAN_BIN is the folder of `wan` (default build), $PEER one that holds diffusers, $OUT where logs and JSON go.
# `wan` may store its weights as TYPE (default bf16, as diffusers has them); a comma makes a list of runs.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
bin=$(cd "${WAN_BIN:-$root/build}" && pwd)
out=${OUT:-$(mktemp -d)}
[ ! -d "$bin/lib" ] || libs=$bin/lib
size=480x480 frames=81 steps=4 types=bf16 repeat=3 compile=1 peer=1 precisions=bf16
while [ $# -gt 0 ]; do
    case $1 in
    --size) size=$2; shift ;;
    --frames) frames=$2; shift ;;
    --steps) steps=$2; shift ;;
    --type) types=$2; shift ;;
    --precision) precisions=$2; shift ;;
    --repeat) repeat=$2; shift ;;
    --no-compile) compile=0 ;;
    --no-peer) peer=0 ;;
    *) sed -n '3,4s/^# //p' "$0"; exit 2 ;;
    esac
    shift
done
mkdir -p "$out"
rm -f "$out"/peer-*.json "$out"/wan-*.json

diffusers() {
    # shellcheck disable=SC2086
    python3 "$root/bench/peers/diffusers_ti2v.py" --size "$size" --frames "$frames" --steps "$steps" --repeat "$repeat" \
        --json "$out/peer-$1.json" ${2:-} > "$out/peer-$1.log" 2>&1 ||
        { echo "diffusers, $1: failed"; tail -n 5 "$out/peer-$1.log"; }
}

# What is written first: weights of 20 GB in bf16, in the cache folder.
wan() {
    env ${libs:+LD_LIBRARY_PATH="$libs"} "$bin/wan" bench --synthetic ti2v-5b --type "$1" --size "$size" --frames "$frames" \
        --steps "$steps" --repeat "$repeat" --device "${WAN_DEVICE:-cuda}" --precision "$2" --json \
        > "$out/wan-$1-$2.json" 2> "$out/wan-$1-$2.log" ||
        { echo "wan, $1, $2: failed"; tail -n 5 "$out/wan-$1-$2.log"; rm -f "$out/wan-$1-$2.json"; }
}

if [ $peer = 1 ]; then
    diffusers eager
    [ $compile = 0 ] || diffusers compiled --compile
fi
for type in $(echo "$types" | tr , ' '); do
    for precision in $(echo "$precisions" | tr , ' '); do
        wan "$type" "$precision"
    done
done
nvidia-smi --query-gpu=name,clocks.sm,power.draw --format=csv,noheader 2> /dev/null || true
echo "$size, $frames frames, $steps steps; medians of $repeat, seconds"
exec python3 "$root/bench/peers/table.py" "$out"/peer-*.json "$out"/wan-*.json
