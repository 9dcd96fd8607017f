# SPDX-License-Identifier: Apache-2.0
"""Where clips go: what cannot be written is refused before anything is computed, and nothing half-made stays."""
from wan import *

Y4M_HEADER = b"YUV4MPEG2 W64 H32 F24:1"


def boxes(path):
    """Types of an MP4's top-level boxes, in order."""
    with open(path, "rb") as f:
        blob = f.read()
    names, at = [], 0
    while at + 8 <= len(blob):
        size, name = struct.unpack(">I4s", blob[at:at + 8])
        names.append(name.decode())
        at += size if size >= 8 else len(blob)
    return names


class Kinds(Case):
    def test_safetensors(self):
        self.right("generate", "-m", TINY, "-p", "a cat", *SMALL, "-o", "c.safetensors")
        tensors, meta = read_safetensors(self.path("c.safetensors"))
        self.assertEqual({k: v[:2] for k, v in tensors.items()},
                         {"latents": ("F32", [48, 2, 2, 4]), "frames": ("U8", [5, 32, 64, 3])})
        settings = json.loads(meta["settings"])
        self.assertEqual([settings[k] for k in ("prompt", "size", "frames", "steps", "seed")],
                         ["a cat", "64x32", 5, 2, 7])
        self.assertEqual(self.files(), ["c.safetensors"])

    def test_mp4(self):
        self.right("generate", "-m", TINY, "-p", "a cat", *SMALL, "--fps", "24000/1001", "-o", "c.mp4")
        names = boxes(self.path("c.mp4"))
        self.assertLess(names.index("moov"), names.index("mdat"))
        self.assertEqual(self.files(), ["c.mp4"])
        out = json.loads(self.right("inspect", "c.mp4", "--json"))
        self.assertEqual([out[k] for k in ("width", "height", "frames")], [64, 32, 5])
        self.assertAlmostEqual(out["fps"], 24000 / 1001, places=4)
        self.assertEqual(out["settings"]["fps"], "24000/1001")

    def test_other_kinds(self):
        for ending, magic in (("webm", b"\x1A\x45\xDF\xA3"), ("gif", b"GIF89a"), ("y4m", Y4M_HEADER)):
            with self.subTest(ending):
                self.right("generate", "-m", TINY, "-p", "a cat", *SMALL, "-o", "c." + ending)
                with open(self.path("c." + ending), "rb") as f:
                    self.assertEqual(f.read(len(magic)), magic)

    def test_pictures(self):
        self.right("generate", "-m", TINY, "-p", "a cat", *SMALL, "-o", "c.png")
        self.assertEqual(self.files(), ["c-%05d.png" % i for i in range(5)])
        # The first of them is a clip that exists.
        self.refused(OUTPUT, ["c-00000.png exists", "-y"], "generate", "-m", TINY, "-p", "a cat", *SMALL, "-o", "c.png")

    def test_standard_output(self):
        out = self.right("generate", "-m", TINY, "-p", "a cat", *SMALL, "-o", "-")
        self.assertTrue(out.startswith(Y4M_HEADER), out[:60])
        head, body = out.split(b"\n", 1)
        self.assertEqual(len(body), 5 * (6 + 64 * 32 * 3 // 2))
        self.right("generate", "-m", TINY, "-p", "a cat", *SMALL, "-o", "c.y4m")
        with open(self.path("c.y4m"), "rb") as f:
            self.assertEqual(f.read(), out)

    def test_default_name(self):
        self.right("generate", "-m", TINY, "-p", "a cat", *SMALL)
        self.assertEqual(self.files(), ["wan-7.mp4"])
        out = self.right("generate", "-m", TINY, "-p", "x", *SMALL, "--seed", "-1", "--json")
        done = json.loads(out.splitlines()[-1])
        self.assertEqual(self.files(), sorted(["wan-7.mp4", "wan-%d.mp4" % done["seed"]]))

    def test_no_metadata(self):
        for name in ("c.mp4", "c.safetensors"):
            self.right("generate", "-m", TINY, "-p", "a secret wish", *SMALL, "--no-metadata", "-o", name)
            with open(self.path(name), "rb") as f:
                self.assertNotIn(b"secret", f.read())
        self.assertIn(b"does not say", self.right("inspect", "c.mp4"))


class Refused(Case):
    """Before the first event of progress: nothing was computed in vain."""

    def early(self, status, words, *args, **more):
        self.refused(status, words, "generate", "-m", TINY, "-p", "a cat", *SMALL, *args, **more)

    def test_existing(self):
        for name in ("c.mp4", "c.safetensors", "c.gif"):
            with self.subTest(name):
                with open(self.path(name), "wb") as f:
                    f.write(b"mine")
                self.early(OUTPUT, [name + " exists", "-y"], "-o", name)
                with open(self.path(name), "rb") as f:
                    self.assertEqual(f.read(), b"mine")
                self.right("generate", "-m", TINY, "-p", "a cat", *SMALL, "-o", name, "-y")
                self.assertGreater(os.path.getsize(self.path(name)), 100)
        with open(self.path("s.safetensors"), "wb") as f:
            f.write(b"mine")
        self.refused(OUTPUT, "-y", "stage", "noise", "--shape", "1,1,1,3", "--out", "s.safetensors")
        self.right("stage", "noise", "--shape", "1,1,1,3", "--out", "s.safetensors", "-y")

    def test_places(self):
        os.mkdir(self.path("d.mp4"))
        for path in ("no/such/c.mp4", "no/such/c.safetensors", "no/such/c.png"):
            with self.subTest(path):
                self.early(OUTPUT, path, "-o", path)
        self.early(OUTPUT, "d.mp4", "-o", "d.mp4", "-y")
        # A place with no disk behind it.
        for path in ("/proc/c.mp4", "/proc/c.safetensors"):
            status, _, err = self.wan("generate", "-m", TINY, "-p", "a cat", *SMALL, "-o", path)
            self.assertIn(status, (OUTPUT, SPACE), err)
        with open("/dev/full", "wb") as full:
            status, _, err = self.wan("generate", "-m", TINY, "-p", "a cat", *SMALL, "-o", "-", stdout=full)
        self.assertIn(status, (OUTPUT, SPACE), err)

    @unittest.skipIf(os.geteuid() == 0, "root may write anywhere")
    def test_permission(self):
        os.mkdir(self.path("locked"), 0o500)
        self.early(OUTPUT, "locked", "-o", "locked/c.mp4")

    def test_file_size_limit(self):
        """A limit of the shell stands for a disk that fills up while frames are written."""
        for name in ("c.safetensors", "c.mp4", "c.y4m", "c.gif", "c.webm", "c.png"):
            for limit in (0, 700):
                with self.subTest(name=name, limit=limit):
                    self.early(SPACE, "c", "-o", name, limits={resource.RLIMIT_FSIZE: limit})
        self.refused(SPACE, "n.safetensors", "stage", "noise", "--shape", "16,9,16,16", "--out", "n.safetensors",
                     limits={resource.RLIMIT_FSIZE: 1000})

    def test_full_disk(self):
        """A real disk of 64 KiB, where this user may mount one."""
        disk = self.path("disk")
        os.mkdir(disk)
        mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], stderr=subprocess.DEVNULL)
        if mount.returncode:
            self.skipTest("cannot mount")
        try:
            for name in ("c.safetensors", "c.y4m", "c.mp4", "c.webm", "c.gif", "c.png"):
                status, _, err = self.wan("generate", "-m", TINY, "-p", "x", "--size", "256x256", "--frames", "5", "--steps",
                                          "1", "-o", os.path.join(disk, name))
                self.assertEqual(status, SPACE, err)
                self.assertEqual(os.listdir(disk), [])
        finally:
            subprocess.run(["umount", disk], check=True)

    def test_reader_that_leaves(self):
        """Standard output closed after the first bytes is an error, not a signal."""
        p = subprocess.Popen([WAN, "generate", "-m", TINY, "-p", "x", "--size", "256x256", "--frames", "17", "--steps", "1",
                              "-o", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.dir)
        p.stdout.read(10)
        p.stdout.close()
        err = p.stderr.read().decode()
        p.stderr.close()
        self.assertEqual(p.wait(60), OUTPUT, err)
        self.assertIn("standard output", err)


if __name__ == "__main__":
    main()
