#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# setup.sh build|check|fuzz|arm - installs what a build, or the tests, need and this machine does not
# have. Looks for commands, pkg-config modules and Python modules, not for packages, so anything
# that provides them will do. Installs with apt-get as root or through sudo; where neither works it
# says what is missing and exits with 1.
set -eu
goal=${1:-build}
here=$(cd "$(dirname "$0")" && pwd)

# what for | kind | name | Debian package
needs='
build command make make
build command cc gcc
build command c++ g++
build header assert.h libc6-dev
build command cmake cmake
build command ninja ninja-build
build command pkg-config pkg-config
build module jansson libjansson-dev
build module sentencepiece libsentencepiece-dev
build module libutf8proc libutf8proc-dev
build module libavformat libavformat-dev
build module libavcodec libavcodec-dev
build module libswscale libswscale-dev
build module libswresample libswresample-dev
build module libavutil libavutil-dev
check module cmocka libcmocka-dev
check command nm binutils
check command python3 python3
check numpy numpy python3-numpy
fuzz command clang clang
fuzz command llvm-symbolizer llvm
arm command aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
arm arm-header assert.h libc6-dev-arm64-cross
arm command qemu-aarch64 qemu-user
'

present() {
    case $1 in
    command) command -v "$2" > /dev/null 2>&1 ;;
    header) echo "#include <$2>" | cc -E -o /dev/null - 2> /dev/null ;;
    arm-header) echo "#include <$2>" | aarch64-linux-gnu-gcc -E -o /dev/null - 2> /dev/null ;;
    module) pkg-config --exists "$2" 2> /dev/null ;;
    numpy) "$here/python.sh" -c 'import numpy' > /dev/null 2>&1 ;;
    esac
}

wanted() {
    [ "$1" = build ] || [ "$1" = "$goal" ] || { [ "$goal" = fuzz ] && [ "$1" = check ]; }
}

missing() {
    echo "$needs" | while read -r what kind name package; do
        if [ -n "$what" ] && wanted "$what" && ! present "$kind" "$name"; then
            printf '%s ' "$package"
        fi
    done
}

packages=$(missing)
[ -n "$packages" ] || exit 0

as_root=
if [ "$(id -u)" != 0 ]; then
    as_root=sudo
    # Without a terminal sudo must not ask for a password.
    [ -t 0 ] || as_root='sudo -n'
fi
if ! command -v apt-get > /dev/null 2>&1 || { [ -n "$as_root" ] && ! $as_root true 2> /dev/null; }; then
    echo "wan: this machine lacks (by the names of Debian's packages): $packages" >&2
    echo "wan: install them, for instance with: apt-get install $packages" >&2
    exit 1
fi
echo "wan: installing $packages"
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -q < /dev/null
# shellcheck disable=SC2086
$as_root apt-get install -q -y --no-install-recommends $packages < /dev/null
packages=$(missing)
if [ -n "$packages" ]; then
    echo "wan: apt-get said yes, but these are still not usable: $packages" >&2
    exit 1
fi
