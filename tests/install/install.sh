#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# install.sh STEP BUILD SCRATCH - one test on a tree installed from BUILD; the step `tree` installs
# it.
set -eu
step=$1
build=$2
scratch=$3
source=$(cd "$(dirname "$0")/../.." && pwd)
# Moved after installing: nothing in it may remember where it was made.
made=$scratch/made
prefix=$scratch/moved/prefix

fail() {
    echo "$*" >&2
    exit 1
}

library() {
    dirname "$(find "$prefix" -name 'libwan.so.0' | head -n 1)"
}

# build and run the example; $1 is the program
try_example() {
    rm -f "$scratch/frame.ppm"
    LD_LIBRARY_PATH=$(library) "$1" "$source/models/demo" "a red star moving left on a blue background" "$scratch/frame.ppm"
    printf 'P6\n64 64\n255\n' | cmp -n 13 - "$scratch/frame.ppm" || fail "frame.ppm does not begin as a picture of 64 x 64"
    [ "$(wc -c < "$scratch/frame.ppm")" = 12301 ] || fail "frame.ppm has $(wc -c < "$scratch/frame.ppm") bytes, not 12301"
    # An error must come back as one: status 3, a sentence that names the file.
    if LD_LIBRARY_PATH=$(library) "$1" /nonexistent/model x "$scratch/no.ppm" 2> "$scratch/message"; then
        fail "a model that is not there was accepted"
    else
        status=$?
    fi
    [ $status = 3 ] || fail "a missing model gives status $status, not 3"
    grep -q /nonexistent/model "$scratch/message" || fail "the message does not name the model: $(cat "$scratch/message")"
}

case $step in
tree)
    rm -rf "$scratch/made" "$scratch/moved"
    mkdir -p "$scratch/moved"
    DESTDIR='' cmake --install "$build" --prefix "$made" > "$scratch/install.log"
    mv "$made" "$prefix"
    for file in bin/wan include/wan.h share/man/man1/wan.1 share/wan/models/demo/wan-demo.gguf; do
        [ -s "$prefix/$file" ] || fail "$file was not installed"
    done
    [ -n "$(library)" ] || fail "libwan.so.0 was not installed"
    ;;
symbols)
    sed -n 's/^WAN_API.*[ *]\(wan_[a-z0-9_]*\)(.*/\1/p' "$source/include/wan.h" | sort > "$scratch/declared"
    nm -D --defined-only "$(library)/libwan.so.0" | sed 's/.* //' | sort > "$scratch/exported"
    [ "$(wc -l < "$scratch/declared")" -ge 8 ] || fail "found only $(wc -l < "$scratch/declared") calls in wan.h"
    diff "$scratch/declared" "$scratch/exported" || fail "wan.h (<) and libwan.so (>) differ"
    ;;
pkg-config)
    PKG_CONFIG_PATH=$(library)/pkgconfig
    export PKG_CONFIG_PATH
    version=$(sed -n 's/^#define WAN_VERSION "\(.*\)"/\1/p' "$source/include/wan.h")
    [ "$(pkg-config --modversion wan)" = "$version" ] || fail "wan.pc and wan.h name different versions"
    # shellcheck disable=SC2046
    "${CC:-cc}" -std=c11 -Wall -Wextra -Wpedantic -Werror ${WAN_SANITIZE:+-fsanitize=$WAN_SANITIZE} \
        "$source/examples/simple.c" -o "$scratch/simple-pc" $(pkg-config --cflags --libs wan)
    try_example "$scratch/simple-pc"
    ;;
find-package)
    rm -rf "$scratch/example"
    cmake -S "$source/examples" -B "$scratch/example" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="${CC:-cc}" \
        ${WAN_SANITIZE:+-DCMAKE_C_FLAGS=-fsanitize=$WAN_SANITIZE} > "$scratch/example.log" || {
        cat "$scratch/example.log"
        fail "find_package(wan) failed"
    }
    cmake --build "$scratch/example" >> "$scratch/example.log" || {
        cat "$scratch/example.log"
        fail "the example does not build"
    }
    grep -q "$prefix" "$scratch/example/CMakeCache.txt" || fail "another wan was found"
    try_example "$scratch/example/simple"
    ;;
program)
    version=$(sed -n 's/^#define WAN_VERSION "\(.*\)"/\1/p' "$source/include/wan.h")
    "$prefix/bin/wan" --version | grep -qF "$version" || fail "wan --version does not say $version"
    # From another folder, so that the demo model must be the installed one.
    cd "$scratch"
    "$prefix/bin/wan" generate -p "a blue ring rising on a white background" --size 64x64 --frames 5 --steps 2 --dry-run \
        > "$scratch/dry-run" 2>&1 || {
        cat "$scratch/dry-run"
        fail "the installed wan does not find its demo model"
    }
    ;;
man-page)
    # Each option of the program is in the manual, and no other.
    for command in $("$prefix/bin/wan" help | sed -n 's/^  \([a-z]*\)  *[a-z].*/\1/p' | grep -vx -e help -e wan); do
        "$prefix/bin/wan" $command --help
    done | grep -o -- '--[a-z][a-z-]*' | sort -u > "$scratch/options"
    [ "$(wc -l < "$scratch/options")" -ge 20 ] || fail "wan --help names only $(wc -l < "$scratch/options") options"
    sed 's/\\-/-/g' "$prefix/share/man/man1/wan.1" | grep -o -- '--[a-z][a-z-]*' | sort -u | grep -vx -- --version > "$scratch/manual"
    grep -vx -- --version "$scratch/options" | diff - "$scratch/manual" || fail "wan --help (<) and wan.1 (>) differ"
    ;;
*)
    fail "unknown step $step"
    ;;
esac
