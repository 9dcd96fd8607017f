#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Picks from golden files (tools/golden/make_golden.py) what `wan selftest` compares with: one small file per stage.

    make_selftest.py GOLDEN_DIR OUT_DIR

Traces are left out, so that the files stay small.  Needs numpy alone.
"""
import json
import os
import sys

import numpy as np

TYPES = {"F32": "<f4", "I32": "<i4"}


def read(path):
    blob = open(path, "rb").read()
    n = int.from_bytes(blob[:8], "little")
    head = json.loads(blob[8:8 + n])
    meta = head.pop("__metadata__", {})
    out = {}
    for name, e in head.items():
        if e["dtype"] in TYPES:
            a, b = e["data_offsets"]
            out[name] = np.frombuffer(blob[8 + n + a:8 + n + b], TYPES[e["dtype"]]).reshape(e["shape"])
    return out, meta


def write(path, tensors, meta):
    head, data = {"__metadata__": meta}, b""
    for name, a in tensors.items():
        kind = next(k for k, v in TYPES.items() if np.dtype(v) == a.dtype)
        head[name] = {"dtype": kind, "shape": list(a.shape), "data_offsets": [len(data), len(data) + a.nbytes]}
        data += a.tobytes()
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text + data)


def main():
    golden, out = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    manifest = json.load(open(os.path.join(golden, "manifest.json")))
    cases = {c["name"]: c for c in manifest["cases"]}
    noise = next(c for c in cases if c.startswith("noise-1-"))
    wanted = [("tokens-entities", "tokens"), (noise, "noise"), ("text-short", "text"), ("encode-two", "encode"),
              ("dit-i2v", "dit"), ("sample-unipc-i2v-cfg", "sample"), ("decode-two", "decode")]
    for i, (name, stage) in enumerate(wanted):
        case = cases[name]
        tensors, _ = read(os.path.join(golden, case["file"]))
        results = {r["output"]: r for r in case["compare"]
                   if not r["output"].startswith(("block.", "latents.", "time", "context", "patch")) or r["output"] == "timesteps"}
        picked = {k: tensors[r["expected"]] for k, r in results.items() if r["metric"] != "max_abs"}
        inputs = {"text": ["ids", "mask"], "encode": ["pixels"], "dit": ["x", "timestep", "states"],
                  "sample": ["noise", "states", "negative", "first"], "decode": ["latents"]}.get(stage, [])
        picked |= {k: tensors[k] for k in inputs if k in tensors}
        args = case["args"]
        options = [a for j in range(2, len(args) - 1) if args[j] in (
            "-p", "--seed", "--shape", "--steps", "--shift", "--guidance", "--sampler") for a in args[j:j + 2]]
        write(os.path.join(out, f"{i + 1}-{stage}.safetensors"), picked, {
            "stage": stage, "case": name, "options": json.dumps(options, ensure_ascii=False),
            "tolerance": json.dumps({k: r["tolerance"] for k, r in results.items() if r["metric"] != "max_abs"})})


if __name__ == "__main__":
    main()
