# SPDX-License-Identifier: Apache-2.0
"""Whole runs: events, plans, and the same clip again."""
import shlex

from wan import *

DEMO = os.path.join(os.path.dirname(TESTS), "models", "demo")


class Runs(Case):
    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def events(self, *args, **more):
        out = self.right("generate", "-p", "a cat", "--json", *args, **more)
        return [json.loads(line) for line in out.splitlines()]

    def test_events(self):
        events = self.events("-m", TINY, *SMALL, "-i", IMAGE, "-o", "c.safetensors")
        progress, done = [e for e in events if e["event"] == "progress"], events[-1]
        self.assertEqual(len(progress) + 1, len(events))
        stages = []
        for e in progress:
            self.assertTrue(0 <= e["step"] <= e["steps"])
            self.assertTrue(e["seconds_left"] is None or e["seconds_left"] >= 0)
            if e["stage"] not in stages:
                stages.append(e["stage"])
        self.assertEqual(stages, ["text", "encode", "denoise", "decode"])
        for stage in stages:
            steps = [e["step"] for e in progress if e["stage"] == stage]
            self.assertEqual(steps, sorted(steps))
            self.assertEqual((steps[0], steps[-1]), (0, [e["steps"] for e in progress if e["stage"] == stage][0]))
        self.assertEqual(done["event"], "done")
        self.assertEqual(done["output"], "c.safetensors")
        self.assertEqual(done["seed"], 7)
        self.assertEqual(done["settings"]["image"], IMAGE)
        self.assertEqual(set(done["seconds"]), {"text", "encode", "denoise", "decode", "total"})
        self.assertTrue(all(v >= 0 for v in done["seconds"].values()))
        self.assertAlmostEqual(done["seconds"]["total"],
                               sum(v for k, v in done["seconds"].items() if k != "total"), places=6)
        if not SANITIZED:
            self.assertLessEqual(done["peak_rss"], done["plan_peak"])

    def test_errors_are_events(self):
        for args, code in ((["--frames", "6"], GRID), (["--sed", "1"], USAGE), (["-i", "absent.png"], IO)):
            status, out, err = self.wan("generate", "-m", TINY, "-p", "x", "--json", *args)
            last = json.loads(out.splitlines()[-1])
            self.assertEqual((status, last["event"], last["code"]), (code, "error", code))
            self.assertIn(last["message"], err)

    def test_big_seeds(self):
        for seed in (0, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1):
            events = self.events("-m", TINY, *SMALL, "--seed", str(seed), "--dry-run")
            self.assertEqual(events[-1]["seed"], seed)
            self.assertEqual(int(events[-1]["settings"]["seed"]), seed)

    def test_random_seeds(self):
        seeds = {self.events("-m", TINY, *SMALL, "--seed", "-1", "--dry-run")[-1]["seed"] for _ in range(4)}
        self.assertGreater(len(seeds), 1)

    @unittest.skipIf(SANITIZED, "AddressSanitizer's own memory is in no plan")
    def test_plan_holds(self):
        """What --dry-run says is what the run says, and at least what it takes."""
        for args in (["--size", "64x32", "--frames", "5", "-o", "c.safetensors"],
                     ["--size", "64x32", "--frames", "5", "-o", "c.mp4"],
                     ["--size", "320x256", "--frames", "17", "-o", "c.mp4"],
                     ["--size", "320x256", "--frames", "9", "-o", "c.webm"],
                     ["--size", "256x320", "--frames", "9", "-o", "c.gif"],
                     ["--size", "256x320", "--frames", "9", "-o", "c.png"],
                     ["--size", "256x320", "--frames", "9", "-i", IMAGE, "-o", "c.y4m"],
                     ["--size", "512x512", "--frames", "5", "-i", IMAGE, "-o", "c.safetensors"]):
            with self.subTest(args=args):
                common = ["-m", TINY, "--steps", "1", "--seed", "1", *args]
                plan = self.events(*common, "--dry-run")[-1]
                self.assertEqual(self.files(), [])
                done = self.events(*common)[-1]
                for name in self.files():
                    os.remove(self.path(name))
                self.assertEqual(plan["event"], "plan")
                self.assertGreaterEqual(plan["plan_peak"], done["peak_rss"])
                self.assertAlmostEqual(plan["plan_peak"] / done["plan_peak"], 1, delta=0.05)
                self.assertEqual(plan["settings"], done["settings"])

    def test_dry_run(self):
        plan = self.events("-m", TINY, *SMALL, "--dry-run")[-1]
        self.assertEqual(plan["latents"], [48, 2, 2, 4])
        self.assertGreater(plan["memory"]["dit_weights"], 100000)
        self.assertGreater(plan["flops"], 1e6)
        text = self.right("generate", "-m", TINY, "-p", "a cat", *SMALL, "--dry-run").decode()
        for row in ("size           64x32", "steps          2", "latents        48 channels, 2 frames of 4x2"):
            self.assertIn(row, text)
        self.assertRegex(text, r"(?m)^  most at any time +\d")
        self.assertEqual(self.files(), [])

    def test_same_seed_same_bytes(self):
        for name in ("safetensors", "mp4"):
            for i, more in enumerate(([], [], ["--threads", "1"], ["--threads", "3"])):
                self.right("generate", "-m", TINY, "-p", "a cat", *SMALL, *more, "-o", "%d.%s" % (i, name))
            for i in range(1, 4):
                self.assertEqual(self.read("0." + name), self.read("%d.%s" % (i, name)))
        self.right("generate", "-m", TINY, "-p", "a cat", *SMALL, "--seed", "8", "-o", "other.safetensors")
        self.assertNotEqual(self.read("0.safetensors"), self.read("other.safetensors"))

    def test_given_noise_is_the_seeds(self):
        self.right("stage", "noise", "--seed", "7", "--shape", "48,2,2,4", "--out", "n.safetensors")
        self.right("generate", "-m", TINY, "-p", "a cat", *SMALL, "-o", "a.safetensors")
        self.right("generate", "-m", TINY, "-p", "a cat", *SMALL, "--noise", "n.safetensors", "-o", "b.safetensors")
        a, b = (read_safetensors(self.path(n))[0] for n in ("a.safetensors", "b.safetensors"))
        self.assertEqual(a, b)

    def test_says_what_would_be_faster(self):
        """Where there is something, and unless a precision was asked for."""
        there = "auto looks at" in self.right("doctor", "--device", "cpu").decode()
        for asked, told in ((), there), (("--precision", "f32"), False):
            out = self.right("generate", "-m", TINY, "-p", "x", *SMALL, "--device", "cpu", *asked, "-o", "c.safetensors", "-y")
            self.assertEqual("--precision auto" in out.decode().split("again:")[0], told)

    def test_the_command_that_repeats(self):
        """As printed at the end of a run, and as kept inside the clip: pasted into a shell, the same bytes come out."""
        prompt = "it's a \"cat\" & $HOME `date` \\n; 猫\nand a new line"
        for name in ("c.mp4", "c.safetensors"):
            with self.subTest(name):
                out = self.right("generate", "-m", TINY, "-p", prompt, "-n", "", *SMALL, "-i", IMAGE, "--guidance", "2.1",
                                 "-o", name).decode()
                first = self.read(name)
                again = out.split("again:  ", 1)[1]
                subprocess.run(["sh", "-c", again], cwd=self.dir, check=True, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
                self.assertEqual(self.read(name), first)
                said = json.loads(self.right("inspect", name, "--json"))
                self.assertEqual(said["settings"]["prompt"], prompt)
                self.assertEqual(shlex.split(said["command"])[1], "generate")
                self.assertIn(said["command"], self.right("inspect", name).decode())
                subprocess.run(["sh", "-c", said["command"] + " -o again-" + name], cwd=self.dir, check=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                self.assertEqual(self.read("again-" + name), first)

    def test_hostile_comment(self):
        """Settings inside a clip may be anybody's: no option of theirs is believed, no escape reaches the terminal."""
        self.right("generate", "-m", TINY, "-p", "\x1b[2Jx", *SMALL, "-o", "c.mp4")
        said = self.right("inspect", "c.mp4")
        self.assertNotIn(b"\x1b", said)
        self.assertIn(b"$'\\033[2Jx'", said)
        for settings in ({"program": "wan", "steps": "9; rm -rf /"}, {"program": "wan", "prompt": 3},
                         {"program": "wan", "size": [1]}, {"program": "wan", "seed": -5}):
            write_safetensors(self.path("h.safetensors"),
                              {"frames": ("U8", [1], b"x"), "latents": ("F32", [1], bytes(4))},
                              lambda head: head.update(__metadata__={"settings": json.dumps(settings)}))
            self.refused(FORMAT, "h.safetensors", "inspect", "h.safetensors")

    def test_progress_for_people(self):
        status, out, err = self.generate("-o", "c.safetensors")
        self.assertEqual(status, OK)
        self.assertRegex(err, r"(?m)^text 0/2$")
        self.assertRegex(err, r"(?m)^denoise 0/2")
        self.assertNotIn("\x1b", err)
        self.assertIn(b"c.safetensors: 5 frames of 64x32", out)
        status, out, err = self.generate("-o", "d.safetensors", "-q")
        self.assertEqual((status, out, err), (OK, b"", ""))

    def test_progress_on_a_terminal(self):
        import pty
        ours, theirs = pty.openpty()
        p = subprocess.Popen([WAN, "generate", "-m", TINY, "-p", "x", *SMALL, "-o", "c.safetensors"], cwd=self.dir,
                             stdout=subprocess.DEVNULL, stderr=theirs, stdin=subprocess.DEVNULL)
        os.close(theirs)
        seen = b""
        while True:
            try:
                more = os.read(ours, 4096)
            except OSError:
                break
            if not more:
                break
            seen += more
        os.close(ours)
        self.assertEqual(p.wait(60), OK)
        self.assertIn(b"\r\x1b[Kdenoise 1/2", seen)
        self.assertNotIn(b"\n", seen)
        self.assertTrue(seen.endswith(b"\r\x1b[K"), seen[-80:])

    def test_long_prompt_warns(self):
        _, out, err = self.generate("-p", "cat " * 600, "-o", "c.safetensors", "--json")
        self.assertIn("warning", err)
        self.assertIn("warning", [json.loads(line).get("level") for line in out.splitlines()])

    @unittest.skipUnless(os.path.isdir(DEMO), "no demo model in this tree")
    def test_demo_model(self):
        status, out, err = self.wan("generate", "-p", "a red star", "--dry-run")
        self.assertEqual(status, OK, err)
        self.assertIn("using the demo model (", err)
        self.assertIn("-m chooses another", err)
        self.assertRegex(out.decode(), r"(?m)^size +256x256$")
        self.assertNotRegex(out.decode(), r"(?m)^model ")


class Inspect(Case):
    def test_folders_and_files(self):
        for model in (TINY, GGUF, os.path.join(TESTS, "golden", "tiny-a", "original")):
            with self.subTest(model=model):
                said = json.loads(self.right("inspect", model, "--json"))
                self.assertEqual(len(said["parts"]), 3)
                for p in said["parts"]:
                    self.assertEqual((p["missing"], p["unexpected"]), ([], []))
                    self.assertNotIn("problem", p)
                    self.assertGreater(p["tensors"], 10)
                self.assertEqual(said["absent"], [])
                text = self.right("inspect", model).decode()
                for p in said["parts"]:
                    self.assertIn(p["path"], text)
        self.assertIn("Q8_0", self.right("inspect", os.path.join(GGUF, "dit-Q8_0.gguf")).decode())

    def test_what_is_wrong(self):
        model = self.copy()
        vae = part(model, "vae")

        def change(tensors):
            tensors["extra.weight"] = ("F32", [1], bytes(4))
            tensors.pop("decoder.conv_in.bias")
        spoil(vae, change)
        said = json.loads(self.right("inspect", vae, "--json"))["parts"][0]
        self.assertTrue(any("conv" in n for n in said["missing"]), said)
        self.assertIn("extra.weight", said["unexpected"])
        shutil.rmtree(os.path.join(model, "text_encoder"))
        said = json.loads(self.right("inspect", model, "--json"))
        self.assertEqual([a["part"] for a in said["absent"]], ["text encoder"])

    def test_nothing_there(self):
        self.refused(IO, "absent", "inspect", "absent")
        with open(self.path("x.bin"), "wb") as f:
            f.write(b"hello" * 100)
        self.refused(FORMAT, "x.bin", "inspect", "x.bin")
        with open(self.path("x.mp4"), "wb") as f:
            f.write(b"\0\0\0\x18ftypisom" + b"\xff" * 500)
        self.refused(FORMAT, "x.mp4", "inspect", "x.mp4")


if __name__ == "__main__":
    main()
