#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Test pictures of every kind, and what they should look like, from Pillow.

    make_pictures.py [DIR]        needs: pip install pillow numpy simplejpeg

Writes DIR/*.{png,jpg,webp}, DIR/pictures.rgb (what each should decode to) and DIR/pictures.txt, one line a picture:
file, kind, width, height, orientation, transparent, profile, tolerance in levels, offset in pictures.rgb.  Also
DIR/resize.txt: sizes and FNV-1a checksums of Pillow's Lanczos.  Default DIR: tests/data/media."""
import io
import os
import struct
import sys
import zlib

import numpy as np
import simplejpeg
from PIL import Image, ImageCms, ImageOps

OUT = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "../tests/data/media")
rows, expected = [], bytearray()


def scene(w, h, seed):
    """Gradients, hard edges and a little noise: chroma with detail, extremes included."""
    r = np.random.default_rng(seed)
    y, x = np.mgrid[0:h, 0:w]
    a = np.stack([x * 255 / max(w - 1, 1), y * 255 / max(h - 1, 1), 128 + 100 * np.sin(x / 3 + y / 5)], -1)
    a[(x // 5 + y // 4) % 4 == 0] = (250, 20, 30)
    a[(x // 3 + y // 6) % 5 == 0] = (10, 40, 240)
    a[: h // 5, : w // 5] = 255
    return np.clip(a + r.normal(0, 6, a.shape), 0, 255).astype(np.uint8)


def add(name, data, rgb, kind, tolerance, orientation=1, transparent=0, profile=0):
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(data)
    rgb = np.ascontiguousarray(rgb, np.uint8)
    assert rgb.ndim == 3 and rgb.shape[2] == 3
    rows.append((name, kind, rgb.shape[1], rgb.shape[0], orientation, transparent, profile, tolerance, len(expected)))
    expected.extend(rgb.tobytes())


def seen(data):
    """What a reference pipeline sees: upright, RGB, alpha dropped."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def saved(image, format, **options):
    b = io.BytesIO()
    image.save(b, format, **options)
    return b.getvalue()


# ---------------------------------------------------------------------------------------------------------------- PNG

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pack(samples, depth):
    """[h, w, channels] to rows of bytes, each with filter 0."""
    h = samples.shape[0]
    flat = samples.reshape(h, -1)
    if depth == 16:
        raw = flat.astype(">u2").tobytes()
    elif depth == 8:
        raw = flat.astype(np.uint8).tobytes()
    else:
        bits = (flat[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        raw = np.packbits(bits.reshape(h, -1).astype(np.uint8), axis=1).tobytes()
    n = len(raw) // h
    return b"".join(b"\0" + raw[i * n:(i + 1) * n] for i in range(h))


def png(samples, colour, depth, extra=b"", interlaced=False, ending=b""):
    h, w = samples.shape[:2]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
        raw = b"".join(pack(samples[y::dy, x::dx], depth) for y, x, dy, dx in passes if samples[y::dy, x::dx].size)
    else:
        raw = pack(samples, depth)
    head = struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, interlaced)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(raw, 9)) + ending
            + chunk(b"IEND", b""))


def grey(a):
    return np.repeat(a.reshape(a.shape[0], a.shape[1], 1), 3, 2)


def make_png():
    a = scene(37, 29, 1)
    alpha = (np.mgrid[0:29, 0:37][1] * 7).astype(np.uint8)[..., None]
    opaque = np.full_like(alpha, 255)
    add("rgb.png", saved(Image.fromarray(a), "PNG"), a, "PNG", 0)
    add("rgba.png", png(np.concatenate([a, alpha], 2), 6, 8), a, "PNG", 0, transparent=1)
    add("opaque.png", png(np.concatenate([a, opaque], 2), 6, 8), a, "PNG", 0)
    add("interlaced.png", png(a, 2, 8, interlaced=True), a, "PNG", 0)
    add("grey.png", png(a[..., :1], 0, 8), grey(a[..., 0]), "PNG", 0)
    add("grey-alpha.png", png(np.concatenate([a[..., :1], alpha], 2), 4, 8), grey(a[..., 0]), "PNG", 0, transparent=1)
    for depth in (1, 2, 4):
        v = a[..., :1] >> (8 - depth)
        add(f"grey-{depth}.png", png(v, 0, depth), grey(v[..., 0].astype(int) * 255 // ((1 << depth) - 1)), "PNG", 0)
        table = np.random.default_rng(depth).integers(0, 256, (1 << depth, 3), dtype=np.uint8)
        add(f"palette-{depth}.png", png(v, 3, depth, chunk(b"PLTE", table.tobytes())), table[v[..., 0]], "PNG", 0)
    table = np.random.default_rng(9).integers(0, 256, (256, 3), dtype=np.uint8)
    plte = chunk(b"PLTE", table.tobytes())
    add("palette.png", png(a[..., :1], 3, 8, plte), table[a[..., 0]], "PNG", 0)
    add("palette-clear.png", png(a[..., :1], 3, 8, plte + chunk(b"tRNS", bytes([0] * 128))), table[a[..., 0]], "PNG", 0,
        transparent=1)
    add("rgb-clear.png", png(a, 2, 8, chunk(b"tRNS", struct.pack(">HHH", *[int(v) for v in a[3, 4]]))), a, "PNG", 0,
        transparent=1)
    add("grey-1-clear.png", png(a[..., :1] >> 7, 0, 1, chunk(b"tRNS", b"\0\0")), grey((a[..., 0] >> 7) * 255), "PNG", 0)
    deep = scene(37, 29, 2).astype(np.uint16) * 257 - np.random.default_rng(3).integers(0, 200, (29, 37, 3)).astype(np.uint16)
    alpha16 = alpha.astype(np.uint16) * 257
    near = lambda v: ((v.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    add("rgb-16.png", png(deep, 2, 16), near(deep), "PNG", 0)
    add("rgba-16.png", png(np.concatenate([deep, alpha16], 2), 6, 16), near(deep), "PNG", 0, transparent=1)
    add("grey-16.png", png(deep[..., :1], 0, 16), grey(near(deep[..., 0])), "PNG", 0)
    add("grey-alpha-16.png", png(np.concatenate([deep[..., :1], alpha16], 2), 4, 16), grey(near(deep[..., 0])), "PNG", 0,
        transparent=1)
    assert np.abs(seen(png(deep, 2, 16)).astype(int) - near(deep)).max() <= 1
    add("dot.png", png(a[:1, :1], 2, 8), a[:1, :1], "PNG", 0)
    add("tail.png", png(a, 2, 8) + b"not a picture any more", a, "PNG", 0)
    small = [Image.fromarray(scene(12, 7, s)) for s in (4, 5)]
    add("moving.png", saved(small[0], "PNG", save_all=True, append_images=small[1:]), np.asarray(small[0]), "PNG", 0)


def make_jpeg():
    for name, size, options in (
            ("444", (37, 29), {"subsampling": 0}), ("422", (37, 29), {"subsampling": 1}),
            ("420", (37, 29), {"subsampling": 2}), ("even", (48, 32), {"subsampling": 2}),
            ("progressive", (37, 29), {"subsampling": 2, "progressive": True}),
            ("restart", (61, 45), {"subsampling": 2, "restart_marker_blocks": 2}),
            ("optimised", (37, 29), {"optimize": True}), ("narrow", (3, 9), {"subsampling": 2}),
            ("five", (5, 5), {"subsampling": 2}), ("dot", (1, 1), {"subsampling": 2}),
            ("low", (37, 29), {"quality": 12, "subsampling": 2})):
        data = saved(Image.fromarray(scene(*size, 11)), "JPEG", **{"quality": 90, **options})
        add(f"{name}.jpg", data, seen(data), "JPEG", 3)
    for way in ("440", "411"):
        data = simplejpeg.encode_jpeg(np.ascontiguousarray(scene(37, 29, 12)), quality=90, colorsubsampling=way)
        add(f"{way}.jpg", data, seen(data), "JPEG", 3)
    data = saved(Image.fromarray(scene(37, 29, 13)).convert("L"), "JPEG", quality=90)
    add("grey.jpg", data, seen(data), "JPEG", 3)
    data = saved(Image.fromarray(scene(37, 29, 14)).convert("CMYK"), "JPEG", quality=90)
    add("cmyk.jpg", data, seen(data), "JPEG", 3)
    adobe = data.index(b"Adobe") + 11
    assert data[adobe] == 0
    data = bytearray(data[:adobe] + b"\2" + data[adobe + 1:])  # the same samples as YCCK
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    data[frame + 10:frame + 22:3] = data[scan + 5:scan + 13:2] = b"\1\2\3\4"  # named C, M, Y, K before
    # FFmpeg takes black off before YCbCr becomes RGB, rounding both: 3 + 1 + 1.772 levels at most.
    add("ycck.jpg", data, seen(data), "JPEG", 5)
    data = saved(Image.fromarray(scene(37, 29, 14)), "JPEG", quality=90, keep_rgb=True)
    add("keep-rgb.jpg", data, seen(data), "JPEG", 3)
    two = saved(Image.fromarray(scene(37, 29, 15)), "JPEG", quality=90)
    add("tail.jpg", two + two, seen(two), "JPEG", 3)


def make_webp():
    a = scene(37, 29, 21)
    alpha = (np.mgrid[0:29, 0:37][1] * 7).astype(np.uint8)[..., None]
    for name, image, options, clear in (
            ("lossy", Image.fromarray(a), {}, 0), ("even", Image.fromarray(scene(48, 32, 22)), {}, 0),
            ("best", Image.fromarray(a), {"quality": 100, "method": 6}, 0),
            ("lossless", Image.fromarray(a), {"lossless": True}, 0),
            ("lossy-alpha", Image.fromarray(np.concatenate([a, alpha], 2)), {"exact": True}, 1),
            ("lossless-alpha", Image.fromarray(np.concatenate([a, alpha], 2)), {"lossless": True, "exact": True}, 1),
            ("dot", Image.fromarray(a[:1, :1]), {}, 0), ("two", Image.fromarray(a[:2, :2]), {}, 0)):
        data = saved(image, "WEBP", **options)
        add(f"{name}.webp", data, seen(data), "WebP", 0, transparent=clear)
    frames = [Image.fromarray(scene(12, 7, s)) for s in (4, 5)]
    with open(os.path.join(OUT, "moving.webp.bad"), "wb") as f:
        f.write(saved(frames[0], "WEBP", save_all=True, append_images=frames[1:]))


# ------------------------------------------------------------------------------------------- orientation and profiles

def exif(n, order):
    e = ">" if order == "MM" else "<"
    entries = [(0x010F, 2, 4, b"wan\0"), (0x0112, 3, 1, struct.pack(e + "HH", n, 0))]
    body = struct.pack(e + "H", len(entries)) + b"".join(struct.pack(e + "HHI", *x[:3]) + x[3] for x in entries)
    return order.encode() + struct.pack(e + "HI", 42, 8) + body + struct.pack(e + "I", 0)


def make_oriented():
    image = Image.fromarray(scene(12, 7, 31))
    for n in range(1, 9):
        tiff = exif(n, "MM" if n % 2 else "II")
        data = png(np.asarray(image), 2, 8, chunk(b"eXIf", tiff) if n % 3 else b"", ending=b"" if n % 3 else chunk(b"eXIf", tiff))
        add(f"exif-{n}.png", data, seen(data), "PNG", 0, orientation=n)
        data = saved(image, "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0" + tiff)
        add(f"exif-{n}.jpg", data, seen(data), "JPEG", 3, orientation=n)
        data = saved(image, "WEBP", lossless=True, exif=(b"Exif\0\0" if n % 2 else b"") + tiff)
        add(f"exif-{n}.webp", data, seen(data), "WebP", 0, orientation=n)
    data = saved(image, "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0" + exif(9, "MM"))
    add("exif-9.jpg", data, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), "JPEG", 3)


def make_profiles():
    image = Image.fromarray(scene(12, 7, 41))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    other = srgb.replace("sRGB".encode("utf-16-be"), "wide".encode("utf-16-be"))
    assert other != srgb and b"sRGB" not in other
    for name, profile, foreign in (("srgb", srgb, 0), ("wide", other, 1)):
        for format, ending, tolerance, options in (("PNG", "png", 0, {}), ("JPEG", "jpg", 3, {}),
                                                   ("WEBP", "webp", 0, {"lossless": True})):
            data = saved(image, format, icc_profile=profile, **options)
            kind = {"WEBP": "WebP"}.get(format, format)
            add(f"{name}.{ending}", data, seen(data), kind, tolerance, profile=foreign)


# ------------------------------------------------------------------------------------------------------------- resize

def fnv(data):
    h = 0xcbf29ce484222325
    for b in data:
        h = (h ^ b) * 0x100000001b3 & 0xffffffffffffffff
    return h


def mixed(n, state):
    """Bytes of a linear congruential generator, which the test repeats."""
    out = bytearray()
    for _ in range(n):
        state = (state * 1664525 + 1013904223) & 0xffffffff
        out.append(state >> 24 if state >> 20 & 3 else 255 * (state >> 23 & 1))
    return bytes(out)


def make_resize():
    sizes = [(1, 1, 7, 5), (7, 5, 1, 1), (33, 19, 64, 32), (101, 77, 64, 32), (64, 48, 64, 32), (64, 48, 32, 48),
             (26, 163, 47, 33), (21, 97, 1, 78), (297, 63, 285, 3), (3, 33, 1, 26), (3, 3, 2, 1), (13, 33, 2, 25),
             (37, 97, 2, 19), (2, 213, 3, 29), (45, 80, 64, 48), (200, 150, 96, 64), (150, 200, 96, 64), (17, 13, 17, 13)]
    with open(os.path.join(OUT, "resize.txt"), "w") as f:
        for i, (sw, sh, dw, dh) in enumerate(sizes):
            a = np.frombuffer(mixed(sw * sh * 3, i), np.uint8).reshape(sh, sw, 3)
            b = np.asarray(Image.fromarray(a).resize((dw, dh), Image.LANCZOS))
            f.write(f"{sw} {sh} {dw} {dh} {fnv(b.tobytes()):016x}\n")


os.makedirs(OUT, exist_ok=True)
make_png()
make_jpeg()
make_webp()
make_oriented()
make_profiles()
make_resize()
with open(os.path.join(OUT, "pictures.rgb"), "wb") as f:
    f.write(expected)
with open(os.path.join(OUT, "pictures.txt"), "w") as f:
    for r in rows:
        f.write(" ".join(str(v) for v in r) + "\n")
print(len(rows), "pictures,", len(expected), "bytes of RGB")
