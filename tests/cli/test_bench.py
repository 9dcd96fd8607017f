# SPDX-License-Identifier: Apache-2.0
"""wan bench: figures of each stage, budgets, the one object of --json."""
import json

from wan import *

BENCH = ["bench", "-m", TINY, "--size", "64x32", "--frames", "5", "--device", "cpu"]
STAGES = ["text", "encode", "dit", "decode"]


class Bench(Case):
    def bench(self, *args, status=OK):
        """The object, which is all there is on standard output, and standard error."""
        got, out, err = self.wan(*BENCH, "--json", *args)
        self.assertEqual(got, status, err)
        self.assertEqual(out.count(b"\n"), 1, out)
        return json.loads(out), err

    def test_figures(self):
        d, _ = self.bench("--steps", "2", "--threads", "2")
        self.assertEqual([s["name"] for s in d["stages"]], STAGES)
        self.assertEqual((d["device"], d["threads"], d["go"]), ("cpu", 2, True))
        self.assertGreaterEqual(d["load_seconds"], 0)
        for s in d["stages"]:
            with self.subTest(stage=s["name"]):
                for key in "seconds", "cpu_seconds", "flops", "bytes", "floor_seconds", "fraction_of_floor", "peak_bytes":
                    self.assertGreater(s[key], 0, key)
                # Nothing is faster than registers or a copy; the clock of a short stage is rough.
                self.assertLess(s["fraction_of_floor"], 1.2)
                self.assertAlmostEqual(s["fraction_of_floor"], s["floor_seconds"] / s["seconds"], places=6)
                self.assertLessEqual(s["peak_bytes"], d["peak_rss"])
        files = [os.path.join(f, n) for part in ("transformer", "text_encoder", "vae") for f, _, names in
                 os.walk(os.path.join(TINY, part)) for n in names if n.endswith(".safetensors")]
        self.assertGreater(d["model_bytes"], 0)
        self.assertLessEqual(d["model_bytes"], sum(os.path.getsize(f) for f in files))
        self.assertLessEqual(d["active_bytes"], d["peak_rss"])
        self.assertNotIn("peak_vram", d)
        self.assertAlmostEqual(d["job_seconds"], sum(s["seconds"] for s in d["stages"]), places=6)

    def test_stages_and_steps(self):
        flops = []
        for steps in "1", "2", "3":
            stage, = self.bench("--stage", "dit", "--steps", steps)[0]["stages"]
            self.assertEqual(stage["name"], "dit")
            flops.append(stage["flops"])
        # What the prompt costs is paid once, a step costs the same each time.
        self.assertEqual(flops[2] - flops[1], flops[1] - flops[0])
        self.assertTrue(0 < flops[1] - flops[0] < flops[0])
        self.refused(USAGE, ["stage", "all"], *BENCH, "--stage", "sing")
        self.refused(GRID, "33", "bench", "-m", TINY, "--size", "33x32", "--frames", "5", "--device", "cpu")
        again, _ = self.bench("--stage", "text", "--repeat", "3")
        self.assertGreater(again["stages"][0]["first_seconds"], 0)

    def test_budget_kept(self):
        d, _ = self.bench("--max-seconds", "1000", "--max-rss", "64G", "--max-vram", "1G")
        self.assertTrue(d["go"])
        out = self.right(*BENCH, "--max-seconds", "1000").decode()
        self.assertEqual(out.splitlines()[-1], "go")

    def test_budget_missed(self):
        for args, words in [(["--max-seconds", "0.001", "--repeat", "2"], " s is more than 0.001"), (["--max-rss", "1"], "1.0 MiB"),
                            (["--max-rss", "512K"], "512 KiB"), (["--max-rss", "1048576B"], "1.0 MiB")]:
            with self.subTest(args=args):
                d, err = self.bench("--stage", "decode", *args, status=INTERNAL)
                self.assertFalse(d["go"])
                self.assertIn("over the budget", err)
                self.assertIn(words, err)
                status, out, _ = self.wan(*BENCH, "--stage", "decode", *args)
                self.assertEqual((status, out.decode().splitlines()[-1]), (INTERNAL, "no-go"))

    def test_people_read(self):
        out = self.right(*BENCH).decode()
        for stage in ["load", *STAGES, "together"]:
            self.assertRegex(out, r"(?m)^%s +\d+\.\d\d" % stage)
        self.assertRegex(out, r"(?m)^decode .* \d+ % +\d+ MiB$")
        self.assertNotIn("go\n", out)

    def test_synthetic(self):
        self.refused(USAGE, "ti2v-5b", "bench", "--synthetic", "ti2v-9000b")
        self.refused(USAGE, ["--synthetic", "-m"], *BENCH, "--synthetic", "ti2v-5b")
        self.refused(USAGE, ["--type", "q9"], "bench", "--synthetic", "ti2v-5b", "--type", "q9")

    def test_gpu(self):
        status, out, err = self.wan(*BENCH[:-2], "--device", "cuda", "--json")
        if status == DEVICE:
            self.skipTest("no GPU here: " + err.strip())
        d = json.loads(out.splitlines()[-1])
        self.assertGreater(d["peak_vram"], 0)
        status, out, _ = self.wan(*BENCH[:-2], "--device", "cuda", "--json", "--max-vram", "1M")
        self.assertEqual(status, INTERNAL)
        self.assertFalse(json.loads(out.splitlines()[-1])["go"])


if __name__ == "__main__":
    main()
