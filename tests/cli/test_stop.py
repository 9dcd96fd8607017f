# SPDX-License-Identifier: Apache-2.0
"""Runs that end early: Ctrl-C in every stage, and no memory.  Nothing is left behind."""
import threading
import time

from wan import *

LONG = ["--size", "512x512", "--frames", "33", "--steps", "3", "--seed", "1"]


class Interrupted(Case):
    def stop(self, stage, step, number, output):
        """Signals a run once it reports that step of that stage."""
        p = subprocess.Popen([WAN, "generate", "-m", TINY, "-p", "x", *LONG, "-i", IMAGE, "-o", output, "--json"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.dir)
        limit = threading.Timer(120, p.kill)
        limit.start()
        sent = None
        for line in p.stdout:
            event = json.loads(line)
            if sent is None and event["event"] == "progress" and (event["stage"], event["step"]) == (stage, step):
                p.send_signal(number)
                sent = time.monotonic()
            last = event
        status, took = p.wait(), time.monotonic() - sent
        limit.cancel()
        err = p.stderr.read().decode()
        p.stdout.close()
        p.stderr.close()
        self.assertEqual(status, CANCELLED, err)
        self.assertEqual((last["event"], last["code"]), ("error", CANCELLED))
        self.assertIn("wan: ", err)
        self.assertEqual(self.files(), [])
        self.assertLess(took, 10)

    def test_every_stage(self):
        for stage, step in (("text", 0), ("text", 1), ("encode", 0), ("denoise", 0), ("denoise", 2), ("decode", 0),
                            ("decode", 1)):
            for output in ("c.mp4", "c.safetensors"):
                with self.subTest(stage=stage, step=step, output=output):
                    self.stop(stage, step, signal.SIGINT, output)

    def test_other_signals(self):
        self.stop("denoise", 0, signal.SIGTERM, "c.mp4")
        self.stop("denoise", 0, signal.SIGHUP, "c.png")

    def test_stage_command(self):
        write_safetensors(self.path("in.safetensors"),
                          {"latents": ("F32", [48, 9, 32, 32], bytes(4 * 48 * 9 * 32 * 32))})
        p = subprocess.Popen([WAN, "stage", "decode", "-m", TINY, "--in", "in.safetensors", "--out", "out.safetensors"],
                             stderr=subprocess.PIPE, cwd=self.dir)
        time.sleep(0.7)
        p.send_signal(signal.SIGINT)
        err = p.stderr.read().decode()
        p.stderr.close()
        self.assertEqual(p.wait(60), CANCELLED, err)
        self.assertEqual(self.files(), ["in.safetensors"])

    def test_ignored_by_the_parent(self):
        """nohup wan ... goes on after the terminal has closed."""
        p = subprocess.Popen([WAN, "generate", "-m", TINY, "-p", "x", *SMALL, "-o", "c.safetensors", "--json"],
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=self.dir,
                             preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        p.stdout.readline()
        p.send_signal(signal.SIGHUP)
        p.stdout.read()
        p.stdout.close()
        self.assertEqual(p.wait(60), OK)
        self.assertEqual(self.files(), ["c.safetensors"])


@unittest.skipIf(SANITIZED, "AddressSanitizer needs all the address space")
class Memory(Case):
    def test_every_limit(self):
        """From where the program hardly starts to where the clip is made: it ends with a sentence or with the clip."""
        seen, sentences = set(), 0
        for mib in list(range(100, 400, 12)):
            status, _, err = self.wan("generate", "-m", TINY, "-p", "x", "--size", "512x512", "--frames", "5", "--steps",
                                      "1", "--seed", "1", "--threads", "2", "-i", IMAGE, "-o", "c.mp4", "-q",
                                      limits={resource.RLIMIT_AS: mib << 20})
            if "error while loading shared libraries" in err:
                continue
            seen.add(status)
            self.assertIn(status, (OK, MEMORY), "%d MiB: %s" % (mib, err))
            if status == MEMORY:
                self.assertIn("wan: ", err)
                self.assertRegex(err, "memory|threads")
            self.assertEqual(self.files(), ["c.mp4"] if status == OK else [])
            if status == OK:
                break
        self.assertEqual(seen, {OK, MEMORY})

    def test_a_clip_too_large(self):
        status, _, err = self.wan("generate", "-m", TINY, "-p", "x", "--size", "16384x16384", "--frames", "4001", "--steps",
                                  "1", "-o", "c.safetensors", limits={resource.RLIMIT_AS: 1 << 30})
        self.assertIn(status, (MEMORY, SPACE), err)
        self.assertEqual(self.files(), [])


if __name__ == "__main__":
    main()
