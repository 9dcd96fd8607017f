#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""diffusers (PyTorch, oneDNN) beside `wan` on this machine's CPU, one after the other; one table.

    diffusers_cpu.py --model DIR [--precisions f32,bf16,int8] [--threads N] [--alone]
    diffusers_cpu.py --full 480x480x17 [--stages text,dit,decode] [--precisions ...] [--threads N]

Without --full: one clip of the demo model from a cold process to a file, as a user would run it; DIR is in diffusers layout
(with --alone, which leaves diffusers out, any layout).  Seconds, CPU seconds and peak resident memory are those the kernel
counted for each process; the last column says how far the final latents are from the first row's.  diffusers computes in float32.
With --full: stages of Wan2.2 TI2V-5B with random weights, loaded and warm, diffusers' in bf16 (20 GB), ours Q8_0."""
import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
PROMPT = "a red star moving left on a blue background"
SEED = 1


def reference(model, out, threads):
    """The child process that is measured: diffusers' pipeline as a user would write it."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from diffusers import WanPipeline
    from safetensors.torch import save_file
    torch.set_num_threads(threads)
    with open(os.path.join(model, "defaults.json"), encoding="utf-8") as f:
        d = json.load(f)
    pipe = WanPipeline.from_pretrained(model, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    latents = {}

    def keep(_, step, time_step, values):
        latents["latents"] = values["latents"][0].contiguous()
        return values
    with torch.no_grad():
        frames = pipe(prompt=PROMPT, negative_prompt=d["negative_prompt"], width=d["width"], height=d["height"],
                      num_frames=d["frames"], num_inference_steps=d["steps"], guidance_scale=d["guidance"],
                      generator=torch.Generator("cpu").manual_seed(SEED), callback_on_step_end=keep,
                      output_type="np").frames[0]
    latents["frames"] = torch.from_numpy(np.ascontiguousarray((frames * 255).astype(np.uint8)))
    save_file(latents, out)


def measure(command):
    """(seconds by the clock, seconds of the processors, peak bytes) of a command that must succeed."""
    begin = time.time()
    p = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(status)
    if p.returncode:
        sys.exit(f"{command[0]} failed with status {p.returncode}")
    return time.time() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def latents(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        at, entry = f.tell(), header["latents"]
        f.seek(at + entry["data_offsets"][0])
        size = entry["data_offsets"][1] - entry["data_offsets"][0]
        return np.frombuffer(f.read(size), "<f4").astype(np.float64)


def demo(args):
    threads = ["--threads", str(args.threads)]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        if not args.alone:
            out = os.path.join(scratch, "diffusers.safetensors")
            figures = measure([sys.executable, os.path.abspath(__file__), "--model", args.model, *threads, "--reference", out])
            rows.append(("diffusers f32", *figures, latents(out)))
        for precision in args.precisions:
            out = os.path.join(scratch, precision + ".safetensors")
            figures = measure([args.wan, "generate", "-m", args.model, "-p", PROMPT, "--seed", str(SEED), "--device", "cpu",
                               "--precision", precision, *threads, "-q", "-o", out])
            rows.append(("wan " + precision, *figures, latents(out)))
    print(f"| demo clip, whole command, {args.threads} threads | seconds | CPU s | peak RSS | times as fast | latents off by |\n"
          "|---|---|---|---|---|---|")
    _, slow, _, _, exact = rows[0]
    for name, seconds, cpu, memory, x in rows:
        print(f"| {name} | {seconds:.1f} | {cpu:.1f} | {memory / 2**20:.0f} MiB | {slow / seconds:.2f} | "
              f"{np.linalg.norm(x - exact) / np.linalg.norm(exact):.1e} |")


def full(args):
    size, _, frames = args.full.rpartition("x")
    same = ["--size", size, "--frames", frames, "--steps", "1", "--threads", str(args.threads)]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        out = os.path.join(scratch, "peer.json")
        measure([sys.executable, os.path.join(HERE, "diffusers_ti2v.py"), "--device", "cpu", "--stages", ",".join(args.stages),
                 "--repeat", "1", "--json", out, *same])
        with open(out, encoding="utf-8") as f:
            d = json.load(f)
        rows.append(("diffusers bf16", d["cpu_seconds"], d["seconds"], d["peak_rss"]))
    for precision in args.precisions:
        cpu, seconds, memory = {}, {}, 0
        for stage in args.stages:
            command = [args.wan, "bench", "--synthetic", "ti2v-5b", "--type", "q8_0", "--device", "cpu", "--precision", precision,
                       "--stage", stage, "--repeat", "1", "--json", *same]
            d = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            cpu[stage], seconds[stage] = d["stages"][0]["cpu_seconds"], d["stages"][0]["seconds"]
            memory = max(memory, d["peak_rss"])
        rows.append(("wan " + precision, cpu, seconds, memory))
    print(f"| TI2V-5B {args.full}, one step, CPU s (seconds), {args.threads} threads | " + " | ".join(args.stages) +
          " | peak RSS |\n" + "|---" * (len(args.stages) + 2) + "|")
    for name, cpu, seconds, memory in rows:
        cells = [f"{cpu[s]:.1f} ({seconds[s]:.1f})" for s in args.stages]
        print(f"| {name} | " + " | ".join(cells) + f" | {memory / 2**30:.2f} GiB |")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--wan", default=os.path.join(HERE, "..", "..", "build", "wan"))
    p.add_argument("--model")
    p.add_argument("--full", metavar="WxHxF")
    p.add_argument("--stages", default="text,dit,decode", type=lambda t: t.split(","))
    p.add_argument("--precisions", default="f32", type=lambda t: t.split(","))
    p.add_argument("--alone", action="store_true", help="do not run diffusers")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--reference", metavar="OUT", help=argparse.SUPPRESS)
    args = p.parse_args()
    if not args.model and not args.full:
        p.error("--model or --full says what to run")
    if args.reference:
        return reference(args.model, args.reference, args.threads)
    return full(args) if args.full else demo(args)


if __name__ == "__main__":
    main()
