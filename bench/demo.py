#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times one clip of the demo model, end to end from a cold process, with `wan` and with diffusers on the same machine.

    demo.py --wan build/wan --model DIR [--alone] [--threads N]

DIR is in diffusers layout (with --alone, any layout).  Seconds and peak resident memory are those the kernel counted for
each process; the last column says how far the final latents are apart.  Both take float32 and as many threads."""
import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np

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
    """Seconds by the clock and of the processors, and peak bytes, of a command that must succeed."""
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


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--wan", default="build/wan")
    p.add_argument("--model", required=True)
    p.add_argument("--alone", action="store_true", help="do not run diffusers")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--reference", metavar="OUT", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.reference:
        return reference(args.model, args.reference, args.threads)
    with tempfile.TemporaryDirectory() as scratch:
        ours, theirs = os.path.join(scratch, "wan.safetensors"), os.path.join(scratch, "diffusers.safetensors")
        seconds, cpu, memory = measure([args.wan, "generate", "-m", args.model, "-p", PROMPT, "--seed", str(SEED), "--threads",
                                   str(args.threads), "-q", "-o", ours])
        print(f"wan        {seconds:7.1f} s  {cpu:7.1f} CPU s  {memory / 2**20:7.0f} MiB   {args.threads} threads", flush=True)
        if args.alone:
            return
        t, c, m = measure([sys.executable, os.path.abspath(__file__), "--model", args.model, "--threads", str(args.threads),
                        "--reference", theirs])
        a, b = latents(ours), latents(theirs)
        print(f"diffusers  {t:7.1f} s  {c:7.1f} CPU s  {m / 2**20:7.0f} MiB   latents differ by {np.linalg.norm(a - b) / np.linalg.norm(b):.1e}")
        print(f"wan is {t / seconds:.2f} times as fast, takes {cpu / c:.2f} of the processor time and {memory / m:.2f} of the memory")


if __name__ == "__main__":
    main()
