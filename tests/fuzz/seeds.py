#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the hand-made part of the fuzz corpus (names in seed-*): one small file for each thing the formats can say."""
import json
import os
import struct

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")


def write(target, name, data):
    os.makedirs(os.path.join(HERE, target), exist_ok=True)
    with open(os.path.join(HERE, target, f"seed-{name}"), "wb") as f:
        f.write(data)


def safetensors(header, data=b""):
    text = (header if isinstance(header, str) else json.dumps(header, separators=(",", ":"))).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


write("safetensors", "empty", safetensors("{}"))
write("safetensors", "two", safetensors({"__metadata__": {"format": "pt"}, "b": entry("U8", [3], 4, 7),
                                         "a": entry("F32", [], 0, 4)}, bytes(7)))
write("safetensors", "zero", safetensors({"a": entry("F32", [0, 5], 0, 0), "b": entry("F16", [1], 0, 2)}, bytes(2)))
write("safetensors", "bits", safetensors({"a": entry("F4", [2, 2], 0, 2), "b": entry("F6_E2M3", [4], 2, 5)}, bytes(5)))
write("safetensors", "null", safetensors(' \n{"__metadata__":null,"a":{"dtype":"I64","shape":[1,1,1,1,1,1],'
                                         '"data_offsets":[0,8],"x":[{}]}}\t ', bytes(8)))
write("safetensors", "gap", safetensors({"a": entry("U8", [1], 1, 2)}, bytes(2)))
write("safetensors", "overlap", safetensors({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, bytes(3)))
write("safetensors", "huge", safetensors({"a": entry("F64", [2 ** 40, 2 ** 40], 0, 8)}, bytes(8)))
write("safetensors", "lie", struct.pack("<Q", 2 ** 64 - 1) + b"{}")
write("safetensors", "twice", safetensors('{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},'
                                          '"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}', bytes(1)))


def codes(name, tensors, meta=None):
    """tensors: name -> (type, bytes of one, shape)"""
    head, at = {"__metadata__": meta or {}}, 0
    for key, (kind, size, shape) in tensors.items():
        n = size
        for d in shape:
            n *= d
        head[key] = entry(kind, shape, at, at + n)
        at += n
    write("codes", name, safetensors(head, bytes(i * 37 % 251 for i in range(at))))


codes("row", {"a.weight": ("F8_E4M3", 1, [3, 4]), "a.weight_scale": ("F32", 4, [3, 1])})
codes("one", {"a.weight": ("I8", 1, [3, 4]), "a.scale_weight": ("BF16", 2, []), "scaled_fp8": ("F8_E4M3", 1, [2])})
codes("groups", {"a.weight": ("U32", 4, [2, 32]), "a.scales": ("BF16", 2, [2, 2]), "a.biases": ("BF16", 2, [2, 2])},
      {"quantization_level": "8"})
codes("four", {"a.weight": ("U32", 4, [2, 16]), "a.scales": ("F16", 2, [2, 2]), "a.biases": ("F16", 2, [2, 2])})
codes("kernel", {"a.weight": ("F16", 2, [2, 3, 1, 2, 2]), "a.weight_scale": ("F64", 8, [2])})
codes("nvfp4", {"a.weight": ("U8", 1, [2, 8]), "a.weight_scale_2": ("F32", 4, [])})
codes("meta", {"a.weight": ("F8_E5M2", 1, [2, 2])},
      {"_quantization_metadata": '{"layers":{"a":{"format":"float8_e5m2"}}}'})
note = b'{"format":"int8_tensorwise"}'
write("codes", "note", safetensors({"a.weight": entry("I8", [2], 0, 2), "a.comfy_quant": entry("U8", [len(note)], 2, 2 + len(note))},
                                   bytes(2) + note))


def string(s):
    return struct.pack("<Q", len(s)) + s.encode()


def kv(key, kind, value):
    return string(key) + struct.pack("<I", kind) + value


def array(kind, items):
    return struct.pack("<IQ", kind, len(items)) + b"".join(items)


def gguf(kvs=(), tensors=(), data=b"", version=3, align=32):
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(kvs)) + b"".join(kvs)
    for name, ne, kind, offset in tensors:
        out += string(name) + struct.pack(f"<I{len(ne)}QIQ", len(ne), *ne, kind, offset)
    return out + bytes(-len(out) % align) + data


write("gguf", "empty", gguf(version=2))
write("gguf", "all-kinds", gguf([
    kv("u8", 0, b"\1"), kv("i8", 1, b"\xff"), kv("u16", 2, bytes(2)), kv("i16", 3, bytes(2)), kv("u32", 4, bytes(4)),
    kv("i32", 5, bytes(4)), kv("f32", 6, struct.pack("<f", 0.5)), kv("bool", 7, b"\1"), kv("string", 8, string("wan")),
    kv("u64", 10, bytes(8)), kv("i64", 11, bytes(8)), kv("f64", 12, struct.pack("<d", 2.0))]))
write("gguf", "arrays", gguf([
    kv("tokenizer.ggml.tokens", 9, array(8, [string("<pad>"), string(""), string("a")])),
    kv("tokenizer.ggml.scores", 9, array(6, [struct.pack("<f", -1.5)] * 3)),
    kv("tokenizer.ggml.token_type", 9, array(5, [struct.pack("<i", 3)] * 3)), kv("none", 9, array(0, []))]))
write("gguf", "tensors", gguf([], [("patch_embedding.weight", [2, 2, 1, 3, 4], 0, 0), ("q.weight", [32, 2], 8, 192),
                                   ("s", [], 1, 288)], bytes(290)))
write("gguf", "aligned", gguf([kv("general.alignment", 4, struct.pack("<I", 8))],
                              [("a", [1], 24, 0), ("b", [1], 30, 8)], bytes(10), align=8))
write("gguf", "orig-shape", gguf([kv("comfy.gguf.orig_shape.w", 9, array(5, [struct.pack("<i", n) for n in (3, 2, 1, 4, 4)]))],
                                 [("w", [32, 3], 0, 0)], bytes(384)))
write("gguf", "k-quant", gguf([], [("w", [256, 1], 12, 0), ("x", [256], 14, 160)], bytes(370)))
write("gguf", "overlap", gguf([], [("a", [16], 0, 0), ("b", [1], 0, 32)], bytes(64)))
write("gguf", "lie", b"GGUF" + struct.pack("<IQQ", 3, 2 ** 61, 2 ** 61))
write("gguf", "deep", gguf([kv("deep", 9, array(9, [array(0, [b"\0"])]))]))


def index(weight_map, listing=None, **more):
    text = json.dumps({**more, "weight_map": weight_map}, separators=(",", ":")).encode()
    return text if listing is None else text + b"\0" + "\n".join(listing).encode()


ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
write("shards", "complete", index({"a": ONE, "b": TWO, "c": ONE}, [f"{ONE} a", f"{TWO} b", f"{ONE} c"],
                                  metadata={"total_size": 12}))
write("shards", "missing", index({"a": ONE, "b": TWO}, [f"{ONE} a", f"{ONE} b"]))
write("shards", "no-folder", index({"blocks.0.attn1.to_q.weight": ONE,
                                    "decoder.up_blocks.0.resnets.1.conv1.weight": TWO,
                                    "encoder.block.0.layer.1.DenseReluDense.wi_0.weight": "x",
                                    "model.diffusion_model.head.modulation": "x", "enc.blk.10.ffn_up.weight": "x"}))
write("shards", "escape", index({"a": "../x"}))
write("shards", "absolute", index({"a": "/etc/passwd"}))
write("shards", "twice", b'{"weight_map":{"a":"x","a":"y"}}')
write("shards", "number", index({"a": 1}))
write("shards", "none", index({}))


def frame(n):
    return bytes(i * 7 % 256 for i in range(n))


write("frames", "y4m", b"YUV4MPEG2 W16 H12 F16:1 Ip A1:1 C420mpeg2\n" + 2 * (b"FRAME\n" + frame(16 * 12 * 3 // 2)))
write("frames", "y4m-444", b"YUV4MPEG2 W4 H3 F24000:1001 C444p10\nFRAME\n" + frame(4 * 3 * 3 * 2))
write("frames", "y4m-short", b"YUV4MPEG2 W16 H12 F16:1 C420mpeg2\nFRAME\n" + frame(100))
write("frames", "tensors", safetensors({"frames": entry("U8", [2, 3, 4, 3], 0, 72)}, frame(72)))
write("frames", "pixels", safetensors({"pixels": entry("F32", [3, 1, 2, 2], 0, 48)}, struct.pack("<12f", *range(-6, 6))))
write("frames", "pixels-nan", safetensors({"pixels": entry("F32", [3, 1, 1, 1], 0, 12)}, b"\xff" * 12))
