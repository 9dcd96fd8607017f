# SPDX-License-Identifier: Apache-2.0
"""wan quality: two clips of one seed, what is said of them, bars, the contact sheet, and inputs that are none."""
import zlib

from wan import *

W, H, T = 32, 16, 9


def frames(change=lambda t, y, x, c: 0):
    """u8 [T, H, W, 3] of a ramp, each value changed a little."""
    return bytes(min(255, 30 + 4 * x + 3 * y + 20 * c + t + change(t, y, x, c))
                 for t in range(T) for y in range(H) for x in range(W) for c in range(3))


def png_size(path):
    with open(path, "rb") as f:
        head = f.read(24)
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:])


class Quality(Case):
    def setUp(self):
        super().setUp()
        self.tensors("a.safetensors", frames())
        # Two levels off in one chunk: frames 5 to 8.
        self.tensors("b.safetensors", frames(lambda t, y, x, c: 2 * (t >= 5)))

    def tensors(self, name, data, shape=(T, H, W, 3), dtype="U8", tensor="frames"):
        write_safetensors(self.path(name), {tensor: (dtype, list(shape), data)})

    def compare(self, *args):
        return json.loads(self.right("quality", *args, "--json"))

    def test_equal(self):
        o = self.compare("a.safetensors", "a.safetensors")
        self.assertEqual((o["event"], o["width"], o["height"], o["lossless"], o["passed"]), ("quality", W, H, True, True))
        self.assertEqual((len(o["frames"]), len(o["chunks"])), (T, 3))
        for q in [o["clip"], o["median"], o["worst"], *o["frames"], *o["chunks"]]:
            self.assertEqual(q, {"psnr": None, "ssim": 1.0, "mae": 0.0, "mse": 0.0, "most": 0})
        text = self.right("quality", "a.safetensors", "a.safetensors").decode()
        self.assertRegex(text, r"(?m)^worst chunk +equal +1\.00000 +0\.0000 +0$")

    def test_one_chunk_off(self):
        o = self.compare("a.safetensors", "b.safetensors")
        self.assertEqual([q["mae"] for q in o["chunks"]], [0, 0, 2])
        self.assertEqual((o["worst_chunk"], o["worst_frame"], o["median"]["mae"]), (2, 5, 0))
        self.assertAlmostEqual(o["worst"]["psnr"], 42.1102, 4)  # 20 log10(255 / 2)
        self.assertAlmostEqual(o["clip"]["mse"], 4 * 4 / 9)
        text = self.right("quality", "a.safetensors", "b.safetensors").decode()
        self.assertRegex(text, r"(?m)^frames 5-8 +42\.11 ")
        self.assertRegex(text, r"(?m)^frame 0 +equal ")
        text = self.right("quality", "a.safetensors", "b.safetensors", "--each", "frame").decode()
        self.assertEqual(len(re.findall(r"(?m)^frame \d", text)), T)
        text = self.right("quality", "a.safetensors", "b.safetensors", "--each", "none").decode()
        self.assertEqual(re.findall(r"(?m)^frame", text), [])
        self.assertEqual(self.right("quality", "a.safetensors", "b.safetensors", "-q"), b"")

    def test_bars(self):
        """They hold the worst chunk; status 1 names each that is missed."""
        for args in (["--min-psnr", "42.1"], ["--min-ssim", "0.9"], ["--max-mae", "2"], ["--min-psnr", "0"]):
            self.right("quality", "a.safetensors", "b.safetensors", *args)
        self.right("quality", "a.safetensors", "a.safetensors", "--min-psnr", "200", "--min-ssim", "1", "--max-mae", "0")
        for words, args in [(["42.11", "PSNR", "42.2"], ["--min-psnr", "42.2"]), (["SSIM", "0.99999"], ["--min-ssim", "0.99999"]),
                            (["mean error 2 ", "1.99"], ["--max-mae", "1.99"]),
                            (["PSNR", "SSIM", "mean error"], ["--min-psnr", "60", "--min-ssim", "1", "--max-mae", "0"])]:
            with self.subTest(args):
                self.refused(INTERNAL, [*words, "b.safetensors"], "quality", "a.safetensors", "b.safetensors", *args)
        status, out, _ = self.wan("quality", "a.safetensors", "b.safetensors", "--max-mae", "1", "--json")
        self.assertEqual(status, INTERNAL)
        lines = [json.loads(line) for line in out.splitlines()]
        self.assertEqual([(x["event"], x.get("passed")) for x in lines], [("quality", False), ("error", None)])

    def test_sheet(self):
        out = self.right("quality", "a.safetensors", "b.safetensors", "--sheet", "s.png", "--amplify", "20").decode()
        self.assertIn("s.png: A, B and their difference times 20 of frames 0, 1, 3, 5 (worst), 6, 8", out)
        self.assertEqual(png_size(self.path("s.png")), (6 * W + 5 * 2, 3 * H + 2 * 2))
        self.refused(OUTPUT, "s.png", "quality", "a.safetensors", "b.safetensors", "--sheet", "s.png")
        o = self.compare("a.safetensors", "b.safetensors", "--sheet", "s.png", "-y")
        self.assertEqual(o["sheet_frames"], [0, 1, 3, 5, 6, 8])
        self.refused(USAGE, ["s.jpg", ".png"], "quality", "a.safetensors", "b.safetensors", "--sheet", "s.jpg")
        self.refused(OUTPUT, "nowhere", "quality", "a.safetensors", "b.safetensors", "--sheet", "nowhere/s.png")
        self.refused(USAGE, ["--each", "pixel"], "quality", "a.safetensors", "b.safetensors", "--each", "pixel")

    def test_what_generate_writes(self):
        """The same clip in every kind: the lossless ones are equal, the others near."""
        for name in ("c.safetensors", "c.png", "c.mp4", "c.y4m"):
            self.right("generate", "-m", TINY, "-p", "a cat", *SMALL, "-o", name)
        for name in ("c.png", "c-%05d.png"):
            self.assertEqual(self.compare("c.safetensors", name)["clip"]["most"], 0)
        os.mkdir(self.path("p"))
        for name in self.files():
            if name.startswith("c-0"):
                os.rename(self.path(name), self.path("p/" + name))
        self.assertEqual(self.compare("p", "c.safetensors")["clip"]["most"], 0)
        for name in ("c.mp4", "c.y4m"):
            o = self.compare("c.safetensors", name)
            self.assertFalse(o["lossless"])
            self.assertGreater(o["clip"]["ssim"], 0.9)
            self.assertEqual(self.compare(name, name)["clip"]["most"], 0)
        # What was given to the stage as latents comes back as pixels, near the clip's own frames.
        tensors, _ = read_safetensors(self.path("c.safetensors"))
        write_safetensors(self.path("l.safetensors"), {"latents": tensors["latents"]})
        self.right("stage", "decode", "-m", TINY, "--in", "l.safetensors", "--out", "d.safetensors")
        self.assertEqual(self.compare("c.safetensors", "d.safetensors")["clip"]["most"], 0)

    def test_other_settings(self):
        """Clips of other seeds are compared, with a warning."""
        for name, more in [("c.safetensors", []), ("d.safetensors", ["--seed", "8"]), ("d.mp4", ["--seed", "8", "--steps", "1"])]:
            self.right("generate", "-m", TINY, "-p", "a cat", *SMALL, *more, "-o", name)
        for name, words in [("d.safetensors", "settings: seed\n"), ("d.mp4", "settings: steps, seed\n")]:
            status, _, err = self.wan("quality", "c.safetensors", name)
            self.assertEqual(status, OK)
            self.assertTrue(err.startswith("wan: warning: ") and err.endswith(words), err)
        status, out, _ = self.wan("quality", "c.safetensors", "d.mp4", "--json")
        self.assertEqual([json.loads(x)["event"] for x in out.splitlines()], ["log", "quality"])
        self.assertEqual(self.wan("quality", "c.safetensors", "c.safetensors")[2], "")

    def test_differences_of_size(self):
        self.tensors("wide.safetensors", frames(), (T, W, H, 3))
        self.tensors("short.safetensors", frames()[:5 * W * H * 3], (5, H, W, 3))
        self.tensors("small.safetensors", bytes(8 * 8 * 3), (1, 8, 8, 3))
        self.refused(SHAPE, ["32x16", "16x32"], "quality", "a.safetensors", "wide.safetensors")
        self.refused(SHAPE, ["9 frames", "has 5"], "quality", "a.safetensors", "short.safetensors")
        self.refused(SHAPE, ["8x8", "11x11"], "quality", "small.safetensors", "small.safetensors")
        self.refused(USAGE, "usage: wan quality", "quality", "a.safetensors")
        self.refused(USAGE, "third", "quality", "a.safetensors", "b.safetensors", "third")

    def test_inputs_that_are_none(self):
        def refuse(status, words, name):
            self.refused(status, words, "quality", "a.safetensors", name)
            self.refused(status, words, "quality", name, "a.safetensors")
        refuse(IO, "absent.mp4", "absent.mp4")
        refuse(IO, ["e.png", "no numbered PNG"], "e.png")
        os.mkdir(self.path("empty"))
        refuse(IO, ["empty", "no numbered PNG"], "empty")
        refuse(IO, "/dev/zero", "/dev/zero")
        for name, data in [("zero.mp4", b""), ("zero.safetensors", b""), ("text.mp4", b"hello " * 100), ("ebml.webm", b"\x1a\x45\xdf\xa3" * 9),
                           ("ftyp.mp4", b"\0\0\0\x18ftypisom" + bytes(500)), ("y.y4m", b"YUV4MPEG2 W99999 H99999 F1:1\nFRAME\n"),
                           ("z.y4m", b"YUV4MPEG2 W32 H16 F1:1\n"), ("n.y4m", b"YUV4MPEG2 W-5 H0 F0:0 C999\nFRAME\n" + bytes(99)),
                           ("head.safetensors", struct.pack("<Q", 1 << 40) + b"{")]:
            with open(self.path(name), "wb") as f:
                f.write(data)
            refuse(FORMAT, name, name)
        with open(self.path("empty.png"), "wb"):
            pass
        refuse(IMAGE_BAD, "empty.png", "empty.png")
        for dtype, shape, tensor, status, words in [
            ("U8", (T, 3, H, W), "frames", SHAPE, "[9, 3, 16, 32]"), ("I8", (T, H, W, 3), "frames", TYPE, "I8"),
            ("U8", (T, H, W, 3), "pixels", TYPE, "F32"), ("U8", (T, H, W, 3), "picture", SHAPE, "neither frames"),
            ("U8", (T * H * W, 3), "frames", SHAPE, "[4608, 3]"),
        ]:
            self.tensors("x.safetensors", frames(), shape, dtype, tensor)
            refuse(status, words, "x.safetensors")

    def test_spoilt_at_random(self):
        """Cut short or with bytes changed: a sentence, never a crash, and nothing cut is accepted."""
        self.right("generate", "-m", TINY, "-p", "a cat", *SMALL, "-o", "c.mp4")
        self.right("generate", "-m", TINY, "-p", "a cat", *SMALL, "-o", "c.y4m")
        for name in ("c.mp4", "c.y4m", "a.safetensors"):
            with open(self.path(name), "rb") as f:
                good = f.read()
            seed = zlib.crc32(name.encode())
            for k in range(24):
                seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
                bad = bytearray(good)
                if k % 2:
                    bad[seed % min(len(bad), 2000)] ^= 1 << k % 8
                else:
                    del bad[seed % len(bad):]
                with open(self.path("bad." + name.split(".")[1]), "wb") as f:
                    f.write(bad)
                status, _, err = self.wan("quality", name, "bad." + name.split(".")[1])
                with self.subTest(name=name, k=k, size=len(bad)):
                    self.assertNotIn("Sanitizer", err)
                    self.assertIn(status, (OK, IO, FORMAT, SHAPE, TYPE) if k % 2 else (FORMAT, SHAPE), err)
                    self.assertEqual(status != OK, bool(re.search(r"(?m)^wan: (?!warning)", err)), err)


if __name__ == "__main__":
    main()
