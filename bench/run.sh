#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh [WAN [MODEL]] - the demo clip by `wan` and by diffusers, one after the other on this
# machine; see peers/diffusers_cpu.py.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
wan=${1:-$here/../build/wan}
model=${2:-$here/../../shared/models/demo}
if [ ! -d "$model/transformer" ]; then
    echo "bench: diffusers needs the demo model in its own layout; $model has none, so \`wan\` runs alone on models/demo"
    exec "$here/../tools/python.sh" "$here/peers/diffusers_cpu.py" --wan "$wan" --model "$here/../models/demo" --alone
fi
exec "$here/../tools/golden/python.sh" "$here/peers/diffusers_cpu.py" --wan "$wan" --model "$model"
