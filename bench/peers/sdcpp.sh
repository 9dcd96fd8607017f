#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sdcpp.sh [--build-only] [--no-default] [--no-fast] [options of sdcpp.py]
# stable-diffusion.cpp beside `wan` on this machine's CPU, on the same full-size files with random weights, one after the
# other; one table of CPU seconds for each stage and peak memory.  `sdcpp.sh --help` has the other options.
# The peer is built from its PyPI source package, once with default options and once with its fastest ones
# (GGML_LLAMAFILE), which takes minutes and needs cmake, ninja and a C++ compiler.  Where they are built already:
#   SDCPP=sd-cli SDCPP_FAST=sd-cli-fast sdcpp.sh ...
# $CACHE (default ~/.cache) gets the build and the files (14 GB); $WAN is the program (default build/wan); $OUT, if set, the
# logs.  $SDCPP_CMAKE are more options for cmake, for a build that runs elsewhere say:
#   -DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_AVX512=ON -DCMAKE_EXE_LINKER_FLAGS=-static
#   -DOpenMP_gomp_LIBRARY=$(gcc -print-file-name=libgomp.a)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
version=0.4.7
cache=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}}
work=$cache/wan-peers/sdcpp-$version
default=1 fast=1 build_only=0
while [ $# -gt 0 ]; do
    case $1 in
    --build-only) build_only=1 ;;
    --no-default) default=0 ;;
    --no-fast) fast=0 ;;
    *) break ;;
    esac
    shift
done

# The source lies inside the package.
fetch() {
    [ ! -d "$work/source" ] || return 0
    mkdir -p "$work/package"
    python3 -m pip download -q --no-deps --no-binary stable-diffusion-cpp-python -d "$work/package" \
        "stable-diffusion-cpp-python==$version" >&2
    tar -xzf "$work"/package/stable_diffusion_cpp_python-$version.tar.gz -C "$work/package"
    mv "$work/package/stable_diffusion_cpp_python-$version/vendor/stable-diffusion.cpp" "$work/source"
}

# build NAME OPTIONS...: $work/NAME.  Both share a build folder, for all but ggml's CPU files are the same.
build() {
    name=$1
    shift
    if [ ! -x "$work/$name" ]; then
        fetch
        echo "building $name; the log is $work/$name.log" >&2
        # shellcheck disable=SC2086
        { cmake -G Ninja -DCMAKE_BUILD_TYPE=Release "$@" ${SDCPP_CMAKE:-} -S "$work/source" -B "$work/build" &&
            nice -n 15 ninja -C "$work/build" ${JOBS:+-j "$JOBS"} sd-cli; } > "$work/$name.log" 2>&1 ||
            { tail -n 5 "$work/$name.log" >&2; exit 1; }
        cp "$work/build/bin/sd-cli" "$work/$name.new"
        mv "$work/$name.new" "$work/$name"
    fi
}

case " $* " in *" --help "* | *" -h "*) exec python3 "$here/sdcpp.py" --help ;; esac
if [ $default = 1 ] && [ -z "${SDCPP:-}" ]; then
    build sd-cli-default -DGGML_LLAMAFILE=OFF
    SDCPP=$work/sd-cli-default
fi
if [ $fast = 1 ] && [ -z "${SDCPP_FAST:-}" ]; then
    build sd-cli-fast -DGGML_LLAMAFILE=ON
    SDCPP_FAST=$work/sd-cli-fast
fi
[ $default = 1 ] || SDCPP=
[ $fast = 1 ] || SDCPP_FAST=
if [ $build_only = 1 ]; then
    echo "$SDCPP" "$SDCPP_FAST"
    exit
fi
exec python3 "$here/sdcpp.py" --default "$SDCPP" --fast "$SDCPP_FAST" --wan "${WAN:-$here/../../build/wan}" --cache "$cache" \
    ${OUT:+--logs "$OUT"} "$@"
