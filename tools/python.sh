#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# python.sh ARGS... - runs a python3 that has numpy: the first on PATH may be one that apt-get does
# not install for.
for python in python3 /usr/bin/python3; do
    if "$python" -c 'import numpy' > /dev/null 2>&1; then
        exec "$python" "$@"
    fi
done
echo "wan: no python3 with numpy here; apt-get install python3-numpy" >&2
exit 127
