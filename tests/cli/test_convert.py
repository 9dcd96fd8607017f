# SPDX-License-Identifier: Apache-2.0
"""`wan convert`: what it writes is read back by us, by other readers where they are installed, and by numpy."""
from wan import *

import argparse
import importlib.util
import time

try:
    import numpy as np
except ImportError:
    np = None
try:
    import gguf
except ImportError:
    gguf = None
try:
    from safetensors import safe_open
except ImportError:
    safe_open = None

DEMO = os.path.join(os.path.dirname(TESTS), "models", "demo", "wan-demo.gguf")
ORIGINAL = os.path.join(os.path.dirname(TINY), "original")
WIDTH = {"F64": 8, "I64": 8, "F32": 4, "F16": 2, "BF16": 2}


def values(kind, shape, data):
    """Numbers of a tensor, as float32."""
    raw = np.frombuffer(data, {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I8": "i1", "F8_E4M3": "u1"}[kind])
    if kind == "BF16":
        raw = (raw.astype(np.uint32) << 16).view(np.float32)
    if kind == "F8_E4M3":
        raw = fp8_values()[raw]
    return raw.astype(np.float32).reshape(shape)


def fp8_values():
    code = np.arange(256)
    e, m = (code >> 3) & 15, code & 7
    v = np.where(e == 0, m * 2.0 ** -9, (1 + m / 8) * 2.0 ** (e - 7.0))
    v[(code & 127) == 127] = np.nan
    return np.where(code & 128, -v, v).astype(np.float32)


def official():
    """The tiny model's tensors under the names of a file of all parts."""
    out = {}
    for name in sorted(os.listdir(ORIGINAL)):
        if name.startswith("diffusion") and name.endswith(".safetensors"):
            out.update(read_safetensors(os.path.join(ORIGINAL, name))[0])
    return out


def diffusers(part):
    """Tensors of a part of the tiny model, all shards."""
    out = {}
    for name in os.listdir(os.path.join(TINY, part)):
        if name.endswith(".safetensors"):
            out.update(read_safetensors(os.path.join(TINY, part, name))[0])
    return out


class Convert(Case):
    def frames(self, model):
        self.generate("--no-metadata", "-y", "-o", "f.safetensors", model=model)
        return read_safetensors(self.path("f.safetensors"))[0]

    def same(self, made, want):
        """Without unittest's own comparison, which takes minutes to tell megabytes apart."""
        self.assertEqual(sorted(made), sorted(want))
        self.assertEqual([k for k in want if made[k] != want[k]], [])

    def kept(self, *names, model=TINY):
        """Conversions in a row, each from the one before; the last must make the first model's frames."""
        want, at = self.frames(model), model
        for name in names:
            self.right("convert", at, name, "--type", "keep", "-q")
            at = self.path(name)
        self.same(self.frames(at), want)


class Kept(Convert):
    def test_one_safetensors(self):
        self.kept("one.safetensors")

    def test_folder(self):
        self.kept("folder")
        self.assertEqual(sorted(os.listdir(self.path("folder"))),
                         ["defaults.json", "model_index.json", "scheduler", "text_encoder", "tokenizer", "transformer", "vae"])
        for part, file in (("transformer", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"),
                           ("text_encoder", "model")):  # the names and numbers that the source has
            made, _ = read_safetensors(os.path.join(self.path("folder"), part, file + ".safetensors"))
            self.same(made, diffusers(part))

    def test_there_and_back(self):
        """Tokenizers go from spiece.model to lists and back; GGUF, safetensors and folder in turn."""
        self.kept("a.gguf", "b.safetensors", "c", "d.gguf", "e")

    def test_demo(self):
        self.kept("demo.gguf", model=DEMO)

    def test_codes_stay(self):
        self.right("convert", TINY, "a.safetensors", "--type", "fp8", "-q")
        self.right("convert", "a.safetensors", "b", "--type", "keep", "-q")
        self.same(self.frames(self.path("a.safetensors")), self.frames(self.path("b")))
        self.right("convert", "b", "c.safetensors", "--type", "fp8", "-q")
        self.same(read_safetensors(self.path("a.safetensors"))[0], read_safetensors(self.path("c.safetensors"))[0])


class Types(Convert):
    def made(self, *args):
        self.right("convert", ORIGINAL, "x.safetensors", "-y", "-q", *args)
        return read_safetensors(self.path("x.safetensors"))

    def test_plain(self):
        for kind in ("f32", "f16", "bf16"):
            tensors, meta = self.made("--type", kind)
            self.assertEqual(meta["wan.parts"].split(), ["transformer", "text_encoder", "vae"])
            self.assertEqual(tensors["blocks.0.ffn.0.weight"][0], kind.upper())
            self.assertEqual(tensors["text_encoder.blocks.0.attn.q.weight"][0], kind.upper())

    def test_aligned(self):
        with open(self.path("x.safetensors"), "wb"):
            pass
        self.made("--type", "int8", "--recipe", "vae.conv1.bias=bf16,head.head.bias=f16")
        with open(self.path("x.safetensors"), "rb") as f:
            head = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        for name, t in head.items():
            if name != "__metadata__":
                self.assertEqual(t["data_offsets"][0] % WIDTH.get(t["dtype"], 1), 0, name)

    @unittest.skipUnless(np, "no numpy")
    def test_codes(self):
        """fp8 and int8 against the arithmetic of the specification."""
        source, table = official(), fp8_values() if np else None
        for kind, stored, top in (("fp8", "F8_E4M3", 448), ("int8", "I8", 127)):
            tensors, _ = self.made("--type", kind)
            coded = [k for k in source if k + "_scale" in tensors]
            self.assertEqual(sorted(coded), sorted(k for k in source if k.startswith("blocks.") and k.endswith(".weight")
                                                   and len(source[k][1]) == 2))
            for name in coded:
                a = values(*source[name])
                self.assertEqual(tensors[name][:2], (stored, list(a.shape)))
                self.assertEqual(tensors[name + "_scale"][:2], ("F32", [len(a), 1]))
                scale = values(*tensors[name + "_scale"])
                want = np.maximum(np.abs(a).max(axis=1, keepdims=True), np.float32(1e-5)) / np.float32(top)
                np.testing.assert_array_equal(scale, want.astype(np.float32))
                x = a / scale
                if kind == "int8":
                    q = np.frombuffer(tensors[name][2], "i1").reshape(a.shape)
                    np.testing.assert_array_equal(q, np.rint(x).clip(-128, 127))
                    continue
                q = table[np.frombuffer(tensors[name][2], "u1")].reshape(a.shape)
                finite = np.sort(table[np.isfinite(table)])
                above = np.searchsorted(finite, x).clip(1, len(finite) - 1)
                nearest = np.minimum(np.abs(finite[above] - x), np.abs(finite[above - 1] - x))
                np.testing.assert_array_equal(np.abs(q - x), nearest)
            left = [k for k in source if k not in coded]  # embedders, norms, head: as stored
            self.same({k: tensors[k] for k in left}, {k: source[k] for k in left})

    def test_recipe(self):
        with open(self.path("rules"), "w") as f:
            f.write("# all but the first\nblocks.*.ffn.*.weight = fp8\nblocks.0.* = keep\n\nvae.* = f16\n")
        tensors, _ = self.made("--type", "bf16", "--recipe", "rules")
        kinds = {k: v[0] for k, v in tensors.items()}
        stored = official()["blocks.0.ffn.0.weight"][0]
        self.assertEqual([kinds[k] for k in ("blocks.0.ffn.0.weight", "blocks.1.ffn.0.weight", "blocks.1.self_attn.q.weight",
                                             "vae.conv1.weight", "vae.conv1.bias")], [stored, "F8_E4M3", "BF16", "F16", "F16"])
        self.right("convert", TINY, "x.gguf", "--type", "keep", "--recipe", "blocks.*.ffn.2.weight=q8_0", "-q")
        out = json.loads(self.right("inspect", "x.gguf", "--json"))
        self.assertEqual(out["parts"][0]["types"]["Q8_0"]["tensors"], out["parts"][0]["config"]["layers"])

    @unittest.skipUnless(safe_open and np, "no safetensors for Python")
    def test_other_reader(self):
        for kind in ("keep", "f16", "int8"):
            tensors, meta = self.made("--type", kind)
            with safe_open(self.path("x.safetensors"), "np") as f:
                self.assertEqual(f.metadata(), meta)
                self.assertEqual(set(f.keys()), set(tensors))
                for name, (dtype, shape, data) in tensors.items():
                    if dtype not in ("BF16", "F8_E4M3"):  # numpy has no such types
                        t = f.get_tensor(name)
                        self.assertEqual((list(t.shape), t.tobytes()), (shape, data), name)

    @unittest.skipUnless(gguf and np, "no gguf for Python")
    def test_gguf_reader(self):
        self.right("convert", ORIGINAL, "x.gguf", "--type", "q8_0", "-q")
        source = official()
        made = {t.name: t for t in gguf.GGUFReader(self.path("x.gguf")).tensors}
        self.assertLessEqual(set(source), set(made))
        for name, stored in source.items():
            a, t = values(*stored), made[name]
            self.assertEqual([int(n) for n in reversed(t.shape)], list(a.shape))
            got = gguf.dequantize(t.data, t.tensor_type).astype(np.float32).reshape(a.shape)
            want = a
            if t.tensor_type == gguf.GGMLQuantizationType.Q8_0:
                want = gguf.dequantize(gguf.quantize(a, t.tensor_type), t.tensor_type).reshape(a.shape)
            np.testing.assert_array_equal(got, want, name)


class Refused(Convert):
    def test_types(self):
        self.refused(USAGE, ["GGUF has no type fp8", ".safetensors"], "convert", TINY, "x.gguf", "--type", "fp8")
        self.refused(USAGE, ["GGUF has no type int8"], "convert", TINY, "x.gguf", "--type", "int8")
        self.refused(USAGE, ["safetensors has no type q4_k_m", ".gguf"], "convert", TINY, "x.safetensors", "--type", "q4_k_m")
        self.refused(USAGE, ["safetensors has no type q8_0"], "convert", TINY, "x", "--type", "q8_0")
        self.refused(USAGE, ["type z9", "no such recipe"], "convert", TINY, "x", "--type", "z9")

    def test_rules(self):
        for rule, words in (("blocks.0.ffn.0.weight=z9", ["rule 1", "z9"]), ("nowhere.*=f16", ["nowhere.*"]),
                            ("=f16", ["PATTERN=TYPE"]), ("blocks.*.modulation=fp8", ["only matrices", "modulation"]),
                            ("vae.conv1.weight=int8", ["only matrices"]), ("head.head.weight=q8_0", ["safetensors", "Q8_0"])):
            self.refused(USAGE, words, "convert", TINY, "x.safetensors", "--recipe", rule)
        self.refused(USAGE, ["rows of", "256"], "convert", TINY, "x.gguf", "--recipe", "blocks.0.ffn.0.weight=q4_k")
        self.refused(IO, ["absent.txt"], "convert", TINY, "x.gguf", "--recipe", "absent.txt")

    def test_outputs_that_exist(self):
        self.right("convert", TINY, "x.safetensors", "-q")
        self.refused(OUTPUT, ["x.safetensors exists", "-y"], "convert", TINY, "x.safetensors")
        os.mkdir(self.path("d"))
        self.right("convert", TINY, "d", "-q")  # an empty folder may be filled
        self.refused(OUTPUT, ["not empty"], "convert", TINY, "d", "-y")
        self.refused(OUTPUT, ["no folder"], "convert", TINY, "x.safetensors/", "-y")

    def test_full_disk(self):
        for name in ("x.gguf", "x.safetensors", "x"):
            self.refused(SPACE, ["largest file"], "convert", TINY, name, limits={resource.RLIMIT_FSIZE: 200000})

    def test_damaged_source(self):
        model = self.copy()
        edit(part(model, "vae"), lambda b: b[:-100])
        before = self.files()
        for name in ("x.gguf", "x.safetensors", "x"):
            self.refused(FORMAT, [".safetensors"], "convert", model, name)
        self.assertEqual(self.files(), before)

    def test_pytorch(self):
        with open(self.path("Wan2.2_VAE.pth"), "wb") as f:
            f.write(b"PK\3\4" + bytes(100))
        self.refused(FORMAT, ["tools/pth2safetensors.py", "Wan2.2_VAE.pth"], "inspect", "Wan2.2_VAE.pth")


@unittest.skipUnless(importlib.util.find_spec("torch") and np, "no torch for Python")
class PyTorch(Convert):
    """tools/pth2safetensors.py, and a VAE that went through it."""

    def tool(self, *args):
        p = subprocess.run([sys.executable, os.path.join(os.path.dirname(TESTS), "tools", "pth2safetensors.py"), *args],
                           cwd=self.dir, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return p.returncode, p.stderr.decode()

    def test_tool(self):
        import torch
        source = diffusers("vae")
        kinds = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
        state = {k: torch.frombuffer(bytearray(d), dtype=kinds[t]).reshape(s) for k, (t, s, d) in source.items()}
        torch.save({"state_dict": {"_orig_mod." + k: v for k, v in state.items()}, "epoch": 3}, self.path("vae.pth"))
        self.assertEqual(self.tool("vae.pth", "vae.safetensors"), (0, ""))
        self.same(read_safetensors(self.path("vae.safetensors"))[0], source)
        self.right("convert", TINY, "x.gguf", "--vae", "vae.safetensors", "--type", "keep", "-q")
        self.assertIn("exists", self.tool("vae.pth", "vae.safetensors")[1])

    def test_refused(self):
        import torch
        torch.save({"a": argparse.Namespace(b=1)}, self.path("code.pth"))
        with open(self.path("cut.pth"), "wb") as f:
            f.write(b"PK\3\4" + bytes(99))
        torch.save({"epoch": 3}, self.path("none.pth"))
        for name, words in (("code.pth", "weights alone"), ("cut.pth", "weights alone"), ("absent.pth", "no such file"),
                            ("none.pth", "no tensors in it")):
            before = self.files()
            status, err = self.tool(name, "x.safetensors")
            self.assertEqual((status, self.files()), (1, before))
            self.assertIn(words, err)
            self.assertEqual(len(err.splitlines()), 1, err)


class Large(Convert):
    """A transformer with one tensor of 768 MB, a hole on the disk: how much of it is in memory at once?"""

    def setUp(self):
        super().setUp()
        shutil.copytree(TINY, self.path("model"))
        big, kinds = 3 << 28, diffusers("transformer")
        kinds["zz.extra.weight"] = ("F32", [big // 4 // 4096, 4096], None)
        head, at = {}, 0
        for name, (kind, shape, data) in kinds.items():
            size = len(data) if data is not None else big
            head[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(head).encode()
        os.chmod(self.path("model/transformer"), 0o755)
        for name in os.listdir(self.path("model/transformer")):
            if "safetensors" in name:
                os.unlink(self.path("model/transformer/" + name))
        with open(self.path("model/transformer/diffusion_pytorch_model.safetensors"), "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            for name, (_, _, data) in kinds.items():
                f.seek(big, 1) if data is None else f.write(data)
            f.truncate(8 + len(text) + at)

    @unittest.skipIf(SANITIZED, "the sanitizers' own memory is counted too")
    def test_memory(self):
        """Half of it: pages go back every 256 MiB."""
        p = subprocess.Popen([WAN, "convert", "model", "x.safetensors", "--type", "fp8", "-q"], cwd=self.dir)
        _, status, used = os.wait4(p.pid, 0)
        p.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(p.returncode, OK)
        self.assertEqual(read_safetensors(self.path("x.safetensors"))[0]["zz.extra.weight"][0], "F8_E4M3")
        self.assertLess(used.ru_maxrss, 400 * 1024)

    def test_interrupted(self):
        for name in ("x.gguf", "x.safetensors", "x"):
            p = subprocess.Popen([WAN, "convert", "model", name, "--type", "keep", "-q"], cwd=self.dir, stderr=subprocess.PIPE)
            for _ in range(2000):
                if any(n.endswith(".tmp") for n in self.files()):
                    break
                time.sleep(0.002)
            p.send_signal(signal.SIGINT)
            err = p.communicate(timeout=60)[1].decode()
            self.assertEqual(p.returncode, CANCELLED, err)
            self.assertEqual(self.files(), ["model"])


main()
