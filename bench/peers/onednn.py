#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Matrix products and convolutions of TI2V-5B by PyTorch's CPU library (oneDNN, MKL) and by `wan-check --bench`, one after the
other on this machine; one table of GFLOP for each second of a processor.

    onednn.py [--wan-check build/tests/kernels/wan-check] [--threads 1,2] [--precisions f32,bf16,int8] [--isa SET]

torch is measured in float32 and bfloat16.  ONEDNN_MAX_CPU_ISA limits it (AVX512_CORE_BF16 leaves AMX out) and ours with it;
--isa names our instruction set instead.  Ours reads weights as they are stored and unpacks them meanwhile; torch's are ready
in memory.  With one thread ours is timed by the thread's own clock, with more by the wall's, so that threads that wait count."""
import argparse
import os
import re
import subprocess
import sys
import time

LINEARS = [(1125, 3072, 3072), (1125, 3072, 14336), (1125, 14336, 3072), (4725, 3072, 3072)]   # rows, inputs, outputs
CONVS = [(4, 128, 256, 256), (4, 64, 512, 512)]                                              # frames, side, inputs, outputs
ISA = {"f32": ["avx512", "avx2"], "bf16": ["amx", "avx512bf16", "avx512", "avx2"],
       "int8": ["avx512vnni", "avxvnni", "avx512", "avx2"]}
LINE = re.compile(r"^(linear|conv3d) (\S+) \[([\d, ]+)\] -> (\d+)\s+cpu (\S+).*?([\d.]+) GFLOP/s", re.M)


def timed(torch, f, flops):
    """GFLOP for each CPU second: the best of the calls that fit into some three seconds."""
    best, begin = float("inf"), time.process_time()
    with torch.no_grad():
        while time.process_time() - begin < 3:
            cpu = time.process_time()
            f()
            best = min(best, time.process_time() - cpu)
    return flops / best * 1e-9


def torch_rates(threads):
    """shape -> {precision: GFLOP for each CPU second}"""
    import torch
    import torch.nn.functional as F
    torch.set_num_threads(threads)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {threads} threads, ONEDNN_MAX_CPU_ISA "
          f"{os.environ.get('ONEDNN_MAX_CPU_ISA', 'not set')}", file=sys.stderr, flush=True)
    rates = {}
    for name, t in ("f32", torch.float32), ("bf16", torch.bfloat16):
        if name == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            continue                                    # without AVX-512 it is emulated and takes minutes
        for m, k, n in LINEARS:
            x, w, b = torch.randn(m, k).to(t), torch.randn(n, k).to(t), torch.randn(n).to(t)
            rates.setdefault(("linear", (m, k), n), {})[name] = timed(torch, lambda: F.linear(x, w, b), 2.0 * m * k * n)
        for f, s, i, o in CONVS:
            x = torch.randn(1, i, f, s, s).to(t).to(memory_format=torch.channels_last_3d)
            w = torch.randn(o, i, 3, 3, 3).to(t).to(memory_format=torch.channels_last_3d)
            # Taps in time that meet padding are no work, as in wan-check.
            flops = 2.0 * i * o * 9 * s * s * (3 * f - 2)
            rates.setdefault(("conv3d", (f, s, s, i), o), {})[name] = timed(torch, lambda: F.conv3d(x, w, padding=1), flops)
    return rates


def have(isa):
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        flags = set(re.search(r"^flags\s*: (.*)$", f.read(), re.M)[1].split())
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    if isa == "amx" and limit and "AMX" not in limit and limit not in ("DEFAULT", "ALL"):
        return False
    needs = {"amx": "amx_bf16", "avx512bf16": "avx512_bf16", "avx512vnni": "avx512_vnni", "avxvnni": "avx_vnni",
             "avx512": "avx512bw", "avx2": "avx2"}
    return needs[isa] in flags


def our_rates(program, threads, precision, isa):
    """(shape, stored type) -> GFLOP for each CPU second"""
    rates = {}
    for check in "linear_speed", "conv_speed":
        if check == "conv_speed" and precision == "int8":
            continue                                    # int8 is for matrix products
        out = subprocess.run([program, "--bench", "--threads", str(threads), "--precision", precision, "--isa", isa,
                              "--filter", check], check=True, stdout=subprocess.PIPE, text=True).stdout
        for what, stored, dims, n, _, rate in LINE.findall(out):
            dims = tuple(int(d) for d in dims.split(","))
            # Convolutions are labelled by their input, which is in bf16 rows or f32 ones; weights are BF16.
            if what == "conv3d" and stored.lower() != precision:
                continue
            key = what, dims, int(n)
            rates[key, "BF16" if what == "conv3d" else stored] = float(rate) / threads
    return rates


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = os.path.dirname(os.path.abspath(__file__))
    p.add_argument("--wan-check", default=os.path.join(here, "..", "..", "build", "tests", "kernels", "wan-check"))
    p.add_argument("--threads", default="1,2", type=lambda t: [int(n) for n in t.split(",")])
    p.add_argument("--precisions", default="f32,bf16,int8", type=lambda t: t.split(","))
    p.add_argument("--isa")
    args = p.parse_args()
    sets = {precision: args.isa or next(s for s in ISA[precision] if have(s)) for precision in args.precisions}
    columns = [f"wan {n} ({sets[n]})" for n in args.precisions]
    print("| GFLOP for each CPU second | threads | torch f32 | torch bf16 | " +
          " | ".join(f"{c} | of torch {'f32' if c.startswith('wan f32') else 'bf16'}" for c in columns) + " |")
    print("|---" * (4 + 2 * len(columns)) + "|")
    for threads in args.threads:
        theirs = torch_rates(threads)
        ours = {n: our_rates(args.wan_check, threads, n, sets[n]) for n in args.precisions}
        for key, peer in theirs.items():
            what, dims, n = key
            for stored in sorted({s for rates in ours.values() for k, s in rates if k == key}) or [""]:
                label = f"linear {dims[0]}x{n}x{dims[1]}" if what == "linear" else "conv3d {3}->{4}, {0}x{1}x{2}".format(*dims, n)
                cells = []
                for precision in args.precisions:
                    rate = ours[precision].get((key, stored))
                    beside = peer.get("f32" if precision == "f32" else "bf16")
                    cells += [f"{rate:.1f}" if rate else "", f"{100 * rate / beside:.0f} %" if rate and beside else ""]
                print(f"| {label} {stored} | {threads} | {peer['f32']:.1f} | {peer.get('bf16', float('nan')):.1f} | " +
                      " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
