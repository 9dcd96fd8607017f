#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs `wan` on small models in every type and layout, and on what their weights stand for as F32.

    check_types.py WAN REPOSITORY

Each case writes a file the way a publisher does (ComfyUI, LightX2V, MLX-Gen, GGUF), and a twin that
holds the same numbers as F32, computed here with numpy and gguf-py.  Both must give the same
tensors bit for bit.  Without gguf (PyPI) or a C compiler the GGUF cases are skipped, and said so.
"""
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

import numpy as np

WAN, ROOT = sys.argv[1], pathlib.Path(sys.argv[2])
TINY, DEMO = ROOT / "tests/golden/tiny-a", ROOT / "models/demo"
NUMPY = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "U8": np.uint8, "I8": np.int8,
         "F8_E4M3": np.uint8, "F8_E5M2": np.uint8, "U32": np.uint32, "F64": np.float64}


# ------------------------------------------------------------------------------------------- files

def read_safetensors(path):
    """name -> (type, array)"""
    blob = path.read_bytes()
    n = struct.unpack("<Q", blob[:8])[0]
    head = json.loads(blob[8:8 + n])
    out = {}
    for name, e in head.items():
        if name != "__metadata__":
            b, z = e["data_offsets"]
            a = np.frombuffer(blob[8 + n + b:8 + n + z], NUMPY[e["dtype"]])
            out[name] = (e["dtype"], a.reshape(e["shape"]))
    return out


def write_safetensors(path, tensors, meta=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    head, at = {"__metadata__": meta or {}}, 0
    for name, (kind, a) in tensors.items():
        head[name] = {"dtype": kind, "shape": list(a.shape), "data_offsets": [at, at + a.nbytes]}
        at += a.nbytes
    text = json.dumps(head).encode()
    data = b"".join(np.ascontiguousarray(a).tobytes() for _, a in tensors.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_gguf(path, tensors):
    """name -> (ggml id, shape, bytes); no metadata at all, like files of stable-diffusion.cpp."""
    out, at = [b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 0)], 0
    for name, (kind, shape, data) in tensors.items():
        out.append(struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", len(shape)))
        out.append(struct.pack(f"<{len(shape)}QIQ", *reversed(shape), kind, at))
        at += -(-len(data) // 32) * 32
    head = b"".join(out)
    head += bytes(-len(head) % 32)
    path.write_bytes(head + b"".join(d + bytes(-len(d) % 32) for _, _, d in tensors.values()))


def f32(t):
    kind, a = t
    return (a.astype(np.uint32) << 16).view(np.float32) if kind == "BF16" else a.astype(np.float32)


def bf16(a):
    """Cut off, not rounded: any bfloat16 will do."""
    return (np.ascontiguousarray(a, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def folder_tensors(folder):
    out = {}
    for p in sorted(folder.glob("*.safetensors")):
        out.update(read_safetensors(p))
    return out


# ------------------------------------------------------------------------------------------- codes

def fp8_values(kind):
    code = np.arange(256)
    e, m, bias = ((code >> 3) & 15, code & 7, 7) if kind == "F8_E4M3" else ((code >> 2) & 31, code & 3, 15)
    bits = 3 if kind == "F8_E4M3" else 2
    v = np.where(e == 0, m * 2.0 ** (1 - bias - bits), (1 + m / 2 ** bits) * 2.0 ** (e - bias))
    v[(code & 127) >= (127 if kind == "F8_E4M3" else 124)] = np.nan
    return np.where(code & 128, -v, v).astype(np.float32)


def to_fp8(kind, a):
    """The nearest code (any of two equally near)."""
    v = fp8_values(kind)
    order = np.argsort(np.where(np.isnan(v), np.inf, v), kind="stable")
    order = order[np.isfinite(v[order])]
    near = np.searchsorted((v[order][1:] + v[order][:-1]) / 2, a)
    return order[near].astype(np.uint8)


def is_linear(name, a):
    return a.ndim == 2 and name.endswith(".weight") and name.startswith(("blocks.", "encoder.block."))


def coded(name, a, kind, per_row, scale_name, suffix_shape):
    """Tensors of the codes and their scales, and the F32 that they stand for."""
    top = {"F8_E4M3": 448, "F8_E5M2": 57344, "I8": 127}[kind]
    scale = np.abs(a).max(axis=1, keepdims=True) if per_row else np.abs(a).max(keepdims=True)
    scale = (np.maximum(scale, 1e-5) / top).astype(np.float32)
    if kind == "I8":
        q = np.clip(np.rint(a / scale), -128, 127).astype(np.int8)
        value = q.astype(np.float32)
    else:
        q = to_fp8(kind, np.clip(a / scale, -top, top))
        value = fp8_values(kind)[q]
    shape = [len(a)] + suffix_shape if per_row else suffix_shape
    made = {name: (kind, q), name[:-len("weight")] + scale_name: ("F32", scale.reshape(shape))}
    return made, value * scale


def mlx_coded(name, a, bits, group):
    top = 2 ** bits - 1
    g = a.reshape(len(a), -1, group)
    low, high = g.min(axis=2, keepdims=True), g.max(axis=2, keepdims=True)
    scale, offset = bf16(-(high - low) / top), bf16(high)  # negative scales are allowed
    s, o = f32(("BF16", scale)), f32(("BF16", offset))
    q = np.clip(np.rint((g - o) / np.where(s == 0, 1, s)), 0, top).astype(np.uint32)
    value = (q.astype(np.float32) * s + o).reshape(a.shape)
    per = 32 // bits
    words = (q.reshape(len(a), -1, per) << (np.arange(per, dtype=np.uint32) * bits)).sum(axis=2)
    base = name[:-len("weight")]
    return {name: ("U32", words.astype(np.uint32)), base + "scales": ("BF16", scale[..., 0]),
            base + "biases": ("BF16", offset[..., 0])}, value


# ------------------------------------------------------------------------------------------- running

passed, failed = 0, 0


def run(out, *args):
    r = subprocess.run([WAN, *map(str, args), "--out", str(out), "-y", "-q", "--threads", "1"],
                       capture_output=True, text=True)
    if r.returncode:
        return r.stderr.strip()
    return {k: (t, a.tobytes()) for k, (t, a) in read_safetensors(out).items()}


def same(label, folder, args_a, args_b):
    global passed, failed
    a, b = run(folder / "a.safetensors", *args_a), run(folder / "b.safetensors", *args_b)
    good = isinstance(a, dict) and a == b and a
    if good:
        passed += 1
    else:
        failed += 1
        why = a if isinstance(a, str) else b if isinstance(b, str) else \
            "differ: " + ", ".join(k for k in b if a.get(k) != b[k])
        print(f"FAILED {label}: {why}")


def stage(name, case, *model):
    return ["stage", name, *model, "--in", case]


def dit(golden, *model):
    return stage("dit", golden / "golden/dit-i2v.safetensors", *model)


def text(golden, *model):
    return stage("text", golden / "golden/text-short.safetensors", *model)


# ------------------------------------------------------------------------------------------- cases

def scaled_transformers(tmp):
    dit_only = {k: f32(t) for p in sorted((TINY / "original").glob("diffusion*.safetensors"))
                for k, t in read_safetensors(p).items()}
    note = np.frombuffer(b'{"format": "float8_e4m3fn"}', np.uint8)
    ways = {  # label: type, per row, scale's name, its shape behind the rows, prefix, more tensors
        "comfy old fp8": ("F8_E4M3", False, "scale_weight", [], "model.diffusion_model.", "marker"),
        "comfy old fp8 [1]": ("F8_E5M2", False, "scale_weight", [1], "", "marker"),
        "comfy new fp8": ("F8_E4M3", False, "weight_scale", [], "diffusion_model.", "note"),
        "lightx2v fp8": ("F8_E4M3", True, "weight_scale", [1], "", None),
        "lightx2v int8": ("I8", True, "weight_scale", [1], "", None),
        "int8 by vector": ("I8", True, "weight_scale", [], "", None),
    }
    for label, (kind, rows, scale, shape, prefix, more) in ways.items():
        made, twin = {}, {}
        for name, a in dit_only.items():
            if not is_linear(name, a):
                made[prefix + name] = twin[name] = ("F32", a)
                continue
            codes, value = coded(name, a, kind, rows, scale, shape)
            made.update({prefix + k: t for k, t in codes.items()})
            twin[name] = ("F32", value)
            if more == "note":
                made[prefix + name[:-len("weight")] + "comfy_quant"] = ("U8", note)
                made[prefix + name[:-len("weight")] + "input_scale"] = ("F32", np.float32([1]))
        if more == "marker":
            made[prefix + "scaled_fp8"] = (kind, np.zeros(2, np.uint8))
        pair(tmp, label, made, twin)
    made = {k: ("F8_E4M3", to_fp8("F8_E4M3", a)) if is_linear(k, a) else ("F32", a)
            for k, a in dit_only.items()}
    twin = {k: ("F32", fp8_values(t)[a] if t != "F32" else a) for k, (t, a) in made.items()}
    pair(tmp, "plain fp8", made, twin)


def pair(tmp, label, made, twin):
    a, b = tmp / "codes", tmp / "twin"
    for folder, tensors in ((a, made), (b, twin)):
        shutil.rmtree(folder, ignore_errors=True)
        write_safetensors(folder / "diffusion_pytorch_model.safetensors", tensors)
        shutil.copy(TINY / "original/config.json", folder)
    base = ["-m", TINY / "original", "--dit"]
    same(label, tmp, dit(TINY, *base, a / "diffusion_pytorch_model.safetensors"),
         dit(TINY, *base, b / "diffusion_pytorch_model.safetensors"))
    if "comfy" in label:
        converted(tmp, [TINY / "original", "--dit", a / "diffusion_pytorch_model.safetensors"],
                  *base, b / "diffusion_pytorch_model.safetensors")


def converted(tmp, model, *twin):
    """One GGUF in F32 of codes, notes, kernels with channels last and all, against the twin."""
    global failed
    file = tmp / "converted.gguf"
    r = subprocess.run([WAN, "convert", *map(str, model), str(file), "--type", "f32", "-y", "-q"],
                       capture_output=True, text=True)
    if r.returncode:
        failed += 1
        print(f"FAILED convert: {r.stderr.strip()}")
        return
    same("converted transformer", tmp, dit(TINY, "-m", file), dit(TINY, *twin))
    case = TINY / "golden/decode-two.safetensors"
    same("converted VAE", tmp, stage("decode", case, "-m", file),
         stage("decode", case, "-m", TINY / "model"))


def scaled_text(tmp):
    source = {k: f32(t) for k, t in folder_tensors(TINY / "model/text_encoder").items()}
    made, twin = {"scaled_fp8": ("F8_E4M3", np.zeros(2, np.uint8))}, {}
    for name, a in source.items():
        if is_linear(name, a) and "relative" not in name or name == "shared.weight":
            codes, value = coded(name, a, "F8_E4M3", name == "shared.weight", "scale_weight", [])
            made.update(codes)
            twin[name] = ("F32", value)
        else:
            made[name] = twin[name] = ("F32", a)
    for folder, tensors in (("codes", made), ("twin", twin)):
        shutil.rmtree(tmp / folder, ignore_errors=True)
        write_safetensors(tmp / folder / "model.safetensors", tensors)
        shutil.copy(TINY / "model/text_encoder/config.json", tmp / folder)
    base = ["-m", TINY / "model", "--text-encoder"]
    same("text encoder fp8", tmp, text(TINY, *base, tmp / "codes/model.safetensors"),
         text(TINY, *base, tmp / "twin/model.safetensors"))


def mlx_name(name):
    for old, new in ((".ffn.net.0.proj.", ".ffn.net.0."), (".ffn.net.2.", ".ffn.net.1."),
                     ("sampler.resample.1.", "sampler.resample_conv."), (".gamma", ".weight")):
        name = name.replace(old, new)
    return name


def channels_last(a):
    return np.ascontiguousarray(np.moveaxis(a, 1, -1))


def mlx_package(tmp, bits):
    package, twin = tmp / "package", {}
    shutil.rmtree(package, ignore_errors=True)
    made = {}
    for name, t in folder_tensors(TINY / "model/transformer").items():
        a, ours = f32(t), mlx_name(name)
        twin[name] = ("F32", a)
        if is_linear(name, a):
            codes, value = mlx_coded(ours, a, bits, 32 if a.shape[1] % 64 else 64)
            made.update(codes)
            twin[name] = ("F32", value)
        else:
            made[ours] = (t[0], channels_last(t[1]) if a.ndim == 5 else t[1])
    half, names = len(made) // 2, list(made)
    meta, where = {"quantization_level": str(bits), "mflux_version": "0"}, {}
    for i, part in enumerate((names[:half], names[half:])):
        write_safetensors(package / f"transformer/{i}.safetensors", {k: made[k] for k in part}, meta)
        where.update({k: f"{i}.safetensors" for k in part})
    index = {"metadata": meta, "weight_map": where}
    (package / "transformer/model.safetensors.index.json").write_text(json.dumps(index))
    shutil.copy(TINY / "model/transformer/config.json", package / "transformer")
    vae = {}
    for name, t in folder_tensors(TINY / "model/vae").items():
        ours = mlx_name(name)
        if t[1].ndim == 5:
            ours = ours[:-len("weight")] + "conv3d.weight"
            vae[ours] = (t[0], channels_last(t[1]))
        elif t[1].ndim == 4 and name.endswith(".weight"):
            vae[ours] = (t[0], channels_last(t[1]))
        elif name.endswith(".bias") and name[:-len("bias")] + "weight" in conv3d_names():
            vae[ours[:-len("bias")] + "conv3d.bias"] = t
        else:
            vae[ours] = (t[0], t[1].reshape(-1))
    write_safetensors(package / "vae/0.safetensors", vae, meta)
    (package / "vae/model.safetensors.index.json").write_text(json.dumps(
        {"metadata": meta, "weight_map": {k: "0.safetensors" for k in vae}}))
    if (TINY / "model/vae/config.json").exists():
        shutil.copy(TINY / "model/vae/config.json", package / "vae")
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(TINY / "model" / part, package / part)
    shutil.rmtree(tmp / "twin", ignore_errors=True)
    write_safetensors(tmp / "twin/diffusion_pytorch_model.safetensors", twin)
    shutil.copy(TINY / "model/transformer/config.json", tmp / "twin")
    same(f"mlx {bits} bits, transformer", tmp, dit(TINY, "-m", package),
         dit(TINY, "-m", TINY / "model", "--dit", tmp / "twin/diffusion_pytorch_model.safetensors"))
    converted(tmp, [package], "-m", TINY / "model", "--dit",
              tmp / "twin/diffusion_pytorch_model.safetensors")
    for name in ("encode", "decode"):
        case = TINY / f"golden/{name}-two.safetensors"
        same(f"mlx VAE, {name}", tmp, stage(name, case, "-m", package),
             stage(name, case, "-m", TINY / "model"))


def conv3d_names():
    return {k for k, (_, a) in folder_tensors(TINY / "model/vae").items() if a.ndim == 5}


def gguf_types(tmp):
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import gguf
        import check_quants
        ours = check_quants.Ours(tmp)
    except (ImportError, OSError, subprocess.CalledProcessError) as e:
        print(f"skipped: GGUF types ({e})")
        return
    kinds = gguf.GGMLQuantizationType
    reader = gguf.GGUFReader(DEMO / "wan-demo.gguf")
    for part, prefix, run_it in (("--dit", "", dit), ("--text-encoder", "text_encoder.", text)):
        source = {}
        for t in reader.tensors:
            if not t.name.startswith(prefix) or not prefix and t.name.startswith(("text_encoder.", "vae.")):
                continue
            shape = [int(n) for n in reversed(t.shape)]
            value = gguf.dequantize(t.data, t.tensor_type).astype(np.float32).reshape(shape)
            source[t.name[len(prefix):]] = value
        for name in check_quants.HALVES:
            block, size = gguf.GGML_QUANT_SIZES[kinds[name]]
            made, twin, used = {}, {}, 0
            for key, a in source.items():  # vectors too, as stable-diffusion.cpp does
                twin[key] = (0, a.shape, a.tobytes())
                made[key] = twin[key]
                if a.shape[-1] % block or a.ndim > 2:
                    continue
                data = ours.quantise(name, np.ascontiguousarray(a).ravel(), a.size // block * size)
                made[key] = (int(kinds[name]), a.shape, data.tobytes())
                value = gguf.dequantize(data, kinds[name]).astype(np.float32)
                twin[key] = (0, a.shape, value.tobytes())
                used += 1
            if not used:
                continue
            write_gguf(tmp / "codes.gguf", made)
            write_gguf(tmp / "twin.gguf", twin)
            base = ["-m", DEMO, part]
            golden = ROOT / "tests/golden/demo"
            same(f"{part} {name}", tmp, run_it(golden, *base, tmp / "codes.gguf"),
                 run_it(golden, *base, tmp / "twin.gguf"))


def main():
    with tempfile.TemporaryDirectory() as folder:
        tmp = pathlib.Path(folder)
        scaled_transformers(tmp)
        scaled_text(tmp)
        mlx_package(tmp, 8)
        mlx_package(tmp, 4)
        gguf_types(tmp)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
