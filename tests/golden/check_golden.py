#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs `wan` on golden files and compares what it answers with what the reference answered.

    check_golden.py DIR [-m MODEL] [--wan build/wan] [--layout diffusers|original|gguf] [--stage dit ...] [--case turbo]

DIR was made by make_golden.py: DIR/golden/manifest.json lists the cases; the model is in DIR too unless -m says where.
Every case is one command, run in a scratch folder; its output file is compared tensor by tensor.  One line per case, a
last line "N passed, N failed", exit status 1 if anything failed.  A missing program, a crash, a time-out, a missing
tensor, a wrong shape or type and a NaN fail.

How closely is in the manifest, three times over: "f32" for float32 arithmetic, "bf16" for matrix products on bfloat16
inputs, "q8" for matrix products on 8-bit inputs.  The weights of the random models are exact in every layout; those of a
trained model lose a little as GGUF, which "q8" allows for.

Needs Python 3.8 and numpy, nothing else.
"""
import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1",
          "BOOL": "?"}


def read_safetensors(path):
    """name -> array.  8 bytes of header length, the header as JSON, then the data."""
    with open(path, "rb") as f:
        blob = f.read()
    n = int.from_bytes(blob[:8], "little")
    if len(blob) < 8 or n > len(blob) - 8:
        raise ValueError("not a safetensors file")
    out = {}
    for name, entry in json.loads(blob[8:8 + n]).items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in DTYPES:
            raise ValueError(f"{name} has type {entry['dtype']}, which no stage writes")
        begin, end = entry["data_offsets"]
        a = np.frombuffer(blob[8 + n + begin:8 + n + end], dtype=np.dtype(DTYPES[entry["dtype"]]))
        out[name] = a.reshape(entry["shape"])
    return out


class Verdict:
    """One comparison: how far off, how far it may be, and in words."""

    def __init__(self, ok, ratio, text):
        self.ok, self.ratio, self.text = ok, ratio, text


def compare(row, got, want, kind, times=1):
    """`got` and `want` are dictionaries of tensors; `times` as much as is allowed may be; returns a Verdict."""
    name = row["output"]
    allowed = row["tolerance"][kind] if isinstance(row["tolerance"], dict) else row["tolerance"]
    allowed = [a * times for a in allowed] if isinstance(allowed, list) else allowed * times
    if name not in got:
        return Verdict(False, np.inf, f"{name}: missing in the output")
    a, b = got[name], want[row["expected"]]
    if a.shape != b.shape:
        return Verdict(False, np.inf, f"{name}: shape {list(a.shape)}, expected {list(b.shape)}")
    if a.dtype != b.dtype:
        return Verdict(False, np.inf, f"{name}: type {a.dtype}, expected {b.dtype}")
    if row["metric"] == "equal":
        wrong = int((a != b).sum())
        where = "" if not wrong else f", first at {tuple(int(i[0]) for i in np.nonzero(a != b))}"
        return Verdict(wrong == 0, np.inf if wrong else 0.0, f"{name}: {wrong} of {a.size} differ{where}")
    x, y = a.astype(np.float64), b.astype(np.float64)
    if not np.isfinite(x).all():
        return Verdict(False, np.inf, f"{name}: {int((~np.isfinite(x)).sum())} values are NaN or infinite")
    far = float(np.abs(x - y).max()) if x.size else 0.0
    if row["metric"] == "max_abs":
        return Verdict(far <= allowed, far / allowed, f"{name}: max abs {far:.2e} (allowed {allowed:.0e})")
    if row["metric"] == "rel_l2":
        e = float(np.linalg.norm(x - y) / max(np.linalg.norm(y), 1e-30))
        return Verdict(e <= allowed, e / allowed, f"{name}: rel L2 {e:.2e} (allowed {allowed:.1e}), max abs {far:.1e}")
    if row["metric"] == "u8":
        d = x - y
        found = [float((d != 0).mean()), float((np.abs(d) > 1).mean()), float(abs(d.mean()))]
        ratio = max(f / t for f, t in zip(found, allowed))
        return Verdict(ratio <= 1, ratio, "%s: differ %.4f, by more than 1 %.4f, mean %.4f (allowed %.4f, %.4f, %.4f), max %d"
                       % (name, *found, *allowed, far))
    raise ValueError(f"manifest: unknown metric {row['metric']}")


def run_case(case, args, model, golden, scratch, kind):
    """Returns (list of failures, one line about the closest call)."""
    out = os.path.join(scratch, case["name"] + ".safetensors")
    fill = {"model": model, "file": os.path.join(golden, case["file"]), "dir": golden, "out": out}
    command = [args.wan]
    for a in case["args"]:
        for key, value in fill.items():
            a = value + a[len(key) + 2:] if a.startswith("{%s}" % key) else a
        command.append(a)
    for option in ("device", "precision", "threads"):
        if getattr(args, option) is not None:
            command += ["--" + option, str(getattr(args, option))]
    command += shlex.split(args.extra)
    if args.verbose:
        print("    " + " ".join(shlex.quote(c if len(c) < 200 else c[:200] + "...") for c in command))
    try:
        p = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           timeout=args.timeout, cwd=scratch)
    except OSError as e:
        return [f"cannot run {args.wan}: {e.strerror}"], ""
    except subprocess.TimeoutExpired as e:
        return [f"no answer in {args.timeout} s"] + tail(e.stderr), ""
    if p.returncode != 0:
        return [f"exit status {p.returncode}"] + tail(p.stderr), ""
    try:
        got = read_safetensors(out)
    except OSError:
        return ["no output file"] + tail(p.stderr), ""
    except (ValueError, KeyError, TypeError) as e:
        return [f"output file: {e}"], ""
    want = read_safetensors(fill["file"])
    verdicts = [compare(row, got, want, kind, args.times) for row in case["compare"]]
    worst = max(verdicts, key=lambda v: v.ratio)
    return [v.text for v in verdicts if not v.ok], worst.text


def tail(stderr, lines=6):
    text = (stderr or b"").decode("utf-8", "replace").rstrip().splitlines()
    return ["| " + t for t in text[-lines:]]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("dir", metavar="DIR", help="folder with model/ and golden/")
    p.add_argument("--wan", default="wan", help="the program (default: wan from PATH)")
    p.add_argument("--layout", default="diffusers", choices=["diffusers", "original", "gguf"],
                   help="which form of the model to give it")
    p.add_argument("-m", "--model", help="model path to use, as given, instead of the one the layout means")
    p.add_argument("--stage", action="append", help="only this stage (repeatable)")
    p.add_argument("--case", action="append", help="only cases whose name contains this (repeatable)")
    p.add_argument("--tolerance", choices=["f32", "bf16", "q8"],
                   help="default: q8 for gguf, bf16 with --precision bf16, otherwise f32")
    p.add_argument("--times", type=float, default=1, metavar="N", help="allow N times the tolerance: another order of sums")
    p.add_argument("--device", help="handed to the program")
    p.add_argument("--precision", help="handed to the program")
    p.add_argument("--threads", type=int, help="handed to the program")
    p.add_argument("--extra", default="", metavar="ARGS", help="more arguments for every command")
    p.add_argument("--timeout", type=float, default=120, metavar="SECONDS", help="per case (default 120)")
    p.add_argument("--keep", metavar="FOLDER", help="leave the outputs there")
    p.add_argument("-v", "--verbose", action="store_true", help="print every command")
    args = p.parse_args()

    root = os.path.abspath(args.dir)
    golden = os.path.join(root, "golden")
    try:
        with open(os.path.join(golden, "manifest.json"), encoding="utf-8") as f:
            manifest = json.load(f)
    except OSError as e:
        sys.exit(f"{e.filename}: {e.strerror}")
    model = os.path.abspath(args.model or os.path.join(root, "model" if args.layout == "diffusers" else args.layout))
    kind = args.tolerance or ("q8" if args.layout == "gguf" else "bf16" if args.precision == "bf16" else "f32")
    if os.sep in args.wan:
        args.wan = os.path.abspath(args.wan)
    cases = [c for c in manifest["cases"] if (not args.stage or c["stage"] in args.stage)
             and (not args.case or any(s in c["name"] for s in args.case))]
    if not cases:
        sys.exit("no case fits --stage and --case")
    if not os.path.exists(model):
        sys.exit(f"{model}: no such model (layouts: {', '.join(manifest.get('layouts', ['diffusers']))}; -m says where)")

    scratch = args.keep or tempfile.mkdtemp(prefix="check_golden.")
    scratch = os.path.abspath(scratch)
    os.makedirs(scratch, exist_ok=True)
    passed = failed = 0
    try:
        for case in cases:
            begin = time.time()
            faults, line = run_case(case, args, model, golden, scratch, kind)
            took = time.time() - begin
            if faults:
                failed += 1
                print(f"FAIL  {case['name']:<32} {took:6.2f} s  {faults[0]}")
                for f in faults[1:12]:
                    print(f"      {f}")
                if len(faults) > 12:
                    print(f"      and {len(faults) - 12} more")
            else:
                passed += 1
                print(f"pass  {case['name']:<32} {took:6.2f} s  {line}")
            sys.stdout.flush()
    finally:
        if not args.keep:
            shutil.rmtree(scratch, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
