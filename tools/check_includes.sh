#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# check_includes.sh [SRC] - includes point one way: cli -> media, pipeline -> model, sample, text ->
# weights -> io -> tensor -> base.  Only backend/backend.h, the interface, is open to folders above;
# what lies in a backend's own folder is named by itself and by registry.c alone.
set -eu
cd "${1:-$(dirname "$0")/../src}"

grep -rn --include='*.c' --include='*.h' --include='*.cc' --include='*.cu' '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' . | awk '
BEGIN {
    may["base"] = ""
    may["tensor"] = "base interface"
    may["backend"] = "tensor base"
    may["io"] = "tensor base"
    may["weights"] = "io tensor base interface"
    may["text"] = "weights io tensor base"
    may["sample"] = "base"
    may["model"] = "text weights io tensor base interface"
    may["media"] = "io base"
    may["pipeline"] = "model sample text weights io tensor base interface"
    may["server"] = "media pipeline io base"
    may["cli"] = "media pipeline io base"
}
{
    # ./folder/file.c:12:#include "folder/other.h"
    split($0, at, ":")
    from = substr(at[1], 3)
    folder = from
    sub("/.*", "", folder)
    match($0, /"[^"]*"/)
    what = substr($0, RSTART + 1, RLENGTH - 2)
    target = what
    sub("/.*", "", target)
    if (what == "wan.h")
        next
    if (!(folder in may)) {
        complain("is in a folder that tools/check_includes.sh does not know")
        next
    }
    if (index(what, "/") == 0) {
        complain("names no folder")
        next
    }
    # A backend folder: its own files, the interface and what lies below.
    if (what ~ /^backend\/.*\//) {
        split(from, mine, "/")
        split(what, theirs, "/")
        if (from != "backend/registry.c" && (folder != "backend" || mine[2] != theirs[2]))
            complain("names a backend; only backend/registry.c may")
        next
    }
    if (target == folder)
        next
    if (target == "backend")
        target = what == "backend/backend.h" ? "interface" : "backend"
    if (index(" " may[folder] " ", " " target " ") == 0)
        complain("points the wrong way: " folder " may include from" (may[folder] == "" ? " nowhere else" : " " may[folder]))
}
function complain(why) {
    print "src/" from ":" at[2] ": \"" what "\" " why
    bad = 1
}
END { exit bad }'
