# SPDX-License-Identifier: Apache-2.0
"""Options, help, manual page: every row of the table is in all of them, every mistake has its sentence."""
import shlex

from wan import *


class Options(Case):
    def test_mistakes(self):
        for words, args in [
            (["command"], []),
            (["frobnicate"], ["frobnicate"]),
            (["--sed", "--seed"], ["generate", "--sed", "3"]),
            (["--s may mean", "--size", "--steps"], ["generate", "--s", "3"]),
            (["unknown option --xyzzy-plugh"], ["generate", "--xyzzy-plugh"]),
            (["unknown option -x"], ["generate", "-x"]),
            (["--json takes no value"], ["generate", "--json=3"]),
            (["--frames needs a value"], ["generate", "--frames"]),
            (["--prompt needs a value"], ["generate", "-p"]),
            (["--steps", "0", "1 to 1000"], ["generate", "-p", "x", "--steps", "0"]),
            (["--guidance", "nan"], ["generate", "-p", "x", "--guidance", "nan"]),
            (["--size", "64", "WIDTHxHEIGHT"], ["generate", "-p", "x", "--size", "64"]),
            (["--seed", "18446744073709551616"], ["generate", "-p", "x", "--seed", "18446744073709551616"]),
            (["--fps", "24/0"], ["generate", "-p", "x", "--fps", "24/0"]),
            (["--sampler", "ddim", "unipc-official"], ["generate", "-p", "x", "--sampler", "ddim"]),
            (["--threads", "0"], ["generate", "-p", "x", "--threads", "0"]),
            (["stray"], ["generate", "-p", "x", "stray"]),
            (["prompt"], ["generate", "-m", TINY]),
            (["clip.avi", ".mp4", ".safetensors"], ["generate", "-m", TINY, "-p", "x", "-o", "clip.avi"]),
            (["clip", ".mp4"], ["generate", "-m", TINY, "-p", "x", "-o", "clip"]),
            (["--json", "-o -"], ["generate", "-m", TINY, "-p", "x", "-o", "-", "--json"]),
            (["usage: wan stage"], ["stage"]),
            (["there is no stage", "denoise", "sample"], ["stage", "denoise", "--out", "x.safetensors"]),
            (["--out"], ["stage", "noise", "--shape", "1,1,1,3"]),
            (["--shape"], ["stage", "noise", "--out", "x.safetensors"]),
            (["--shape", "1,2,3"], ["stage", "noise", "--out", "x.safetensors", "--shape", "1,2,3"]),
            (["-p"], ["stage", "tokens", "-m", TINY, "--out", "x.safetensors"]),
            (["--in"], ["stage", "text", "-m", TINY, "--out", "x.safetensors"]),
            (["precision", "f64"], ["generate", "-m", TINY, "-p", "x", "--precision", "f64"]),
            (["usage: wan inspect"], ["inspect"]),
            (["help"], ["help", "frobnicate"]),
        ]:
            with self.subTest(args=args):
                self.refused(USAGE, words, *args)

    def test_device(self):
        self.refused(DEVICE, "warp", "generate", "-m", TINY, "-p", "x", "--device", "warp")
        self.refused(DEVICE, "cuda", "generate", "-m", TINY, "-p", "x", "--device", "cuda:99")
        self.refused(DEVICE, "cuda:x", "generate", "-m", TINY, "-p", "x", "--device", "cuda:x")
        self.refused(USAGE, ["fp8", "cpu", "f32"], "generate", "-m", TINY, "-p", "x", "--device", "cpu", "--precision", "fp8")
        for size in "12X", "-1", "G", "0", "1e30", "12Gx":
            self.refused(USAGE, ["--max-vram", size], "generate", "-m", TINY, "-p", "x", "--max-vram", size)
        for size in "12G", "800M", "12GiB", "1.5gb", "8589934592":
            self.right("generate", "-m", TINY, "-p", "x", *SMALL, "--device", "cpu", "--max-vram", size, "--dry-run")

    def test_doctor(self):
        out = self.right("doctor").decode()
        self.assertRegex(out, r"(?m)^wan +version +\d")
        self.assertRegex(out, r"(?m)^cpu +kernels +scalar")
        self.assertRegex(out, r"(?m)^cuda +\S+ +\S")
        self.assertRegex(out, r"(?m)^use +device +(cpu, because|cuda:0, bf16)")
        told = json.loads(self.right("doctor", "--json"))
        self.assertEqual(told["event"], "doctor")
        self.assertLessEqual({"wan", "cpu", "cuda", "use"}, set(told))
        said = self.right("doctor", "--device", "cpu").decode()
        self.assertIn("cpu as asked", said)
        self.assertRegex(said, r"(?m)^use +precision +f32; (nothing is faster here|--precision auto looks at \w)")

    def test_short_names_and_repeats(self):
        """Unambiguous beginnings are enough, values may begin with a dash, and the last one counts."""
        out = self.right("generate", "--mod", TINY, "-p", "-x --json", *SMALL, "--ste", "9", "--step", "3", "--dry-run")
        self.assertRegex(out.decode(), r"(?m)^prompt +-x --json$")
        self.assertRegex(out.decode(), r"(?m)^steps +3$")

    def test_every_option_is_documented(self):
        page = self.right("help", "--man").decode()
        self.assertTrue(page.startswith(".TH WAN 1"))
        plain = re.sub(r"\\f.", "", page).replace("\\-", "-")
        names = set()
        commands = re.findall(r"(?m)^  ([a-z]+) +", self.right("help").decode())
        self.assertEqual(commands.pop(), "wan")  # the example
        self.assertEqual(commands.pop(), "help")
        self.assertLessEqual({"generate", "stage", "selftest", "inspect"}, set(commands))
        for command in commands:
            text = self.right("help", command).decode()
            self.assertEqual(text, self.right(command, "--help").decode())
            self.assertTrue(all(len(line) <= 96 for line in text.splitlines()))
            mine = re.findall(r"(?m)^  (?:-.,|   ) --([a-z-]+)", text)
            self.assertIn("help", mine)
            names.update(mine)
            for name in mine:
                # An unknown option says so; a known one says something else or works.
                _, _, err = self.wan(command, "--" + name)
                self.assertNotIn("unknown option", err)
                self.assertRegex(plain, r"(?m)^(-., )?--%s( |$)" % name)
        wanted = """model prompt negative image output size frames fps steps guidance shift sampler seed noise threads json
            dry-run dit text-encoder vae tokenizer device precision overwrite quiet no-metadata in out shape trace
            references help crf max-vram repeat"""
        self.assertLessEqual(set(wanted.split()), names)
        for status in ("130", "12"):
            self.assertIn("\n.TP\n%s\n" % status, page)

    def test_version_and_overview(self):
        self.assertRegex(self.right("--version").decode(), r"^wan \d+\.\d+\.\d+\n$")
        self.assertIn("wan generate -p", self.right("help").decode())
        self.assertEqual(self.right("--help"), self.right("help"))

    def test_stdout_that_is_full(self):
        with open("/dev/full", "wb") as full:
            status, _, err = self.wan("help", stdout=full)
        self.assertEqual(status, OUTPUT)
        self.assertIn("standard output", err)

    def test_closed_standard_files(self):
        """With 0, 1 and 2 closed, no file of ours may take their place."""
        command = shlex.join([WAN, "generate", "-m", TINY, "-p", "x", *SMALL, "-o", "c.safetensors"])
        status = subprocess.run(["sh", "-c", command + " <&- >&- 2>&-"], cwd=self.dir).returncode
        self.assertEqual(status, OK)
        tensors, _ = read_safetensors(self.path("c.safetensors"))
        self.assertEqual(tensors["frames"][1], [5, 32, 64, 3])


if __name__ == "__main__":
    main()
