#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# check_licence.sh - every source file says in its first five lines under which licence it is.
set -u
cd "$(dirname "$0")/.." || exit 1
bad=0
for file in $(find CMakeLists.txt Makefile .ci cmake include src tests tools bench examples -type f \
    \( -name '*.[chS]' -o -name '*.cc' -o -name '*.cpp' -o -name '*.cu' -o -name '*.py' -o -name '*.sh' -o -name '*.cmake' \
    -o -name CMakeLists.txt -o -name Makefile -o -path '.ci/run' \) ! -path '*/__pycache__/*' | sort); do
    if ! head -n 5 "$file" | grep -q 'SPDX-License-Identifier: Apache-2\.0'; then
        echo "$file has no SPDX-License-Identifier: Apache-2.0"
        bad=1
    fi
done
exit $bad
