# SPDX-License-Identifier: Apache-2.0
"""What the tests of the command line share: running `wan`, and files that are right or wrong in one place.

ctest sets WAN (the program), WAN_TESTS (this repository's tests/) and runs each test_*.py.  Standard library only.
"""
import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import unittest

WAN = os.environ.get("WAN", "build/wan")
TESTS = os.environ.get("WAN_TESTS", os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TINY = os.path.join(TESTS, "golden", "tiny-a", "model")
GGUF = os.path.join(TESTS, "golden", "tiny-a", "gguf")
OTHER = os.path.join(TESTS, "golden", "tiny-b", "model")  # of other widths
GOLDEN = os.path.join(TESTS, "golden", "tiny-a", "golden")
IMAGE = os.path.join(GOLDEN, "image.png")

# AddressSanitizer needs address space and memory of its own, so limits and plans of memory mean nothing then.
SANITIZED = b"libasan" in subprocess.run(["ldd", WAN], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout

OK, INTERNAL, USAGE, IO, FORMAT, SHAPE, TYPE, PARTS, IMAGE_BAD, TEXT, OUTPUT, SPACE, MEMORY, GRID, DEVICE, SELFTEST = range(16)
CANCELLED = 130

SMALL = ["--size", "64x32", "--frames", "5", "--steps", "2", "--seed", "7"]


class Case(unittest.TestCase):
    """A test in a folder of its own, in which nothing may be left behind."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="wan-cli.")

    def tearDown(self):
        shutil.rmtree(self.dir, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.dir, name)

    def files(self):
        return sorted(os.listdir(self.dir))

    def wan(self, *args, limits=None, timeout=120, **more):
        """(status, stdout, stderr) of one run in the test's folder; a signal counts as a failure of its own."""

        def limit():
            for what, value in (limits or {}).items():
                resource.setrlimit(what, (value, value))

        more.setdefault("stdout", subprocess.PIPE)
        p = subprocess.run([WAN, *args], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=self.dir, timeout=timeout,
                           preexec_fn=limit if limits else None, **more)
        err = p.stderr.decode("utf-8", "replace")
        self.assertGreaterEqual(p.returncode, 0, "died of signal %d: %s" % (-p.returncode, err))
        return p.returncode, p.stdout or b"", err

    def generate(self, *args, model=TINY, **more):
        return self.wan("generate", "-m", model, "-p", "a cat", *SMALL, *args, **more)

    def right(self, *args, **more):
        """A run that must succeed; its standard output."""
        status, out, err = self.wan(*args, **more)
        self.assertEqual(status, OK, err)
        return out

    def refused(self, status, words, *args, **more):
        """A run that must fail with that status, one sentence that holds every word, and nothing left behind."""
        before = self.files()
        got, _, err = self.wan(*args, **more)
        last = [line for line in err.splitlines() if line.startswith("wan: ")][-1:] or ["(no message) " + err]
        self.assertEqual(got, status, err)
        for word in [words] if isinstance(words, str) else words:
            self.assertIn(word, last[0])
        self.assertNotIn("Sanitizer", err)
        self.assertEqual(self.files(), before)

    def copy(self, model=TINY):
        """A model that may be spoilt."""
        to = self.path("model")
        shutil.copytree(model, to)
        for folder, _, names in os.walk(to):
            os.chmod(folder, 0o755)
            for name in names:
                os.chmod(os.path.join(folder, name), 0o644)
        return to


def read_safetensors(path):
    """name -> (dtype, shape, bytes), and the metadata."""
    with open(path, "rb") as f:
        blob = f.read()
    n = struct.unpack("<Q", blob[:8])[0]
    head = json.loads(blob[8:8 + n])
    meta = head.pop("__metadata__", {})
    data = blob[8 + n:]
    return {k: (v["dtype"], v["shape"], data[v["data_offsets"][0]:v["data_offsets"][1]]) for k, v in head.items()}, meta


def write_safetensors(path, tensors, header=None):
    """tensors: name -> (dtype, shape, bytes).  `header` may change the dictionary before it is written."""
    head, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    if header:
        header(head)
    text = json.dumps(head).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(t[2] for t in tensors.values()))


def spoil(path, change):
    """Rewrites a safetensors file after change(tensors)."""
    tensors, _ = read_safetensors(path)
    change(tensors)
    write_safetensors(path, tensors)


def edit(path, change):
    """Rewrites a file after change(bytearray) -> bytes or None (changed in place)."""
    with open(path, "rb") as f:
        blob = bytearray(f.read())
    new = change(blob)
    with open(path, "wb") as f:
        f.write(blob if new is None else new)


def part(model, folder):
    """The (last) weight file of a part in the diffusers layout."""
    d = os.path.join(model, folder)
    return os.path.join(d, sorted(n for n in os.listdir(d) if n.endswith(".safetensors"))[-1])


main = unittest.main
__all__ = [n for n in dir() if not n.startswith("_")]
