#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Turns a PyTorch file (.pth, .pt, .ckpt) into safetensors, which wan reads.

    pth2safetensors.py IN.pth OUT.safetensors

Needs torch and numpy.  The file is loaded with weights_only=True, so that nothing in it is executed, and
mapped, so that one tensor at a time is in memory (files of before PyTorch 1.6 are loaded whole).  A state
dict may lie in the usual containers (state_dict, model, module, generator, ...); wrappers' prefixes are
dropped.  OUT appears only when complete.
"""
import argparse
import json
import os
import struct
import sys

CONTAINERS = ("state_dict", "model_state", "model", "module", "generator_ema", "generator")
FIRST = ("model.", "module.")
ANYWHERE = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")
NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3",
         "float8_e5m2": "F8_E5M2", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8",
         "bool": "BOOL"}


def fail(text):
    sys.exit("pth2safetensors: " + text)


def load(torch, path):
    with open(path, "rb") as f:
        zipped = f.read(2) == b"PK"
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as e:  # torch raises what it finds: pickle, zip, I/O errors
        fail(f"{path}: cannot be read as weights alone: {str(e).strip().splitlines()[0]}")


def find_tensors(torch, path, found):
    """The dictionary that holds tensors, through the containers that trainers wrap around it."""
    for _ in range(4):
        if not isinstance(found, dict):
            fail(f"{path}: holds {type(found).__name__}, not a dictionary of tensors")
        if any(isinstance(v, torch.Tensor) for v in found.values()):
            return found
        inner = [k for k in CONTAINERS if isinstance(found.get(k), dict)]
        if not inner:
            break
        found = found[inner[0]]
    fail(f"{path}: no tensors in it; its keys are {', '.join(map(str, list(found)[:5]))}")


def clean(name):
    """Without what wrappers put in front of and between the parts of a name."""
    for p in ANYWHERE:
        name = name.replace(p, "")
    for p in FIRST:
        name = name[len(p):] if name.startswith(p) else name
    return name


def collect(torch, path):
    tensors, other = {}, []
    for key, value in find_tensors(torch, path, load(torch, path)).items():
        if not isinstance(value, torch.Tensor):
            other.append(str(key))
            continue
        kind = str(value.dtype).replace("torch.", "")
        if value.layout != torch.strided or kind not in NAMES:
            fail(f"{path}: {key} is {kind}, {value.layout}, which safetensors cannot hold")
        name = clean(str(key))
        if name in tensors:
            fail(f"{path}: {name} is in it twice, under different prefixes")
        tensors[name] = (NAMES[kind], value)
    if other:
        print(f"left out, no tensors: {', '.join(other[:8])}{' ...' if len(other) > 8 else ''}", file=sys.stderr)
    return tensors


def write(torch, path, tensors):
    # Wide elements first: then every tensor is aligned.
    order = sorted(tensors, key=lambda n: -tensors[n][1].element_size())
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name in order:
        kind, t = tensors[name]
        size = t.numel() * t.element_size()
        header[name] = {"dtype": kind, "shape": list(t.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    temp = os.path.join(os.path.dirname(path) or ".", f".{os.path.basename(path)}.{os.getpid()}.tmp")
    try:
        with open(temp, "xb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            for name in order:
                flat = tensors[name][1].detach().contiguous().reshape(-1)
                if flat.numel():
                    f.write(memoryview(flat.view(torch.uint8).numpy()))
            f.flush()
            os.fsync(f.fileno())
        os.rename(temp, path)
    except BaseException as e:
        if os.path.exists(temp):
            os.unlink(temp)
        if isinstance(e, OSError):
            fail(f"{path}: cannot be written: {e.strerror}")
        raise
    return at


def main():
    p = argparse.ArgumentParser(description="PyTorch file to safetensors")
    p.add_argument("input")
    p.add_argument("output")
    a = p.parse_args()
    if not os.path.isfile(a.input):
        fail(f"{a.input}: no such file")
    try:
        import torch
    except ImportError:
        fail("needs torch and numpy: pip install torch numpy --index-url https://download.pytorch.org/whl/cpu")
    if not a.output.endswith(".safetensors"):
        fail(f"{a.output}: the new file's name must end in .safetensors")
    if os.path.exists(a.output):
        fail(f"{a.output} exists")
    tensors = collect(torch, a.input)
    size = write(torch, a.output, tensors)
    print(f"{a.output}: {len(tensors)} tensors, {size} bytes")


if __name__ == "__main__":
    main()
