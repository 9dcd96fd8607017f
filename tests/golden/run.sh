#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh WAN DIR MODEL [ARGS...] - check_golden.py on DIR with MODEL; status 77 (skipped) where the
# model is absent.
set -eu
wan=$1
dir=$2
model=$3
shift 3
if [ ! -e "$model" ]; then
    echo "skipped: $model is not on this machine"
    exit 77
fi
exec ../../tools/python.sh check_golden.py "$dir" -m "$model" --wan "$wan" "$@"
