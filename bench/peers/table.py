#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One table from what diffusers_ti2v.py and `wan bench --json` wrote; names that no file has are passed over."""
import json
import os
import sys

STAGES = ("text", "encode", "dit", "decode")


def row(path):
    """(name, stage -> seconds, together, load)"""
    with open(path, encoding="utf-8") as f:
        text = f.read()
    if os.path.basename(path).startswith("peer-"):
        d = json.loads(text)
        return d["name"], d["seconds"], d["seconds"]["together"], d["load"]
    d = json.loads(text.strip().splitlines()[-1])      # the result is the last event
    seconds = {s["name"]: s["seconds"] for s in d["stages"]}
    return "wan, " + os.path.basename(path)[4:-5], seconds, d["job_seconds"], d["load_seconds"]


def main():
    rows = [row(p) for p in sys.argv[1:] if os.path.exists(p)]
    if not rows:
        sys.exit("nothing ran")
    print(f"{'':<24}" + "".join(f"{s:>10}" for s in (*STAGES, "together", "load")) + "     against the first")
    for name, seconds, together, load in rows:
        print(f"{name:<24}" + "".join(f"{seconds.get(s, float('nan')):10.4f}" for s in STAGES) +
              f"{together:10.4f}{load:10.1f}     {rows[0][2] / together:.2f}x")


if __name__ == "__main__":
    main()
