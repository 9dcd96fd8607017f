#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares src/tensor/quants.c and quantise.c with gguf-py, and with ggml and PyTorch where present.

    tools/check_quants.py [--blocks N] [--ggml LIBRARY] [--write]

Needs numpy and gguf (PyPI) and a C compiler.  LIBRARY is any shared library with ggml's
quantize_row_*_ref functions (built without FMA contraction); PyTorch, if installed, judges the
8-bit floats.  Exits 1 on a difference: dequantised bits must be gguf-py's; bytes must be ggml's in
99.9 % of all cases, and the error as small.  --write makes the vectors of tests/data/quants anew.
"""
import argparse
import ctypes
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import gguf
from gguf import GGMLQuantizationType as T

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "tests/data/quants"

# Offsets of the halves in a block, so that random blocks hold sensible scales.
HALVES = {
    "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "IQ4_NL": [0],
    "IQ4_XS": [0], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}


class Ours:
    """The functions under test, compiled into a library of their own."""

    def __init__(self, folder):
        text = (ROOT / "src/tensor/tensor.h").read_text()
        body = text[text.index("typedef enum dtype {"):text.index("WAN_DTYPES")]
        words = (line.split("/*")[0].strip(" ,\n") for line in body.splitlines()[1:])
        self.id = {w[4:]: i for i, w in enumerate(w for w in words if w.startswith("WAN_"))}
        sources = [p for p in sorted((ROOT / "src/tensor").glob("quant*.c"))]
        sources += [ROOT / "src/tensor/tensor.c", ROOT / "src/base/error.c"]
        path = pathlib.Path(folder) / "quants.so"
        subprocess.run(["cc", "-std=c11", "-O2", "-ffp-contract=off", "-shared", "-fPIC",
                        "-D_GNU_SOURCE", f"-I{ROOT}/src", f"-I{ROOT}/include", "-o", path,
                        *sources, "-lm"], check=True)
        self.lib = ctypes.CDLL(str(path))

    def dequantise(self, name, blocks, elements):
        out = np.empty(elements, np.float32)
        self.lib.wan_dequantise(self.id[name], ctypes.c_void_p(out.ctypes.data),
                                ctypes.c_void_p(blocks.ctypes.data), ctypes.c_int64(elements))
        return out

    def quantise(self, name, x, size):
        out = np.zeros(size, np.uint8)
        status = self.lib.wan_quantise(self.id[name], ctypes.c_void_p(out.ctypes.data),
                                       ctypes.c_void_p(x.ctypes.data), ctypes.c_int64(x.size), None)
        if status:
            sys.exit(f"{name}: wan_quantise says {status}")
        return out


class Ggml:
    def __init__(self, path):
        self.lib = ctypes.CDLL(path)

    def quantise(self, name, x, size):
        out = np.zeros(size, np.uint8)
        to, at = ctypes.c_void_p(out.ctypes.data), ctypes.c_void_p(x.ctypes.data)
        n = ctypes.c_int64(x.size)
        if name.startswith("IQ"):  # the search is in this one only
            f = getattr(self.lib, f"quantize_{name.lower()}")
            f(at, to, ctypes.c_int64(x.size // 256), ctypes.c_int64(256), None)
        else:
            kind = name[:-1] + "K" if name.endswith("_K") else name.lower()
            getattr(self.lib, f"quantize_row_q{kind[1:]}_ref")(at, to, n)
        return out


def random_blocks(name, count, rng):
    block, size = gguf.GGML_QUANT_SIZES[T[name]]
    b = rng.integers(0, 256, (count, size), np.uint8)
    for at in HALVES[name]:
        h = (rng.standard_normal(count) * 10.0 ** rng.uniform(-8, 2, count)).astype(np.float16)
        b[:, at:at + 2] = h.view(np.uint8).reshape(count, 2)
    return b, count * block


def sources(block, count, rng):
    """Rows of numbers to quantise: ordinary ones first, then every kind of nasty one."""
    x = rng.standard_normal((count, block)) * 10.0 ** rng.uniform(-4, 2, (count, 1))
    kind = np.arange(count) % 16
    x[kind == 1] = rng.laplace(size=(int((kind == 1).sum()), block)) * 0.03
    x[kind == 2] = 0
    x[kind == 3] = rng.standard_normal((int((kind == 3).sum()), 1))  # constant
    x[kind == 4] = np.abs(x[kind == 4])
    x[kind == 5] = -np.abs(x[kind == 5])
    x[kind == 6] *= rng.random((int((kind == 6).sum()), block)) < 0.05  # mostly zero
    x[kind == 7, block // 3] = 50  # an outlier
    x[kind == 8] = rng.integers(-4, 5, (int((kind == 8).sum()), block)) / 4  # ties
    x[kind == 9] *= 1e-12
    x[kind == 10] *= 1e3
    x[kind == 11] = np.round(x[kind == 11])
    x[kind == 12] += 3 * np.abs(x[kind == 12]).max(axis=1, keepdims=True)  # far from zero
    x[kind == 13] = rng.uniform(-0.05, 0.05, (int((kind == 13).sum()), block))
    x[kind == 14] *= 1e-7  # scales that are subnormal halves
    return np.clip(x, -6e4, 6e4).astype(np.float32)


def same_bits(a, b):
    return np.array_equal(a.view(np.uint32), b.view(np.uint32))


def check_decode(ours, name, count, rng):
    blocks, n = random_blocks(name, count, rng)
    want = gguf.dequantize(blocks, T[name]).ravel()
    return blocks, want, same_bits(ours.dequantise(name, blocks, n), want)


def rmse(name, packed, x):
    d = gguf.dequantize(packed.reshape(len(x), -1), T[name]).astype(np.float64) - x
    return np.sqrt((d * d).mean())


def check_encode(ours, other, name, count, rng, who):
    block, size = gguf.GGML_QUANT_SIZES[T[name]]
    x = sources(256, max(count * block // 256, 64), rng)
    flat, bytes_ = x.ravel(), x.size // block * size
    mine, want = ours.quantise(name, flat, bytes_), other(name, flat, bytes_)
    same = mine == want
    if who == "gguf-py":  # writes a zero scale as +0, ggml as -0
        mine_d, want_d = (gguf.dequantize(p.reshape(len(x), -1), T[name]) for p in (mine, want))
        same |= np.repeat((mine_d == want_d).reshape(-1, block).all(axis=1), size)
    share = same.mean()
    mine_r, want_r = rmse(name, mine, x), rmse(name, want, x)
    good = share >= 0.999 and mine_r <= want_r * 1.001
    print(f"{name:7} encode, {who:8} {x.size // block} blocks: {100 * share:.4f} % of bytes equal, "
          f"{int((~same).sum())} differ; RMSE {mine_r:.6g} against {want_r:.6g}"
          f"{'' if good else '  WRONG'}")
    return good


def torch_types():
    try:
        import torch
    except ImportError:
        return None, {}
    return torch, {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}


def eighths(name):
    """Numbers at, between and just beside all codes of an 8-bit float, inside its range."""
    torch, types = torch_types()
    t = torch.arange(256, dtype=torch.uint8).view(types[name]).float().numpy()
    t = np.unique(t[np.isfinite(t)])
    mid = (t[1:] + t[:-1]) / 2
    return np.concatenate([t, mid, np.nextafter(mid, np.float32(9e9)),
                           np.nextafter(mid, np.float32(-9e9))]).astype(np.float32)


def check_fp8(ours, name):
    torch, types = torch_types()
    if not torch:
        print(f"{name}: no PyTorch, not checked")
        return True
    codes = np.arange(256, dtype=np.uint8)
    want = torch.from_numpy(codes).view(types[name]).float().numpy()
    got = ours.dequantise(name, codes, 256)
    good = np.array_equal(got, want, equal_nan=True) and np.array_equal(np.signbit(got),
                                                                      np.signbit(want))
    x = eighths(name)
    rng = np.random.default_rng(3)
    x = np.concatenate([x, rng.standard_normal(1 << 16).astype(np.float32) * 40])
    top = {"F8_E4M3": 448, "F8_E5M2": 57344}[name]
    coded = torch.from_numpy(np.clip(x, -top, top)).to(types[name]).view(torch.uint8).numpy()
    good = good and np.array_equal(ours.quantise(name, x, x.size), coded)
    print(f"{name}: all codes and {x.size} numbers{'' if good else '  WRONG'}")
    return good


def write_vectors(ours, ggml):
    DATA.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20)
    for name in HALVES:
        block, size = gguf.GGML_QUANT_SIZES[T[name]]
        blocks, want, good = check_decode(ours, name, 3 if block == 256 else 8, rng)
        (DATA / f"{name}.decode").write_bytes(blocks.tobytes() + want.tobytes())
        x = sources(block, 16, rng).ravel()
        packed = ggml.quantise(name, np.concatenate([x, np.zeros(-x.size % 256, np.float32)]),
                               (x.size + 255) // 256 * 256 // block * size)
        (DATA / f"{name}.encode").write_bytes(x.tobytes() + packed[:x.size // block * size].tobytes())
    torch, types = torch_types()
    for name, kind in types.items():
        codes = np.arange(256, dtype=np.uint8)
        want = torch.from_numpy(codes).view(kind).float().numpy()
        (DATA / f"{name}.decode").write_bytes(codes.tobytes() + want.tobytes())
        x = eighths(name)
        coded = torch.from_numpy(x).to(kind).view(torch.uint8).numpy()
        (DATA / f"{name}.encode").write_bytes(x.tobytes() + coded.tobytes())


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--blocks", type=int, default=4000)
    p.add_argument("--ggml", help="shared library with ggml's reference quantisers")
    p.add_argument("--write", action="store_true", help="write tests/data/quants (needs --ggml)")
    a = p.parse_args()
    ggml = Ggml(a.ggml) if a.ggml else None
    rng = np.random.default_rng(19)
    good = True
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(folder)
        if a.write:
            if not ggml or not torch_types()[0]:
                sys.exit("--write needs --ggml and PyTorch")
            write_vectors(ours, ggml)
            return
        for name in HALVES:
            same = check_decode(ours, name, a.blocks, rng)[2]
            print(f"{name:7} decode, gguf-py  {a.blocks} blocks:"
                  f" {'equal' if same else 'bits differ  WRONG'}")
            good &= same
        for name in HALVES:
            try:
                good &= check_encode(ours, lambda n, x, s: gguf.quantize(
                    x.reshape(-1, 256), T[n]).ravel(), name, a.blocks, rng, "gguf-py")
            except NotImplementedError:
                pass
            if ggml:
                good &= check_encode(ours, ggml.quantise, name, a.blocks, rng, "ggml")
        for name in ("F8_E4M3", "F8_E5M2"):
            good &= check_fp8(ours, name)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
