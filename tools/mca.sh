#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What a model of a processor's pipelines makes of the AVX-512 kernels' inner loops, for processors
# that are not at hand: cycles of a pass, beside the passes of a loop that does nothing but multiply.
#   tools/mca.sh [MCPU] [LLVM-MCA]     znver4 and llvm-mca-19 if not said (Debian: llvm-19)
# LLVM 19 has two things of znver4 wrong, which are put right: VDPBF16PS and VPDPBUSD run at the rate
# of a multiply-add (measured by others, docs/speed.md), and a broadcast from memory is a load.
set -euo pipefail
cpu=${1:-znver4} mca=${2:-llvm-mca-19}
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

flags="-D_GNU_SOURCE -Iinclude -Isrc -std=c11 -O3 -fPIC -fvisibility=hidden -ffp-contract=off
    -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl"
for name in avx512 avx512bf16 avx512vnni; do
    own=-m$name
    [ $name != avx512 ] || own=
    # shellcheck disable=SC2086
    ${CC:-cc} $flags $own -S -o "$out/$name.s" "src/backend/cpu/kernels_$name.c"
done

# Of the loops of a function that hold no other, the one with most of an instruction.
loop() {
    awk -v function_="$2" -v wanted="$3" '
        /^[A-Za-z_][A-Za-z0-9_.]*:/ { inside = index($0, function_) == 1; delete at; next }
        !inside { next }
        /^\.L[A-Za-z0-9_]+:/ { sub(/:.*/, ""); at[$0] = n + 1; last = $0; next }
        /^\t[a-z]/ { line[++n] = $0 }
        /^\tj[a-z]+\t\.L[A-Za-z0-9_]+/ && $1 != "jmp" && ($2 in at) {
            count = nested = 0
            for (label in at)
                nested += at[label] > at[$2] && looped[label]
            for (i = at[$2]; i <= n; i++)
                count += index(line[i], "\t" wanted) == 1
            if (!nested && count > most) { most = count; from = at[$2]; to = n }
            looped[$2] = 1
        }
        END { for (i = from; i <= to && from; i++) print line[i] }' "$1"
}

corrected() {
    [ "$cpu" = znver4 ] || { cat; return; }
    sed -E 's/\tv(dpbf16ps|pdpbusd)\t/\tvfmadd231ps\t/
            s/\tv(pbroadcastd|broadcastss)\t([^%]*\()/\tvmovups\t\2/'
}

printf '%-34s %6s %6s %6s %6s %8s %8s\n' "$cpu" instr. prod. loads stack cycles share
while read -r name function_ product what; do
    body=$(loop "$out/$name.s" "$function_" "$product")
    [ -n "$body" ] || { echo "$what: no loop of $function_ has $product"; continue; }
    cycles=$(corrected <<<"$body" | "$mca" -mtriple=x86_64 -mcpu="$cpu" -iterations=400 |
        awk '/^Total Cycles/ { print $3 / 400 }')
    awk -v what="$what" -v product="$product" -v cycles="$cycles" '
        BEGIN { tile = what ~ /tile/ }
        { all++; products += index($0, "\t" product) == 1; stack += /\(%r[sb]p\)/
          loads += /\(.*%zmm[0-9]+$/ }
        END { printf "%-34s %6d %6s %6d %6d %8.1f %7s\n", what, all, tile ? products : "", loads, stack, cycles,
                     tile ? int(100 * products / cycles + 0.5) "%" : "" }' <<<"$body"
done <<'LIST'
avx512 gemm_tile vfmadd f32 tile, 12 x 32
avx512bf16 bf16_tile vdpbf16ps bf16 tile, 12 x 32, a pair
avx512vnni int8_tile vpdpbusd int8 tile, 6 x 32, a group
avx512 unpack_q8_0 vmulps unpack_q8_0, 32 weights
avx512bf16 to_bf16 vcvtneps2bf16 to_bf16, 16 numbers
avx512bf16 transpose_words vunpcklps pack_pairs, 8 x 8 pairs
avx512bf16 softmax_bf16 vscalefps softmax_bf16, 32 logits
avx512 gelu_tanh vdivps gelu_tanh, 16 numbers
LIST
