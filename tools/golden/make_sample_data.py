#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/sample/{noise,solver}.txt: what torch and diffusers say, for tests/unit/{noise,solver}_test.c.

    make_sample_data.py OUT_DIR

noise.txt: a line per generator, `seed count size hash size hash ...`: draws of torch.randn one after the other, each with
the FNV-1a hash of its bytes.  solver.txt: a block per case, `sampler steps shift`, then a line of levels, one of times, one
of the four values a toy network leads to.  Same needs as make_golden.py."""
import os
import random
import sys

import numpy as np
import torch

import make_golden

START = [1.0, -0.75, 0.3125, 2.5]


def network(x, t):
    """Float32, and the same operations in the C test: a cubic, so that every step matters."""
    t = np.float32(t) * np.float32(0.001)
    return (np.float32(0.5) * x - np.float32(0.05) * x * x * x) - np.float32(0.3) + np.float32(0.2) * t


def fnv(data):
    h = 0xcbf29ce484222325
    for b in data:
        h = ((h ^ b) * 0x100000001b3) & (2 ** 64 - 1)
    return h


def noise(out):
    r = random.Random(5)
    # A seed whose first radius is exactly zero, seeds that differ in the upper half only, and any others.
    seeds = [1753191, 0, 42, 42 + 2 ** 32, 2 ** 64 - 1] + [r.randrange(2 ** 64) for _ in range(35)]
    for seed in seeds:
        sizes = [16] + [r.choice([r.randint(1, 15), r.randint(16, 48), r.randint(49, 2000)]) for _ in range(6)]
        g = torch.Generator("cpu").manual_seed(seed if seed < 2 ** 63 else seed - 2 ** 64)
        hashes = [fnv(torch.randn(n, generator=g).numpy().tobytes()) for n in sizes]
        print(seed, len(sizes), *(f"{n} {h:016x}" for n, h in zip(sizes, hashes)), file=out)


def scheduler(name, steps, shift):
    s = make_golden.make_scheduler("unipc" if name == "unipc-official" else name, shift)
    s.set_timesteps(steps)
    if name == "unipc-official":        # diffusers' solver on the official levels, sampling.md 2.1
        u = np.linspace(float(np.float32(1 - 1 / 1000)), 0, steps + 1)[:-1]
        sigma = shift * u / (1 + (shift - 1) * u)
        s.timesteps = torch.from_numpy((1000 * sigma).astype(np.int64))
        s.sigmas = torch.from_numpy(np.append(sigma, 0).astype(np.float32))
    return s


def solver(out):
    for name in ("unipc", "unipc-official", "euler", "dpm++"):
        for steps, shift in [(1, 5), (2, 3), (3, 1), (4, 0.5), (6, 5), (20, 7.25), (50, 16)]:
            s = scheduler(name, steps, shift)
            x = torch.tensor(START).view(1, 4, 1, 1, 1)
            for t in s.timesteps:
                x = s.step(torch.from_numpy(network(x.numpy(), float(t))), t, x, return_dict=False)[0].float()
            print(name, steps, shift, file=out)
            for row in (s.sigmas, s.timesteps, x.flatten()):
                print(*(f"{float(v):.9g}" for v in row), file=out)


def main():
    for name, make in (("noise", noise), ("solver", solver)):
        with open(os.path.join(sys.argv[1], name + ".txt"), "w") as out:
            make(out)


if __name__ == "__main__":
    main()
