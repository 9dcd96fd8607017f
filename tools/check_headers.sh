#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# check_headers.sh - each header compiles by itself, without a warning: C11 for all, and C++17 for
# wan.h.
set -u
cd "$(dirname "$0")/.." || exit 1
flags="-Iinclude -Isrc -D_GNU_SOURCE -Wall -Wextra -Wshadow -Wpedantic -Wundef -Werror -fsyntax-only"
flags="$flags $(pkg-config --cflags jansson libavformat libavcodec libswscale libavutil)"
# The CUDA backend's own headers need CUDA's.
cuda=${CUDA_HOME:-/usr/local/cuda}/include
without=
if [ -f "$cuda/cuda_runtime.h" ]; then
    flags="$flags -isystem $cuda"
else
    without="! -path src/backend/cuda/*"
fi
bad=0
faults=$(mktemp)
trap 'rm -f "$faults"' EXIT
# kernels_*.h are parts of the vector kernel files, which define the vector type first.
# shellcheck disable=SC2086
for header in $(set -f; find include src -name '*.h' ! -name 'kernels_*.h' $without | sort); do
    # shellcheck disable=SC2086
    echo "#include \"${header#*/}\"" | ${CC:-cc} -std=c11 -Wstrict-prototypes $flags -x c - 2> "$faults" || {
        head -n 10 "$faults"
        echo "$header does not compile by itself"
        bad=1
    }
done
# shellcheck disable=SC2086
echo '#include "wan.h"' | ${CXX:-c++} -std=c++17 $flags -x c++ - || {
    echo "include/wan.h does not compile as C++"
    bad=1
}
exit $bad
