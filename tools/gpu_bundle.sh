#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# gpu_bundle.sh [FOLDER] - everything that a machine with a GPU needs to run and check `wan`, built on
# one without: FOLDER (default .gpu, ignored by git) gets wan, wan-check, libwan-cuda.so; in lib/ the
# shared libraries that a bare Ubuntu 24.04 lacks; in clips/ what judges the demo clips; in peer/ as much
# of diffusers as bench/peers needs; and bundle.tar.xz, all of that and *_test in one small file:
#     tar -xJf .gpu/bundle.tar.xz -C .gpu && WAN_BIN=.gpu tools/check_gpu.sh
# $WAN_SKIP_BUILD=1 packs the programs that are there.
#
# FFmpeg is the one that is hard to carry: Debian's libavcodec needs 60 MB of other libraries.  The
# same source is built once, in $WAN_CACHE (default /tmp/wan-ffmpeg), with only what src/media asks for:
# the libraries have the same names and symbol versions.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$root/.gpu}
cache=${WAN_CACHE:-/tmp/wan-ffmpeg}
build=${WAN_BUILD:-/tmp/wan-gpu-build}
jobs=${WAN_JOBS:-2}

# Debian's source package, through lists of our own: /etc/apt is left as it is.
fetch_ffmpeg() {
    mkdir -p "$cache/lists/partial" "$cache/parts" "$cache/deb"
    # The same places as this machine's, with sources.
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2> /dev/null |
        sed -n 's/^deb \(.*\)/deb \1\ndeb-src \1/p' > "$cache/parts/here.list"
    for list in /etc/apt/sources.list.d/*.sources; do
        [ ! -f "$list" ] || sed 's/^Types:.*/Types: deb deb-src/' "$list" > "$cache/parts/${list##*/}"
    done
    apt="-oDir::Etc::sourcelist=/dev/null -oDir::Etc::sourceparts=$cache/parts -oDir::State::Lists=$cache/lists"
    # shellcheck disable=SC2086
    (cd "$cache" && apt-get $apt -q update && apt-get $apt -q source --download-only ffmpeg &&
        cd deb && apt-get $apt -q download nasm libx264-dev) > "$cache/fetch.log" 2>&1 ||
        { tail -n 5 "$cache/fetch.log" >&2; exit 1; }
    for deb in "$cache"/deb/*.deb; do
        dpkg -x "$deb" "$cache/tools"
    done
    rm -rf "$cache/src"
    mkdir -p "$cache/src"
    tar -xf "$cache"/ffmpeg_*.orig.tar.xz -C "$cache/src" --strip-components 1
}

build_ffmpeg() {
    [ -f "$cache/src/configure" ] || fetch_ffmpeg
    # The header of libx264-dev with the library that is installed here.
    x264=$(ldconfig -p | sed -n 's/.*libx264\.so\.[0-9]* .*=> //p' | head -n 1)
    ln -sf "$x264" "$cache/tools/libx264.so"
    printf 'Name: x264\nDescription: as installed\nVersion: %s\nLibs: -L%s -lx264\nCflags: -I%s\n' "${x264##*.}" \
        "$cache/tools" "$cache/tools/usr/include" > "$cache/tools/x264.pc"
    cd "$cache/src"
    PKG_CONFIG_PATH=$cache/tools nice ./configure --prefix="$cache/out" \
        --x86asmexe="$cache/tools/usr/bin/nasm" --enable-shared --disable-static \
        --disable-debug --disable-everything --disable-programs --disable-doc --disable-network --disable-autodetect \
        --disable-avdevice --disable-avfilter --disable-postproc --enable-gpl --enable-libx264 --enable-zlib \
        --enable-encoder=libx264,png,gif --enable-decoder=h264,mpeg4,png,mjpeg,webp,vp8,vp9,gif,rawvideo \
        --enable-muxer=mp4,gif --enable-demuxer=mov,matroska,yuv4mpegpipe --enable-parser=h264,vp8,vp9,mpeg4video \
        --enable-protocol=file --enable-bsf=h264_mp4toannexb,extract_extradata > configure.log 2>&1 ||
        { tail -n 5 configure.log >&2; exit 1; }
    { nice make -j"$jobs" && make install; } > make.log 2>&1 || { tail -n 5 make.log >&2; exit 1; }
    cd "$root"
}

# Libraries of `wan` that a bare machine lacks; libc, libm and libstdc++ are there.
copy_libraries() {
    mkdir -p "$out/lib"
    rm -f "$out"/lib/*
    for lib in avformat avcodec swscale swresample avutil; do
        cp -L "$cache/out/lib/$(objdump -p "$cache/out/lib/lib$lib.so" | sed -n 's/ *SONAME *//p')" "$out/lib/"
    done
    LD_LIBRARY_PATH=$out/lib ldd "$out/wan" "$out/wan-check" | sed -n 's/^\s*\(\S*\) => \(\S*\) .*/\1 \2/p' | sort -u |
        while read -r name path; do
            case $name in
            libc.so* | libm.so* | libstdc++.so* | libgcc_s.so* | libdl.so* | libpthread.so* | ld-linux*) ;;
            *) [ -f "$out/lib/$name" ] || cp -L "$path" "$out/lib/$name" ;;
            esac
        done
    chmod u+w "$out"/lib/*
    strip --strip-unneeded "$out"/lib/*
}

build_wan() {
    nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
    # The plug-in for Hopper only: a fifth of the bytes and of the time.
    cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CUDA_COMPILER="$nvcc" \
        -DWAN_CUDA=ON -DWAN_CUDA_ARCHS=90a-real > "$build.log" 2>&1 || { tail -n 5 "$build.log" >&2; exit 1; }
    # shellcheck disable=SC2086
    nice ninja -j"$jobs" -C "$build" wan wan-check ${WAN_TARGETS-wan_cuda} >> "$build.log" 2>&1 ||
        { tail -n 30 "$build.log" >&2; exit 1; }
    mkdir -p "$out"
    for file in wan libwan-cuda.so tests/kernels/wan-check; do
        if [ -f "$build/$file" ]; then
            cp "$build/$file" "$out/"
            strip --strip-unneeded "$out/${file##*/}"
        fi
    done
}

# Pipelines and the rest are 90 % of diffusers; its modules are imported one by one.
copy_peer() {
    if [ ! -d "$cache/peer" ]; then
        python3 -m pip download -q --no-deps --only-binary=:all: -d "$cache/wheel" diffusers==0.42.1 || return 0
        mkdir -p "$cache/peer"
        python3 -m zipfile -e "$cache"/wheel/diffusers-*.whl "$cache/peer"
        for part in pipelines modular_pipelines experimental commands; do
            rm -rf "$cache/peer/diffusers/$part"
        done
    fi
    rm -rf "$out/peer"
    cp -r "$cache/peer" "$out/peer"
}

copy_clips() {
    tools=${WAN_SHARED:-$root/../shared}/tools
    [ -f "$tools/run_prompts.py" ] || return 0
    rm -rf "$out/clips"
    mkdir -p "$out/clips"
    cp -r "$tools/run_prompts.py" "$tools/check_clip.py" "$tools/prompts.txt" "$tools/first_frames" "$out/clips/"
    chmod -R u+w "$out/clips"
}

pack() {
    cd "$out"
    rm -f bundle.tar.xz
    # shellcheck disable=SC2046
    tar -cf - $(ls -d wan wan-check libwan-cuda.so lib clips peer ./*_test 2> /dev/null) | nice xz -6 -T2 > bundle.tar.xz
    du -shc wan wan-check libwan-cuda.so lib clips peer ./*_test 2> /dev/null || true
    ls -l bundle.tar.xz
}

[ -f "$cache/out/lib/libavformat.so" ] || build_ffmpeg
[ "${WAN_SKIP_BUILD:-0}" = 1 ] || build_wan
copy_libraries
copy_peer
copy_clips
pack
