# SPDX-License-Identifier: Apache-2.0
"""Files that are missing, cut short, or lie: each has its status and a sentence that names the file and the fault."""
import zlib

from wan import *


class Weights(Case):
    """A model of which one thing is wrong.  --dry-run is enough: everything is checked before anything is computed."""

    def broken(self, status, words, *args):
        self.refused(status, words, "generate", "-m", self.model, "-p", "a cat", *SMALL, "--dry-run", *args)

    def setUp(self):
        super().setUp()
        self.model = self.copy()
        self.dit = part(self.model, "transformer")
        self.text = part(self.model, "text_encoder")
        self.vae = part(self.model, "vae")

    def test_copy_is_fine(self):
        self.right("generate", "-m", self.model, "-p", "a cat", *SMALL, "--dry-run")

    def test_missing_model(self):
        self.refused(IO, "nowhere", "generate", "-m", "nowhere", "-p", "x")

    def test_missing_parts(self):
        for folder in ("transformer", "text_encoder", "vae", "tokenizer"):
            with self.subTest(folder=folder):
                os.rename(os.path.join(self.model, folder), self.path("away"))
                self.broken(IO, self.model)
                os.rename(self.path("away"), os.path.join(self.model, folder))

    def test_missing_shard(self):
        os.remove(self.dit)
        self.broken(IO, os.path.basename(self.dit))

    def test_truncated_safetensors(self):
        size = os.path.getsize(self.vae)
        for keep in (0, 4, 8, 100, size // 2, size - 1):
            with self.subTest(keep=keep):
                shutil.copyfile(part(TINY, "vae"), self.vae)
                os.truncate(self.vae, keep)
                self.broken(FORMAT, self.vae)

    def test_lying_safetensors(self):
        def header(change):
            def apply(blob):
                n = struct.unpack("<Q", blob[:8])[0]
                text = change(bytes(blob[8:8 + n]))
                return struct.pack("<Q", len(text)) + text + blob[8 + n:]
            return apply

        for name, change in {
            "header longer than the file": lambda b: struct.pack("<Q", 1 << 40) + b[8:],
            "header of 2^63 bytes": lambda b: struct.pack("<Q", 1 << 63) + b[8:],
            "no JSON": header(lambda t: b"{" + t),
            "not an object": header(lambda t: b"[1, 2]"),
            "bytes outside": header(lambda t: re.sub(rb'"data_offsets": ?\[(\d+)', rb'"data_offsets":[9\1', t, 1)),
            "shape for other bytes": header(lambda t: re.sub(rb'"shape": ?\[', rb'"shape":[2,', t, 1)),
            "negative shape": header(lambda t: re.sub(rb'"shape": ?\[', rb'"shape":[-1,', t, 1)),
            "huge shape": header(lambda t: re.sub(rb'"shape": ?\[', rb'"shape":[9223372036854775807,4,', t, 1)),
            "unknown type": header(lambda t: re.sub(rb'"dtype": ?"[A-Z0-9]+"', b'"dtype":"F7"', t, 1)),
        }.items():
            with self.subTest(name):
                shutil.copyfile(part(TINY, "vae"), self.vae)
                edit(self.vae, change)
                self.broken(TYPE if name == "unknown type" else FORMAT, self.vae)

    def test_not_a_weight_file(self):
        edit(self.vae, lambda b: b"hello" * 1000)
        self.broken(FORMAT, self.vae)

    def test_shard_index(self):
        index = self.dit[:self.dit.index("-000")] + ".safetensors.index.json"
        for words, text in [
            ("index.json", "{"), ("index.json", "[]"), ("index.json", "{}"), ("index.json", '{"weight_map": 3}'),
            ("index.json", '{"weight_map": {"a": 3}}'), ("..", '{"weight_map": {"a": "../vae/x.safetensors"}}'),
            ("index.json", '{"weight_map": {}}'),
        ]:
            with self.subTest(text):
                edit(index, lambda b: text.encode())
                self.broken(FORMAT, words)

    def test_config(self):
        config = os.path.join(self.model, "transformer", "config.json")
        with open(config, encoding="utf-8") as f:
            good = json.load(f)
        for text in ("", "{", "[]", "nonsense"):
            with self.subTest(text):
                edit(config, lambda b: text.encode())
                self.broken(FORMAT, "config.json")
        for key, value in {"num_attention_heads": 0, "attention_head_dim": -2, "num_layers": 10**9}.items():
            with self.subTest(key):
                edit(config, lambda b: json.dumps({**good, key: value}).encode())
                status, _, err = self.wan("generate", "-m", self.model, "-p", "x", *SMALL, "--dry-run")
                self.assertIn(status, (FORMAT, SHAPE), err)

    def test_missing_tensor(self):
        spoil(self.vae, lambda t: t.pop("decoder.conv_in.weight"))
        # Named as the official files do, which is how weights are looked up in any layout.
        self.broken(SHAPE, [self.vae, "decoder.conv1.weight is missing"])

    def test_wrong_shape(self):
        def change(tensors):
            dtype, shape, data = tensors["decoder.conv_in.bias"]
            tensors["decoder.conv_in.bias"] = (dtype, [shape[0] // 2], data[:len(data) // 2])
        spoil(self.vae, change)
        self.broken(SHAPE, [self.vae, "decoder.conv_in.bias"])

    def test_type_that_cannot_compute(self):
        def change(tensors):
            dtype, shape, data = tensors["decoder.conv_in.weight"]
            n = len(data) // {"F32": 4, "BF16": 2, "F16": 2}[dtype]
            tensors["decoder.conv_in.weight"] = ("I32", shape, bytes(4 * n))
        spoil(self.vae, change)
        self.broken(TYPE, [self.vae, "decoder.conv_in.weight", "I32"])

    def test_mixed_up_parts(self):
        """Parts of two models whose widths differ."""
        for option, folder, words in [("--vae", "vae", "channels"), ("--text-encoder", "text_encoder", "width")]:
            with self.subTest(option):
                self.broken(PARTS, words, option, os.path.join(OTHER, folder))

    def test_parts_in_the_wrong_place(self):
        for option, folder in [("--vae", "transformer"), ("--dit", "vae"), ("--text-encoder", "transformer"),
                               ("--tokenizer", "transformer")]:
            with self.subTest(option):
                status, _, err = self.wan("generate", "-m", self.model, "-p", "x", *SMALL, "--dry-run", option,
                                          os.path.join(self.model, folder))
                self.assertIn(status, (IO, FORMAT, SHAPE, PARTS), err)

    def test_tokenizer(self):
        spiece = os.path.join(self.model, "tokenizer", "spiece.model")
        for keep in (0, 100, os.path.getsize(spiece) // 2):
            with self.subTest(keep=keep):
                os.truncate(spiece, keep)
                self.broken(FORMAT, "spiece.model")
                shutil.copyfile(os.path.join(TINY, "tokenizer", "spiece.model"), spiece)

    def test_defaults(self):
        path = os.path.join(self.model, "defaults.json")
        for text in ("{", "[]", '{"steps": 0}', '{"sampler": "ddim"}', '{"negative_prompt": 3}'):
            with self.subTest(text):
                edit_new(path, text)
                self.broken(FORMAT, "defaults.json")


class Gguf(Case):
    def setUp(self):
        super().setUp()
        self.model = self.copy(GGUF)
        self.dit = os.path.join(self.model, "dit-Q8_0.gguf")

    def broken(self, status, words):
        self.refused(status, words, "generate", "-m", self.model, "-p", "x", *SMALL, "--dry-run")

    def test_truncated(self):
        size = os.path.getsize(self.dit)
        for keep in (3, 4, 20, 1000, size // 2, size - 1):
            with self.subTest(keep=keep):
                shutil.copyfile(os.path.join(GGUF, "dit-Q8_0.gguf"), self.dit)
                os.truncate(self.dit, keep)
                self.broken(FORMAT, self.dit)

    def test_lies(self):
        for name, change in {
            "magic": lambda b: b"GGUX" + b[4:],
            "version": lambda b: b[:4] + struct.pack("<I", 99) + b[8:],
            "tensors": lambda b: b[:8] + struct.pack("<Q", 1 << 60) + b[16:],
            "keys": lambda b: b[:16] + struct.pack("<Q", 1 << 60) + b[24:],
            "key length": lambda b: b[:24] + struct.pack("<Q", 1 << 60) + b[32:],
        }.items():
            with self.subTest(name):
                shutil.copyfile(os.path.join(GGUF, "dit-Q8_0.gguf"), self.dit)
                edit(self.dit, change)
                self.broken(FORMAT, self.dit)

    def test_unknown_type(self):
        """The type of blk.0's query matrix becomes one that no build knows."""
        def change(blob):
            at = blob.index(b".self_attn.q.weight") + len(b".self_attn.q.weight")
            dims = struct.unpack("<I", blob[at:at + 4])[0]
            at += 4 + 8 * dims
            blob[at:at + 4] = struct.pack("<I", 4000)
        edit(self.dit, change)
        self.broken(TYPE, [self.dit, "4000"])


class Pictures(Case):
    def picture(self, blob, name="p.png"):
        with open(self.path(name), "wb") as f:
            f.write(blob)
        return self.path(name)

    def bad(self, blob, words="p.png", status=IMAGE_BAD):
        self.picture(blob)
        self.refused(status, words, "generate", "-m", TINY, "-p", "x", *SMALL, "-i", "p.png", "-o", "c.safetensors")

    def test_missing(self):
        self.refused(IO, "none.png", "generate", "-m", TINY, "-p", "x", *SMALL, "-i", "none.png")

    def test_a_folder(self):
        os.mkdir(self.path("d.png"))
        self.refused(IO, "d.png", "generate", "-m", TINY, "-p", "x", *SMALL, "-i", "d.png")

    def test_not_a_picture(self):
        self.bad(b"")
        self.bad(b"BM" + bytes(1000))
        self.bad(b"hello, this is text\n" * 30)

    def test_truncated(self):
        whole = read(IMAGE)
        for keep in (7, 8, 20, 40, len(whole) // 2, len(whole) - 13):
            with self.subTest(keep=keep):
                self.bad(whole[:keep])

    def test_lies(self):
        whole = bytearray(read(IMAGE))
        huge = whole[:]
        huge[16:24] = struct.pack(">II", 60000, 60000)
        huge[29:33] = struct.pack(">I", zlib.crc32(huge[12:29]))
        self.bad(huge, "60000")
        none = whole[:]
        none[16:24] = struct.pack(">II", 0, 5)
        none[29:33] = struct.pack(">I", zlib.crc32(none[12:29]))
        self.bad(none)
        flipped = whole[:]
        flipped[len(whole) // 2] ^= 0xFF
        self.bad(flipped)


class Settings(Case):
    def test_grid(self):
        for size in ("65x32", "64x33", "16x32", "8x8"):
            with self.subTest(size=size):
                self.refused(GRID, ["multiple of 32"], "generate", "-m", TINY, "-p", "x", "--size", size)
        for frames in ("2", "4", "6", "32"):
            with self.subTest(frames=frames):
                self.refused(GRID, [frames, "4n + 1"], "generate", "-m", TINY, "-p", "x", "--size", "64x32", "--frames",
                             frames)

    def test_prompt_that_is_not_utf8(self):
        for prompt in (b"caf\xe9", b"\xff", b"ok \xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"):
            with self.subTest(prompt=prompt):
                self.refused(TEXT, "UTF-8", "generate", "-m", TINY, "-p", prompt, *SMALL)
                self.refused(TEXT, "UTF-8", "generate", "-m", TINY, "-p", "x", "-n", prompt, *SMALL)
                self.refused(TEXT, "UTF-8", "stage", "tokens", "-m", TINY, "-p", prompt, "--out", "t.safetensors")

    def test_turbo(self):
        self.refused(USAGE, ["turbo", "4 steps"], "generate", "-m", TINY, "-p", "x", *SMALL, "--sampler", "turbo", "--steps",
                     "5")

    def noise(self, **tensors):
        write_safetensors(self.path("n.safetensors"), tensors)
        return ["generate", "-m", TINY, "-p", "x", *SMALL, "--noise", "n.safetensors"]

    def test_noise_file(self):
        good = ("F32", [48, 2, 2, 4], bytes(4 * 48 * 2 * 2 * 4))
        self.refused(IO, "absent", "generate", "-m", TINY, "-p", "x", *SMALL, "--noise", "absent")
        self.refused(SHAPE, ["n.safetensors", "[48, 2, 4, 2]", "[48, 2, 2, 4]"],
                     *self.noise(noise=("F32", [48, 2, 4, 2], good[2])))
        self.refused(SHAPE, "no tensor noise", *self.noise(other=good))
        self.refused(TYPE, ["noise", "F16"], *self.noise(noise=("F16", [48, 2, 2, 4], good[2][:len(good[2]) // 2])))
        self.right(*self.noise(noise=good), "-o", "c.safetensors")

    def test_stage_inputs(self):
        good = ("F32", [48, 2, 2, 4], bytes(4 * 48 * 2 * 2 * 4))
        for status, words, tensors in [
            (SHAPE, ["latents"], {"pixels": good}),
            (SHAPE, ["latents", "[47"], {"latents": ("F32", [47, 1, 1, 1], bytes(4 * 47))}),
            (TYPE, ["latents", "F16"], {"latents": ("F16", [48, 1, 1, 1], bytes(2 * 48))}),
            (SHAPE, ["latents"], {"latents": ("F32", [48, 1, 1], bytes(4 * 48))}),
        ]:
            write_safetensors(self.path("in.safetensors"), tensors)
            self.refused(status, words, "stage", "decode", "-m", TINY, "--in", "in.safetensors", "--out", "o.safetensors")
        self.refused(IO, "absent", "stage", "decode", "-m", TINY, "--in", "absent", "--out", "o.safetensors")
        write_safetensors(self.path("in.safetensors"), {"pixels": ("F32", [3, 1, 32, 40], bytes(4 * 3 * 32 * 40))})
        self.refused(GRID, ["40"], "stage", "encode", "-m", TINY, "--in", "in.safetensors", "--out", "o.safetensors")


def read(path):
    with open(path, "rb") as f:
        return f.read()


def edit_new(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


if __name__ == "__main__":
    main()
